"""Helpers for tests that build real namespaces: they use `sim` as a user does, by its command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MADE_UP = """
sim: 1
name: made-up
topology: one-lan
subject: server
change: {config: {ethernets: {eth0: {addresses: [192.0.2.110/24]}}}}
breaks: [client -> server]
"""


@dataclass(frozen=True)
class Said:
    """What a command printed, how it ended, and the results that it wrote."""

    status: int
    text: str
    results: list[dict[str, Any]]

    @property
    def verdicts(self) -> list[str]:
        """The verdict of each run, in order."""
        return [result["verdict"] for result in self.results]

    def why(self) -> str:
        """All findings that are no pass, in one text."""
        return "\n".join(
            f"{finding['check']}: {finding['why']}"
            for result in self.results
            for finding in result["findings"]
            if finding["verdict"] in ("fail", "unknown")
        )


def sim(*words: str, mark: str = "SIM_TEST=1") -> subprocess.CompletedProcess[str]:
    """One `sim` command to its end; `mark` (NAME=VALUE) is in the environment of its processes."""
    environment = os.environ | dict([mark.split("=")])
    return subprocess.run(command(*words), check=False, capture_output=True, text=True, timeout=600, env=environment)


def command(*words: str) -> Sequence[str]:
    """The words that start `sim` with this Python."""
    return [sys.executable, "-m", "sim", *words]

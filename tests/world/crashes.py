"""`sim crash`, as the tests use it: by its command."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from made_up import sim

DATA = Path(__file__).parents[1] / "data"
TWO_FILES = DATA / "saver/two-files.sim.yaml"


@dataclass(frozen=True)
class Crashed:
    """How a command ended, what it printed, and its JSON."""

    status: int
    text: str
    json: dict[str, Any]

    def bad(self, *keys: str) -> list[tuple[Any, ...]]:
        """The bad points, each as the values of these keys."""
        return [tuple(point[key] for key in keys) for point in self.json["bad"]]


def crash(mechanism: str | Path, verb: str, *options: str, scenario: Path = TWO_FILES) -> Crashed:
    """`sim crash` to its end."""
    handle, out = tempfile.mkstemp(suffix=".json")
    os.close(handle)
    try:
        words = ("crash", str(scenario), "--mechanism", str(mechanism), "--verb", verb, "--json", out, *options)
        done = sim(*words)
        text = Path(out).read_text()
        return Crashed(done.returncode, done.stdout + done.stderr, json.loads(text) if text else {})
    finally:
        os.unlink(out)

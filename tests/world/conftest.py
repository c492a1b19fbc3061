"""Fixtures for tests that build real namespaces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import Said, sim


@pytest.fixture
def sim_run(tmp_path: Path) -> Callable[..., Said]:
    """`sim run` of scenario texts or paths: sim_run("…yaml…", "--mechanism", "none")."""

    def call(scenario: str | Path, *options: str) -> Said:
        if isinstance(scenario, str):
            path = tmp_path / "made-up.sim.yaml"
            path.write_text(scenario)
        else:
            path = scenario
        out = tmp_path / "out.json"
        done = sim("run", str(path), "--json", str(out), *options)
        results = json.loads(out.read_text())["results"] if out.exists() else []
        out.unlink(missing_ok=True)
        return Said(done.returncode, done.stdout + done.stderr, results)

    return call

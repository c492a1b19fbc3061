"""What all tests share: markers by folder, what is missing by name, and Hypothesis's profiles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from missing import CI, lacking

HERE = Path(__file__).parent

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if CI else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies in tests/world builds namespaces; what is marked `root` is skipped for others."""
    for item in items:
        if HERE / "world" in item.path.parents:
            item.add_marker("world")
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """`need("ip")` is the path of a program; without it the test is skipped, and with CI=true it fails."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is None:
            lacking(f"the program {program} is not installed")
        return path

    return find

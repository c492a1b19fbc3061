"""Fixtures for the tests of snapcore."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from snapcore_hosts import HostTree, fill

from snapcore import cli


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder where syncing costs nothing, if there is one that has extended attributes; else `tmp_path`."""
    try:
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    except OSError:
        yield tmp_path
        return
    try:
        try:
            os.setxattr(folder, "user.try", b"1")
            os.removexattr(folder, "user.try")
        except OSError:
            yield tmp_path
        else:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_host(fast: Path) -> Callable[[], HostTree]:
    """Makes as many trees as wanted, all alike."""
    made = 0

    def make() -> HostTree:
        nonlocal made
        made += 1
        root = fast / f"host{made}"
        root.mkdir()
        fill(root)
        return HostTree(root)

    return make


@pytest.fixture
def host(make_host: Callable[[], HostTree]) -> HostTree:
    return make_host()


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command as a process of its own, started as a boot hook starts it."""
    where = str(Path(cli.__file__).parents[1])
    start = f"import sys; sys.path.insert(0, {where!r}); from snapcore.cli import main; sys.exit(main())"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-I", "-c", start, *words], capture_output=True, text=True, timeout=60)

    return run

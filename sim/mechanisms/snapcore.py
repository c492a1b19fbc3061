"""snapcore itself, as it is installed beside `sim`: the package is copied to the machine, with a program on top."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from sim.scenario import FileText, Mechanism

LIBRARY = "/usr/lib/snapcore"
PROGRAM = "/usr/sbin/snapcore"
RECORD = "/var/lib/snapcore/open"


def mechanism() -> Mechanism:
    """The mechanism; `missing` says so when the package is not there."""
    spec = importlib.util.find_spec("snapcore")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    package = next((Path(folder) for folder in folders if (Path(folder) / "cli.py").is_file()), None)
    return Mechanism(
        name="snapcore",
        install=_install(package) if package else {},
        begin=f"{PROGRAM} begin",
        commit=f"{PROGRAM} commit",
        rollback=f"{PROGRAM} rollback",
        boot=f"[ ! -e {RECORD} ] || exec {PROGRAM} boot",  # as the shipped boot hooks do: no Python without need
        wrong_state=199,
        state=("/var/lib/snapcore",),
        covers=("files",),
        needs=("python3",),
        missing=None if package else "the Python package snapcore is not installed",
        extra={verb: f"{PROGRAM} {verb}" for verb in ("status", "confirm", "save", "load")},
    )


def _install(package: Path) -> dict[str, FileText]:
    """Modules and data files of the package, and the program."""
    installed = {}
    for file in sorted(package.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            place = f"{LIBRARY}/snapcore/{file.relative_to(package).as_posix()}"
            installed[place] = FileText(file.read_bytes(), file.stat().st_mode & 0o755 | 0o444)
    installed[PROGRAM] = FileText(_program().encode(), 0o755)
    return installed


def _program() -> str:
    # The interpreter below a virtual environment: that one is for `sim`, and may not be visible in the machine.
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    start = f'import sys; sys.path.insert(0, "{LIBRARY}"); from snapcore.cli import main; sys.exit(main())'
    found = f"python={python}; [ -x $python ] || python=python3  # a root tree of its own has a Python of its own"
    return f"#!/bin/sh\n{found}\nexec $python -I -B -c '{start}' \"$@\"\n"

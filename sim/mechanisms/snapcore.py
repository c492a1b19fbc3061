"""snapcore itself, as the single file that holds all of it, with the part of pyroute2 that it needs."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

from sim.scenario import FileText, Mechanism

ARCHIVE = "/usr/lib/snapcore/snapcore.pyz"
PROGRAM = "/usr/sbin/snapcore"
RECORD = "/var/lib/snapcore/open"

OFFERS = {
    "timeout": "begin --timeout {{seconds}} {options}",
    "probe": "try --timeout {{seconds}} --probe ping:{{probe}} {options} -- {{command}}",
    "client-loss": "try --timeout {{seconds}} --client-loss --confirm token {options} -- {{command}}",
    "quit": "begin --timeout {{seconds}} {options}",
}
"""What it undoes by itself; `options` are those of its begin."""


def mechanism(name: str = "snapcore", options: str = "", files_only: bool = False) -> Mechanism:
    """The mechanism; `missing` says so when the package is not there. `options` are those of its begin."""
    spec = importlib.util.find_spec("snapcore")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    package = next((Path(folder) for folder in folders if (Path(folder) / "cli.py").is_file()), None)
    kernel = importlib.util.find_spec("pyroute2") is not None
    return Mechanism(
        name=name,
        install=_install() if package else {},
        begin=f"{PROGRAM} begin {options}".rstrip(),
        commit=f"{PROGRAM} commit",
        rollback=f"{PROGRAM} rollback",
        # as the shipped boot hooks do: no Python without need, and an error is not absence
        boot=f'case $(LC_ALL=C; {{ : < {RECORD}; }} 2>&1) in *"o such file"*) ;; *) exec {PROGRAM} boot ;; esac',
        wrong_state=199,
        state=("/var/lib/snapcore",),
        covers=("files", "kernel") if kernel and not files_only else ("files",),
        needs=("python3",),
        missing=None if package else "the Python package snapcore is not installed",
        offers=tuple(OFFERS),
        extra={
            **{verb: f"{PROGRAM} {verb}" for verb in ("status", "confirm", "save", "load")},
            **{name: f"{PROGRAM} {text.format(options=options)}" for name, text in OFFERS.items()},
            "watcher": "main()) watch",
        },
    )


@cache
def _install() -> dict[str, FileText]:
    """The single file, and the program that starts it."""
    from snapcore import bundle

    return {ARCHIVE: FileText(bundle.archive(cached=True), 0o755), PROGRAM: FileText(_program().encode(), 0o755)}


def _program() -> str:
    # The interpreter below a virtual environment: that one is for `sim`, and may not be visible in the machine.
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    found = f"python={python}; [ -x $python ] || python=python3  # a root tree of its own has a Python of its own"
    return f'#!/bin/sh\n{found}\nexec $python -I -S -B {ARCHIVE} "$@"\n'

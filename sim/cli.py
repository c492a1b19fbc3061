"""The `sim` program: says what is missing where something is, and hands over to `sim.commands`.

This module imports nothing outside the standard library and runs on every Python that `snapcore` runs on: both
programs are installed together, but `sim` needs its extra and Python 3.11.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Optional

NEEDS = ("click", "rich", "ruamel.yaml", "pyroute2", "junitparser")
"""The import names of what the extra `sim` installs."""

NOTHING_COULD_RUN = 4


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run `sim` with `arguments` (default: those of the process) and return its exit status."""
    if lack := lacking():
        print(f"sim: {lack}", file=sys.stderr)
        return NOTHING_COULD_RUN
    from sim.commands import execute

    return execute(arguments)


def lacking() -> str:
    """What keeps `sim` from running with this interpreter, with the way to get it; empty when nothing does."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the distribution installs on what snapcore runs on
        version = ".".join(map(str, sys.version_info[:3]))
        return f"needs Python 3.11 or later, this is {version}; snapcore itself runs here"
    absent = [name for name in NEEDS if not _there(name)]
    if absent:
        return f"{', '.join(absent)} not installed; get what the laboratory needs with: pip install 'snapcore[sim]'"
    return ""


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


if __name__ == "__main__":
    sys.exit(main())

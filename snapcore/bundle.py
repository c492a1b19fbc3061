"""Builds `snapcore.pyz`: the whole program in one file that needs Python 3.9 and nothing else.

python3 -m snapcore.bundle snapcore.pyz
"""

from __future__ import annotations

import os
import sys
import zipfile

START = b"#!/usr/bin/env -S python3 -I\n"
MAIN = "import sys\n\nfrom snapcore.cli import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same sources give the same bytes."""


def build(target: str) -> None:
    """Writes the archive, executable, in the place of what is there."""
    package = os.path.dirname(os.path.abspath(__file__))
    with open(target, "wb") as file:
        file.write(START)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo("__main__.py", EPOCH), MAIN)
            for folder, folders, names in sorted(os.walk(package)):
                folders[:] = [name for name in folders if name != "__pycache__"]
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    inside = os.path.join("snapcore", os.path.relpath(path, package))
                    with open(path, "rb") as source:
                        archive.writestr(zipfile.ZipInfo(inside, EPOCH), source.read())
    os.chmod(target, 0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m snapcore.bundle FILE")
    build(sys.argv[1])

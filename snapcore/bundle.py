"""Builds `snapcore.pyz`: the whole program in one file that needs Python 3.9 and nothing else.

python3 -m snapcore.bundle snapcore.pyz

With it comes what is needed of pyroute2, where that is installed. Each module is in it as source and compiled: the
Python that has built the file starts without compiling anything, any other one uses the source.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import struct
import sys
import zipfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

START = b"#!/usr/bin/env -S python3 -I\n"
MAIN = b"import sys\n\nfrom snapcore.cli import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same sources give the same bytes."""
UNCHECKED = 1
"""Flags of a .pyc that is used without a look at its source (PEP 552)."""

PYROUTE2 = b'''"""pyroute2, those parts of it that snapcore uses."""


def __getattr__(name):
    if name == "IPRoute":
        from pyroute2.iproute import IPRoute

        return IPRoute
    raise AttributeError(name)
'''
"""In the place of its own __init__.py, which imports four times as much."""
LEFT_OUT = frozenset(
    ("__pycache__", "arp.py", "bsd", "cli", "conntrack.py", "decoder", "devlink.py", "dhcp", "ethtool", "ext",
     "fixtures", "inotify", "ipdb", "ipset.py", "ipvs.py", "iwutil.py", "minimal.py", "ndb", "nftables", "nslink",
     "plan9", "remote", "tests", "wirouting", "wiset.py",
     "connector", "devlink", "event", "generic", "ipq", "nfnetlink", "nl80211", "taskstats", "uevent")
)  # fmt: skip
"""Of pyroute2 and of pyroute2.netlink: what the routing tables do not need."""


def build(target: str) -> None:
    """Writes the archive, executable, in the place of what is there."""
    with open(target, "wb") as file:
        file.write(archive())
    os.chmod(target, 0o755)


def archive(cached: bool = False) -> bytes:
    """The bytes of the file. `cached`: quickly, with the compiled modules that this Python has put aside already.

    Without it the same sources give the same bytes.
    """
    target = io.BytesIO()
    target.write(START)
    with zipfile.ZipFile(target, "w") as made:
        _add(made, "__main__.py", MAIN, "")
        for inside, path in sorted(_files()):
            with open(path, "rb") as file:
                source = file.read()
            replaced = inside == "pyroute2/__init__.py"
            _add(made, inside, PYROUTE2 if replaced else source, path if cached and not replaced else "", cached)
    return target.getvalue()


def _files() -> Iterator[tuple[str, str]]:
    """(name inside, path) of all that is packed."""
    package = os.path.dirname(os.path.abspath(__file__))
    yield from _below(package, "snapcore", frozenset(["__pycache__"]))
    spec = importlib.util.find_spec("pyroute2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from _below(folder, "pyroute2", LEFT_OUT)
        above = os.path.dirname(folder)
        for name in os.listdir(above):
            if name.startswith("pyroute2-") and name.endswith(".dist-info"):
                for path, _, names in os.walk(os.path.join(above, name)):
                    yield from ((f"pyroute2/{n}", os.path.join(path, n)) for n in names if n.startswith("LICENSE"))


def _below(top: str, called: str, left_out: frozenset[str]) -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name not in left_out]
        for name in names:
            if name not in left_out:
                path = os.path.join(folder, name)
                yield os.path.join(called, os.path.relpath(path, top)), path


def _add(made: zipfile.ZipFile, inside: str, data: bytes, compiled_beside: str, quickly: bool = False) -> None:
    """A file; of a module the compiled form too, which alone is read as a rule, and the source packed small."""
    module = inside.endswith(".py")
    how = zipfile.ZIP_DEFLATED if module else zipfile.ZIP_STORED
    made.writestr(zipfile.ZipInfo(inside, EPOCH), data, how, 1 if quickly else 9)
    if module:
        code = (compiled_beside and _put_aside(compiled_beside)) or _compiled(data, inside)
        head = importlib.util.MAGIC_NUMBER + struct.pack("<I", UNCHECKED) + importlib.util.source_hash(data)
        made.writestr(zipfile.ZipInfo(inside + "c", EPOCH), head + code)


def _compiled(source: bytes, name: str) -> bytes:
    return marshal.dumps(compile(source, name, "exec", dont_inherit=True))


def _put_aside(path: str) -> bytes:
    """What Python itself has compiled of this file; b"" if it has not, or of another version of it."""
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            data = file.read()
        status = os.stat(path)
    except (OSError, NotImplementedError):  # the latter where Python puts nothing aside (PEP 3147, cache_tag)
        return b""
    wanted = (0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    valid = data[:4] == importlib.util.MAGIC_NUMBER and len(data) > 16 and struct.unpack("<III", data[4:16]) == wanted
    return data[16:] if valid else b""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m snapcore.bundle FILE")
    build(sys.argv[1])

"""The example initscript on a tree of its own: no namespaces, so that any user can try it, program by program."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[2] / "scenarios" / "mechanisms" / "networking-config"
PATH = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("cat", "cp", "date", "find", "flock", "mkdir", "mv", "rm", "rmdir", "stat", "sync")
FOLDERS = {"ifcfg": "etc/sysconfig/network-scripts", "ifupdown": "etc/network/interfaces.d"}
STUB = """#!/bin/sh
# stands for one program of the script: counts, and may stop everything or fail at a number
read -r count < {folder}/count
count=$((count + 1))
echo $count > {folder}/count
echo "$count {name} $*" >> {folder}/log
[ $count != "${{STOP_BEFORE:-}}" ] || kill -KILL 0
if [ $count = "${{FAIL_AT:-}}" ]; then echo "{name}: Input/output error" >&2; exit 1; fi
{program} "$@"
status=$?
[ $count != "${{STOP_AFTER:-}}" ] || kill -KILL 0
exit $status
"""


@dataclass
class Host:
    """A tree with a network configuration, and the script for it."""

    root: Path
    family: str = "ifcfg"
    shell: Sequence[str] = ("/bin/sh",)

    @property
    def folder(self) -> Path:
        """Where the files of the family are."""
        return self.root / FOLDERS[self.family]

    @property
    def state(self) -> Path:
        """Where the script keeps its records."""
        return self.root / "var/lib/networking-config"

    def file(self, name: str) -> Path:
        """A file of the family, by the name that it has in ifcfg."""
        return self.folder / name

    def start(self, verb: str, **environment: str) -> subprocess.Popen[str]:
        """The verb, in a process group of its own."""
        return subprocess.Popen(
            [*self.shell, str(self.installed), verb],
            env={"PATH": "/usr/bin:/bin", "NETWORKING_CONFIG_ROOT": str(self.root)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, verb: str, **environment: str) -> int:
        """The exit status of a verb; -9 when it was killed."""
        process = self.start(verb, **environment)
        self.said = process.communicate(timeout=60)[0]
        return process.returncode

    @property
    def installed(self) -> Path:
        """The script as it is installed for the family."""
        return self.root / "networking-config"

    def install(self, stubs: Path | None = None) -> None:
        """Put the script there, with stubs for its programs where they are asked for."""
        text = SCRIPT.read_text().replace("FAMILY=ifcfg", f"FAMILY={self.family}")
        assert PATH in text
        hasty = self.root / "hasty"  # nothing here cuts the power, and flushing the disk of a busy machine takes long
        hasty.mkdir(exist_ok=True)
        (hasty / "sync").unlink(missing_ok=True)
        (hasty / "sync").symlink_to("/bin/true")
        text = text.replace(PATH, f"export PATH={stubs or hasty}:{os.defpath}")
        if stubs is not None:
            stubs.mkdir(exist_ok=True)
            for name in PROGRAMS:
                program = hasty / name if name == "sync" else shutil.which(name, path=os.defpath)
                (stubs / name).write_text(STUB.format(folder=stubs, name=name, program=program))
                (stubs / name).chmod(0o755)
            (stubs / "count").write_text("0\n")
            (stubs / "log").write_text("")
        self.installed.write_text(text)

    def picture(self) -> dict[str, tuple[Any, ...]]:
        """All below /etc: type, mode, owner, and content, target or attributes."""
        return {
            str(path.relative_to(self.root)): entry(path)
            for path in sorted((self.root / "etc").rglob("*"))
            if path.name != "."
        }


def entry(path: Path) -> tuple[Any, ...]:
    """What a rollback must give back of one path."""
    status = path.lstat()
    found: tuple[Any, ...] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if path.is_symlink():
        return (*found, os.readlink(path))
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return (*found, attributes, path.read_bytes() if path.is_file() else b"")


def identity(path: Path) -> tuple[int, ...]:
    """What stays the same as long as nobody touches a file."""
    status = path.lstat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


ODD = "ifcfg-a b\n[c]*?\\d"


def make(host: Host) -> None:
    """A configuration with all that can be special about it, and strangers beside it."""
    host.folder.mkdir(parents=True)
    (host.root / "var/lib").mkdir(parents=True)
    if host.family == "ifupdown":
        (host.root / "etc/network/interfaces").write_text("source-directory interfaces.d\n")
    for name in ("ifcfg-eth0", "ifcfg-eth1", "route-eth0", "rule-eth0", "keys-eth0", ODD):
        host.file(name).write_text(f"# {name!r}\nADDRESS=192.0.2.10\n")
    host.file("keys-eth0").chmod(0o600)
    os.setxattr(host.file("ifcfg-eth1"), "user.note", b"ours")
    (host.root / "etc/ourapp.conf").write_text("colour = red\n")
    host.file("ifcfg-link").symlink_to("../ourapp.conf")
    host.file("ifcfg-dangling").symlink_to("/nowhere")
    host.file("ifcfg-folder").mkdir()
    host.file("ifcfg-folder/inside").write_text("not ours\n")
    os.mkfifo(host.file("ifcfg-pipe"))


def change(host: Host) -> None:
    """One of each kind of change; `ifcfg-eth1` changes in nothing but an attribute, `route-eth0` only in its mode."""
    host.file("ifcfg-eth0").write_text(host.file("ifcfg-eth0").read_text().replace("192.0.2.10", "192.0.2.11"))
    os.setxattr(host.file("ifcfg-eth1"), "user.note", b"theirs")
    host.file("route-eth0").chmod(0o600)
    host.file("rule-eth0").unlink()
    host.file("keys-eth0").unlink()
    host.file("keys-eth0").symlink_to("../ourapp.conf")
    host.file("ifcfg-link").unlink()
    host.file("ifcfg-link").write_text("no link\n")
    host.file("ifcfg-dangling").unlink()
    host.file("ifcfg-new").write_text("ADDRESS=203.0.113.10\n")
    host.file("ifcfg-new\n* link").symlink_to("ifcfg-eth0")
    if host.family == "ifupdown":
        (host.root / "etc/network/interfaces").write_text("")

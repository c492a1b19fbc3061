"""A host's tree, with everything in it that has once been a trap."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapcore import cli

SCRIPTS = "etc/sysconfig/network-scripts"


def seen(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All of a tree but the store: type, mode, owner, content or target, extended attributes, hard links."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[tuple[int, int], list[bytes]] = {}
    top = os.fsencode(root)
    for folder, folders, names in os.walk(top):
        if folder == top + b"/var/lib":
            folders[:] = [name for name in folders if name != b"snapcore"]
        for name in folders + names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
                if status.st_nlink > 1:
                    groups.setdefault((status.st_dev, status.st_ino), []).append(path[len(top) :])
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            xattrs = {x: os.getxattr(path, x, follow_symlinks=False) for x in os.listxattr(path, follow_symlinks=False)}
            found[path[len(top) :]] = (status.st_mode, status.st_uid, status.st_gid, content, tuple(xattrs.items()))
    for group in groups.values():
        for member in group:
            found[member] += (tuple(sorted(group)),)
    return found


class HostTree:
    """The tree at `root`; `run` is the command in this process, `seen` what the configuration is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = root / SCRIPTS

    def run(self, *words: str) -> int:
        return cli.main([*words, "--root", str(self.root)])

    def seen(self) -> dict[bytes, tuple[object, ...]]:
        return seen(self.root)

    @property
    def store(self) -> Path:
        return self.root / "var/lib/snapcore"


def fill(root: Path) -> None:
    """A configuration with every kind of name in it."""
    scripts = root / SCRIPTS
    scripts.mkdir(parents=True)
    (root / "var/lib").mkdir(parents=True)
    for name in ("ifcfg-eth0", "ifcfg-eth1", "route-eth0", "rule-eth0", "route6-eth0", "rule6-eth0", "keys-eth0"):
        (scripts / name).write_text(f"NAME={name}\n")
    (root / "etc/sysconfig/network").write_text("GATEWAY=192.0.2.1\n")
    (root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (scripts / "keys-eth0").chmod(0o600)
    (scripts / "ifcfg-real").write_text("LINKED=yes\n")
    (scripts / "ifcfg-link").symlink_to("ifcfg-real")
    (scripts / "ifcfg-dangling").symlink_to("/nowhere/at/all")
    os.link(scripts / "ifcfg-eth1", scripts / "ifcfg-hard")
    os.setxattr(scripts / "ifcfg-eth0", "user.note", b"kept")
    with open(os.fsencode(scripts) + b"/ifcfg-\xff odd\n*name", "w") as file:
        file.write("ODD=1\n")
    # What is no configuration:
    (scripts / "ifup-eth").write_text("#!/bin/sh\n")
    (scripts / "ifcfg-folder").mkdir()
    (scripts / "ifcfg-folder/ifcfg-inside").write_text("no\n")
    os.mkfifo(scripts / "ifcfg-pipe")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


def change(root: Path) -> None:
    """One change of every kind."""
    scripts = root / SCRIPTS
    (scripts / "ifcfg-eth0").write_text("NAME=other\n")
    os.removexattr(scripts / "ifcfg-eth0", "user.note")
    (scripts / "ifcfg-eth1").unlink()
    (scripts / "ifcfg-eth1").symlink_to("/etc/hosts")
    (scripts / "route-eth0").unlink()
    (scripts / "rule-eth0").chmod(0o640)
    os.setxattr(scripts / "route6-eth0", "user.new", b"1")
    (scripts / "ifcfg-added").write_text("ADDED=1\n")
    (scripts / "ifcfg-added-link").symlink_to("ifcfg-eth0")
    with open(os.fsencode(scripts) + b"/ifcfg-\xfe added\n", "w") as file:
        file.write("ADDED=2\n")
    (scripts / "ifcfg-dangling").unlink()
    (root / "etc/resolv.conf").unlink()
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.53\n")
    (root / "etc/sysconfig/network").write_text("GATEWAY=192.0.2.2\n")

"""Mode, owner, ACLs and other attributes; who may end whose transaction."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from snapcore_faults import Faults, Killed, injected
from snapcore_hosts import HostTree, change

ANY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """(tag, permissions, id) of each entry, as the kernel has it (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


FOR_7 = acl((1, 6, ANY), (2, 4, 7), (4, 4, ANY), (16, 4, ANY), (32, 0, ANY))


def set_acl(path: Path, kind: str, value: bytes) -> None:
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", value)
    except OSError as error:
        pytest.skip(f"no ACLs on this file system: {error.strerror}")


def test_an_acl_comes_back_and_an_inherited_one_does_not_stay(host: HostTree) -> None:
    path = host.scripts / "ifcfg-eth0"
    set_acl(path, "access", FOR_7)
    old = host.seen()
    assert host.run("begin") == 0
    os.removexattr(path, "system.posix_acl_access")
    path.chmod(0o600)
    (host.scripts / "route-eth0").unlink()
    assert host.run("rollback") == 0
    assert host.seen() == old
    set_acl(host.scripts, "default", FOR_7)
    old = host.seen()
    assert host.run("begin") == 0
    (host.scripts / "route-eth0").unlink()
    assert host.run("rollback") == 0
    assert host.seen() == old


@pytest.mark.root  # owners, and attributes that only root may set
def test_owner_and_security_attributes_come_back(host: HostTree) -> None:
    path = host.scripts / "ifcfg-eth0"
    os.chown(path, 12, 34)
    path.chmod(0o4750)
    link = host.scripts / "ifcfg-link"
    os.chown(link, 5, 6, follow_symlinks=False)
    labelled = True
    try:
        os.setxattr(path, "security.note", b"label")
        os.setxattr(link, "security.note", b"label", follow_symlinks=False)
    except OSError:
        labelled = False
    old = host.seen()
    assert host.run("begin") == 0
    os.chown(path, 0, 0)
    link.unlink()
    if labelled:
        os.setxattr(path, "security.note", b"other")
    assert host.run("rollback") == 0
    assert host.seen() == old


@pytest.mark.root  # two users
def test_another_user_needs_the_token_or_root_its_force(host: HostTree) -> None:
    assert host.run("begin") == host.run("rollback") == host.run("status") - 3 == 0  # all is imported now
    host.root.parent.chmod(0o755)
    subprocess.run(["chown", "-R", "1234", host.root], check=True)
    if any(not parent.stat().st_mode & 0o001 for parent in host.root.parents):
        pytest.skip(f"{host.root} is closed to other users")

    def user(*words: str) -> int:
        child = os.fork()
        if child == 0:
            try:
                os.setuid(1234)
                os._exit(host.run(*words))
            finally:
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert user("begin") == 0
    assert host.run("commit") == 16
    assert host.run("rollback") == 16
    assert host.run("rollback", "--force") == 0
    assert user("begin", "--token", "sesame") == 0
    assert host.run("commit", "--token", "open") == 16
    assert host.run("commit", "--token", "sesame") == 0
    subprocess.run(["chown", "-R", "0", host.store], check=True)
    assert host.run("begin") == 0
    assert user("rollback") == user("status") == user("begin") == 16
    assert host.run("boot") == 0


def test_commit_is_refused_once_a_rollback_has_given_files_back(host: HostTree) -> None:
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    with injected(Faults()) as counted:
        assert host.run("rollback") == 0
    placed = [number for number, name in enumerate(counted.names, 1) if name == "rename"][5]
    assert host.run("begin") == 0
    change(host.root)
    with pytest.raises(Killed), injected(Faults(placed)):
        host.run("rollback")
    assert host.run("status") == 0
    assert host.run("commit") == 199
    assert host.run("rollback") == 0
    assert host.seen() == old

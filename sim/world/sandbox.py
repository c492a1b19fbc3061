"""One process tree that owns a whole run, so that its end, by whatever cause, leaves nothing behind.

    caller ── keeper ── laboratory (PID 1 of its own PID namespace) ── machines

The keeper dies with the caller, the laboratory with the keeper (PR_SET_PDEATHSIG), and with PID 1 the kernel ends
every process of its PID namespace; mounts and network namespaces live only in those processes. Nothing of the host
is touched: user (when not root), mount, PID, network, IPC and UTS namespaces are the run's own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from sim.errors import Missing
from sim.world import kernel

SCRATCH = "/run"
"""Where the laboratory mounts its own tmpfs, in its own mount namespace: disks and mount points are below it."""

_NEEDED = (1 << 21) | (1 << 12)  # CAP_SYS_ADMIN, CAP_NET_ADMIN


def privileged() -> bool:
    """Whether this process can build the world without a user namespace of its own."""
    return os.geteuid() == 0 and kernel.effective_capabilities() & _NEEDED == _NEEDED


def privileged_world() -> bool:
    """Inside a sandbox: whether it stands without a user namespace of its own (user_namespaces(7), uid_map)."""
    with open("/proc/self/uid_map", encoding="ascii") as table:
        return [line.split() for line in table] == [["0", "0", "4294967295"]]


def spawn(work: Callable[[], None]) -> int:
    """Fork a keeper that runs `work` as PID 1 of a new laboratory. Returns the keeper's process id.

    The keeper's exit status: 0 when work returned; 3 when this kernel refuses to build a sandbox (the reason is on
    stderr); anything else when the laboratory was killed. The caller must reap the keeper (waitpid).
    """
    caller = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = os.fork()
    if keeper:
        return keeper
    try:
        kernel.die_with_parent(signal.SIGKILL, caller)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what Ctrl-C means
        _keep(work)
    finally:
        os._exit(1)  # only reached with an exception in flight that _keep has already printed


def _keep(work: Callable[[], None]) -> NoReturn:
    try:
        if not privileged():
            _own_user_namespace()
        kernel.unshare(kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS)
    except (OSError, Missing) as error:
        print(f"sim: this machine cannot build a sandbox: {error}", file=sys.stderr, flush=True)
        os._exit(3)
    laboratory = os.fork()
    if laboratory == 0:
        status = 1
        try:
            kernel.die_with_parent(signal.SIGKILL, 0)
            _own_mounts()
            work()
            status = 0
        except BaseException:  # noqa: BLE001  # the last frame of a process: say what happened, then end it
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(laboratory, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _own_mounts() -> None:
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")


def _own_user_namespace() -> None:
    """Become root of a new user namespace; with a subuid range (newuidmap(1)) other owners exist in it too."""
    uid, gid = os.geteuid(), os.getegid()
    name = _user_name(uid)
    ranges = [_subordinate("/etc/subuid", name, uid), _subordinate("/etc/subgid", name, uid)]
    mappers = [shutil.which("newuidmap"), shutil.which("newgidmap")]
    if all(ranges) and all(mappers):
        _map_by_helper(uid, gid, [str(mapper) for mapper in mappers], [r for r in ranges if r])
        return
    kernel.unshare(kernel.NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {uid} 1")
    _write("/proc/self/gid_map", f"0 {gid} 1")


def _map_by_helper(uid: int, gid: int, mappers: list[str], ranges: list[tuple[int, int]]) -> None:
    """The set-uid helpers must be called from outside of the new namespace: a child waits there for the unshare."""
    target = os.getpid()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        status = 0
        for mapper, own, (first, count) in zip(mappers, (uid, gid), ranges):
            words = [mapper, str(target), "0", str(own), "1", "1", str(first), str(min(count, 65535))]
            status |= subprocess.run(words, check=False, capture_output=True).returncode
        os._exit(1 if status else 0)
    os.close(ready)
    kernel.unshare(kernel.NEWUSER)
    os.close(go)
    _, status = os.waitpid(child, 0)
    if status:
        raise Missing("newuidmap refused the range of /etc/subuid")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _subordinate(path: str, name: str, uid: int) -> tuple[int, int] | None:
    """The first range of subuid(5) for this user, as (first id, count)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.strip().split(":")
                if len(words) == 3 and words[0] in (name, str(uid)) and words[1].isdigit() and words[2].isdigit():
                    return int(words[1]), int(words[2])
    except OSError:
        return None
    return None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)

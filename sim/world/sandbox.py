"""One process tree that owns a whole run, so that its end, by whatever cause, leaves nothing behind.

    caller ── keeper ── laboratory (PID 1 of its own PID namespace) ── machines

The keeper dies with the caller, the laboratory with the keeper (PR_SET_PDEATHSIG), and with PID 1 the kernel ends
every process of its PID namespace; mounts and network namespaces live only in those processes. Nothing of the host
is touched: user (when not root), mount, PID, network, IPC and UTS namespaces are the run's own.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from sim.world import kernel

SCRATCH = "/run"
"""Where the laboratory mounts its own tmpfs, in its own mount namespace: disks and mount points are below it."""

REFUSED = 3
"""The keeper's exit status when this machine does not let it build a sandbox."""

_NEEDED = (1 << 21) | (1 << 12)  # CAP_SYS_ADMIN, CAP_NET_ADMIN
_SWITCHES = (
    ("user.max_user_namespaces", "0", "user namespaces are switched off"),
    ("kernel.unprivileged_userns_clone", "0", "only root may make user namespaces"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "AppArmor takes away what user namespaces give"),
)
"""The sysctls by which distributions keep ordinary users from namespaces, and what a value means."""


def privileged() -> bool:
    """Whether this process can build the world without a user namespace of its own."""
    return os.geteuid() == 0 and kernel.effective_capabilities() & _NEEDED == _NEEDED


def privileged_world() -> bool:
    """Inside a sandbox: whether it stands without a user namespace of its own (user_namespaces(7), uid_map)."""
    with open("/proc/self/uid_map", encoding="ascii") as table:
        return [line.split() for line in table] == [["0", "0", "4294967295"]]


def spawn(work: Callable[[], None], refused: Callable[[str], None] | None = None) -> int:
    """Fork a keeper that runs `work` as PID 1 of a new laboratory. Returns the keeper's process id.

    The keeper's exit status: 0 when work returned; REFUSED when this machine does not let it build a sandbox;
    anything else when the laboratory was killed. The caller must reap the keeper (waitpid). `refused` hears, in the
    keeper or the laboratory, why there is no sandbox; without it the reason goes to stderr.
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
        _keep(work, refused or _say)
    finally:
        os._exit(1)  # only reached with an exception in flight that _keep has already printed


def _say(why: str) -> None:
    print(f"sim: {why}", file=sys.stderr, flush=True)


def _keep(work: Callable[[], None], refused: Callable[[str], None]) -> NoReturn:
    try:
        if not privileged():
            _own_user_namespace()
        kernel.unshare(kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS)
    except OSError as error:
        refused(_why_not(error))
        os._exit(REFUSED)
    laboratory = os.fork()
    if laboratory == 0:
        status = 1
        try:
            kernel.die_with_parent(signal.SIGKILL, 0)
            status = _work(work, refused)
        except BaseException:  # noqa: BLE001  # the last frame of a process: say what happened, then end it
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(laboratory, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _work(work: Callable[[], None], refused: Callable[[str], None]) -> int:
    os.umask(0o022)  # whatever the caller's: folders of a machine are for all of its users
    try:
        _own_mounts()
    except OSError as error:
        refused(_why_not(error))
        return REFUSED
    work()
    return 0


def _why_not(error: OSError) -> str:
    """Why there is no sandbox here, and what would help."""
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    reasons = [f"{text} (sysctl {name}={value})" for name, value, text in _SWITCHES if _sysctl(name) == value]
    if not reasons and error.errno in (errno.EPERM, errno.EACCES):
        reasons = ["a container needs to be privileged for this"]
    helps = [] if os.geteuid() == 0 and privileged_world() else ["root needs no user namespace"]
    return "; ".join([f"this machine cannot build a sandbox: {what}", *reasons, *helps])


def _sysctl(name: str) -> str | None:
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _own_mounts() -> None:
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    _try_overlay(os.path.join(SCRATCH, "overlay"))


def _try_overlay(folder: str) -> None:
    """See now, not in the middle of a boot, whether disks can be made: Linux 5.11 lets user namespaces do so."""
    lower, upper, work = (os.path.join(folder, name) for name in ("lower", "upper", "work"))
    for path in (lower, upper, work):
        os.makedirs(path)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}" + ("" if privileged_world() else ",userxattr")
    kernel.mount("overlay", lower, "overlay", 0, options)
    kernel.umount(lower)
    shutil.rmtree(folder)


def _own_user_namespace() -> None:
    """Become root of a new user namespace; with a subuid range (newuidmap(1)) other owners exist in it too."""
    uid, gid = os.geteuid(), os.getegid()
    name = _user_name(uid)
    ranges = [_subordinate("/etc/subuid", name, uid), _subordinate("/etc/subgid", name, uid)]
    mappers = [shutil.which("newuidmap"), shutil.which("newgidmap")]
    if all(ranges) and all(mappers):
        _map_by_helper(uid, gid, [str(mapper) for mapper in mappers], [r for r in ranges if r])
    else:
        kernel.unshare(kernel.NEWUSER)
    _map_alone(uid, gid)


def _map_alone(uid: int, gid: int) -> None:
    """One user, one group, as far as no helper has written more: user_namespaces(7), "Defining … mappings"."""
    for table, own in (("uid_map", uid), ("gid_map", gid)):
        with open(f"/proc/self/{table}", encoding="ascii") as written:
            if written.read():
                continue
        if table == "gid_map":
            _write("/proc/self/setgroups", "deny")
        _write(f"/proc/self/{table}", f"0 {own} 1")


def _map_by_helper(uid: int, gid: int, mappers: list[str], ranges: list[tuple[int, int]]) -> None:
    """The set-uid helpers must be called from outside of the new namespace: a child waits there for the unshare.

    What they refuse (a user without a name, a range that is not theirs) is left to `_map_alone`.
    """
    target = os.getpid()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        for mapper, own, (first, count) in zip(mappers, (uid, gid), ranges):
            words = [mapper, str(target), "0", str(own), "1", "1", str(first), str(min(count, 65535))]
            if subprocess.run(words, check=False, capture_output=True).returncode:
                break
        os._exit(0)
    os.close(ready)
    kernel.unshare(kernel.NEWUSER)
    os.close(go)
    os.waitpid(child, 0)


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

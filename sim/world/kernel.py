"""The system calls that Python 3.11 has no function for, as functions that raise OSError; paths inside another root.

Sources: unshare(2), setns(2), mount(2), pivot_root(2), prctl(2), capabilities(7), pidfd_getfd(2),
time_namespaces(7); numbers and flags from include/uapi/linux of Linux 6.1.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from collections.abc import Iterator

NEWNS = 0x00020000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000
NEWTIME = 0x00000080

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24

# capabilities(7): what no machine may do to the kernel that it shares with the host
CAP_SYS_MODULE = 16
CAP_SYS_RAWIO = 17
CAP_SYS_TIME = 25
CAP_MKNOD = 27
CAP_MAC_OVERRIDE = 32
CAP_MAC_ADMIN = 33
CAP_SYSLOG = 34
FORBIDDEN = (CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME, CAP_MKNOD, CAP_SYSLOG)

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_PIDFD_GETFD = 438  # the same on every architecture since Linux 5.6
_OPENAT2 = 437
_CAPGET = {"x86_64": 125, "aarch64": 90, "riscv64": 90, "ppc64le": 183, "s390x": 184}
_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "ppc64le": 184, "s390x": 185}
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _number(table: dict[str, int], name: str) -> int:
    machine = platform.machine()
    if machine not in table:
        raise OSError(38, f"the number of {name} on {machine} is not known", name)
    return table[machine]


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def syncfs(fd: int) -> None:
    """syncfs(2): write out the file system that `fd` is on."""
    _check(_libc.syncfs(fd), "syncfs")


def setns(fd: int, kind: int) -> None:
    """setns(2): move this thread into the namespace behind `fd`."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = [os.fsencode(word) if word else None for word in (source, target, kind)]
    packed = data.encode() if data else None
    result = _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), packed)
    _check(result, f"mount {kind or 'bind'} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    number = _number(_PIVOT_ROOT, "pivot_root")
    _check(_libc.syscall(number, os.fsencode(new_root), os.fsencode(put_old)), f"pivot_root {new_root}")


def die_with_parent(signal_number: int, parent: int) -> None:
    """Ask for a signal when the parent ends (prctl PR_SET_PDEATHSIG); exit at once if it already has.

    `parent` is the parent's process id in this PID namespace, 0 where the parent lives outside of it.
    """
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def drop_capabilities(capabilities: tuple[int, ...]) -> None:
    """Take capabilities from this process and from all that it will ever start."""
    for capability in capabilities:
        _check(_libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl PR_CAPBSET_DROP")
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_libc.syscall(_number(_CAPGET, "capget"), ctypes.byref(header), data), "capget")
    for capability in capabilities:
        word, bit = divmod(capability, 32)
        keep = ~(1 << bit) & 0xFFFFFFFF
        data[word].effective &= keep
        data[word].permitted &= keep
        data[word].inheritable &= keep
    _check(_libc.syscall(_number(_CAPSET, "capset"), ctypes.byref(header), data), "capset")


def effective_capabilities() -> int:
    """The effective set of this process as a bit mask (proc(5), /proc/self/status, CapEff)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def fd_of(process: int, number: int) -> int:
    """A duplicate of another process's file descriptor (pidfd_getfd(2))."""
    pidfd = os.pidfd_open(process)
    try:
        return _check(_libc.syscall(_PIDFD_GETFD, pidfd, number, 0), "pidfd_getfd")
    finally:
        os.close(pidfd)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open a path as if `root` were `/`: links in it never lead out (openat2(2), RESOLVE_IN_ROOT)."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, 0x10)
    result = _libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    return _check(result, path)


def place_in(root: str, path: str) -> str:
    """A path of the tree below `root`: links of its folders are resolved as if that were `/`, its last part is not.

    Raises OSError where they lead round in circles.
    """
    folder = ""
    parts = [part for part in os.path.dirname(path).split("/") if part]
    for _ in range(40 * (len(parts) + 1)):
        if not parts:
            return os.path.join(root, folder, os.path.basename(path))
        part = parts.pop(0)
        if part == "..":
            folder = os.path.dirname(folder)
            continue
        place = os.path.join(root, folder, part)
        if os.path.islink(place):
            target = os.readlink(place)
            folder = "" if target.startswith("/") else folder
            parts = [word for word in target.split("/") if word and word != "."] + parts
        else:
            folder = os.path.join(folder, part)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def followed_in(root: str, path: str) -> str:
    """As `place_in`, and the last part is resolved too. Raises OSError."""
    for _ in range(40):
        place = place_in(root, path)
        if not os.path.islink(place):
            return place
        target = os.readlink(place)
        path = target if target.startswith("/") else os.path.join(os.path.dirname(path), target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


@contextlib.contextmanager
def inside(netns: int) -> Iterator[None]:
    """Open sockets in another network namespace: they stay there for life. Costs a microsecond or two."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, NEWNET)
        try:
            yield
        finally:
            setns(home, NEWNET)
    finally:
        os.close(home)

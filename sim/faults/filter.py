"""The seccomp filter: every call of `calls.DISK_CALLS` asks its supervisor first (seccomp_unotify(2)).

Loaded by a machine's PID 1 before anything else runs, it is inherited by every process of the machine. Uses
libseccomp (Debian: libseccomp2) through ctypes; libseccomp(3), seccomp_rule_add(3), seccomp_notify_alloc(3).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import fcntl
import functools
import struct
from dataclasses import dataclass

from sim.errors import Missing
from sim.faults.calls import DISK_CALLS, FICLONE, READING_CALLS

_ALLOW = 0x7FFF0000
_NOTIFY = 0x7FC00000
_CTL_NNP = 3  # SCMP_FLTATR_CTL_NNP
_CMP_EQ = 4  # SCMP_CMP_EQ

_RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV, linux/seccomp.h
_SEND = 0xC0182101
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")


@dataclass(frozen=True)
class Notification:
    """One call that waits for an answer. `process` is a thread id in the supervisor's PID namespace."""

    id: int
    process: int
    name: str
    arguments: tuple[int, ...]


class _Compare(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


@functools.cache
def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        library = ctypes.CDLL(name, use_errno=True)
    except OSError as error:
        raise Missing("libseccomp (Debian package libseccomp2) is not installed") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare)
    ]  # fmt: skip
    for function in (library.seccomp_load, library.seccomp_notify_fd, library.seccomp_release):
        function.argtypes = [ctypes.c_void_p]
    return library


def missing() -> str | None:
    """Why filters cannot be used on this machine, or None."""
    try:
        _library()
    except Missing as error:
        return str(error)
    return None


@functools.cache
def _numbers(reading: bool = True) -> dict[int, str]:
    """System call number -> name, for this architecture; calls that it does not have are left out."""
    resolve = _library().seccomp_syscall_resolve_name
    names = (*DISK_CALLS, *(READING_CALLS if reading else ()), "ioctl", "io_uring_setup")
    numbers = {resolve(name.encode()): name for name in names}
    return {number: name for number, name in numbers.items() if number >= 0}


def prepare() -> None:
    """Load the library and look the numbers up, so that PID 1 has them when it forks off."""
    for reading in (False, True):
        _numbers(reading)


def load(reading: bool = False) -> int:
    """Put the filter on this process and all that it starts. Returns the descriptor for the supervisor.

    `reading`: calls that only read ask too (slower: there are many).

    io_uring_setup(2) fails with ENOSYS: what goes through a ring would not be seen. no_new_privs is not set, so that
    set-uid helpers work; that needs CAP_SYS_ADMIN in the machine's user namespace. Raises OSError.
    """
    library = _library()
    context = library.seccomp_init(_ALLOW)
    try:
        library.seccomp_attr_set(context, _CTL_NNP, 0)
        for number, name in _numbers(reading).items():
            if name == "io_uring_setup":
                _rule(context, 0x00050000 | errno.ENOSYS, number)
            elif name == "ioctl":
                _rule(context, _NOTIFY, number, _Compare(1, _CMP_EQ, FICLONE, 0))
            else:
                _rule(context, _NOTIFY, number)
        result = library.seccomp_load(context)
        if result < 0:
            raise OSError(-result, "the kernel refuses the seccomp filter")
        return int(library.seccomp_notify_fd(context))
    finally:
        library.seccomp_release(context)


def _rule(context: int, action: int, number: int, *comparisons: _Compare) -> None:
    array = (_Compare * max(1, len(comparisons)))(*comparisons)
    result = _library().seccomp_rule_add_array(context, action, number, len(comparisons), array)
    if result < 0:
        raise OSError(-result, f"no seccomp rule for {_numbers().get(number, number)}")


def receive(descriptor: int) -> Notification | None:
    """The next call that waits; None when its process died meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(descriptor, _RECV, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    identity, process, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(identity, process, _numbers().get(number, str(number)), tuple(arguments))


def let_go(descriptor: int, notification: Notification) -> None:
    """The call takes place."""
    _answer(descriptor, _RESPONSE.pack(notification.id, 0, 0, _CONTINUE))


def fail(descriptor: int, notification: Notification, number: int) -> None:
    """The call fails with this errno and changes nothing."""
    _answer(descriptor, _RESPONSE.pack(notification.id, 0, -number, 0))


def _answer(descriptor: int, response: bytes) -> None:
    try:
        fcntl.ioctl(descriptor, _SEND, bytearray(response))
    except OSError as error:
        if error.errno != errno.ENOENT:  # its process was killed, or a signal came first: then it asks again
            raise

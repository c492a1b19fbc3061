"""The system calls that can change a disk: which argument names what they change. Pure.

Numbers come from libseccomp, so that the table holds on every architecture. Sources: the man page of each call.
"""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """How to find what a call changes.

    `paths`: (index of a directory descriptor or None for the current folder, index of the path) for each path;
    `fd`: index of a file descriptor; `flags`: index of open(2)'s flags; `always`: it counts wherever it points.
    """

    name: str
    paths: tuple[tuple[int | None, int], ...] = ()
    fd: int | None = None
    flags: int | None = None
    always: bool = False


def _path(*names: str, at: int = 0) -> list[Call]:
    return [Call(name, paths=((None, at),)) for name in names]


def _at(*names: str) -> list[Call]:
    return [Call(name, paths=((0, 1),)) for name in names]


def _fd(*names: str, index: int = 0) -> list[Call]:
    return [Call(name, fd=index) for name in names]


DISK_CALLS: dict[str, Call] = {
    call.name: call
    for call in [
        Call("open", paths=((None, 0),), flags=1),
        Call("openat", paths=((0, 1),), flags=2),
        Call("openat2", paths=((0, 1),), flags=-2),  # -2: the first word of the structure behind argument 2
        Call("creat", paths=((None, 0),), flags=-1),  # -1: O_CREAT | O_WRONLY | O_TRUNC
        *_fd("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "fchmod", "fchown"),
        *_fd("fsetxattr", "fremovexattr", "fsync", "fdatasync", "syncfs", "sync_file_range", "sendfile"),
        *_fd("copy_file_range", "splice", index=2),
        *_path("truncate", "chmod", "chown", "lchown", "rmdir", "unlink", "mkdir", "mknod", "utime", "utimes"),
        *_path("setxattr", "lsetxattr", "removexattr", "lremovexattr"),
        *_at("unlinkat", "mkdirat", "mknodat", "fchmodat", "fchmodat2", "fchownat", "futimesat", "utimensat"),
        Call("rename", paths=((None, 0), (None, 1))),
        Call("renameat", paths=((0, 1), (2, 3))),
        Call("renameat2", paths=((0, 1), (2, 3))),
        Call("link", paths=((None, 0), (None, 1))),
        Call("linkat", paths=((0, 1), (2, 3))),
        Call("symlink", paths=((None, 1),)),
        Call("symlinkat", paths=((1, 2),)),
        *[Call(name, always=True) for name in ("sync", "msync", "mount", "umount2", "move_mount")],
    ]
}

READING_CALLS: dict[str, Call] = {
    call.name: call
    for call in [
        *_path("stat", "lstat", "access", "readlink", "getxattr", "lgetxattr", "listxattr", "llistxattr"),
        *_at("newfstatat", "faccessat", "faccessat2", "readlinkat", "statx"),
        *_fd("fstat", "read", "pread64", "readv", "preadv", "preadv2", "getdents", "getdents64"),
        *_fd("fgetxattr", "flistxattr"),
        *[DISK_CALLS[name] for name in ("open", "openat", "openat2")],
    ]
}
"""Calls that list, look at or read files; only a filter that was asked to knows of them."""

GROUPS: dict[str, tuple[str, ...]] = {
    "open": ("open", "openat", "openat2", "creat"),
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice", "ioctl"),
    "truncate": ("truncate", "ftruncate"),
    "fallocate": ("fallocate",),
    "fsync": ("fsync", "fdatasync", "sync_file_range", "msync"),
    "sync": ("sync", "syncfs"),
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat"),
    "symlink": ("symlink", "symlinkat"),
    "unlink": ("unlink", "unlinkat"),
    "mkdir": ("mkdir", "mkdirat", "mknod", "mknodat"),
    "rmdir": ("rmdir",),
    "chmod": ("chmod", "fchmod", "fchmodat", "fchmodat2"),
    "chown": ("chown", "lchown", "fchown", "fchownat"),
    "utime": ("utime", "utimes", "futimesat", "utimensat"),
    "setxattr": ("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    "mount": ("mount", "umount2", "move_mount"),
}
"""Families of calls, by the name that a scenario uses."""

FICLONE = 0x40049409
"""ioctl_ficlone(2): `cp` tries it before it copies; on file systems that can it is a write."""

REGULAR_ONLY = frozenset(
    {"write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "splice", "copy_file_range", "ioctl"}
)
"""Calls that write into a descriptor: they count when it is a regular file."""

CREATE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC

# What differs from one run of a program to the next: process ids, mktemp's and tempfile's names, tokens
_NUMBER = re.compile(r"\d+")
_RANDOM = re.compile(r"(?<=[./_-])(?=[A-Za-z0-9_]*[A-Z0-9])[A-Za-z0-9_]{6,16}(?=$|[./ _-])")


def masked(text: str) -> str:
    """`text` with process ids and random parts of names masked, so that two recordings can be compared."""
    return _NUMBER.sub("#", _RANDOM.sub("*", text))


def changes(flags: int, exists: bool, size: int) -> bool:
    """Whether open(2) with these flags changes the disk by itself: it makes a file or empties one."""
    if flags & (os.O_TMPFILE & ~os.O_DIRECTORY):
        return False  # a file without a name: nothing that a boot could find
    if flags & os.O_CREAT and not exists:
        return True
    writes = flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    return bool(flags & os.O_TRUNC and exists and size and writes)


def below(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether an absolute path is one of these (shell patterns; `*` does not cross a slash); one that ends in `/` means
    a folder with all that is below it."""
    for pattern in patterns:
        if pattern.endswith("/"):
            if path == pattern[:-1] or path.startswith(pattern):
                return True
        elif path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern):
            return True
    return False

"""Interrupts and breaks the calls that snapcore makes, one after the other, inside this process.

Every call that changes the disk is a point, and so is every one that reads it. At a point the call is not made;
instead the process "dies" (`Killed`: no later call is made either, as after SIGKILL), or the call fails once, or it
and all later ones fail. What unsynced data a power cut would lose can't be seen here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from snapcore import files

CHANGES = ("mkdir", "symlink", "link", "rename", "unlink", "rmdir", "write", "fchmod", "fchown", "chown", "setxattr",
           "removexattr", "fsync")  # fmt: skip
READS = ("scandir", "stat", "fstat", "read", "readlink", "listxattr", "getxattr")


class Killed(BaseException):
    """The process is dead."""


@dataclass
class Faults:
    """What happens at call number `at` (from 1; 0: nothing, only count)."""

    at: int = 0
    error: int = 0
    """errno to fail with; 0: die."""
    stay: bool = False
    """Fail from `at` on, not once."""
    reads: bool = False
    """Points are the calls that read, instead of those that change."""
    count: int = 0
    names: list[str] = field(default_factory=list)

    def point(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if not self.at:
            return
        if not self.error:
            if self.count >= self.at:
                raise Killed
        elif self.count == self.at or (self.stay and self.count > self.at):
            raise OSError(self.error, os.strerror(self.error))


@contextlib.contextmanager
def injected(faults: Faults) -> Iterator[Faults]:
    """While this lasts, the calls go through `faults`."""
    real_open, real_sync = os.open, files.sync_filesystem

    def wrap(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            faults.point(name)
            return real(*args, **kwargs)

        return call

    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if bool(flags & os.O_CREAT) != faults.reads:
            faults.point("open")
        return real_open(path, flags, *args, **kwargs)

    def sync(fd: int) -> bool:
        if not faults.reads:
            faults.point("syncfs")
        return real_sync(fd)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(os, "open", open_))
        stack.enter_context(mock.patch.object(files, "sync_filesystem", sync))
        for name in READS if faults.reads else CHANGES:
            stack.enter_context(mock.patch.object(os, name, wrap(name)))
        yield faults


ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


def sampled(count: int, most: int) -> list[int]:
    """All points 1..count where SNAPCORE_EVERY_POINT is set; else the first, the last and some between, the seed
    printed (SNAPCORE_SEED repeats it)."""
    if os.environ.get("SNAPCORE_EVERY_POINT") or count <= most:
        return list(range(1, count + 1))
    seed = int(os.environ.get("SNAPCORE_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
    print(f"SNAPCORE_SEED={seed}: {most} of {count} points")
    return sorted({1, count, *random.Random(seed).sample(range(2, count), most - 2)})

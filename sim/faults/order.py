"""What a supervisor is told, and what it tells: frozen values. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A call that changes the disk, in the order of a recording (`number` counts from 1).

    `process` is the masked command line with the occurrence of it, `nth` the call of that process. `line`: the line
    of a shell script that made the call, as "SCRIPT:NUMBER: TEXT", where it can be told.
    """

    number: int
    syscall: str
    path: str
    process: str
    nth: int
    command: str = ""
    line: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the point where the order of processes varies."""
        return self.process, self.nth


@dataclass(frozen=True)
class Order:
    """What the supervisor shall do. `stop`: the key of the point before which everything stands still.

    `error`: the errno with which calls named in `calls` (none: all) fail: those from `first` to `last` (None: to the
    end), counted among the calls that match; or the call at the point `fail_at`, and with `onward` all that follow.
    `reading`: the calls that count are those that list, look at or read these paths (`sim.faults.calls.below`); empty:
    those that change the disk.
    """

    record: bool = False
    stop: tuple[str, int] | None = None
    stop_number: int | None = None
    error: int | None = None
    calls: tuple[str, ...] = ()
    first: int = 1
    last: int | None = None
    fail_at: tuple[str, int] | None = None
    onward: bool = False
    reading: tuple[str, ...] = ()

"""Waiting with a deadline for signals, processes and files; and who a process is."""

from __future__ import annotations

import os
import select
import signal

from snapcore.store import Process
from snapcore.words import process_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType, TracebackType
    from typing import Any

QUIT = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Signals:
    """While this lasts, signals end waits instead of the process. For the main thread only.

    `told` is the name of the first of `quit` that came, '' for none. A hang-up is outlived, and the end of a child
    ends a wait. (They are caught, not ignored: what is ignored would be so in the programs that are started, too.)
    """

    def __init__(self, quit: Iterable[int] = QUIT) -> None:
        self.told = ""
        self._quit = frozenset(quit)
        self._old: dict[int, Any] = {}
        self._reading = self._writing = -1
        self._wakeup = -1

    def __enter__(self) -> Signals:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (*self._quit, signal.SIGHUP, signal.SIGCHLD):
            self._old[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        self._reading = -1

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number in self._quit and not self.told:
            self.told = signal.Signals(number).name

    def wake(self) -> None:
        """Ends a wait; for other threads. (The writing end stays open: a thread may outlive its usefulness.)"""
        try:
            os.write(self._writing, b"\0")
        except OSError:
            pass  # full, so that the wait ends anyhow; or nobody waits any more

    def wait(self, timeout_s: float, fds: Sequence[int] = ()) -> set[int]:
        """Until one of `fds` can be read, a signal comes, `wake` is called, or the time is over; which can be read."""
        poll = select.poll()
        for fd in (self._reading, *fds):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(max(0.0, timeout_s) * 1000)}
        if self._reading in ready:
            try:
                os.read(self._reading, 4096)
            except BlockingIOError:
                pass
        return ready - {self._reading}


def process(pid: int) -> Process:
    """This process, told from a later one with its number."""
    return Process(pid, process_start(pid))


def alive(who: Process) -> bool:
    """Whether it still runs."""
    return who.start >= 0 and process_start(who.pid) == who.start


def pidfd(who: Process) -> int:
    """A descriptor that can be read when the process has ended (pidfd_open(2)); -1 where there is none to be had."""
    opened = getattr(os, "pidfd_open", None)
    if opened is None:
        return -1
    try:
        return int(opened(who.pid))
    except OSError:
        return -1


def signal_group(leader: Process, number: int) -> bool:
    """Sends a signal to a process group; False where its leader is gone."""
    if not alive(leader):
        return False
    try:
        os.killpg(leader.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True

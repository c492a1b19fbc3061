"""The watcher: a process in its own session that holds the deadline of one transaction.

It rolls back when the deadline passes, when a client is lost, and when it is told to quit; it ends when the
transaction does. It reads the record again at least each second, so that `extend` counts and a suspended host is
noticed. Killed, it leaves a record whose deadline every later call, and the boot, can see has passed.
"""

from __future__ import annotations

import fcntl
import os

from snapcore import guard
from snapcore.errors import Corrupt, Incomplete, Locked, SnapcoreError
from snapcore.opened import Opened
from snapcore.waiting import Signals, alive, pidfd
from snapcore.words import left_s, log, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snapcore.store import Process, Record

LOOK_S = 1.0
"""At least this often the record is read."""
ATTEMPTS = 3
"""How often a rollback is tried whose record can't be read."""
RETRY_S = 2.0
"""After a rollback that failed the next one is tried so much later, twice as much, …"""


def watch(root: str, id: str, detach: bool) -> int:
    """Holds the deadline of the transaction `id` until that ends; the exit status.

    With `detach` this process is left by another one in the background, as soon as that is at work. What is not 0
    has the unit started again.
    """
    if detach:
        _detach()
    with Signals() as signals:
        watcher = _Watcher(root, id, signals)
        first = watcher.read()
        if first is None and "NOTIFY_SOCKET" in os.environ and not detach:
            _say_ready(detach)  # a unit that was started again when all was over: there is nothing to try once more
            return 0
        if first is None:
            raise SnapcoreError(f"watch: no transaction {id} is open")
        lock = _hold(root, first)
        _say_ready(detach)
        _load(first)
        try:
            watcher.run()
        finally:
            if lock >= 0:
                os.close(lock)
    return 0


def _detach() -> None:
    """The caller has made a session for us; what forks now is no leader of it, and has another parent."""
    if os.fork():
        os._exit(0)
    os.umask(0o077)


def _hold(root: str, record: Record) -> int:
    """Locks the watcher's file and writes our number into it; -1 where the disk does not let us."""
    try:
        with Opened(root) as (_, store):
            fd = store.watcher(record, make=True)
    except OSError:
        return -1
    fcntl.flock(fd, fcntl.LOCK_SH)  # who asks whether we live holds it for an instant
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        pass  # the lock counts
    return fd


def _load(record: Record) -> None:
    """What a rollback imports when it needs it: the disk may be in trouble then, or hold another version."""
    import importlib

    for name in (
        *("ctypes", "json", "re", "subprocess", "syslog"),
        *(f"snapcore.{name}" for name in ("diff", "profiles", "restore", "running", "stack", "state")),
    ):
        importlib.import_module(name)
    if record.kernel_sha256:
        from snapcore import kernel

        kernel.missing()


def _say_ready(detach: bool) -> None:
    """To who has started us: by the pipe, or as sd_notify(3) has it."""
    if detach:
        os.write(1, guard.READY)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        return
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)


class _Watcher:
    """What the watcher knows."""

    def __init__(self, root: str, id: str, signals: Signals) -> None:
        self.root = root
        self.id = id
        self.signals = signals
        self.failures = 0
        """Of ours: a disk that keeps a rollback from succeeding may keep the record from counting that, too."""
        self.lost = ""
        self._clients: dict[Process, int] = {}

    def read(self) -> Record | None:
        """The record; None where the transaction has ended. `OSError`, `Corrupt` where it can't be told."""
        with Opened(self.root) as (_, store):
            record = store.record()
        return record if record is not None and record.id == self.id else None

    def run(self) -> None:
        """Until the transaction has ended, or its end is left to the boot."""
        last: Record | None = None
        while True:
            try:
                last = self.read()
                if last is None:
                    return
            except (OSError, SnapcoreError):
                pass  # the deadline counts, whatever becomes of the record
            if last is None:  # never: `watch` has read it
                return
            why = self.why(last)
            if why and self.roll_back(why):
                return
            if why:
                self.signals.wait(RETRY_S * self.failures)
            else:
                left = left_s(last)
                fds = [fd for fd in self._clients.values() if fd >= 0]
                self.signals.wait(LOOK_S if left is None else min(LOOK_S, left), fds)

    def why(self, record: Record) -> str:
        """Why it is to be rolled back now; '' for not yet."""
        left = left_s(record)
        if left is not None and left <= 0:
            return f"the deadline, {record.deadline}, has passed"
        if self.signals.told:
            return f"the watcher was told to quit ({self.signals.told})"
        for client in record.clients:
            if client not in self._clients:
                self._clients[client] = pidfd(client)
            if not alive(client):
                self.lost = f"the client, process {client.pid}, is gone"
        return self.lost

    def roll_back(self, why: str) -> bool:
        """Whether this was the last that was to be done."""
        attempts = ATTEMPTS
        try:
            with Opened(self.root) as (host, store):
                store.lock()
                record = store.record()
                if record is None or record.id != self.id:
                    return True
                attempts = record.attempts
                why = self.why(record)
                if not why:  # extended meanwhile
                    return False
                done = guard.give_back(host, store, record)
        except Locked:
            return False
        except Incomplete as error:
            return self._failed("; ".join([f"{why}: {error}", *error.differences]), attempts)
        except (SnapcoreError, OSError) as error:
            return self._failed(
                f"{why}: not rolled back: {reason(error)}", 0 if isinstance(error, Corrupt) else attempts
            )
        log(self.root, f"watch: {why}: rolled back, {len(done.undone)} differences undone")
        return True

    def _failed(self, line: str, attempts: int) -> bool:
        self.failures += 1
        enough = self.failures >= attempts
        log(self.root, f"watch: {line}" + ("; left to the next boot" if enough else ""))
        return enough

"""`try`: a change that is kept only if it proves good.

measure the probes → begin, with a watcher → run the command → measure again, until all is well or the time is over →
keep, or roll back and measure once more. Every step may find that the transaction was ended by somebody else: by
the watcher, or by who has the token.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time

from snapcore import guard, probes
from snapcore.errors import (
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_INCOMPLETE,
    EXIT_ROLLED_BACK,
    Incomplete,
    Locked,
    RolledBackInstead,
    SnapcoreError,
    Usage,
    WrongState,
)
from snapcore.opened import Opened
from snapcore.transaction import Claim
from snapcore.values import NamedTuple
from snapcore.waiting import QUIT, Signals, process
from snapcore.words import left_s, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from snapcore.diff import Difference
    from snapcore.probes import Probe, Result
    from snapcore.state import Cover
    from snapcore.store import Record, Store
    from snapcore.transaction import RolledBack, Terms

AUTO, ASK, TOKEN = "auto", "ask", "token"
CONFIRMATIONS = (AUTO, ASK, TOKEN)
MOST_ATTEMPTS = 100
LOOK_S = 1.0
"""At least this often it is looked whether the transaction is still open."""
REPORTED_S = 1.0
"""How long is waited for a probe that is only reported."""
ROUND_S = 0.5
"""So long after a round of probes that did not all pass the next one begins."""
STOP_S = 1.0
"""So long before the deadline a command that still runs is told to stop."""
PATIENCE_S = 120.0
"""How long is waited for a rollback that somebody else does."""


class Wish(NamedTuple):
    """What `try` is asked for."""

    command: Sequence[str]
    covers: Sequence[Cover]
    terms: Terms
    attempts: int = 1
    required: Sequence[Probe] = ()
    wanted: Sequence[Probe] = ()
    confirm: str = AUTO
    client_loss: bool = False


class Outcome(NamedTuple):
    """What became of it."""

    status: int
    why: str
    id: str = ""
    attempts: int = 0
    probes: Sequence[dict[str, Any]] = ()
    """{probe, required, before, after, again}: each of the last three {passed, words}, or None for not measured."""
    undone: Sequence[Difference] = ()
    kernel: Sequence[str] = ()
    """What the rollback changed in the running state, in words."""
    differences: Sequence[str] = ()
    notes: Sequence[str] = ()


class _Ended(Exception):
    """Somebody else has ended the transaction: by this verb ('' where that is not known)."""


class _Enough(Exception):
    """It is to be rolled back; why."""


def run(root: str, wish: Wish, say: Callable[[str], None]) -> Outcome:
    """Tries the change, as often as is wished. `SnapcoreError` where it could not begin."""
    quits = (*QUIT, signal.SIGHUP) if wish.client_loss else QUIT
    terminal = open_terminal() if wish.confirm == ASK else -1
    try:
        with Signals(quits) as signals:
            prober = _Prober(wish, signals, say)
            prober.before()
            if signals.told:
                raise SnapcoreError(f"told to quit ({signals.told}) before anything was begun")
            outcome = Outcome(EXIT_ERROR, "")
            for number in range(1, wish.attempts + 1):
                if number > 1:
                    say(f"{outcome.why}; attempt {number} of {wish.attempts}")
                try:
                    attempt = _Attempt(root, wish, signals, prober, terminal, say)
                except (SnapcoreError, OSError) as error:
                    if number == 1:
                        raise
                    say(f"attempt {number} could not begin: {reason(error)}")
                    break
                outcome = attempt.run()
                outcome = outcome._replace(attempts=number, probes=prober.listed())
                if outcome.status != EXIT_ROLLED_BACK or signals.told or not prober.cured():
                    break
            return outcome
    finally:
        if terminal >= 0:
            os.close(terminal)


def open_terminal() -> int:
    """The terminal on which is asked; `Usage` where there is none."""
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise Usage(f"--confirm ask: there is no terminal to ask on ({reason(error)})") from None


def provoke() -> None:
    """Has the session's connection carry something: a NUL, which terminals ignore, or a line where stderr is a pipe."""
    try:
        terminal = os.open("/dev/tty", os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        if stat.S_ISREG(os.fstat(2).st_mode):
            return
        terminal, text = os.dup(2), b"snapcore: is this heard?\n"
    else:
        text = b"\0"
    try:
        os.write(terminal, text)
    finally:
        os.close(terminal)


class _Prober:
    """Measures the probes, and knows what each of them has said."""

    def __init__(self, wish: Wish, signals: Signals, say: Callable[[str], None]) -> None:
        self.signals = signals
        self.say = say
        self.probes = (*wish.required, *wish.wanted)
        self.required = {id(probe) for probe in wish.required}
        """Of which probes it depends whether the change is kept."""
        self.asked = frozenset(self.required)
        self.seen: dict[str, dict[int, Result]] = {"before": {}, "after": {}, "again": {}}

    def before(self) -> None:
        """What does not work without the change says nothing about it."""
        for probe, result in self.measure("before", probes.PROBE_S):
            if not result.passed and id(probe) in self.required:
                self.required.discard(id(probe))
                self.say(f"probe {probe.spec}: did not pass before the change either ({result.words}): reported only")

    def measure(self, when: str, limit_s: float) -> list[tuple[Probe, Result]]:
        """All of them at once; what is not done in time has failed. Ended early by a signal that says so.

        For those that are only reported nobody waits longer than `REPORTED_S`.
        """
        results: dict[int, Result] = {}

        def done(probe: Probe, result: Result) -> None:
            results[id(probe)] = result
            self.signals.wake()

        began = time.monotonic()
        for probe in self.probes:
            probes.start(probe, limit_s, done)
        while not self.signals.told:
            waiting = [probe for probe in self.probes if id(probe) not in results]
            counts = any(id(probe) in self.required for probe in waiting)
            left = began + (limit_s if counts else min(limit_s, REPORTED_S)) - time.monotonic()
            if not waiting or left <= 0:
                break
            self.signals.wait(left)
        late = "no answer in time"
        found = [(p, results.get(id(p)) or probes.Result(p.spec, False, late)) for p in self.probes]
        self.seen[when] = {id(probe): result for probe, result in found}
        return found

    def failing(self) -> list[Result]:
        """Those that keep the change from being kept, as of the last measurement."""
        return [each for number, each in self.seen["after"].items() if number in self.required and not each.passed]

    def cured(self) -> bool:
        """Whether after the rollback all passes that did before: else another attempt is of no use."""
        return all(each.passed for number, each in self.seen["again"].items() if number in self.required)

    def listed(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [
            {
                "probe": probe.spec,
                "required": id(probe) in self.asked,
                **{when: _listed(seen.get(id(probe))) for when, seen in self.seen.items()},
            }
            for probe in self.probes
        ]


def _listed(result: Result | None) -> dict[str, Any] | None:
    return None if result is None else {"passed": result.passed, "words": result.words}


class _Attempt:
    """One transaction."""

    def __init__(
        self, root: str, wish: Wish, signals: Signals, prober: _Prober, terminal: int, say: Callable[[str], None]
    ) -> None:
        self.root = root
        self.wish = wish
        self.signals = signals
        self.prober = prober
        self.terminal = terminal
        self.say = say
        self.child: subprocess.Popen[bytes] | None = None
        self.problem = ""
        """What the probes said last that did not pass."""
        with Opened(root) as (host, store):
            notes = guard.undo_expired(host, store)
            opened = guard.begin(host, store, wish.covers, wish.terms)
        for note in (*notes, *opened.notes):
            say(note)
        self.record: Record = opened.begun.record
        self.token = opened.begun.token

    def run(self) -> Outcome:
        """The change is made, judged, and kept or not."""
        for seen in (self.prober.seen["after"], self.prober.seen["again"]):
            seen.clear()
        try:
            self.change()
            self.prove()
            self.ask()
            return self.keep()
        except _Enough as enough:
            return self.undo(str(enough))
        except _Ended as ended:
            return self.ended(str(ended))
        except (SnapcoreError, OSError) as error:
            return self.undo(reason(error))

    # Waiting.

    def look(self) -> float:
        """Seconds until the deadline. `_Ended`, `_Enough`."""
        with Opened(self.root) as (_, store):
            record = store.record()
            if record is None or record.id != self.record.id:
                raise _Ended(self._ended_by(store))
        self.record = record
        if self.signals.told:
            raise _Enough(f"told to quit ({self.signals.told})")
        left = left_s(record) or 0.0
        if left <= 0:
            raise _Enough("not confirmed in time")
        return left

    def wait(self, fds: Sequence[int] = (), limit_s: float = LOOK_S) -> set[int]:
        """A wait that is not longer than until the next look."""
        return self.signals.wait(min(LOOK_S, limit_s, self.look()), fds)

    # Changing.

    def change(self) -> None:
        """Runs the command to its end; `_Enough` where it fails or takes too long.

        It has a session of its own: what cuts the terminal off does not stop it half-way.
        """
        words = list(self.wish.command)
        try:
            self.child = subprocess.Popen(words, start_new_session=True)
        except (OSError, ValueError) as error:
            raise _Enough(f"{words[0]}: {reason(error)}") from None
        self._note_child(self.child.pid)
        while self.child.poll() is None:
            left = self.look()
            if left <= STOP_S:
                raise _Enough("the command was not done in time")
            self.signals.wait(min(LOOK_S, left - STOP_S))
        if self.child.returncode:
            raise _Enough(_how_it_ended(self.child.returncode))

    def _note_child(self, pid: int) -> None:
        """Has the watcher know what is to be stopped. Where that can't be written, we are still there."""
        try:
            with Opened(self.root) as (_, store):
                store.lock()
                record = store.record()
                if record is not None and record.id == self.record.id:
                    store.rewrite(record._replace(change=process(pid)))
        except (OSError, SnapcoreError) as error:
            self.say(f"the watcher does not know of the command: {reason(error)}")

    def _stop_child(self) -> None:
        """The command, and what it has started, as far as that stayed in its process group.

        What does not die of it (it waits for a disk, or is another user's) is not waited for: the rollback counts.
        """
        if self.child is None or self.child.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + STOP_S
            try:
                os.killpg(self.child.pid, number)
            except (ProcessLookupError, PermissionError):  # nobody is left in it, or it has become another user's
                pass
            while self.child.poll() is None and time.monotonic() < until:
                self.signals.wait(until - time.monotonic())

    # Judging.

    def prove(self) -> None:
        """Until all required probes pass. Some changes take their time, so they are asked again and again."""
        while True:
            self.prober.measure("after", min(probes.PROBE_S, self.look()))
            failing = "; ".join(f"{each.spec}: {each.words}" for each in self.prober.failing())
            if failing not in ("", self.problem):
                self.say(f"not yet: {failing}")
            self.problem = failing or self.problem
            left = self.look()
            if not failing:
                self.problem = ""
                return
            self.signals.wait(min(ROUND_S, left))

    def ask(self) -> None:
        """As `--confirm` says: nobody, the terminal, or who has the token."""
        if self.wish.confirm == ASK:
            self._ask_the_terminal()
        elif self.wish.confirm == TOKEN:
            self.say(f"rolled back at {self.record.deadline} unless: snapcore confirm --token {self.token}")
            while True:
                self.wait()

    def _ask_the_terminal(self) -> None:
        while True:
            question = f"\rkeep the change? [y/N] ({self.look():.0f} s) "
            try:
                os.write(self.terminal, question.encode())
                if self.wait([self.terminal]):
                    answer = os.read(self.terminal, 100).strip().lower()
                    if answer in (b"y", b"yes"):
                        return
                    raise _Enough("the answer was no")
            except OSError as error:
                raise _Enough(f"the terminal is gone: {reason(error)}") from None

    # Ending.

    def keep(self) -> Outcome:
        """Commits, unless the deadline was quicker."""
        try:
            with Opened(self.root) as (host, store):
                try:
                    done = guard.commit(host, store, Claim(self.token))
                except WrongState as error:
                    if store.has_record():
                        raise
                    raise _Ended(self._ended_by(store)) from error
        except RolledBackInstead as error:
            return self._rolled_back(str(error))
        return Outcome(EXIT_DONE, "kept", self.record.id, notes=done.notes)

    def _ended_by(self, store: Store) -> str:
        outcome = store.outcome(self.record.id)
        return outcome[0] if outcome else ""

    def ended(self, verb: str) -> Outcome:
        """Somebody else was quicker."""
        if verb == "commit":
            return Outcome(EXIT_DONE, "kept: confirmed by another call", self.record.id)
        self._stop_child()
        if verb == "rollback":
            return self._rolled_back("rolled back by the watcher, or another call")
        return Outcome(EXIT_ERROR, "ended by another call; how is not known", self.record.id)

    def undo(self, why: str) -> Outcome:
        """Rolls back. Where somebody else is at it, he is waited for."""
        self._stop_child()
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                done = self._give_back()
            except Locked:
                if time.monotonic() >= until:
                    raise
            except _Ended as ended:
                return self.ended(str(ended))
            except Incomplete as error:
                return Outcome(EXIT_INCOMPLETE, f"{why}: {error}", self.record.id, differences=error.differences)
            else:
                return self._rolled_back(why)._replace(undone=done.undone, kernel=done.kernel, notes=done.notes)

    def _give_back(self) -> RolledBack:
        with Opened(self.root) as (host, store):
            store.lock()
            record = store.record()
            if record is None or record.id != self.record.id:
                raise _Ended(self._ended_by(store))
            return guard.give_back(host, store, record)

    def _rolled_back(self, why: str) -> Outcome:
        """The probes are measured once more: what still fails has another reason. But not when told to quit."""
        for probe, result in () if self.signals.told else self.prober.measure("again", probes.PROBE_S):
            if not result.passed and id(probe) in self.prober.required:
                self.say(
                    f"probe {probe.spec}: passed before the change, and does not after the rollback: {result.words}"
                )
        return Outcome(EXIT_ROLLED_BACK, f"{why}; {self.problem}" if self.problem else why, self.record.id)


def _how_it_ended(status: int) -> str:
    if status > 0:
        return f"the command ended with {status}"
    names = {each.value: each.name for each in signal.Signals}  # most real-time signals have none: signal(7)
    return f"the command was killed by {names.get(-status, f'signal {-status}')}"

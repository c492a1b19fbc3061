"""A transaction with a deadline: opened together with its watcher, extended, and undone when its time is over.

Whether a transaction is kept or rolled back is decided under the store's lock, and the deadline is looked at there:
who commits at the instant of the deadline either keeps the change or rolls it back, and so does the watcher. The
deadline is held by three: the watcher (see `watch`), every later call of snapcore, and the boot.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys

from snapcore import phase, transaction
from snapcore.errors import Corrupt, DeadlinePassed, Incomplete, Locked, NotSaved, RolledBackInstead, Usage, WrongState
from snapcore.values import NamedTuple
from snapcore.waiting import process, signal_group
from snapcore.words import is_this_host, left_s, now, parent, process_name, reason, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from snapcore.host import Host
    from snapcore.state import Cover
    from snapcore.store import Process, Record, Store
    from snapcore.transaction import Begun, Claim, Committed, RolledBack, Terms

READY_S = 20.0
"""How long the watcher may take to start."""
READY = b"ready\n"
LONGEST_S = 7 * 86400
MOST_PROCESSES = 1 << 22
"""Numbers of processes are smaller (proc(5), pid_max)."""
SYSTEMD = "/run/systemd/system"
"""Is there where systemd is PID 1 (sd_booted(3))."""
WRAPPERS = frozenset(["sudo", "doas", "run0", "pkexec", "env", "timeout", "nice", "setsid", "nohup"])
"""Programs that only start another one: who called them is the client."""


class Begin(NamedTuple):
    """What `begin` gives back."""

    begun: Begun
    notes: list[str]


def seconds(text: str, what: str) -> float:
    """A time as it is given on the command line; `Usage`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST_S:
        raise Usage(f"{what} {text}: seconds are wanted, more than 0 and at most {LONGEST_S}")
    return value


def clients(pid: str = "", trying: bool = False) -> tuple[Process, ...]:
    """Whose end is to be answered by a rollback: the process with that number, or the one that calls snapcore.

    `trying`: this process too, which stays. `Usage` where there is none whose end could be waited for.
    """
    mine = (process(os.getpid()),) if trying else ()
    if pid:
        found = process(whole(pid, MOST_PROCESSES))
        if found.start < 0:
            raise Usage(f"--client {pid}: the number of a process that runs is wanted")
        return (found, *mine)
    number = os.getppid()
    while process_name(number) in WRAPPERS:
        number = parent(number)
    if number > 1:
        return (process(number), *mine)
    if not mine:
        raise Usage("--client-loss: who called can't be told, or is gone already; name a process: --client PID")
    return mine


# Beginning.


def begin(host: Host, store: Store, covers: Sequence[Cover], terms: Terms) -> Begin:
    """Opens a transaction that is rolled back after `terms.timeout_s`; when this returns, its watcher is at work.

    `NotSaved` where there can be no watcher: nothing is armed then. Another tree than / has none.
    """
    begun = transaction.begin(host, store, covers, terms)
    if not is_this_host(host.root):
        return Begin(begun, [f"nobody watches the deadline of {host.root}: the next call after it rolls back"])
    try:
        start_watcher(begun.record.id)
    except BaseException as error:  # an interrupt too: nothing has changed yet
        left = transaction.disarm(store, begun.record)
        if isinstance(error, (OSError, NotSaved)):
            raise NotSaved(f"could not start the watcher{left}: {reason(error)}") from error
        raise
    return Begin(begun, [])


def start_watcher(id: str) -> None:
    """Returns when the watcher holds the deadline; `NotSaved`, `OSError`."""
    words = [*program(), "watch", id]
    if not (os.path.isdir(SYSTEMD) and _as_unit(words, id)):
        _as_daemon([*words, "--detach"])


def program() -> list[str]:
    """The words that start snapcore as it runs now: with this interpreter, from this folder or single file.

    Where pyroute2 was found counts too: a folder of the user's, or of PYTHONPATH, is none to an isolated interpreter.
    """
    where = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = getattr(sys.modules.get("pyroute2"), "__file__", None)
    also = f" sys.path.append({os.path.dirname(os.path.dirname(os.path.abspath(found)))!r});" if found else ""
    start = f"import sys; sys.path.insert(0, {where!r});{also} from snapcore.cli import main; sys.exit(main())"
    switches = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    return [sys.executable or "python3", *switches, "-c", start]


def _as_unit(words: list[str], id: str) -> bool:
    """As a unit of its own: outside of the session, and started again when it is killed. False if that fails."""
    import shutil
    import subprocess

    program = shutil.which("systemd-run")
    if program is None:
        return False
    # KillMode: what the stack has started in a rollback, a DHCP client, outlives the watcher.
    properties = ("Restart=on-failure", "RestartSec=1", "KillMode=process", "NotifyAccess=main",
                  f"TimeoutStartSec={READY_S:g}")  # fmt: skip
    command = [
        program,
        "--quiet",
        "--collect",
        f"--unit=snapcore-watch-{id}",
        f"--description=Hold the deadline of snapcore's transaction {id}",
        "--service-type=notify",
        *(f"--property={each}" for each in properties),
        "--",
        *words,
    ]
    nowhere = subprocess.DEVNULL
    try:
        return subprocess.run(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, timeout=READY_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _as_daemon(words: list[str]) -> None:
    """As a plain daemon, which leaves this process's session by itself."""
    import select
    import subprocess

    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    starter = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    assert starter.stdout is not None and starter.stderr is not None
    with starter.stdout, starter.stderr:
        said = b""
        if select.select([starter.stdout], [], [], READY_S)[0]:
            said = os.read(starter.stdout.fileno(), len(READY))
        if said != READY:
            os.killpg(starter.pid, signal.SIGKILL)  # the one that it has left in the background, too
            starter.wait()
            why = os.read(starter.stderr.fileno(), 500).decode("utf-8", "replace").strip()
            raise NotSaved(why or "it does not start")
    starter.wait()


def watcher(store: Store, record: Record) -> int:
    """The process id of the watcher; 0 if none is alive, -1 if there is one whose number is not known."""
    try:
        fd = store.watcher(record)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(fd, 20, 0).strip()
        return int(number) if number.isdigit() else -1
    finally:
        os.close(fd)
    return 0


# Ending.


def give_back(host: Host, store: Store, record: Record) -> RolledBack:
    """The rollback that nobody asked for by its verb, with the store locked. What `try` has started is stopped first.

    As at a boot, nobody is there to decide about changes from outside: `fail` is `restore` here.
    """
    if record.change is not None:
        signal_group(record.change, signal.SIGKILL)
    policy = transaction.RESTORE if record.policy == transaction.FAIL else record.policy
    return transaction.roll_back(host, store, record, policy)


def commit(host: Host, store: Store, claim: Claim) -> Committed:
    """`transaction.commit`; after the deadline `RolledBackInstead` or, where others were quicker, `WrongState`."""
    try:
        return transaction.commit(host, store, claim)
    except DeadlinePassed as error:
        _give_back_instead(host, store, "commit", error)
    except Locked as error:
        record = store.record()
        if record is not None and _has_passed(record):
            raise WrongState(f"commit: the deadline, {record.deadline}, has passed: it is being rolled back") from error
        raise
    except WrongState as error:
        ended = None if store.has_record() else store.outcome()
        if ended is None or ended[0] == "commit":
            raise
        raise WrongState(f"{error}; the last one that had a deadline ({ended[1].deadline}) was rolled back") from error
    raise AssertionError("one of these returns or raises")


def _give_back_instead(host: Host, store: Store, verb: str, error: DeadlinePassed) -> None:
    record = store.record()
    assert record is not None  # the store is locked
    give_back(host, store, record)
    raise RolledBackInstead(f"{verb}: the deadline, {record.deadline}, has passed: rolled back") from error


def _has_passed(record: Record) -> bool:
    left = left_s(record)
    return left is not None and left <= 0


def extend(host: Host, store: Store, more_s: float, claim: Claim) -> Record:
    """Moves the deadline; `WrongState` where there is none, `RolledBackInstead` where it has passed already."""
    record = store.record() if store.lock() else None
    if record is None:
        phase.after(phase.NONE, "extend")
        raise AssertionError("the table lets no extend pass here")
    transaction.check_claim(record, claim, "extend")
    left = left_s(record)
    if left is None:
        raise WrongState("extend: the transaction has no deadline")
    if left <= 0:
        _give_back_instead(host, store, "extend", DeadlinePassed())
    phase.after(record.phase, "extend")
    record = record._replace(deadline=now(left + more_s), deadline_boottime=record.deadline_boottime + more_s)
    try:
        store.rewrite(record)
    except OSError as error:
        raise NotSaved(f"could not extend, the deadline stays {record.deadline}: {reason(error)}") from error
    return record


def undo_expired(host: Host, store: Store) -> list[str]:
    """Rolls back a transaction whose deadline has passed and whose watcher is gone; what was done, for the caller.

    At most as often as the record says; the rest is left to the boot, and to who calls `rollback`.
    """
    try:
        record = store.record()
        if record is None or not _has_passed(record) or record.failures >= record.attempts or watcher(store, record):
            return []
        store.lock()
        again = store.record()
        if again is None or again.id != record.id or not _has_passed(again):
            return []
        done = give_back(host, store, again)
    except Incomplete as error:
        return ["\n  ".join([f"the deadline has passed and nobody watched it: {error}", *error.differences])]
    except (OSError, Corrupt, Locked) as error:
        return [f"whether a deadline has passed could not be seen to: {reason(error)}"]
    return [
        f"the deadline, {again.deadline}, has passed and nobody watched it: rolled back,"
        f" {len(done.undone)} differences undone",
        *done.notes,
    ]

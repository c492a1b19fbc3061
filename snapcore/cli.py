"""The command: arguments, messages, exit statuses. What is not needed at every start is imported where it is used."""

from __future__ import annotations

import sys

from snapcore import __version__
from snapcore.errors import (
    EXIT_DIFFERS,
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_NONE_OPEN,
    EXIT_ROLLED_BACK,
    Incomplete,
    SnapcoreError,
    Usage,
)
from snapcore.files import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from snapcore.attempt import Outcome
    from snapcore.diff import Difference
    from snapcore.host import Host
    from snapcore.opened import Opened
    from snapcore.running import Ways
    from snapcore.store import Record, Store
    from snapcore.transaction import Terms
    from snapcore.usage import Arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit status. Messages go to stderr, results to stdout."""
    from snapcore import usage

    words = list(sys.argv[1:] if argv is None else argv)
    arguments: Arguments | None = None
    try:
        arguments = usage.parse(words)
        if arguments.version:
            return _print(f"snapcore {__version__}")
        if arguments.help:
            return _print(usage.help_text(arguments.verb))
        return VERBS[arguments.verb](arguments)
    except SnapcoreError as error:
        return _refuse(error, as_json=arguments.json if arguments else "--json" in words)
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        refused = SnapcoreError(f"{name}{error.strerror or error}")
        return _refuse(refused, as_json=arguments.json if arguments else "--json" in words)
    except KeyboardInterrupt:
        return _refuse(SnapcoreError("interrupted"), as_json=False)


def _print(line: str, stream: Any = None) -> int:
    """Prints; a reader that has gone away changes no exit status. `EXIT_DONE`."""
    stream = stream or sys.stdout
    try:
        encoding = stream.encoding or "ascii"
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError, AttributeError):
        # Nobody listens: keep the interpreter from trying again at its end.
        import os

        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError, AttributeError):
            pass
    return EXIT_DONE


def _print_json(document: dict[str, Any]) -> int:
    import json

    return _print(json.dumps({"version": 1, **document}, sort_keys=True))


def _refuse(error: SnapcoreError, as_json: bool) -> int:
    differences = error.differences if isinstance(error, Incomplete) else []
    message = "\n  ".join([shown(str(error)), *differences])
    _print(f"snapcore: {message}", sys.stderr)
    if as_json:
        _print_json({"status": error.status, "error": str(error), "differences": differences})
    return error.status


def _opened(arguments: Arguments) -> Opened:
    from snapcore.opened import Opened

    opened = Opened(arguments.root)
    if arguments.verb in SEE_TO_DEADLINES:
        _undo_expired(opened.host, opened.store)
    return opened


SEE_TO_DEADLINES = frozenset(["begin", "touch", "extend", "save", "load", "delete", "prune", "status"])
"""The verbs that first roll back what nobody watches any more and should have been rolled back. (Those that end a
transaction look at its deadline themselves.)"""


def _undo_expired(host: Host, store: Store) -> None:
    try:
        if not store.has_record():
            return
    except OSError:
        return  # the verb itself says so
    from snapcore import guard

    _outlive_the_terminal()
    _notes(guard.undo_expired(host, store))


def _guarded_terms(arguments: Arguments, terms: Terms) -> Terms:
    """With the deadline, where one is asked for."""
    guards = bool(arguments.client_loss or arguments.client)
    if arguments.timeout:
        from snapcore import guard

        clients = guard.clients(arguments.client, trying=arguments.verb == "try") if guards else ()
        return terms._replace(timeout_s=guard.seconds(arguments.timeout, "--timeout"), clients=clients)
    if guards:
        raise Usage("--client-loss and --client need a deadline: --timeout SECONDS")
    return terms


def _try(arguments: Arguments) -> int:
    from snapcore import attempt, probes, profiles
    from snapcore.words import whole

    if arguments.confirm not in attempt.CONFIRMATIONS:
        raise Usage(f"--confirm {arguments.confirm}: {', '.join(attempt.CONFIRMATIONS)}")
    attempts = whole(arguments.attempts, attempt.MOST_ATTEMPTS)
    if attempts < 1:
        raise Usage(f"--attempts {arguments.attempts}: a number is wanted, 1 to {attempt.MOST_ATTEMPTS}")
    arguments.timeout = arguments.timeout or "60"
    required = arguments.probe
    if not required and arguments.confirm == attempt.AUTO:
        required = ["client"]
    terms, notes = _terms(arguments)
    terms = _guarded_terms(arguments, terms)
    if arguments.confirm == attempt.TOKEN:
        terms = terms._replace(require_token=True)
    _notes(notes)
    outcome = attempt.run(
        arguments.root,
        attempt.Wish(
            command=arguments.operands,
            covers=[profile.cover() for profile in profiles.chosen(arguments.profile)],
            terms=terms,
            attempts=attempts,
            required=[probes.parse(spec, attempt.provoke) for spec in required],
            wanted=[probes.parse(spec, attempt.provoke) for spec in arguments.want],
            confirm=arguments.confirm,
            client_loss=bool(terms.clients),
        ),
        lambda line: _notes([line]),
    )
    return _tried(outcome, arguments)


def _tried(outcome: Outcome, arguments: Arguments) -> int:
    _notes(list(outcome.notes))
    if arguments.json:
        undone = _listed(list(outcome.undone))
        state = "open" if outcome.status == EXIT_INCOMPLETE else "none"
        _print_json({**outcome._asdict(), "state": state, "undone": undone})
        return outcome.status
    for probe in outcome.probes:
        seen = probe["again"] or probe["after"]
        if seen is not None:
            _print(f"probe {probe['probe']}: {'passes' if seen['passed'] else 'fails'}: {shown(seen['words'])}")
    for each in (*outcome.undone, *outcome.kernel):
        _print(f"undone: {each}")
    if outcome.status == EXIT_DONE:
        return _print(outcome.why)
    rolled = "rolled back: " if outcome.status == EXIT_ROLLED_BACK else ""
    _print("\n  ".join([f"snapcore: {rolled}{shown(outcome.why)}", *outcome.differences]), sys.stderr)
    return outcome.status


def _extend(arguments: Arguments) -> int:
    from snapcore import guard, transaction

    more_s = guard.seconds(arguments.operands[0], "extend")
    _outlive_the_terminal()
    with _opened(arguments) as (host, store):
        record = guard.extend(host, store, more_s, transaction.Claim(arguments.token, arguments.force))
    if arguments.json:
        return _print_json({"status": 0, "state": "open", "id": record.id, "deadline": record.deadline})
    return _print(f"extended{_unless_confirmed(record)}")


def _watch(arguments: Arguments) -> int:
    from snapcore import watch

    return watch.watch(arguments.root, arguments.operands[0], arguments.detach)


def _terms(arguments: Arguments) -> tuple[Terms, list[str]]:
    """How a transaction is to be begun, and what is to be said about that; `Usage`."""
    from snapcore import transaction
    from snapcore.words import is_this_host

    if arguments.policy not in transaction.POLICIES:
        raise Usage(f"--policy {arguments.policy}: {', '.join(transaction.POLICIES)}")
    terms = transaction.Terms(
        arguments.label, arguments.token, arguments.require_token, arguments.track, arguments.policy,
        nft=arguments.nft, only=tuple(arguments.only),
    )  # fmt: skip
    ways = _ways(arguments)
    if ways is not None:
        terms = terms._replace(
            strategy=ways.strategy or terms.strategy,
            new_devices=ways.new_devices or terms.new_devices,
            external_ports=ways.external_ports or terms.external_ports,
        )
    if arguments.kernel and arguments.no_kernel:
        raise Usage("--kernel and --no-kernel: one of them")
    if arguments.kernel:
        return terms._replace(kernel=True), []
    if arguments.no_kernel or not is_this_host(arguments.root):
        return terms, []
    from snapcore import kernel

    why = kernel.missing()
    return terms._replace(kernel=not why), [f"running state is not saved, the files alone are: {why}"] if why else []


def _ways(arguments: Arguments) -> Ways | None:
    """How the running host is to be brought back; None: as was said at `begin`. `Usage`."""
    if not (arguments.strategy or arguments.new_devices or arguments.external_ports or arguments.no_kernel):
        return None
    from snapcore import running

    return running.Ways(
        arguments.strategy, arguments.new_devices, arguments.external_ports, not arguments.no_kernel
    ).checked()


def _begin(arguments: Arguments) -> int:
    from snapcore import profiles, transaction

    covers = [profile.cover() for profile in profiles.chosen(arguments.profile)]
    terms, notes = _terms(arguments)
    terms = _guarded_terms(arguments, terms)
    with _opened(arguments) as (host, store):
        if terms.timeout_s:
            from snapcore import guard

            begun, unwatched = guard.begin(host, store, covers, terms)
            notes = [*notes, *unwatched]
        else:
            begun = transaction.begin(host, store, covers, terms)
    _notes(notes)
    if arguments.json:
        return _print_json({"status": 0, "state": "open", "id": begun.record.id, "token": begun.token,
                            "since": begun.record.since, "saved": begun.saved, "notes": notes,
                            "kernel": bool(begun.record.kernel_sha256), "deadline": begun.record.deadline})  # fmt: skip
    also = " and the running state" if begun.record.kernel_sha256 else ""
    return _print(f"begun: {begun.saved} files{also} saved; token {begun.token}{_unless_confirmed(begun.record)}")


def _unless_confirmed(record: Record) -> str:
    return f"; rolled back at {record.deadline} unless confirmed" if record.deadline else ""


def _touch(arguments: Arguments) -> int:
    from snapcore import transaction

    paths = [transaction.path_below(arguments.root, path) for path in arguments.operands]
    with _opened(arguments) as (host, store):
        record = transaction.touch(host, store, paths, transaction.Claim(arguments.token, arguments.force))
    if arguments.json:
        touched = ["/" + path for path in record.touched]
        return _print_json({"status": 0, "state": "open", "id": record.id, "touched": touched})
    return EXIT_DONE


def _commit(arguments: Arguments) -> int:
    from snapcore import guard, transaction

    _outlive_the_terminal()
    with _opened(arguments) as (host, store):
        done = guard.commit(host, store, transaction.Claim(arguments.token, arguments.force))
    _notes(done.notes)
    if arguments.json:
        ended = done.record.id if done.record else ""
        return _print_json({"status": 0, "state": "none", "id": ended, "notes": done.notes})
    return _print("committed: the configuration stays as it is")


def _rollback(arguments: Arguments) -> int:
    from snapcore import transaction

    _outlive_the_terminal()
    with _opened(arguments) as (host, store):
        claim = transaction.Claim(arguments.token, arguments.force)
        done = transaction.rollback(host, store, claim, _ways(arguments))
    return _rolled_back(done, arguments)


def _boot(arguments: Arguments) -> int:
    from snapcore import transaction
    from snapcore.words import log

    with _opened(arguments) as (host, store):
        if not store.has_record():
            return _print_json({"status": 0, "state": "none", "undone": []}) if arguments.json else EXIT_DONE
        try:
            done = transaction.boot(host, store)
        except (SnapcoreError, OSError) as error:
            log(arguments.root, f"boot: {error}")
            raise
        if done is not None:
            log(arguments.root, f"boot: rolled back, {len(done.undone)} differences undone")
    return _rolled_back(done, arguments) if done is not None else EXIT_DONE


def _outlive_the_terminal() -> None:
    """A rollback may be what cuts the connection that it was started over; and what comes too late is one.

    The hang-up is caught, not ignored: what the stack starts would ignore it, too.
    """
    import signal

    try:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    except ValueError:  # not the main thread: a library's caller decides
        pass


def _notes(notes: list[str]) -> None:
    for note in notes:
        _print(f"snapcore: {note}", sys.stderr)


def _rolled_back(done: Any, arguments: Arguments) -> int:
    _notes(done.notes)
    if arguments.json:
        return _print_json({"status": 0, "state": "none", "id": done.record.id, "undone": _listed(done.undone),
                            "kernel": list(done.kernel), "notes": done.notes})  # fmt: skip
    lines = [f"undone: {each}" for each in (*done.undone, *done.kernel)]
    return _print("\n".join([*lines, f"rolled back: {len(lines)} differences undone"]))


def _listed(differences: list[Difference]) -> list[dict[str, Any]]:
    return [{"path": "/" + each.path, "what": each.what, "aspects": list(each.aspects)} for each in differences]


def _save(arguments: Arguments) -> int:
    from snapcore import profiles, snapshots

    covers = [profile.cover() for profile in profiles.chosen(arguments.profile)]
    with _opened(arguments) as (host, store):
        saved = snapshots.save(host, store, arguments.operands[0], covers, arguments.label)
    if arguments.json:
        return _print_json({"status": 0, "snapshot": snapshots.describe(saved)})
    return _print(f"saved: {snapshots.describe(saved)['files']} files as {saved.name}")


def _list(arguments: Arguments) -> int:
    from snapcore import snapshots

    with _opened(arguments) as (_, store):
        found = snapshots.every(store) if store.exists() else []
    if arguments.json:
        return _print_json({"status": 0, "snapshots": [snapshots.describe(each) for each in found]})
    for each in found:
        count = snapshots.describe(each)["files"]
        _print(f"{each.name:<24} {each.created}  {count} files  {shown(each.label)}".rstrip())
    return EXIT_DONE


def _show(arguments: Arguments) -> int:
    from snapcore import snapshots, state

    with _opened(arguments) as (_, store):
        reader = snapshots.open_one(store, arguments.operands[0] if arguments.operands else "")
        reader.close()
    snapshot = reader.snapshot
    if arguments.json:
        entries = {"/" + path: state.entry_to_json(entry) for path, entry in snapshot.entries.items()}
        return _print_json({"status": 0, "snapshot": snapshots.describe(snapshot), "entries": entries})
    for path, entry in sorted(snapshot.entries.items()):
        what = {state.LINK: f" -> {entry.target}", state.FILE: f" {entry.size}"}.get(entry.kind, "")
        _print(f"{entry.kind:<6} {entry.mode:04o} {entry.uid}:{entry.gid} /{shown(path)}{shown(what)}")
    return EXIT_DONE


def _diff(arguments: Arguments) -> int:
    from snapcore import snapshots

    names = [*arguments.operands, "", ""]
    with _opened(arguments) as (host, store):
        found = snapshots.compare(host, store, names[0], names[1])
        kernel, notes = ([], []) if names[0] or arguments.no_kernel else snapshots.compare_kernel(host, store)
    _notes(notes)
    status = EXIT_DIFFERS if found or kernel else EXIT_DONE
    if arguments.json:
        _print_json({"status": status, "differences": _listed(found), "kernel": [each._asdict() for each in kernel]})
    for each in () if arguments.json else (*found, *kernel):
        _print(str(each))
    return status


def _plan(arguments: Arguments) -> int:
    from snapcore import snapshots

    with _opened(arguments) as (host, store):
        name = arguments.operands[0] if arguments.operands else ""
        steps, notes = snapshots.plan(host, store, name, _ways(arguments))
    _notes(notes)
    if arguments.json:
        listed = [{**step._asdict(), "path": step.path and f"/{step.path}", "aspects": list(step.aspects)}
                  for step in steps]  # fmt: skip
        return _print_json({"status": 0, "steps": listed})
    for step in steps:
        about = f" ({step.interface})" if step.interface and step.path else ""
        _print(f"{step.action}: {shown(step.words or f'/{step.path}{about}')}")
    return EXIT_DONE


def _load(arguments: Arguments) -> int:
    from snapcore import snapshots, transaction
    from snapcore.words import is_this_host

    _outlive_the_terminal()
    claim = transaction.Claim(arguments.token, arguments.force)
    with _opened(arguments) as (host, store):
        apply = is_this_host(arguments.root) and not arguments.no_kernel
        loaded = snapshots.load(host, store, arguments.operands[0], claim, apply)
    _notes(loaded.notes)
    if arguments.json:
        now = "open" if loaded.open else "none"
        return _print_json({"status": 0, "state": now, "changed": _listed(loaded.changed)})
    still = "; the transaction that was open still is" if loaded.open else ""
    return _print(f"loaded: {len(loaded.changed)} differences{still}")


def _delete(arguments: Arguments) -> int:
    from snapcore import snapshots

    with _opened(arguments) as (_, store):
        snapshots.delete(store, arguments.operands[0])
    return _print_json({"status": 0}) if arguments.json else EXIT_DONE


def _prune(arguments: Arguments) -> int:
    from snapcore import snapshots
    from snapcore.words import whole

    keep = whole(arguments.keep, sys.maxsize)
    if keep < 0:
        raise Usage(f"--keep {arguments.keep}: a number of snapshots is wanted")
    with _opened(arguments) as (_, store):
        gone = snapshots.prune(store, keep)
    if arguments.json:
        return _print_json({"status": 0, "deleted": gone})
    for name in gone:
        _print(f"deleted: {name}")
    return EXIT_DONE


def _install_init(arguments: Arguments) -> int:
    from snapcore import initfiles

    if arguments.remove:
        done = initfiles.remove(arguments.root)
    else:
        command = arguments.command or initfiles.default_command(arguments.root)
        done = initfiles.install(arguments.root, arguments.init, command)
    if arguments.json:
        return _print_json({"status": 0, "done": done})
    for line in done:
        _print(line)
    return EXIT_DONE


def _status(arguments: Arguments) -> int:
    from snapcore import files
    from snapcore.store import Store, summary

    tree = files.Tree(arguments.root)
    store = Store(tree)
    guarded: dict[str, Any] = {}
    try:
        record = store.record()
        if record is not None and record.deadline:
            record, guarded = _guarded(arguments, store)
    finally:
        store.close()
        tree.close()
    if record is None:
        _print_json({"status": EXIT_NONE_OPEN, "state": "none"}) if arguments.json else _print("no transaction is open")
        return EXIT_NONE_OPEN
    if arguments.json:
        return _print_json({"status": 0, "state": record.phase, "transaction": {**summary(record), **guarded}})
    from snapcore.words import held_by

    _print(f"{record.phase}: {held_by(record)}")
    if guarded:
        _print(_deadline_in_words(record, guarded))
    if record.failures:
        loud = "ATTENTION: " if record.failures >= 3 else ""
        _print(f"{loud}{record.failures} failed rollbacks; the last one, {record.last_failure}")
    return EXIT_DONE


def _guarded(arguments: Arguments, store: Store) -> tuple[Record | None, dict[str, Any]]:
    """The record of a transaction with a deadline, seen to if that has passed, and what is known of its guard."""
    from snapcore import guard
    from snapcore.words import left_s

    with _opened(arguments):
        record = store.record()
    left = None if record is None else left_s(record)
    if record is None or left is None:  # it was rolled back; and perhaps another one was begun
        return record, {}
    return record, {"left_s": round(left, 3), "watcher": guard.watcher(store, record)}


def _deadline_in_words(record: Record, guarded: dict[str, Any]) -> str:
    left = guarded["left_s"]
    when = (
        f"rolled back in {left:.0f} s ({record.deadline})"
        if left > 0
        else f"the deadline, {record.deadline}, has passed"
    )
    watched = {0: "nobody watches it", -1: "it is watched"}.get(
        guarded["watcher"], f"watched by process {guarded['watcher']}"
    )
    clients = ", ".join(f"process {client.pid}" for client in record.clients)
    return "; ".join([when, watched, *([f"or when {clients} is gone"] if clients else [])])


VERBS: dict[str, Callable[[Arguments], int]] = {
    "begin": _begin,
    "try": _try,
    "extend": _extend,
    "watch": _watch,
    "touch": _touch,
    "commit": _commit,
    "confirm": _commit,
    "rollback": _rollback,
    "status": _status,
    "boot": _boot,
    "save": _save,
    "list": _list,
    "show": _show,
    "diff": _diff,
    "plan": _plan,
    "load": _load,
    "delete": _delete,
    "prune": _prune,
    "install-init": _install_init,
}

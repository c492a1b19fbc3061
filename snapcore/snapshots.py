"""Named snapshots beside the transaction: save, load, delete, prune, and the comparisons.

`load` is a transaction of its own (unless one is open), so that a crash in the middle of it is undone at the next
boot like any other unfinished change.
"""

from __future__ import annotations

import os

from snapcore import diff, host, phase, restore, state, transaction
from snapcore.errors import Incomplete, NotSaved, RolledBackInstead, SnapcoreError, Usage, WrongState
from snapcore.files import shown, split
from snapcore.store import TRANSACTION
from snapcore.values import NamedTuple
from snapcore.words import boot_id, now, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from snapcore.diff import Difference
    from snapcore.host import Host
    from snapcore.netstate import Change
    from snapcore.running import Running, Ways
    from snapcore.running import Step as StackStep
    from snapcore.state import Cover, Snapshot
    from snapcore.store import Reader, Store
    from snapcore.transaction import Claim

NAME_LENGTH = 100
KEEP = 10


class Loaded(NamedTuple):
    """What `load` did."""

    changed: list[Difference]
    open: bool
    """Whether a transaction that was open before is still to be committed."""
    notes: list[str]


class Step(NamedTuple):
    """One thing that a rollback would do."""

    action: str
    """Of files: `restore`, `remove`, `make-folder` or `set-metadata`. Of the running host: `take-down` and `bring-up`
    (by the stack), `repair` (over netlink, what the stack has left by then)."""
    path: str
    """'' where it is about no file."""
    interface: str
    """'' where it is about none."""
    aspects: tuple[str, ...] = ()
    words: str = ""
    """What is done to the running host."""


def checked_name(name: str) -> str:
    """A name that a person can use in a shell; `Usage` otherwise."""
    plain = all(c.isascii() and (c.isalnum() or c in "._-+:@") for c in name)
    if not plain or not 0 < len(name) <= NAME_LENGTH or name[0] in ".-" or name.startswith(TRANSACTION):
        raise Usage(
            f"{shown(name)!r} can't be the name of a snapshot: 1 to {NAME_LENGTH} letters, digits and ._-+:@,"
            f" not beginning with a dot or a dash, nor with {TRANSACTION}"
        )
    return name


def save(at: Host, store: Store, name: str, covers: Sequence[Cover], label: str = "") -> Snapshot:
    """Saves the configuration as it is now under a name; `NotSaved`."""
    checked_name(name)
    try:
        store.lock(create=True)
        if name in store.names():
            raise SnapcoreError(f"save: there is a snapshot {name!r} already: delete it first")
        _sweep(store)
        writer = store.create("." + name)
        try:
            resolved = at.resolve(covers)
            found = at.scan(resolved, keep=writer.put)
            snapshot = state.Snapshot(
                name=name,
                id=os.urandom(8).hex(),
                created=now(),
                boot_id=boot_id(),
                covers=tuple(resolved),
                entries=transaction.saved_entries(found),
                label=label,
                serial=1 + max((each.serial for each in every(store)), default=0),
            )
            writer.manifest(snapshot)
        finally:
            writer.close()
        store.publish(name)
    except OSError as error:
        raise NotSaved(f"could not save {name!r}: {reason(error)}") from error
    return snapshot


def _sweep(store: Store) -> None:
    record = store.record()
    store.sweep(record.snapshot if record is not None else "")


def every(store: Store) -> list[Snapshot]:
    """The named snapshots, in the order in which they were taken."""
    found = []
    for name in store.names():
        if not name.startswith(TRANSACTION):
            reader = store.snapshot(name)
            reader.close()
            found.append(reader.snapshot)
    return sorted(found, key=lambda each: (each.serial, each.name))


def open_one(store: Store, name: str) -> Reader:
    """A named snapshot, or the open transaction's where `name` is ''. It is checked; close it."""
    if name:
        if not store.exists() or name not in store.names():
            known = [each for each in (store.names() if store.exists() else []) if not each.startswith(TRANSACTION)]
            raise SnapcoreError(f"there is no snapshot {shown(name)!r}: {', '.join(known) or 'none is saved'}")
        reader = store.snapshot(name)
    else:
        record = store.record()
        if record is None:
            raise WrongState("no transaction is open; which snapshot?")
        reader = store.snapshot(record.snapshot, record.manifest_sha256, record.manifest)
    reader.check()
    return reader


def compare(at: Host, store: Store, name: str, other: str = "") -> list[Difference]:
    """How the configuration (or the snapshot `other`) differs from a snapshot."""
    reader = open_one(store, name)
    reader.close()
    snapshot = reader.snapshot
    if other:
        second = open_one(store, other)
        second.close()
        return diff.compare(snapshot.entries, second.snapshot.entries, frozenset())
    found = at.scan(snapshot.covers, known=snapshot.entries)
    return host.differences(snapshot.entries, found)


def compare_kernel(at: Host, store: Store) -> tuple[list[Change], list[str]]:
    """How the kernel's state differs from that at `begin`; and notes on why that can't be said."""
    part, notes = _running(at, store)
    return (part.undone if part is not None else []), notes


def _running(at: Host, store: Store, ways: Ways | None = None) -> tuple[Running | None, list[str]]:
    record = store.record()
    if record is None or not record.kernel_sha256:
        return None, []
    from snapcore import running

    reader = store.snapshot(record.snapshot, record.manifest_sha256, record.manifest)
    try:
        saved = reader.snapshot
        found = running.of(at, record, reader, saved.covers, saved.entries, ways=ways or running.AS_BEGUN)
    finally:
        reader.close()
    return found[0], [why for why in found[1:] if why]


def plan(at: Host, store: Store, name: str = "", ways: Ways | None = None) -> tuple[list[Step], list[str]]:
    """What a rollback (or a load of `name`) would do, in its order; and notes on what can't be said."""
    reader = open_one(store, name)
    reader.close()
    found = at.scan(reader.snapshot.covers, known=reader.snapshot.entries)
    left = host.differences(reader.snapshot.entries, found)
    covers = reader.snapshot.covers
    steps = [Step(_action(each), each.path, interface(each.path, covers), each.aspects) for each in left]
    order = ("make-folder", "restore", "remove", "set-metadata")
    steps.sort(key=lambda step: (order.index(step.action), step.path))
    part, notes = (None, []) if name else _running(at, store, ways)
    if part is None:
        return steps, notes
    down = part.to_take_down() if left or part.has_work else []
    up = part.to_bring_up(step.key for step in down)
    repairs = [Step("repair", "", action.interface, words=str(action)) for action in part.repairs()]
    return [*map(_stack_step, down), *steps, *map(_stack_step, up), *repairs], notes


def _stack_step(step: StackStep) -> Step:
    late = ", without waiting for its lease" if step.detached else ""
    words = f"{step.config.name} ({step.stack.name}{late})"
    return Step(step.action, "", step.config.device, words=words)


def _action(difference: Difference) -> str:
    if difference.old is None:
        return "remove"
    if difference.old.kind != state.FOLDER:
        return "restore"
    return "set-metadata" if difference.new is not None and difference.new.kind == state.FOLDER else "make-folder"


def interface(path: str, covers: Sequence[Cover]) -> str:
    """The interface that a file is about, as its profile says; ''."""
    for cover in covers:
        if cover.interface and host.covered(path, [cover]):
            about = cover.about(split(path)[1])
            if about:
                return about
    return ""


def load(at: Host, store: Store, name: str, claim: Claim, apply: bool = False) -> Loaded:
    """Makes the configuration what it was when `name` was saved: wholly, or not at all.

    Inside an open transaction it is one more change of that; `RolledBackInstead` and `Incomplete` otherwise.
    With `apply` the stack takes down and brings up what the files that differ are about.
    """
    checked_name(name)
    if not store.lock():
        raise SnapcoreError(f"there is no snapshot {name!r}: none is saved")
    reader = open_one(store, name)
    try:
        purpose = f"load {name}"
        record = store.record()
        if record is None:
            store.sweep()
            terms = transaction.Terms(label=purpose, purpose=purpose, kernel=apply and _kernel_can_be_saved())
            record = transaction.arm(at, store, reader.snapshot.covers, terms).record
        else:
            transaction.check_claim(record, claim, "load")
            phase.after(record.phase, "touch")
            transaction.check_deadline(record, "load")
        mine = record.purpose == purpose
        try:
            part = _to_apply(at, reader) if apply else None
            before = (lambda _: _take_down(part)) if part is not None else _nothing
            given = restore.give_back(at, reader.snapshot.covers, reader.snapshot.entries, reader.content, before)
            if part is not None and given.undone:
                part.after_files()
            at.sync(given.found)
        except (OSError, Incomplete) as error:
            if not mine:
                raise Incomplete(f"load {name}: incomplete, the transaction stays open; {reason(error)}",
                                 getattr(error, "differences", [])) from error  # fmt: skip
            transaction.roll_back(at, store, record)
            raise RolledBackInstead(f"load {name}: {reason(error)}; rolled back instead") from error
        notes = transaction.end_commit(at, store, record).notes if mine else []
        return Loaded(given.undone, not mine, [*notes, *(part.notes if part is not None else ())])
    finally:
        reader.close()


def _kernel_can_be_saved() -> bool:
    from snapcore import kernel

    return not kernel.missing()


def _to_apply(at: Host, reader: Reader) -> Running:
    from snapcore import running

    return running.of_files(at, reader.snapshot.covers, reader.snapshot.entries, reader.content)


def _take_down(part: Running) -> None:
    part.before_files()
    part.take_down()


def _nothing(_: list[Difference]) -> None:
    """The transaction's own snapshot keeps what a load discards."""


def delete(store: Store, name: str) -> None:
    """Removes a named snapshot."""
    checked_name(name)
    if not store.lock() or name not in store.names():
        raise SnapcoreError(f"delete: there is no snapshot {name!r}")
    store.delete(name)


def prune(store: Store, keep: int = KEEP) -> list[str]:
    """Removes all but the newest `keep` named snapshots, and what interrupted calls left; the removed names."""
    if not store.lock():
        return []
    _sweep(store)
    gone = [each.name for each in every(store)]
    gone = gone[: max(0, len(gone) - keep)]
    for name in gone:
        store.delete(name)
    return gone


def describe(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot as `list --json` shows it."""
    return {
        "name": snapshot.name,
        "label": snapshot.label,
        "created": snapshot.created,
        "serial": snapshot.serial,
        "families": [cover.family for cover in snapshot.covers],
        "files": sum(entry.kind != state.FOLDER for entry in snapshot.entries.values()),
    }

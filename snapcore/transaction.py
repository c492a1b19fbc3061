"""begin, commit, rollback, boot: one verb each, over a host and a store."""

from __future__ import annotations

import os
from typing import NamedTuple

from snapcore import phase, profiles, state
from snapcore.errors import Corrupt, Incomplete, NotOwner, NotSaved, SnapcoreError
from snapcore.host import Host, differences
from snapcore.store import ARCHIVE_BYTES, Owner, Record, Store
from snapcore.words import boot_id, caller, hashed, held_by, now, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snapcore.diff import Difference
    from snapcore.host import Found, Trouble
    from snapcore.state import Cover
    from snapcore.store import Reader, Writer

ROUNDS = 2
"""How often a rollback compares and restores before it says what still differs."""


class Claim(NamedTuple):
    """What a caller shows to be allowed to end a transaction."""

    token: str = ""
    force: bool = False


class Begun(NamedTuple):
    """What `begin` gives back."""

    record: Record
    token: str
    saved: int
    """Files and links."""


class Committed(NamedTuple):
    """What `commit` ended."""

    record: Record
    notes: list[str]


class RolledBack(NamedTuple):
    """What a complete rollback did."""

    record: Record
    undone: list[Difference]
    notes: list[str]


# Saving.


def begin(
    host: Host,
    store: Store,
    covers: Sequence[Cover],
    *,
    label: str = "",
    token: str = "",
    require_token: bool = False,
) -> Begun:
    """Saves the configuration and opens a transaction; `WrongState` if one is open, `NotSaved` if it can't be saved.

    The transaction is open from the rename in `Store.arm` on. Whatever fails, nothing is armed.
    """
    if store.has_record():  # told at once, without waiting for who is at work
        _refuse_second(store)
    try:
        store.lock(create=True)
        if store.has_record():
            _refuse_second(store)
        store.sweep()
        name = store.free_name()
        record = _new_record(name, label, token := token or os.urandom(8).hex(), require_token)
    except OSError as error:
        raise NotSaved(f"could not save the configuration, nothing is armed: {reason(error)}") from error
    try:
        sha256, saved = _save(host, store, covers, record, label)
        record = record._replace(manifest_sha256=sha256)
        store.arm(record)
    except BaseException as error:
        left = _disarm(store, record)
        if isinstance(error, OSError):
            raise NotSaved(f"could not save the configuration{left}: {reason(error)}") from error
        raise
    return Begun(record, token, saved)


def _refuse_second(store: Store) -> None:
    try:
        record = store.record()
    except (OSError, Corrupt):
        record = None
    phase.after(phase.OPEN, "begin", detail=f": {held_by(record)}" if record else "")


def _disarm(store: Store, record: Record) -> str:
    """Undoes a `begin` that failed; how that went, for the message."""
    try:
        store.disarm(record)
    except OSError as error:
        return f", and the half-made transaction can't be taken back ({reason(error)}): see `snapcore status`"
    return ", nothing is armed"


def _new_record(snapshot: str, label: str, token: str, require_token: bool) -> Record:
    return Record(
        id=os.urandom(8).hex(),
        snapshot=snapshot,
        manifest_sha256="",
        owner=Owner(os.getuid(), os.getppid(), caller()),
        token_sha256=hashed(token),
        require_token=require_token,
        label=label,
        since=now(),
        boot_id=boot_id(),
        phase=phase.OPEN,
    )


def _save(host: Host, store: Store, covers: Sequence[Cover], record: Record, label: str) -> tuple[str, int]:
    """Writes the snapshot; (hash of its manifest, number of files and links)."""
    writer = store.create(record.snapshot)
    try:
        resolved = host.resolve(covers)
        found = host.scan(resolved, keep=writer.put)
        entries = {path: entry for path, entry in found.entries.items() if entry.kind != state.OTHER}
        snapshot = state.Snapshot(
            name=record.snapshot,
            id=record.id,
            created=record.since,
            boot_id=record.boot_id,
            covers=tuple(resolved),
            entries=entries,
            label=label,
        )
        return writer.manifest(snapshot), sum(entry.kind != state.FOLDER for entry in entries.values())
    finally:
        writer.close()


# Ending.


def commit(host: Host, store: Store, claim: Claim) -> Committed:
    """Keeps the configuration as it is now, and ends the transaction.

    What is on the disk now is made durable first: a power cut after `commit` must not bring back old files, or
    leave empty ones.
    """
    record, ended = _locked_record(store, "commit")
    if ended:
        return Committed(record, _tidy(store))
    _check_claim(record, claim, "commit")
    phase.after(record.phase, "commit", force=claim.force)
    try:
        found = host.scan(_covers(host, store, record))
        host.sweep(found.entries)
        host.sync(found)
        store.end("commit")
    except OSError as error:
        raise SnapcoreError(f"could not commit, the transaction stays open: {reason(error)}") from error
    return Committed(record, _tidy(store))


def _covers(host: Host, store: Store, record: Record) -> Sequence[Cover]:
    """What the transaction covers. Who wants to keep the new configuration needs no sound copy of the old one."""
    try:
        reader = store.snapshot(record.snapshot, record.manifest_sha256)
    except Corrupt:
        return host.resolve(profile.cover() for profile in profiles.chosen(()))
    try:
        return reader.snapshot.covers
    finally:
        reader.close()


def rollback(host: Host, store: Store, claim: Claim) -> RolledBack:
    """Gives the saved configuration back, and ends the transaction.

    `Incomplete` lists what still differs; the transaction then stays open, and the next rollback goes on.
    """
    record, ended = _locked_record(store, "rollback")
    if ended:
        return RolledBack(record, [], _tidy(store))
    _check_claim(record, claim, "rollback")
    return _roll_back(host, store, record)


def boot(host: Host, store: Store) -> RolledBack | None:
    """Rolls an open transaction back, whoever holds it. Without one nothing is written, and None returned."""
    if not store.has_record():
        return None
    store.lock()
    record = store.record()
    if record is None:
        return None
    return _roll_back(host, store, record)


def _locked_record(store: Store, verb: str) -> tuple[Record, bool]:
    """(the open transaction, False), with the store locked; `WrongState` if there is none.

    (record, True) for one that the same verb has ended before it was interrupted: only the tidying is left.
    """
    if store.lock():
        record = store.record()
        if record is not None:
            return record, False
        record = store.ended(verb)
        if record is not None:
            return record, True
    phase.after(phase.NONE, verb)
    raise AssertionError("the table lets no verb of these pass")


def _check_claim(record: Record, claim: Claim, verb: str) -> None:
    """`NotOwner` unless the caller may end the transaction."""
    if claim.force and os.getuid() in (0, record.owner.uid):
        return
    if claim.token:
        if hashed(claim.token) == record.token_sha256:
            return
        raise NotOwner(f"{verb}: the token is another one: {held_by(record)}")
    if record.require_token:
        raise NotOwner(f"{verb}: this transaction asks for its token (--token): {held_by(record)}")
    if os.getuid() != record.owner.uid:
        raise NotOwner(f"{verb}: not yours without its token (--token) or, as root, --force: {held_by(record)}")


def _roll_back(host: Host, store: Store, record: Record) -> RolledBack:
    phase.after(record.phase, "rollback")
    reader = store.snapshot(record.snapshot, record.manifest_sha256)
    try:
        reader.check()
        work = _Rollback(host, store, record, reader)
        try:
            work.restore()
            work.finish()
        except (OSError, Incomplete) as error:
            work.note_failure(error)
            if isinstance(error, OSError):
                raise Incomplete(f"rollback incomplete, the transaction stays open: {reason(error)}") from error
            raise
    finally:
        reader.close()
    work.notes.extend(_tidy(store))
    return RolledBack(record, work.undone, work.notes)


class _Rollback:
    """compare → difference → restore → compare again, until nothing differs; then the end, durably."""

    def __init__(self, host: Host, store: Store, record: Record, reader: Reader) -> None:
        self.host = host
        self.store = store
        self.record = record
        self.reader = reader
        self.saved = {
            path: entry
            for path, entry in reader.snapshot.entries.items()
            if record.boot_id == boot_id() or not path.startswith("run/")  # /run begins empty at every boot
        }
        self.undone: list[Difference] = []
        self.notes: list[str] = []
        self.found: Found | None = None

    def compare(self) -> tuple[Found, list[Difference]]:
        found = self.host.scan(self.reader.snapshot.covers, known=self.saved, go_on=True)
        return found, differences(self.saved, found)

    def restore(self) -> None:
        """Restores in at most `ROUNDS` rounds; `Incomplete` if something still differs."""
        found, left = self.compare()
        self.undone = left
        troubles: list[Trouble] = []
        for number in range(ROUNDS):
            self.host.sweep(found.entries)
            if not left:
                break
            troubles = self.host.restore(left, self.reader.content, self._before_placing(number, left))
            found, left = self.compare()
            left = [each for each in left if not _is_foreign_folder(each)]
        problems = [str(each) for each in left]
        problems += [str(each) for each in dict.fromkeys((*(troubles if left else ()), *found.troubles))]
        if problems:
            raise Incomplete("rollback incomplete, the transaction stays open; what differs:", problems)
        self.found = found

    def _before_placing(self, number: int, left: list[Difference]) -> Callable[[], None]:
        def prepare() -> None:
            if number > 0:
                return
            self._mark()
            self._archive(left)

        return prepare

    def _mark(self) -> None:
        """From here on the configuration may be a mixture. A disk without room for the mark is rolled back all the
        same: to be reachable again counts for more than a refused `commit`."""
        if self.record.phase == phase.ROLLING_BACK:
            return
        marked = self.record._replace(phase=phase.ROLLING_BACK)
        try:
            self.store.rewrite(marked)
            self.record = marked
        except OSError as error:
            self.notes.append(f"could not mark the rollback as begun: {reason(error)}")

    def _archive(self, left: list[Difference]) -> None:
        """Keeps what is about to be discarded, if there is room."""
        discarded = {each.path: each.new for each in left if each.new is not None and each.new.kind in ("file", "link")}
        if not discarded or sum(entry.size for entry in discarded.values()) > ARCHIVE_BYTES:
            return

        def write(writer: Writer) -> None:
            kept: dict[str, state.Entry] = {}

            def keep(path: str, entry: state.Entry, data: bytes) -> None:
                if path in discarded:
                    kept[path] = entry
                    writer.put(path, entry, data)

            host = Host(self.host.root)  # descriptors of its own: those of the restore stay what they are
            try:
                host.scan(self.reader.snapshot.covers, keep=keep, go_on=True)
            finally:
                host.close()
            snapshot = self.reader.snapshot
            writer.manifest(snapshot._replace(name="discarded", created=now(), entries=kept))

        try:
            self.store.archive(write)
        except OSError as error:
            self.notes.append(f"what was rolled back is not kept in the archive: {reason(error)}")

    def finish(self) -> None:
        """Makes what was given back durable, and only then ends the transaction."""
        assert self.found is not None
        self.host.sweep(self.found.entries)
        self.host.sync(self.found)
        self.store.end("rollback")

    def note_failure(self, error: Exception) -> None:
        """Counts the failure in the record, where that can be written."""
        failed = self.record._replace(failures=self.record.failures + 1, last_failure=f"{now()}: {reason(error)}")
        try:
            self.store.rewrite(failed)
        except OSError:
            pass  # the disk that made the rollback fail is the disk of the record


def _is_foreign_folder(difference: Difference) -> bool:
    """A folder that was not there at `begin` and can't go because it holds what is not configuration."""
    return difference.old is None and difference.new is not None and difference.new.kind == state.FOLDER


def _tidy(store: Store) -> list[str]:
    """After the end: what is left of the transaction. The next call tries again where this one fails."""
    try:
        store.sweep()
    except OSError as error:
        return [f"could not tidy up {store.place} (the next call tries again): {reason(error)}"]
    return []

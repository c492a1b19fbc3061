"""begin, touch, commit, rollback, boot: one verb each, over a host and a store."""

from __future__ import annotations

import os

from snapcore import phase, profiles, restore, state
from snapcore.errors import Corrupt, DeadlinePassed, ForeignChange, Incomplete, NotOwner, NotSaved, SnapcoreError, Usage
from snapcore.files import shown
from snapcore.host import covered
from snapcore.store import Owner, Record
from snapcore.values import NamedTuple
from snapcore.words import boot_id, boottime, caller, hashed, held_by, instance, left_s, now, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from snapcore.diff import Difference
    from snapcore.host import Found, Host
    from snapcore.running import Running, Ways
    from snapcore.state import Cover, Entry
    from snapcore.store import Process, Reader, Store

RESTORE, KEEP, FAIL = "restore", "keep-external", "fail"
POLICIES = (RESTORE, KEEP, FAIL)
"""What a rollback does with changes that nobody announced by `touch`, where at least one was announced."""


class Terms(NamedTuple):
    """How a transaction is begun."""

    label: str = ""
    token: str = ""
    """Chosen by the caller; '' for a random one."""
    require_token: bool = False
    track: bool = False
    """Save a file only when `touch` announces its first change."""
    policy: str = RESTORE
    purpose: str = ""
    """The verb that this transaction is part of (`load NAME`); '' if it is a transaction of its own."""
    kernel: bool = False
    """Save the kernel's network state too."""
    nft: bool = False
    """With the nftables rule set."""
    only: tuple[str, ...] = ()
    """The interfaces that the transaction is about; () for all."""
    strategy: str = "minimal"
    """How a rollback brings the running host back: see `running`."""
    new_devices: str = "delete"
    external_ports: str = "keep"
    timeout_s: float = 0.0
    """After how many seconds it is rolled back; 0: it has no deadline. See `guard`."""
    clients: Sequence[Process] = ()
    """Processes whose end is to be answered by a rollback."""


DEFAULT_TERMS = Terms()


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

    record: Record | None
    """None where there was no sound one."""
    notes: list[str]


class RolledBack(NamedTuple):
    """What a complete rollback did."""

    record: Record
    undone: list[Difference]
    notes: list[str]
    kernel: Sequence[str] = ()
    """How the kernel's state differed before, in words."""


# Saving.


def begin(host: Host, store: Store, covers: Sequence[Cover], terms: Terms = DEFAULT_TERMS) -> Begun:
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
        return arm(host, store, covers, terms)
    except OSError as error:
        raise NotSaved(f"could not save the configuration, nothing is armed: {reason(error)}") from error


def arm(host: Host, store: Store, covers: Sequence[Cover], terms: Terms) -> Begun:
    """`begin`, where the store is locked and swept and nothing is open."""
    token = terms.token or os.urandom(8).hex()
    record = _new_record(store.free_name(), token, terms)
    try:
        record, saved = _save(host, store, covers, record, terms.kernel)
        record = _with_deadline(record, terms.timeout_s)
        store.arm(record)
    except BaseException as error:
        left = disarm(store, record)
        if isinstance(error, OSError):
            raise NotSaved(f"could not save the configuration{left}: {reason(error)}") from error
        raise
    return Begun(record, token, saved)


def _with_deadline(record: Record, timeout_s: float) -> Record:
    """The time runs from the moment at which the transaction opens."""
    if not timeout_s:
        return record
    return record._replace(deadline=now(timeout_s), deadline_boottime=boottime() + timeout_s)


def check_deadline(record: Record, verb: str) -> None:
    """`DeadlinePassed` where it has; the store is locked, so that nobody else answers it meanwhile."""
    left = left_s(record)
    if left is not None and left <= 0:
        raise DeadlinePassed(f"{verb}: the deadline, {record.deadline}, has passed: it is rolled back")


def _refuse_second(store: Store) -> None:
    try:
        record = store.record()
    except (OSError, Corrupt):
        record = None
    phase.after(phase.OPEN, "begin", detail=f": {held_by(record)}" if record else "")


def disarm(store: Store, record: Record) -> str:
    """Undoes a `begin` that failed; how that went, for the message."""
    try:
        store.disarm(record)
    except OSError as error:
        return f", and the half-made transaction can't be taken back ({reason(error)}): see `snapcore status`"
    return ", nothing is armed"


def _new_record(snapshot: str, token: str, terms: Terms) -> Record:
    return Record(
        id=os.urandom(8).hex(),
        snapshot=snapshot,
        manifest="manifest.json",
        manifest_sha256="",
        owner=Owner(os.getuid(), os.getppid(), caller()),
        token_sha256=hashed(token),
        require_token=terms.require_token,
        label=terms.label,
        since=now(),
        boot_id=boot_id(),
        phase=phase.OPEN,
        purpose=terms.purpose,
        clients=terms.clients,
        track=terms.track,
        policy=terms.policy,
        strategy=terms.strategy,
        new_devices=terms.new_devices,
        external_ports=terms.external_ports,
        only=terms.only,
        nft=terms.nft,
    )


def _save(host: Host, store: Store, covers: Sequence[Cover], record: Record, kernel: bool) -> tuple[Record, int]:
    """Writes the transaction's snapshot; (the record with its hashes, number of files and links)."""
    writer = store.create(record.snapshot)
    try:
        if kernel:
            from snapcore import running

            sha256 = writer.kernel(running.saved(record.nft))
            record = record._replace(kernel_sha256=sha256, instance=instance())
        if record.only:
            covers = [cover._replace(only=tuple(record.only)) for cover in covers]
        empty = state.Snapshot(record.snapshot, record.id, record.since, record.boot_id, (), {}, record.label)
        if record.track:
            return record._replace(manifest_sha256=writer.manifest(empty)), 0
        resolved = host.resolve(covers)
        found = host.scan(resolved, keep=writer.put)
        entries = saved_entries(found)
        sha256 = writer.manifest(empty._replace(covers=tuple(resolved), entries=entries))
        return record._replace(manifest_sha256=sha256), sum(entry.kind != state.FOLDER for entry in entries.values())
    finally:
        writer.close()


def saved_entries(found: Found) -> dict[str, Entry]:
    """What of a scan is configuration."""
    return {path: entry for path, entry in found.entries.items() if entry.kind != state.OTHER}


def touch(host: Host, store: Store, paths: Iterable[str], claim: Claim) -> Record:
    """Announces that the transaction's owner is about to change `paths` (relative to the root).

    They count as its own from now on. In a transaction that tracks, their state is saved now, if it is not yet;
    `NotSaved` if that fails, and nothing is announced then.
    """
    record, ended = _locked_record(store, "touch")
    assert not ended
    check_claim(record, claim, "touch")
    phase.after(record.phase, "touch")
    check_deadline(record, "touch")
    wanted = [path for path in dict.fromkeys(paths) if path not in record.touched]
    try:
        record = _save_touched(host, store, record, wanted)
        record = record._replace(touched=[*record.touched, *wanted])
        store.rewrite(record)
    except OSError as error:
        raise NotSaved(f"could not save before the change: {reason(error)}") from error
    store.tidy_manifests(record)
    return record


def _save_touched(host: Host, store: Store, record: Record, paths: list[str]) -> Record:
    """Saves those of `paths` that are not saved yet in a new manifest beside the old one.

    The record that names it is given back, and still to be written.
    """
    reader = store.snapshot(record.snapshot, record.manifest_sha256, record.manifest)
    try:
        before = reader.snapshot
        new = tuple(state.escaped(path) for path in paths if not covered(path, before.covers))
        if not new:
            return record
        covers = host.resolve([state.Cover("touched", new)])
        writer = reader.add()
        found = host.scan(covers, keep=writer.put_again)
        after = before._replace(
            covers=(*before.covers, *(cover for cover in covers if cover.include)),
            entries={**saved_entries(found), **before.entries},
        )
        number = int("0" + "".join(c for c in record.manifest if c.isdigit())) + 1
        name = f"manifest-{number:06}.json"
        sha256 = writer.manifest(after, name)
        store.sync()
        return record._replace(manifest=name, manifest_sha256=sha256)
    finally:
        reader.close()


# Ending.


def commit(host: Host, store: Store, claim: Claim) -> Committed:
    """Keeps the configuration as it is now, and ends the transaction.

    What is on the disk now is made durable first: a power cut after `commit` must not bring back old files, or
    leave empty ones.
    """
    try:
        record, ended = _locked_record(store, "commit")
    except Corrupt:
        if not (claim.force and os.getuid() == 0):
            raise
        return end_commit(host, store, None)
    if ended:
        return Committed(record, tidy(store, "commit", record))
    check_claim(record, claim, "commit")
    if record.phase == phase.OPEN or not claim.force:  # what can't be rolled back can be kept at any time
        check_deadline(record, "commit")
    phase.after(record.phase, "commit", force=claim.force)
    return end_commit(host, store, record)


def end_commit(host: Host, store: Store, record: Record | None) -> Committed:
    """The end of a commit, where all is allowed."""
    try:
        found = host.scan(_covers(host, store, record), go_on=True)
        host.sweep(found.entries)
        host.sync(found)
        store.end("commit")
    except OSError as error:
        raise SnapcoreError(f"could not commit, the transaction stays open: {reason(error)}") from error
    return Committed(record, tidy(store, "commit", record))


def _covers(host: Host, store: Store, record: Record | None) -> Sequence[Cover]:
    """What the transaction covers. Who wants to keep the new configuration needs no sound copy of the old one."""
    try:
        if record is not None:
            reader = store.snapshot(record.snapshot, record.manifest_sha256, record.manifest)
            reader.close()
            return reader.snapshot.covers
    except Corrupt:
        pass
    return host.resolve(profile.cover() for profile in profiles.chosen(()))


def rollback(host: Host, store: Store, claim: Claim, ways: Ways | None = None) -> RolledBack:
    """Gives the saved configuration back, and the kernel's state where it was saved, and ends the transaction.

    `Incomplete` lists what still differs; the transaction then stays open, and the next rollback goes on.
    """
    record, ended = _locked_record(store, "rollback")
    if ended:
        return RolledBack(record, [], tidy(store, "rollback", record))
    check_claim(record, claim, "rollback")
    policy = RESTORE if claim.force else record.policy
    return roll_back(host, store, record, policy, ways)


def boot(host: Host, store: Store) -> RolledBack | None:
    """Rolls an open transaction back, whoever holds it. Without one nothing is written, and None returned.

    The files alone: networking starts after it.
    Nobody is there to decide about changes from outside: `fail` is `restore` here.
    """
    if not store.has_record():
        return None
    store.lock()
    record = store.record()
    if record is None:
        return None
    return roll_back(host, store, record, RESTORE if record.policy == FAIL else record.policy, files_only=True)


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


def check_claim(record: Record, claim: Claim, verb: str) -> None:
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


def roll_back(
    host: Host,
    store: Store,
    record: Record,
    policy: str = RESTORE,
    ways: Ways | None = None,
    files_only: bool = False,
) -> RolledBack:
    """The work of `rollback` and `boot`, with the store locked."""
    phase.after(record.phase, "rollback")
    reader = store.snapshot(record.snapshot, record.manifest_sha256, record.manifest)
    work = _Rollback(host, store, record, reader)
    try:
        reader.check()
        work.spare(policy)
        if not files_only:
            work.meet_running(ways)
        given = work.give_back()
        host.sync(given.found)
        store.end("rollback")
    except OSError as error:
        work.note_failure(error)
        raise Incomplete(f"rollback incomplete, the transaction stays open: {reason(error)}") from error
    except Incomplete as error:
        work.note_failure(error)
        message = f"rollback incomplete, the transaction stays open; {error}"
        raise Incomplete(message, [*error.differences, *(f"note: {note}" for note in work.running_notes)]) from error
    finally:
        reader.close()
    notes = [*work.notes, *work.running_notes, *tidy(store, "rollback", record)]
    return RolledBack(record, given.undone, notes, work.undone_in_kernel)


def undo_entries(record: Record, entries: dict[str, Entry]) -> dict[str, Entry]:
    """What a rollback gives back: after another boot not what lay in /run, which begins empty."""
    if record.boot_id == boot_id():
        return entries
    return {path: entry for path, entry in entries.items() if not path.startswith("run/") and path != "run"}


def undo_covers(record: Record, covers: Sequence[Cover]) -> Sequence[Cover]:
    """As `undo_entries`, for what is covered: what this boot has put into /run is not the transaction's."""
    if record.boot_id == boot_id():
        return covers
    kept = [[path for path in cover.include if not path.startswith("run/")] for cover in covers]
    return [cover._replace(include=tuple(include)) for cover, include in zip(covers, kept)]


class _Rollback:
    """What a rollback keeps about itself."""

    def __init__(self, host: Host, store: Store, record: Record, reader: Reader) -> None:
        self.host = host
        self.store = store
        self.record = record
        self.reader = reader
        self.saved = undo_entries(record, reader.snapshot.entries)
        self.covers = undo_covers(record, reader.snapshot.covers)
        self.notes: list[str] = []
        self.spared: frozenset[str] = frozenset()
        self.running: Running | None = None
        self.taken_down = False
        self.failed: list[str] = []

    def spare(self, policy: str) -> None:
        """Finds what was changed from outside and is left so; `ForeignChange` where the policy is `fail`."""
        if self.record.track or self.record.phase == phase.ROLLING_BACK:
            return
        if not self.record.touched:
            if policy != RESTORE:
                self.notes.append(f"no change was announced (`touch`): all count as the transaction's, not `{policy}`")
            return
        _, left = restore.compare(self.host, self.covers, self.saved)
        foreign = [each for each in left if each.path not in self.record.touched]
        if not foreign:
            return
        if policy == FAIL:
            listed = ", ".join(str(each) for each in foreign)
            raise ForeignChange(f"changed by others, nothing was done (--force restores all the same): {listed}")
        word = "kept" if policy == KEEP else "restored too"
        self.notes.extend(f"changed by others, {word}: {each}" for each in foreign)
        if policy == KEEP:
            self.spared = frozenset(each.path for each in foreign)

    def meet_running(self, ways: Ways | None) -> None:
        """Looks at the running host, where its state was saved."""
        if not self.record.kernel_sha256:
            return
        from snapcore import running

        part = (self.covers, self.saved, self.spared, ways or running.AS_BEGUN)
        self.running, why, failed = running.of(self.host, self.record, self.reader, *part)
        self.notes.extend([why] if why else [])
        self.failed.extend([f"the running host is not brought back: {failed}"] if failed else [])

    @property
    def running_notes(self) -> list[str]:
        return self.running.notes if self.running is not None else []

    @property
    def undone_in_kernel(self) -> list[str]:
        return [str(change) for change in self.running.undone] if self.running is not None else []

    def give_back(self) -> restore.GivenBack:
        """The files, and then the running host, also where a file could not be given back; `Incomplete`."""
        given = None
        left: list[str] = []
        try:
            given = restore.give_back(
                self.host, self.covers, self.saved, self.reader.content, self.before_placing, self.spared
            )
        except (OSError, Incomplete) as error:
            if self.running is None and not self.failed:
                raise
            left = error.differences if isinstance(error, Incomplete) else [reason(error)]
        if self.running is not None and self.running.has_work:
            self.take_down()
            left = [*left, *self.running.after_files()]
            left = [*left, *self.rewritten(given)] if given is not None else left
        left = [*left, *self.failed]
        if given is None or left:
            raise Incomplete("what differs:", left)
        return given

    def rewritten(self, given: restore.GivenBack) -> list[str]:
        """What somebody has changed again while the running host was brought back. A resolver's file is the stack's to
        write, and so are the profiles that NetworkManager makes up for devices that are none of its own: these are only
        told.
        """
        again = [
            each for each in restore.compare(self.host, self.covers, self.saved)[1] if each.path not in self.spared
        ]
        made_up = "run/NetworkManager/system-connections/"
        told = [each for each in again if each.path == "etc/resolv.conf" or each.path.startswith(made_up)]
        self.notes.extend(f"written again since it was given back: {each}" for each in told)
        return [f"changed again by others since it was given back: {each}" for each in again if each not in told]

    def before_placing(self, undone: list[Difference]) -> None:
        """The old files lie ready beside their places: marks the rollback, and takes down what they do not know."""
        self.mark(self.running.before_files() if self.running is not None else ())
        self.notes.extend(restore.archive(self.host, self.store, self.reader.snapshot, undone))
        self.take_down()

    def take_down(self) -> None:
        """Once: before the files are placed, or after them where no file differed."""
        if self.running is not None and not self.taken_down:
            self.taken_down = True
            self.mark(self.running.before_files())
            self.running.take_down()

    def mark(self, bounced: Sequence[str]) -> None:
        """Marks the rollback as begun: from here on the configuration may be a mixture.

        A disk without room for the mark is rolled back all the same: to be reachable again counts for more than a
        refused `commit`.
        """
        marked = self.record._replace(phase=phase.ROLLING_BACK, bounced=bounced)
        if (marked.phase, list(marked.bounced)) == (self.record.phase, list(self.record.bounced)):
            return
        try:
            self.store.rewrite(marked)
            self.record = marked
        except OSError as error:
            self.notes.append(f"could not mark the rollback as begun: {reason(error)}")

    def note_failure(self, error: Exception) -> None:
        """Counts the failure in the record, where that can be written."""
        failed = self.record._replace(failures=self.record.failures + 1, last_failure=f"{now()}: {reason(error)}")
        try:
            if self.store.has_record():
                self.store.rewrite(failed)
        except OSError:
            pass  # the disk that made the rollback fail is the disk of the record


def tidy(store: Store, verb: str, record: Record | None) -> list[str]:
    """After the end by `verb`: what is left of the transaction. The next call tries again where this one fails.

    How one with a deadline has ended is remembered: somebody may wait for that.
    """
    try:
        if record is not None and record.deadline:
            store.remember(verb)
        store.sweep()
    except OSError as error:
        return [f"could not tidy up {store.place} (the next call tries again): {reason(error)}"]
    return []


def path_below(root: str, path: str) -> str:
    """A path that a user gives (absolute on the host, or below the current folder) as one relative to the root."""
    absolute = os.path.abspath(path)
    top = os.path.abspath(root)
    if top != "/" and (absolute + "/").startswith(top + "/"):
        absolute = absolute[len(top) :]
    relative = absolute.strip("/")
    if "/" not in relative:
        raise Usage(f"{shown(path)}: a file in a folder below {shown(top)} is wanted")
    return relative

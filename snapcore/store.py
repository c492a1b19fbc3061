"""The store: /var/lib/snapcore, mode 0700.

    open                                the record of the open transaction; absent: there is none
    snapshots/NAME/manifest.json        see `state`
    snapshots/NAME/files/etc/…          the saved files, in their own tree
    snapshots/NAME/kernel.json          the kernel's network state, where it was saved: see `netstate`
    snapshots/NAME/watcher              the process that holds the deadline, which it keeps locked: see `guard`
    last-committed, last-rolled-back    how the last transaction with a deadline ended: its record
    archive/NUMBER/…                    what rollbacks discarded, in the same form; the oldest go first

The record appears by one rename, after all that it names is durable, and disappears by one rename: these two are
the instants at which a transaction begins and ends. Whatever else lies about (dotted names, snapshots of
transactions that no record names) is left by an interrupted call and swept by the next one that writes.

The lock is flock(2) on the folder itself: it needs no file, so a read-only disk can be looked after too, and it is
gone with the process that held it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from snapcore import files
from snapcore.errors import Corrupt, Locked, NotOwner
from snapcore.files import raw, shown, split
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from snapcore.state import Entry, Snapshot

PLACE = "var/lib/snapcore"
RECORD = b"open"
PENDING = b".open"
KERNEL = b"kernel.json"
ENDED = {"commit": b".committed", "rollback": b".rolled-back"}
"""What a record becomes by each verb, until it is tidied away."""
LAST = {"commit": b"last-committed", "rollback": b"last-rolled-back"}
"""What the record of a transaction with a deadline becomes after that: for who waits for its end."""
WATCHER = b"watcher"
TRANSACTION = "transaction-"
"""Names of the snapshots that belong to transactions begin with this."""
LOCK_WAIT_S = 5.0
ARCHIVE_COUNT = 10
ARCHIVE_BYTES = 16 << 20
KEPT_BYTES = 16 << 20
"""How much of a snapshot stays in memory once it was checked."""


class Owner(NamedTuple):
    """Who began a transaction."""

    uid: int
    pid: int
    command: str


class Process(NamedTuple):
    """A process, told from a later one with the same number."""

    pid: int
    start: int
    """When it was started, in clock ticks since the boot (proc(5), /proc/PID/stat field 22)."""


class Record(NamedTuple):
    """The open transaction."""

    id: str
    snapshot: str
    manifest: str
    """The manifest's name: a transaction that tracks writes a new one at each `touch`."""
    manifest_sha256: str
    """Of the manifest's bytes."""
    owner: Owner
    token_sha256: str
    require_token: bool
    label: str
    since: str
    """UTC, ISO 8601: for people. Nothing is decided by it."""
    boot_id: str
    phase: str
    failures: int = 0
    """How many rollbacks in a row did not succeed."""
    last_failure: str = ""
    purpose: str = ""
    """The verb that the transaction is part of; '' if it is one of its own."""
    track: bool = False
    policy: str = "restore"
    touched: Sequence[str] = ()
    """Paths that `touch` announced."""
    deadline: str = ""
    """UTC, ISO 8601, for people; '' for none."""
    deadline_boottime: float = 0.0
    """The deadline: CLOCK_BOOTTIME of the boot that `boot_id` names, in seconds."""
    clients: Sequence[Process] = ()
    """The processes whose end, of any of them, is to be answered by a rollback."""
    change: Process | None = None
    """The command of `try`, leader of a process group unless it has the terminal."""
    attempts: int = 3
    """After how many failed rollbacks of a transaction whose deadline has passed the rest is left to the boot."""
    kernel_sha256: str = ""
    """Of the bytes of the kernel's saved state; '' where it was not saved."""
    instance: str = ""
    """The network stack whose state was saved, see `words.instance`."""
    strategy: str = "minimal"
    """How a rollback brings the running host back: see `running`."""
    new_devices: str = "delete"
    external_ports: str = "keep"
    only: Sequence[str] = ()
    """The interfaces that the transaction is about; () for all."""
    nft: bool = False
    """Whether the nftables rule set was saved too."""
    bounced: Sequence[str] = ()
    """Configurations (`STACK:NAME`) that a rollback has taken down and has to bring up again."""

    def to_json(self) -> bytes:
        from snapcore.state import FORMAT, seal

        plain = self._asdict()
        plain["owner"] = self.owner._asdict()
        plain["clients"] = [client._asdict() for client in self.clients]
        plain["change"] = self.change._asdict() if self.change else None
        return seal({"format": FORMAT, "kind": "transaction", **plain})


def record_from_json(data: bytes, what: str) -> Record:
    """The record in a file; `Corrupt` where it is torn, altered or newer."""
    from snapcore.state import unseal

    document = unseal(data, what, "transaction")
    try:
        plain = {field: document[field] for field in Record._fields if field in document}  # an older one has fewer
        plain["owner"] = Owner(**plain["owner"])
        plain["clients"] = tuple(Process(**client) for client in plain.get("clients", ()))
        plain["change"] = Process(**plain["change"]) if plain.get("change") else None
        return Record(**plain)
    except (KeyError, TypeError) as error:
        raise Corrupt(f"{what}: makes no sense: {error!r}") from None


def _locked(fd: int, timeout_s: float) -> bool:
    """Waits for a flock(2). False when the time is over: close `fd` then.

    There is no call that does so with a deadline, and an alarm would disturb who uses this as a library: so a thread
    waits. If it gets the lock after all, of a file that is closed by then, the kernel lets go of it at once.
    """
    if timeout_s <= 0:
        return False
    import threading

    failed: list[OSError] = []

    def wait() -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(timeout_s)
    if failed:
        raise failed[0]
    return not waiting.is_alive()


class Store:
    """The store of one host. Opening it changes nothing."""

    def __init__(self, host: files.Tree) -> None:
        self._host = host
        self._path = host.resolve(PLACE)[0]
        self._tree: files.Tree | None = None

    @property
    def place(self) -> str:
        """For messages."""
        return "/" + shown(self._path)

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def _open(self, create: bool = False) -> files.Tree | None:
        """The store's own tree; None if there is no store."""
        if self._tree is None:
            try:
                if create:
                    above, name = split(self._path)
                    parent = self._host.make_folders(above)
                    try:
                        os.mkdir(raw(name), 0o700, dir_fd=parent)
                    except FileExistsError:
                        pass
                self._tree = files.Tree(fd=os.dup(self._host.folder(self._path)))
                self._host.forget(self._path)
            except FileNotFoundError:
                return None
            except PermissionError:
                if create and not self._is_there():
                    raise
                raise NotOwner(f"{self.place}: belongs to another user; root can look") from None
        return self._tree

    def _is_there(self) -> bool:
        above, name = split(self._path)
        try:
            os.stat(raw(name), dir_fd=self._host.folder(above), follow_symlinks=False)
        except OSError:
            return False
        return True

    def _folder(self, path: str = "", *, make: bool = False) -> int:
        tree = self._open()
        if tree is None:
            raise FileNotFoundError(errno.ENOENT, "no store", self.place)
        return tree.make_folders(path, 0o700) if make else tree.folder(path)

    # The lock.

    def lock(self, *, create: bool = False) -> bool:
        """Waits for the lock, which lasts until `close`. False if there is no store; `Locked` after `LOCK_WAIT_S`."""
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            tree = self._open(create)
            if tree is None:
                return False
            try:
                fcntl.flock(tree.folder(""), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not _locked(tree.folder(""), deadline - time.monotonic()):
                    holder = self._lock_holder()
                    self.close()
                    raise Locked(f"another snapcore is at work{holder}; waited {LOCK_WAIT_S:g} s") from None
            if self._is_still_there(tree):
                return True
            self.close()

    def _is_still_there(self, tree: files.Tree) -> bool:
        """Whether the folder that is locked is the one that others will find."""
        self._host.forget(self._path)
        try:
            now = os.fstat(self._host.folder(self._path))
        except FileNotFoundError:
            return False
        mine = os.fstat(tree.folder(""))
        return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)

    def _lock_holder(self) -> str:
        """Who holds the lock, for a message: ' (process 12)'; '' if that can't be seen."""
        try:
            inode = os.fstat(self._folder()).st_ino
            with open("/proc/locks", encoding="ascii", errors="replace") as locks:
                held = [line.split() for line in locks if "FLOCK" in line]
            pid = next(f[f.index("FLOCK") + 3] for f in held if "->" not in f and f[-3].endswith(f":{inode}"))
        except (OSError, StopIteration, IndexError, ValueError):
            return ""
        return f" (process {pid})" if pid != "0" else ""

    # The record.

    def record(self) -> Record | None:
        """The open transaction; None if there is none; `Corrupt`; `OSError` if it can't be told."""
        if self._open() is None:
            return None
        try:
            data = files.read_file(self._folder(), RECORD)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO):
                raise Corrupt(f"{self.place}/open: not a regular file") from None
            raise
        return record_from_json(data, f"{self.place}/open")

    def has_record(self) -> bool:
        """Whether a transaction is open, without reading who holds it."""
        if self._open() is None:
            return False
        try:
            os.stat(RECORD, dir_fd=self._folder(), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def arm(self, record: Record) -> None:
        """Makes all that was written durable and then opens the transaction, durably.

        When it fails, `disarm` leaves nothing open.
        """
        folder = self._folder()
        files.remove(folder, PENDING)
        files.write_file(folder, PENDING, record.to_json())
        self.sync()
        os.rename(PENDING, RECORD, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def disarm(self, record: Record) -> None:
        """After a failed `arm`: no transaction is open, and none comes to be by a power cut."""
        folder = self._folder()
        for name in (RECORD, PENDING):
            files.remove(folder, name)
        os.fsync(folder)
        self.discard(record.snapshot)

    def rewrite(self, record: Record) -> None:
        """Replaces the open record, durably, in one step."""
        folder = self._folder()
        files.remove(folder, PENDING)
        files.write_file(folder, PENDING, record.to_json())
        files.sync_each(folder, [PENDING])
        os.rename(PENDING, RECORD, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def end(self, verb: str) -> None:
        """Ends the transaction, durably: the one instant of `commit` and `rollback`.

        If it can't be made durable, the transaction is open again and the `OSError` raised: a power cut must not
        bring back what was said to be over. If not even that works, `ended` tells the next call.
        """
        folder = self._folder()
        os.rename(RECORD, ENDED[verb], src_dir_fd=folder, dst_dir_fd=folder)
        try:
            os.fsync(folder)
        except OSError:
            os.rename(ENDED[verb], RECORD, src_dir_fd=folder, dst_dir_fd=folder)
            raise

    def ended(self, verb: str) -> Record | None:
        """The transaction that an interrupted `verb` has ended and not tidied away. Made durable now."""
        folder = self._folder()
        if verb not in ENDED:
            return None
        try:
            data = files.read_file(folder, ENDED[verb])
        except FileNotFoundError:
            return None
        os.fsync(folder)
        return record_from_json(data, f"{self.place}/{ENDED[verb].decode()}")

    def remember(self, verb: str) -> None:
        """Keeps the record that `verb` has just ended until the next one is kept."""
        folder = self._folder()
        os.rename(ENDED[verb], LAST[verb], src_dir_fd=folder, dst_dir_fd=folder)
        for other in LAST.values():
            if other != LAST[verb]:
                files.remove(folder, other)

    def outcome(self, id: str = "") -> tuple[str, Record] | None:
        """(the verb that ended it, the record) of this transaction (of the last one); None where it is not known.

        Only those with a deadline are remembered.
        """
        if self._open() is None:
            return None
        for names in (ENDED, LAST):
            for verb, name in names.items():
                try:
                    record = record_from_json(files.read_file(self._folder(), name), f"{self.place}/{name.decode()}")
                except (OSError, Corrupt):
                    continue
                if id in ("", record.id):
                    return verb, record
        return None

    def watcher(self, record: Record, *, make: bool = False) -> int:
        """A descriptor of the file that the watcher of a transaction keeps locked; `OSError` where there is none."""
        folder = self._folder(f"snapshots/{record.snapshot}")
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR | os.O_CREAT if make else os.O_RDONLY)
        return os.open(WATCHER, flags, 0o600, dir_fd=folder)

    def sync(self) -> None:
        """Makes the store durable, with the folders that it is in."""
        folder = self._folder()
        try:
            if files.sync_filesystem(folder):
                return
        except OSError:
            pass  # perhaps another program's data
        files.sync_below(folder)
        above = split(self._path)[0]
        while True:
            os.fsync(self._host.folder(above))
            if not above:
                return
            above = split(above)[0]

    # Snapshots.

    def create(self, name: str, under: str = "snapshots") -> Writer:
        """An empty snapshot; `FileExistsError` if there is one of this name."""
        parent = self._folder(under, make=True)
        os.mkdir(raw(name), 0o700, dir_fd=parent)
        return Writer(files.Tree(fd=os.open(raw(name), files.FOLDER, dir_fd=parent)))

    def snapshot(self, name: str, sha256: str = "", manifest: str = "manifest.json") -> Reader:
        """A snapshot, its manifest checked (and against `sha256`, if that is given); `Corrupt`, `OSError`."""
        from snapcore.state import snapshot_from_json

        what = f"{self.place}/snapshots/{shown(name)}"
        try:
            tree = files.Tree(fd=os.dup(self._folder(f"snapshots/{name}")))
            data = files.read_file(tree.folder(""), raw(manifest))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENXIO, *files.NOT_A_FOLDER):
                raise Corrupt(f"{what}/{manifest}: missing") from None
            raise
        snapshot = snapshot_from_json(data, f"{what}/{manifest}")
        if sha256 and files.sha256(data) != sha256:
            raise Corrupt(f"{what}/{manifest}: is not the one that the transaction was begun with")
        return Reader(tree, snapshot, what)

    def exists(self) -> bool:
        """Whether there is a store at all."""
        return self._open() is not None

    def publish(self, name: str) -> None:
        """Gives a finished snapshot, written under a dot and its name, its name: durably, in one step."""
        self.sync()
        folder = self._folder("snapshots")
        os.rename(raw("." + name), raw(name), src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def delete(self, name: str) -> None:
        """Removes a snapshot: whole until one instant, and then gone. `FileNotFoundError` if there is none."""
        folder = self._folder("snapshots")
        files.remove(folder, raw("." + name))
        os.rename(raw(name), raw("." + name), src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
        files.remove(folder, raw("." + name))

    def names(self, under: str = "snapshots") -> list[str]:
        """Names in a folder of the store, temporary ones left out."""
        try:
            return [name for name in files.names(self._folder(under)) if not name.startswith(".")]
        except FileNotFoundError:
            return []

    def discard(self, name: str, under: str = "snapshots") -> None:
        try:
            files.remove(self._folder(under), raw(name))
        except FileNotFoundError:
            pass

    def free_name(self) -> str:
        """A name for the next transaction's snapshot."""
        return f"{TRANSACTION}{_next_number(self.names(), TRANSACTION):06}"

    def sweep(self, keep: str = "") -> None:
        """Removes what interrupted calls left; the snapshot called `keep` belongs to the open transaction."""
        folder = self._folder()
        for name in (PENDING, *ENDED.values()):
            files.remove(folder, name)
        for under in ("snapshots", "archive"):
            try:
                inside = files.names(self._folder(under))
            except FileNotFoundError:
                continue
            for each in inside:
                if each.startswith(".") or (each.startswith(TRANSACTION) and each != keep):
                    self.discard(each, under)

    def tidy_manifests(self, record: Record) -> None:
        """Removes the manifests that the record no longer names. What can't go now goes with the snapshot."""
        try:
            folder = self._folder(f"snapshots/{record.snapshot}")
            for name in files.names(folder):
                if name.startswith("manifest") and name != record.manifest:
                    files.remove(folder, raw(name))
        except OSError:
            pass

    def archive(self, write: Callable[[Writer], None]) -> str:
        """Keeps what `write` puts into a new folder of the archive, and of the old ones so many; its name."""
        self._folder("archive", make=True)
        numbers = [name for name in self.names("archive") if name.isdigit()]
        for name in numbers[: max(0, len(numbers) - ARCHIVE_COUNT + 1)]:
            self.discard(name, "archive")
        number = f"{_next_number(numbers, ''):06}"
        writer = self.create("." + number, "archive")
        try:
            write(writer)
        except OSError:
            self.discard("." + number, "archive")
            raise
        finally:
            writer.close()
        parent = self._folder("archive")
        os.rename(raw("." + number), raw(number), src_dir_fd=parent, dst_dir_fd=parent)
        return number


def _next_number(taken: list[str], prefix: str) -> int:
    numbers = [int(name[len(prefix) :]) for name in taken if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return max(numbers, default=0) + 1


class Writer:
    """A snapshot that is being written."""

    def __init__(self, tree: files.Tree) -> None:
        self._tree = tree

    def put(self, path: str, entry: Entry, data: bytes) -> None:
        """Saves a file's content or a link, in a tree of its own as a person would look for it."""
        folder, name = split(path)
        above = self._tree.make_folders(files.join("files", folder), 0o700)
        if entry.kind == "link":
            os.symlink(raw(entry.target), raw(name), dir_fd=above)
        else:
            files.write_file(above, raw(name), data, entry.mode & 0o700 | 0o600)

    def take(self, path: str, folder: int, name: bytes) -> None:
        """Saves a file or link that is about to be replaced or removed: the file itself where that can be done.

        Its only name is about to go, so that nothing will write to it any more.
        """
        below, last = split(path)
        above = self._tree.make_folders(files.join("files", below), 0o700)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_nlink == 1:
            try:
                os.link(name, raw(last), src_dir_fd=folder, dst_dir_fd=above, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                    raise
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=folder), raw(last), dir_fd=above)
        else:
            files.write_file(above, raw(last), files.read_file(folder, name))

    def put_again(self, path: str, entry: Entry, data: bytes) -> None:
        """`put`, over what an interrupted call may have left."""
        folder, name = split(path)
        files.remove(self._tree.make_folders(files.join("files", folder), 0o700), raw(name))
        self.put(path, entry, data)

    def manifest(self, snapshot: Snapshot, name: str = "manifest.json") -> str:
        """Writes the manifest, over what an interrupted call may have left; the SHA-256 of its bytes."""
        from snapcore.state import snapshot_to_json

        data = snapshot_to_json(snapshot)
        try:
            files.write_file(self._tree.folder(""), raw(name), data)
        except FileExistsError:
            files.remove(self._tree.folder(""), raw(name))
            files.write_file(self._tree.folder(""), raw(name), data)
        return files.sha256(data)

    def kernel(self, data: bytes) -> str:
        """Writes the kernel's state beside the files; the SHA-256 of its bytes."""
        files.write_file(self._tree.folder(""), KERNEL, data)
        return files.sha256(data)

    def close(self) -> None:
        self._tree.close()


class Reader:
    """A snapshot that is there. `snapshot` is its manifest."""

    def __init__(self, tree: files.Tree, snapshot: Snapshot, what: str) -> None:
        self._tree = tree
        self.snapshot = snapshot
        self._what = what
        self._checked: dict[str, bytes] = {}

    def content(self, path: str) -> bytes:
        """A saved file's content, checked against its hash."""
        known = self._checked.get(path)
        return self._read(path) if known is None else known

    def _read(self, path: str) -> bytes:
        entry = self.snapshot.entries[path]
        where = f"{self._what}/files/{shown(path)}"
        try:
            folder, name = self._tree.above(files.join("files", path))
            data = files.read_file(folder, name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENXIO, *files.NOT_A_FOLDER):
                raise Corrupt(f"{where}: missing") from None
            raise
        if len(data) != entry.size or files.sha256(data) != entry.sha256:
            raise Corrupt(f"{where}: torn or altered: its SHA-256 is another one")
        return data

    def kernel(self, sha256: str) -> bytes:
        """The kernel's saved state; `Corrupt` where it is not the one that was saved."""
        where = f"{self._what}/{KERNEL.decode()}"
        try:
            data = files.read_file(self._tree.folder(""), KERNEL)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENXIO, *files.NOT_A_FOLDER):
                raise Corrupt(f"{where}: missing (--no-kernel gives the files back alone)") from None
            raise
        if files.sha256(data) != sha256:
            raise Corrupt(f"{where}: torn or altered: its SHA-256 is another one (--no-kernel: the files alone)")
        return data

    def add(self) -> Writer:
        """Adds to the snapshot. The writer lasts as long as this reader and needs no closing."""
        return Writer(self._tree)

    def check(self) -> None:
        """Reads every saved file; `Corrupt` names the first that is not as it was saved.

        The content is kept as far as it fits into `KEPT_BYTES`.
        """
        room = KEPT_BYTES
        for path, entry in self.snapshot.entries.items():
            if entry.kind == "file":
                data = self._read(path)
                if len(data) <= room:
                    self._checked[path] = data
                    room -= len(data)

    def close(self) -> None:
        self._tree.close()


def summary(record: Record) -> dict[str, Any]:
    """A record as `status --json` shows it: without the token."""
    plain = record._asdict()
    plain["owner"] = record.owner._asdict()
    plain["clients"] = [client.pid for client in record.clients]
    plain["change"] = record.change.pid if record.change else None
    del plain["deadline_boottime"]
    del plain["token_sha256"], plain["manifest_sha256"], plain["kernel_sha256"]
    plain["kernel"] = bool(record.kernel_sha256)
    return plain

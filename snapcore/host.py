"""The host: reads its configuration into entries, and gives saved entries back.

A file is given back as a temporary file in its own folder that is made durable and then renamed: it is wholly old
or wholly new at every instant, also after a power cut. One `syncfs` comes before all renames and one after them.
"""

from __future__ import annotations

import errno
import os
import stat

from snapcore import diff, files, profiles, state
from snapcore.files import join, raw, shown, split, text
from snapcore.patterns import Chooser, has_magic
from snapcore.state import Cover, Entry
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from snapcore.diff import Difference

READ_TRIES = 5


class Trouble(NamedTuple):
    """A path for which something failed, and how."""

    path: str
    error: OSError

    def __str__(self) -> str:
        return f"/{shown(self.path)}: {self.error.strerror or self.error}"


class Found(NamedTuple):
    """What a scan has seen."""

    entries: dict[str, Entry]
    own: frozenset[str]
    """Folders that belong to the configuration, so that their mode and owner count."""
    devices: dict[int, str]
    """st_dev → a path on that file system."""
    troubles: list[Trouble]
    """What could not be read; empty unless the scan was told to go on."""


def covered(path: str, covers: Iterable[Cover]) -> bool:
    """Whether a path is one that the covers name."""
    folder, name = split(path)
    parts = folder.split("/")
    for cover in covers:
        for pattern in cover.include:
            above, last = split(pattern)
            wanted = above.split("/")
            if len(wanted) != len(parts) or not all(Chooser([b])(a) for a, b in zip(parts, wanted)):
                continue
            if Chooser([last], () if last == name else cover.exclude)(name) and not cover.leaves_out(name):
                return True
    return False


class Host:
    """The tree of one host (or of an image of one: any folder)."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.tree = files.Tree(root)

    def close(self) -> None:
        self.tree.close()

    # Reading.

    def resolve(self, covers: Iterable[Cover]) -> list[Cover]:
        """The covers as of now: links in folders replaced by where they lead, and the links covered themselves.

        What a link leads to below the root is covered under its own path too (editors write through links), but
        not in /run, /proc, /sys, /dev and /tmp.
        """
        resolved = []
        for cover in covers:
            include: list[str] = []
            for pattern in (*cover.include, *self._sourced(cover.sources)):
                folder, name = _literal_folder(pattern)
                real, links = self.tree.resolve(folder)
                include.extend(links)
                include.append(join(real, name))
            seen = cover._replace(include=tuple(dict.fromkeys(include)))
            for path, entry in self.scan([seen], links_only=True).entries.items():
                if entry.kind == state.LINK:
                    include.extend(self._led_to(path))
            resolved.append(cover._replace(include=tuple(dict.fromkeys(include)), sources=()))
        return resolved

    def _sourced(self, sources: Iterable[str]) -> list[str]:
        """The patterns that files name by `source` lines, and those named by what these reach, and so on."""
        found: list[str] = []
        todo = list(sources)
        read: set[str] = set()

        def keep(path: str, entry: Entry, data: bytes) -> None:
            if entry.kind == state.LINK:
                todo.append(self.tree.resolve(path)[0])
            elif path not in read:
                read.add(path)
                new = profiles.sourced(data.decode("utf-8", "surrogateescape"), split(path)[0])
                new = [pattern for pattern in new if pattern not in found]
                found.extend(new)
                todo.extend(new)

        while todo:
            pattern = todo.pop()
            folder, name = _literal_folder(pattern)
            if pattern.split("/")[0] not in files.VOLATILE and "/" in pattern:
                self.scan([Cover("", (join(self.tree.resolve(folder)[0], name),))], keep=keep)
        return found

    def _led_to(self, link: str) -> list[str]:
        """The further links, and the file (or the absence of one), that a link leads to."""
        try:
            real, links = self.tree.resolve(link)
            found = [step for step in links if step != link]
            if real and not self._is_folder(real) and self._is_folder(split(real)[0]):
                found.append(real)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return []
            raise
        return [path for path in found if path.split("/")[0] not in files.VOLATILE and "/" in path]

    def _is_folder(self, path: str) -> bool:
        try:
            self.tree.folder(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, *files.NOT_A_FOLDER):
                return False
            raise
        return True

    def scan(
        self,
        covers: Iterable[Cover],
        *,
        known: Iterable[str] = (),
        keep: Callable[[str, Entry, bytes], None] | None = None,
        go_on: bool = False,
        links_only: bool = False,
    ) -> Found:
        """Reads all that `covers` name. `keep` is given each file and link with its content as it is read.

        With `links_only` no file is opened, and none has an entry.

        With `go_on` an `OSError` is noted instead of raised: the path counts as `other`, and of a folder that
        can't be listed the `known` paths are read. A folder on the way to a pattern is an entry too.
        """
        self.tree.forget()
        scan = _Scan(self.tree, keep, go_on, links_only)
        by_folder: dict[str, list[str]] = {}
        for path in known:
            folder, name = split(path)
            by_folder.setdefault(folder, []).append(name)
        for cover in covers:
            patterns: dict[str, list[str]] = {}
            for pattern in cover.include:
                folder, name = split(pattern)
                patterns.setdefault(folder, []).append(name)
            for pattern, wanted in patterns.items():
                for folder in scan.folders(pattern.split("/"), ""):
                    scan.folder(folder, wanted, cover, by_folder.get(folder, []))
        return Found(scan.with_hard_links(), frozenset(scan.own), scan.devices, scan.troubles)

    # Writing.

    def sweep(self, entries: Mapping[str, Entry]) -> None:
        """Removes the temporary files of an interrupted rollback from all folders among `entries`."""
        for path, entry in entries.items():
            if entry.kind == state.FOLDER:
                try:
                    folder = self.tree.folder(path)
                except OSError as error:
                    if error.errno in (errno.ENOENT, *files.NOT_A_FOLDER):
                        continue
                    raise
                files.sweep(folder)

    def sync(self, found: Found) -> None:
        """Makes everything that was found durable; `OSError` if that is not certain."""
        try:
            if all(self._sync_filesystem(path) for path in found.devices.values()):
                return
        except OSError:
            pass  # perhaps another program's data: what is ours is asked for below
        for path, entry in found.entries.items():
            if entry.kind == state.FOLDER:
                inside = [raw(split(p)[1]) for p, e in found.entries.items() if split(p)[0] == path]
                files.sync_each(self.tree.folder(path), inside)

    def _sync_filesystem(self, path: str) -> bool:
        """Of a folder, or of a file that may be a mount of its own."""
        try:
            return files.sync_filesystem(self.tree.folder(path))
        except OSError as error:
            if error.errno not in files.NOT_A_FOLDER:
                raise
        folder, name = self.tree.above(path)
        fd = os.open(name, files.READ, dir_fd=folder)
        try:
            return files.sync_filesystem(fd)
        finally:
            os.close(fd)

    def restore(
        self,
        differences: list[Difference],
        content: Callable[[str], bytes],
        before_placing: Callable[[], None],
    ) -> list[Trouble]:
        """Does away with the differences, as far as that is possible; what failed.

        `content` gives a saved file's bytes. `before_placing` is called when all is ready to be put in place and
        nothing has been put there but missing folders.
        """
        work = _Restore(self.tree, content)
        for difference in differences:
            if difference.old is not None and difference.old.kind == state.FOLDER:
                work.attempt(work.folder, difference)
        for difference in differences:
            if difference.old is not None and difference.old.kind in (state.FILE, state.LINK):
                work.attempt(work.stage, difference)
        work.make_staged_durable()
        before_placing()
        for difference in differences:
            if difference.old is not None:
                work.attempt(work.place, difference)
        for difference in reversed(differences):  # what is in a folder before the folder
            if difference.old is None:
                work.attempt(work.remove_added, difference)
        work.clear()
        return work.troubles


def _literal_folder(pattern: str) -> tuple[str, str]:
    """(the folders before the first pattern, the rest)."""
    parts = pattern.split("/")
    count = next((n for n, part in enumerate(parts[:-1]) if has_magic(part)), len(parts) - 1)
    return "/".join(parts[:count]), "/".join(parts[count:])


class _Scan:
    """One reading of the configuration; collects what it sees."""

    def __init__(
        self, tree: files.Tree, keep: Callable[[str, Entry, bytes], None] | None, go_on: bool, links_only: bool
    ) -> None:
        self.tree = tree
        self.keep = keep
        self.go_on = go_on
        self.links_only = links_only
        self.entries: dict[str, Entry] = {}
        self.own: set[str] = set()
        self.devices: dict[int, str] = {}
        self.troubles: list[Trouble] = []
        self.hard_links: dict[tuple[int, int], list[str]] = {}

    def _failed(self, path: str, error: OSError) -> None:
        if not self.go_on:
            error.filename = "/" + path
            raise error
        self.troubles.append(Trouble(path, error))

    def folders(self, parts: list[str], here: str) -> Iterator[str]:
        """The folders that match `parts` below `here`; each one on the way becomes an entry."""
        if not parts:
            yield here
            return
        for name in self._folder_names(parts[0], here):
            path = join(here, name)
            try:
                entry = self._folder_entry(path)
            except OSError as error:
                self._failed(path, error)
                continue
            if entry is not None and (entry.kind == state.FOLDER or not has_magic(parts[0])):
                self.entries[path] = entry  # a folder, or what stands where one is expected
            if entry is not None and entry.kind == state.FOLDER:
                yield from self.folders(parts[1:], path)

    def _folder_names(self, part: str, here: str) -> list[str]:
        if not has_magic(part):
            return [part]
        try:
            return list(filter(Chooser([part]), files.names(self.tree.folder(here))))
        except OSError as error:
            self._failed(here, error)
            return []

    def _folder_entry(self, path: str) -> Entry | None:
        known = self.entries.get(path)
        if known is not None and known.kind != state.OTHER:
            return known
        try:
            fd = self.tree.folder(path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno not in files.NOT_A_FOLDER:
                raise
            folder, name = self.tree.above(path)
            target = self.tree.link_target(path)
            if target is None:
                return Entry(state.OTHER)
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return Entry(state.LINK, uid=status.st_uid, gid=status.st_gid, target=target)
        status = os.fstat(fd)
        self.devices.setdefault(status.st_dev, path)
        return _entry(state.FOLDER, status, files.read_xattrs(fd))

    def folder(self, folder: str, patterns: list[str], cover: Cover, known: list[str]) -> None:
        """Reads the names of one folder that fit."""
        literal = [name for name in patterns if not has_magic(name)]
        present = set(literal)
        if len(literal) < len(patterns):
            if folder:
                self.own.add(folder)
            meant = Chooser(patterns, cover.exclude)
            try:
                present.update(filter(meant, files.names(self.tree.folder(folder))))
            except OSError as error:
                self._failed(folder, error)
                present.update(filter(meant, known))
        for name in sorted(present):
            if cover.leaves_out(name):
                continue
            path = join(folder, name)
            seen = self.entries.get(path)
            if seen is not None and seen.kind != state.OTHER:  # one family's folder may be another one's file
                continue
            try:
                self._name(self.tree.folder(folder), raw(name), path)
            except OSError as error:
                self._failed(path, error)
                self.entries[path] = Entry(state.OTHER)

    def _name(self, folder: int, name: bytes, path: str) -> None:
        for attempt in range(READ_TRIES):
            try:
                if self.links_only and not _is_link(folder, name):
                    return
                read = _read(folder, name)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                if error.errno not in (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ESTALE) or (
                    attempt == READ_TRIES - 1
                ):
                    raise
                continue  # became something else between two calls
            if read is not None:
                break
        else:
            raise OSError(errno.EBUSY, "changes while it is being read")
        entry, data, status = read
        if entry.kind != state.OTHER:
            self.devices.setdefault(status.st_dev, path)
            if entry.kind == state.FILE and status.st_nlink > 1:
                self.hard_links.setdefault((status.st_dev, status.st_ino), []).append(path)
            if self.keep is not None:
                self.keep(path, entry, data)
        self.entries[path] = entry

    def with_hard_links(self) -> dict[str, Entry]:
        for group in self.hard_links.values():
            for path in group:
                if len(group) > 1:
                    self.entries[path] = self.entries[path]._replace(linked=min(group))
        return self.entries


def _entry(kind: str, status: os.stat_result, xattrs: Mapping[str, bytes], **values: object) -> Entry:
    return Entry(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        xattrs=tuple(xattrs.items()),
        **values,  # type: ignore[arg-type]  # size, sha256 or target, by the callers below
    )


def _read(folder: int, name: bytes) -> tuple[Entry, bytes, os.stat_result] | None:
    """(entry, content, status) of a name; None if it changed meanwhile."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=folder)
        xattrs = _link_xattrs(folder, name)
        return _entry(state.LINK, status, xattrs, target=text(target)), b"", status
    if not stat.S_ISREG(status.st_mode):
        return Entry(state.OTHER), b"", status
    fd = os.open(name, files.READ, dir_fd=folder)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return None
        data = files.read_all(fd, before.st_size)
        xattrs = files.read_xattrs(fd)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if (before.st_mtime_ns, before.st_ctime_ns, before.st_size) != (after.st_mtime_ns, after.st_ctime_ns, len(data)):
        return None
    sha256 = files.sha256(data)
    return _entry(state.FILE, after, xattrs, size=len(data), sha256=sha256), data, after


def _link_xattrs(folder: int, name: bytes) -> dict[str, bytes]:
    try:
        return files.read_xattrs(files.link_path(folder, name))
    except FileNotFoundError:  # no /proc here
        return {}


class _Restore:
    """One attempt to give saved entries back; a step that fails is noted, and the others are still taken."""

    def __init__(self, tree: files.Tree, content: Callable[[str], bytes]) -> None:
        self.tree = tree
        self.content = content
        self.staged: dict[str, bytes] = {}
        self.counts: dict[str, int] = {}
        self.troubles: list[Trouble] = []

    def attempt(self, step: Callable[[str, Difference], None], difference: Difference) -> None:
        try:
            step(difference.path, difference)
        except OSError as error:
            self.troubles.append(Trouble(difference.path, error))

    def folder(self, path: str, difference: Difference) -> None:
        """Makes a saved folder anew where none is. What stands in its place was saved in the archive if wanted."""
        if difference.new is not None and difference.new.kind == state.FOLDER:
            return  # its mode and owner are given back at the end, by `place`
        assert difference.old is not None
        parent, name = self.tree.above(path)
        if difference.new is not None:
            files.remove(parent, name)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        self.tree.forget(path)
        _give_metadata(self.tree.folder(path), difference.old)

    def stage(self, path: str, difference: Difference) -> None:
        """Writes the file or link under a temporary name beside its place."""
        entry = difference.old
        assert entry is not None
        if entry.linked and entry.linked != path:
            return  # linked to the first of its group when that one is in place
        above = split(path)[0]
        folder = self.tree.folder(above)
        start = self.counts.get(above, 0)
        self.counts[above] = start + 1
        if entry.kind == state.LINK:
            temporary = files.link_temporary(folder, entry.target, start)
            self.staged[path] = temporary
            where = files.link_path(folder, temporary)
            status = os.stat(temporary, dir_fd=folder, follow_symlinks=False)
            if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
                os.chown(temporary, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
            try:
                files.set_xattrs(where, dict(entry.xattrs))
            except FileNotFoundError:  # no /proc here
                pass
            return
        data = self.content(path)
        temporary, fd = files.create_temporary(folder, start)
        try:
            try:
                files.write_all(fd, data)
                _give_metadata(fd, entry)
            finally:
                os.close(fd)
        except OSError:
            files.remove(folder, temporary)  # never put in place, and the room may be needed by the next one
            raise
        self.staged[path] = temporary

    def make_staged_durable(self) -> None:
        """One syncfs for each file system; if that fails, each file by itself, and what fails is not placed."""
        folders = dict.fromkeys(split(path)[0] for path in self.staged)
        try:
            devices = {os.fstat(self.tree.folder(folder)).st_dev: folder for folder in folders}
            if all(files.sync_filesystem(self.tree.folder(folder)) for folder in devices.values()):
                return
        except OSError:
            pass  # perhaps another program's data
        for path in list(self.staged):
            folder, _ = self.tree.above(path)
            try:
                files.sync_each(folder, [self.staged[path]])
            except OSError as error:
                self.troubles.append(Trouble(path, error))
                self._unstage(path)

    def _unstage(self, path: str) -> None:
        try:
            files.remove(self.tree.above(path)[0], self.staged.pop(path))
        except OSError as error:
            self.troubles.append(Trouble(path, error))

    def place(self, path: str, difference: Difference) -> None:
        """Renames what was staged into its place, or makes a hard link, or gives a folder its metadata back."""
        entry = difference.old
        assert entry is not None
        folder, name = self.tree.above(path)
        if entry.kind == state.FOLDER:
            if difference.new is not None and difference.new.kind == state.FOLDER:
                _give_metadata(self.tree.folder(path), entry)
            return
        if entry.linked and entry.linked != path:
            self._link(path, entry.linked)
        if path not in self.staged:
            return
        try:
            os.rename(self.staged[path], name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            aside = next(n for n in files.temporary_names() if not _exists(folder, n))
            os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
            os.rename(self.staged[path], name, src_dir_fd=folder, dst_dir_fd=folder)
            files.remove(folder, aside)
        del self.staged[path]

    def _link(self, path: str, first: str) -> None:
        folder, _ = self.tree.above(path)
        source, name = self.tree.above(first)
        for temporary in files.temporary_names():
            try:
                os.link(name, temporary, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                continue
            self.staged[path] = temporary
            return

    def remove_added(self, path: str, difference: Difference) -> None:
        assert difference.new is not None
        folder, name = self.tree.above(path)
        try:
            if difference.new.kind == state.FOLDER:
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if difference.new.kind == state.FOLDER and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return  # holds what is not ours
            raise

    def clear(self) -> None:
        """Removes what was staged and could not be placed."""
        for path in list(self.staged):
            self._unstage(path)


def _is_link(folder: int, name: bytes) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _give_metadata(fd: int, entry: Entry) -> None:
    """Owner first (it clears set-id bits and capabilities), mode before the ACL (which repeats it)."""
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        os.fchown(fd, entry.uid, entry.gid)
    wanted = dict(entry.xattrs)
    files.set_xattrs(fd, {name: value for name, value in wanted.items() if not name.startswith("system.posix_acl")})
    os.fchmod(fd, entry.mode)
    if any(name.startswith("system.posix_acl") for name in wanted):
        files.set_xattrs(fd, wanted)


def differences(saved: Mapping[str, Entry], found: Found) -> list[Difference]:
    """What differs now from what was saved."""
    return diff.compare(dict(saved), found.entries, found.own)

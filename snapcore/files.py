"""Reads and writes paths below a root, one component at a time, without ever following a link.

Paths are `str`, relative to the root, without a leading slash, decoded as UTF-8 with `surrogateescape` whatever the
locale is (a boot hook runs in another one than the administrator's shell). An error is never taken for absence:
only ENOENT is absence, everything else is raised as the `OSError` that it is.

Sources: path_resolution(7), open(2), rename(2), xattr(7), syncfs(2).
"""

from __future__ import annotations

import errno
import os
import stat
import sys

try:  # OpenSSL's is faster, but takes longer to load than this one to hash what configuration files hold
    if sys.version_info >= (3, 12):
        from _sha2 import sha256 as small_sha256
    else:
        from _sha256 import sha256 as small_sha256  # type: ignore[import-not-found]  # typeshed leaves it out
except ImportError:  # some distributions leave it out
    small_sha256 = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VOLATILE = ("run", "proc", "sys", "dev", "tmp")
"""Top folders whose content does not survive a boot."""

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
CREATE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL
LINKS_FOLLOWED = 40
LARGEST_FILE = 64 << 20
OPENSSL_FROM = 1 << 20
"""Bytes from which on OpenSSL's SHA-256 is worth its loading."""
TEMPORARY_TRIES = 16

NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)


def raw(path: str) -> bytes:
    """The bytes that the kernel knows `path` by."""
    return path.encode("utf-8", "surrogateescape")


def text(name: bytes | str) -> str:
    """A name from the kernel (or from `os.scandir`, which decodes by locale) as this module's `str`."""
    if isinstance(name, str) and name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def shown(path: str) -> str:
    """`path` for a message: printable on one line, whatever bytes it holds."""
    if path.isprintable():
        return path
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in path)


def split(path: str) -> tuple[str, str]:
    """(folder, name); the folder of a top name is ''."""
    folder, _, name = path.rpartition("/")
    return folder, name


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class Tree:
    """A tree that is entered through a descriptor of its root; folders below are kept open until `forget`.

    A folder that someone swaps for a link stays the folder that it was for as long as its descriptor is kept, so
    nothing is ever written through the link.
    """

    def __init__(self, root: str | None = None, *, fd: int | None = None) -> None:
        if fd is None:
            fd = os.open(root or "/", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        self._folders: dict[str, int] = {"": fd}

    def folder(self, path: str) -> int:
        """A descriptor of the folder `path`, owned by the tree; `OSError` where a component is no folder."""
        known = self._folders.get(path)
        if known is not None:
            return known
        above, name = split(path)
        fd = os.open(raw(name), FOLDER, dir_fd=self.folder(above))
        self._folders[path] = fd
        return fd

    def above(self, path: str) -> tuple[int, bytes]:
        """(descriptor of the folder that holds `path`, name in it)."""
        folder, name = split(path)
        return self.folder(folder), raw(name)

    def forget(self, path: str = "") -> None:
        """Closes what is kept open at and below `path` (not the root), so that it is walked to again."""
        for known in [k for k in self._folders if k and (not path or k == path or k.startswith(path + "/"))]:
            os.close(self._folders.pop(known))

    def close(self) -> None:
        self.forget()
        fd = self._folders.pop("", None)
        if fd is not None:
            os.close(fd)

    def resolve(self, path: str) -> tuple[str, list[str]]:
        """(`path` without links, the links that were met), as chroot(2) would see it: never above the root.

        Missing components are kept as they are.
        """
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        real = ""
        links: list[str] = []
        while todo:
            part = todo.pop()
            if part == "..":
                real = split(real)[0]
                continue
            here = join(real, part)
            target = self.link_target(here)
            if target is None:
                real = here
                continue
            links.append(here)
            if len(links) > LINKS_FOLLOWED:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                real = ""
            todo.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
        return real, links

    def link_target(self, path: str) -> str | None:
        """Where the link at `path` points; None if there is no link."""
        try:
            folder, name = self.above(path)
            return text(os.readlink(name, dir_fd=folder))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, *NOT_A_FOLDER):
                return None
            raise

    def make_folders(self, path: str, mode: int = 0o755) -> int:
        """Like `folder`, with those made that are missing."""
        try:
            return self.folder(path)
        except FileNotFoundError:
            above, name = split(path)
            parent = self.make_folders(above, mode)
            try:
                os.mkdir(raw(name), mode, dir_fd=parent)
            except FileExistsError:  # another process was faster
                pass
            return self.folder(path)


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    if small_sha256 is not None and len(data) < OPENSSL_FROM:
        return str(small_sha256(data).hexdigest())
    import hashlib

    return hashlib.sha256(data).hexdigest()


def names(folder: int) -> list[str]:
    """All names in a folder, sorted."""
    with os.scandir(folder) as listing:
        return sorted(text(item.name) for item in listing)


def read_all(fd: int, size: int = 0) -> bytes:
    """The rest of an open file. With the right `size` one call does: a regular file ends where it reads short."""
    parts = [os.read(fd, size + 1)] if size < LARGEST_FILE else []
    if size and parts and len(parts[0]) == size:
        return parts[0]
    total = sum(map(len, parts))
    while True:
        part = os.read(fd, 1 << 20)
        if not part:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        total += len(part)
        if total > LARGEST_FILE:
            raise OSError(errno.EFBIG, f"larger than {LARGEST_FILE >> 20} MiB: no configuration file")
        parts.append(part)


def read_file(folder: int, name: bytes) -> bytes:
    """A regular file's content; `OSError` (ELOOP, ENOENT, …) where there is none."""
    fd = os.open(name, READ, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return read_all(fd, status.st_size)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_file(folder: int, name: bytes, data: bytes, mode: int = 0o600) -> None:
    """A new file; `FileExistsError` if the name is taken."""
    fd = os.open(name, CREATE, mode, dir_fd=folder)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


# Temporary names: recognised surely, hidden from every stack and shell pattern, the same in every run.


def temporary_names() -> Iterator[bytes]:
    """Names to try in turn. The last ones can't be guessed by who fills a folder with the first ones."""
    for number in range(TEMPORARY_TRIES):
        yield b".snapcore-%016x.tmp" % number
    for _ in range(TEMPORARY_TRIES):
        yield b".snapcore-%s.tmp" % os.urandom(8).hex().encode()


def is_temporary(name: bytes) -> bool:
    """Whether `name` is one of `temporary_names`."""
    return len(name) == 30 and name.startswith(b".snapcore-") and name.endswith(b".tmp")


def create_temporary(folder: int, start: int = 0) -> tuple[bytes, int]:
    """(name, descriptor open for writing) of a new file in `folder`. `start`: first number to try."""
    for name in _temporary_from(start):
        try:
            return name, os.open(name, CREATE, 0o600, dir_fd=folder)
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, "no temporary name is free")


def link_temporary(folder: int, target: str, start: int = 0) -> bytes:
    """The name of a new symlink to `target`."""
    for name in _temporary_from(start):
        try:
            os.symlink(raw(target), name, dir_fd=folder)
            return name
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, "no temporary name is free")


def _temporary_from(start: int) -> Iterator[bytes]:
    yield b".snapcore-%016x.tmp" % (TEMPORARY_TRIES + start)
    yield from temporary_names()


def sweep(folder: int) -> int:
    """Removes what an interrupted call left in a folder; how many names that were."""
    leftover = [raw(name) for name in names(folder) if name[:1] == "." and is_temporary(raw(name))]
    for name in leftover:
        remove(folder, name)
    return len(leftover)


def remove(folder: int, name: bytes) -> None:
    """Removes a name with all below it, following no link. What is gone already is no error."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        try:
            below = os.open(name, FOLDER, dir_fd=folder)
        except OSError:
            raise error from None
        try:
            for each in names(below):
                remove(below, raw(each))
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=folder)


# Extended attributes.

_UNREADABLE_IS_ABSENT = (errno.EPERM, errno.EACCES)
_NONE_HERE = (errno.ENOTSUP, errno.ENODATA)
_NEVER_SAVED = ("trusted.overlay.", "user.overlay.", "security.evm", "system.nfs4_acl", "system.cifs_acl")
"""Another layer's own: an overlay's book-keeping; a signature over the inode number; what is made up on reading."""


def read_xattrs(where: int | bytes) -> dict[str, bytes]:
    """The extended attributes of a descriptor, or of a path that may be a link (`link_path`).

    A `security.*` attribute that this process may not read is left out; every other error is raised.
    """
    follow = isinstance(where, int)
    try:
        listed = os.listxattr(where) if follow else os.listxattr(where, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE_HERE:
            return {}
        raise
    values = {}
    for name in sorted(listed):
        if name.startswith(_NEVER_SAVED):
            continue
        try:
            values[name] = os.getxattr(where, name) if follow else os.getxattr(where, name, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NONE_HERE or (error.errno in _UNREADABLE_IS_ABSENT and name.startswith("security.")):
                continue
            raise
    return values


def link_path(folder: int, name: bytes) -> bytes:
    """A path to a link itself for the calls that take no `dir_fd`: the folder can't be swapped on the way."""
    return b"/proc/self/fd/%d/%s" % (folder, name)


def set_xattrs(where: int | bytes, wanted: dict[str, bytes]) -> None:
    """Makes the extended attributes equal to `wanted`; what can't be set is left for the comparison to find."""
    follow = isinstance(where, int)
    try:
        present = read_xattrs(where)
    except OSError:
        present = {}
    for name in present:
        if name not in wanted:
            try:
                os.removexattr(where, name, follow_symlinks=follow) if not follow else os.removexattr(where, name)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EACCES, *_NONE_HERE):
                    raise
    for name, value in wanted.items():
        if present.get(name) == value:
            continue
        try:
            os.setxattr(where, name, value) if follow else os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL):
                raise


# Durability.


def _find_syncfs() -> object | None:
    """syncfs(2), which Python does not have; None where it can't be had or would not report errors (before 5.8)."""
    release = os.uname().release.split(".")
    try:
        if (int(release[0]), int("".join(c for c in release[1] if c.isdigit()))) < (5, 8):
            return None
        import ctypes

        return ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, AttributeError, OSError, ValueError, IndexError):
        return None


_syncfs: list[object | None] = []


def sync_filesystem(fd: int) -> bool:
    """Makes all of the file system that holds `fd` durable. False where this can't be known; `OSError` if it failed."""
    if not _syncfs:
        _syncfs.append(_find_syncfs())
    call = _syncfs[0]
    if call is None:
        return False
    import ctypes

    if call(fd) != 0:  # type: ignore[operator]  # a ctypes function
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "syncfs")
    return True


def sync_below(folder: int) -> None:
    """fsync of every file and folder below `folder`, and of itself."""
    for name in names(folder):
        try:
            fd = os.open(raw(name), READ, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENXIO):  # links, sockets: durable with their folder
                continue
            raise
        try:
            kind = os.fstat(fd).st_mode
            if stat.S_ISDIR(kind):
                sync_below(fd)
            elif stat.S_ISREG(kind):
                os.fsync(fd)
        finally:
            os.close(fd)
    os.fsync(folder)


def sync_each(folder: int, which: Iterable[bytes]) -> None:
    """fsync of some regular files of a folder (links and what is gone need none), and of the folder."""
    for name in which:
        try:
            fd = os.open(name, READ, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENXIO):
                continue
            raise
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.fsync(fd)
        finally:
            os.close(fd)
    os.fsync(folder)

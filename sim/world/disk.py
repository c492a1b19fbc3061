"""A machine's disk: overlays over a root tree, whose upper layers are what survives a reboot.

As root one overlay covers the whole tree. An unprivileged user cannot put an overlay over `/` (it has locked mounts
below): there each folder of `_FOLDERS` gets an overlay of its own, and /etc, whose files belong to a user that the
namespace does not map, is copied once for each run, so that every file of it can be changed. In other folders of the
tree files can be added; those of users that the namespace does not map can be replaced, not changed in place.

The upper layer is written before anything is mounted: whiteouts and opaque folders (kernel:
Documentation/filesystems/overlayfs.rst) make every family of network configuration start empty.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.errors import LabError, Missing
from sim.scenario import FileText
from sim.world import kernel

EMPTY_FOLDERS = (
    "etc/sysconfig/network-scripts",
    "etc/sysconfig/network",
    "etc/network",
    "etc/netplan",
    "etc/systemd/network",
    "etc/NetworkManager/system-connections",
    "etc/NetworkManager/conf.d",
    "etc/NetworkManager/dispatcher.d",
    "etc/wicked",
    "etc/dhcp",
    "etc/sysctl.d",
    "etc/iptables",
    "etc/nftables.d",
    "etc/iproute2/rt_tables.d",
    "usr/lib/systemd/network",
    "var/lib/NetworkManager",
    "var/lib/snapcore",
    "var/lib/dhcp",
    "var/lib/networking-config",
)
"""Folders that hold network configuration, or records about it: there, but empty, on a new disk where the tree has
them. The first is always made: it is the embedded stack's."""

NO_FILES = (
    "etc/resolv.conf",
    "etc/nftables.conf",
    "etc/sysctl.conf",
    "etc/hosts",
    "etc/hostname",
    "etc/network/interfaces",
)
"""Files that a new disk does not inherit."""

_FOLDERS = ("etc", "usr", "var", "opt", "root", "home", "srv", "boot")
_NEEDED = ("usr", "var")
"""Those that a machine needs even where other file systems are mounted inside of them; others are then empty."""
_FRESH = ("proc", "sys", "dev", "run", "tmp", "mnt", "media", "lost+found")
_COMMON = ("var/lib", "var/log", "var/cache", "var/tmp", "var/spool", "usr/sbin", "usr/lib", "usr/local", "usr/bin")
_RECORDS = ("var/lib", "var/log", "var/cache", "var/spool")
"""Folders in whose folders programs write: for an unprivileged user those must be its own."""


@dataclass(frozen=True)
class Layer:
    """One overlay of a disk: where it is mounted below the root, what lies below it, where its changes go."""

    at: str  # "" for the whole tree
    lower: str
    upper: str
    work: str


class Disk:
    """The part of a machine that survives. `home` is a folder of the laboratory's own scratch file system."""

    def __init__(self, home: str, root: str, privileged: bool, etc: str | None = None) -> None:
        """`root`: the tree below; `etc`: for unprivileged runs, a copy of the tree's /etc that this user owns."""
        self.home = home
        self.root = root
        self.privileged = privileged
        self.option = "trusted" if privileged else "user"
        self.writable = True  # how it is mounted at the next boot
        os.makedirs(home, exist_ok=True)
        self.layers = tuple(self._plan_layers(etc))
        for layer in self.layers:
            os.makedirs(layer.upper)
            os.makedirs(layer.work)
            os.chmod(layer.upper, stat.S_IMODE(os.stat(layer.lower).st_mode))

    def _plan_layers(self, etc: str | None) -> Iterator[Layer]:
        if self.privileged:
            yield self._layer("", self.root)
            return
        self._mount_points = mount_points()
        for name in _FOLDERS:
            if name == "etc" and etc:
                yield self._layer(name, etc)
            else:
                yield from self._cover(name)

    def _cover(self, name: str) -> Iterator[Layer]:
        """Overlays for a folder. A user namespace may put none over a folder with mounts inside: over its parts then.

        (fs/namespace.c, has_locked_children.)
        """
        path = os.path.join(self.root, name)
        if not os.path.isdir(path) or os.path.islink(path):
            if not os.path.lexists(path) and name in _FOLDERS:  # a root tree of somebody's own
                yield self._layer(name, self._empty_like(name, "/"))
            return
        if not any(point.startswith(os.path.realpath(path) + "/") for point in self._mount_points):
            yield self._layer(name, self._readable(name, path))
            return
        lower = self._empty_like(name, path)
        yield self._layer(name, lower)
        if name.split("/")[0] in _NEEDED and os.access(path, os.R_OK | os.X_OK):
            for part in sorted(os.listdir(path)):
                _copy_one(os.path.join(path, part), os.path.join(lower, part))
                yield from self._cover(f"{name}/{part}")

    def _readable(self, name: str, path: str) -> str:
        """The folder, or an empty one like it when this user may not look into it (/root)."""
        return path if os.access(path, os.R_OK | os.X_OK) else self._empty_like(name, path)

    def _empty_like(self, name: str, path: str) -> str:
        empty = os.path.join(self.home, name, "lower")
        os.makedirs(empty)
        os.chmod(empty, stat.S_IMODE(os.stat(path).st_mode))
        return empty

    def _layer(self, at: str, lower: str) -> Layer:
        base = os.path.join(self.home, at or "tree")
        return Layer(at, lower, os.path.join(base, "upper"), os.path.join(base, "work"))

    def format(self, files: Mapping[str, FileText], records: Sequence[str] = ()) -> None:
        """Make a new disk: families empty, the machine's own files in place. Call once, before the first mount.

        `records`: where a mechanism keeps its own. What comes to be there in the root tree later, since the same
        mechanism is at work on this very host, is not seen.
        """
        if not self.privileged:
            for folder in (*_COMMON, *self._records()):
                self._make_folders(folder)
        for folder in EMPTY_FOLDERS:
            if folder == EMPTY_FOLDERS[0] or os.path.isdir(os.path.join(self.root, folder)):
                self._opaque(folder)
        for path in NO_FILES:
            self._whiteout(path)
        for path in records:
            self._never_there(path.strip("/"))
        for path, file in files.items():
            self.write(path, file)

    def _records(self) -> Iterator[str]:
        for folder in _RECORDS:
            try:
                with os.scandir(os.path.join(self.root, folder)) as entries:
                    yield from (f"{folder}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue  # not in this tree

    def upper_path(self, path: str) -> str:
        """Where the changed version of an absolute or relative path lies. Its folders may not be there yet."""
        relative = path.strip("/")
        if not self.privileged and relative.split("/")[0] in ("bin", "sbin", "lib", "lib64"):
            relative = "usr/" + relative  # merged /usr
        for layer in reversed(self.layers):  # a part comes after the whole
            if not layer.at:
                return os.path.join(layer.upper, self._through_links(relative))
            if relative == layer.at or relative.startswith(layer.at + "/"):
                return os.path.join(layer.upper, relative[len(layer.at) :].lstrip("/"))
        raise LabError(f"/{relative} is not on the machine's disk")

    def _through_links(self, relative: str) -> str:
        """The same path with the root tree's own top-level links (bin -> usr/bin) resolved."""
        first, _, rest = relative.partition("/")
        link = os.path.join(self.root, first)
        if rest and os.path.islink(link):
            return os.path.join(os.readlink(link).strip("/"), rest)
        return relative

    def _make_folders(self, relative: str) -> str:
        """The folder in the upper layer, with the mode that the root tree's folder of that name has."""
        path = self.upper_path(relative)
        missing = []
        while not os.path.isdir(path):
            missing.append((path, relative))
            path, relative = os.path.dirname(path), os.path.dirname(relative)
        for path, relative in reversed(missing):
            if os.path.lexists(path):
                os.unlink(path)
            os.mkdir(path)
            try:
                os.chmod(path, stat.S_IMODE(os.stat(os.path.join(self.root, relative)).st_mode))
            except OSError:
                os.chmod(path, 0o755)
        return self.upper_path(relative) if not missing else missing[0][0]

    def _opaque(self, relative: str) -> None:
        path = self._make_folders(relative)
        if not self._opaque_above(relative):
            try:
                os.setxattr(path, f"{self.option}.overlay.opaque", b"y")
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                self._empty(relative)  # a tmpfs has user.* attributes since Linux 6.6

    def _empty(self, relative: str) -> None:
        """What an opaque folder does, with a whiteout for each name."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(self.root, relative)):
                if not os.path.lexists(os.path.join(self.upper_path(relative), name)):
                    os.mknod(os.path.join(self.upper_path(relative), name), stat.S_IFCHR, os.makedev(0, 0))

    def _opaque_above(self, relative: str) -> bool:
        parent = os.path.dirname(relative)
        return bool(parent) and (parent in EMPTY_FOLDERS or self._opaque_above(parent))

    def _whiteout(self, relative: str) -> None:
        if self._opaque_above(relative) or not os.path.lexists(os.path.join(self.root, relative)):
            return
        self._make_folders(os.path.dirname(relative))
        os.mknod(self.upper_path(relative), stat.S_IFCHR | 0o000, os.makedev(0, 0))

    def _never_there(self, relative: str) -> None:
        """A whiteout for a name that the root tree has not (yet); a folder made in its place covers what is below.

        Only for root: other users' overlays may not be able to make such folders (Linux before 6.6, on a tmpfs).
        """
        parent = os.path.dirname(relative)
        if not self.privileged or os.path.lexists(os.path.join(self.root, relative)):
            return
        if os.path.isdir(os.path.join(self.root, parent)) and not os.path.lexists(self.upper_path(relative)):
            self._make_folders(parent)
            os.mknod(self.upper_path(relative), stat.S_IFCHR | 0o000, os.makedev(0, 0))

    def write(self, path: str, file: FileText) -> None:
        """Put one file on a disk that is not mounted; None as content makes sure that there is none."""
        target = self.upper_path(path)
        if file.content is None:
            if os.path.lexists(target):
                os.unlink(target)
            self._whiteout(path.strip("/"))
            return
        self._make_folders(os.path.dirname(path.strip("/")))
        if os.path.lexists(target):
            os.unlink(target)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(file.content)
        os.chown(target, *owner_ids(file.owner))
        os.chmod(target, file.mode)

    def mount(self, at: str) -> None:
        """Mount the disk below `at`; called by the machine in its own mount namespace."""
        if self.privileged:
            for layer in self.layers:
                self._overlay(layer, os.path.join(at, layer.at))
            self._submounts(at)
            return
        kernel.mount("tmpfs", at, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
        for name in os.listdir(self.root):
            path = os.path.join(self.root, name)
            if os.path.islink(path):
                os.symlink(os.readlink(path), os.path.join(at, name))
            elif os.path.isdir(path):
                os.mkdir(os.path.join(at, name))
        for layer in self.layers:
            os.makedirs(os.path.join(at, layer.at), exist_ok=True)
            self._overlay(layer, os.path.join(at, layer.at))

    def shows(self, path: str) -> bool:
        """Whether a machine over the host's own tree sees this folder of the host."""
        if os.path.realpath(self.root) != "/":
            return True
        for layer in reversed(self.layers):
            place = f"/{layer.at}"
            if path == place or path.startswith(place.rstrip("/") + "/"):
                fresh = not layer.at and path.split("/")[1] in _FRESH
                same = layer.lower == place and os.stat(path).st_dev == os.stat(place).st_dev
                return path == place or (same and not fresh)
        return False

    def _overlay(self, layer: Layer, at: str) -> None:
        options = f"lowerdir={_escape(layer.lower)},upperdir={_escape(layer.upper)},workdir={_escape(layer.work)}"
        options += ",index=off,metacopy=off" if self.privileged else ",userxattr"
        kernel.mount("overlay", at, "overlay", 0 if self.writable else kernel.MS_RDONLY, options)

    def _submounts(self, at: str) -> None:
        """Where the root tree has file systems of its own (/usr, /home), show them read-only."""
        own = {layer.at for layer in self.layers}
        for name in _FOLDERS[1:]:
            path = os.path.join(self.root, name)
            if name not in own and os.path.ismount(path):
                kernel.mount(path, os.path.join(at, name), flags=kernel.MS_BIND)
                read_only(os.path.join(at, name))

    @property
    def media(self) -> tuple[str, ...]:
        """A folder on each file system that it lies on, which the machine does not see."""
        return (os.path.dirname(self.home),)

    def fill(self, full: bool) -> None:
        """Leave no block for the machine (True), or all that there was (False)."""
        for medium in self.media:
            filler = os.path.join(medium, "filler")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(filler)
            if full:
                _take_all(filler)

    def close(self) -> None:
        """Let it go; only while the machine is off."""
        shutil.rmtree(self.home, ignore_errors=True)

    def keep(self, where: str) -> None:
        """Copy all that survives to a folder (not while the machine is on and writing)."""
        shutil.rmtree(where, ignore_errors=True)
        _copy(self.home, where)

    def restore(self, where: str) -> None:
        """Put back what `keep` copied. Only while nothing has the disk mounted."""
        shutil.rmtree(self.home)
        _copy(where, self.home)
        for layer in self.layers:
            shutil.rmtree(layer.work, ignore_errors=True)
            os.makedirs(layer.work)

    def fingerprint(self, exact: bool) -> str:
        """The same for two disks that hold the same names, types, modes, owners, attributes and content.

        `exact`: only if a machine can tell nothing between them: inodes, numbers of links, times and sizes too.
        """
        found = hashlib.sha256()
        for layer in self.layers:
            for folder, folders, names in os.walk(layer.upper):
                folders.sort()
                for path in sorted(os.path.join(folder, name) for name in (*folders, *names)):
                    described = (layer.at, path[len(layer.upper) :], *_described(path, exact))
                    found.update(repr(described).encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    def walk(self, below: str) -> Iterator[tuple[str, str, str]]:
        """All that was ever written below a folder: (absolute path in the machine, upper path, lower path)."""
        below = below.strip("/")
        for layer in self.layers:
            start = os.path.join(layer.upper, below[len(layer.at) :].strip("/") if layer.at else below)
            if layer.at and not (below + "/").startswith(layer.at + "/"):
                continue
            for folder, folders, names in os.walk(start):
                for name in folders + names:
                    upper = os.path.join(folder, name)
                    inner = os.path.relpath(upper, layer.upper)
                    yield "/" + os.path.join(layer.at, inner), upper, os.path.join(layer.lower, inner)


def _described(path: str, exact: bool) -> tuple[Any, ...]:
    status = os.lstat(path)
    fields = status.st_mode, status.st_uid, status.st_gid, status.st_rdev
    marks = (status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns) if exact else ()
    names = os.listxattr(path, follow_symlinks=False)
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)]
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    return fields, marks, attributes, content


def _take_all(path: str) -> None:
    """A new file that takes all the room that its file system has."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        size, chunk = 0, 1 << 26
        while chunk >= 512:
            try:
                os.posix_fallocate(descriptor, size, chunk)
                size += chunk
            except OSError:
                chunk //= 2
    finally:
        os.close(descriptor)


def _copy_one(source: str, target: str) -> None:
    """A link, a folder without what is in it, or a file, where this user may read it."""
    if os.path.isdir(source) and not os.path.islink(source):
        os.mkdir(target)
    else:
        with contextlib.suppress(OSError):
            shutil.copy2(source, target, follow_symlinks=False)


def mount_points() -> list[str]:
    """Where file systems are mounted (proc(5), /proc/self/mountinfo)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = [line.split(" ")[4] for line in lines]
    return [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point) for point in points]


def owner_ids(owner: str) -> tuple[int, int]:
    """`USER[:GROUP]`, names or numbers, as (uid, gid).

    Raises LabError for a name that this system lacks, Missing for an owner that this user namespace lacks.
    """
    user, _, group = owner.partition(":")
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = uid if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise LabError(f"no such owner: {owner}") from error
    for number, table in ((uid, "uid"), (gid, "gid")):
        if not _mapped(number, f"/proc/self/{table}_map"):
            raise Missing(f"files of the owner {owner} need root, or a range in /etc/sub{table} and new{table}map")
    return uid, gid


def _mapped(number: int, table: str) -> bool:
    """Whether an id exists in this user namespace (user_namespaces(7))."""
    with open(table, encoding="ascii") as lines:
        ranges = [[int(word) for word in line.split()] for line in lines]
    return any(first <= number < first + count for first, _, count in ranges)


def read_only(at: str) -> None:
    """Make one mount read-only."""
    kernel.mount("", at, flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)


def copy_etc(root: str, to: str) -> str:
    """A copy of the tree's /etc whose files belong to this user; what cannot be read is left out."""
    source = os.path.join(root, "etc")
    os.makedirs(to, exist_ok=True)
    subprocess.run(  # cp's complaints are the files that only the real root may read
        ["cp", "-dR", "--preserve=mode,timestamps", "--", f"{source}/.", to], check=False, stderr=subprocess.DEVNULL
    )
    return to


def _copy(source: str, target: str) -> None:
    """A copy of a folder with all that is in it, made in the order of names.

    A folder of a tmpfs lists its entries in the order in which they were made, and cp(1) makes them in that of their
    inodes, which come from one range for each processor: whoever lists the copy would see another order each time.
    """
    try:
        _copy_folder(source, target, {})
    except OSError as error:
        raise LabError(f"cannot copy a disk: {error.strerror}: {error.filename}") from error


def _copy_folder(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    """`links`: what has several names, and the first of them in the copy."""
    os.mkdir(target, 0o700)
    for name in sorted(os.listdir(source)):
        one, two = f"{source}/{name}", f"{target}/{name}"
        status = os.lstat(one)
        key = status.st_dev, status.st_ino
        if stat.S_ISDIR(status.st_mode):
            _copy_folder(one, two, links)
            continue
        if status.st_nlink > 1 and key in links:
            os.link(links[key], two, follow_symlinks=False)
            continue
        links[key] = two
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(one), two)
        elif stat.S_ISREG(status.st_mode):
            shutil.copyfile(one, two)
        elif stat.S_ISSOCK(status.st_mode):
            continue  # nobody listens any more
        else:
            os.mknod(two, status.st_mode, status.st_rdev)
        _copy_metadata(one, two, status)
    _copy_metadata(source, target, os.lstat(source))


def _copy_metadata(source: str, target: str, status: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):  # of a user that a namespace does not map
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")

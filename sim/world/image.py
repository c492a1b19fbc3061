"""A disk that can lose what was not synced: a real ext4 on a loop device, whose image is taken at any instant.

Mounted with noauto_da_alloc, so that nothing is flushed out of kindness, and commit=600, so that no verdict depends
on the journal's timer (ext4(5); Documentation/filesystems/ext4). Loop devices are cleared by their last unmount
(LO_FLAGS_AUTOCLEAR, loop(4)), which the end of the laboratory's mount namespace is. Needs root.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Mapping

from sim.errors import LabError, Missing
from sim.scenario import FileText
from sim.world import kernel, sandbox
from sim.world.disk import Disk

SIZE_MIB = 48
OPTIONS = "noauto_da_alloc,commit=600"

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A  # linux/loop.h
_AUTOCLEAR = 4
_TRIES = 64
_SEED = "5eed5eed-0000-4000-8000-000000000000"
"""The order of a folder's entries comes from hashes: with one seed it is the same on every disk, in every run."""


def missing() -> str | None:
    """Why disks that lose writes cannot be had here, or None."""
    if not sandbox.privileged():
        return "losing unsynced writes needs root (a loop device)"
    if not os.path.exists("/dev/loop-control"):
        return "losing unsynced writes needs loop devices (/dev/loop-control)"
    if shutil.which("mkfs.ext4") is None:
        return "losing unsynced writes needs mkfs.ext4 (Debian package e2fsprogs)"
    return None


class ImageDisk(Disk):
    """A `Disk` on an ext4 image. Attached whenever it is in use; `cut` is a power cut."""

    def __init__(self, home: str, root: str, size_mib: int = SIZE_MIB) -> None:
        self.image = f"{home}.img"
        os.makedirs(os.path.dirname(home), exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(size_mib << 20)
        options = f"lazy_itable_init=1,hash_seed={_SEED}"
        words = ["mkfs.ext4", "-q", "-F", "-m", "0", "-U", _SEED, "-O", "^metadata_csum", "-E", options, self.image]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"mkfs.ext4: {done.stderr.strip()}")
        self.home = home
        self._attach()
        super().__init__(f"{home}/disk", root, privileged=True)

    def format(self, files: Mapping[str, FileText]) -> None:
        """As any disk's; a new machine's disk is all on the medium."""
        super().format(files)
        _sync(self.image_home)

    @property
    def image_home(self) -> str:
        """Where the image is mounted in the laboratory."""
        return self.image.removesuffix(".img")

    @property
    def medium(self) -> str:
        """The root of the image's own file system."""
        return self.image_home

    def _attach(self) -> None:
        os.makedirs(self.image_home, exist_ok=True)
        device, held = _loop(self.image)
        try:
            kernel.mount(device, self.image_home, "ext4", 0, OPTIONS)
        finally:
            os.close(held)

    def close(self) -> None:
        """Unmount it and let the image go; only while the machine is off."""
        kernel.umount(self.image_home, kernel.MNT_DETACH)
        os.unlink(self.image)

    def image_now(self, to: str, journal: bool) -> None:
        """What a power cut at this instant leaves. `journal`: after another process has fsynced another file, which
        writes the journal out, but not delayed data."""
        if journal:
            path = os.path.join(self.image_home, "fsynced-by-another")
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(fd, b"x")
                os.fsync(fd)
            finally:
                os.close(fd)
        _copy_sparse(self.image, to)

    def put(self, image: str) -> None:
        """Replace the disk by an image; only while the machine is off. What was not written is lost."""
        with contextlib.suppress(OSError):
            kernel.umount(self.image_home, kernel.MNT_DETACH)
        # a new file: the old one may still be written to by the file system that is going away
        os.unlink(self.image)
        _copy_sparse(image, self.image)
        self._attach()
        self._clear_work()

    def sync(self) -> None:
        """Everything is on the medium, as after a clean shutdown."""
        _sync(self.image_home)

    def fingerprint(self) -> str:
        """The same for two images if, and only if, a machine cannot tell them apart: names, inodes, times, content."""
        found = hashlib.sha256()
        for layer in self.layers:
            for folder, folders, names in os.walk(layer.upper):
                folders.sort()
                for path in sorted(os.path.join(folder, name) for name in (*folders, *names)):
                    found.update(_described(path))
        return found.hexdigest()

    def keep(self, where: str) -> None:
        """A copy of the image as it is on the medium now."""
        self.image_now(where, journal=False)

    def restore(self, where: str) -> None:
        """Put back what `keep` copied."""
        self.put(where)

    def _clear_work(self) -> None:
        for layer in self.layers:
            shutil.rmtree(layer.work, ignore_errors=True)
            os.makedirs(layer.work, exist_ok=True)


def _described(path: str) -> bytes:
    status = os.lstat(path)
    fields = (status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_size,
              status.st_rdev, status.st_mtime_ns, status.st_ctime_ns)  # fmt: skip
    names = os.listxattr(path, follow_symlinks=False)
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)]
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    return repr((path, fields, attributes, content)).encode("utf-8", "surrogateescape")


def _loop(image: str) -> tuple[str, int]:
    """A loop device for this image, and a descriptor that keeps it until it is mounted: its last user clears it."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                # struct loop_config: fd, block_size, struct loop_info64 (232 bytes), 8 reserved words
                info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"sim", b"", b"", 0, 0)
                fcntl.ioctl(device, _LOOP_CONFIGURE, struct.pack("=II", backing, 0) + info + bytes(64))
                return path, device
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another laboratory was faster
                    raise
    finally:
        os.close(backing)
        os.close(control)
    raise Missing("no free loop device")


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        kernel.syncfs(fd)
    finally:
        os.close(fd)


def _copy_sparse(source: str, target: str) -> None:
    """Copy a file, holes as holes (lseek(2), SEEK_DATA)."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        writing.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole to the end
            end = os.lseek(reading.fileno(), at, os.SEEK_HOLE)
            os.lseek(writing.fileno(), at, os.SEEK_SET)
            while at < end:
                at += os.sendfile(writing.fileno(), reading.fileno(), at, end - at)

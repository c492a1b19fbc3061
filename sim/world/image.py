"""A disk that can lose what was not synced: a real ext4 on a loop device, whose image is taken at any instant.

Mounted with noauto_da_alloc, so that nothing is flushed out of kindness, and commit=600, so that no verdict depends
on the journal's timer (ext4(5); Documentation/filesystems/ext4). Loop devices are cleared by their last unmount
(LO_FLAGS_AUTOCLEAR, loop(4)), which the end of the laboratory's mount namespace is. Needs root.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from sim.errors import LabError, Missing
from sim.scenario import FileText
from sim.world import kernel, sandbox
from sim.world.disk import Disk, Layer

SIZE_MIB = 48
OPTIONS = "noauto_da_alloc,commit=600"
_VAR = ".var"

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


class Image:
    """A file with an ext4 in it, mounted in the laboratory whenever it is in use. `home` is where."""

    def __init__(self, home: str, size_mib: int) -> None:
        self.home = home
        self.file = f"{home}.img"
        os.makedirs(os.path.dirname(home), exist_ok=True)
        with open(self.file, "wb") as file:
            file.truncate(size_mib << 20)
        options = f"lazy_itable_init=1,hash_seed={_SEED}"
        words = ["mkfs.ext4", "-q", "-F", "-m", "0", "-U", _SEED, "-O", "^metadata_csum", "-E", options, self.file]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"mkfs.ext4: {done.stderr.strip()}")
        self.attach()

    def attach(self) -> None:
        """Mount it."""
        os.makedirs(self.home, exist_ok=True)
        device, held = _loop(self.file)
        try:
            kernel.mount(device, self.home, "ext4", 0, OPTIONS)
        finally:
            os.close(held)

    def close(self) -> None:
        """Unmount it and let the file go."""
        kernel.umount(self.home, kernel.MNT_DETACH)
        os.unlink(self.file)

    def journal(self) -> None:
        """Another process fsyncs another file."""
        fd = os.open(os.path.join(self.home, "fsynced-by-another"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(fd, b"x")
            os.fsync(fd)
        finally:
            os.close(fd)

    def put(self, copy: str) -> None:
        """Replace it by a copy. What was not written is lost."""
        with contextlib.suppress(OSError):
            kernel.umount(self.home, kernel.MNT_DETACH)
        # a new file: the old one may still be written to by the file system that is going away
        os.unlink(self.file)
        _copy_sparse(copy, self.file)
        self.attach()

    def sync(self) -> None:
        """Everything is on the medium."""
        fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            kernel.syncfs(fd)
        finally:
            os.close(fd)


class ImageDisk(Disk):
    """A `Disk` on an ext4 image. Attached whenever it is in use; `image_now`, a crash and `put` are a power cut.

    `apart`: /var lies on an image of its own, so that what is flushed here need not be flushed there, and no rename
    leads from one to the other (EXDEV). Both are taken and put back together; a copy's second file ends in `.var`.
    """

    def __init__(self, home: str, root: str, size_mib: int = SIZE_MIB, apart: bool = False) -> None:
        self.images = (Image(home, size_mib), *([Image(f"{home}{_VAR}", size_mib)] if apart else []))
        super().__init__(f"{home}/disk", root, privileged=True)

    def _plan_layers(self, etc: str | None) -> Iterator[Layer]:
        yield from super()._plan_layers(etc)
        for image in self.images[1:]:
            lower = os.path.join(self.root, "var")
            if not os.path.isdir(lower) or os.path.islink(lower):
                raise LabError(f"{lower} is no folder: it cannot be a disk of its own")
            yield Layer("var", lower, f"{image.home}/disk/upper", f"{image.home}/disk/work")

    def format(self, files: Mapping[str, FileText], records: Sequence[str] = ()) -> None:
        """As any disk's; a new machine's disk is all on the medium."""
        super().format(files, records)
        self.sync()

    @property
    def image(self) -> str:
        """The file of the image, of which there is one at least."""
        return self.images[0].file

    @property
    def media(self) -> tuple[str, ...]:
        """The root of each image's own file system."""
        return tuple(image.home for image in self.images)

    def close(self) -> None:
        """Unmount it and let the images go; only while the machine is off."""
        for image in self.images:
            image.close()

    def image_now(self, to: str, journal: bool) -> None:
        """What a power cut at this instant leaves. `journal`: after another process has fsynced another file, which
        writes the journal out, but not delayed data."""
        for image in self.images if journal else ():
            image.journal()
        for image, copy in zip(self.images, self._copies(to), strict=True):
            _copy_sparse(image.file, copy)

    def put(self, image: str) -> None:
        """Replace the disk by what `image_now` took; only while the machine is off. What was not written is lost."""
        for one, copy in zip(self.images, self._copies(image), strict=True):
            one.put(copy)
        self._clear_work()

    def _copies(self, name: str) -> tuple[str, ...]:
        return (name, f"{name}{_VAR}")[: len(self.images)]

    def sync(self) -> None:
        """Everything is on the medium, as after a clean shutdown."""
        for image in self.images:
            image.sync()

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

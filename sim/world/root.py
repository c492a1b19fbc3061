"""A machine's view of the file system: its disk, fresh /run, /tmp, /dev, /proc, /sys, and nothing of the host's.

Called by a machine's PID 1 in its own namespaces, before anything else runs in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sim.world import kernel
from sim.world.disk import Disk, read_only

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun", "fuse")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
_READ_ONLY_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger", "acpi", "scsi")
_HIDDEN_PROC = ("kcore", "kmsg", "timer_list", "keys")


def build(disk: Disk, at: str, boot_id: str) -> None:
    """Mount everything below `at` and make it the root. Raises OSError."""
    os.makedirs(at, exist_ok=True)
    disk.mount(at)
    for name in ("proc", "sys", "dev", "run", "tmp"):
        os.makedirs(os.path.join(at, name), exist_ok=True)
    kernel.mount("tmpfs", f"{at}/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    kernel.mount("tmpfs", f"{at}/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    _devices(f"{at}/dev")
    kernel.mount("sysfs", f"{at}/sys", "sysfs", kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)
    kernel.mount("proc", f"{at}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    for path in python_folders():
        if not disk.shows(path):
            _show(path, at)
    os.makedirs(f"{at}/run/sim", mode=0o700)
    for folder in ("lock", "network", "systemd/netif", "dbus"):
        os.makedirs(f"{at}/run/{folder}", exist_ok=True)
    _guard_proc(f"{at}/proc")
    _own_boot_id(at, boot_id)
    _enter(at)


def _devices(dev: str) -> None:
    host = "/dev"
    kernel.mount("tmpfs", dev, "tmpfs", kernel.MS_NOSUID, "mode=0755")
    for name in _DEVICES:
        if os.path.exists(f"{host}/{name}"):
            target = f"{dev}/{name}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o666))
            kernel.mount(f"{host}/{name}", target, flags=kernel.MS_BIND)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{dev}/{name}")
    kernel.mount("devpts", f"{dev}/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666")
    kernel.mount("tmpfs", f"{dev}/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    for name, target in _LINKS.items():
        os.symlink(target, f"{dev}/{name}")


def _guard_proc(proc: str) -> None:
    """Read-only but for the network's own sysctls: the rest of /proc/sys belongs to the host's kernel."""
    for name in _READ_ONLY_PROC:
        path = f"{proc}/{name}"
        if os.path.exists(path):
            kernel.mount(path, path, flags=kernel.MS_BIND)
            read_only(path)
    for name in _HIDDEN_PROC:
        if os.path.exists(f"{proc}/{name}"):
            kernel.mount("/dev/null", f"{proc}/{name}", flags=kernel.MS_BIND)
    kernel.mount(f"{proc}/sys/net", f"{proc}/sys/net", flags=kernel.MS_BIND)
    kernel.mount("", f"{proc}/sys/net", flags=kernel.MS_BIND | kernel.MS_REMOUNT)


def _own_boot_id(at: str, boot_id: str) -> None:
    path = f"{at}/run/sim/boot_id"
    Path(path).write_text(boot_id + "\n", encoding="ascii")
    kernel.mount(path, f"{at}/proc/sys/kernel/random/boot_id", flags=kernel.MS_BIND)
    read_only(f"{at}/proc/sys/kernel/random/boot_id")


def _enter(at: str) -> None:
    os.chdir(at)
    kernel.pivot_root(".", ".")  # pivot_root(2), "pivot_root(".", ".")": the old root lies on top of the new one
    kernel.umount(".", kernel.MNT_DETACH)
    os.chdir("/")


def python_folders() -> list[str]:
    """The folders that this Python needs at run time: its prefix, the virtual environment, imported packages."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folders = [sys.base_prefix, sys.base_exec_prefix, sys.prefix, here]
    folders += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    found: list[str] = []
    for path in sorted({os.path.realpath(folder) for folder in folders}, key=len):
        if not any(path == other or path.startswith(other + "/") for other in found) and os.path.isdir(path):
            found.append(path)
    return found


def _show(path: str, at: str) -> None:
    target = at + path
    os.makedirs(target, exist_ok=True)
    kernel.mount(path, target, flags=kernel.MS_BIND)
    read_only(target)

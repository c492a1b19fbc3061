"""Facts about this process and this host, and how people are told about them."""

from __future__ import annotations

import os
import time

from snapcore.files import sha256, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snapcore.store import Record


def held_by(record: Record) -> str:
    """Who holds a transaction, and since when."""
    label = f", {shown(record.label)!r}" if record.label else ""
    return (
        f"begun {record.since} by {user(record.owner.uid)}, process {record.owner.pid}"
        f" ({shown(record.owner.command)}){label}"
    )


def whole(text: str, most: int) -> int:
    """A number as people write it, 0 to `most`; -1 for any other text."""
    digits = text.lstrip("0") or text[:1]
    fits = text.isascii() and text.isdecimal() and len(digits) <= len(str(most))  # int() refuses very long ones
    return int(digits) if fits and int(digits) <= most else -1


def is_this_host(root: str) -> bool:
    """Whether a tree is that of the running host, and not some folder."""
    return os.path.abspath(root) == "/"


def user(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (KeyError, OSError):
        return f"uid {uid}"


def reason(error: Exception) -> str:
    """An error in a few words, with the path it is about if that is known."""
    if isinstance(error, OSError) and error.strerror:
        place = error.filename if isinstance(error.filename, str) else ""
        return f"{shown(place)}: {error.strerror}" if place else error.strerror
    return str(error)


def hashed(token: str) -> str:
    """A token as it is kept: who reads the store can't use it."""
    return sha256(token.encode("utf-8", "surrogateescape"))


def now(later_s: float = 0.0) -> str:
    """UTC, ISO 8601: for people. No decision is made by the wall clock."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + later_s))


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def instance() -> str:
    """Which network stack this process sees: of containers on one host each has its own; '' where it can't be told."""
    try:
        return f"{boot_id()} {os.readlink('/proc/self/ns/net')}"
    except OSError:
        return ""


def boottime() -> float:
    """Seconds since the boot, those of suspension counted too (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def left_s(record: Record) -> float | None:
    """Seconds until the deadline of a transaction, negative after it; None where it has none.

    What was begun before this boot is over: the boot should have undone it.
    """
    if not record.deadline:
        return None
    if record.boot_id != boot_id():
        return -1.0
    return record.deadline_boottime - boottime()


def log(root: str, line: str) -> None:
    """To the system's log, where stderr may go nowhere. Of this host only."""
    import syslog

    if is_this_host(root):
        syslog.openlog("snapcore", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, shown(line))


def process_fields(pid: int) -> list[str]:
    """What /proc/PID/stat says behind the command's name (proc(5), from field 3 on); [] for no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []


def parent(pid: int) -> int:
    """A process's parent; 0 where it can't be told."""
    fields = process_fields(pid)
    return int(fields[1]) if fields else 0


def process_name(pid: int) -> str:
    """A process's name, as the kernel has it; '' for no such process."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def process_start(pid: int) -> int:
    """When a process was started, in clock ticks since the boot; -1 for no such process, or one that is dead."""
    fields = process_fields(pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in ("Z", "X") else -1


def caller() -> str:
    """The command line of the parent process: who called `snapcore` (its own says nothing)."""
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            return file.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""

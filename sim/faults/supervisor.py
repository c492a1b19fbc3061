"""Answers a machine's filter: counts the calls that change its disk, stops the machine before one, or makes it fail.

A process of its own, forked by the laboratory, so that a machine never waits for a laboratory that is busy. One call
is in flight at a time: the next one is decided on only after the last one has returned.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sim.faults import filter as seccomp
from sim.faults.calls import CREATE, DISK_CALLS, READING_CALLS, REGULAR_ONLY, Call, below, changes, masked
from sim.faults.filter import Notification
from sim.faults.lines import Lines
from sim.faults.order import Order, Point
from sim.world import assistant, kernel

_AT_FDCWD = -100
DEATH_S = 5.0
"""How long a process may take to die of a signal."""
RETURN_S = 2.0
"""How long a call that was let go may take until the next one is looked at all the same."""

_COMMAND = 1 << 13
"""Bytes of a command line that are told: they must fit into a message, twice, each may take six in JSON."""


class Supervisor:
    """The laboratory's end."""

    def __init__(self) -> None:
        seccomp.prepare()
        self.process, self.socket = assistant.start(lambda control: _Loop(control).run())
        self.points: list[Point] = []
        self.stopped: Point | None = None
        self.injected = 0

    def watch(self, descriptor: int, disk_mounts: list[int]) -> None:
        """A machine booted: this is its filter, these are the mounts (mnt_id) that are its disk."""
        message = json.dumps({"do": "watch", "mounts": disk_mounts}).encode()
        socket.send_fds(self.socket, [message], [descriptor])
        self._acknowledged()

    def arm(self, order: Order) -> None:
        """Begin a new count."""
        self.points, self.stopped, self.injected = [], None, 0
        self.socket.send(json.dumps({"do": "arm", "order": asdict(order)}).encode())
        self._acknowledged()

    def disarm(self) -> list[Point]:
        """Let everything go from now on; returns what was recorded."""
        self.socket.send(json.dumps({"do": "disarm"}).encode())
        self._acknowledged()
        return self.points

    def release(self, killed_by: int = 0) -> None:
        """What stands still before its point goes on. `killed_by`: a signal that was sent to it: first it dies of that,
        unless it catches or ignores it. (An answer could be faster than the signal, and the call be made after all.)
        """
        self.stopped = None
        self.socket.send(json.dumps({"do": "release", "signal": killed_by}).encode())
        self._acknowledged()

    def hear(self) -> None:
        """Take in one message (call it when `socket` is readable)."""
        message = json.loads(self.socket.recv(1 << 20) or b'{"event": "gone"}')
        match message.pop("event"):
            case "point":
                self.points.append(Point(**message))
            case "stopped":
                self.stopped = Point(**message)
            case "injected":
                self.injected += 1
            case "gone":
                raise OSError(32, "the supervisor is gone")

    def _acknowledged(self) -> None:
        while True:
            message = self.socket.recv(1 << 20)
            if not message:
                raise OSError(32, "the supervisor is gone")
            content = json.loads(message)
            if content["event"] == "ok":
                return
            if content["event"] == "point":
                content.pop("event")
                self.points.append(Point(**content))
            elif content["event"] == "injected":
                self.injected += 1

    def close(self) -> None:
        """End it."""
        self.socket.close()
        os.waitpid(self.process, 0)


@dataclass
class _Count:
    """The state of one armed period."""

    order: Order
    number: int = 0
    matching: int = 0
    failing: bool = False
    seen: dict[tuple[int, str], str] = field(default_factory=dict)  # (process, masked command) -> key
    occurrences: dict[str, int] = field(default_factory=dict)
    nth: dict[str, int] = field(default_factory=dict)


class _Loop:
    """The supervisor's own process."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.descriptor = -1
        self.mounts: frozenset[int] = frozenset()
        self.count: _Count | None = None
        self.flying: tuple[int, str] | None = None  # (process, call) that was let go last
        self.held: list[Notification] = []
        self.lines = Lines()

    def run(self) -> None:
        while True:
            descriptors = [self.control.fileno()] + ([self.descriptor] if self.descriptor >= 0 else [])
            poller = select.poll()
            for descriptor in descriptors:
                poller.register(descriptor, select.POLLIN)
            for descriptor, events in poller.poll():
                if descriptor == self.control.fileno():
                    if not self._obey():
                        return
                    break  # the set of descriptors may have changed
                if events & select.POLLIN:
                    self._decide()
                else:  # every process of the machine has ended
                    os.close(self.descriptor)
                    self.descriptor = -1

    def _obey(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, 1 << 20, 1)
        if not data:
            return False
        message = json.loads(data)
        if message["do"] == "watch":
            if self.descriptor >= 0:
                os.close(self.descriptor)
            self.descriptor, self.mounts, self.flying = fds[0], frozenset(message["mounts"]), None
            self.held.clear()
        elif message["do"] == "arm":
            order = message["order"]
            order["stop"] = tuple(order["stop"]) if order["stop"] else None
            order["fail_at"] = tuple(order["fail_at"]) if order["fail_at"] else None
            order["reading"] = tuple(order["reading"])
            self.count = _Count(Order(**{**order, "calls": tuple(order["calls"])}))
        elif message["do"] == "release":
            for waiting in self.held:
                if message["signal"]:
                    _wait_dead(waiting.process, message["signal"])
                seccomp.let_go(self.descriptor, waiting)
            self.held.clear()
        else:
            self.count = None
        self._say(event="ok")
        return True

    def _say(self, **message: Any) -> None:
        self.control.send(json.dumps(message).encode())

    def _decide(self) -> None:
        waiting = seccomp.receive(self.descriptor)
        if waiting is None:
            return
        try:
            path = self._counted(waiting, self.count.order) if self.count is not None else None
        except OSError:  # its process died while it was looked at
            path = None
        if self.count is None or path is None:
            seccomp.let_go(self.descriptor, waiting)
            return
        if not self.count.order.reading:
            self._wait_returned(waiting)
        self._point(self.count, waiting, path)

    def _point(self, count: _Count, waiting: Notification, path: str) -> None:
        order = count.order
        count.number += 1
        command = _command(waiting.process)
        key = self._key(count, waiting.process, masked(command))
        count.nth[key] = count.nth.get(key, 0) + 1
        line = self.lines.of(waiting.process) if order.record else ""
        point = Point(count.number, waiting.name, path, key, count.nth[key], command, line)
        if order.record:
            self._say(event="point", **asdict(point))
        if point.key == order.stop or point.number == order.stop_number:
            self.held.append(waiting)
            self._say(event="stopped", **asdict(point))
            return  # it waits until it is released or killed
        if point.key == order.fail_at:
            count.failing = True
        if count.failing and order.error is not None:
            count.failing = order.onward
            self._fail(waiting, order.error)
            return
        counted = order.fail_at is None and (not order.calls or waiting.name in order.calls)
        if order.error is not None and counted:
            count.matching += 1
            if order.first <= count.matching and (order.last is None or count.matching <= order.last):
                self._fail(waiting, order.error)
                return
        self.flying = (waiting.process, waiting.name)
        seccomp.let_go(self.descriptor, waiting)

    def _fail(self, waiting: Notification, number: int) -> None:
        self._say(event="injected")
        seccomp.fail(self.descriptor, waiting, number)

    def _key(self, count: _Count, process: int, command: str) -> str:
        found = count.seen.get((process, command))
        if found is None:
            count.occurrences[command] = count.occurrences.get(command, 0) + 1
            found = f"{command} [{count.occurrences[command]}]"
            count.seen[process, command] = found
        return found

    def _wait_returned(self, waiting: Notification) -> None:
        """Until the call that was let go last has returned.

        CONTINUE does not say when. The same thread's next call says so; another thread's does not: then its process
        must be seen to be gone, asleep elsewhere, or at work in user mode for a while.
        """
        if self.flying is None or self.flying[0] == waiting.process:
            return
        process, _ = self.flying
        deadline = time.monotonic() + RETURN_S
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            state = _state(process)
            if state in ("", "Z", "X", "S", "T", "t"):
                break
            quiet = quiet + 1 if state == "R" else 0
            os.sched_yield()
        self.flying = None

    # -- what a call is about ------------------------------------------------------------------------------------

    def _counted(self, waiting: Notification, order: Order) -> str | None:
        """The path that the call is about when it is one of those that count; else None."""
        if not order.reading:
            return self._on_disk(waiting) if waiting.name in DISK_CALLS or waiting.name == "ioctl" else None
        call = READING_CALLS.get(waiting.name)
        if call is None:
            return None
        empty = waiting.name in ("newfstatat", "statx", "readlinkat") and not _string(
            waiting.process, waiting.arguments[1]
        )
        if call.fd is not None or empty:  # an empty path: AT_EMPTY_PATH
            path = os.readlink(f"/proc/{waiting.process}/fd/{_signed(waiting.arguments[call.fd or 0])}")
        else:
            base, index = call.paths[0]
            folder = None if base is None else _signed(waiting.arguments[base])
            path = _absolute(waiting.process, folder, _string(waiting.process, waiting.arguments[index]))
        return path if below(path, order.reading) else None

    def _on_disk(self, waiting: Notification) -> str | None:
        """The path that the call changes when it is on the machine's disk and the call changes it; else None."""
        if waiting.name == "ioctl":
            return self._descriptor(waiting, 0)
        call = DISK_CALLS[waiting.name]
        if call.always:
            return waiting.name
        if call.fd is not None:
            return self._descriptor(waiting, call.fd)
        if call.paths[0][0] is not None and waiting.name == "utimensat" and waiting.arguments[1] == 0:
            return self._descriptor(waiting, 0)
        return self._path(waiting, call)

    def _descriptor(self, waiting: Notification, index: int) -> str | None:
        number = _signed(waiting.arguments[index])
        if number < 0 or _mount_of(f"/proc/{waiting.process}/fdinfo/{number}") not in self.mounts:
            return None
        link = f"/proc/{waiting.process}/fd/{number}"
        if waiting.name in REGULAR_ONLY and not stat.S_ISREG(os.stat(link).st_mode):
            return None
        return os.readlink(link)

    def _path(self, waiting: Notification, call: Call) -> str | None:
        shown = []
        here = False
        for base, index in call.paths:
            text = _string(waiting.process, waiting.arguments[index])
            folder = None if base is None else _signed(waiting.arguments[base])
            path = _absolute(waiting.process, folder, text)
            shown.append(path)
            here = here or self._is_here(waiting, call, path)
        return " -> ".join(shown) if here else None

    def _is_here(self, waiting: Notification, call: Call, path: str) -> bool:
        root = os.open(f"/proc/{waiting.process}/root", os.O_PATH | os.O_DIRECTORY)
        try:
            folder = kernel.open_in_root(root, os.path.dirname(path.rstrip("/")) or "/", os.O_PATH)
        except OSError:
            return False  # there is no such folder: the call changes nothing
        finally:
            os.close(root)
        try:
            if _mount_of(f"/proc/self/fdinfo/{folder}") not in self.mounts:
                return False
            if call.flags is None:
                return True
            return _opens(waiting, call, folder, os.path.basename(path.rstrip("/")))
        finally:
            os.close(folder)


def _opens(waiting: Notification, call: Call, folder: int, name: str) -> bool:
    """Whether this open(2) makes a file or empties one. A link is followed as far as one step tells."""
    if call.flags == -1:
        flags = CREATE
    elif call.flags == -2:
        flags = int.from_bytes(_memory(waiting.process, waiting.arguments[2], 8), "little")
    else:
        flags = waiting.arguments[call.flags or 0] & 0xFFFFFFFF
    if not flags & (os.O_CREAT | os.O_TRUNC):
        return False
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return changes(flags, exists=False, size=0)
    if stat.S_ISLNK(status.st_mode):
        return bool(flags & os.O_TRUNC)
    if not stat.S_ISREG(status.st_mode):
        return False
    return changes(flags, exists=True, size=status.st_size)


def _signed(argument: int) -> int:
    value = argument & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _mount_of(fdinfo: str) -> int:
    with open(fdinfo, encoding="ascii") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def _memory(process: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{process}/mem", os.O_RDONLY)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def _string(process: int, address: int) -> str:
    if address == 0:
        return ""
    found = b""
    while b"\0" not in found and len(found) < 4096:
        # never across a page that may not be there
        found += _memory(process, address + len(found), 4096 - (address + len(found)) % 4096)
    return os.fsdecode(found.split(b"\0")[0])


def _absolute(process: int, folder: int | None, path: str) -> str:
    """A path as the machine sees it, absolute and without dots."""
    if not path.startswith("/"):
        link = "cwd" if folder is None or folder == _AT_FDCWD else f"fd/{folder}"
        path = os.path.join(os.readlink(f"/proc/{process}/{link}"), path)
    return os.path.normpath(path)


def _command(process: int) -> str:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return os.fsdecode(file.read(_COMMAND).rstrip(b"\0").replace(b"\0", b" "))
    except OSError:
        return "?"


def _wait_dead(process: int, number: int) -> None:
    """Until a thread has died of a signal, if it will (proc(5), status: SigIgn, SigCgt)."""
    try:
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        caught = int(fields["SigIgn"], 16) | int(fields["SigCgt"], 16)
        if caught >> (number - 1) & 1 and number != signal.SIGKILL:
            return
        descriptor = os.pidfd_open(int(fields["Tgid"]))
    except (OSError, KeyError, ValueError):
        return  # it is gone
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll(int(DEATH_S * 1000))
    finally:
        os.close(descriptor)


def _state(process: int) -> str:
    """R, S, D, Z, … (proc(5), stat, field 3); empty when the process is gone."""
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def disk_mounts(process: int) -> list[int]:
    """The mount ids of a machine's disk: its overlays and what else is mounted from a block device."""
    found = []
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split()
            kind = words[words.index("-") + 1]
            writable = "rw" in words[5].split(",")  # not what is only shown to it
            if kind == "overlay" or (kind == "ext4" and writable):
                found.append(int(words[0]))
    return found

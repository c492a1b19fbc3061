"""One machine on which a case is tried again and again: its disk put back, booted, its verbs under orders.

Only inside a sandbox. The machine has its cables but no neighbours. Where the mechanism covers files only, the stack
is not started: nothing here asks about the network (the requirements that do are scenarios of their own).
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim import stacks
from sim.conform.cases import Case
from sim.conform.family import Editor, Family
from sim.errors import LabError
from sim.faults.order import Order, Point
from sim.mischief import set_disk, together
from sim.observe import is_configuration, read_configuration
from sim.session import by_status
from sim.world import kernel, sandbox
from sim.world.image import ImageDisk
from sim.world.lab import Lab
from sim.world.machine import Completed, Job

VERB_S = 60.0
PATIENCE_S = 0.8
"""How long a verb may take while another one is held, until that one is let go: it may be waiting for it."""
_VOLATILE = ("/run", "/tmp", "/dev/shm")
IMAGES = ("as-it-is", "journal")


@dataclass(frozen=True)
class Picture:
    """The configuration: `files`, what else was changed below /etc, and (inode, mtime, ctime) of each file."""

    files: Mapping[str, Any]
    others: Mapping[str, Any]
    stamps: Mapping[str, tuple[int, int, int]]


@dataclass
class Ended:
    """A verb that was run: its exit status, None where it was stopped; what it said."""

    status: int | None
    output: str = ""
    timed_out: bool = False


@dataclass
class Stand:
    """See the module. `case`: any one with the same plan and kind of filter."""

    case: Case
    hooks: list[Mapping[str, Any]] = field(default_factory=list)
    sound: set[tuple[str, frozenset[str], int]] = field(default_factory=set)
    """(fingerprint of the disk, files beside it, number of processes) from which everything was seen to work."""
    kept: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """What a disk was kept as -> file, what is known of it."""
    fleeting: set[str] = field(default_factory=set)
    """What no disk can be kept as: more was left than a disk holds."""

    def __post_init__(self) -> None:
        plan = self.case.plan
        assert plan.subject is not None
        self.plan, self.mechanism = plan, plan.mechanism
        self.stack = stacks.get(self.case.stack)
        self.family = Family(self.stack.patterns)
        self.lab = Lab(plan, lambda machine: {}, self._tell, watched=plan.subject)
        self.machine = self.lab.machines[plan.subject]
        self.machine.reading = self.case.reading
        self.disk = self.machine.disk
        supervisor = self.machine.supervisor
        assert supervisor is not None
        self.supervisor = supervisor
        self.excluded = (*self.machine.plan.state, *self.stack.records)
        self.without = frozenset() if "kernel" in self.mechanism.covers else frozenset({"network"})
        self.boot()
        self.off(orderly=True)
        self.keep("initial", None)

    def _tell(self, machine: str, message: Mapping[str, Any]) -> None:
        if message["event"] == "phase" and message["phase"] == "pre-network":
            self.hooks.append(message)

    # -- power and disk --------------------------------------------------------------------------------------------

    def boot(self, hook: bool = True, watched: bool = False, order: Order | None = None) -> Ended:
        """Power off, if it is on, and boot; the mechanism's boot command under an order.

        With `watched` later verbs can be given orders, too.
        """
        self.off()
        self.hooks.clear()
        self.machine.without = self.without if hook else self.without | {"pre-network"}
        self.machine.supervisor = self.supervisor if watched else None
        if order is not None:
            self.supervisor.arm(order)
        self.lab.boot(self.plan.subject or "")
        if self.machine.stopped:
            return Ended(None)
        said = self.hooks[-1]
        return Ended(said["status"], said["output"] + said["why"], bool(said["why"]))

    def off(self, orderly: bool = False) -> None:
        """Power off, if it is on; by a crash, unless it shall be in order."""
        self.supervisor.stopped = None
        if not self.machine.on:
            return
        if orderly:
            self.machine.shutdown(VERB_S)
        else:
            self.machine.crash()

    def keep(self, name: str, known: Any) -> None:
        """Keep the disk as it is, with what is known of it; the machine is off."""
        where = f"{sandbox.SCRATCH}/stand-{id(self)}-{len(self.kept)}"
        if isinstance(self.disk, ImageDisk):
            self.disk.sync()
        self.disk.keep(where)
        self.kept[name] = where, known

    def put_back(self, name: str) -> Any:
        """The disk as it was kept under this name; returns what is known of it. The machine goes off."""
        self.off()
        self.disk.fill(False)
        self.disk.writable = True
        where, known = self.kept[name]
        self.disk.restore(where)
        return known

    def cut(self) -> list[str]:
        """A power cut, now: the two images that it leaves. The machine is off then."""
        if not isinstance(self.disk, ImageDisk):
            raise LabError("this disk cannot lose writes")
        images = [f"{sandbox.SCRATCH}/stand-{id(self)}-cut-{which}" for which in IMAGES]
        for which, path in zip(IMAGES, images, strict=True):
            self.disk.image_now(path, journal=which == "journal")
        self.off()
        return images

    def put(self, image: str) -> None:
        """One of the images of a cut becomes the disk."""
        assert isinstance(self.disk, ImageDisk)
        self.off()
        self.disk.put(image)

    def set_disk(self, state: str) -> None:
        """full | read-only | normal, from now on."""
        set_disk(self.machine, state)

    # -- verbs -----------------------------------------------------------------------------------------------------

    def command(self, verb: str) -> str:
        """The shell command of a verb. Raises LabError when there is none."""
        command = getattr(self.mechanism, verb)
        if not command:
            raise LabError(f"{self.mechanism.name} does not offer '{verb}'")
        return str(command)

    def run(self, verb: str, order: Order | None = None) -> Ended:
        """A verb, from its start to its end, or to the point where the order stops it."""
        if order is not None:
            self.supervisor.arm(order)
        job = self.start(verb)
        if not self.machine.wait_for(job, VERB_S):
            return self._ended(self.machine.completed(job, timed_out=True))
        if self.machine.stopped:
            self.job = job
            return Ended(None)
        if order is not None:
            self.supervisor.disarm()
        return self._ended(self.machine.completed(job))

    def start(self, verb: str) -> Job:
        """Start a verb."""
        return self.machine.start(["/bin/sh", "-c", self.command(verb)])

    @staticmethod
    def _ended(done: Completed) -> Ended:
        return Ended(done.status, done.output, done.timed_out)

    def kill(self, number: int, verb: str) -> Ended:
        """Everything stands still inside a verb: kill all its processes by a signal, and see how it ends."""
        if verb == "boot":
            if number == signal.SIGKILL:
                self.off()
                return Ended(-number)
            self.machine.kill_all(number)
            self.machine.wait_booted(VERB_S)
            return Ended(self.hooks[-1]["status"], self.hooks[-1]["output"])
        self.machine.kill_all(number)
        in_time = self.machine.wait_for(self.job, VERB_S)
        return self._ended(self.machine.completed(self.job, timed_out=not in_time))

    def meanwhile(self, verb: str) -> tuple[Ended, Ended]:
        """Everything stands still inside a verb: another one is run; then the first goes on. (first, other)."""
        self.supervisor.stopped = None
        self.supervisor.disarm()
        first, other = self.job, self.start(verb)
        self.machine.wait_for(other, PATIENCE_S)
        self.supervisor.release()
        deadline = time.monotonic() + VERB_S
        ended = []
        for job in (first, other):
            in_time = self.machine.wait_for(job, max(0.0, deadline - time.monotonic()))
            ended.append(self._ended(self.machine.completed(job, timed_out=not in_time)))
        return ended[0], ended[1]

    def race(self, verbs: Sequence[str]) -> tuple[list[int], str]:
        """Verbs that start at one instant; their exit statuses (none when not all end) and all they said.

        Raises LabError.
        """
        statuses, done = together(self.machine, [self.command(verb) for verb in verbs], VERB_S)
        if not done.timed_out and len(statuses) != len(verbs):
            raise LabError(f"verbs that were started together have no exit statuses: {done.output.strip()[-500:]}")
        return statuses, done.output

    def recorded(self, verb: str, reading: bool) -> tuple[Ended, list[Point]]:
        """The points of a verb that is not interrupted."""
        order = Order(record=True, reading=self.read_paths() if reading else ())
        ended = self.boot(watched=True, order=order) if verb == "boot" else self.run(verb, order)
        return ended, list(self.supervisor.points)

    def read_paths(self) -> tuple[str, ...]:
        """The configuration, its folders, and the mechanism's records: what a reading call is about."""
        folders = dict.fromkeys(os.path.dirname(one) for one in self.family.patterns)
        return (*folders, *self.family.patterns, *(f"{path.rstrip('/')}/" for path in self.machine.plan.state))

    def transaction(self) -> str:
        """open | none | unknown, as the mechanism says: by `status`, else by what it answers to a commit."""
        command = self.mechanism.extra.get("status")
        if command:
            return by_status(self.machine, command, VERB_S)
        if self.mechanism.commit is None:
            return "unknown"
        status = self.machine.run(self.mechanism.commit, VERB_S).status
        return {0: "open", self.mechanism.wrong_state: "none"}.get(status, "unknown")

    # -- looking ---------------------------------------------------------------------------------------------------

    def editor(self) -> Editor:
        """Whoever changes files. The machine is on."""
        return Editor(self.family, self.machine.path("/").rstrip("/"))

    def picture(self) -> Picture:
        """The configuration as it is now; names that the stack ignores in its own folders are nobody's affair."""
        found = read_configuration(self.disk, self.stack.patterns, self.stack.ignored, self.excluded)
        others = {path: entry for path, entry in found["others"].items() if not self._ignored(path)}
        stamps = {}
        for path in found["files"]:
            status = os.lstat(self.disk.upper_path(path))
            stamps[path] = status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        return Picture(found["files"], others, stamps)

    def _ignored(self, path: str) -> bool:
        return not is_configuration(path, self.stack.patterns, self.stack.ignored) and is_configuration(
            path, self.stack.patterns, ()
        )

    def volatile(self) -> tuple[frozenset[tuple[str, int, int]], int]:
        """What is gone with the power: (path, size, mtime) of files outside of the disk, the number of processes."""
        root, found = self.machine.path("/").rstrip("/"), set()
        ours = f"{root}/run/sim"
        for folder in _VOLATILE:
            device = os.stat(root + folder).st_dev
            for top, folders, names in os.walk(root + folder):
                inside = []
                for name in (*folders, *names):
                    path = os.path.join(top, name)
                    try:
                        status = os.lstat(path)
                    except FileNotFoundError:
                        continue  # somebody is at work there
                    # what is mounted there is no memory of the machine's, and may be a tree of ten thousand files
                    if path == ours or status.st_dev != device:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        inside.append(name)
                        found.add((path.removeprefix(root), 0, 0))
                    else:
                        found.add((path.removeprefix(root), status.st_size, status.st_mtime_ns))
                folders[:] = inside
        return frozenset(found), sum(name.isdecimal() for name in os.listdir(f"{root}/proc"))

    def saved(self) -> int:
        """How many files the mechanism's state holds."""
        count = 0
        for top in self.machine.plan.state:
            place = self._state(top)
            count += os.path.isfile(place)
            for _, _, names in os.walk(place):
                count += len(names)
        return count

    def _state(self, path: str) -> str:
        """Where the records lie on the disk; a link to them is followed, where a running machine can say whereto."""
        if self.machine.on:
            root = self.machine.path("/")
            path = kernel.followed_in(root, path).removeprefix(root)
        return self.disk.upper_path(path)

"""A machine, seen from the laboratory: power, commands, files. Its inside is `init` and `root`."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from pyroute2 import IPRoute

from sim.errors import LabError
from sim.faults.supervisor import Supervisor, disk_mounts
from sim.planned import MachinePlan
from sim.world import init, kernel, root
from sim.world.disk import Disk
from sim.world.init import Boot
from sim.world.listen import Listener
from sim.world.network import Switch

_UNLOCK, _NUMBER = 0x40045431, 0x80045430  # TIOCSPTLCK, TIOCGPTN: ioctl_tty(2)
_SAID = 1 << 20
"""Bytes of a command's output that come back."""
START_S = 20.0
"""How long namespaces and mounts may take; a boot hook or a stack has its own time-outs (`Phase`)."""


@dataclass(frozen=True)
class Completed:
    """A command that ended: exit status (negative: the signal that killed it), output, what it took."""

    status: int
    output: str
    seconds: float
    timed_out: bool = False


@dataclass(frozen=True)
class Job:
    """A program that was started: its number, a descriptor with its output, when it began (monotonic)."""

    number: int
    output: int
    began: float


@dataclass
class Running:
    """What exists only while the machine is on."""

    process: int
    pidfd: int
    control: socket.socket
    netns: int
    ready: bool = False
    booted: bool = False
    killed_all: bool = False
    filter: int = -1
    listener: Listener | None = None
    exits: dict[int, int] = field(default_factory=dict)

    @functools.cached_property
    def ip(self) -> IPRoute:
        """Its own rtnetlink socket; many boots are never asked anything over it."""
        with kernel.inside(self.netns):
            return IPRoute()

    def close(self) -> None:
        """Let go of all that keeps the namespaces."""
        if "ip" in vars(self):
            self.ip.close()
        if self.listener is not None:
            self.listener.close()
        self.control.close()
        os.close(self.netns)
        os.close(self.pidfd)


class Machine:
    """Power it on and off, run commands in it. `tell` hears what PID 1 reports: phases and notes."""

    def __init__(
        self,
        plan: MachinePlan,
        disk: Disk,
        switches: Mapping[str, Switch],
        make_boot: Callable[[MachinePlan], Boot],
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.plan = plan
        self.supervisor: Supervisor | None = None
        self.reading = False  # the filter of the next boot knows of calls that only read, too
        self.listen_at_boot = False  # the next boots are heard: `sim.observe.seen_at_boot`
        self.without: frozenset[str] = frozenset()  # phases whose command the next boot leaves out
        self.disk = disk
        self.boots = 0
        self._switches = switches
        self._make_boot = make_boot
        self._tell = tell
        self._running: Running | None = None
        self._jobs = 0

    @property
    def on(self) -> bool:
        """Whether the machine is powered."""
        return self._running is not None

    @property
    def stopped(self) -> bool:
        """Whether everything stands still before the call that the supervisor was told to stop at."""
        return self.supervisor is not None and self.supervisor.stopped is not None

    @property
    def running(self) -> Running:
        """The running half. Raises LabError while the machine is off."""
        if self._running is None:
            raise LabError(f"{self.plan.name} is off")
        return self._running

    # -- power ---------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Start PID 1 in new namespaces; it builds its root and waits for `connect`."""
        if self._running is not None:
            raise LabError(f"{self.plan.name} is on already")
        self.boots += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        boot = self._make_boot(self.plan)
        boot = replace(boot, watched=self.supervisor is not None, reading=self.reading)
        phases = [replace(phase, command="") if phase.name in self.without else phase for phase in boot.phases]
        boot = replace(boot, phases=phases)
        process = _start(lambda: self._inside(boot, theirs))
        theirs.close()
        netns = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._running = Running(process, os.pidfd_open(process), ours, netns)

    def connect(self) -> None:
        """Plug the cables in, once the machine's sysctls are set (new devices copy them), and let PID 1 go."""
        running = self.running
        if not self._pump(lambda: running.ready, START_S):
            raise LabError(f"{self.plan.name} did not build its root within {START_S:g} s")
        for port in self.plan.ports:
            self._switches[port.network].attach(self.plan.name, port.name, port.mac, running.netns)
        if self.listen_at_boot:
            running.listener = Listener(running.netns)
        if self.supervisor is not None and running.filter >= 0:
            self.supervisor.watch(running.filter, disk_mounts(running.process))
            os.close(running.filter)
            running.filter = -1
        running.control.send(b"go")

    def _inside(self, boot: Boot, control: socket.socket) -> NoReturn:
        """PID 1's first steps, in the child."""
        try:
            _keep_only(control.fileno())
            root.build(self.disk, f"{self.disk.home}.root", str(uuid.uuid4()))
            init.become(boot, control)
        except Exception as error:  # noqa: BLE001 (the last frame of a process: it is said by the laboratory)
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, OSError):
                why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            control.send(json.dumps({"event": "failed", "text": why}).encode())
            os._exit(1)

    def wait_booted(self, timeout_s: float) -> None:
        """Until the late phase is over. Raises LabError when PID 1 could not be started or the time is over."""
        running = self.running
        if not self._pump(lambda: running.booted or self.stopped, timeout_s):
            raise LabError(f"{self.plan.name} did not finish booting within {timeout_s:g} s")

    def shutdown(self, timeout_s: float) -> float:
        """Stop services in order, then power off. Returns milliseconds."""
        began = time.monotonic()
        running = self.running
        running.control.send(json.dumps({"do": "shutdown"}).encode())
        try:
            self._pump(lambda: False, timeout_s, until_gone=True)
        finally:
            self._power_off()
        return (time.monotonic() - began) * 1000

    def crash(self) -> float:
        """Kill every process at once; the disk keeps what was written. Returns milliseconds."""
        began = time.monotonic()
        self._power_off()
        return (time.monotonic() - began) * 1000

    def _power_off(self) -> None:
        running = self.running
        self._running = None
        signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)  # the kernel ends the whole PID namespace with it
        os.waitpid(running.process, 0)
        for port in self.plan.ports:
            self._switches[port.network].detach(self.plan.name, port.name)
        running.close()

    # -- commands ------------------------------------------------------------------------------------------------

    def run(self, command: str, timeout_s: float) -> Completed:
        """A shell command, as root, in the machine; stdin is empty, stdout and stderr come back together."""
        return self.execute(["/bin/sh", "-c", command], timeout_s)

    def execute(self, words: Sequence[str], timeout_s: float) -> Completed:
        """A program in the machine, started by its PID 1 in a session of its own."""
        job = self.start(words)
        timed_out = not self.wait_for(job, timeout_s)
        return self.completed(job, timed_out)

    def start(self, words: Sequence[str]) -> Job:
        """As `execute`, but it is not waited for. End it by `completed`."""
        running = self.running
        self._jobs += 1
        output = init.new_output()
        message = json.dumps({"do": "exec", "job": self._jobs, "words": list(words)}).encode()
        socket.send_fds(running.control, [message], [output])
        return Job(self._jobs, output, time.monotonic())

    def wait_for(self, job: Job, timeout_s: float) -> bool:
        """Until it has ended, or everything stands still (`stopped`); False when the time is over."""
        running = self.running
        return self._pump(lambda: job.number in running.exits or self.stopped, timeout_s)

    def ended(self, job: Job) -> bool:
        """Whether it has ended, as far as was heard."""
        return job.number in self.running.exits

    def completed(self, job: Job, timed_out: bool = False) -> Completed:
        """What became of it; when it has timed out, it is killed."""
        running = self.running
        try:
            if timed_out:
                running.control.send(json.dumps({"do": "kill", "job": job.number}).encode())
                self._pump(lambda: job.number in running.exits, START_S)
            text = init.end_of(job.output, _SAID)
        finally:
            os.close(job.output)
        return Completed(running.exits.pop(job.number, -9), text, time.monotonic() - job.began, timed_out)

    def kill_all(self, number: int) -> None:
        """A signal to every process but PID 1, at once; what stood still before a point goes on, or dies."""
        running = self.running
        running.killed_all = False
        running.control.send(json.dumps({"do": "kill-all", "signal": number}).encode())
        if not self._pump(lambda: running.killed_all, START_S):
            raise LabError(f"PID 1 of {self.plan.name} sends no signal")
        if self.supervisor is not None:
            self.supervisor.disarm()
            self.supervisor.release(number)

    def on_terminal(self, words: Sequence[str]) -> tuple[int, int]:
        """Start a program on a new terminal of the machine (pts(4)); returns our end of it and the job's number."""
        running = self.running
        self._jobs += 1
        ours = os.open(self.path("/dev/pts/ptmx"), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(ours, _UNLOCK, struct.pack("i", 0))
        (number,) = struct.unpack("i", fcntl.ioctl(ours, _NUMBER, struct.pack("i", 0)))
        message = {"do": "exec", "job": self._jobs, "words": list(words), "terminal": f"/dev/pts/{number}"}
        running.control.send(json.dumps(message).encode())
        return ours, self._jobs

    def _pump(self, done: Callable[[], bool], timeout_s: float, until_gone: bool = False) -> bool:
        """Hear PID 1 out until `done()` (True) or the time is over (False)."""
        running = self.running
        deadline = time.monotonic() + timeout_s
        heard = [running.control] + ([self.supervisor.socket] if self.supervisor else [])
        while not done():
            left = deadline - time.monotonic()
            ready = select.select(heard, [], [], left)[0] if left > 0 else []
            if not ready:
                return False
            if self.supervisor is not None and self.supervisor.socket in ready:
                self.supervisor.hear()
            if running.control not in ready:
                continue
            data, fds, _, _ = socket.recv_fds(running.control, 1 << 20, 1)
            if not data:
                if until_gone:
                    return True
                raise LabError(f"PID 1 of {self.plan.name} is gone")
            for fd in fds:
                running.filter = fd
            self._hear(running, json.loads(data))
        return True

    def _hear(self, running: Running, message: Mapping[str, Any]) -> None:
        match message["event"]:
            case "ready":
                running.ready = True
            case "booted":
                running.booted = True
            case "killed-all":
                running.killed_all = True
            case "phase" if message["phase"] == "pre-network" and self.supervisor is not None:
                self.supervisor.disarm()
                running.control.send(b"on")
            case "exit":
                running.exits[message["job"]] = message["status"]
            case "failed":
                raise LabError(f"{self.plan.name} cannot boot: {message['text']}")
        self._tell(self.plan.name, message)

    # -- files ---------------------------------------------------------------------------------------------------

    def path(self, path: str) -> str:
        """A path of the running machine as one of the laboratory's. Links in it are those of the laboratory."""
        return f"/proc/{self.running.process}/root/{path.lstrip('/')}"


def _start(work: Callable[[], NoReturn]) -> int:
    """Fork PID 1 of a new machine: its namespaces are made by a process in between. Returns its process id."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        try:
            kernel.unshare(kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWPID | kernel.NEWNET)
            _own_clock()
            child = os.fork()
            if child == 0:
                work()
            os.write(writing, str(child).encode())
            os._exit(0)
        except OSError as error:
            os.write(writing, f"-{error}".encode())
        finally:
            sys.stderr.flush()
            os._exit(1)
    os.close(writing)
    text = os.read(reading, 4096).decode()  # one message, in one write
    os.close(reading)
    os.waitpid(between, 0)
    if not text.isdigit():
        raise LabError(f"no namespaces for a machine: {text.lstrip('-') or 'the process in between died'}")
    return int(text)


def _own_clock() -> None:
    """A time namespace (time_namespaces(7)) in which the machine has just been switched on.

    Where the kernel has none, or the laboratory itself runs in a machine (which may not set clocks), the monotonic
    and boot-time clocks run through a reboot; the boot id is new all the same.
    """
    try:
        kernel.unshare(kernel.NEWTIME)
        now, up = int(time.clock_gettime(time.CLOCK_MONOTONIC)), int(time.clock_gettime(time.CLOCK_BOOTTIME))
        with open("/proc/self/timens_offsets", "w", encoding="ascii") as offsets:
            offsets.write(f"monotonic {-now} 0\nboottime {-up} 0\n")
    except OSError:
        return


def _keep_only(kept: int) -> None:
    """Let go of all that the laboratory has open.

    The numbers stay taken (by /dev/null), so that no object left over from the laboratory can close a descriptor
    that is the machine's.
    """
    null = os.open("/dev/null", os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in (kept, null, 2):
            try:
                os.fstat(number)
            except OSError:
                continue  # the descriptor of the listing itself
            os.dup2(null, number, inheritable=number < 3)

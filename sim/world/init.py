"""PID 1 of a machine: a real reaper and service runner, in the machine's own namespaces.

It is forked from the laboratory, so that everything is loaded already and a boot costs milliseconds. It obeys the
laboratory over a socket pair (one JSON object a message, file descriptors beside it), runs the phases of a boot,
reaps every orphan, and lends its loaded interpreter to the programs of the embedded stack (`/run/sim/request`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sim.world import kernel, sysctls

REQUESTS = "/run/sim/request"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "container": "sim",
}
STOP_S = 5.0
"""How long a service, or the rest of the processes at shutdown, may take to stop after SIGTERM."""


_SAID = 1 << 15
"""Bytes of a phase's output that are told: each may take six in JSON, and a message must fit into a socket's buffer."""
LARGEST = 1 << 30
"""Bytes of a file in a machine, output of a command included: what prints without end must not take all memory."""


@dataclass(frozen=True)
class Phase:
    """One phase of a boot: a shell command (empty: nothing to do) and how long it may take."""

    name: str
    command: str
    timeout_s: float


@dataclass(frozen=True)
class Boot:
    """All that PID 1 has to know. Callables travel by fork, not by message."""

    hostname: str
    phases: Sequence[Phase]
    stop: Sequence[Phase]
    builtins: Mapping[str, Callable[[Sequence[str]], int]] = field(default_factory=dict)
    services: Mapping[str, Callable[[], None]] = field(default_factory=dict)  # started in the late phase
    sysctls: Mapping[str, str] = field(default_factory=dict)
    reading: bool = False  # the filter knows of calls that only read, too
    watched: bool = False  # under the filter of `sim.faults`; PID 1 then waits after the boot hook to be told "on"


class Init:
    """The event loop of PID 1. One thread; every wait is for an event, with a deadline."""

    def __init__(self, boot: Boot, control: socket.socket) -> None:
        self.boot = boot
        self.control = control
        self.exited: dict[int, int] = {}  # process -> exit status of those that somebody waits for
        self.waiting: dict[int, Callable[[int], None]] = {}  # process -> what to do when it ends
        self.jobs: dict[int, int] = {}  # the laboratory's job number -> process
        self.services: list[tuple[str, int]] = []
        self.selector = selectors.DefaultSelector()
        self.stopping = False

    def run(self) -> NoReturn:
        """Boot, serve, and end the machine by ending this process."""
        self._listen()
        self.say(event="up")
        for phase in self.boot.phases:
            self.run_phase(phase)
            if self.boot.watched and phase.name == "pre-network" and not self.control.recv(16):
                os._exit(1)
            if phase.name == "late":
                self._start_services()
        self.say(event="booted")
        while not self.stopping:
            self.turn(None)
        self._stop()

    def say(self, fds: Sequence[int] = (), **message: Any) -> None:
        """Send one message to the laboratory."""
        socket.send_fds(self.control, [json.dumps(message).encode()], list(fds))

    # -- the loop ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        os.mkfifo(REQUESTS, 0o600)
        requests = os.open(REQUESTS, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(reading, selectors.EVENT_READ, lambda: self._on_signal(reading))
        self.selector.register(requests, selectors.EVENT_READ, lambda: self._on_request(requests))
        self.selector.register(self.control, selectors.EVENT_READ, self._on_message)

    def turn(self, timeout_s: float | None) -> None:
        """Wait for the next events and handle them."""
        for key, _ in self.selector.select(timeout_s):
            key.data()

    def _on_signal(self, reading: int) -> None:
        try:
            os.read(reading, 512)
        except BlockingIOError:
            pass
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            then = self.waiting.pop(process, None)
            if then is not None:
                then(os.waitstatus_to_exitcode(status))

    def _on_message(self) -> None:
        data, fds, _, _ = socket.recv_fds(self.control, 1 << 20, 4)
        if not data:
            self.stopping = True  # the laboratory is gone; so are we in a moment
            return
        message = json.loads(data)
        match message["do"]:
            case "exec":
                self._exec(message, fds)
            case "kill":
                self._kill(self.jobs.get(message["job"], 0), signal.SIGKILL)
            case "kill-all":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, message["signal"])  # all but this process, at once
                self.say(event="killed-all")
            case "shutdown":
                self.stopping = True
        for fd in fds:
            os.close(fd)

    # -- processes -----------------------------------------------------------------------------------------------

    def start(self, words: list[str], output: int | str, then: Callable[[int], None]) -> int:
        """Start a program in a session of its own, its output to a file descriptor. Returns the process id.

        With the path of a terminal as `output` that is its input and output, and the terminal of its session.
        """
        standard, output = (("/dev/null", os.O_RDONLY), output) if isinstance(output, int) else ((output, os.O_RDWR), 0)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, *standard, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        process = os.posix_spawn(
            words[0], words, ENVIRONMENT, file_actions=actions, setsid=True, setsigdef=range(1, 32), setsigmask=[]
        )
        self.waiting[process] = then
        return process

    def fork(self, work: Callable[[], int], keep: Sequence[int], then: Callable[[int], None]) -> int:
        """Run a function of this interpreter in a child; `keep` are the descriptors for its stdout and stderr."""
        process = os.fork()
        if process:
            self.waiting[process] = then
            return process
        status = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(ENVIRONMENT)
            for standard, fd in enumerate(keep, start=1):
                os.dup2(fd, standard)
            sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            status = work()
        except BaseException:  # noqa: BLE001  # the last frame of a process
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(status & 0xFF)

    def _exec(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        job = message["job"]

        def ended(status: int) -> None:
            self.jobs.pop(job, None)
            self.say(event="exit", job=job, status=status)

        try:
            self.jobs[job] = self.start(message["words"], message.get("terminal") or fds[0], ended)
        except OSError as error:
            for fd in fds:
                os.write(fd, f"{message['words'][0]}: {error.strerror}\n".encode())
            self.say(event="exit", job=job, status=127)

    def _kill(self, session: int, number: int) -> None:
        if session > 1:
            for target in (-session, session):
                try:
                    os.kill(target, number)
                except ProcessLookupError:
                    continue

    def _on_request(self, requests: int) -> None:
        """A program of the embedded stack: `PID NUL NAME NUL COUNT NUL ARGUMENT NUL …`, in one write to a fifo."""
        data = os.read(requests, 1 << 16)
        words = [os.fsdecode(word) for word in data.split(b"\0")[:-1]]
        try:
            while words:
                process, name, count = int(words[0]), words[1], int(words[2])
                self._lend(process, name, words[3 : 3 + count])
                del words[: 3 + count]
        except (ValueError, IndexError, OverflowError):
            self.say(event="note", text=f"{REQUESTS}: no request: {data[:200]!r}")

    def _lend(self, process: int, name: str, arguments: list[str]) -> None:
        reply = f"/run/sim/reply.{process}"
        program = self.boot.builtins.get(name)
        try:
            outputs = [kernel.fd_of(process, 3), kernel.fd_of(process, 2)]
        except OSError:
            return  # the caller is gone
        if program is None:
            os.write(outputs[1], f"{name}: no such program in this machine\n".encode())
            self._answer(reply, 127)
        else:
            self.fork(lambda: program(arguments), outputs, lambda status: self._answer(reply, status))
        for fd in outputs:
            os.close(fd)

    def _answer(self, reply: str, status: int) -> None:
        """A caller that died leaves nobody at the other end: nothing to do then."""
        try:
            fd = os.open(reply, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return
            raise
        with os.fdopen(fd, "wb") as out:
            out.write(b"%d\n" % (status if status >= 0 else 128 - status))

    # -- phases --------------------------------------------------------------------------------------------------

    def run_phase(self, phase: Phase) -> None:
        """Run one phase to its end or its time-out; the boot goes on in either case (networking always starts)."""
        began = time.monotonic()
        status, why = 0, ""
        output = new_output()
        if phase.command:
            process = self.start(["/bin/sh", "-c", phase.command], output, lambda code: self._ended(process, code))
            if not self.wait_for([process], phase.timeout_s):
                why = f"cut off after {phase.timeout_s:g} s"
                self._kill(process, signal.SIGKILL)
                self.wait_for([process], STOP_S)
            status = self.exited.pop(process, -signal.SIGKILL)
        text = end_of(output, _SAID)
        os.close(output)
        self.say(
            event="phase",
            phase=phase.name,
            command=phase.command,
            status=status,
            milliseconds=round((time.monotonic() - began) * 1000, 3),
            output=text,
            why=why,
        )

    def _ended(self, process: int, status: int) -> None:
        self.exited[process] = status

    def wait_for(self, processes: Sequence[int], timeout_s: float) -> bool:
        """Serve until all of these have ended (True) or the time is over (False)."""
        deadline = time.monotonic() + timeout_s
        while not all(process in self.exited for process in processes):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.turn(left)
        return True

    def _start_services(self) -> None:
        for name, service in self.boot.services.items():

            def work(service: Callable[[], None] = service) -> int:
                service()
                return 0

            process = self.fork(work, [], functools.partial(self._service_ended, name))
            self.services.append((name, process))

    def _service_ended(self, name: str, status: int) -> None:
        process = dict(self.services).get(name, 0)
        self.exited[process] = status
        if not self.stopping:
            self.say(event="note", text=f"service {name} ended with status {status}")

    def _stop(self) -> NoReturn:
        """Shutdown: services in reverse order, the stack, everything that is left."""
        for _, process in reversed(self.services):
            if process not in self.exited:
                self._kill(process, signal.SIGTERM)
                if not self.wait_for([process], STOP_S):
                    self._kill(process, signal.SIGKILL)
        for phase in self.boot.stop:
            self.run_phase(phase)
        if self._others():
            os.kill(-1, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while self._others() and time.monotonic() < deadline:
                self.turn(max(0.0, deadline - time.monotonic()))
        self.say(event="stopped")
        os._exit(0)  # the kernel kills what is left in this PID namespace

    def _others(self) -> bool:
        """Whether any other process is left. (Kernel threads are in no PID namespace but the first.)"""
        return any(name.isdigit() and name != "1" for name in os.listdir("/proc"))


def new_output() -> int:
    """A descriptor for what a program says. Appended to: a program may open /dev/stderr anew, and start at 0."""
    descriptor = os.memfd_create("output", os.MFD_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def end_of(output: int, most: int) -> str:
    """The last bytes of what a program said, in characters: there is what it failed of."""
    return os.pread(output, most, max(0, os.fstat(output).st_size - most)).decode("utf-8", "replace")


def become(boot: Boot, control: socket.socket) -> NoReturn:
    """From the fresh namespaces to a running system. The root is built already; never returns."""
    socket.sethostname(boot.hostname)
    sysctls.reset()
    sysctls.apply_files("/")
    sysctls.write(boot.sysctls)
    sysctls.loopback_up()
    kernel.drop_capabilities(kernel.FORBIDDEN)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    fds = []
    if boot.watched:
        from sim.faults import filter as seccomp  # only then is libseccomp needed

        fds = [seccomp.load(boot.reading)]
    socket.send_fds(control, [json.dumps({"event": "ready"}).encode()], fds)
    for fd in fds:
        os.close(fd)
    if control.recv(16) != b"go":
        os._exit(1)
    Init(boot, control).run()

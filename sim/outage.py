"""How long a flow was out: a process that sends every measured flow a probe each millisecond while anything changes.

It is forked from the laboratory before any machine is made, so that it holds nothing of theirs, and dies with it. It
alone keeps the beat: the laboratory is busy with the very change that is measured. Sockets are opened in the sender's
network namespace, and anew after each boot. ICMP echo, or UDP for udp flows; for tcp flows ICMP echo to the same
address stands in, and a connection can be held open besides. Answers to ICMP come from the kernel, in the time of
whoever sent: a machine that is busy does not look like one that is out of reach.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import itertools
import json
import os
import select
import socket
import struct
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sim.errors import LabError
from sim.probe import (
    ERRNO,
    ICMP_REDIRECT,
    MSG_ERRQUEUE,
    ORIGIN_ICMP,
    ORIGIN_ICMP6,
    Target,
    icmp_reason,
    open_socket,
)
from sim.scenario import Flow
from sim.world import assistant, kernel

INTERVAL_S = 0.001
CALM_S = 0.003
"""While nothing changes: the laboratory only looks at what it has broken."""
LATE_S = 0.005
"""A gap between two probes that is worth a word: an outage may be longer or shorter by so much."""
PATIENCE_S = 1.0
"""An answer that took longer is none (the usual patience of ping)."""
GRACE_S = 0.2
"""How long the last answers may take, when all is over."""
CONNECT_S = 1.0
ECHO_S = 3.0
"""How long a held connection may take to pass bytes in the end: a retransmission or two (RFC 6298)."""
GUESS_S = 0.01

_SIOCGIFFLAGS = 0x8913  # netdevice(7)
_UP, _RUNNING = 0x1, 0x40
_WORDS = b"still there?"


@dataclass(frozen=True)
class Measured:
    """A flow to measure. `near`, `far`: the ports of its two ends that it needs, as far as names can tell.

    `by`: what is sent, icmp or udp. `held`: the TCP port of a connection that is to live through all of it, 0: none.
    """

    key: str
    family: str  # v4 | v6
    source: str
    destination: str
    address: str
    by: str = "icmp"
    port: int = 0
    size: int | None = None
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    held: int = 0


@dataclass(frozen=True)
class Window:
    """A step, or (None) the whole of what was measured; seconds of CLOCK_MONOTONIC."""

    step: int | None
    begin: float
    end: float


@dataclass(frozen=True)
class Row:
    """What one flow saw in one window. `outage_ms`: from the first lost probe to the next that came back, within it."""

    key: str
    family: str
    step: int | None
    sent: int
    lost: int
    outage_ms: float
    reason: str
    late_ms: float
    by: str


@dataclass(frozen=True)
class Held:
    """What became of a held connection: alive, broken, or ended (a machine at one of its ends went down)."""

    key: str
    family: str
    outcome: Literal["alive", "broken", "ended", "unknown"]
    detail: str


def measured(target: Target, ports: Mapping[str, Mapping[str, str]], held: bool = False) -> Measured | None:
    """How a flow is measured; None for one that cannot be. `ports`: machine -> port -> network."""
    flow = target.flow
    if flow.protocol == "dns":
        return None
    ends = ports.get(flow.source, {}), ports.get(flow.destination, {})
    shared = set(ends[0].values()) & set(ends[1].values())
    near, far = (tuple(port for port, network in end.items() if not shared or network in shared) for end in ends)
    udp, tcp = flow.protocol == "udp", flow.protocol == "tcp"
    return Measured(
        target.key,
        target.family,
        flow.source,
        flow.destination,
        target.address,
        "udp" if udp else "icmp",
        (flow.port or 0) if udp else 0,
        None if tcp else flow.size,
        near,
        far,
        (flow.port or 0) if held and tcp else 0,
    )


# -- reading the record ------------------------------------------------------------------------------------------


@dataclass
class Record:
    """The probes of one flow: `came[i]` is 1 when the i-th came back in time; `reasons[i]`: what was heard of it."""

    came: bytearray = field(default_factory=bytearray)
    reasons: dict[int, str] = field(default_factory=dict)


def read(record: Record, times: Sequence[float], window: Window) -> tuple[int, int, float, str]:
    """(sent, lost, longest outage in milliseconds, most frequent reason) of the probes sent within a window."""
    first, last = bisect_left(times, window.begin), bisect_left(times, window.end)
    came, longest = record.came, 0.0
    here = came.find(0, first, last)
    while here >= 0:
        began = times[here] if here > first or not first or came[first - 1] else window.begin
        again = came.find(1, here)
        ended = min(times[again], window.end) if again >= 0 else window.end
        longest = max(longest, ended - began)
        here = came.find(0, again, last) if 0 <= again < last else -1
    lost = came.count(0, first, last)
    told = Counter(reason for i in range(first, last) if not came[i] and (reason := record.reasons.get(i)))
    # most of what is lost vanishes without a word: what was told of the rest is the reason of all
    reason = max(told, key=lambda word: told[word]) if told else "timeout" if lost else ""
    return last - first, lost, round(longest * 1000, 1), reason


def lateness(times: Sequence[float], window: Window) -> float:
    """The longest pause of the probes themselves that touches a window, milliseconds; 0 where none is worth a word."""
    first, last = bisect_left(times, window.begin), bisect_left(times, window.end)
    seen = [window.begin, *times[first:last], window.end] if first < last else [window.begin, window.end]
    gap = max((after - before for before, after in itertools.pairwise(seen)), default=0.0)
    return round(gap * 1000, 1) if gap > LATE_S else 0.0


# -- the laboratory's end ------------------------------------------------------------------------------------------


class Meter:
    """Fork it before a `Lab` is made. Raises LabError when its process is gone."""

    def __init__(self) -> None:
        self.process, self.socket = assistant.start(_measure)
        self.began: float | None = None

    def on(self, machine: str, netns: int) -> None:
        """A machine was powered on: its network namespace."""
        self._say({"do": "on", "machine": machine}, [netns])

    def off(self, machine: str) -> None:
        """A machine is about to go down: let go of its namespace."""
        self._say({"do": "off", "machine": machine})

    def start(self, flows: Iterable[Measured]) -> None:
        """Measure from now on."""
        self._say({"do": "start", "flows": [asdict(flow) for flow in flows]})
        self._hear()
        self.began = time.monotonic()

    def pace(self, calm: bool) -> None:
        """Whether nothing is changed at present."""
        self._say({"do": "pace", "interval": CALM_S if calm else INTERVAL_S})

    def report(self, windows: Sequence[Window]) -> tuple[list[Row], list[Held]]:
        """Stop, and say what was seen: a row for each flow and window."""
        self._say({"do": "report", "windows": [asdict(window) for window in windows]})
        rows: list[Row] = []
        while True:
            message = self._hear()
            rows += [Row(**row) for row in message["rows"]]
            if message["last"]:
                return rows, [Held(**held) for held in message["held"]]

    def close(self) -> None:
        """End it."""
        self.socket.close()
        os.waitpid(self.process, 0)

    def _say(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self.socket, [json.dumps(message).encode()], list(fds))
        except OSError as error:
            raise LabError("the process that measures outages is gone") from error

    def _hear(self) -> Any:
        data = self.socket.recv(1 << 20)
        if not data:
            raise LabError("the process that measures outages is gone")
        return json.loads(data)


# -- its own process -----------------------------------------------------------------------------------------------


def _measure(control: socket.socket) -> None:
    """Before all others, where that is allowed (sched(7)); no pauses for garbage."""
    gc.disable()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    _Loop(control).run()


@dataclass
class _Place:
    """A machine that is on: its namespace, and a socket in it to ask about its interfaces."""

    netns: int
    asking: socket.socket

    def running(self, ports: Iterable[str]) -> bool:
        """Whether any of these interfaces is up and has a carrier."""
        for port in ports:
            try:
                answer = fcntl.ioctl(self.asking, _SIOCGIFFLAGS, struct.pack("16sH14x", port.encode(), 0))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    return True
                continue
            if struct.unpack_from("H", answer, 16)[0] & (_UP | _RUNNING) == _UP | _RUNNING:
                return True
        return False

    def has(self, address: str) -> bool:
        """Whether an address is one of its own: only such can be bound."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with kernel.inside(self.netns), socket.socket(family, socket.SOCK_DGRAM) as trial:
            try:
                trial.bind((address, 0))
            except OSError:
                return False
        return True

    def close(self) -> None:
        self.asking.close()
        os.close(self.netns)


class _Series:
    """The probes of one flow."""

    def __init__(self, flow: Measured) -> None:
        self.flow = flow
        self.record = Record()
        self.sock: socket.socket | None = None
        self.waiting = 0  # probes without an answer: while it is 0 nobody has to be asked
        self.guess, self.guessed = "", 0.0
        self.to = (flow.address, flow.port)
        size = 16 if flow.size is None else flow.size
        kind = 8 if flow.family == "v4" else 128
        header = struct.pack("!BBHHH", kind, 0, 0, 0, 0) if flow.by == "icmp" else b""
        self.payload = bytearray(header + b"s" * max(size, 0 if header else 4))
        self.at = 6 if header else 0

    def open(self, place: _Place) -> None:
        flow = Flow(self.flow.source, self.flow.destination, "udp" if self.flow.by == "udp" else "icmp")
        target = Target(self.flow.key, replace(flow, size=self.flow.size), self.flow.family, self.flow.address)
        with kernel.inside(place.netns):
            self.sock = open_socket(target, self.flow.address)
        self.waiting = 0

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def send(self, number: int) -> None:
        """One probe. The socket is not connected: each takes the route of its own moment."""
        self.record.came.append(0)
        if self.sock is None:
            self.record.reasons[number] = "link-down"  # the sender is off
            return
        struct.pack_into("!H", self.payload, self.at, number & 0xFFFF)
        self.waiting += 1
        for _ in range(2):  # the error of an earlier probe is reported here first
            try:
                self.sock.sendto(self.payload, self.to)
                return
            except BlockingIOError:
                return  # the queue to a neighbour that does not answer is full
            except OSError as error:
                self.record.reasons[number] = ERRNO.get(error.errno or 0, "timeout")
                self._errors(number)

    def hear(self, times: Sequence[float]) -> None:
        """Take in all answers and errors that are there."""
        if self.sock is None or not self.waiting:
            return
        number, now = len(times) - 1, time.monotonic()
        while self.waiting:
            try:
                data = self.sock.recv(16)
            except BlockingIOError:
                return
            except OSError:
                self._errors(number)
                continue
            index = self._which(data, number)
            if index is not None and now - times[index] <= PATIENCE_S:
                self.waiting -= not self.record.came[index]
                self.record.came[index] = 1

    def _which(self, data: bytes, number: int) -> int | None:
        """The probe that an answer, or an error's copy of it, belongs to: the last with these 16 bits."""
        if len(data) < self.at + 2:
            return None
        low = struct.unpack_from("!H", data, self.at)[0]
        index = number - ((number - low) & 0xFFFF)
        return index if index >= 0 else None

    def _errors(self, number: int) -> None:
        """The error queue (ip(7), IP_RECVERR) says of each probe who refused it."""
        while self.sock is not None:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(64, 512, MSG_ERRQUEUE)
            except OSError:
                return
            for _, _, item in ancillary:
                code, origin, kind, sub = struct.unpack_from("=IBBB", item)
                if origin in (ORIGIN_ICMP, ORIGIN_ICMP6):
                    reason = "" if (origin, kind) == (ORIGIN_ICMP, ICMP_REDIRECT) else icmp_reason(origin, kind, sub)
                    if reason == "refused" and self.flow.by == "icmp":
                        reason = "filtered"  # a ping has no port that could be closed
                else:
                    reason = ERRNO.get(code, "")
                index = self._which(data, number)
                if reason:
                    self.record.reasons[number if index is None else index] = reason

    def suspect(self, index: int, now: float, places: Mapping[str, _Place]) -> None:
        """A probe is out longer than usual: look whether both ends can be reached at all."""
        if now - self.guessed > GUESS_S:
            self.guessed, self.guess = now, self._look(places)
        if self.guess:
            self.record.reasons.setdefault(index, self.guess)
        if self.guess == "link-down":  # the cause of what the sender's own kernel said
            self.record.reasons[index] = self.guess

    def _look(self, places: Mapping[str, _Place]) -> str:
        here, there = places.get(self.flow.source), places.get(self.flow.destination)
        if here is None or (self.flow.near and not here.running(self.flow.near)):
            return "link-down"
        if there is None or (self.flow.far and not there.running(self.flow.far)) or not there.has(self.flow.address):
            return "neighbour-unreachable"
        return ""


class _Loop:
    """The beat."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.places: dict[str, _Place] = {}
        self.series: dict[tuple[Any, ...], _Series] = {}
        self.flows: list[tuple[Measured, _Series]] = []
        self.held: list[tuple[Measured, socket.socket | None, str]] = []
        self.times = array("d")
        self.beat: float | None = None
        self.interval = INTERVAL_S

    def run(self) -> None:
        """Until the laboratory has its report, or is gone."""
        while True:
            left = None if self.beat is None else max(0.0, self.beat - time.monotonic())
            if select.select([self.control], [], [], left)[0]:
                if not self._obey():
                    return
            elif self.beat is not None:
                now = time.monotonic()
                self._probe(now)
                self.beat = max(self.beat + self.interval, now)

    def _probe(self, now: float) -> None:
        number = len(self.times)
        self.times.append(now)
        for series in self.series.values():
            series.send(number)
        for series in self.series.values():
            series.hear(self.times)
            late = number - 2
            if late >= 0 and not series.record.came[late] and series.sock is not None:
                series.suspect(late, now, self.places)

    def _obey(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, 1 << 20, 1)
        if not data:
            return False
        message = json.loads(data)
        match message["do"]:
            case "on":
                self._on(message["machine"], fds[0])
            case "off":
                self._off(message["machine"])
            case "pace":
                self.interval = message["interval"]
                self.beat = None if self.beat is None else min(self.beat, time.monotonic() + self.interval)
            case "start":
                self._start([Measured(**_tuples(flow)) for flow in message["flows"]])
            case "report":
                self._report([Window(**window) for window in message["windows"]])
                return False
        return True

    def _on(self, machine: str, netns: int) -> None:
        with kernel.inside(netns):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.places[machine] = place = _Place(netns, asking)
        for series in self.series.values():
            if series.flow.source == machine:
                series.open(place)

    def _off(self, machine: str) -> None:
        for series in self.series.values():
            if series.flow.source == machine:
                series.hear(self.times)
                series.close()
        for number, (flow, sock, _) in enumerate(self.held):
            if sock is not None and machine in (flow.source, flow.destination):
                sock.close()
                self.held[number] = (flow, None, f"{machine} went down")
        place = self.places.pop(machine, None)
        if place is not None:
            place.close()

    def _start(self, flows: Sequence[Measured]) -> None:
        for flow in flows:
            same = (flow.source, flow.destination, flow.address, flow.by, flow.port, flow.size)
            if same not in self.series:
                self.series[same] = _Series(flow)
                if flow.source in self.places:
                    self.series[same].open(self.places[flow.source])
            self.flows.append((flow, self.series[same]))
            if flow.held and flow.source in self.places:
                self.held.append((flow, *self._connected(flow, self.places[flow.source])))
        self.beat = time.monotonic()
        self.control.send(b"{}")

    def _connected(self, flow: Measured, place: _Place) -> tuple[socket.socket | None, str]:
        family = socket.AF_INET if flow.family == "v4" else socket.AF_INET6
        with kernel.inside(place.netns):
            sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_S)
        try:
            sock.connect((flow.address, flow.held))
        except OSError as error:
            sock.close()
            return None, f"it could not be opened: {error.strerror or error}"
        why = _echo(sock, CONNECT_S)
        if why:
            sock.close()
            return None, f"whoever listens there sends nothing back ({why})"
        return sock, ""

    def _report(self, windows: Sequence[Window]) -> None:
        self.beat = None
        self._last_answers()
        late = {window: lateness(self.times, window) for window in windows}
        held = [self._ended(*one) for one in self.held]
        # a message for each flow: one for all could be larger than a message may be
        for number, (flow, series) in enumerate(self.flows):
            rows = [
                Row(flow.key, flow.family, window.step, *read(series.record, self.times, window), late[window], flow.by)
                for window in windows
            ]
            last = number == len(self.flows) - 1
            answer = {"rows": [asdict(row) for row in rows], "held": [asdict(h) for h in held if last], "last": last}
            self.control.send(json.dumps(answer).encode())

    def _last_answers(self) -> None:
        deadline = time.monotonic() + GRACE_S
        while (left := deadline - time.monotonic()) > 0:
            out = {
                series.sock: series
                for series in self.series.values()
                if series.sock is not None and series.record.came and not series.record.came[-1]
            }
            if not out:
                return
            for sock in select.select(list(out), [], [], left)[0]:
                out[sock].hear(self.times)

    def _ended(self, flow: Measured, sock: socket.socket | None, why: str) -> Held:
        if sock is None:
            return Held(flow.key, flow.family, "ended" if why.endswith("went down") else "unknown", why)
        why = _echo(sock, ECHO_S)
        return Held(flow.key, flow.family, "broken" if why else "alive", why)


def _tuples(flow: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in flow.items()}


def _echo(sock: socket.socket, timeout_s: float) -> str:
    """Send a few bytes and wait until they come back; why they did not, or nothing."""
    sock.settimeout(timeout_s)
    got = b""
    try:
        sock.sendall(_WORDS)
        while len(got) < len(_WORDS):
            data = sock.recv(len(_WORDS) - len(got))
            if not data:
                return "the other end has closed it"
            got += data
    except TimeoutError:
        return f"no bytes came back within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return "" if got == _WORDS else "other bytes came back"

"""Probes: does this host still reach what it has to reach?

A probe is written as `KIND:…` (see `KINDS`). It is measured in a thread of its own, with a deadline: what hangs in a
resolver or a connect is a probe that failed, and keeps nobody waiting.

Sources: icmp(7), ip(7), ipv6(7), sock_diag(7), proc(5), RFC 1035 section 4, RFC 792, RFC 4443.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from abc import ABC, abstractmethod

from snapcore.errors import Usage
from snapcore.files import shown
from snapcore.values import NamedTuple
from snapcore.words import parent, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE_S = 5.0
"""How long one probe may take."""
AGAIN_S = 1.0
"""After this long without an answer a datagram is sent again."""
ANSWER_BYTES = 65535

KINDS = {
    "ping": "ping:HOST[,size=BYTES]",
    "tcp": "tcp:HOST:PORT",
    "dns": "dns:NAME[@SERVER]",
    "http": "http://…",
    "https": "https://…",
    "route": "route:default",
    "client": "client",
    "exec": "exec:COMMAND",
}


class Failed(Exception):
    """The probe did not get through; why, in a few words."""


class Result(NamedTuple):
    """What one probe has found."""

    spec: str
    passed: bool
    words: str
    """Why not; or what was seen."""


class Probe(ABC):
    """One probe. `measure` returns what it saw, or raises `Failed` or `OSError`."""

    def __init__(self, spec: str, value: str) -> None:
        self.spec = spec
        self.value = value

    @abstractmethod
    def measure(self, until: float) -> str:
        """`until`: time.monotonic() by which it has to be done."""

    def _wrong(self, what: str) -> Usage:
        return Usage(f"probe {shown(self.spec)}: {what}; valid: {KINDS[self.spec.partition(':')[0]]}")

    def _port(self, text: str) -> int:
        port = whole(text, 65535)
        if port < 1:
            raise self._wrong(f"{text!r} is no port (1 to 65535)")
        return port


def parse(spec: str, provoke: Callable[[], None] | None = None) -> Probe:
    """The probe that a specification means; `Usage` names what would be valid.

    `provoke` makes the client's connection carry something, see `Client`.
    """
    kind, colon, value = spec.partition(":")
    made: dict[str, Callable[[], Probe]] = {
        "ping": lambda: Ping(spec, value),
        "tcp": lambda: Tcp(spec, value),
        "dns": lambda: Dns(spec, value),
        "http": lambda: Http(spec, value),
        "https": lambda: Http(spec, value),
        "route": lambda: Route(spec, value),
        "client": lambda: Client(spec, value, provoke),
        "exec": lambda: Exec(spec, value),
    }
    if kind not in made:
        raise Usage(f"probe {shown(spec)!r}: valid: {', '.join(KINDS.values())}")
    if bool(colon) != (kind != "client"):
        raise Usage(f"probe {shown(spec)}: valid: {KINDS[kind]}")
    return made[kind]()


def start(probe: Probe, limit_s: float, done: Callable[[Probe, Result], None]) -> None:
    """Measures in a thread of its own; `done` is called from there.

    The thread is a daemon: who has waited long enough goes on without it.
    """
    import threading

    until = time.monotonic() + limit_s
    try:
        threading.Thread(target=lambda: done(probe, measured(probe, until)), daemon=True).start()
    except RuntimeError as error:  # there are as many as may be
        done(probe, Result(probe.spec, False, str(error)))


def measured(probe: Probe, until: float) -> Result:
    try:
        return Result(probe.spec, True, probe.measure(until))
    except Failed as error:
        return Result(probe.spec, False, str(error))
    except (OSError, UnicodeError) as error:  # UnicodeError: names that are no names, from the codec `idna`
        return Result(probe.spec, False, _why(error))


def _why(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"no such name ({error.strerror})"
    if isinstance(error, socket.timeout):
        return "no answer"
    return getattr(error, "strerror", None) or str(error)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise Failed("no answer")
    return left


def _host_port(text: str) -> tuple[str, str]:
    """`HOST:PORT`, `[ADDRESS]:PORT`; the port '' where there is none."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else rest
    host, _, port = text.rpartition(":") if text.count(":") == 1 else (text, "", "")
    return host, port


def _addresses(host: str, port: int, kind: int) -> Iterator[tuple[int, tuple[object, ...]]]:
    """(family, address) of a name, in the order in which they are to be tried."""
    seen = set()
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=kind):
        if address not in seen:
            seen.add(address)
            yield family, address


class Tcp(Probe):
    """A connection is accepted."""

    def __init__(self, spec: str, value: str) -> None:
        super().__init__(spec, value)
        self.host, port = _host_port(value)
        if not self.host or not port:
            raise self._wrong("a host and a port are wanted")
        self.port = self._port(port)

    def measure(self, until: float) -> str:
        with socket.create_connection((self.host, self.port), _left(until)) as connection:
            return f"connected to {connection.getpeername()[0]}"


class Http(Probe):
    """A page is given: any status below 400, redirections followed, no proxy."""

    def __init__(self, spec: str, value: str) -> None:
        super().__init__(spec, value)
        if not value.startswith("//") or not value[2:].strip("/") or any(c.isspace() for c in value):
            raise self._wrong("a URL is wanted")

    def measure(self, until: float) -> str:
        import http.client
        import urllib.error
        import urllib.request

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.spec, timeout=_left(until)) as answer:
                return f"status {answer.status}"
        except urllib.error.HTTPError as error:
            raise Failed(f"status {error.code}") from None
        except urllib.error.URLError as error:
            reason = error.reason
            raise Failed(_why(reason) if isinstance(reason, Exception) else str(reason)) from None
        except (http.client.HTTPException, ValueError) as error:
            raise Failed(f"no answer that makes sense: {error!r}") from None


class Exec(Probe):
    """A shell command ends with 0. It may take as long as the probe; then its process group is killed."""

    def __init__(self, spec: str, value: str) -> None:
        super().__init__(spec, value)
        if not value.strip():
            raise self._wrong("a command is wanted")

    def measure(self, until: float) -> str:
        import signal
        import subprocess

        process = subprocess.Popen(
            ["/bin/sh", "-c", self.value],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(_left(until))
        except (subprocess.TimeoutExpired, Failed):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise Failed("not done in time") from None
        if status:
            raise Failed(f"exit status {status}")
        return "exit status 0"


class Route(Probe):
    """There is a default route: in each family that had one when this was first measured, or in any."""

    def __init__(self, spec: str, value: str) -> None:
        super().__init__(spec, value)
        if value != "default":
            raise self._wrong(f"{value!r} is unknown")
        self.wanted: frozenset[str] = frozenset()

    def measure(self, until: float) -> str:
        found = default_routes()
        missing = self.wanted - found
        if missing or not found:
            raise Failed(f"no default route{' for ' + ', '.join(sorted(missing)) if missing else ''}")
        self.wanted = self.wanted or found
        return f"there is one for {', '.join(sorted(found))}"


_RTF_UP, _RTF_REJECT = 0x1, 0x200  # linux/route.h


def default_routes(folder: str = "/proc/net") -> frozenset[str]:
    """The families (IPv4, IPv6) with a default route that leads somewhere."""
    found = set()
    for line in _lines(f"{folder}/route"):
        words = line.split()
        flags = int(words[3], 16) if words[3:] and words[0] != "Iface" else 0
        if flags & _RTF_UP and not flags & _RTF_REJECT and words[1] == words[7] == "00000000":
            found.add("IPv4")
    for line in _lines(f"{folder}/ipv6_route"):
        words = line.split()
        if words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo" and not int(words[8], 16) & _RTF_REJECT:
            found.add("IPv6")
    return frozenset(found)


def _lines(path: str) -> list[str]:
    """A table of the kernel; [] where it has none (no IPv6)."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # a device has any name
            return file.readlines()
    except FileNotFoundError:
        return []


# ping


class _Icmp(NamedTuple):
    protocol: int
    request: int
    reply: int
    discover: int
    """The option by which fragments are forbidden (IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: linux/in.h, linux/in6.h)."""
    level: int


_ICMP = {
    socket.AF_INET: _Icmp(socket.IPPROTO_ICMP, 8, 0, 10, socket.IPPROTO_IP),
    socket.AF_INET6: _Icmp(socket.IPPROTO_ICMPV6, 128, 129, 23, socket.IPPROTO_IPV6),
}
_PMTUDISC_DO = 2


class Ping(Probe):
    """An echo comes back, with `size` bytes of data in one unfragmented packet."""

    def __init__(self, spec: str, value: str) -> None:
        super().__init__(spec, value)
        self.host, *options = value.split(",")
        self.host = self.host.strip("[]")
        self.size = 56
        if not self.host:
            raise self._wrong("a host is wanted")
        for option in options:
            name, _, number = option.partition("=")
            self.size = whole(number, 65000)
            if name != "size" or self.size < 0:
                raise self._wrong(f"{option!r} is unknown (0 to 65000 bytes)")

    def measure(self, until: float) -> str:
        problem: Exception = Failed("no address")
        addresses = list(_addresses(self.host, 0, socket.SOCK_DGRAM))
        for number, (family, address) in enumerate(addresses):
            try:
                self._echo(family, address, time.monotonic() + _left(until) / (len(addresses) - number))
                return f"an answer from {address[0]}"
            except (OSError, Failed) as error:
                problem = error
        raise problem

    def _echo(self, family: int, address: tuple[object, ...], until: float) -> None:
        kind = _ICMP[socket.AddressFamily(family)]
        identifier = int.from_bytes(os.urandom(2), "big")
        data = os.urandom(min(16, self.size)).ljust(self.size, b"\x5a")
        with _icmp_socket(family, kind.protocol) as echo:
            echo.setsockopt(kind.level, kind.discover, _PMTUDISC_DO)
            number = 0
            while True:
                number += 1
                echo.sendto(_echo_request(kind, identifier, number, data), address)
                try:
                    if self._answered(echo, kind, data, min(until, time.monotonic() + AGAIN_S)):
                        return
                except (socket.timeout, Failed):
                    _left(until)

    @staticmethod
    def _answered(echo: socket.socket, kind: _Icmp, data: bytes, until: float) -> bool:
        """Whether what comes back is our data (the kernel, or a raw socket, may have another identifier)."""
        while True:
            echo.settimeout(_left(until))
            packet = echo.recv(ANSWER_BYTES)
            if kind.protocol == socket.IPPROTO_ICMP and packet[:1] and packet[0] >> 4 == 4:  # of a raw socket
                packet = packet[(packet[0] & 15) * 4 :]
            if packet[:1] == bytes([kind.reply]) and packet[8:] == data:
                return True


def _icmp_socket(family: int, protocol: int) -> socket.socket:
    """One that needs no privilege where the host allows that (net.ipv4.ping_group_range), else a raw one."""
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        return socket.socket(family, socket.SOCK_RAW, protocol)


def _echo_request(kind: _Icmp, identifier: int, number: int, data: bytes) -> bytes:
    """With its checksum, which for ICMPv6 the kernel computes."""
    head = struct.pack("!BBHHH", kind.request, 0, 0, identifier, number & 0xFFFF)
    if kind.protocol != socket.IPPROTO_ICMP:
        return head + data
    packet = head + data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", kind.request, 0, total, identifier, number & 0xFFFF) + data


# dns

_TYPES = {1: "A", 28: "AAAA"}
_RCODES = {1: "format error", 2: "server failure", 3: "no such name", 4: "not implemented", 5: "refused"}


class Dns(Probe):
    """A name server gives an address (A or AAAA) of a name. Without SERVER: any of /etc/resolv.conf."""

    def __init__(self, spec: str, value: str) -> None:
        super().__init__(spec, value)
        name, at, self.server = value.partition("@")
        try:
            labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
        except UnicodeError:
            labels = []
        if not labels or not all(0 < len(label) < 64 for label in labels) or sum(map(len, labels)) > 240:
            raise self._wrong(f"{name!r} is no name")
        if at and not self.server:
            raise self._wrong("a server is wanted behind @")
        self.name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"

    def measure(self, until: float) -> str:
        servers = [self.server.strip("[]")] if self.server else name_servers()
        if not servers:
            raise Failed("/etc/resolv.conf names no server")
        problem: Exception = Failed("no answer")
        for number, server in enumerate(servers):
            share = time.monotonic() + _left(until) / (len(servers) - number)
            try:
                addresses = list(_addresses(server, 53, socket.SOCK_DGRAM))
            except OSError as error:  # of a device that is gone (fe80::1%eth1), or not an address at all
                problem = error
                continue
            for family, address in addresses:
                try:
                    return f"{self._ask(family, address, share)} from {server}"
                except (OSError, Failed) as error:
                    problem = error
        raise problem

    def _ask(self, family: int, address: tuple[object, ...], until: float) -> str:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect(address)
            return self._first(asking, until)

    def _first(self, asking: socket.socket, until: float) -> str:
        """The first answer with an address. Both types are asked for, again and again."""
        questions = {int.from_bytes(os.urandom(2), "big"): number for number in _TYPES}
        problems: dict[int, str] = {}
        while len(problems) < len(questions):
            for identifier, number in questions.items():
                if identifier not in problems:
                    head = struct.pack("!HHHHHH", identifier, 0x0100, 1, 0, 0, 0)  # recursion desired
                    asking.send(head + self.name + struct.pack("!HH", number, 1))
            again = min(until, time.monotonic() + AGAIN_S)
            try:
                while len(problems) < len(questions):
                    asking.settimeout(_left(again))
                    answer = asking.recv(ANSWER_BYTES)
                    identifier = int.from_bytes(answer[:2], "big")
                    if len(answer) >= 12 and answer[2] & 0x80 and identifier in questions:
                        problem = _refusal(answer, questions[identifier])
                        if not problem:
                            return f"an {_TYPES[questions[identifier]]} record"
                        problems[identifier] = problem
            except (socket.timeout, Failed):
                _left(until)
        raise Failed(next((text for text in problems.values() if text != "no address"), "no address"))


def _refusal(answer: bytes, wanted: int) -> str:
    """Why an answer is no good; ''. It is where it has a record of the type `wanted`: an alias alone is no address."""
    code = answer[3] & 15
    if code:
        return _RCODES.get(code, f"code {code}")
    questions, records = struct.unpack("!HH", answer[4:8])
    try:
        at = 12
        for _ in range(questions):
            at = _behind_name(answer, at) + 4
        for _ in range(records):
            at = _behind_name(answer, at)
            kind, _, _, length = struct.unpack_from("!HHIH", answer, at)
            if kind == wanted:
                return ""
            at += 10 + length
    except (IndexError, struct.error):
        pass  # torn
    return "no address"


def _behind_name(answer: bytes, at: int) -> int:
    """Where a name ends: after an empty label, or a pointer to the rest of it (RFC 1035, section 4.1.4)."""
    while answer[at]:
        if answer[at] & 0xC0:
            return at + 2
        at += 1 + answer[at]
    return at + 1


def name_servers(path: str = "/etc/resolv.conf") -> list[str]:
    """The servers of resolv.conf(5)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return []
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]


# client

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_INET_DIAG_INFO = 2
_ESTABLISHED, _LISTEN = 1, 10
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_REPLY_BYTES = 72  # struct inet_diag_msg
_BYTES_ACKED = 120  # of struct tcp_info; total_retrans stands at 100
_LOOK_S = 0.1


class Connection(NamedTuple):
    """A TCP connection of this host."""

    local: tuple[str, int]
    remote: tuple[str, int]

    def __str__(self) -> str:
        return f"from {self.remote[0]} port {self.remote[1]}"


class Progress(NamedTuple):
    """How far a connection has come."""

    state: int
    retransmits: int
    """Timeouts in a row without an acknowledgement."""
    unacked: int
    """Segments that wait for one."""
    acked: int
    """Bytes that the other side has acknowledged."""


class Client(Probe):
    """The TCP connection that this session came by still makes progress: the other side acknowledges what we send.

    A connection over which nothing is sent says nothing about itself: so `provoke` has something sent.
    """

    def __init__(self, spec: str, value: str, provoke: Callable[[], None] | None = None) -> None:
        super().__init__(spec, value)
        self.connection = client_connection()
        self.provoke = provoke

    def measure(self, until: float) -> str:
        if self.connection is None:
            raise Failed("this session came by no TCP connection")
        before = now = self._progress()
        if self.provoke is not None:
            self.provoke()
        while now.acked == before.acked:
            if time.monotonic() >= until:
                break
            _pause(min(_LOOK_S, _left(until)))
            now = self._progress()
        if now.acked > before.acked:
            return f"{self.connection}: {now.acked - before.acked} bytes acknowledged"
        if now.unacked or now.retransmits:
            raise Failed(f"{self.connection}: nothing is acknowledged ({now.retransmits} timeouts in a row)")
        raise Failed(f"{self.connection}: is idle, which says nothing")

    def _progress(self) -> Progress:
        assert self.connection is not None
        found = progress(self.connection)
        if found is None or found.state != _ESTABLISHED:
            raise Failed(f"{self.connection}: is closed")
        return found


def _pause(seconds: float) -> None:
    """There is nothing to wait on: the kernel tells of no acknowledgement. So it is looked at again and again."""
    import select

    select.poll().poll(seconds * 1000)


def progress(connection: Connection) -> Progress | None:
    """What the kernel knows of a connection; None when there is none. `Failed` where it can't be asked.

    One that is bound to a device (by a link-local address, or in a VRF) is found by that alone: each is tried.
    """
    for index in (0, *(index for index, _ in socket.if_nameindex())):
        found = _progress_on(connection, index)
        if found is not None:
            return found
    return None


def _progress_on(connection: Connection, index: int) -> Progress | None:
    family = socket.AF_INET6 if ":" in connection.local[0] else socket.AF_INET
    sides = [socket.inet_pton(family, address).ljust(16, b"\0") for address, _ in (connection.local, connection.remote)]
    question = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0xFFFFFFFF)
    question += struct.pack("!HH", connection.local[1], connection.remote[1])
    question += sides[0] + sides[1] + struct.pack("=III", index, 0xFFFFFFFF, 0xFFFFFFFF)  # no cookie
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(PROBE_S)
        head = _MESSAGE.pack(_MESSAGE.size + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
        kernel.sendto(head + question, (0, 0))
        answer = kernel.recv(ANSWER_BYTES)
    length, kind, _, _, _ = _MESSAGE.unpack_from(answer)
    body = answer[_MESSAGE.size : length]
    if kind == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", body)[0]
        if number == errno.ENOENT:
            return None
        raise Failed(f"the kernel does not tell of connections: {os.strerror(number)}")
    return _tcp_info(body[1], body[_REPLY_BYTES:])


def _tcp_info(state: int, attributes: bytes) -> Progress:
    """From the attribute INET_DIAG_INFO, a struct tcp_info (linux/tcp.h), which has grown with time."""
    at = 0
    while at + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if length < 4:
            break
        info = attributes[at + 4 : at + length]
        if kind == _INET_DIAG_INFO and len(info) >= _BYTES_ACKED + 8:
            (unacked,) = struct.unpack_from("=I", info, 24)
            (acked,) = struct.unpack_from("=Q", info, _BYTES_ACKED)
            return Progress(state, info[2], unacked, acked)
        at += (length + 3) & ~3
    raise Failed("the kernel does not tell what is acknowledged (Linux 4.1 does)")


def client_connection() -> Connection | None:
    """The TCP connection that this session came by: SSH_CONNECTION's, or one that an ancestor has accepted."""
    table = tcp_table()
    words = os.environ.get("SSH_CONNECTION", "").split()
    if len(words) == 4:
        named = Connection((words[2], whole(words[3], 65535)), (words[0], whole(words[1], 65535)))
        if named in (connection for _, connection, state in table if state == _ESTABLISHED):
            return named
    accepted = {connection.local[1] for _, connection, state in table if state == _LISTEN}
    sockets = {inode: each for inode, each, state in table if state == _ESTABLISHED and each.local[1] in accepted}
    pid = os.getppid()
    while pid > 1 and sockets:
        for inode in _sockets_of(pid):
            if inode in sockets:
                return sockets[inode]
        pid = parent(pid)
    return None


def _sockets_of(pid: int) -> list[str]:
    """Inodes of the sockets that a process has open; [] where that can't be seen."""
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:["):
                found.append(target[8:-1])
    except OSError:
        pass
    return found


def tcp_table(folder: str = "/proc/net") -> list[tuple[str, Connection, int]]:
    """(inode, connection, state) of all TCP sockets. An IPv4 connection of an IPv6 socket is one of IPv4."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in _lines(f"{folder}/{name}")[1:]:
            words = line.split()
            connection = Connection(_endpoint(words[1]), _endpoint(words[2]))
            found.append((words[9], connection, int(words[3], 16)))
    return found


def _endpoint(text: str) -> tuple[str, int]:
    """`0100007F:1F90` → ("127.0.0.1", 8080): groups of four bytes, each in the order of this machine."""
    digits, port = text.split(":")
    groups = [int(digits[n : n + 8], 16) for n in range(0, len(digits), 8)]
    address = struct.pack(f"={len(groups)}I", *groups)
    if address[:12] == b"\0" * 10 + b"\xff\xff":
        address = address[12:]
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, address), int(port, 16)

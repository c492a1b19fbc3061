"""Flows: is it delivered, and if not, why.

All flows of a round are probed side by side in one loop, from sockets opened in the sender's network namespace.
A flow is undelivered only when every attempt of the round failed. The reason is found from the sender's error, the
ICMP message (ip(7), IP_RECVERR), the neighbour table, the routes, and the receiver's side.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sim import resolver
from sim.scenario import Flow
from sim.world import kernel
from sim.world.machine import Machine

ATTEMPTS = 3
GAP_S = 0.1
PATIENCE_S = 0.5
READ_S = 5.0  # for a file of the machine
"""A round sends `ATTEMPTS` probes `GAP_S` apart and waits `PATIENCE_S` after the last one."""

_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_IPV6_MTU_DISCOVER = 23
_IPV6_DONTFRAG = 62
_IP_PKTINFO = 8
MSG_ERRQUEUE = 0x2000
_ORIGIN_LOCAL, ORIGIN_ICMP, ORIGIN_ICMP6 = 1, 2, 3  # linux/errqueue.h
ICMP_REDIRECT = 5  # RFC 792
_ICMP4 = {0: "no-route", 1: "neighbour-unreachable", 2: "refused", 3: "refused", 4: "too-big", 5: "no-route",
          6: "no-route", 7: "neighbour-unreachable", 9: "prohibited", 10: "prohibited", 13: "prohibited"}  # fmt: skip
_ICMP6 = {0: "no-route", 1: "prohibited", 2: "no-route", 3: "neighbour-unreachable", 4: "refused", 5: "prohibited",
          6: "no-route"}  # fmt: skip
ERRNO = {
    errno.ENETUNREACH: "no-route",
    errno.EHOSTUNREACH: "neighbour-unreachable",
    errno.EADDRNOTAVAIL: "no-address",
    errno.ENETDOWN: "link-down",
    errno.ECONNREFUSED: "refused",
    errno.EMSGSIZE: "too-big",
    errno.EACCES: "prohibited",
    errno.EPERM: "filtered",
    errno.EINVAL: "no-route",  # a blackhole route
}
_NEIGHBOUR_FAILED = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED (linux/neighbour.h)


@dataclass(frozen=True)
class Target:
    """A flow with its address: what was written, and one family of it."""

    key: str  # how reports call it
    flow: Flow
    family: str  # v4 | v6
    address: str


@dataclass
class Outcome:
    """What one round, or several, found out about a flow."""

    delivered: bool = False
    reason: str = ""
    detail: str = ""
    milliseconds: float = 0.0
    sent: int = 0
    lost: int = 0


@dataclass
class _Try:
    target: Target
    sock: socket.socket | None = None
    began: float = 0.0
    got: int = 0
    error: str = ""
    detail: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    address: str = ""  # who is asked: the destination, for a name one of the source's name servers
    servers: list[str] | None = None  # of the source, for a name; None: not looked up yet
    without: set[int] = field(default_factory=set)  # record types that the name has none of
    settled: bool = False  # undelivered, and no further attempt would change that

    @property
    def over(self) -> bool:
        return self.outcome.delivered


# -- who is where --------------------------------------------------------------------------------------------------


def global_addresses(ip: IPRoute) -> list[str]:
    """The addresses (with prefix length) of global scope in a namespace, interfaces and addresses in order."""
    found = []
    for message in ip.get_addr():
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["scope"] == 0 and not ipaddress.ip_address(address).is_loopback:
            found.append(f"{address}/{message['prefixlen']}")
    return found


def destination(source: Sequence[str], addresses: Sequence[str], family: str) -> str | None:
    """The address to send to: one on a network that the source is on as well, else the first of the family."""
    version = 4 if family == "v4" else 6
    there = [a for a in (ipaddress.ip_interface(text) for text in addresses) if a.version == version]
    here = [a.network for a in (ipaddress.ip_interface(text) for text in source) if a.version == version]
    if not there or not here:
        return None
    for address in there:
        if address.network in here:
            return str(address.ip)
    return str(there[0].ip)


def targets(
    flows: Sequence[Flow], machines: Sequence[str], addresses: Mapping[str, Sequence[str]], family: str | None
) -> list[Target]:
    """All flows of a run, with addresses: the named ones, and icmp between every ordered pair, by family."""
    pairs = [Flow(a, b) for a in machines for b in machines if a != b]
    found: dict[str, Target] = {}
    for flow in (*flows, *pairs):
        families = [flow.family] if flow.family else [family] if family else ["v4", "v6"]
        if family and flow.family and flow.family != family:
            continue
        reached = [
            (which, address)
            for which in families
            if (address := destination(addresses.get(flow.source, ()), addresses.get(flow.destination, ()), which))
        ]
        if flow.protocol == "dns":
            reached = reached[:1]  # the question goes to every name server; without a family, to those of both
        for which, address in reached:
            key = str(flow) if len(reached) == 1 else f"{flow} {which}"
            same = any(t.flow.text == flow.text and t.family == which for t in found.values())
            if not same or (flow.name and flow.name != flow.text):
                found.setdefault(key, Target(key, flow, which, address))
    return list(found.values())


# -- a round -------------------------------------------------------------------------------------------------------


def probe(
    wanted: Sequence[Target], machines: Mapping[str, Machine], attempts: int = ATTEMPTS, explain: bool = True
) -> dict[str, Outcome]:
    """Send every flow up to `attempts` times; outcome by key. `explain`: find the reason of those that fail."""
    tries = [_Try(target) for target in wanted]
    selector = selectors.DefaultSelector()
    began = time.monotonic()
    for number in range(attempts):
        for attempt in tries:
            if not attempt.over:
                _send(attempt, machines, selector, number)
        last = number == attempts - 1
        _collect(tries, selector, began + number * GAP_S + (PATIENCE_S if last else GAP_S), last)
        if all(attempt.over for attempt in tries):
            break
    selector.close()
    for attempt in tries:
        if attempt.sock is not None:
            attempt.sock.close()
        attempt.outcome.lost = attempt.outcome.sent - (1 if attempt.over else 0)
        if explain and not attempt.over:
            _explain(attempt, machines)
    return {attempt.target.key: attempt.outcome for attempt in tries}


def _collect(tries: Sequence[_Try], selector: selectors.BaseSelector, until: float, last: bool) -> None:
    """Hear answers and errors until the time is over, all is delivered, or (`last`) nothing can come any more."""
    while any(not attempt.over for attempt in tries):
        left = until - time.monotonic()
        if left <= 0 or (last and all(attempt.over or attempt.error for attempt in tries)):
            return
        for key, events in selector.select(left):
            _on_event(key.data, events, selector)


def _send(attempt: _Try, machines: Mapping[str, Machine], selector: selectors.BaseSelector, number: int) -> None:
    flow = attempt.target.flow
    if attempt.settled or (attempt.sock is not None and flow.protocol == "tcp" and not attempt.error):
        return  # TCP retries by itself while the connection is in progress
    attempt.outcome.sent += 1
    try:
        machine = machines[flow.source]
        if not machine.on:
            _forget(attempt, selector)
            attempt.error, attempt.detail = "link-down", f"{flow.source} is off"
            return
        asked, attempt.address = attempt.address, _whom(attempt, machine, number)
        if not attempt.address:
            return
        if attempt.sock is None or attempt.error or asked != attempt.address:
            _forget(attempt, selector)
            with kernel.inside(machine.running.netns):
                attempt.sock = open_socket(attempt.target, attempt.address)
            attempt.error = ""
            attempt.began = time.monotonic()
            _connect(attempt)
            want = selectors.EVENT_READ | (selectors.EVENT_WRITE if flow.protocol == "tcp" else 0)
            selector.register(attempt.sock, want, attempt)
        assert attempt.sock is not None
        if flow.protocol != "tcp":
            attempt.began = time.monotonic()
        for data in _payloads(attempt.target, number):
            attempt.sock.send(data)
    except OSError as error:
        _failed(attempt, error)


def _whom(attempt: _Try, machine: Machine, number: int) -> str:
    """The address that this attempt goes to. A name is asked of each of the source's name servers in turn."""
    flow = attempt.target.flow
    if flow.protocol != "dns":
        return attempt.target.address
    if attempt.servers is None:
        known = resolver.name_servers(machine.run("cat /etc/resolv.conf", READ_S).output)
        attempt.servers = [server for server in known if flow.family in (None, f"v{_version(server)}")]
        if not attempt.servers:
            of_family = f"IPv{flow.family[1]} " if flow.family and known else ""
            _settle(attempt, f"{flow.source} has no {of_family}name server in /etc/resolv.conf")
            return ""
    return attempt.servers[number % len(attempt.servers)]


def _settle(attempt: _Try, detail: str) -> None:
    """A resolver gives up here: nobody can be asked, or somebody who must know said that there is no such name."""
    attempt.settled, attempt.error, attempt.detail = True, "no-name", detail


def _forget(attempt: _Try, selector: selectors.BaseSelector) -> None:
    if attempt.sock is not None:
        with contextlib.suppress(KeyError, ValueError):
            selector.unregister(attempt.sock)
        attempt.sock.close()
        attempt.sock = None


def open_socket(target: Target, address: str) -> socket.socket:
    v4 = _version(address) == 4
    family = socket.AF_INET if v4 else socket.AF_INET6
    flow = target.flow
    if flow.protocol == "tcp":
        sock = socket.socket(family, socket.SOCK_STREAM)
    elif flow.protocol == "icmp":
        sock = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6)
    else:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if flow.protocol != "tcp":
        sock.setsockopt(*((socket.IPPROTO_IP, _IP_RECVERR, 1) if v4 else (socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)))
        if flow.size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            if v4:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_DO)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    return sock


def _connect(attempt: _Try) -> None:
    target = attempt.target
    assert attempt.sock is not None
    port = 53 if target.flow.protocol == "dns" else target.flow.port or 0
    try:
        attempt.sock.connect((attempt.address, port))
    except BlockingIOError:
        pass


def _payloads(target: Target, number: int) -> list[bytes]:
    """What one attempt sends, a datagram each."""
    flow = target.flow
    if flow.protocol == "tcp":
        return []
    if flow.protocol == "icmp":
        kind = 8 if target.family == "v4" else 128
        return [struct.pack("!BBHHH", kind, 0, 0, 0, number) + b"s" * (56 if flow.size is None else flow.size)]
    if flow.protocol == "dns":
        return resolver.questions(flow.asked or "", number)
    return [b"s" * (flow.size or 16)]


def _on_event(attempt: _Try, events: int, selector: selectors.BaseSelector) -> None:
    sock = attempt.sock
    assert sock is not None
    try:
        if attempt.target.flow.protocol == "tcp":
            _on_tcp(attempt, sock, events, selector)
            return
        data = sock.recv(1 << 16)
        if attempt.target.flow.protocol == "dns":
            _on_answer(attempt, data)
        else:
            _delivered(attempt)
    except BlockingIOError:
        _failed(attempt, OSError(0, ""))  # nothing to read: an error without its errno, in the error queue
    except OSError as error:
        _failed(attempt, error)
        if attempt.target.flow.protocol == "tcp":
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(sock)


def _on_answer(attempt: _Try, data: bytes) -> None:
    kind, says, words = resolver.answer(data)
    attempt.without |= {kind} if says == "no-address" else set()
    if says == "address":
        _delivered(attempt)
    elif says == "no-name" or attempt.without.issuperset(resolver.KINDS):
        _settle(attempt, f"{attempt.address}: {words}")
    elif says == "no-help":  # the next server may know
        attempt.error, attempt.detail = "no-name", f"{attempt.address}: {words}"


def _on_tcp(attempt: _Try, sock: socket.socket, events: int, selector: selectors.BaseSelector) -> None:
    size = attempt.target.flow.size or 0
    if events & selectors.EVENT_WRITE:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        selector.modify(sock, selectors.EVENT_READ, attempt)
        if not size:
            _delivered(attempt)
            return
        sock.send(b"s" * size)
        return
    data = sock.recv(1 << 16)
    attempt.got += len(data)
    if attempt.got >= size:
        _delivered(attempt)
    elif not data:
        attempt.error, attempt.detail = "refused", "the connection was closed"


def _delivered(attempt: _Try) -> None:
    if not attempt.outcome.delivered:
        attempt.outcome.delivered = True
        attempt.outcome.milliseconds = round((time.monotonic() - attempt.began) * 1000, 3)


def _failed(attempt: _Try, error: OSError) -> None:
    """Note why; the error queue knows more than errno (who said it, and the ICMP code)."""
    number = error.errno or 0
    if number:
        attempt.error, attempt.detail = ERRNO.get(number, "timeout"), os.strerror(number)
    if attempt.sock is None:
        return
    with contextlib.suppress(OSError):
        _, ancillary, _, _ = attempt.sock.recvmsg(512, 512, MSG_ERRQUEUE)
        for _, _, data in ancillary:
            number, origin, kind, code = struct.unpack_from("=IBBB", data)
            if origin == ORIGIN_ICMP and kind == ICMP_REDIRECT:
                continue  # advice, and no error
            if origin in (ORIGIN_ICMP, ORIGIN_ICMP6):
                attempt.error = icmp_reason(origin, kind, code)
                attempt.detail = f"ICMP type {kind} code {code} came back"
                if attempt.error == "refused" and attempt.target.flow.protocol == "icmp":
                    attempt.error = "filtered"  # a ping has no port that could be closed: a filter says so
            elif number in ERRNO:
                attempt.error, attempt.detail = ERRNO[number], os.strerror(number)


def icmp_reason(origin: int, kind: int, code: int) -> str:
    """RFC 792 and RFC 4443: destination unreachable, too big, time exceeded (a packet that went in circles)."""
    if origin == ORIGIN_ICMP:
        return {3: _ICMP4.get(code, "timeout"), 11: "no-route"}.get(kind, "timeout")
    return {1: _ICMP6.get(code, "timeout"), 2: "too-big", 3: "no-route"}.get(kind, "timeout")


# -- why -----------------------------------------------------------------------------------------------------------


def _explain(attempt: _Try, machines: Mapping[str, Machine]) -> None:
    target, outcome = attempt.target, attempt.outcome
    outcome.reason, outcome.detail = attempt.error, attempt.detail
    source = machines[target.flow.source]
    if not source.on:
        outcome.reason, outcome.detail = "link-down", f"{source.plan.name} is off"
        return
    if outcome.reason in ("refused", "too-big", "filtered", "no-name"):
        return
    path = walk(source, attempt.address or target.address, machines)
    if outcome.reason == "prohibited" and path.reason not in ("", "prohibited"):
        outcome.reason = "filtered"
    if path.reason and path.machine is source and not outcome.reason.startswith(("prohibited", "filtered")):
        if path.reason in ("link-down", "no-address") or not outcome.detail.startswith("ICMP"):
            outcome.reason, outcome.detail = path.reason, path.detail
        return
    if outcome.reason and outcome.reason != "timeout":
        return
    outcome.reason, outcome.detail = _silence(attempt, path, machines)


def _silence(attempt: _Try, path: Path, machines: Mapping[str, Machine]) -> tuple[str, str]:
    """The packet left and nothing came back: look at the way, the size, the way back, and the filters on both."""
    target = attempt.target
    if path.reason:
        return path.reason, f"on the way, {path.machine.plan.name}: {path.detail}"
    if target.flow.size is not None:
        small = Target(target.key, Flow(target.flow.source, target.flow.destination), target.family, target.address)
        if probe([small], machines, attempts=2, explain=False)[target.key].delivered:
            return "too-big", f"small packets arrive, {target.flow.size} bytes vanish without a word"
    back = walk(path.machine, path.source, machines) if path.source else path
    if back.reason:
        return back.reason, f"on the way back, {back.machine.plan.name}: {back.detail}"
    passed = dict.fromkeys((*path.passed, *back.passed))
    filtering = [name for name in passed if machines[name].on and _filters(machines[name])]
    if filtering:
        return "filtered", f"packet filters that drop are loaded on {', '.join(filtering)}"
    return "timeout", "no answer, and no error either"


@dataclass(frozen=True)
class Path:
    """Where a packet gets to. `reason` is empty when it arrives; `machine` is the last that it reaches."""

    machine: Machine
    reason: str
    detail: str
    passed: Sequence[str]  # the names of the machines, the first and the last included
    source: str = ""  # the address that it is sent from


def walk(source: Machine, address: str, machines: Mapping[str, Machine]) -> Path:
    """Follow the routes, machine by machine, as a packet to this address would."""
    here, sent_from = source, ""
    passed: list[str] = []
    while here.plan.name not in passed:
        passed.append(here.plan.name)
        if _is_loopback(address) or _has(here, address):
            return Path(here, "", "", passed, sent_from)
        if len(passed) > 1 and not _forwards(here, address):
            return Path(here, "no-route", "it forwards nothing", passed, sent_from)
        step = way(here, address)
        sent_from = sent_from or step.source
        if step.reason:
            return Path(here, step.reason, step.detail, passed, sent_from)
        there = next((one for one in machines.values() if one is not here and one.on and _has(one, step.hop)), None)
        if there is None or not _hears(there, step.hop):
            why = "nobody has it any more" if there is None else f"its interface of {there.plan.name} is down"
            return Path(here, "neighbour-unreachable", f"{step.hop} on {step.device}: {why}", passed, sent_from)
        here = there
    return Path(here, "no-route", f"the routes lead in a circle: {', '.join(passed)}", passed, sent_from)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _forwards(machine: Machine, address: str) -> bool:
    key = "ipv4/ip_forward" if _version(address) == 4 else "ipv6/conf/all/forwarding"
    with kernel.inside(machine.running.netns):  # these files are those of whoever opens them
        try:
            with open(f"/proc/sys/net/{key}", encoding="ascii") as file:
                return file.read().strip() != "0"
        except OSError:
            return True  # nothing is known against it


def _addresses(machine: Machine) -> Iterator[tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, int]]:
    """(address, ifindex) of every address, link-local ones too."""
    for message in machine.running.ip.get_addr():
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        yield ipaddress.ip_interface(f"{address}/{message['prefixlen']}"), message["index"]


def _has(machine: Machine, address: str) -> bool:
    return any(one.ip == ipaddress.ip_address(address) for one, _ in _addresses(machine))


def _hears(machine: Machine, address: str) -> bool:
    """Whether an interface with this address is up and has a carrier."""
    links = [_link(machine.running.ip, index) for one, index in _addresses(machine) if f"{one.ip}" == address]
    return any(up and carrier for _, up, carrier in links)


def _version(address: str) -> int:
    return ipaddress.ip_interface(address).version


@dataclass(frozen=True)
class Way:
    """The next hop of a packet. `reason`: what stands in its way there, empty for nothing."""

    reason: str = ""
    detail: str = ""
    hop: str = ""
    device: str = ""
    source: str = ""


def way(machine: Machine, address: str) -> Way:
    """What a machine does with a packet to an address (ip-route(8), `ip route get`)."""
    ip = machine.running.ip
    family = socket.AF_INET if _version(address) == 4 else socket.AF_INET6
    try:
        routes = list(ip.route("get", dst=address, family=family))
    except NetlinkError as error:
        if error.code == errno.EACCES:
            return Way("prohibited", f"a route prohibits {address}")
        if error.code in (errno.EINVAL, errno.EHOSTUNREACH):
            return Way("no-route", f"a route makes {address} unreachable")
        return _no_route(machine, address)
    if not routes:
        return _no_route(machine, address)
    index = routes[0].get_attr("RTA_OIF")
    name, up, carrier = _link(ip, index)
    hop = routes[0].get_attr("RTA_GATEWAY") or (routes[0].get_attr("RTA_VIA") or {}).get("addr") or address
    source = routes[0].get_attr("RTA_PREFSRC") or ""
    if not up or not carrier:
        return Way("link-down", f"{name} {'has no carrier' if up else 'is down'}", hop, name, source)
    if _version(address) == 6 and source.startswith("fe80:") and not address.startswith("fe80:"):
        return Way("no-address", f"no IPv6 address on {name} but a link-local one", hop, name)
    for message in ip.get_neighbours(family=family, ifindex=index):
        if message.get_attr("NDA_DST") == hop and message["state"] & _NEIGHBOUR_FAILED:
            return Way("neighbour-unreachable", f"nobody on {name} answers for {hop}", hop, name, source)
    return Way("", "", hop, name, source)


def _no_route(machine: Machine, address: str) -> Way:
    """Why there is no route: no link, no address, or none of both is missing."""
    ip, version = machine.running.ip, _version(address)
    links = {message["index"]: _link(ip, message["index"]) for message in ip.get_links()}
    if not any(up and carrier for name, up, carrier in links.values() if name != "lo"):
        return Way("link-down", "no interface is up and has a carrier")
    own = [(one, index) for one, index in _addresses(machine) if one.version == version]
    for one, index in own:
        name, up, carrier = links.get(index, ("?", True, True))
        if ipaddress.ip_address(address) in one.network and not (up and carrier):
            return Way("link-down", f"{name}, which leads there, is down")
    if all(one.is_loopback or one.is_link_local for one, _ in own):
        return Way("no-address", f"no IPv{version} address")
    return Way("no-route", f"no route to {address}")


def _link(ip: IPRoute, index: int) -> tuple[str, bool, bool]:
    for message in ip.get_links(index):
        return message.get_attr("IFLA_IFNAME"), bool(message["flags"] & 1), bool(message.get_attr("IFLA_CARRIER"))
    return "?", False, False


def _filters(machine: Machine) -> bool:
    """Whether the rule set of a packet filter drops or rejects anything."""
    shown = "nft list ruleset; iptables-legacy-save; ip6tables-legacy-save"
    return machine.run(f"{{ {shown}; }} 2>/dev/null | grep -qiE 'drop|reject'", 5.0).status == 0


# -- the listeners -------------------------------------------------------------------------------------------------


def listener(ports: Sequence[tuple[str, int]]) -> Callable[[], None]:
    """A service for a machine: echoes what it gets on these (tcp | udp, port), over both families."""

    def serve() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # an answer to a client that has gone away is no end
        selector = selectors.DefaultSelector()
        for protocol, port in ports:
            for sock in _bind(protocol, port):
                selector.register(sock, selectors.EVENT_READ, _accept if protocol == "tcp" else _echo_datagram)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                try:
                    key.data(key.fileobj, selector)
                except OSError:
                    continue  # the client went away; a listener outlives that

    return serve


def _bind(protocol: str, port: int) -> Iterator[socket.socket]:
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "udp":  # the answer must leave from the address that was asked
            option = (socket.IPPROTO_IP, _IP_PKTINFO) if family == socket.AF_INET else (
                socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)  # fmt: skip
            sock.setsockopt(*option, 1)
        try:
            sock.bind((anywhere, port))
        except OSError:
            sock.close()
            continue  # a program of the machine's own listens there: it is the better listener
        if protocol == "tcp":
            sock.listen(16)
        sock.setblocking(False)
        yield sock


def _accept(sock: socket.socket, selector: selectors.BaseSelector) -> None:
    connection, _ = sock.accept()
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, _echo_stream)


def _echo_stream(sock: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        data = sock.recv(1 << 16)
        if data:
            sock.send(data)
            return
    except OSError:
        pass  # reset by the client: the connection ends either way
    selector.unregister(sock)
    sock.close()


def _echo_datagram(sock: socket.socket, _selector: selectors.BaseSelector) -> None:
    data, ancillary, _, address = sock.recvmsg(1 << 16, 256)
    sock.sendmsg([data], [item for item in ancillary if item[0] in (socket.IPPROTO_IP, socket.IPPROTO_IPV6)],
                 0, address)  # fmt: skip


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """The fields of `sim.events.FlowRead` that an outcome fills."""
    return {
        "delivered": outcome.delivered,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "milliseconds": outcome.milliseconds,
        "sent": outcome.sent,
        "lost": outcome.lost,
    }

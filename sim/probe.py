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
_MSG_ERRQUEUE = 0x2000
_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6 = 1, 2, 3  # linux/errqueue.h
_ICMP4 = {0: "no-route", 1: "neighbour-unreachable", 2: "refused", 3: "refused", 4: "too-big", 5: "no-route",
          6: "no-route", 7: "neighbour-unreachable", 9: "prohibited", 10: "prohibited", 13: "prohibited"}  # fmt: skip
_ICMP6 = {0: "no-route", 1: "prohibited", 2: "no-route", 3: "neighbour-unreachable", 4: "refused", 5: "prohibited",
          6: "no-route"}  # fmt: skip
_ERRNO = {
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
                attempt.sock = _open(attempt.target, attempt.address)
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


def _open(target: Target, address: str) -> socket.socket:
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
        attempt.error, attempt.detail = _ERRNO.get(number, "timeout"), os.strerror(number)
    if attempt.sock is None:
        return
    with contextlib.suppress(OSError):
        _, ancillary, _, _ = attempt.sock.recvmsg(512, 512, _MSG_ERRQUEUE)
        for _, _, data in ancillary:
            number, origin, kind, code = struct.unpack_from("=IBBB", data)
            if origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
                attempt.error = _icmp_reason(origin, kind, code)
                attempt.detail = f"ICMP type {kind} code {code} came back"
            elif number in _ERRNO:
                attempt.error, attempt.detail = _ERRNO[number], os.strerror(number)


def _icmp_reason(origin: int, kind: int, code: int) -> str:
    if origin == _ORIGIN_ICMP:
        return _ICMP4.get(code, "timeout") if kind == 3 else "timeout"
    if kind == 2:
        return "too-big"
    return _ICMP6.get(code, "timeout") if kind == 1 else "timeout"


# -- why -----------------------------------------------------------------------------------------------------------


def _explain(attempt: _Try, machines: Mapping[str, Machine]) -> None:
    target, outcome = attempt.target, attempt.outcome
    outcome.reason, outcome.detail = attempt.error, attempt.detail
    source, other = machines[target.flow.source], machines[target.flow.destination]
    if not source.on:
        outcome.reason, outcome.detail = "link-down", f"{source.plan.name} is off"
        return
    if outcome.reason in ("refused", "too-big", "filtered", "no-name"):
        return
    address = attempt.address or target.address
    if target.flow.protocol == "dns":
        other = next((one for one in machines.values() if one.on and _has(one, address)), source)
    answer = way(source, address)
    if outcome.reason == "prohibited" and answer[0] not in ("", "prohibited"):
        outcome.reason = "filtered"
    if answer[0] and not outcome.reason.startswith(("prohibited", "filtered")):
        if not (outcome.detail.startswith("ICMP") and answer[0] != "link-down"):
            outcome.reason, outcome.detail = answer
        return
    if outcome.reason and outcome.reason != "timeout":
        return
    outcome.reason, outcome.detail = _silence(attempt, source, other, machines)


def _silence(attempt: _Try, source: Machine, other: Machine, machines: Mapping[str, Machine]) -> tuple[str, str]:
    """The packet left and nothing came back: look at the size, the receiver's side, the filters on the way."""
    target = attempt.target
    if target.flow.size is not None:
        small = Target(target.key, Flow(target.flow.source, target.flow.destination), target.family, target.address)
        if probe([small], machines, attempts=2, explain=False)[target.key].delivered:
            return "too-big", f"small packets arrive, {target.flow.size} bytes vanish without a word"
    if not other.on:
        return "timeout", f"{other.plan.name} is off"
    asked = attempt.address or target.address
    back = next((a for a in global_addresses(source.running.ip) if _version(a) == _version(asked)), None)
    if back is not None:
        reason, detail = way(other, back.split("/")[0])
        if reason:
            return reason, f"on the way back, {other.plan.name}: {detail}"
    filtering = [name for name, machine in machines.items() if machine.on and _filters(machine)]
    if filtering:
        return "filtered", f"packet filters are loaded on {', '.join(filtering)}"
    return "timeout", "no answer, and no error either"


def _has(machine: Machine, address: str) -> bool:
    return any(text.partition("/")[0] == address for text in global_addresses(machine.running.ip))


def _version(address: str) -> int:
    return ipaddress.ip_interface(address).version


def way(machine: Machine, address: str) -> tuple[str, str]:
    """What stands in the way of a packet from this machine: (reason, detail), or ("", "") for nothing."""
    ip = machine.running.ip
    family = socket.AF_INET if _version(address) == 4 else socket.AF_INET6
    try:
        routes = list(ip.route("get", dst=address, family=family))
    except NetlinkError as error:
        if error.code == errno.EACCES:
            return "prohibited", f"a route prohibits {address}"
        if error.code in (errno.EINVAL, errno.EHOSTUNREACH):
            return "no-route", f"a route makes {address} unreachable"
        return _no_route(ip, family, address)
    if not routes:
        return _no_route(ip, family, address)
    index = routes[0].get_attr("RTA_OIF")
    name, up, carrier = _link(ip, index)
    if not up or not carrier:
        return "link-down", f"{name} {'has no carrier' if up else 'is down'}"
    hop = routes[0].get_attr("RTA_GATEWAY") or address
    for message in ip.get_neighbours(family=family, ifindex=index):
        if message.get_attr("NDA_DST") == hop and message["state"] & _NEIGHBOUR_FAILED:
            return "neighbour-unreachable", f"nobody on {name} answers for {hop}"
    return "", ""


def _no_route(ip: IPRoute, family: int, address: str) -> tuple[str, str]:
    usable = []
    for message in ip.get_links():
        name, up, carrier = message.get_attr("IFLA_IFNAME"), message["flags"] & 1, message.get_attr("IFLA_CARRIER")
        if name != "lo" and up and carrier:
            usable.append(name)
    if not usable:
        return "link-down", "no interface is up and has a carrier"
    version = 4 if family == socket.AF_INET else 6
    if not any(_version(text) == version for text in global_addresses(ip)):
        return "no-address", f"no IPv{version} address"
    return "no-route", f"no route to {address}"


def _link(ip: IPRoute, index: int) -> tuple[str, bool, bool]:
    for message in ip.get_links(index):
        return message.get_attr("IFLA_IFNAME"), bool(message["flags"] & 1), bool(message.get_attr("IFLA_CARRIER"))
    return "?", False, False


def _filters(machine: Machine) -> bool:
    """Whether any netfilter hook is in use (/proc/net/netfilter is of no help: the rule set is asked for)."""
    done = machine.run("nft list ruleset 2>/dev/null | grep -qE 'drop|reject|policy drop'", 5.0)
    return done.status == 0


# -- the listeners -------------------------------------------------------------------------------------------------


def listener(ports: Sequence[tuple[str, int]]) -> Callable[[], None]:
    """A service for a machine: echoes what it gets on these (tcp | udp, port), over both families."""

    def serve() -> None:
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

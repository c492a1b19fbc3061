"""The kernel's side: links, addresses, routes, rules and sysctls of the network namespace that we are in.

One rtnetlink socket (rtnetlink(7)) for the life of a `Kernel`. Every refusal of the kernel is an OSError with its
errno. Only synchronous calls that pyroute2 0.7, 0.8 and 0.9 have in common.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sim.stacks.ifcfg.iproute import PROTOCOLS, ROUTE_TYPES, RULE_ACTIONS, SCOPES, Hop, Route, Rule
from sim.stacks.ifcfg.model import Address

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_IFF_UP, _IFF_RUNNING, _IFF_LOWER_UP = 0x1, 0x40, 0x10000  # linux/if.h
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40  # linux/if_addr.h
_RTNH_F_ONLINK = 4  # linux/rtnetlink.h
_FR_ACT_TO_TBL = 1  # linux/fib_rules.h
_FIB_RULE_INVERT = 2
_RTMGRP_LINK, _RTMGRP_IPV6_IFADDR = 0x1, 0x100
_RT_TABLE_MAIN_BITS = 0xFF
_BRIDGE_OPTIONS = {
    "forward_delay": "IFLA_BR_FORWARD_DELAY",
    "ageing_time": "IFLA_BR_AGEING_TIME",
    "priority": "IFLA_BR_PRIORITY",
    "stp_state": "IFLA_BR_STP_STATE",
}


@dataclass(frozen=True)
class Link:
    """A device as the kernel shows it."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    running: bool  # the kernel has taken note of the carrier (linkwatch), and gave a link-local address
    master: int
    kind: str  # empty: hardware, or loopback
    options: Mapping[str, int]  # of a bridge


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        code = abs(int(error.code))
        raise OSError(code, os.strerror(code)) from None


class Kernel:
    """Open it in the namespace that is meant; close it, or use it in a `with`."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._ipr = IPRoute()
        self._conf = proc / "sys/net/ipv6/conf"

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self._ipr.close()

    # -- links

    def links(self) -> dict[str, Link]:
        """All devices, by name."""
        with _errors():
            found = [_link(message) for message in self._ipr.get_links()]
        return {link.name: link for link in found}

    def link(self, name: str) -> Link | None:
        return self.links().get(name)

    def set_link(self, index: int, **attributes: Any) -> None:
        """state=, mtu=, address=, master= (0: none), or kind= with its options."""
        with _errors():
            self._ipr.link("set", index=index, **attributes)

    def set_bridge(self, index: int, options: Mapping[str, int]) -> None:
        if options:
            self.set_link(index, kind="bridge", **{f"br_{name}": value for name, value in options.items()})

    def create(self, name: str, kind: str, **attributes: Any) -> Link:
        with _errors():
            self._ipr.link("add", ifname=name, kind=kind, **attributes)
        link = self.link(name)
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return link

    def delete(self, index: int) -> None:
        with _errors():
            self._ipr.link("del", index=index)

    # -- addresses

    def add_address(self, index: int, address: Address) -> None:
        """EEXIST where it is there already."""
        extra = {"broadcast": address.broadcast, "label": address.label}
        with _errors():
            self._ipr.addr(
                "add",
                index=index,
                family=_FAMILIES[address.family],
                address=address.address,
                prefixlen=address.prefix,
                scope=address.scope,
                **{name: value for name, value in extra.items() if value},
            )

    def flush_addresses(self, index: int, link_local: bool = True) -> None:
        """Every address, also secondary and temporary ones; IPv6 link-local ones where told."""
        for family in (socket.AF_INET, socket.AF_INET6):
            with _errors():
                addresses = list(self._ipr.get_addr(family=family, index=index))
            for address in addresses:
                local = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
                if family == socket.AF_INET6 and address["scope"] == SCOPES["link"] and not link_local:
                    continue
                with let_pass(errno.EADDRNOTAVAIL), _errors():  # a secondary goes with its primary
                    self._ipr.addr("del", index=index, family=family, address=local, prefixlen=address["prefixlen"])

    def wait_for_addresses(self, names: Iterable[str], timeout_s: float) -> list[str]:
        """Until these devices are running and no IPv6 address of theirs is tentative (RFC 4862, 5.4).

        Where duplicate address detection is off that is a matter of microseconds, but not of none. A device
        without carrier is not waited for: nothing will happen until a cable is plugged in.
        -> what went wrong, in words.
        """
        wanted, deadline = set(names), time.monotonic() + timeout_s
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as events:
            events.bind((0, _RTMGRP_LINK | _RTMGRP_IPV6_IFADDR))
            poll = select.poll()
            poll.register(events, select.POLLIN)
            while True:
                waiting, failed = self._unsettled(wanted)
                remaining = deadline - time.monotonic()
                if not waiting or remaining <= 0:
                    late = [f"{one} is still tentative after {timeout_s:g} s" for one in waiting]
                    return [f"{one}: duplicate address detected" for one in failed] + late
                if poll.poll(remaining * 1000):
                    with contextlib.suppress(OSError):  # ENOBUFS: events were lost; we read the state anyway
                        events.recv(65536)

    def _unsettled(self, names: set[str]) -> tuple[list[str], list[str]]:
        """What is not settled yet, and the addresses that somebody else has."""
        links = [link for name, link in self.links().items() if name in names and link.up and link.carrier]
        by_index = {link.index: link.name for link in links}
        waiting = [link.name for link in links if not link.running]
        failed: list[str] = []
        with _errors():
            for message in self._ipr.get_addr(family=socket.AF_INET6):
                flags = message.get_attr("IFA_FLAGS") or message["flags"]
                if message["index"] in by_index and flags & _IFA_F_TENTATIVE:
                    shown = f"{message.get_attr('IFA_ADDRESS')} on {by_index[message['index']]}"
                    (failed if flags & _IFA_F_DADFAILED else waiting).append(shown)
        return waiting, failed

    # -- routes

    def route(self, command: str, route: Route) -> None:
        """command: add | append | replace | del."""
        with _errors():
            self._ipr.route(command, **self._route_arguments(route, deleting=command == "del"))

    def _route_arguments(self, route: Route, deleting: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "family": _FAMILIES[route.family],
            "dst": route.to,
            "table": route.table,
            "type": ROUTE_TYPES[route.type],
            "proto": route.protocol,
            "scope": _scope(route),
        }
        if route.metric:
            arguments["priority"] = route.metric
        if route.tos:
            arguments["tos"] = route.tos
        if route.source:
            arguments["prefsrc"] = route.source
        if route.hops:
            arguments["multipath"] = [self._hop(hop) for hop in route.hops]
        if route.via:
            arguments["gateway"] = route.via
        if route.device:
            arguments["oif"] = self._index(route.device)
        if route.onlink:
            arguments["flags"] = _RTNH_F_ONLINK
        if route.metrics and not deleting:
            arguments["metrics"] = dict(route.metrics)
        return arguments

    def _hop(self, hop: Hop) -> dict[str, Any]:
        found: dict[str, Any] = {"hops": hop.weight - 1, "flags": _RTNH_F_ONLINK if hop.onlink else 0}
        if hop.gateway:
            found["gateway"] = hop.gateway
        if hop.device:
            found["oif"] = self._index(hop.device)
        return found

    def _index(self, device: str) -> int:
        link = self.link(device)
        if link is None:
            raise OSError(errno.ENODEV, f"there is no device {device}")
        return link.index

    def find_route(self, route: Route) -> Route | None:
        """The route as the kernel has it now, with the device that it chose; None: it has another one, or none."""
        names = {link.index: name for name, link in self.links().items()}
        with _errors():
            messages = list(self._ipr.get_routes(family=_FAMILIES[route.family]))
        for message in messages:
            if _key(message, route.family) != route.key or message["type"] != ROUTE_TYPES[route.type]:
                continue
            device = names.get(message.get_attr("RTA_OIF") or 0)
            same_hop = message.get_attr("RTA_GATEWAY") == route.via
            if bool(message.get_attr("RTA_MULTIPATH")) != bool(route.hops):
                continue
            if same_hop and (not route.device or route.device == device):
                kept = device if route.type == "unicast" and not route.hops else None
                return replace(route, device=kept) if kept else route
        return None

    def connected(self) -> list[Route]:
        """The IPv4 routes, broadcast ones too, that the kernel made for addresses, in its order.

        Of those to the same network the first is used.
        """
        names = {link.index: name for name, link in self.links().items()}
        with _errors():
            messages = list(self._ipr.get_routes(family=socket.AF_INET))
        found: list[Route] = []
        for message in messages:
            _, table, to, _, metric = _key(message, 4)
            device = names.get(message.get_attr("RTA_OIF") or 0)
            kernels = message["proto"] == PROTOCOLS["kernel"] and message["scope"] == SCOPES["link"]
            kind = {ROUTE_TYPES[name]: name for name in ("unicast", "broadcast")}.get(message["type"])
            if device and kernels and kind and not metric:
                source = message.get_attr("RTA_PREFSRC")
                found.append(Route(4, to, kind, device=device, table=table, source=source, protocol=message["proto"]))
        return found

    def device_towards(self, gateway: str) -> str | None:
        """The device through which an address is reached now; None: none."""
        family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
        try:
            with _errors():
                found = list(self._ipr.route("get", dst=gateway, family=family))
        except OSError:
            return None
        names = {link.index: name for name, link in self.links().items()}
        return names.get(found[0].get_attr("RTA_OIF") or 0) if found else None

    # -- rules

    def rule(self, command: str, rule: Rule) -> None:
        """command: add | del. The priority must be given."""
        arguments: dict[str, Any] = {
            "family": _FAMILIES[rule.family],
            "priority": rule.priority,
            "action": RULE_ACTIONS.get(rule.action, _FR_ACT_TO_TBL),
        }
        if rule.action == "lookup":
            arguments["table"] = rule.table
        for name, selector in (("src", rule.source), ("dst", rule.to)):
            if selector:
                network, _, length = selector.partition("/")
                arguments[name], arguments[f"{name}_len"] = network, int(length)
        plain = {"iifname": rule.iif, "oifname": rule.oif, "fwmark": rule.mark, "fwmask": rule.mask,
                 "tos": rule.tos or None, "ip_proto": rule.ip_protocol,
                 "suppress_prefixlen": rule.suppress_prefixlength,
                 "sport_range": _range(rule.sport), "dport_range": _range(rule.dport),
                 "flags": _FIB_RULE_INVERT if rule.inverted else None}  # fmt: skip
        arguments.update({name: value for name, value in plain.items() if value is not None})
        with _errors():
            self._ipr.rule(command, **arguments)

    def rule_priorities(self, family: int) -> list[int]:
        """The priorities of all rules, in order."""
        with _errors():
            return sorted(m.get_attr("FRA_PRIORITY") or 0 for m in self._ipr.get_rules(family=_FAMILIES[family]))

    # -- sysctls

    def sysctl(self, device: str, name: str) -> str | None:
        """net.ipv6.conf.DEVICE.NAME; None where it does not exist (no IPv6 on this device)."""
        try:
            return (self._conf / device / name).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def set_sysctl(self, device: str, name: str, value: str) -> None:
        """As `sysctl -e`: nothing where it does not exist. Written only where it differs."""
        if self.sysctl(device, name) not in (None, value):
            (self._conf / device / name).write_text(value)


@contextlib.contextmanager
def let_pass(*codes: int) -> Iterator[None]:
    """Lets these errors of the kernel pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else "") or ""
    options: dict[str, int] = {}
    if kind == "bridge":
        data = info.get_attr("IFLA_INFO_DATA")
        options = {name: data.get_attr(attribute) for name, attribute in _BRIDGE_OPTIONS.items()}
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message["flags"] & _IFF_LOWER_UP),
        running=bool(message["flags"] & _IFF_RUNNING),
        master=message.get_attr("IFLA_MASTER") or 0,
        kind=kind,
        options=options,
    )


def _scope(route: Route) -> int:
    """As `ip route` chooses it (iproute2, ip/iproute.c)."""
    if route.scope is not None:
        return route.scope
    if route.type == "local":
        return SCOPES["host"]
    if route.type in ("broadcast", "multicast", "anycast"):
        return SCOPES["link"]
    if route.type == "unicast" and route.family == 4 and not route.via and not route.hops:
        return SCOPES["link"]
    return SCOPES["universe"]


def _key(message: Any, family: int) -> tuple[int, int, str, int, int]:
    whole = "0.0.0.0" if family == 4 else "::"
    to = f"{message.get_attr('RTA_DST') or whole}/{message['dst_len']}"
    table = message.get_attr("RTA_TABLE") or message["table"] & _RT_TABLE_MAIN_BITS
    return family, table, to, message["tos"], message.get_attr("RTA_PRIORITY") or 0


def _range(ports: tuple[int, int] | None) -> str | None:
    return f"{ports[0]}:{ports[1]}" if ports else None

"""The subset of netplan's version 2 YAML in which scenarios are written: shapes, merging, and what must fit together.

Sources: netplan's YAML reference (netplan.readthedocs.io, "YAML configuration"), ip-route(8), ip-rule(8),
ip-link(8). A configuration stays a plain mapping, as written, for the stacks' `render`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sim.document import Mistakes, Node, nearest, node_of, shown
from sim.errors import BadInput, Mistake
from sim.shape import FLAG, INVALID, Choice, Context, Defined, Field, ListOf, MapOf, Patch, Record, Scalar, Text, Whole

IFNAME = r"(?!\.\.?$)[^\s/:]{1,15}"
"""Linux, net/core/dev.c, dev_valid_name: at most 15 bytes, no '/', ':' or white space, not '.' or '..'."""

KINDS = ("ethernets", "bridges", "bonds", "vlans")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _host(text: str) -> Address:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise ValueError("has a zone; valid: an address without one")
    return address


def _address(text: str) -> str:
    """An address of a device: `192.0.2.10/24`."""
    host, slash, _ = text.partition("/")
    if not slash:
        _said(_host, text)
        raise ValueError(f"lacks its prefix length; valid: e.g. '{text}/24'")
    address = _said(_host, host)
    _prefix(text, address)
    if address.is_unspecified or address.is_multicast:
        raise ValueError("is an impossible address for a device; valid: a unicast address")
    return text


def _prefix(text: str, address: Address) -> int:
    length, most = text.partition("/")[2], address.max_prefixlen
    if not length.isdecimal() or not length.isascii() or int(length) > most:
        raise ValueError(f"has the impossible prefix length '{length}'; valid: 0 to {most}")
    return int(length)


def _said(parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        if "has a zone" in str(error):
            raise
        raise ValueError("is an impossible address; valid: an IPv4 or IPv6 address") from None


def _single(text: str) -> str:
    """An address without prefix length."""
    if "/" in text:
        raise ValueError("has a prefix length; valid: an address without one")
    _said(_host, text)
    return text


def _destination(text: str) -> str:
    """`default`, a network, or one host: `198.51.100.0/24`."""
    if text == "default":
        return text
    return _network(text)


def _network(text: str) -> str:
    host, slash, _ = text.partition("/")
    address = _said(_host, host)
    if slash:
        _prefix(text, address)
        network = ipaddress.ip_network(text, strict=False)
        if network.network_address != address:
            raise ValueError(f"has bits set beyond its prefix length; did you mean '{network}'?")
    return text


def _mac(text: str) -> str:
    # The kernel refuses group addresses and all zeros: include/linux/etherdevice.h, is_valid_ether_addr
    if int(text[:2], 16) & 1 or not int(text.replace(":", ""), 16):
        raise ValueError("is a group address, or all zeros; valid: an address of one device, like 02:00:00:00:00:01")
    return text


def _version(text: str | None) -> int | None:
    """4 or 6, or None where the text does not say (`default`)."""
    return None if text is None or text == "default" else ipaddress.ip_address(text.partition("/")[0]).version


def _route(values: dict[str, Any], node: Node, context: Context) -> Any:
    via, to, kind = values.get("via"), values["to"], values.get("type", "unicast")
    if via is None and kind in ("unicast", "multicast", "nat", "anycast") and values.get("scope", "global") == "global":
        return context.add(node, "a route needs 'via' (or 'scope: link', or a 'type' like blackhole)")
    families = {key: _version(values.get(key)) for key in ("to", "via", "from")}
    if via is not None:
        for key in ("to", "from"):
            if families[key] not in (None, families["via"]):
                what = f"{shown(via)} is IPv{families['via']}, but '{key}' is IPv{families[key]} ({shown(values[key])})"
                return context.add(node.get("via"), f"{what}; valid: an IPv{families[key]} address")
    elif to == "default" and families["from"] is None:
        return context.add(node, "'to: default' without 'via' has no family; valid: '0.0.0.0/0' or '::/0'")
    return values


def _rule(values: dict[str, Any], node: Node, context: Context) -> Any:
    ends = [values[key] for key in ("from", "to") if key in values]
    if not ends:
        return context.add(node, "a policy needs 'from' or 'to'")
    versions = {_version(end) for end in ends}
    if len(versions) > 1:
        return context.add(node, f"'from' and 'to' are of two families: {shown(ends[0])}, {shown(ends[1])}")
    return values


ADDRESS = Text("an address with its prefix length, like 192.0.2.10/24", parse=_address)
SINGLE = Text("an address like 192.0.2.1", parse=_single)
NETWORK = Text("a network like 198.51.100.0/24", parse=_network)
DESTINATION = Text("'default', or a network like 198.51.100.0/24", parse=_destination)
DEVICE = Text("the name of a device (at most 15 characters)", IFNAME)
MTU = Whole(68, 65535)
NUMBER = Whole(0, 4294967295)
TIME = Scalar("a time in seconds, like 15 or 15s or 100ms", r"[0-9]+(?:s|ms)?", str)
_REFUSE = ("blackhole", "prohibit", "throw", "unreachable")
TYPES = ("unicast", "anycast", "broadcast", "local", "multicast", "nat", *_REFUSE)
BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")

_ROUTE = Record(
    {
        "to": Field(DESTINATION, "where the packets go", required=True),
        "via": Field(SINGLE, "the gateway"),
        "from": Field(SINGLE, "the preferred source address"),
        "metric": Field(NUMBER, "lower is preferred"),
        "table": Field(Whole(1, 4294967295), "the routing table; main is 254"),
        "scope": Field(Choice(("global", "link", "host"), "scope")),
        "type": Field(Choice(TYPES, "type of route")),
        "on-link": Field(FLAG, "the gateway is reachable though no address says so"),
        "mtu": Field(MTU),
    },
    _route,
    "a route like {to: default, via: 192.0.2.1}",
)
_RULE = Record(
    {
        "from": Field(NETWORK),
        "to": Field(NETWORK),
        "table": Field(Whole(1, 4294967295), "the routing table to look in", required=True),
        "priority": Field(NUMBER, "lower is asked first"),
        "mark": Field(NUMBER),
        "type-of-service": Field(Whole(0, 255)),
    },
    _rule,
    "a policy like {from: 192.0.2.0/24, table: 100}",
)
ROUTE = Defined("route", _ROUTE)
POLICY = Defined("policy", _RULE)
_NAMESERVERS = Record({"addresses": Field(ListOf(SINGLE)), "search": Field(ListOf(Text("a domain", r"\S+")))})

_DEVICE: dict[str, Field] = {
    "addresses": Field(ListOf(ADDRESS), "addresses with their prefix lengths"),
    "routes": Field(ListOf(ROUTE)),
    "routing-policy": Field(ListOf(POLICY)),
    "nameservers": Field(_NAMESERVERS),
    "mtu": Field(MTU, "bytes"),
    "macaddress": Field(Text("a MAC address like 02:00:00:00:00:01", "(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", _mac)),
    "dhcp4": Field(FLAG),
    "dhcp6": Field(FLAG),
    "accept-ra": Field(FLAG, "take addresses and routes from router advertisements"),
    "link-local": Field(ListOf(Choice(("ipv4", "ipv6"), "family")), "families that get link-local addresses"),
    "optional": Field(FLAG, "a boot does not wait for it"),
}
_STP = {
    "stp": Field(FLAG),
    "forward-delay": Field(TIME),
    "hello-time": Field(TIME),
    "max-age": Field(TIME),
    "ageing-time": Field(TIME),
    "priority": Field(Whole(0, 65535)),
    "path-cost": Field(MapOf(DEVICE, NUMBER)),
    "port-priority": Field(MapOf(DEVICE, Whole(0, 63))),
}
_BOND = {
    "mode": Field(Choice(BOND_MODES, "mode")),
    "mii-monitor-interval": Field(TIME, "milliseconds when no unit is given"),
    "primary": Field(DEVICE),
    "lacp-rate": Field(Choice(("slow", "fast"), "rate")),
    "min-links": Field(NUMBER),
    "up-delay": Field(TIME),
    "down-delay": Field(TIME),
    "transmit-hash-policy": Field(Text("a policy like layer2", r"[a-z0-9+-]+")),
    "fail-over-mac-policy": Field(Choice(("none", "active", "follow"), "policy")),
}
_PORTS = {"interfaces": Field(ListOf(DEVICE), "the devices that are its ports")}
_VLAN = {
    "id": Field(Whole(1, 4094), "IEEE 802.1Q: 1 to 4094", required=True),
    "link": Field(DEVICE, "the device below", required=True),
}

CONFIG = Record(
    {
        "version": Field(Whole(2, 2)),
        "ethernets": Field(MapOf(DEVICE, Record(_DEVICE)), "the machine's ports"),
        "bridges": Field(MapOf(DEVICE, Record({**_DEVICE, **_PORTS, "parameters": Field(Record(_STP))}))),
        "bonds": Field(MapOf(DEVICE, Record({**_DEVICE, **_PORTS, "parameters": Field(Record(_BOND))}))),
        "vlans": Field(MapOf(DEVICE, Record({**_DEVICE, **_VLAN}))),
    },
    what="a mapping of ethernets, bridges, bonds and vlans",
)
WHOLE = Defined("config", CONFIG)
PATCH = Defined("config-patch", Patch(CONFIG))


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` applied: mappings merge, lists and scalars replace, null removes."""
    made = merge_nodes(node_of(base), node_of(patch)).plain()
    assert isinstance(made, dict)
    return made


def merge_nodes(base: Node, patch: Node) -> Node:
    """`merge` for trees; what comes from the patch keeps its place."""
    if patch.kind != "mapping":
        return patch
    entries = {key.text: (key, value) for key, value in base.items()}
    for key, value in patch.items():
        if value.kind == "scalar" and value.value is None:
            entries.pop(key.text, None)
        elif value.kind == "mapping":
            below = entries[key.text][1] if key.text in entries else Node("mapping", ())
            entries[key.text] = (key, merge_nodes(below, value))
        else:
            entries[key.text] = (key, value)
    return Node("mapping", tuple(entries.values()), patch.line, patch.column)


def check(node: Node, ports: Sequence[str], context: Context) -> bool:
    """Whether a whole configuration is sound for a machine with these ports; what is wrong is noted."""
    before = len(context.mistakes.found)
    WHOLE.check(node, context)
    check_devices(node, ports, context)
    return len(context.mistakes.found) == before


def check_merged(base: Node, patch: Node, ports: Sequence[str], context: Context) -> Node | None:
    """The merged tree if patch and result are sound; what is wrong is noted at its place in the patch."""
    sound = PATCH.check(patch, context) is not INVALID
    merged = merge_nodes(base, patch)
    apart = Mistakes(context.mistakes.file)
    whole = replace(context, mistakes=apart, partial=False)
    if sound:
        WHOLE.check(merged, whole)
    check_devices(merged, ports, whole)
    places = {(node.line, node.column) for node in _walk(patch)}
    for mistake in apart.found:
        if (mistake.line, mistake.column) in places:
            context.mistakes.found.append(mistake)
        else:  # it is the base (another file, perhaps) that no longer fits
            context.add(patch, f"does not fit what it changes: {mistake.message}")
    return merged if sound and not apart.found else None


def validate(config: Mapping[str, Any], ports: Sequence[str], file: str = "config") -> None:
    """Raises BadInput when a whole configuration is not sound for a machine with these ports."""
    mistakes = Mistakes(file)
    check(node_of(config), ports, Context(mistakes))
    if mistakes.found:
        raise BadInput([Mistake(file, mistake.message) for mistake in mistakes.found])


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.value if node.kind != "scalar" else ():
        for part in child if node.kind == "mapping" else (child,):
            yield from _walk(part)


def check_devices(node: Node, ports: Sequence[str], context: Context) -> None:
    """Names fit together: ports exist, no name means two things, nobody has two masters or is below itself.

    Works on what is otherwise wrong too, and is silent about what the shapes have said.
    """
    defined: dict[str, str] = dict.fromkeys(ports, "ethernets")
    for kind in KINDS:
        for name, _ in _devices(node, kind):
            if not re.fullmatch(IFNAME, name.text):
                continue  # said already
            if kind == "ethernets" and name.text not in ports:
                context.add(name, f"unknown port {shown(name.text)}; {nearest(name.text, ports)}")
            elif defined.setdefault(name.text, kind) != kind:
                context.add(name, f"the name {shown(name.text)} is taken: it is one of the {defined[name.text]} too")
    below: dict[str, list[str]] = {}
    masters: dict[str, str] = {}
    for kind in ("bridges", "bonds"):
        for name, device in _devices(node, kind):
            for item in _items(device.get("interfaces")):
                if _known(item, defined, context):
                    below.setdefault(name.text, []).append(item.text)
                    if masters.setdefault(item.text, name.text) != name.text:
                        context.add(item, f"{shown(item.text)} is a port of {shown(masters[item.text])} already")
    for name, device in _devices(node, "vlans"):
        link = device.get("link")
        if link and _known(link, defined, context):
            below.setdefault(name.text, []).append(link.text)
    for kind in KINDS:
        for name, _ in _devices(node, kind):
            if _reaches(name.text, below):
                context.add(name, f"{shown(name.text)} is below itself")
                return


def _devices(node: Node, kind: str) -> Iterator[tuple[Node, Node]]:
    devices = node.get(kind)
    return devices.items() if devices else iter(())


def _items(node: Node | None) -> tuple[Node, ...]:
    return tuple(node.value) if node and node.kind == "list" else ()


def _known(item: Node, defined: Mapping[str, str], context: Context) -> bool:
    if item.text not in defined and re.fullmatch(IFNAME, item.text):
        context.add(item, f"unknown device {shown(item.text)}; {nearest(item.text, defined)}")
    return item.text in defined


def _reaches(start: str, below: Mapping[str, Sequence[str]]) -> bool:
    """Whether going down from `start` comes back to it."""
    waiting, seen = list(below.get(start, ())), set[str]()
    while waiting:
        name = waiting.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            waiting.extend(below.get(name, ()))
    return False


def families(config: Mapping[str, Any]) -> set[str]:
    """v4 and v6, as far as the configuration gives the machine addresses of that family."""
    found: set[str] = set()
    for kind in KINDS:
        for device in config.get(kind, {}).values():
            found.update(f"v{_version(address)}" for address in device.get("addresses", ()))
            found.update({"v4"} if device.get("dhcp4") else ())
            found.update({"v6"} if device.get("dhcp6") or device.get("accept-ra") else ())
    return found


def addresses(config: Mapping[str, Any], device: str) -> list[str]:
    """The addresses that the configuration gives a device, with their prefix lengths."""
    return [text for kind in KINDS for text in config.get(kind, {}).get(device, {}).get("addresses", ())]

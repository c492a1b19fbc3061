"""Arguments of `ip route add` and `ip rule add` (ip-route(8), ip-rule(8)) -> values. Pure.

Only what the laboratory can give to the kernel and read back; any other word is an error that names it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

TABLES = {"default": 253, "main": 254, "local": 255}
SCOPES = {"global": 0, "universe": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
PROTOCOLS = {"unspec": 0, "redirect": 1, "kernel": 2, "boot": 3, "static": 4, "ra": 9, "dhcp": 16}
ROUTE_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5,
               "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}  # fmt: skip
RULE_ACTIONS = {"blackhole": 6, "unreachable": 7, "prohibit": 8}
_IP_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58}


@dataclass(frozen=True)
class Hop:
    """One `nexthop` of a route with several."""

    gateway: str | None = None
    device: str | None = None
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True)
class Route:
    """A route as it is handed to the kernel. `metric` 0 is the kernel's default (IPv6: 1024)."""

    family: int  # 4 | 6
    to: str  # "default" or a network with prefix length
    type: str = "unicast"
    via: str | None = None
    device: str | None = None
    table: int = 254
    metric: int = 0
    tos: int = 0
    source: str | None = None
    scope: int | None = None  # None: as `ip` chooses it
    protocol: int = 3  # boot, as `ip` does
    onlink: bool = False
    metrics: tuple[tuple[str, int], ...] = ()  # mtu, advmss, window, …
    hops: tuple[Hop, ...] = ()
    mode: str = "add"  # add: EEXIST leads to replace, with a warning | keep: EEXIST is fine | replace
    where: str = field(default="", compare=False)  # file:line, for messages
    written: str = field(default="", compare=False)

    @property
    def key(self) -> tuple[int, int, str, int, int]:
        """What the kernel keeps apart: family, table, destination, TOS, metric."""
        metric = self.metric or (1024 if self.family == 6 else 0)
        to = self.to if self.to != "default" else ("0.0.0.0/0" if self.family == 4 else "::/0")
        return self.family, self.table, to, self.tos, metric


@dataclass(frozen=True)
class Rule:
    """A rule of the routing policy data base. `priority` None: the kernel's choice, by the order of adding."""

    family: int
    source: str | None = None
    to: str | None = None
    iif: str | None = None
    oif: str | None = None
    mark: int | None = None
    mask: int | None = None
    tos: int = 0
    table: int = 254
    priority: int | None = None
    action: str = "lookup"
    inverted: bool = False
    suppress_prefixlength: int | None = None
    ip_protocol: int | None = None
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    where: str = field(default="", compare=False)
    written: str = field(default="", compare=False)


class _Words:
    """The arguments, one after another; `ip` takes keywords in any order."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._at = list(words), 0

    def more(self) -> bool:
        return self._at < len(self._words)

    def peek(self) -> str:
        return self._words[self._at] if self.more() else ""

    def take(self, after: str = "") -> str:
        if not self.more():
            raise ValueError(f"{after!r} needs a value")
        self._at += 1
        return self._words[self._at - 1]


def is_number(text: str) -> bool:
    """A few decimal digits and nothing else (str.isdigit also takes those of other scripts)."""
    return text.isascii() and text.isdigit() and len(text) <= 20


def is_device_name(text: str) -> bool:
    """What the kernel's dev_valid_name takes (1 to 15 bytes, no slash, no colon, no white space), and is UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= 15 and text not in (".", "..") and not re.search(r"[/:\s]", text)


def _device(words: _Words, after: str) -> str:
    text = words.take(after)
    if not is_device_name(text):
        raise ValueError(f"{after} {text!r} cannot be the name of a device")
    return text


def number(text: str, what: str, low: int = 0, high: int = 2**32 - 1) -> int:
    """A number as `ip` reads it (decimal, 0x hexadecimal). Raises ValueError with what would be valid."""
    hexadecimal = re.fullmatch("0[xX][0-9a-fA-F]+", text)
    value = int(text, 16) if hexadecimal else int(text) if is_number(text) else -1
    if not low <= value <= high:
        raise ValueError(f"{what} {text!r} is no number from {low} to {high}")
    return value


def named(text: str, what: str, names: Mapping[str, int], high: int = 255) -> int:
    """A number or one of `names`. Raises ValueError."""
    if text in names:
        return names[text]
    if not is_number(text[:1]):
        raise ValueError(f"{what} {text!r} is not known (a number, or one of {', '.join(sorted(names))})")
    return number(text, what, 0, high)


def address(text: str, family: int, what: str) -> str:
    """A canonical address without prefix length. Raises ValueError."""
    try:
        value = ipaddress.ip_address(text)
    except ValueError:
        value = None
    if value is None or value.version != family or "%" in text:
        raise ValueError(f"{what} {text!r} is no IPv{family} address")
    return str(value)


def network(text: str, family: int, what: str, loose: bool = False) -> str:
    """A canonical ADDRESS/LENGTH, or "default". `loose`: host bits are cut off (as the kernel does for IPv6).

    Raises ValueError.
    """
    if text in ("default", "any", "all"):
        return "default"
    if family == 4 and is_number(text.partition("/")[0]):
        raise ValueError(f"{what} {text!r} is no IPv4 network")
    try:
        value = ipaddress.ip_network(text, strict=False)
    except ValueError:
        value = None
    if value is None or value.version != family or "%" in text:
        raise ValueError(f"{what} {text!r} is no IPv{family} network")
    if not loose and family == 4 and str(value.network_address) != text.partition("/")[0]:
        raise ValueError(f"{what} {text!r} has host bits set (the network is {value})")
    return "default" if value.prefixlen == 0 and int(value.network_address) == 0 else str(value)


def _gateway(words: _Words, family: int) -> str:
    text = words.take("via")
    if text in ("inet", "inet6"):
        if text != ("inet" if family == 4 else "inet6"):
            raise ValueError(f"'via {text}': gateways of another family are not supported")
        text = words.take("via")
    return address(text, family, "via")


_METRICS = ("mtu", "advmss", "window", "hoplimit", "initcwnd", "initrwnd", "rtt", "rttvar", "ssthresh", "cwnd",
            "reordering", "quickack")  # fmt: skip


def _hops(words: _Words, family: int) -> tuple[Hop, ...]:
    hops: list[Hop] = []
    while words.more():
        word = words.take()
        if word == "nexthop":
            hops.append(Hop())
        elif word == "via":
            hops[-1] = replace(hops[-1], gateway=_gateway(words, family))
        elif word == "dev":
            hops[-1] = replace(hops[-1], device=_device(words, word))
        elif word == "weight":
            hops[-1] = replace(hops[-1], weight=number(words.take(word), word, 1, 256))
        elif word == "onlink":
            hops[-1] = replace(hops[-1], onlink=True)
        else:
            raise ValueError(f"{word!r} in a nexthop is not supported")
    return tuple(hops)


def parse_route(arguments: Sequence[str], family: int, tables: Mapping[str, int], where: str = "") -> Route:
    """`[TYPE] PREFIX [via …] [dev …] [metric …] …` -> Route. Raises ValueError that names the word."""
    words = _Words(arguments)
    kind = "unicast"
    if words.peek() in ROUTE_TYPES:
        kind = words.take()
    if words.peek() == "to":
        words.take()
    if not words.more():
        raise ValueError("a route needs a destination")
    route = Route(family, network(words.take(), family, "destination"), kind, where=where)
    while words.more():
        if words.peek() == "nexthop":
            route = replace(route, hops=_hops(words, family))
        else:
            route = _route_word(words.take(), words, route, tables)
    if route.type in ("local", "broadcast", "anycast") and "table" not in arguments:
        route = replace(route, table=TABLES["local"])
    return replace(route, written=" ".join(arguments))


def _route_word(word: str, words: _Words, route: Route, tables: Mapping[str, int]) -> Route:
    setters: dict[str, Callable[[], Route]] = {
        "via": lambda: replace(route, via=_gateway(words, route.family)),
        "dev": lambda: replace(route, device=_device(words, word)),
        "oif": lambda: replace(route, device=_device(words, word)),
        "table": lambda: replace(route, table=table(words.take(word), tables)),
        "src": lambda: replace(route, source=address(words.take(word), route.family, "src")),
        "scope": lambda: replace(route, scope=named(words.take(word), word, SCOPES)),
        "onlink": lambda: replace(route, onlink=True),
    }
    if word in setters:
        return setters[word]()
    if word in ("metric", "priority", "preference"):
        return replace(route, metric=number(words.take(word), word))
    if word in ("tos", "dsfield"):
        return replace(route, tos=number(words.take(word), word, 0, 255))
    if word in ("proto", "protocol"):
        return replace(route, protocol=named(words.take(word), word, PROTOCOLS))
    if word in _METRICS:
        if words.peek() == "lock":
            raise ValueError(f"'{word} lock' is not supported")
        return replace(route, metrics=(*route.metrics, (word, number(words.take(word), word))))
    raise ValueError(f"{word!r} is not supported in a route")


def table(text: str, tables: Mapping[str, int]) -> int:
    """The number of a routing table. Raises ValueError."""
    return named(text, "table", {**tables, **TABLES}, 2**32 - 1)


def _ports(text: str, what: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return number(low, what, 1, 65535), number(high or low, what, 1, 65535)


def parse_rule(arguments: Sequence[str], family: int, tables: Mapping[str, int], where: str = "") -> Rule:
    """`[not] [from …] [to …] [fwmark …] [table …] [priority …] …` -> Rule. Raises ValueError that names the word."""
    words = _Words(arguments)
    rule = Rule(family, where=where, written=" ".join(arguments))
    while words.more():
        word = words.take()
        if word == "not":
            rule = replace(rule, inverted=True)
        elif word in RULE_ACTIONS:
            rule = replace(rule, action=word)
        elif word == "type":
            action = words.take(word)
            if action != "unicast" and action not in RULE_ACTIONS:
                raise ValueError(f"type {action!r} is not supported in a rule")
            rule = replace(rule, action="lookup" if action == "unicast" else action)
        else:
            rule = _rule_word(word, words, rule, tables)
    return rule


def _rule_word(word: str, words: _Words, rule: Rule, tables: Mapping[str, int]) -> Rule:
    def selector() -> str | None:
        found = network(words.take(word), rule.family, word, loose=True)
        return None if found == "default" else found

    def marked() -> Rule:
        mark, _, mask = words.take(word).partition("/")
        return replace(rule, mark=number(mark, word), mask=number(mask, word) if mask else None)

    setters: dict[str, Callable[[], Rule]] = {
        "from": lambda: replace(rule, source=selector()),
        "to": lambda: replace(rule, to=selector()),
        "iif": lambda: replace(rule, iif=_device(words, word)),
        "dev": lambda: replace(rule, iif=_device(words, word)),
        "oif": lambda: replace(rule, oif=_device(words, word)),
        "fwmark": marked,
        "tos": lambda: replace(rule, tos=number(words.take(word), word, 0, 255)),
        "dsfield": lambda: replace(rule, tos=number(words.take(word), word, 0, 255)),
        "table": lambda: replace(rule, table=table(words.take(word), tables)),
        "lookup": lambda: replace(rule, table=table(words.take(word), tables)),
        "suppress_prefixlength": lambda: replace(rule, suppress_prefixlength=number(words.take(word), word, 0, 128)),
        "ipproto": lambda: replace(rule, ip_protocol=named(words.take(word), word, _IP_PROTOCOLS)),
        "sport": lambda: replace(rule, sport=_ports(words.take(word), word)),
        "dport": lambda: replace(rule, dport=_ports(words.take(word), word)),
    }
    if word in setters:
        return setters[word]()
    if word in ("priority", "pref", "preference", "order"):
        return replace(rule, priority=number(words.take(word), word))
    raise ValueError(f"{word!r} is not supported in a rule")


def read_tables(text: str) -> dict[str, int]:
    """/etc/iproute2/rt_tables: name -> number. Lines that make no sense are left out, as `ip` does."""
    tables: dict[str, int] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2 and is_number(words[0]):
            tables[words[1]] = int(words[0])
    return tables

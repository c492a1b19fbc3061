"""The kernel's network state as values keyed by name, their written form, and how two states differ, in words.

What is left out, because it changes by itself or belongs to nobody's configuration:

- interface indexes, counters, carrier, operational state, queue lengths in use, bridge port states and timers;
- lifetimes of addresses and routes (an address or route that comes back gets what was left of it when it was saved),
  whether an IPv6 address is still tentative or has failed detection, temporary (privacy) addresses, and `deprecated`
  of an address that has a lifetime;
- the order of a device's IPv6 addresses (that of IPv4 addresses tells primary from secondary, and counts);
- neighbours and forwarding entries that were learned, and those that the kernel makes of a device's own addresses;
- the MAC address of a bond's port, which follows from the bond, and that of a bridge which follows its ports, where
  these differ;
- hardware that was plugged in since, and `routes` that are copies in a cache;
- what stands on a device that is new or gone is not listed besides the device;
- per-interface IPv6 settings where the device had none (its MTU was below 1280);
- `stable_secret`, which is nobody's to read, and IPv6's own MTU, which follows.

What the kernel makes by itself (link-local addresses, connected, local, broadcast, anycast and multicast routes) is
compared, but for the IPv6 routes of an address whose duplicate address detection has not ended: they come when it has.
A random MAC address is compared too, as long as the device lives: neighbours have learned it.
"""

from __future__ import annotations

from snapcore import state
from snapcore.errors import Corrupt
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

FOREVER = 0xFFFFFFFF
"""A lifetime in seconds that never ends (rtnetlink(7), INFINITY_LIFE_TIME)."""
KERNEL = 2
"""The routing protocol of what the kernel made (RTPROT_KERNEL)."""
NO_RULES = "\n"
"""`State.nft` of an empty rule set; "" is one that was not asked for."""
NONE: dict[str, Any] = {}
FALLBACKS = {
    "tunl0": "ipip", "gre0": "gre", "gretap0": "gretap", "erspan0": "erspan", "sit0": "sit", "ip_vti0": "vti",
    "ip6tnl0": "ip6tnl", "ip6gre0": "ip6gre", "ip6_vti0": "vti6",
}  # fmt: skip
"""Tunnels that are there with their module, in each namespace, by kind (Documentation/admin-guide/sysctl/net.rst,
fb_tunnels_only_for_init_net)."""


class Link(NamedTuple):
    """A network device."""

    kind: str
    """`bridge`, `vlan`, `veth`, … (IFLA_INFO_KIND); "" for hardware and the loopback."""
    master: str = ""
    """The bridge, bond or VRF whose port it is."""
    mtu: int = 1500
    mac: str = ""
    up: bool = False
    """As the administrator wants it (IFF_UP)."""
    flags: tuple[str, ...] = ("multicast",)
    """Of `noarp`, `promisc`, `allmulticast`, `multicast`, `dynamic`; sorted."""
    altnames: tuple[str, ...] = ()
    parent: str = ""
    """The device below it (VLAN, macvlan, VXLAN), or a veth's peer; "" if there is none in this namespace."""
    foreign: bool = False
    """The parent or peer is in another network namespace."""
    options: Mapping[str, Any] = NONE
    """Of its kind, named as the kernel does without prefix: {"stp_state": 1, "forward_delay": 1500} (1/100 s)."""
    port: Mapping[str, Any] = NONE
    """What its master keeps about it: {"cost": 2, "isolated": 0}."""
    random_mac: bool = False
    alias: str = ""
    group: int = 0
    queue: int = 1000
    """Length of its transmit queue, packets."""
    ifindex: int = 0
    """Not compared; tells a device that was renamed from another one, within one boot."""


class Address(NamedTuple):
    """An address of a device."""

    family: str
    """`v4` or `v6`."""
    address: str
    """With the length of its prefix: 192.0.2.10/24."""
    peer: str = ""
    broadcast: str = ""
    scope: int = 0
    """0 universe, 253 link, 254 host."""
    label: str = ""
    """Where it is not the device's name."""
    flags: tuple[str, ...] = ()
    """Names of `ip address`, sorted: `secondary`, `noprefixroute`, `nodad`, `home`, `deprecated`, …"""
    metric: int = 0
    """Of the route that it brings; 0 is the default."""
    protocol: int = 0
    """Who made it (IFA_PROTO): 1 loopback, 2 router advertisement, 3 link-local by the kernel."""
    dynamic: bool = False
    """It has a lifetime."""
    preferred: int = FOREVER
    """Seconds; not compared."""
    valid: int = FOREVER
    """Seconds; not compared."""
    tentative: bool = False
    """Not compared."""


class Hop(NamedTuple):
    """A next hop of a route."""

    device: str = ""
    gateway: str = ""
    """`inet6 ADDRESS` for an IPv4 route by an IPv6 gateway."""
    weight: int = 1
    onlink: bool = False


class Route(NamedTuple):
    """A route of any table."""

    family: str
    destination: str
    """A prefix, or `default`."""
    table: int = 254
    type: str = "unicast"
    """`unicast`, `local`, `broadcast`, `anycast`, `multicast`, `blackhole`, `unreachable`, `prohibit`, `throw`, …"""
    hops: tuple[Hop, ...] = ()
    metric: int = 0
    protocol: int = 3
    scope: int = 0
    prefsrc: str = ""
    source: str = ""
    """A prefix: the route holds for packets from there (IPv6)."""
    tos: int = 0
    metrics: tuple[tuple[str, Any], ...] = ()
    """(name, value) of `mtu`, `advmss`, `window`, …; sorted."""
    preference: int = 0
    """Of a router, as IPv6 has it: 0 medium, 1 high, 3 low."""
    flow: int = 0
    encap: str = ""
    """Told apart, not restored: a digest of its encapsulation."""
    expires: int = 0
    """Seconds from when it was read; not compared. 0 is never."""


class Rule(NamedTuple):
    """A routing policy rule."""

    family: str
    priority: int
    action: str = "lookup"
    table: int = 254
    source: str = ""
    destination: str = ""
    tos: int = 0
    invert: bool = False
    attributes: tuple[tuple[str, Any], ...] = ()
    """(name, value) of the rest: `iifname`, `oifname`, `fwmark`, `uid_range`, `protocol`, …; sorted."""


class Neighbour(NamedTuple):
    """A permanent entry of the neighbour table, or a proxy entry."""

    device: str
    address: str
    mac: str = ""
    proxy: bool = False
    router: bool = False


class Fdb(NamedTuple):
    """A static entry of the forwarding table of a bridge's port or of a VXLAN device."""

    device: str
    mac: str
    where: str = "master"
    """`master`: the bridge's table; `self`: the device's own."""
    permanent: bool = False
    vlan: int = 0
    destination: str = ""
    """Of a VXLAN device: the other end."""
    port: int = 0
    vni: int = 0
    via: str = ""
    sticky: bool = False


class Vlan(NamedTuple):
    """A VLAN that a port of a bridge, or the bridge itself, is a member of."""

    id: int
    pvid: bool = False
    untagged: bool = False


class Qdisc(NamedTuple):
    """A queueing discipline at the root of a device, or at its ingress."""

    kind: str
    handle: int
    parent: int
    options: str = ""
    """As the kernel has them (TCA_OPTIONS), hexadecimal. Classes and filters are not saved."""


class State(NamedTuple):
    """The network state of a kernel, of one network namespace."""

    links: dict[str, Link]
    addresses: dict[str, tuple[Address, ...]]
    """By device, in the kernel's order."""
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    neighbours: tuple[Neighbour, ...]
    fdb: tuple[Fdb, ...]
    vlans: dict[str, tuple[Vlan, ...]]
    sysctls: dict[str, str]
    """Path below /proc/sys/net → value: "ipv4/conf/eth0/rp_filter" → "1"."""
    qdiscs: dict[str, tuple[Qdisc, ...]]
    """Only those that somebody has set."""
    nft: str = ""
    active: Mapping[str, Mapping[str, str]] = NONE
    """What the daemons had at work, as `Stack.active` says it, by stack. Not the kernel's, and not compared."""


class Change(NamedTuple):
    """One thing that is not what it was."""

    interface: str
    """"" where it is no interface's."""
    object: str
    """`link`, `address`, `route`, `rule`, `neighbour`, `fdb`, `vlan`, `sysctl`, `qdisc` or `nft`."""
    words: str

    def __str__(self) -> str:
        return f"{self.interface}: {self.words}" if self.interface else self.words


def empty() -> State:
    return State({}, {}, (), (), (), (), {}, {}, {})


# -- written form ------------------------------------------------------------------------------------------------


def to_json(saved: State) -> bytes:
    """`{"format": 1, "kind": "kernel", "links": {NAME: {FIELD: VALUE, …}}, …, "sha256"}`, as `state.seal` writes it."""
    return state.seal({"format": state.FORMAT, "kind": "kernel", **_plain(saved)})


def from_json(data: bytes, what: str) -> State:
    """The state in `data`; `Corrupt`, naming `what`, if it is torn, altered or of a newer version."""
    document = state.unseal(data, what, "kernel")

    def several(kind: Callable[..., Any], key: str) -> tuple[Any, ...]:
        return tuple(_value(kind, plain) for plain in document[key])

    def by_name(kind: Callable[..., Any], key: str) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(_value(kind, plain) for plain in group) for name, group in document[key].items()}

    try:
        return State(
            links={name: _value(Link, plain) for name, plain in document["links"].items()},
            addresses=by_name(Address, "addresses"),
            routes=tuple(
                route._replace(hops=tuple(_value(Hop, hop) for hop in plain["hops"]))
                for route, plain in zip(several(Route, "routes"), document["routes"])
            ),
            rules=several(Rule, "rules"),
            neighbours=several(Neighbour, "neighbours"),
            fdb=several(Fdb, "fdb"),
            vlans=by_name(Vlan, "vlans"),
            sysctls=dict(document["sysctls"]),
            qdiscs=by_name(Qdisc, "qdiscs"),
            nft=document["nft"],
            active=document.get("active", NONE),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"{what}: makes no sense: {error!r}") from None


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value


def _value(kind: Callable[..., Any], plain: Mapping[str, Any]) -> Any:
    return kind(**{name: frozen(part) for name, part in plain.items()})


def frozen(value: Any) -> Any:
    """Lists as tuples, at every depth: what a JSON document or a message holds, as fields of values have it."""
    if isinstance(value, (tuple, list)):
        return tuple(frozen(part) for part in value)
    if isinstance(value, dict):
        return {name: frozen(part) for name, part in value.items()}
    return value


# -- words -------------------------------------------------------------------------------------------------------

TABLES = {253: "default", 254: "main", 255: "local"}
PROTOCOLS = {0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp", 186: "bgp"}
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}


def address_words(address: Address) -> str:
    """As `ip address` has it: 192.0.2.10/24 brd 192.0.2.255 scope global."""
    words = [address.address]
    for word, value in (("peer", address.peer), ("brd", address.broadcast), ("label", address.label)):
        words += [word, value] if value else []
    words += [f"scope {SCOPES[address.scope]}"] if SCOPES.get(address.scope, "global") != "global" else []
    words += [*address.flags, *(["dynamic"] if address.dynamic else [])]
    words += [f"metric {address.metric}"] if address.metric else []
    return " ".join(words)


def route_words(route: Route) -> str:
    """As `ip route` has it: default via 192.0.2.1 dev eth0 table 100."""
    words = [] if route.type == "unicast" else [route.type]
    words.append(route.destination)
    words += [f"from {route.source}"] if route.source else []
    for hop in route.hops:
        words += ["nexthop"] if len(route.hops) > 1 else []
        words += [f"via {hop.gateway}"] if hop.gateway else []
        words += [f"dev {hop.device}"] if hop.device else []
        words += ["onlink"] if hop.onlink else []
        words += [f"weight {hop.weight}"] if len(route.hops) > 1 else []
    words += [f"table {TABLES.get(route.table, route.table)}"] if route.table != 254 else []
    words += [f"proto {PROTOCOLS.get(route.protocol, route.protocol)}"] if route.protocol != 3 else []
    words += [f"scope {SCOPES.get(route.scope, route.scope)}"] if route.scope else []
    words += [f"src {route.prefsrc}"] if route.prefsrc else []
    words += [f"tos {route.tos:#x}"] if route.tos else []
    words += [f"metric {route.metric}"] if route.metric else []
    words += [f"{name} {value}" for name, value in route.metrics]
    words += [f"pref {route.preference}"] if route.preference else []
    return " ".join(words)


def rule_words(rule: Rule) -> str:
    """As `ip rule` has it: 100: from 10.0.0.0/8 lookup 100."""
    words = [f"{rule.priority}:", *(["not"] if rule.invert else []), f"from {rule.source or 'all'}"]
    words += [f"to {rule.destination}"] if rule.destination else []
    words += [f"tos {rule.tos:#x}"] if rule.tos else []
    words += [f"{name} {value}" for name, value in rule.attributes if name != "protocol"]
    action = f"lookup {TABLES.get(rule.table, rule.table)}" if rule.action == "lookup" else rule.action
    return " ".join([*words, action])


def neighbour_words(entry: Neighbour) -> str:
    return f"{'proxy ' if entry.proxy else ''}{entry.address}" + (f" at {entry.mac}" if entry.mac else "")


def fdb_words(entry: Fdb) -> str:
    words = [entry.mac, *([f"vlan {entry.vlan}"] if entry.vlan else [])]
    words += [f"dst {entry.destination}"] if entry.destination else []
    return " ".join([*words, entry.where, "permanent" if entry.permanent else "static"])


def vlan_words(vlan: Vlan) -> str:
    return " ".join([str(vlan.id), *(["pvid"] if vlan.pvid else []), *(["untagged"] if vlan.untagged else [])])


# -- differences -------------------------------------------------------------------------------------------------


def kept(old: State, now: State, new_devices: str = "delete", external_ports: str = "keep") -> frozenset[str]:
    """The devices of `now` that `old` does not know and that stay.

    All of them with `new_devices="keep"`; hardware always, and the tunnels without an end that a module brings along
    when it is loaded (`FALLBACKS`): the kernel deletes neither. With `external_ports="keep"` what somebody else has put
    under a master of `old`: a veth whose other end is in another namespace (a container's), a tap device (a guest's).
    """

    def stays(name: str, link: Link) -> bool:
        guest = link.kind == "tun" or (link.kind == "veth" and link.foreign)
        return (
            new_devices == "keep"
            or not link.kind
            or FALLBACKS.get(name) == link.kind
            or (external_ports == "keep" and guest and link.master in old.links)
        )

    return frozenset(name for name, link in now.links.items() if name not in old.links and stays(name, link))


def differences(
    old: State,
    new: State,
    only: Sequence[str] = (),
    new_devices: str = "delete",
    external_ports: str = "keep",
) -> list[Change]:
    """What differs in `new`, by the rule of this module; of the interfaces `only`, if any are named.

    Devices that stay (`kept`), and what stands on them, are no difference.
    """
    strangers = new.links.keys() - old.links.keys()
    lost = old.links.keys() - new.links.keys()
    found = _link_changes(old, new, strangers - kept(old, new, new_devices, external_ports))
    for name in old.links.keys() & new.links.keys():
        was, now = comparable(old.addresses.get(name, ())), comparable(new.addresses.get(name, ()))
        found += _several(name, "address", was, now, address_words)
        was4, now4 = ([a.address for a in group if a.family == "v4"] for group in (was, now))
        if was4 != now4 and sorted(was4) == sorted(now4):
            found.append(Change(name, "address", f"order {', '.join(now4)}, was {', '.join(was4)}"))
        found += _several(name, "vlan", old.vlans.get(name, ()), new.vlans.get(name, ()), vlan_words)
        found += _several(name, "qdisc", old.qdiscs.get(name, ()), new.qdiscs.get(name, ()), lambda q: q.kind)
    found += _route_changes(old, new, strangers, lost)
    absent = strangers | lost
    found += _rule_changes(old, new, strangers)
    for kind, before, after, words in (
        ("neighbour", old.neighbours, new.neighbours, neighbour_words),
        ("fdb", old.fdb, new.fdb, fdb_words),
    ):
        for name in sorted({entry.device for entry in (*before, *after)} - absent):
            group = [[entry for entry in entries if entry.device == name] for entries in (before, after)]
            found += _several(name, kind, sorted(group[0]), sorted(group[1]), words)
    found += _sysctl_changes(old, new, lost)
    if old.nft and new.nft and old.nft != new.nft:
        found.append(Change("", "nft", "nftables: another rule set"))
    return sorted(change for change in found if not only or change.interface in only)


def comparable(addresses: Iterable[Address]) -> list[Address]:
    """What counts of a device's addresses: IPv4 in order, then IPv6 sorted; temporary ones left out."""
    plain = [
        address._replace(
            preferred=FOREVER,
            valid=FOREVER,
            tentative=False,
            flags=tuple(f for f in address.flags if not (address.dynamic and f == "deprecated")),
        )
        for address in addresses
        if "temporary" not in address.flags
    ]
    return [a for a in plain if a.family == "v4"] + sorted(a for a in plain if a.family == "v6")


def same_route(route: Route) -> Route:
    """A route without what is not compared."""
    return route._replace(expires=0)


def link_differences(was: Link, now: Link, mac_counts: bool = True) -> list[tuple[str, Any, Any]]:
    """(aspect, old value, new value): `kind`, `master`, `MTU`, …, and `option NAME`, `port NAME`."""
    pairs: list[tuple[str, Any, Any]] = [
        ("kind", was.kind, now.kind),
        ("parent", (was.parent, was.foreign), (now.parent, now.foreign)),
        ("master", was.master, now.master),
        ("MTU", was.mtu, now.mtu),
        ("MAC", was.mac, now.mac),
        ("up", was.up, now.up),
        ("flags", was.flags, now.flags),
        ("altnames", was.altnames, now.altnames),
        ("alias", was.alias, now.alias),
        ("group", was.group, now.group),
        ("queue", was.queue, now.queue),
    ]
    if was.kind == now.kind:
        pairs += [(f"option {n}", v, now.options.get(n)) for n, v in sorted(was.options.items())]
    if was.master == now.master:
        pairs += [(f"port {n}", v, now.port.get(n)) for n, v in sorted(was.port.items())]
    return [(aspect, a, b) for aspect, a, b in pairs if a != b and (mac_counts or aspect != "MAC")]


def mac_counts(old: State, now: State, name: str) -> bool:
    """Whether the device's MAC address is its own: not that of a bond, nor of whichever ports a bridge has now."""
    master = old.links.get(old.links[name].master)
    if master is not None and master.kind in ("bond", "team"):
        return False
    follows_ports = old.links[name].kind == "bridge" and old.links[name].random_mac and now.links[name].random_mac
    return not follows_ports or ports(old, name) == ports(now, name)


def ports(of: State, master: str) -> set[str]:
    return {name for name, link in of.links.items() if link.master == master}


def _link_changes(old: State, new: State, surplus: Iterable[str]) -> list[Change]:
    found = [Change(name, "link", f"is new ({new.links[name].kind})") for name in surplus]
    for name, was in old.links.items():
        now = new.links.get(name)
        if now is None:
            found.append(Change(name, "link", f"is gone ({was.kind or 'hardware'})"))
            continue
        for aspect, a, b in link_differences(was, now, mac_counts(old, new, name)):
            found.append(Change(name, "link", _aspect_words(was, aspect, a, b)))
    return found


def _aspect_words(was: Link, aspect: str, a: Any, b: Any) -> str:
    if aspect == "up":
        return "is down, was up" if a else "is up, was down"
    if aspect == "parent":
        a, b = (name or ("elsewhere" if foreign else "none") for name, foreign in (a, b))
        aspect = "peer" if was.kind == "veth" else "on"
    elif aspect.startswith("option "):
        aspect = f"{was.kind} {aspect[7:]}"
    return f"{aspect} {shown(b)}, was {shown(a)}"


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value in ("", None) else str(value)


def _several(name: str, kind: str, was: Sequence[Any], now: Sequence[Any], words: Callable[[Any], str]) -> list[Change]:
    """Differences between two groups of values, in words; how often one stands there counts."""
    found = []
    rest = list(now)
    for value in was:
        if value in rest:
            rest.remove(value)
        else:
            found.append(Change(name, kind, f"{kind} {words(value)} is gone"))
    return found + [Change(name, kind, f"{kind} {words(value)} is new") for value in rest]


def _route_changes(old: State, new: State, strangers: set[str], lost: set[str]) -> list[Change]:
    found = []
    before, after = unsettled(old), unsettled(new)

    def told(
        routes: Iterable[Route], absent: set[str], waiting: frozenset[str], other: dict[Route, int]
    ) -> list[Route]:
        left = dict(other)
        missing = []
        for route in map(same_route, routes):
            if left.get(route, 0):
                left[route] -= 1
            elif not (uses(route, absent) or (follows(route) and route.family == "v6" and uses(route, waiting))):
                missing.append(route)
        return missing

    for route in told(old.routes, lost, after, counted(new.routes)):
        found.append(Change(route_device(route), "route", f"{_family(route)}route {route_words(route)} is gone"))
    for route in told(new.routes, strangers, before, counted(old.routes)):
        found.append(Change(route_device(route), "route", f"{_family(route)}route {route_words(route)} is new"))
    return found


def counted(routes: Iterable[Route]) -> dict[Route, int]:
    found: dict[Route, int] = {}
    for route in map(same_route, routes):
        found[route] = found.get(route, 0) + 1
    return found


def unsettled(of: State) -> frozenset[str]:
    """The devices with an IPv6 address whose duplicate address detection has not ended."""
    return frozenset(name for name, group in of.addresses.items() if any(address.tentative for address in group))


def uses(route: Route, devices: Iterable[str]) -> bool:
    """Whether the route goes by one of these devices."""
    return any(hop.device in devices for hop in route.hops)


def follows(route: Route) -> bool:
    """Whether the kernel has made the route of an address or a device."""
    return route.protocol == KERNEL


def route_device(route: Route) -> str:
    """The device that a route is named by: of its first hop."""
    return route.hops[0].device if route.hops else ""


def _family(value: Route | Rule) -> str:
    return "IPv6 " if value.family == "v6" else ""


def rule_devices(rule: Rule) -> set[str]:
    return {value for name, value in rule.attributes if name in ("iifname", "oifname")}


def _rule_changes(old: State, new: State, strangers: set[str]) -> list[Change]:
    staying = [rule for rule in new.rules if not rule_devices(rule) & strangers]
    found = []
    for family, word in (("v4", "rule"), ("v6", "IPv6 rule")):
        was, now = ([r for r in rules if r.family == family] for rules in (old.rules, staying))
        changes = _several("", word, was, now, rule_words)
        if not changes and was != now:
            changes = [Change("", word, f"{word}s of the same priority: another order")]
        for change in changes:
            devices = next((rule_devices(r) for r in (*was, *now) if f" {rule_words(r)} " in change.words), set())
            found.append(Change(min(devices, default=""), "rule", change.words))
    return found


def sysctl_device(path: str) -> str:
    """The interface that a setting is of; "" for those of all, of future ones, and for global ones."""
    parts = path.split("/")
    return parts[2] if len(parts) == 4 and parts[1] == "conf" and parts[2] not in ("all", "default") else ""


def _sysctl_changes(old: State, new: State, lost: set[str]) -> list[Change]:
    found = []
    for path, was in old.sysctls.items():
        now = new.sysctls.get(path)
        if now != was and sysctl_device(path) not in lost:
            device = sysctl_device(path)
            found.append(Change(device, "sysctl", f"net/{path} {shown(now)}, was {was}"))
    return found

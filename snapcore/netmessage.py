"""rtnetlink messages as values of netstate, and values as messages: fields and attributes by pyroute2's names.

A message is what pyroute2 decodes: a mapping of header fields with `get_attr`. Nothing here imports pyroute2 or acts.
rtnetlink(7); linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h, linux/fib_rules.h, linux/neighbour.h.
"""

from __future__ import annotations

import os

from snapcore import netstate
from snapcore.netstate import Address, Fdb, Hop, Link, Neighbour, Qdisc, Route, Rule, Vlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Attributes = list[tuple[str, Any]]
    Message = tuple[dict[str, Any], Attributes]

V4, V6, BRIDGE = 2, 10, 7
FAMILIES = {V4: "v4", V6: "v6"}
NUMBERS = {"v4": V4, "v6": V6}
LINK_FLAGS = {"noarp": 0x80, "promisc": 0x100, "allmulticast": 0x200, "multicast": 0x1000, "dynamic": 0x8000}
ADDRESS_FLAGS = {
    "nodad": 0x2,
    "optimistic": 0x4,
    "home": 0x10,
    "deprecated": 0x20,
    "mngtmpaddr": 0x100,
    "noprefixroute": 0x200,
    "autojoin": 0x400,
    "stable-privacy": 0x800,
}
_TYPES = "unspec unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat xresolve"
TYPES = _TYPES.split()
RULE_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
SELF, MASTER, PROXY, LEARNED, STICKY, ROUTER = 0x2, 0x4, 0x8, 0x10, 0x40, 0x80
"""Flags of neighbours and forwarding entries."""
NOARP, PERMANENT = 0x40, 0x80
"""States of neighbours: of a static forwarding entry, and of one that is never forgotten."""
UNSET = 0xFFFFFFFF
ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_FOLLOWING = """root_id bridge_id root_port root_path_cost topology_change topology_change_detected hello_timer
    tcn_timer topology_change_timer gc_timer pad fdb_flush active_slave ad_info num_queues num_disabled_queues
    macaddr_count"""
FOLLOWING = frozenset(_FOLLOWING.split())
"""Options that the kernel only shows, or that change by themselves."""
_FOLLOWING_PORT = """state root_id bridge_id designated_port designated_cost id no topology_change_ack config_pending
    message_age_timer forward_delay_timer hold_timer flush pad mcast_eht_hosts_cnt mcast_n_groups mrp_ring_open
    mrp_in_open backup_port mii_status link_failure_count perm_hwaddr ad_aggregator_id learning_sync"""
FOLLOWING_PORT = frozenset(_FOLLOWING_PORT.split())
SAID_AS_BYTE = {"IFLA_VXLAN_TTL_INHERIT": 28}
"""Flags that the kernel takes as a flag and says as a byte, 0 or 1; pyroute2 shows both as True."""
DEVICE_OPTIONS = frozenset(["primary"])
"""Options that are a device's index, and are kept by name."""
NAME_THEIR_BASE = frozenset(["vxlan", "gre", "gretap", "ip6gre", "ip6gretap", "ipip", "sit", "ip6tnl"])
"""Kinds for which the device below is an option of the kind; it is IFLA_LINK for others."""
PREFIXES = {
    "bridge": "BR",
    "macvtap": "MACVTAP",
    "ip6gre": "IP6GRE",
    "gretap": "GRE",
    "ip6gretap": "IP6GRE",
}
"""Of the names of a kind's options, where it is not the kind's own."""


def plain(value: Any) -> Any:
    """An attribute's value without pyroute2's classes: numbers, text, dicts of fields, tuples of (name, value)."""
    if isinstance(value, dict):
        if value.get("attrs"):
            return tuple((name, plain(part)) for name, part in value["attrs"])
        return {name: plain(part) for name, part in value.items() if name not in ("header", "attrs")}
    if isinstance(value, (list, tuple)):
        return tuple(plain(part) for part in value)
    return text(value) if isinstance(value, bytes) else value


def text(value: str | bytes | None) -> str:
    """A name, which pyroute2 leaves as bytes where it is no UTF-8: as Python has it in paths (PEP 383)."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value or ""


def encodable(value: Any) -> Any:
    """The reverse of `plain`."""
    if isinstance(value, tuple) and value and all(isinstance(part, tuple) and len(part) == 2 for part in value):
        return {"attrs": [(name, encodable(part)) for name, part in value]}
    if isinstance(value, (tuple, list)):
        return [encodable(part) for part in value]
    return value


# -- read --------------------------------------------------------------------------------------------------------


def link(message: Any, names: Mapping[int, str]) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""
    options = _options(info, "IFLA_INFO_DATA", FOLLOWING, names)
    foreign = message.get_attr("IFLA_LINK_NETNSID") is not None
    parent = options.pop("link", None) or message.get_attr("IFLA_LINK") or 0
    own = parent == message["index"] and not foreign
    properties = message.get_attr("IFLA_PROP_LIST")
    return Link(
        kind=kind,
        master=names.get(message.get_attr("IFLA_MASTER") or 0, ""),
        mtu=message.get_attr("IFLA_MTU") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        up=bool(message["flags"] & 1),
        flags=tuple(sorted(name for name, bit in LINK_FLAGS.items() if message["flags"] & bit)),
        altnames=tuple(sorted(map(text, properties.get_attrs("IFLA_ALT_IFNAME")))) if properties is not None else (),
        parent="" if foreign or own else names.get(parent, ""),
        foreign=foreign,
        options=options,
        port=_options(info, "IFLA_INFO_SLAVE_DATA", FOLLOWING_PORT, names),
        random_mac=_random_mac(names[message["index"]], message["index"]),
        alias=text(message.get_attr("IFLA_IFALIAS")),
        group=message.get_attr("IFLA_GROUP") or 0,
        queue=message.get_attr("IFLA_TXQLEN") or 0,
        ifindex=message["index"],
    )


def pending(message: Any) -> bool:
    """Whether a link that is up has a carrier and is not yet operational (RFC 2863): the kernel is still at it."""
    return bool(
        message["flags"] & 1
        and message.get_attr("IFLA_CARRIER")
        and message.get_attr("IFLA_OPERSTATE") not in ("UP", "UNKNOWN", "DORMANT")
    )


def _options(info: Any, which: str, following: frozenset[str], names: Mapping[int, str]) -> dict[str, Any]:
    data = info.get_attr(which) if info is not None else None
    found: dict[str, Any] = {}
    if data is None or not hasattr(data, "get_attr"):
        return found  # none, or of a kind that pyroute2 does not know
    for long_name, value in data["attrs"]:
        name = "_".join(long_name.replace("_BOND_SLAVE_", "_SLAVE_").split("_")[2:]).lower()
        if long_name == "UNKNOWN" or name in following:
            continue
        if value is True and long_name in SAID_AS_BYTE and not any(_nested(data).get(SAID_AS_BYTE[long_name], b"")):
            continue
        found[name] = names.get(value, "") if name in DEVICE_OPTIONS else plain(value)
    return found


def _random_mac(name: str, index: int) -> bool:
    """Whether the kernel drew the MAC address (sysfs-class-net, addr_assign_type 1); False where /sys is of another
    namespace."""
    try:
        with open(f"/sys/class/net/{name}/ifindex", encoding="ascii") as file:
            if int(file.read()) != index:
                return False
        with open(f"/sys/class/net/{name}/addr_assign_type", encoding="ascii") as file:
            return file.read().strip() == "1"
    except (OSError, ValueError):
        return False


def address(message: Any, name: str) -> Address:
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    family, dynamic = FAMILIES[message["family"]], not flags & 0x80
    local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    peer = message.get_attr("IFA_ADDRESS")
    words = [word for word, bit in ADDRESS_FLAGS.items() if flags & bit and not (dynamic and word == "deprecated")]
    words += [{"v4": "secondary", "v6": "temporary"}[family]] if flags & 0x1 else []
    label = text(message.get_attr("IFA_LABEL"))
    life = message.get_attr("IFA_CACHEINFO") or {}
    return Address(
        family=family,
        address=f"{local}/{message['prefixlen']}",
        peer=peer if peer and peer != local else "",
        broadcast=message.get_attr("IFA_BROADCAST") or "",
        scope=message["scope"],
        label=label if label != name else "",
        flags=tuple(sorted(words)),
        metric=message.get_attr("IFA_RT_PRIORITY") or 0,
        protocol=message.get_attr("IFA_PROTO") or 0,
        dynamic=dynamic,
        preferred=life.get("ifa_preferred", netstate.FOREVER),
        valid=life.get("ifa_valid", netstate.FOREVER),
        tentative=bool(flags & 0x40 and not flags & 0x8),
    )


def route(message: Any, names: Mapping[int, str]) -> Route:
    metrics = message.get_attr("RTA_METRICS")
    several = message.get_attr("RTA_MULTIPATH")
    device = message.get_attr("RTA_OIF")
    encap = message.get_attr("RTA_ENCAP")
    hops = [_hop(hop, hop["oif"], names) for hop in several or ()]
    if not several and device:
        hops = [_hop(message, device, names)]
    cache = message.get_attr("RTA_CACHEINFO") or {}
    return Route(
        family=FAMILIES[message["family"]],
        destination=_prefix(message, "RTA_DST", "dst_len") or "default",
        table=message.get_attr("RTA_TABLE") or message["table"],
        type=TYPES[message["type"]] if message["type"] < len(TYPES) else "unspec",
        hops=tuple(hops),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        protocol=message["proto"],
        scope=message["scope"],
        prefsrc=message.get_attr("RTA_PREFSRC") or "",
        source=_prefix(message, "RTA_SRC", "src_len"),
        tos=message["tos"],
        metrics=tuple(
            sorted(
                (name[len("RTAX_") :].lower(), plain(value))
                for name, value in (metrics["attrs"] if metrics is not None else ())
                if name != "UNKNOWN"
            )
        ),
        preference=message.get_attr("RTA_PREF") or 0,
        flow=message.get_attr("RTA_FLOW") or 0,
        encap=repr(plain(encap)) if encap is not None else "",
        expires=max(0, cache.get("rta_expires", 0) // os.sysconf("SC_CLK_TCK")),
    )


def _hop(message: Any, device: int, names: Mapping[int, str]) -> Hop:
    via = message.get_attr("RTA_VIA")
    return Hop(
        device=names.get(device, ""),
        gateway=message.get_attr("RTA_GATEWAY") or (f"inet6 {via['addr']}" if via is not None else ""),
        weight=message["hops"] + 1 if "hops" in message else 1,
        onlink=bool(message["flags"] & 0x4),
    )


def _prefix(message: Any, attribute: str, length: str) -> str:
    value = message.get_attr(attribute)
    if value is None and not message[length]:
        return ""
    return f"{value or {V4: '0.0.0.0', V6: '::'}[message['family']]}/{message[length]}"


_RULE_OWN = frozenset(["FRA_TABLE", "FRA_PRIORITY", "FRA_SRC", "FRA_DST", "FRA_PAD", "UNKNOWN"])


def rule(message: Any) -> Rule:
    rest = []
    for name, value in message["attrs"]:
        if name not in _RULE_OWN and not (name.startswith("FRA_SUPPRESS_") and value == UNSET):
            rest.append((name[len("FRA_") :].lower(), plain(value)))
    return Rule(
        family=FAMILIES[message["family"]],
        priority=message.get_attr("FRA_PRIORITY") or 0,
        action=RULE_ACTIONS.get(message["action"], str(message["action"])),
        table=message.get_attr("FRA_TABLE") or message["table"],
        source=_prefix(message, "FRA_SRC", "src_len"),
        destination=_prefix(message, "FRA_DST", "dst_len"),
        tos=message["tos"],
        invert=bool(message["flags"] & 0x2),
        attributes=tuple(sorted(rest)),
    )


def neighbour(message: Any, names: Mapping[int, str]) -> Neighbour:
    proxy = bool(message["flags"] & PROXY)
    return Neighbour(
        device=names.get(message["ifindex"], ""),
        address=message.get_attr("NDA_DST") or "",
        mac="" if proxy else message.get_attr("NDA_LLADDR") or "",
        proxy=proxy,
        router=bool(message["flags"] & ROUTER),
    )


def fdb(message: Any, names: Mapping[int, str], links: Mapping[str, Link]) -> Fdb | None:
    """None for an entry that was learned, or that the kernel makes of a device's own address (br_fdb_add_local) or of
    a group that the device is a member of."""
    name = names.get(message["ifindex"], "")
    state, flags, mac = message["state"], message["flags"], message.get_attr("NDA_LLADDR") or ""
    destination = message.get_attr("NDA_DST") or ""
    if name not in links or not state & (NOARP | PERMANENT) or flags & LEARNED:
        return None
    itself = bool(flags & SELF)
    if itself and (links[name].kind != "vxlan" or not destination):
        return None
    if not itself and mac in {known.mac for known in links.values()}:
        return None
    return Fdb(
        device=name,
        mac=mac,
        where="self" if itself else "master",
        permanent=bool(state & PERMANENT),
        vlan=message.get_attr("NDA_VLAN") or 0,
        destination=destination,
        port=message.get_attr("NDA_PORT") or 0,
        vni=message.get_attr("NDA_VNI") or 0,
        via=names.get(message.get_attr("NDA_IFINDEX") or 0, ""),
        sticky=bool(flags & STICKY),
    )


def vlans(message: Any) -> tuple[Vlan, ...]:
    spec = message.get_attr("IFLA_AF_SPEC")
    if spec is None or not hasattr(spec, "get_attrs"):
        return ()
    infos = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO")
    return tuple(sorted(Vlan(info["vid"], bool(info["flags"] & 0x2), bool(info["flags"] & 0x4)) for info in infos))


def qdisc(message: Any) -> Qdisc | None:
    """None for what the kernel attaches by itself, which has no handle (dev_activate), and below the root."""
    if not message["handle"] or message["parent"] not in (ROOT, INGRESS):
        return None
    options = raw_attributes(message, 20).get(2, b"")
    return Qdisc(message.get_attr("TCA_KIND") or "", message["handle"], message["parent"], options.hex())


def raw_attributes(message: Any, header: int) -> dict[int, bytes]:
    """Attributes by number, as they came; `header` is the length of the fields before them."""
    start = message.offset + 16 + header
    return _parsed(bytes(message.data[start : message.offset + message["header"]["length"]]))


def _nested(attribute: Any) -> dict[int, bytes]:
    """The attributes within one, by number, as they came."""
    return _parsed(bytes(attribute.data[attribute.offset + 4 : attribute.offset + attribute.length]))


def _parsed(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 2], _ORDER)
        found[int.from_bytes(data[at + 2 : at + 4], _ORDER) & 0x3FFF] = data[at + 4 : at + length]
        at += max(4, (length + 3) & ~3)
    return found


def _byte_order() -> Any:
    import sys

    return sys.byteorder


_ORDER = _byte_order()

# -- write -------------------------------------------------------------------------------------------------------


def address_message(value: Address, name: str, index: int) -> Message:
    local, length = value.address.split("/")
    flags = sum(ADDRESS_FLAGS[flag] for flag in value.flags if flag in ADDRESS_FLAGS and flag != "deprecated")
    fields = {
        "family": NUMBERS[value.family],
        "prefixlen": int(length),
        "flags": flags & 0xFF,
        "scope": value.scope,
        "index": index,
    }
    attributes: Attributes = [("IFA_LOCAL", local), ("IFA_ADDRESS", value.peer or local), ("IFA_FLAGS", flags)]
    attributes += [("IFA_BROADCAST", value.broadcast)] if value.broadcast else []
    attributes += [("IFA_LABEL", value.label or name)] if value.family == "v4" else []
    attributes += [("IFA_RT_PRIORITY", value.metric)] if value.metric else []
    attributes += [("IFA_PROTO", value.protocol)] if value.protocol else []
    preferred = 0 if "deprecated" in value.flags else value.preferred
    if (preferred, value.valid) != (netstate.FOREVER, netstate.FOREVER):
        life = {"ifa_preferred": preferred, "ifa_valid": value.valid, "cstamp": 0, "tstamp": 0}
        attributes.append(("IFA_CACHEINFO", life))
    return fields, attributes


def route_message(value: Route, indexes: Mapping[str, int]) -> Message:
    """`KeyError` where a device is not there."""
    fields, attributes = _selecting(value, "RTA")
    fields.update(proto=value.protocol, scope=value.scope, type=TYPES.index(value.type), flags=0)
    attributes += [("RTA_PRIORITY", value.metric)] if value.metric else []
    attributes += [("RTA_PREFSRC", value.prefsrc)] if value.prefsrc else []
    attributes += [("RTA_PREF", value.preference)] if value.preference else []
    attributes += [("RTA_FLOW", value.flow)] if value.flow else []
    if len(value.hops) > 1:
        attributes.append(("RTA_MULTIPATH", [_hop_message(hop, indexes) for hop in value.hops]))
    elif value.hops:
        hop = _hop_message(value.hops[0], indexes)
        fields["flags"] = hop["flags"]
        attributes += [("RTA_OIF", hop["oif"]), *hop["attrs"]]
    if value.expires:  # pyroute2 takes its bytes
        attributes.append(("RTA_EXPIRES", value.expires.to_bytes(4, _ORDER)))
    if value.metrics:
        metrics = [(f"RTAX_{name.upper()}", number) for name, number in value.metrics]
        attributes.append(("RTA_METRICS", {"attrs": metrics}))
    return fields, attributes


def _hop_message(hop: Hop, indexes: Mapping[str, int]) -> dict[str, Any]:
    attributes: Attributes = []
    if hop.gateway.startswith("inet6 "):
        attributes.append(("RTA_VIA", {"family": V6, "addr": hop.gateway.split()[1]}))
    elif hop.gateway:
        attributes.append(("RTA_GATEWAY", hop.gateway))
    flags = 0x4 if hop.onlink else 0
    return {"oif": indexes[hop.device], "flags": flags, "hops": hop.weight - 1, "attrs": attributes}


def _selecting(value: Route | Rule, of: str) -> Message:
    """What rtmsg (`of` RTA, rtnetlink(7)) and fib_rule_hdr (FRA, linux/fib_rules.h) have in common."""
    destination, length = _split(value.destination)
    source, source_length = _split(value.source)
    fields = {
        "family": NUMBERS[value.family],
        "dst_len": length,
        "src_len": source_length,
        "tos": value.tos,
        "table": value.table if value.table < 256 else 252,
    }
    attributes: Attributes = [(f"{of}_TABLE", value.table)]
    attributes += [(f"{of}_DST", destination)] if destination else []
    attributes += [(f"{of}_SRC", source)] if source else []
    return fields, attributes


def _split(prefix: str) -> tuple[str, int]:
    if not prefix or prefix == "default":
        return "", 0
    address_, length = prefix.split("/")
    return address_, int(length)


def rule_message(value: Rule) -> Message:
    actions = {word: number for number, word in RULE_ACTIONS.items()}
    fields, attributes = _selecting(value, "FRA")
    fields["action"] = actions[value.action] if value.action in actions else int(value.action)
    fields["flags"] = 0x2 if value.invert else 0
    attributes.append(("FRA_PRIORITY", value.priority))
    attributes += [(f"FRA_{name.upper()}", encodable(part)) for name, part in value.attributes]
    return fields, attributes


def neighbour_message(value: Neighbour, index: int) -> Message:
    fields = {
        "family": V6 if ":" in value.address else V4,
        "ifindex": index,
        "state": PERMANENT,
        "flags": (PROXY if value.proxy else 0) | (ROUTER if value.router else 0),
        "ndm_type": 0,
    }
    attributes: Attributes = [("NDA_DST", value.address)]
    attributes += [("NDA_LLADDR", value.mac)] if value.mac else []
    return fields, attributes


def fdb_message(value: Fdb, indexes: Mapping[str, int]) -> Message:
    """`KeyError` where a device is not there."""
    flags = (SELF if value.where == "self" else MASTER) | (STICKY if value.sticky else 0)
    state = PERMANENT if value.permanent else NOARP
    fields = {"family": BRIDGE, "ifindex": indexes[value.device], "state": state, "flags": flags, "ndm_type": 0}
    attributes: Attributes = [("NDA_LLADDR", value.mac)]
    attributes += [("NDA_VLAN", value.vlan)] if value.vlan else []
    attributes += [("NDA_DST", value.destination)] if value.destination else []
    attributes += [("NDA_PORT", value.port)] if value.port else []
    attributes += [("NDA_VNI", value.vni)] if value.vni else []
    attributes += [("NDA_IFINDEX", indexes[value.via])] if value.via else []
    return fields, attributes


def vlan_message(value: Vlan, index: int, bridge: bool) -> Message:
    """Of a port, or (`bridge`) of the bridge itself: BRIDGE_FLAGS_MASTER, BRIDGE_FLAGS_SELF."""
    info = {"vid": value.id, "flags": (0x2 if value.pvid else 0) | (0x4 if value.untagged else 0)}
    inner = [("IFLA_BRIDGE_FLAGS", 2 if bridge else 1), ("IFLA_BRIDGE_VLAN_INFO", info)]
    return {"family": BRIDGE, "index": index}, [("IFLA_AF_SPEC", {"attrs": inner})]


def qdisc_message(value: Qdisc, index: int) -> Message:
    fields = {"family": 0, "index": index, "handle": value.handle, "parent": value.parent, "info": 0}
    attributes: Attributes = [("TCA_KIND", value.kind)]
    attributes += [("TCA_OPTIONS", bytes.fromhex(value.options))] if value.options else []
    return fields, attributes


def base_attributes(kind: str, index: int) -> Attributes:
    """On which device one of `NAME_THEIR_BASE` stands, as IFLA_INFO_DATA has it."""
    return [(f"IFLA_{PREFIXES.get(kind, kind.upper())}_LINK", index)]


def data_attributes(kind: str, options: Mapping[str, Any], indexes: Mapping[str, int]) -> Attributes:
    """The options of a kind of link, as IFLA_INFO_DATA has them."""
    prefix = PREFIXES.get(kind, kind.upper())
    return [
        (f"IFLA_{prefix}_{name.upper()}", indexes.get(value, 0) if name in DEVICE_OPTIONS else encodable(value))
        for name, value in options.items()
        if value is not None
    ]


def port_attributes(kind: str, options: Mapping[str, Any]) -> Attributes:
    """What a master of this kind keeps about a port, as IFLA_INFO_SLAVE_DATA has it."""
    prefix = {"bridge": "IFLA_BRPORT", "bond": "IFLA_BOND_SLAVE"}.get(kind, "IFLA")
    return [(f"{prefix}_{name.upper()}", value) for name, value in options.items() if value is not None]

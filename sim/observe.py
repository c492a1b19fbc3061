"""Reads a machine: its files from the disk's upper layers, its kernel state over netlink. Nothing here judges.

Values are typed and keyed by names, never by ifindex; words are those of ip(8). Volatile things (lifetimes,
counters, dynamic neighbours, random MAC addresses) are left out, see `State` in `sim.events`.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from sim.errors import LabError
from sim.events import State
from sim.world import kernel
from sim.world.disk import EMPTY_FOLDERS, NO_FILES, Disk
from sim.world.machine import Machine

TEXT_LIMIT = 16 * 1024
_V4_SYSCTLS = (
    "forwarding",
    "rp_filter",
    "accept_redirects",
    "send_redirects",
    "accept_source_route",
    "proxy_arp",
    "arp_filter",
    "arp_announce",
    "arp_ignore",
    "arp_accept",
    "promote_secondaries",
)
_V6_SYSCTLS = (
    "disable_ipv6",
    "forwarding",
    "accept_ra",
    "accept_ra_defrtr",
    "accept_ra_pinfo",
    "accept_redirects",
    "autoconf",
    "addr_gen_mode",
    "use_tempaddr",
    "accept_dad",
    "proxy_ndp",
    "mtu",
)
_LINK_OPTIONS = {
    "bridge": "STP_STATE FORWARD_DELAY HELLO_TIME MAX_AGE AGEING_TIME PRIORITY VLAN_FILTERING",
    "vlan": "ID PROTOCOL",
    "bond": "MODE MIIMON PRIMARY ACTIVE_SLAVE",
    "vxlan": "ID GROUP LOCAL PORT",
    "macvlan": "MODE",
    "ipvlan": "MODE",
}
_PREFIX = {"bridge": "BR"}
_TABLES = {253: "default", 254: "main", 255: "local"}
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_TYPES = {2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}
_FAMILIES = {2: "v4", 10: "v6"}
_CLONED = 0x200  # RTM_F_CLONED: the cache
_RULE_ACTIONS = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
RANDOM = "random"
_PASSING = "/etc/resolv.conf.dhclient-new."
"""What dhclient-script(8) writes before it renames it: a lease may come at any time."""


def read_state(machine: Machine, patterns: Sequence[str], ignored: Sequence[str], excluded: Sequence[str]) -> State:
    """Everything about a running machine that a rollback must give back.

    `patterns`, `ignored`: the stack's configuration and the names that it ignores; `excluded`: folders that hold the
    mechanism's own records. `files` are the configuration, `others` what else was changed below /etc.
    """
    running = machine.running
    with kernel.inside(running.netns):
        links, transient = _links(running.ip, machine.path("/sys/class/net"))
        names = {values["ifindex"]: name for name, values in transient["links"].items()}
        state = {
            "links": links,
            "addresses": _addresses(running.ip, names, transient["unsettled"]),
            "routes": _routes(running.ip, names),
            "rules": _rules(running.ip),
            "sysctls": _sysctls(links),
        }
    files = read_configuration(machine.disk, patterns, ignored, excluded)
    return {**files, "kernel": _mask_random(state, links), "transient": transient}


def read_configuration(
    disk: Disk, patterns: Sequence[str], ignored: Sequence[str], excluded: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The half of `read_state` that is on the disk: `files` and `others`. The machine may be off."""
    found: dict[str, dict[str, Any]] = {"files": {}, "others": {}}
    for path, entry in read_files(disk, excluded):
        file = entry["type"] in ("file", "symlink", "absent") and is_configuration(path, patterns, ignored)
        found["files" if file else "others"][path] = entry
    return found


def is_configuration(path: str, patterns: Sequence[str], ignored: Sequence[str]) -> bool:
    """Whether the stack reads this path. A pattern's `*` does not cross a slash."""
    name = os.path.basename(path)
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored):
        return False
    return any(
        path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern) for pattern in patterns
    )  # fmt: skip


def seen_at_boot(machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """What a boot has put into the kernel, also what it has taken away again: addresses, routes, and whether more
    happened than could be heard. The machine must have been told to listen (`listen_at_boot`), else LabError.

    In the words of `State`, after the keys under which they stand there: `eth0 v4: 192.0.2.10/24 scope global`,
    `v4 main: default via 192.0.2.1 dev eth0 proto boot`.
    """
    listener = machine.running.listener
    if listener is None:
        raise LabError(f"{machine.plan.name} was not listened to while it booted")
    heard = listener.take()
    addresses: set[str] = set()
    routes: set[str] = set()
    names = dict(heard.names)
    for data in heard.messages:
        for message in MarshalRtnl().parse(data):
            kind = message["header"]["type"]
            if kind == RTM_NEWLINK:
                names[message["index"]] = message.get_attr("IFLA_IFNAME") or names.get(message["index"], "?")
            elif kind == RTM_NEWADDR:
                name, family = names.get(message["index"], "?"), _FAMILIES.get(message["family"], "?")
                addresses.add(f"{name} {family}: {_address_words(message, name)}")
            elif kind == RTM_NEWROUTE and not message["flags"] & _CLONED:
                routes.add(f"{_table(message)}: {_route_words(message, names)}")
    return tuple(sorted(addresses)), tuple(sorted(routes)), heard.overflow


# -- files -------------------------------------------------------------------------------------------------------


def read_files(disk: Disk, excluded: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, entry) of everything below /etc that differs from the root tree as a new disk shows it."""
    for path, upper, lower in sorted(disk.walk("etc")):
        if any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in excluded):
            continue
        if path.startswith(_PASSING):
            continue
        hidden = _starts_empty(path)
        now = entry(upper)
        before = {"type": "absent"} if hidden and now["type"] != "dir" else entry(lower)
        if now != before and not (now["type"] == "dir" and path.lstrip("/") in EMPTY_FOLDERS):
            yield path, now


@functools.lru_cache(maxsize=4096)
def _starts_empty(path: str) -> bool:
    relative = path.lstrip("/")
    return relative in NO_FILES or any(relative.startswith(folder + "/") for folder in EMPTY_FOLDERS)


def entry(path: str) -> dict[str, Any]:
    """What stands at one path of a layer: type, mode, owner, content, attributes; links are not followed."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return {"type": "absent"}
    except NotADirectoryError:
        return {"type": "absent"}
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFCHR and status.st_rdev == 0:
        return {"type": "absent"}  # an overlay's whiteout
    found: dict[str, Any] = {
        "type": _KINDS.get(kind, "unknown"),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": f"{status.st_uid}:{status.st_gid}",
    }
    attributes = _attributes(path)
    if attributes:
        found["xattrs"] = attributes
    if kind == stat.S_IFLNK:
        found["target"] = os.readlink(path)
    elif kind == stat.S_IFREG:
        found.update(_content(path, status))
    return found


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def _attributes(path: str) -> dict[str, str]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        name: os.getxattr(path, name, follow_symlinks=False).hex()
        for name in sorted(names)
        if not name.startswith(("trusted.overlay.", "user.overlay."))
    }


def _content(path: str, status: os.stat_result) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return {"size": status.st_size, "unreadable": error.strerror}
    found: dict[str, Any] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if len(data) <= TEXT_LIMIT and b"\0" not in data:
        try:
            found["text"] = data.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return found


# -- kernel ------------------------------------------------------------------------------------------------------


def _links(ip: IPRoute, sysfs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    messages = list(ip.get_links())
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    port_macs = {message.get_attr("IFLA_ADDRESS") for message in messages if message.get_attr("IFLA_MASTER")}
    links: dict[str, Any] = {}
    transient: dict[str, Any] = {"links": {}, "unsettled": []}
    for message in messages:
        name = names[message["index"]]
        kind, options = _kind(message)
        mac = message.get_attr("IFLA_ADDRESS")
        if _assigned(sysfs, name) == "1" and mac not in port_macs:
            mac = RANDOM
        up = bool(message["flags"] & 1)
        links[name] = {
            "kind": kind,
            "master": names.get(message.get_attr("IFLA_MASTER")),
            "mtu": message.get_attr("IFLA_MTU"),
            "mac": mac,
            "up": up,
            "options": options,
        }
        transient["links"][name] = {
            "ifindex": message["index"],
            "carrier_changes": message.get_attr("IFLA_CARRIER_CHANGES"),
        }
        if up and message.get_attr("IFLA_CARRIER") and message.get_attr("IFLA_OPERSTATE") not in ("UP", "UNKNOWN"):
            transient["unsettled"].append(f"{name}: not yet operational")
    return links, transient


def _kind(message: Any) -> tuple[str, dict[str, Any]]:
    info = message.get_attr("IFLA_LINKINFO")
    if info is None:
        return "", {}
    kind = info.get_attr("IFLA_INFO_KIND") or ""
    data = info.get_attr("IFLA_INFO_DATA")
    options = {}
    for word in _LINK_OPTIONS.get(kind, "").split():
        value = data.get_attr(f"IFLA_{_PREFIX.get(kind, kind.upper())}_{word}") if data is not None else None
        if value is not None and isinstance(value, (int, str)):
            options[word.lower()] = value
    return kind, options


def _assigned(sysfs: str, name: str) -> str:
    """How the MAC address came about (Documentation/ABI/testing/sysfs-class-net, addr_assign_type; 1: random)."""
    try:
        with open(f"{sysfs}/{name}/addr_assign_type", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _addresses(ip: IPRoute, names: Mapping[int, str], unsettled: list[str]) -> dict[str, Any]:
    found: dict[str, dict[str, list[str]]] = {}
    for message in ip.get_addr():
        name, family = names.get(message["index"], "?"), _FAMILIES.get(message["family"], "?")
        words = _address_words(message, name)
        if _flags(message) & 0x40:
            unsettled.append(f"{name}: {words.split()[0]} is tentative")
        found.setdefault(name, {}).setdefault(family, []).append(words)
    for families in found.values():
        if "v6" in families:  # the order of IPv6 addresses is that of scope and time; only IPv4's has a meaning
            families["v6"].sort()
    return found


def _flags(message: Any) -> int:
    return int(message.get_attr("IFA_FLAGS") or message["flags"])


def _address_words(message: Any, name: str) -> str:
    flags = _flags(message)
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    words = [f"{address}/{message['prefixlen']}"]
    if message.get_attr("IFA_LOCAL") and message.get_attr("IFA_ADDRESS") != address:
        words.append(f"peer {message.get_attr('IFA_ADDRESS')}")
    if message.get_attr("IFA_BROADCAST"):
        words.append(f"brd {message.get_attr('IFA_BROADCAST')}")
    words.append(f"scope {_SCOPES.get(message['scope'], message['scope'])}")
    for bit, word in ((0x01, "secondary"), (0x08, "dadfailed"), (0x20, "deprecated"), (0x200, "noprefixroute")):
        if flags & bit:
            words.append(word)
    if not flags & 0x80:
        words.append("dynamic")
    if message.get_attr("IFA_LABEL") not in (None, name):
        words.append(f"label {message.get_attr('IFA_LABEL')}")
    return " ".join(words)


def _routes(ip: IPRoute, names: Mapping[int, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number in _FAMILIES:
        for message in ip.get_routes(family=number):
            if not message["flags"] & _CLONED:
                found.setdefault(_table(message), []).append(_route_words(message, names))
    return {key: sorted(routes) for key, routes in found.items()}


def _table(message: Any) -> str:
    table = message.get_attr("RTA_TABLE") or message["table"]
    return f"{_FAMILIES.get(message['family'], '?')} {_TABLES.get(table, table)}"


def _route_words(message: Any, names: Mapping[int, str]) -> str:
    words = []
    if message["type"] in _TYPES:
        words.append(_TYPES[message["type"]])
    target = message.get_attr("RTA_DST")
    words.append(f"{target}/{message['dst_len']}" if target else "default")
    if message.get_attr("RTA_SRC"):
        words.append(f"from {message.get_attr('RTA_SRC')}/{message['src_len']}")
    words += _hop_words(message, names)
    for hop in message.get_attr("RTA_MULTIPATH") or ():
        words.append("nexthop " + " ".join(_hop_words(hop, names)) + f" weight {hop['hops'] + 1}")
    words.append(f"proto {_PROTOCOLS.get(message['proto'], message['proto'])}")
    if message["scope"] and message["family"] == 2:
        words.append(f"scope {_SCOPES.get(message['scope'], message['scope'])}")
    if message.get_attr("RTA_PREFSRC"):
        words.append(f"src {message.get_attr('RTA_PREFSRC')}")
    if message["tos"]:
        words.append(f"tos {message['tos']:#x}")
    if message.get_attr("RTA_PRIORITY"):
        words.append(f"metric {message.get_attr('RTA_PRIORITY')}")
    metrics = message.get_attr("RTA_METRICS")
    for name, word in (("RTAX_MTU", "mtu"), ("RTAX_ADVMSS", "advmss"), ("RTAX_WINDOW", "window")):
        value = metrics.get_attr(name) if metrics is not None else None
        if value:
            words.append(f"{word} {value}")
    return " ".join(words)


def _hop_words(message: Any, names: Mapping[int, str]) -> list[str]:
    words = []
    if message.get_attr("RTA_GATEWAY"):
        words.append(f"via {message.get_attr('RTA_GATEWAY')}")
    elif message.get_attr("RTA_VIA"):
        words.append(f"via inet6 {message.get_attr('RTA_VIA')}")
    index = message.get_attr("RTA_OIF") if "oif" not in message else message["oif"]
    if index:
        words.append(f"dev {names.get(index, index)}")
    if message["flags"] & 0x4:  # RTNH_F_ONLINK
        words.append("onlink")
    return words


def _rules(ip: IPRoute) -> dict[str, list[str]]:
    return {
        family: [_rule_words(message) for message in ip.get_rules(family=number)]
        for family, number in (("v4", 2), ("v6", 10))
    }


def _rule_words(message: Any) -> str:
    words = [f"{message.get_attr('FRA_PRIORITY') or 0}:"]
    for word, name, length in (("from", "FRA_SRC", "src_len"), ("to", "FRA_DST", "dst_len")):
        value = message.get_attr(name)
        if value:
            words.append(f"{word} {value}/{message[length]}")
        elif word == "from":
            words.append("from all")
    for word, name in (("iif", "FRA_IIFNAME"), ("oif", "FRA_OIFNAME"), ("fwmark", "FRA_FWMARK")):
        if message.get_attr(name):
            words.append(f"{word} {message.get_attr(name)}")
    if message["tos"]:
        words.append(f"tos {message['tos']:#x}")
    table = message.get_attr("FRA_TABLE") or message["table"]
    action = message["action"]
    words.append(_RULE_ACTIONS.get(action) or f"lookup {_TABLES.get(table, table)}")
    return " ".join(words)


def _sysctls(links: Mapping[str, Any]) -> dict[str, str]:
    """Read in the machine's network namespace: /proc/sys/net is that of the reader (proc_sysctl.c)."""
    found = {}
    for scope in ("all", "default", *(name for name in links if name != "lo")):
        for family, names in (("ipv4", _V4_SYSCTLS), ("ipv6", _V6_SYSCTLS)):
            for name in names:
                try:
                    with open(f"/proc/sys/net/{family}/conf/{scope}/{name}", encoding="ascii") as file:
                        found[f"net.{family}.conf.{scope}.{name}"] = file.read().strip()
                except OSError:
                    continue
    return found


def _mask_random(state: dict[str, Any], links: Mapping[str, Any]) -> dict[str, Any]:
    """Replace link-local addresses that come from a random MAC address: they differ at every boot."""
    random = {name for name, link in links.items() if link["mac"] == RANDOM}
    masked: dict[str, str] = {}
    for name in random:
        for words in state["addresses"].get(name, {}).get("v6", []):
            address = words.split("/")[0]
            if address.startswith("fe80:"):
                masked[address] = f"fe80::{RANDOM}"
    if not masked:
        return state

    def mask(text: str) -> str:
        for address, instead in masked.items():
            text = text.replace(address + "/", instead + "/")
        return text

    for name in random:
        families = state["addresses"].get(name, {})
        if "v6" in families:
            families["v6"] = sorted(mask(words) for words in families["v6"])
    state["routes"] = {
        key: sorted(mask(words) for words in routes) if key.startswith("v6") else routes
        for key, routes in state["routes"].items()
    }
    return state

"""The subset of netplan's version 2 YAML -> files of the ifcfg family. Pure.

One key a line, always in the same order, so that a change of the configuration is a small change of the text.
Addresses of a port (of a bridge or bond) are written as they stand; RHEL's scripts pass over them, and so does
this stack.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from sim.stacks.ifcfg.model import FOLDER

_SECTIONS = ("ethernets", "bridges", "vlans", "bonds")
_COMMON = {"addresses", "routes", "routing-policy", "nameservers", "mtu", "macaddress", "dhcp4", "dhcp6",
           "accept-ra", "link-local", "optional"}  # fmt: skip
_OWN = {
    "ethernets": set[str](),
    "bridges": {"interfaces", "parameters"},
    "vlans": {"id", "link"},
    "bonds": {"interfaces", "parameters"},
}
_PARAMETERS = {"bridges": {"stp", "forward-delay"}, "bonds": {"mode", "mii-monitor-interval"}}
_TYPES = {"ethernets": "Ethernet", "bridges": "Bridge", "vlans": "Vlan", "bonds": "Bond"}
_ROUTE = {"to", "via", "metric", "table", "type", "on-link", "from", "scope", "mtu"}
_POLICY = {"from", "to", "table", "priority", "mark", "type-of-service"}
_NAME_SERVERS = 3
_Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def render(config: Mapping[str, Any]) -> dict[str, str]:
    """{"ethernets": {NAME: {…}}, "bridges": …, "vlans": …, "bonds": …} -> {absolute path: text}.

    Raises ValueError that names what the ifcfg format cannot say.
    """
    unknown = set(config) - {*_SECTIONS, "version"}
    if unknown:
        raise ValueError(f"{_list(unknown)}: cannot be written as ifcfg files")
    masters = _masters(config)
    files: dict[str, str] = {}
    written: set[str] = set()
    for section in _SECTIONS:
        for name, settings in (config.get(section) or {}).items():
            written.add(name)
            files.update(_interface(name, section, settings or {}, masters.get(name)))
    for name in masters:
        if name not in written:
            files.update(_interface(name, "ethernets", {}, masters[name]))
    return files


def _masters(config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Port -> (section of its master, its master)."""
    found: dict[str, tuple[str, str]] = {}
    for section in ("bridges", "bonds"):
        for master, settings in (config.get(section) or {}).items():
            for port in (settings or {}).get("interfaces") or ():
                if port in found:
                    raise ValueError(f"{port} is a port of {found[port][1]} and of {master}")
                found[port] = (section, master)
    return found


def _interface(name: str, section: str, settings: Mapping[str, Any], master: tuple[str, str] | None) -> dict[str, str]:
    where = f"{section}.{name}"
    unknown = set(settings) - _COMMON - _OWN[section]
    if unknown:
        raise ValueError(f"{where}: {_list(unknown)} cannot be written as ifcfg files")
    addresses = [ipaddress.ip_interface(text) for text in settings.get("addresses") or ()]
    v4 = [address for address in addresses if address.version == 4]
    v6 = [address for address in addresses if address.version == 6]
    if v4 and settings.get("dhcp4"):
        raise ValueError(f"{where}: dhcp4 together with {v4[0]} cannot be written as ifcfg files: a client replaces it")
    routes = list(settings.get("routes") or ())
    gateway = _take_gateway(routes, v4)
    keys = [("DEVICE", name), ("TYPE", _TYPES[section]), ("ONBOOT", "yes")]
    keys += [("BOOTPROTO", "dhcp" if settings.get("dhcp4") else "none")]
    keys += _of_link(where, section, settings, master)
    for index, address in enumerate(v4):
        suffix = str(index) if index else ""
        keys += [(f"IPADDR{suffix}", str(address.ip)), (f"PREFIX{suffix}", str(address.network.prefixlen))]
    if gateway:
        keys.append(("GATEWAY", str(gateway["via"])))
        keys += [("METRIC", str(gateway["metric"]))] if gateway.get("metric") is not None else []
    keys += _of_names(where, settings) + _of_ipv6(where, settings, v6)
    files = {f"ifcfg-{name}": "".join(f"{key}={_quoted(value)}\n" for key, value in keys)}
    for route in routes:
        family, line = _route(where, name, route)
        _append(files, f"route{family}-{name}", line)
    for policy in settings.get("routing-policy") or ():
        family, line = _policy(where, policy)
        _append(files, f"rule{family}-{name}", line)
    return {f"{FOLDER}/{script}": text for script, text in files.items()}


def _of_link(
    where: str, section: str, settings: Mapping[str, Any], master: tuple[str, str] | None
) -> list[tuple[str, str]]:
    keys: list[tuple[str, str]] = []
    if settings.get("macaddress"):
        keys.append(("MACADDR", str(settings["macaddress"])))
    if settings.get("mtu") is not None:
        keys.append(("MTU", str(settings["mtu"])))
    if master and master[0] == "bridges":
        keys.append(("BRIDGE", master[1]))
    elif master:
        keys += [("MASTER", master[1]), ("SLAVE", "yes")]
    parameters = settings.get("parameters") or {}
    unknown = set(parameters) - _PARAMETERS.get(section, set())
    if unknown:
        raise ValueError(f"{where}.parameters: {_list(unknown)} cannot be written as ifcfg files")
    if "stp" in parameters:
        keys.append(("STP", "on" if parameters["stp"] else "off"))
    if "forward-delay" in parameters:
        keys.append(("DELAY", str(parameters["forward-delay"])))
    if section == "bonds":
        names = {"mode": "mode", "mii-monitor-interval": "miimon"}
        keys.append(("BONDING_OPTS", " ".join(f"{names[key]}={value}" for key, value in parameters.items())))
    if section == "vlans":
        for key in ("id", "link"):
            if settings.get(key) is None:
                raise ValueError(f"{where}: {key} is missing")
        number = str(settings["id"])
        keys += [("VLAN", "yes"), ("PHYSDEV", str(settings["link"])), ("VID", number), ("VLAN_ID", number)]
    return keys


def _of_names(where: str, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = settings.get("nameservers") or {}
    servers, search = list(names.get("addresses") or ()), list(names.get("search") or ())
    if len(servers) > _NAME_SERVERS:
        raise ValueError(f"{where}.nameservers: {len(servers)} addresses; ifcfg files hold {_NAME_SERVERS}")
    keys = [(f"DNS{index}", str(server)) for index, server in enumerate(servers, 1)]
    return keys + ([("DOMAIN", " ".join(search))] if search else [])


def _of_ipv6(where: str, settings: Mapping[str, Any], v6: Sequence[_Address]) -> list[tuple[str, str]]:
    link_local = settings.get("link-local")
    wanted = bool(v6 or settings.get("dhcp6") or settings.get("accept-ra"))
    if link_local is not None and "ipv4" in link_local:
        raise ValueError(f"{where}.link-local: ipv4 cannot be written as ifcfg files")
    if link_local is not None and "ipv6" not in link_local:
        if wanted:
            raise ValueError(f"{where}: link-local: [] together with IPv6 cannot be written as ifcfg files")
        return [("IPV6INIT", "no")]
    keys = [("IPV6INIT", "yes")] if wanted or link_local else []
    if settings.get("accept-ra") is not None:
        keys.append(("IPV6_AUTOCONF", "yes" if settings["accept-ra"] else "no"))
    if v6:
        keys.append(("IPV6ADDR", str(v6[0])))
    if len(v6) > 1:
        keys.append(("IPV6ADDR_SECONDARIES", " ".join(map(str, v6[1:]))))
    return keys + ([("DHCPV6C", "yes")] if settings.get("dhcp6") else [])


def _take_gateway(routes: list[Mapping[str, Any]], v4: Sequence[_Address]) -> Mapping[str, Any] | None:
    """Takes the first IPv4 default route out that GATEWAY and METRIC can say: in the first address' network."""
    for index, route in enumerate(routes):
        plain = set(route) <= {"to", "via", "metric"} and route.get("via") is not None
        if plain and v4 and _destination(route) in ("default", "0.0.0.0/0"):
            via = ipaddress.ip_address(str(route["via"]))
            if via.version == 4 and via in v4[0].network:
                return routes.pop(index)
    return None


def _destination(route: Mapping[str, Any]) -> str:
    text = str(route["to"])
    return "default" if text in ("default", "0.0.0.0/0", "::/0") else text


def _route(where: str, name: str, route: Mapping[str, Any]) -> tuple[str, str]:
    """-> ("" or "6", the arguments of `ip route add`)."""
    unknown = set(route) - _ROUTE
    if unknown:
        raise ValueError(f"{where}.routes: {_list(unknown)} cannot be written as ifcfg files")
    kind = str(route.get("type") or "unicast")
    to, via = _destination(route), route.get("via")
    words = [] if kind == "unicast" else [kind]
    words.append(to)
    words += ["via", str(via)] if via is not None else []
    words += ["dev", name] if kind in ("unicast", "local", "broadcast", "multicast", "anycast") else []
    for key, word in (("metric", "metric"), ("table", "table"), ("from", "src"), ("scope", "scope"), ("mtu", "mtu")):
        words += [word, str(route[key])] if route.get(key) is not None else []
    words += ["onlink"] if route.get("on-link") else []
    known = [text for text in (str(route["to"]), via, route.get("from")) if text not in (None, "default")]
    return _family(where, "routes", known), " ".join(words)


def _policy(where: str, policy: Mapping[str, Any]) -> tuple[str, str]:
    unknown = set(policy) - _POLICY
    if unknown:
        raise ValueError(f"{where}.routing-policy: {_list(unknown)} cannot be written as ifcfg files")
    words: list[str] = []
    for key, word in (("from", "from"), ("to", "to"), ("mark", "fwmark"), ("type-of-service", "tos"),
                      ("table", "table"), ("priority", "priority")):  # fmt: skip
        words += [word, str(policy[key])] if policy.get(key) is not None else []
    known = [policy[key] for key in ("from", "to") if policy.get(key) is not None]
    return _family(where, "routing-policy", known), " ".join(words)


def _family(where: str, what: str, texts: Sequence[Any]) -> str:
    versions = {ipaddress.ip_interface(str(text)).version for text in texts}
    if len(versions) != 1:
        raise ValueError(f"{where}.{what}: {_list(texts) or 'nothing'} names no address family, or two")
    return "" if versions == {4} else "6"


def _append(files: dict[str, str], script: str, line: str) -> None:
    files[script] = files.get(script, "") + line + "\n"


def _quoted(text: str) -> str:
    plain = all(char.isalnum() or char in "-_.:/,%+" for char in text)
    return text if plain and text else '"' + "".join(f"\\{c}" if c in '\\"$`' else c for c in text) + '"'


def _list(names: Any) -> str:
    return ", ".join(sorted(map(str, names)))

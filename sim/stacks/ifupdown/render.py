"""The subset of netplan's version 2 YAML -> /etc/network/interfaces, as a Debian administrator writes it. Pure.

Devices that must be made, and their ports, are `pre-up ip link …` lines: the options of bridge-utils, vlan and
ifenslave need those packages' hooks in /etc/network, which is a machine's own and starts empty. Routes beyond the
gateway and policies are `up` lines with their `down` (interfaces(5)).

Name servers go to /etc/resolv.conf itself: without the package resolvconf `dns-nameservers` does nothing, and the
file is the administrator's. A DHCP client that gets name servers replaces what is written there, as on Debian.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

INTERFACES = "/etc/network/interfaces"
RESOLV_CONF = "/etc/resolv.conf"

_DEFAULT = ("default", "0.0.0.0/0", "::/0")
_SECTIONS = ("ethernets", "bonds", "vlans", "bridges")
_SECONDS = {"forward-delay": "forward_delay", "hello-time": "hello_time", "max-age": "max_age",
            "ageing-time": "ageing_time"}  # fmt: skip
_BOND_TIMES = {"mii-monitor-interval": "miimon", "up-delay": "updelay", "down-delay": "downdelay"}
_BOND_WORDS = {"mode": "mode", "lacp-rate": "lacp_rate", "min-links": "min_links",
               "transmit-hash-policy": "xmit_hash_policy", "fail-over-mac-policy": "fail_over_mac"}  # fmt: skip
_Lines = list[tuple[str, str]]


def render(config: Mapping[str, Any]) -> dict[str, str]:
    """{"ethernets": {NAME: {…}}, "bonds": …, "vlans": …, "bridges": …} -> {absolute path: text}.

    Raises ValueError that names what the format cannot say.
    """
    unknown = set(config) - {*_SECTIONS, "version"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: cannot be written in {INTERFACES}")
    devices = {
        name: (section, settings or {})
        for section in _SECTIONS
        for name, settings in (config.get(section) or {}).items()
    }
    ports = {port: name for name, (_, settings) in devices.items() for port in settings.get("interfaces") or ()}
    for port in ports:
        devices.setdefault(port, ("ethernets", {}))
    parts = [f"source-directory {INTERFACES}.d\n"]
    for name in _in_order(devices):
        section, settings = devices[name]
        parts.append(_Device(name, section, settings, name in ports).text())
    files = {INTERFACES: "\n".join(parts)}
    resolv_conf = "".join(_resolv_conf(settings for _, settings in devices.values()))
    return {**files, RESOLV_CONF: resolv_conf} if resolv_conf else files


def _in_order(devices: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[str]:
    """`ifup -a` goes through the file: what a device is made of comes before it."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        settings = devices[name][1] if name in devices else {}
        for below in (*(settings.get("interfaces") or ()), settings.get("link")):
            if below in devices and below not in found:
                visit(below)
        found[name] = None

    for name in devices:
        if name not in found:
            visit(name)
    return list(found)


def _resolv_conf(all_settings: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    named = [settings.get("nameservers") or {} for settings in all_settings]
    search = [str(domain) for names in named for domain in names.get("search") or ()]
    if search:
        yield f"search {' '.join(dict.fromkeys(search))}\n"
    servers = [str(server) for names in named for server in names.get("addresses") or ()]
    yield from (f"nameserver {server}\n" for server in dict.fromkeys(servers))


class _Device:
    """The stanzas of one device: one for each address and family, `manual` where there is none."""

    def __init__(self, name: str, section: str, settings: Mapping[str, Any], is_port: bool) -> None:
        self.name, self.section, self.settings, self.is_port = name, section, settings, is_port
        addresses = [ipaddress.ip_interface(text) for text in settings.get("addresses") or ()]
        self.v4 = [address for address in addresses if address.version == 4]
        self.v6 = [address for address in addresses if address.version == 6]
        self.routes: list[Mapping[str, Any]] = list(settings.get("routes") or ())
        self.accept_ra = settings.get("accept-ra")

    def text(self) -> str:
        """From `auto` to the last stanza."""
        stanzas = [*self._inet(), *self._inet6()] or [("inet manual", [])]
        stanzas[0] = (stanzas[0][0], [*self._link(), *stanzas[0][1]])
        for family, lines in self._up().items():
            fitting = [index for index, (head, _) in enumerate(stanzas) if head.split()[0] in (family, "inet")]
            last = fitting[-1] if fitting else -1
            stanzas[last] = (stanzas[last][0], stanzas[last][1] + lines)
        text = f"auto {self.name}\n"
        for head, lines in stanzas:
            text += f"iface {self.name} {head}\n" + "".join(f"    {key} {value}\n" for key, value in lines)
        return text

    # -- the device itself

    def _link(self) -> _Lines:
        made = {"bridges": self._bridge, "bonds": self._bond, "vlans": self._vlan}.get(self.section)
        lines = made() if made else []
        if self.settings.get("macaddress"):
            lines.append(self._pre_up(f"ip link set dev {self.name} address {self.settings['macaddress']}"))
        if self.settings.get("mtu") is not None:
            lines.append(self._pre_up(f"ip link set dev {self.name} mtu {self.settings['mtu']}"))
        return lines + [self._pre_up(f"sysctl -q -w {line}") for line in self._sysctls()]

    def _sysctls(self) -> Iterator[str]:
        key = f"net/ipv6/conf/{self.name}"
        wanted = bool(self.v6 or self.settings.get("dhcp6") or self.accept_ra)
        link_local = self.settings.get("link-local")
        if link_local is not None and "ipv4" in link_local:
            raise ValueError(f"{self.section}.{self.name}.link-local: ipv4 needs a daemon that is not in ifupdown")
        silent_port = self.is_port and not self.v4 and not wanted and not self.settings.get("dhcp4")
        if (link_local is not None and "ipv6" not in link_local) or (silent_port and link_local is None):
            # bridge-utils' bridge_ports does the same to ports
            yield f"{key}/addr_gen_mode=1" if wanted else f"{key}/disable_ipv6=1"
        elif self.accept_ra is False and not self.v6:
            yield f"{key}/accept_ra=0"
            yield f"{key}/autoconf=0"

    def _bridge(self) -> _Lines:
        parameters = dict(self.settings.get("parameters") or {})
        options = [f"stp_state {int(parameters.pop('stp'))}"] if "stp" in parameters else []
        for key, word in _SECONDS.items():  # ip-link(8): in hundredths of a second
            if key in parameters:
                options.append(f"{word} {round(_milliseconds(parameters.pop(key), 's') / 10)}")
        options += [f"priority {parameters.pop('priority')}"] if "priority" in parameters else []
        costs, priorities = parameters.pop("path-cost", {}), parameters.pop("port-priority", {})
        self._nothing_left(parameters)
        lines = self._made("type bridge", options)
        for port in self.settings.get("interfaces") or ():
            words = [f"cost {costs[port]}"] if port in costs else []
            words += [f"priority {priorities[port]}"] if port in priorities else []
            lines.append(self._pre_up(f"ip link set dev {port} master {self.name} up"))
            if words:
                lines.append(self._pre_up(f"ip link set dev {port} type bridge_slave {' '.join(words)}"))
        return lines

    def _bond(self) -> _Lines:
        parameters = dict(self.settings.get("parameters") or {})
        primary = parameters.pop("primary", None)
        options = [f"{_BOND_WORDS[key]} {parameters.pop(key)}" for key in _BOND_WORDS if key in parameters]
        for key, word in _BOND_TIMES.items():
            if key in parameters:
                options.append(f"{word} {round(_milliseconds(parameters.pop(key), 'ms'))}")
        self._nothing_left(parameters)
        lines = self._made("type bond", options)
        for port in self.settings.get("interfaces") or ():  # bonding takes only ports that are down
            lines.append(self._pre_up(f"ip link set dev {port} down"))
            lines.append(self._pre_up(f"ip link set dev {port} master {self.name}"))
        return lines + ([self._pre_up(f"ip link set dev {self.name} type bond primary {primary}")] if primary else [])

    def _vlan(self) -> _Lines:
        link = self.settings["link"]
        return [self._pre_up(f"ip link set dev {link} up"),
                *self._made(f"type vlan id {self.settings['id']}", [], f"link {link} ")]  # fmt: skip

    def _made(self, kind: str, options: Sequence[str], link: str = "") -> _Lines:
        words = " ".join(("ip link add", f"{link}name {self.name}", kind, *options))
        return [self._pre_up(words), ("post-down", f"ip link delete dev {self.name}")]

    def _pre_up(self, command: str) -> tuple[str, str]:
        return "pre-up", command

    def _nothing_left(self, parameters: Mapping[str, Any]) -> None:
        if parameters:
            names = ", ".join(sorted(parameters))
            raise ValueError(f"{self.section}.{self.name}.parameters: {names} cannot be written in {INTERFACES}")

    # -- addresses

    def _inet(self) -> list[tuple[str, _Lines]]:
        stanzas: list[tuple[str, _Lines]] = [("inet dhcp", [])] if self.settings.get("dhcp4") else []
        gateway = self._take_gateway(4) if self.v4 else None
        holder = next((a for a in self.v4 if gateway and _in(gateway["via"], a)), self.v4[0] if self.v4 else None)
        for address in self.v4:
            stanzas.append(("inet static", [("address", str(address)), *_gateway(gateway, address is holder)]))
        return stanzas

    def _inet6(self) -> list[tuple[str, _Lines]]:
        stanzas: list[tuple[str, _Lines]] = []
        # `inet6 static` switches autoconf off: what was asked for is said in each stanza; 2 is inet6 auto's own default
        ra = {True: [("accept_ra", "2"), ("autoconf", "1")], False: [("accept_ra", "0")], None: []}[self.accept_ra]
        gateway = self._take_gateway(6) if self.v6 else None
        holder = next((a for a in self.v6 if gateway and _in(gateway["via"], a)), self.v6[0] if self.v6 else None)
        for address in self.v6:
            stanzas.append(("inet6 static", [("address", str(address)), *ra, *_gateway(gateway, address is holder)]))
        if self.settings.get("dhcp6"):
            stanzas.append(("inet6 dhcp", ra))
        elif self.accept_ra and not stanzas:
            stanzas.append(("inet6 auto", []))
        return stanzas

    def _take_gateway(self, version: int) -> Mapping[str, Any] | None:
        """Takes out the first default route that the option `gateway` can say."""
        for route in self.routes:
            plain = set(route) <= {"to", "via", "metric", "on-link"} and route["to"] in _DEFAULT
            if plain and route.get("via") and ipaddress.ip_address(route["via"]).version == version:
                self.routes.remove(route)
                return route
        return None

    # -- routes and policies

    def _up(self) -> dict[str, _Lines]:
        """inet | inet6 -> `up` and `down` lines."""
        found: dict[str, _Lines] = {}
        for route in self.routes:
            family, words = self._route(route)
            found.setdefault(family, []).extend(_both("route", family, words))
        for policy in self.settings.get("routing-policy") or ():
            family, words = _policy(policy)
            found.setdefault(family, []).extend(_both("rule", family, words))
        return found

    def _route(self, route: Mapping[str, Any]) -> tuple[str, str]:
        kind, via = str(route.get("type") or "unicast"), route.get("via")
        words = [] if kind == "unicast" else [kind]
        words.append("default" if route["to"] in _DEFAULT else str(route["to"]))
        words += ["via", str(via)] if via is not None else []
        words += ["dev", self.name] if kind in ("unicast", "local", "broadcast", "multicast", "anycast") else []
        for key in ("metric", "table", "from", "scope", "mtu"):
            words += ["src" if key == "from" else key, str(route[key])] if route.get(key) is not None else []
        words += ["onlink"] if route.get("on-link") else []
        return _family(str(route["to"]), via, route.get("from")), " ".join(words)


def _gateway(route: Mapping[str, Any] | None, here: bool) -> _Lines:
    if route is None or not here:
        return []
    metric = [("metric", str(route["metric"]))] if route.get("metric") is not None else []
    return [("gateway", str(route["via"])), *metric]


def _policy(policy: Mapping[str, Any]) -> tuple[str, str]:
    words: list[str] = []
    for key, word in (("from", "from"), ("to", "to"), ("mark", "fwmark"), ("type-of-service", "tos"),
                      ("table", "table"), ("priority", "priority")):  # fmt: skip
        words += [word, str(policy[key])] if policy.get(key) is not None else []
    return _family(policy.get("from"), policy.get("to")), " ".join(words)


def _both(what: str, family: str, words: str) -> _Lines:
    ip = "ip -6" if family == "inet6" else "ip"
    return [("up", f"{ip} {what} add {words}"), ("down", f"{ip} {what} del {words} || true")]


def _family(*texts: object) -> str:
    known = [str(text) for text in texts if text not in (None, "default")]
    return "inet6" if known and ipaddress.ip_interface(known[0]).version == 6 else "inet"


def _in(address: object, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bool:
    return ipaddress.ip_address(str(address)) in interface.network


def _milliseconds(value: object, unit: str) -> float:
    """netplan's times: a number, with s or ms behind it, or in the unit that is usual there."""
    text = str(value)
    number, given = text.rstrip("ms"), text.lstrip("0123456789.") or unit
    return float(number) * (1 if given == "ms" else 1000)

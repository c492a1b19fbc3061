"""Servers that a machine of a topology runs: DHCP, DNS and router advertisements, all by one real dnsmasq(8).

What may be written (`SERVICES`), what it means to dnsmasq (`configuration`), and the program itself (`server`).
"""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from sim import config
from sim.document import Node, shown
from sim.scenario import Machine
from sim.shape import DURATION, Context, Either, Field, ListOf, MapOf, Record, Scalar, Text

FOLDER = "/run/sim/dnsmasq"
SHORTEST_S = 120  # dnsmasq(8): a lease is at least two minutes
LEASE_S = 600
ROUTER_S = 1800  # RFC 4861, section 6.2.1: AdvDefaultLifetime, three times the longest interval
INTERVAL_S = 10

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_CLIENTS = {"dhcp4": ("dhclient", "udhcpc", "dhcpcd"), "dhcp6": ("dhclient", "dhcpcd")}


# What may be written


def _v4(text: str) -> str:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError("is no IPv4 address; valid: one like 192.0.2.100") from None
    return text


def _prefix(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("is an impossible prefix; valid: a /64 like 2001:db8:1::/64") from None
    if network.version != 6 or network.prefixlen != 64:  # RFC 4862, section 5.5.3: stateless addresses need 64 bits
        raise ValueError("is no IPv6 prefix of 64 bits; valid: e.g. 2001:db8:1::/64")
    return text


def _dhcp(values: dict[str, Any], node: Node, context: Context) -> Any:
    low, high = values["range"][0], values["range"][-1]
    if len(values["range"]) != 2 or ipaddress.IPv4Address(low) > ipaddress.IPv4Address(high):
        return context.add(node.get("range"), "is no range; valid: the first and the last address, [192.0.2.100, …]")
    if values.get("lease", SHORTEST_S) < SHORTEST_S:
        return context.add(node.get("lease"), f"is too short for dnsmasq; valid: {SHORTEST_S}s and longer")
    return values


def _plain(values: dict[str, Any], node: Node, context: Context) -> Any:
    """Lists instead of tuples, so that `sim show` prints what was written."""
    return {name: _listed(given) for name, given in values.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [*value] if isinstance(value, tuple) else value


_V4 = Text("an IPv4 address like 192.0.2.100", parse=_v4)
_NAME = Text("a name like www.example.org", r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
             r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*")  # fmt: skip
_NO_ROUTER = Scalar("a duration like 30min, or 0 for 'no default router'", DURATION.pattern, DURATION.parse)

SERVICES = Record(
    {
        "dhcp": Field(
            Record(
                {
                    "range": Field(ListOf(_V4, 1), "the first and the last address that are given out", required=True),
                    "router": Field(_V4, "the default gateway that clients are told; default: none"),
                    "dns": Field(ListOf(config.SINGLE), "the name servers that they are told; default: none"),
                    "domain": Field(_NAME, "the domain that they are told; default: none"),
                    "lease": Field(DURATION, "how long an address is theirs; default: 10min, at least 2min"),
                },
                _dhcp,
            ),
            "addresses by DHCP (IPv4), on the port whose network the range is in",
        ),
        "dns": Field(
            Record(
                {
                    "records": Field(
                        MapOf(_NAME, Either(scalar=config.SINGLE, list=ListOf(config.SINGLE, 1))),
                        "NAME: ADDRESS, or a list; every other name does not exist",
                    )
                }
            ),
            "names, on every address of the machine",
        ),
        "ra": Field(
            Record(
                {
                    "prefix": Field(
                        Text("an IPv6 prefix of 64 bits", parse=_prefix), "that hosts make addresses of", required=True
                    ),
                    "lifetime": Field(_NO_ROUTER, "as a default router; 0: it is none; default: 30min"),
                    "interval": Field(DURATION, "between advertisements that nobody asked for; default: 10s"),
                    "dns": Field(ListOf(config.SINGLE), "the name servers that hosts are told; default: none"),
                }
            ),
            "router advertisements, on the port whose network the prefix is",
        ),
    },
    _plain,
    "a mapping of dhcp, dns and ra",
)


def check_place(services: Mapping[str, Any], settings: Mapping[str, Any], node: Node, context: Context) -> None:
    """Notes a range or prefix that no device of the machine is in; a machine without `config:` is not judged."""
    networks = [
        ipaddress.ip_interface(text).network
        for kind in config.KINDS
        for device in settings.get(kind, {})
        for text in config.addresses(settings, device)
    ]
    wanted = {"range": services.get("dhcp", {}).get("range", ())[:1], "prefix": ()}
    if "ra" in services:
        wanted["prefix"] = (services["ra"]["prefix"].partition("/")[0],)
    for key, addresses in wanted.items():
        for address in addresses:
            if networks and not any(ipaddress.ip_address(address) in network for network in networks):
                known = ", ".join(map(str, networks))
                context.add(node, f"the {key} of {shown(address)} is in no network of this machine; valid: {known}")


# What it means


def configuration(services: Mapping[str, Any]) -> str:
    """Pure. The text of dnsmasq.conf(5) for the `services:` of a machine."""
    lines = ["user=root", "bind-dynamic", "no-resolv", "no-hosts", "no-poll", f"pid-file={FOLDER}/pid"]
    lines += [f"log-facility={FOLDER}/log", f"dhcp-leasefile={FOLDER}/leases"]
    lines += _dns_lines(services["dns"]) if "dns" in services else ["port=0"]
    lines += _dhcp_lines(services["dhcp"]) if "dhcp" in services else []
    lines += _ra_lines(services["ra"]) if "ra" in services else []
    return "".join(f"{line}\n" for line in lines)


def _dns_lines(dns: Mapping[str, Any]) -> Iterator[str]:
    yield "address=/#/"  # what is not known does not exist (NXDOMAIN), instead of being refused
    for name, value in (dns.get("records") or {}).items():
        yield ",".join(("host-record=" + name, *([value] if isinstance(value, str) else value)))


def _dhcp_lines(dhcp: Mapping[str, Any]) -> Iterator[str]:
    yield "dhcp-authoritative"  # a client of an earlier boot is answered at once
    yield "no-ping"  # an offer does not wait three seconds for an echo
    yield f"dhcp-range={','.join(dhcp['range'])},{round(dhcp.get('lease', LEASE_S))}"
    yield ",".join(("dhcp-option=option:router", *([dhcp["router"]] if "router" in dhcp else [])))
    yield ",".join(("dhcp-option=option:dns-server", *dhcp.get("dns", ())))
    if "domain" in dhcp:
        yield f"dhcp-option=option:domain-name,{dhcp['domain']}"


def _ra_lines(ra: Mapping[str, Any]) -> Iterator[str]:
    yield "enable-ra"
    yield f"dhcp-range={ra['prefix'].partition('/')[0]},ra-only,64,{LEASE_S * 6}"
    yield f"ra-param=*,{round(ra.get('interval', INTERVAL_S))},{round(ra.get('lifetime', ROUTER_S))}"
    yield ",".join(("dhcp-option=option6:dns-server", *(f"[{server}]" for server in ra.get("dns", ()))))


# The program


def server(services: Mapping[str, Any]) -> Callable[[], None]:
    """A service for a machine: becomes dnsmasq, in the foreground, so that PID 1 sees its end."""
    text = configuration(services)

    def become() -> NoReturn:
        os.makedirs(FOLDER, exist_ok=True)
        with open(f"{FOLDER}/conf", "w", encoding="utf-8") as file:
            file.write(text)
        # --no-daemon: it changes neither user nor groups, which the namespace of an ordinary user does not let it do;
        # and it says everything on stderr too
        os.dup2(os.open(f"{FOLDER}/stderr", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        program = shutil.which("dnsmasq", path=_PATH) or "dnsmasq"
        os.execv(program, ["dnsmasq", "--no-daemon", f"--conf-file={FOLDER}/conf"])

    return become


def missing(machines: Sequence[Machine], changes: Sequence[Mapping[str, Any]] = ()) -> Iterator[str]:
    """Why the servers and clients of these machines cannot run here. `changes`: configurations merged later."""
    serving = [machine for machine in machines if machine.services]
    if serving and shutil.which("dnsmasq", path=_PATH) is None:
        names = ", ".join(f"{', '.join(machine.services)} of '{machine.name}'" for machine in serving)
        yield f"services ({names}) need dnsmasq, which is not installed (Debian package dnsmasq-base)"
    for key, clients in _CLIENTS.items():
        asked = any(_asks(settings, key) for settings in (*(machine.config for machine in machines), *changes))
        if asked and not any(shutil.which(name, path=_PATH) for name in clients):
            yield f"{key} needs one of {', '.join(clients)} (Debian package isc-dhcp-client)"


def _asks(settings: Mapping[str, Any], key: str) -> bool:
    devices = [device or {} for kind in config.KINDS for device in (settings.get(kind) or {}).values()]
    return any(device.get(key) for device in devices)

"""`services:` of a machine: what may be written, and what it means to dnsmasq."""

from __future__ import annotations

from typing import Any

import pytest

from sim import grammar
from sim.document import Mistakes, node_of
from sim.services import configuration
from sim.shape import INVALID, Context

DHCP = {"range": ["192.0.2.100", "192.0.2.120"]}
RA = {"prefix": "2001:db8:1::/64"}
MACHINE = {
    "ports": {"eth0": "lan"},
    "config": {"ethernets": {"eth0": {"addresses": ["192.0.2.1/24", "2001:db8:1::1/64"]}}},
}


def checked(services: Any) -> tuple[Any, list[str]]:
    """The machine's services as the loader takes them, and what it says."""
    mistakes = Mistakes("topology")
    topology = {"networks": {"lan": {}}, "machines": {"router": {**MACHINE, "services": services}}}
    made = grammar.TOPOLOGY.check(node_of(topology), Context(mistakes))
    said = [mistake.message for mistake in mistakes.found]
    return (None if made is INVALID else made.machines["router"].services), said


def lines(services: dict[str, Any]) -> list[str]:
    made, said = checked(services)
    assert said == []
    return configuration(made).splitlines()


def test_dhcp_gives_out_a_range_and_only_what_is_written() -> None:
    text = lines({"dhcp": {**DHCP, "router": "192.0.2.1", "dns": ["192.0.2.1", "192.0.2.2"], "lease": "5min"}})
    assert "dhcp-range=192.0.2.100,192.0.2.120,300" in text
    assert "dhcp-option=option:router,192.0.2.1" in text
    assert "dhcp-option=option:dns-server,192.0.2.1,192.0.2.2" in text
    assert "port=0" in text  # no name server nobody asked for
    assert "dhcp-option=option:router" in lines({"dhcp": DHCP})  # dnsmasq would name itself


def test_names_have_addresses_of_both_families_and_the_others_do_not_exist() -> None:
    text = lines({"dns": {"records": {"a.example": "192.0.2.80", "b.example": ["192.0.2.81", "2001:db8::81"]}}})
    assert "host-record=a.example,192.0.2.80" in text
    assert "host-record=b.example,192.0.2.81,2001:db8::81" in text
    assert "address=/#/" in text


def test_advertisements_carry_the_prefix_and_the_routers_lifetime() -> None:
    text = lines({"ra": {**RA, "lifetime": 0, "interval": "4s"}})
    assert "ra-param=*,4,0" in text
    assert any(line.startswith("dhcp-range=2001:db8:1::,ra-only,64,") for line in text)


@pytest.mark.parametrize(
    "services, said",
    [
        ({"dhpc": DHCP}, "services: unknown key 'dhpc'; did you mean 'dhcp'?"),
        ({"dhcp": {}}, "dhcp: lacks the key 'range' (the first and the last address that are given out)"),
        ({"dhcp": {"range": ["192.0.2.9"]}}, "is no range"),
        ({"dhcp": {"range": ["192.0.2.9", "192.0.2.8"]}}, "is no range"),
        ({"dhcp": {"range": ["192.0.2.8", "2001:db8::9"]}}, "'2001:db8::9' is no IPv4 address"),
        ({"dhcp": {**DHCP, "lease": "5s"}}, "is too short for dnsmasq; valid: 120s and longer"),
        ({"dhcp": {"range": ["203.0.113.1", "203.0.113.9"]}}, "'203.0.113.1' is in no network of this machine"),
        ({"ra": {"prefix": "2001:db8:1::/48"}}, "is no IPv6 prefix of 64 bits"),
        ({"ra": {"prefix": "2001:db8:7::/64"}}, "'2001:db8:7::' is in no network of this machine"),
        ({"dns": {"records": {"a b": "192.0.2.1"}}}, "valid: a name like www.example.org"),
        ({"dns": {"records": {"a.example": "192.0.2.300"}}}, "is an impossible address"),
    ],
)
def test_each_mistake_has_one_message(services: Any, said: str) -> None:
    messages = checked(services)[1]
    assert len(messages) == 1
    assert said in messages[0]

"""netplan's subset -> ifcfg files -> interfaces: what comes out is what the configuration says."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.stacks.ifcfg.model import FOLDER, Files, Interface, configuration
from sim.stacks.ifcfg.render import render


def through(config: dict[str, Any]) -> dict[str, Interface]:
    files = render(config)
    assert all(path.startswith(f"{FOLDER}/") and text.endswith("\n") for path, text in files.items())
    read = configuration(Files({path.rpartition("/")[2]: text for path, text in files.items()}))
    assert [*read.messages, *(m for one in read.interfaces for m in one.messages)] == []
    assert all(one.onboot and one.skip is None for one in read.interfaces)
    return {one.name: one for one in read.interfaces}


def test_a_server_is_written_as_an_administrator_would() -> None:
    settings = {
        "addresses": ["192.0.2.10/24"],
        "routes": [{"to": "default", "via": "192.0.2.1"}],
        "nameservers": {"addresses": ["192.0.2.1"], "search": ["example.org"]},
    }
    config = {"ethernets": {"eth0": settings}}
    assert render(config) == {
        f"{FOLDER}/ifcfg-eth0": "DEVICE=eth0\nTYPE=Ethernet\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=192.0.2.10\nPREFIX=24\n"
        "GATEWAY=192.0.2.1\nDNS1=192.0.2.1\nDOMAIN=example.org\n"
    }


def test_links_and_their_masters() -> None:
    config: dict[str, Any] = {
        "ethernets": {"eth0": {"mtu": 1400, "macaddress": "02:00:00:00:00:aa"}, "eth1": {}},
        "bridges": {"br0": {"interfaces": ["eth0", "eth9"], "parameters": {"stp": True, "forward-delay": 4}}},
        "vlans": {"mgmt": {"id": 7, "link": "eth1", "addresses": ["10.0.0.1/8"]}},
        "bonds": {
            "bond0": {"interfaces": ["eth2"], "parameters": {"mode": "active-backup", "mii-monitor-interval": 100}}
        },
    }
    found = through(config)
    assert set(found) == {"eth0", "eth1", "eth2", "eth9", "br0", "mgmt", "bond0"}
    assert (found["eth0"].mtu, found["eth0"].macaddr) == (1400, "02:00:00:00:00:aa")
    assert [(found[p].port_of, found[p].master) for p in ("eth0", "eth9", "eth2")] == [
        ("bridge", "br0"),
        ("bridge", "br0"),
        ("bond", "bond0"),
    ]
    assert dict(found["br0"].bridge) == {"forward_delay": 400, "stp_state": 1}
    assert (found["mgmt"].physdev, found["mgmt"].vlan_id) == ("eth1", 7)
    assert found["bond0"].bonding == (("mode", "active-backup"), ("miimon", "100"))


def test_routes_and_policies() -> None:
    routes = [
        {"to": "default", "via": "192.0.2.1", "metric": 100},
        {"to": "0.0.0.0/0", "via": "192.0.2.2", "table": 100},
        {"to": "10.0.0.0/8", "via": "192.0.2.3", "mtu": 1400, "from": "192.0.2.10"},
        {"to": "10.1.0.0/16", "via": "203.0.113.1", "on-link": True},
        {"to": "10.2.0.0/16", "type": "blackhole"},
        {"to": "10.3.0.0/16", "scope": "link"},
        {"to": "default", "via": "2001:db8::1"},
        {"to": "2001:db8:9::/48", "via": "2001:db8::2", "metric": 7, "table": 200},
    ]
    policies = [
        {"from": "192.0.2.10", "table": 100, "priority": 50},
        {"to": "2001:db8::/32", "from": "2001:db8::/64", "table": 7, "mark": 5, "type-of-service": 16},
    ]
    addresses = ["192.0.2.10/24", "2001:db8::10/64"]
    config = {"ethernets": {"eth0": {"addresses": addresses, "routes": routes, "routing-policy": policies}}}
    one = through(config)["eth0"]
    shown = {route.to + f"@{route.table}": route for route in one.routes if route.family == 4}
    assert set(shown) == {
        "default@254",
        "default@100",
        *(f"10.{n}@254" for n in ("0.0.0/8", *(f"{m}.0.0/16" for m in (1, 2, 3)))),
    }
    assert shown["default@254"].metric == 100 and shown["default@254"].mode == "replace"
    assert shown["10.0.0.0/8@254"].metrics == (("mtu", 1400),) and shown["10.0.0.0/8@254"].source == "192.0.2.10"
    assert shown["10.1.0.0/16@254"].onlink and shown["10.2.0.0/16@254"].type == "blackhole"
    assert [(r.to, r.via, r.metric, r.table) for r in one.routes if r.family == 6] == [
        ("default", "2001:db8::1", 0, 254),
        ("2001:db8:9::/48", "2001:db8::2", 7, 200),
    ]
    first, second = one.rules
    assert (first.family, first.source, first.table, first.priority) == (4, "192.0.2.10/32", 100, 50)
    assert (second.family, second.mark, second.tos, second.to) == (6, 5, 16, "2001:db8::/32")


@pytest.mark.parametrize(
    ("settings", "sysctls"),
    [
        ({"link-local": []}, {"disable_ipv6": "1"}),
        ({"accept-ra": False}, {"accept_ra": "0", "accept_redirects": "0", "autoconf": "0"}),
        ({"accept-ra": True, "link-local": ["ipv6"]}, {"accept_ra": "1", "accept_redirects": "1", "autoconf": "1"}),
        ({}, {"accept_ra": "1", "accept_redirects": "1", "autoconf": "1"}),
    ],
)
def test_ipv6_settings(settings: dict[str, Any], sysctls: dict[str, str]) -> None:
    assert dict(through({"ethernets": {"eth0": settings}})["eth0"].sysctls) == sysctls


def test_dhcp() -> None:
    one = through({"ethernets": {"eth0": {"dhcp4": True, "dhcp6": True, "optional": True}}})["eth0"]
    assert one.dhcp4 and one.dhcp6


def test_a_gateway_outside_of_the_first_network_is_a_route() -> None:
    routes = [{"to": "default", "via": "198.51.100.1"}]
    settings = {"addresses": ["192.0.2.10/24", "198.51.100.10/24"], "routes": routes}
    files = render({"ethernets": {"eth0": settings}})
    assert "GATEWAY" not in files[f"{FOLDER}/ifcfg-eth0"]
    assert files[f"{FOLDER}/route-eth0"] == "default via 198.51.100.1 dev eth0\n"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"wifis": {}}, "wifis"),
        ({"ethernets": {"eth0": {"match": {}}}}, "match"),
        ({"ethernets": {"eth0": {"dhcp4": True, "addresses": ["192.0.2.1/24"]}}}, "dhcp4 together with 192.0.2.1/24"),
        ({"ethernets": {"eth0": {"nameservers": {"addresses": ["192.0.2.1"] * 4}}}}, "4 addresses"),
        ({"ethernets": {"eth0": {"link-local": ["ipv4"]}}}, "link-local"),
        ({"ethernets": {"eth0": {"link-local": [], "addresses": ["2001:db8::1/64"]}}}, "link-local"),
        ({"ethernets": {"eth0": {"routes": [{"to": "default", "type": "blackhole"}]}}}, "address family"),
        ({"ethernets": {"eth0": {"routes": [{"to": "10.0.0.0/8", "congestion-window": 1}]}}}, "congestion-window"),
        ({"ethernets": {"eth0": {"routing-policy": [{"table": 5}]}}}, "address family"),
        ({"bridges": {"br0": {"parameters": {"ports": 1}}}}, "ports"),
        ({"bridges": {"br0": {"interfaces": ["eth0"]}, "br1": {"interfaces": ["eth0"]}}}, "eth0 is a port of br0"),
        ({"bonds": {"bond0": {"parameters": {"stp": True}}}}, "stp"),
        ({"vlans": {"v": {"id": 5}}}, "link is missing"),
    ],
)
def test_what_the_format_cannot_say_is_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(config)


ADDRESS = st.builds(
    lambda ip, length: f"{ip}/{length}", st.ip_addresses(v=4, network="10.0.0.0/8"), st.integers(8, 32)
) | st.builds(lambda ip, length: f"{ip}/{length}", st.ip_addresses(v=6, network="2001:db8::/32"), st.integers(32, 128))


@given(st.lists(ADDRESS, unique_by=lambda text: text.partition("/")[0], max_size=6))
def test_addresses_survive_in_their_order(addresses: list[str]) -> None:
    one = through({"ethernets": {"eth0": {"addresses": addresses}}})["eth0"]
    for family in (4, 6):
        wanted = [ipaddress.ip_interface(text) for text in addresses]
        found = [f"{address.address}/{address.prefix}" for address in one.addresses if address.family == family]
        assert found == [str(address) for address in wanted if address.version == family]

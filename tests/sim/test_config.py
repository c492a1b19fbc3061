"""Configuration in netplan's words: merging, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import config
from sim.errors import BadInput


def said(settings: dict[str, Any], *ports: str) -> list[str]:
    try:
        config.validate(settings, ports or ("eth0", "eth1"))
    except BadInput as error:
        return [mistake.message for mistake in error.mistakes]
    return []


def device(**settings: Any) -> dict[str, Any]:
    return {"ethernets": {"eth0": {key.replace("_", "-"): value for key, value in settings.items()}}}


def test_mappings_merge_lists_and_scalars_replace_null_removes() -> None:
    base = {"ethernets": {"eth0": {"addresses": ["192.0.2.1/24"], "mtu": 1400}, "eth1": {"dhcp4": True}}}
    patch = {"ethernets": {"eth0": {"addresses": ["192.0.2.2/24"], "mtu": None}, "eth1": None}, "bridges": {"br0": {}}}
    assert config.merge(base, patch) == {"ethernets": {"eth0": {"addresses": ["192.0.2.2/24"]}}, "bridges": {"br0": {}}}
    assert base["ethernets"]["eth1"] == {"dhcp4": True}


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert config.merge({"ethernets": {}}, {"vlans": {"vlan5": None}}) == {"ethernets": {}, "vlans": {}}


PLAIN = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3)


@given(base=MAPPINGS, patch=MAPPINGS)
def test_merging_twice_is_merging_once(base: dict[str, Any], patch: dict[str, Any]) -> None:
    once = config.merge(base, patch)
    assert config.merge(once, patch) == once


def test_all_of_the_subset_is_accepted() -> None:
    full = {
        "version": 2,
        "ethernets": {
            "eth0": {
                "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
                "routes": [
                    {"to": "default", "via": "192.0.2.1", "metric": 100, "table": 200, "on-link": True},
                    {"to": "::/0", "via": "fe80::1", "from": "2001:db8::10", "mtu": 1400},
                    {"to": "203.0.113.0/24", "type": "blackhole"},
                    {"to": "198.51.100.7", "scope": "link"},
                ],
                "routing-policy": [{"from": "192.0.2.0/24", "table": 200, "priority": 5, "mark": 1}],
                "nameservers": {"addresses": ["192.0.2.53", "2001:db8::53"], "search": ["example.org"]},
                "mtu": 9000,
                "macaddress": "02:00:00:00:00:01",
                "dhcp4": False,
                "dhcp6": True,
                "accept-ra": False,
                "link-local": ["ipv6"],
                "optional": True,
            },
            "eth1": {},
        },
        "bonds": {"bond0": {"interfaces": ["eth1"], "parameters": {"mode": "802.3ad", "mii-monitor-interval": 100}}},
        "bridges": {"br0": {"interfaces": ["bond0"], "parameters": {"stp": False, "forward-delay": "2s"}}},
        "vlans": {"br0.7": {"id": 7, "link": "br0", "addresses": ["203.0.113.1/32"]}},
    }
    assert said(full) == []
    assert config.families(full) == {"v4", "v6"}
    assert config.addresses(full, "br0.7") == ["203.0.113.1/32"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (device(addresses=["192.0.2.256/24"]), "'192.0.2.256/24' is an impossible address"),
        (device(addresses=["192.0.2.1/"]), "has the impossible prefix length ''; valid: 0 to 32"),
        (device(addresses=["2001:db8::1/129"]), "has the impossible prefix length '129'; valid: 0 to 128"),
        (device(addresses=["fe80::1%eth0/64"]), "has a zone"),
        (device(addresses=["0.0.0.0/0"]), "is an impossible address for a device"),
        (device(addresses="192.0.2.1/24"), "'192.0.2.1/24' is a text; valid: a list"),
        (device(routes=[{"to": "default", "via": "192.0.2.1/24"}]), "has a prefix length"),
        (device(routes=[{"to": "2001:db8::/32", "via": "192.0.2.1"}]), "'192.0.2.1' is IPv4, but 'to' is IPv6"),
        (device(routes=[{"to": "192.0.2.1/24", "via": "192.0.2.1"}]), "did you mean '192.0.2.0/24'?"),
        (device(routes=[{"via": "192.0.2.1"}]), "lacks the key 'to'"),
        (device(routes=[{"to": "192.0.2.0/24"}]), "a route needs 'via'"),
        (device(routes=[{"to": "default", "scope": "link"}]), "has no family"),
        (device(routing_policy=[{"table": 7}]), "a policy needs 'from' or 'to'"),
        (device(routing_policy=[{"from": "192.0.2.0/24", "to": "::/0", "table": 7}]), "are of two families"),
        (device(mtu=67), "67 is out of range; valid: a whole number from 68 to 65535"),
        (device(mtu=True), "is true or false; valid: a whole number"),
        (device(macaddress="02:00"), "'02:00'; valid: a MAC address"),
        (device(macaddress="00:00:00:00:00:00"), "is a group address, or all zeros"),
        (device(dhcp="yes"), "unknown key 'dhcp'; did you mean 'dhcp4'?"),
        (device(link_local=["ipv5"]), "did you mean"),
        (device(nameservers={"addresses": ["dns.example.org"]}), "is an impossible address"),
        ({"vlans": {"v": {"id": 4095, "link": "eth0"}}}, "4095 is out of range"),
        ({"vlans": {"v": {"id": 1, "link": "eth9"}}}, "unknown device 'eth9'; did you mean 'eth"),
        ({"vlans": {"v": {"id": 1, "link": "v"}}}, "'v' is below itself"),
        ({"vlans": {"eth0": {"id": 1, "link": "eth1"}}}, "the name 'eth0' is taken"),
        ({"bridges": {"a": {"interfaces": ["b"]}}, "bonds": {"b": {"interfaces": ["a"]}}}, "is below itself"),
        ({"bridges": {"a": {"interfaces": ["eth0"]}, "b": {"interfaces": ["eth0"]}}}, "is a port of 'a' already"),
        ({"bridges": {"a-name-that-is-too-long": {}}}, "at most 15 characters"),
        ({"bonds": {"b": {"parameters": {"mode": "active"}}}}, "did you mean 'active-backup'?"),
        ({"ethernets": {"eth2": {}}}, "unknown port 'eth2'; did you mean 'eth"),
        ({"wifis": {}}, "unknown key 'wifis'; valid: bonds, bridges, ethernets, version, vlans"),
        ({"version": 1}, "1 is out of range"),
    ],
)
def test_what_cannot_be_is_refused_once(settings: dict[str, Any], message: str) -> None:
    told = said(settings)
    assert len(told) == 1
    assert message in told[0]

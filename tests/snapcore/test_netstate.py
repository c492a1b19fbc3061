"""The kernel's state as values: its written form, and what differs, in words."""

from __future__ import annotations

import pytest

from snapcore import netstate
from snapcore.errors import Corrupt
from snapcore.netstate import Address, Fdb, Hop, Link, Neighbour, Qdisc, Route, Rule, State, Vlan


def made(**parts: object) -> State:
    return netstate.empty()._replace(**parts)  # type: ignore[arg-type]  # the tests name the fields


def two(**parts: object) -> State:
    return made(links={"eth0": Link("", mac="02:00:00:00:00:01", up=True), "br0": Link("bridge")}, **parts)


FULL = made(
    links={
        "eth0": Link("", "br0", 9000, "02:00:00:00:00:01", True, altnames=("enp1s0",), port={"cost": 5}),
        "br0": Link("bridge", options={"stp_state": 1, "group_addr": "01:80:c2:00:00:00"}, ifindex=7),
        "v0": Link("veth", parent="v1"),
        "v1": Link("veth", foreign=True, options={"flags": (("X", 1),)}),
    },
    addresses={"br0": (Address("v4", "192.0.2.10/24", broadcast="192.0.2.255"), Address("v6", "fd00::1/64", valid=77))},
    routes=(
        Route("v4", "default", hops=(Hop("br0", "192.0.2.1"), Hop("br0", "192.0.2.2", 3)), metrics=(("mtu", 1400),)),
        Route("v6", "2001:db8::/32", type="blackhole", table=100),
    ),
    rules=(Rule("v4", 100, source="10.0.0.0/8", table=100, attributes=(("fwmark", 7), ("uid_range", "0:9"))),),
    neighbours=(Neighbour("br0", "192.0.2.1", "02:00:00:00:00:09"),),
    fdb=(Fdb("eth0", "02:00:00:00:00:08"),),
    vlans={"eth0": (Vlan(1, True, True),)},
    sysctls={"ipv4/ip_forward": "1", "ipv4/conf/eth0/rp_filter": "2"},
    qdiscs={"eth0": (Qdisc("pfifo", 0x10000, 0xFFFFFFFF, "07000000"),)},
    nft="table inet filter {\n}\n",
)


def words(old: State, new: State, **options: object) -> list[str]:
    return [str(change) for change in netstate.differences(old, new, **options)]  # type: ignore[arg-type]


def test_a_state_comes_back_from_its_written_form() -> None:
    data = netstate.to_json(FULL)
    assert netstate.from_json(data, "kernel.json") == FULL
    assert data == netstate.to_json(netstate.from_json(data, "kernel.json"))
    assert netstate.differences(FULL, FULL) == []


@pytest.mark.parametrize("at", [0, 40, 500, -3])
def test_an_altered_or_torn_state_is_refused_by_name(at: int) -> None:
    data = bytearray(netstate.to_json(FULL))
    data[at] ^= 1
    with pytest.raises(Corrupt, match=r"^kernel\.json: torn or altered"):
        netstate.from_json(bytes(data), "kernel.json")
    with pytest.raises(Corrupt, match=r"^kernel\.json: torn or altered"):
        netstate.from_json(netstate.to_json(FULL)[: at or 1], "kernel.json")


def test_a_state_that_makes_no_sense_is_refused() -> None:
    from snapcore.state import FORMAT, seal

    with pytest.raises(Corrupt, match="makes no sense"):
        netstate.from_json(seal({"format": FORMAT, "kind": "kernel", "links": {"eth0": {"colour": 1}}}), "kernel.json")


def test_changes_of_links_are_told_in_one_line_each() -> None:
    eth0, br0 = two().links["eth0"], Link("bridge", options={"stp_state": 0}, altnames=("lan",))
    old = made(links={"eth0": eth0, "br0": br0, "vlan5": Link("vlan", parent="eth0")})
    new = made(
        links={
            "eth0": eth0._replace(mtu=1400, up=False, master="br0"),
            "br0": br0._replace(options={"stp_state": 1}, altnames=()),
            "veth9": Link("veth"),
        }
    )
    assert words(old, new) == [
        "br0: altnames none, was lan",
        "br0: bridge stp_state 1, was 0",
        "eth0: MTU 1400, was 1500",
        "eth0: is down, was up",
        "eth0: master br0, was none",
        "veth9: is new (veth)",
        "vlan5: is gone (vlan)",
    ]


def test_changes_of_addresses_routes_rules_and_settings_are_told_in_one_line_each() -> None:
    old = two(
        addresses={"eth0": (Address("v4", "192.0.2.10/24"), Address("v4", "192.0.2.11/24", flags=("secondary",)))},
        routes=(Route("v4", "default", hops=(Hop("eth0", "192.0.2.1"),)),),
        rules=(Rule("v4", 50, table=100, source="10.0.0.0/8"),),
        sysctls={"ipv4/ip_forward": "1", "ipv6/conf/eth0/disable_ipv6": "0"},
    )
    new = two(
        addresses={"eth0": (Address("v4", "192.0.2.10/24"),)},
        routes=(Route("v4", "default", hops=(Hop("eth0", "192.0.2.254"),), table=100, metric=5),),
        rules=(Rule("v6", 50, action="prohibit"),),
        sysctls={"ipv4/ip_forward": "0", "ipv6/conf/eth0/disable_ipv6": "1"},
    )
    assert words(old, new) == [
        "IPv6 rule 50: from all prohibit is new",
        "rule 50: from 10.0.0.0/8 lookup 100 is gone",
        "net/ipv4/ip_forward 0, was 1",
        "eth0: address 192.0.2.11/24 secondary is gone",
        "eth0: route default via 192.0.2.1 dev eth0 is gone",
        "eth0: route default via 192.0.2.254 dev eth0 table 100 metric 5 is new",
        "eth0: net/ipv6/conf/eth0/disable_ipv6 1, was 0",
    ]
    assert words(old, new, only=["br0"]) == []


def test_only_the_order_of_ipv4_addresses_counts() -> None:
    first, second = Address("v4", "192.0.2.10/24"), Address("v4", "10.0.0.1/8")
    six, seven = Address("v6", "2001:db8::1/64"), Address("v6", "2001:db8::2/64")
    old = two(addresses={"eth0": (first, second, six, seven)})
    assert words(old, two(addresses={"eth0": (first, second, seven, six)})) == []
    assert words(old, two(addresses={"eth0": (second, first, six, seven)})) == [
        "eth0: order 10.0.0.1/8, 192.0.2.10/24, was 192.0.2.10/24, 10.0.0.1/8"
    ]


def test_what_changes_by_itself_is_no_difference() -> None:
    address = Address("v6", "2001:db8::1/64", dynamic=True, preferred=100, valid=200)
    router = Route("v6", "default", hops=(Hop("eth0", "fe80::1"),), protocol=9, expires=900)
    old = two(addresses={"eth0": (address,)}, routes=(router,))
    later = address._replace(preferred=0, valid=100, flags=("deprecated",), tentative=True)
    private = Address("v6", "2001:db8::77/64", dynamic=True, flags=("temporary",))
    new = two(addresses={"eth0": (private, later)}, routes=(router._replace(expires=10),))
    new = new._replace(links={name: link._replace(ifindex=99) for name, link in new.links.items()})
    assert words(old, new) == []


def test_the_kernels_routes_of_an_address_that_is_still_tried_are_no_difference() -> None:
    local = Route("v6", "2001:db8::1/128", 255, "local", (Hop("eth0"),), protocol=netstate.KERNEL)
    tried = Address("v6", "2001:db8::1/64", tentative=True)
    old = two(addresses={"eth0": (tried._replace(tentative=False),)}, routes=(local,))
    assert words(old, two(addresses={"eth0": (tried,)})) == []
    assert words(old, two(addresses=old.addresses)) == [
        "eth0: IPv6 route local 2001:db8::1/128 dev eth0 table local proto kernel is gone"
    ]


def test_what_stands_on_a_device_that_is_gone_or_new_is_not_told_besides() -> None:
    on_eth0 = {
        "addresses": {"eth0": (Address("v4", "192.0.2.10/24"),)},
        "routes": (Route("v4", "default", hops=(Hop("eth0", "192.0.2.1"),)),),
        "sysctls": {"ipv4/conf/eth0/rp_filter": "1"},
        "neighbours": (Neighbour("eth0", "192.0.2.1", "02:00:00:00:00:09"),),
    }
    with_it, without = two(**on_eth0), made(links={"br0": Link("bridge")})
    assert words(with_it, without) == ["eth0: is gone (hardware)"]
    veth = made(
        links={"br0": Link("bridge"), "eth0": Link("veth")},
        addresses=on_eth0["addresses"],
        routes=on_eth0["routes"],
        sysctls=on_eth0["sysctls"],
    )
    assert words(without, veth) == ["eth0: is new (veth)"]


def test_a_containers_port_that_was_added_to_an_old_bridge_stays_unless_asked() -> None:
    old = two()
    new = two()
    new.links.update(
        guest=Link("veth", "br0", foreign=True),
        tap0=Link("tun", "br0"),
        own=Link("veth", "br0"),
        usb0=Link(""),
        loose=Link("veth", foreign=True),
    )
    assert words(old, new) == ["loose: is new (veth)", "own: is new (veth)"]
    assert words(old, new, external_ports="restore") == [
        "guest: is new (veth)", "loose: is new (veth)", "own: is new (veth)", "tap0: is new (tun)"
    ]  # fmt: skip
    assert words(old, new, new_devices="keep") == []


def test_a_bonds_port_has_the_bonds_address() -> None:
    port = Link("", "bond0", mac="02:00:00:00:00:01")
    old = made(links={"eth0": port, "bond0": Link("bond")})
    assert words(old, made(links={"eth0": port._replace(mac="02:00:00:00:00:02"), "bond0": Link("bond")})) == []


def test_rule_sets_are_compared_only_where_both_were_asked_for() -> None:
    assert words(made(nft="table ip a {\n}\n"), made()) == []
    assert words(made(nft=netstate.NO_RULES), made(nft="table ip a {\n}\n")) == ["nftables: another rule set"]


def test_a_multipath_route_reads_as_ip_writes_it() -> None:
    assert netstate.route_words(FULL.routes[0]) == (
        "default nexthop via 192.0.2.1 dev br0 weight 1 nexthop via 192.0.2.2 dev br0 weight 3 mtu 1400"
    )
    assert netstate.route_words(FULL.routes[1]) == "blackhole 2001:db8::/32 table 100"
    assert netstate.rule_words(FULL.rules[0]) == "100: from 10.0.0.0/8 fwmark 7 uid_range 0:9 lookup 100"

"""The order in which a kernel's state is given back, on states made up here."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from snapcore import netstate, repair
from snapcore.netstate import Address, Hop, Link, Route, Rule, State


def made(**parts: object) -> State:
    return netstate.empty()._replace(**parts)  # type: ignore[arg-type]  # the tests name the fields


def steps(old: State, now: State, **options: object) -> list[str]:
    return [str(action) for action in repair.plan(old, now, **options)]  # type: ignore[arg-type]


def links(**found: Link) -> State:
    return made(links=found)


ETH0 = Link("", mac="02:00:00:00:00:01", up=True)


def test_nothing_is_done_where_nothing_differs() -> None:
    state = links(eth0=ETH0, br0=Link("bridge", up=True), guest=Link("veth", "br0", foreign=True, up=True))
    assert steps(state, state) == []


def test_a_tunnel_that_came_with_its_module_is_left_alone() -> None:
    old, now = links(eth0=ETH0), links(eth0=ETH0, tunl0=Link("ipip"), tun1=Link("ipip"))
    assert steps(old, now) == ["tun1: delete (ipip, new)"]
    assert [change.interface for change in netstate.differences(old, now)] == ["tun1"]


def test_new_devices_go_children_first_unless_they_are_kept() -> None:
    old = links(eth0=ETH0)
    now = links(
        eth0=ETH0,
        br9=Link("bridge"),
        vlan5=Link("vlan", "br9", parent="bond9"),
        bond9=Link("bond"),
        macvlan5=Link("macvlan", parent="vlan5"),
    )
    assert steps(old, now) == [
        "macvlan5: delete (macvlan, new)",
        "vlan5: delete (vlan, new)",
        "bond9: delete (bond, new)",
        "br9: delete (bridge, new)",
    ]
    assert steps(old, now, new_devices="keep") == []


def test_both_ends_of_a_new_veth_go_at_once() -> None:
    now = links(eth0=ETH0, v0=Link("veth", parent="v1"), v1=Link("veth", parent="v0"))
    assert steps(links(eth0=ETH0), now) == ["v0: delete (veth, new)"]


def test_ports_are_freed_before_their_master_goes_down_and_put_in_before_they_go_up() -> None:
    old = links(br0=Link("bridge", up=True), br1=Link("bridge"), eth0=ETH0._replace(master="br0"))
    now = links(br0=Link("bridge"), br1=Link("bridge", up=True), eth0=ETH0._replace(master="br1", up=False))
    assert steps(old, now) == ["eth0: take out of br1", "br1: down", "eth0: put into br0", "br0: up", "eth0: up"]


def test_a_base_is_raised_first_and_lowered_last() -> None:
    def stack(base: int, vlan: int) -> State:
        return links(eth0=ETH0._replace(mtu=base), vlan5=Link("vlan", parent="eth0", mtu=vlan))

    assert steps(stack(9000, 9000), stack(1500, 1500)) == ["eth0: MTU 9000 (is 1500)", "vlan5: MTU 9000 (is 1500)"]
    assert steps(stack(1500, 1500), stack(9000, 9000)) == ["vlan5: MTU 1500 (is 9000)", "eth0: MTU 1500 (is 9000)"]


def test_deleted_devices_are_made_again_parents_first_and_put_back() -> None:
    old = links(
        a=Link("macvlan", parent="vlan5", up=True),
        br0=Link("bridge", up=True),
        eth0=ETH0,
        v0=Link("veth", "br0", parent="v1", up=True),
        v1=Link("veth", parent="v0"),
        vlan5=Link("vlan", parent="eth0", up=True, options={"id": 5}),
    )
    assert steps(old, links(eth0=ETH0)) == [
        "br0: make again (bridge)",
        "v0: make again (veth, peer v1)",
        "vlan5: make again (vlan)",
        "a: make again (macvlan)",
        "v0: put into br0",
        "br0: up",
        "v0: up",
        "vlan5: up",
        "a: up",
    ]


def test_another_id_means_delete_and_make_again_with_what_stands_on_it() -> None:
    def stack(number: int) -> State:
        vlan5 = Link("vlan", parent="eth0", options={"id": number, "protocol": 0x8100})
        return links(eth0=ETH0, vlan5=vlan5, on=Link("macvlan", parent="vlan5"))

    assert steps(stack(5), stack(6)) == [
        "vlan5: delete (vlan, vlan id 6, was 5)",
        "vlan5: make again (vlan)",
        "on: make again (macvlan)",
    ]
    bridge = links(br0=Link("bridge", options={"stp_state": 0}))
    assert steps(bridge, links(br0=Link("bridge", options={"stp_state": 1}))) == ["br0: bridge stp_state 0 (is 1)"]


def test_hardware_that_vanished_is_named_and_the_rest_is_restored() -> None:
    routes = (Route("v4", "10.1.0.0/16", hops=(Hop("eth1"),)), Route("v4", "10.2.0.0/16", hops=(Hop("eth0"),)))
    old = links(eth0=ETH0, eth1=ETH0, vlan7=Link("vlan", parent="eth1"), guest=Link("veth", foreign=True))
    old = old._replace(routes=routes, addresses={"eth1": (Address("v4", "10.1.0.1/16"),)})
    plan = repair.plan(old, links(eth0=ETH0))
    assert [str(action) for action in plan] == [
        "eth1: is gone and cannot be made again (hardware)",
        "guest: is gone and cannot be made again (veth, its other end is in another namespace)",
        "vlan7: cannot be made without eth1",
        "eth0: add route 10.2.0.0/16 dev eth0",
    ]
    assert [action.verb for action in plan] == ["cannot", "cannot", "cannot", "add-route"]


def test_a_renamed_device_gets_its_name_back_also_when_two_were_swapped() -> None:
    old = links(eth0=ETH0._replace(ifindex=2), eth1=ETH0._replace(ifindex=3))
    assert steps(old, links(eth1=ETH0._replace(ifindex=3), lan0=ETH0._replace(ifindex=2))) == ["lan0: rename to eth0"]
    assert steps(old, links(eth0=ETH0._replace(ifindex=3), eth1=ETH0._replace(ifindex=2))) == [
        "eth0: rename to snapcore0 for a moment",
        "eth1: rename to snapcore1 for a moment",
        "snapcore0: rename to eth1",
        "snapcore1: rename to eth0",
    ]


def test_settings_of_all_come_before_those_of_each_and_before_links_are_up() -> None:
    sysctls = {
        "ipv6/conf/all/disable_ipv6": "0",
        "ipv6/conf/default/disable_ipv6": "0",
        "ipv6/conf/eth0/disable_ipv6": "0",
        "ipv6/conf/eth0/accept_ra": "1",
    }
    old = links(eth0=ETH0)._replace(
        sysctls=sysctls, addresses={"eth0": (Address("v6", "2001:db8::1/64"), Address("v6", "2001:db8::2/64"))}
    )
    now = links(eth0=ETH0._replace(up=False))._replace(sysctls={**sysctls, "ipv6/conf/all/disable_ipv6": "1"})
    assert steps(old, now) == [
        "net/ipv6/conf/all/disable_ipv6 = 0",
        "net/ipv6/conf/default/disable_ipv6 = 0",
        "eth0: net/ipv6/conf/eth0/disable_ipv6 = 0",
        "eth0: up",
        "eth0: add 2001:db8::2/64",
        "eth0: add 2001:db8::1/64",
    ]


def test_routes_on_a_link_come_before_those_by_a_gateway() -> None:
    default = Route("v4", "default", hops=(Hop("eth0", "10.9.0.1"),))
    link = Route("v4", "10.9.0.0/16", hops=(Hop("eth0"),), scope=253)
    black = Route("v4", "10.3.0.0/16", type="blackhole")
    old = links(eth0=ETH0)._replace(routes=(default, black, link), rules=(Rule("v4", 5, table=100),))
    assert steps(old, links(eth0=ETH0)) == [
        "eth0: add route 10.9.0.0/16 dev eth0 scope link",
        "add route blackhole 10.3.0.0/16",
        "eth0: add route default via 10.9.0.1 dev eth0",
        "add rule 5: from all lookup 100",
    ]


def test_a_route_that_was_altered_is_replaced_without_a_moment_in_between() -> None:
    def via(gateway: str) -> State:
        return links(eth0=ETH0)._replace(routes=(Route("v4", "default", hops=(Hop("eth0", gateway),)),))

    assert steps(via("10.0.0.1"), via("10.0.0.2")) == ["eth0: replace route default via 10.0.0.1 dev eth0"]


def test_the_kernels_own_routes_are_left_to_it_where_links_change() -> None:
    connected = Route("v4", "10.0.0.0/8", hops=(Hop("eth0"),), protocol=netstate.KERNEL, scope=253, prefsrc="10.0.0.1")
    old = links(eth0=ETH0)._replace(routes=(connected,), addresses={"eth0": (Address("v4", "10.0.0.1/8"),)})
    down = links(eth0=ETH0._replace(up=False))._replace(addresses=old.addresses)
    assert steps(old, down) == ["eth0: up"]
    assert steps(old, down._replace(links=old.links)) == [
        "eth0: add route 10.0.0.0/8 dev eth0 proto kernel scope link src 10.0.0.1"
    ]


def test_a_device_that_goes_down_and_up_gets_back_what_the_kernel_flushes() -> None:
    def under(master: str) -> State:
        route = Route("v4", "10.2.0.0/16", hops=(Hop("eth0"),))
        six = Address("v6", "2001:db8::1/64")
        return links(eth0=ETH0._replace(master=master), bond0=Link("bond", up=True))._replace(
            routes=(route,), addresses={"eth0": (six,)}
        )

    assert steps(under("bond0"), under("")) == [
        "eth0: down for a moment",
        "eth0: put into bond0",
        "eth0: up",
        "eth0: add 2001:db8::1/64",
        "eth0: add route 10.2.0.0/16 dev eth0",
    ]


def test_a_guests_port_is_put_back_when_its_bridge_must_be_made_again() -> None:
    old = links(br0=Link("bridge", up=True))
    now = links(br0=Link("bond", up=True), guest=Link("veth", "br0", foreign=True, up=True))
    assert steps(old, now) == [
        "br0: delete (bond, bond, was bridge)",
        "br0: make again (bridge)",
        "guest: put into br0",
        "br0: up",
    ]


def test_only_the_interfaces_asked_for_are_touched() -> None:
    old = links(eth0=ETH0, eth1=ETH0)._replace(rules=(Rule("v4", 5, table=100),))
    now = links(eth0=ETH0._replace(mtu=1400), eth1=ETH0._replace(mtu=1400), new=Link("bridge"))
    assert steps(old, now, only=["eth1"]) == ["eth1: MTU 1500 (is 1400)"]


def test_rules_of_one_priority_keep_their_order() -> None:
    a, b, c = (Rule("v4", 7, table=table) for table in (1, 2, 3))
    assert steps(made(rules=(a, b)), made(rules=(a,))) == ["add rule 7: from all lookup 2"]
    assert steps(made(rules=(a, b)), made(rules=(b, c))) == [
        "remove rule 7: from all lookup 2",
        "remove rule 7: from all lookup 3",
        "add rule 7: from all lookup 1",
        "add rule 7: from all lookup 2",
    ]


# -- IPv4 addresses, against the kernel's rules ------------------------------------------------------------------

POOL = [
    Address("v4", f"10.0.{net}.{host}/24", scope=scope)
    for net, host, scope in itertools.product((0, 1), (1, 2, 3), (0, 253))
    if (net == 1) == (scope == 253)
]


def listed(wanted: list[Address]) -> list[Address]:
    found: list[Address] = []
    for address in wanted:
        found = repair._with(found, address)
    return found


@given(st.lists(st.sampled_from(POOL), unique=True), st.lists(st.sampled_from(POOL), unique=True), st.booleans())
def test_ipv4_addresses_end_in_the_old_order(was: list[Address], now: list[Address], promote: bool) -> None:
    old, there = listed(was), listed(now)
    away, back = repair.order_addresses(old, there, promote)
    for address in away:
        there = repair._without(there, address, promote)
    for address in back:
        there = repair._with(there, address)
    assert there == old


def test_a_primary_address_that_is_missing_takes_its_place_again() -> None:
    one, two_, three = listed([Address("v4", f"10.0.0.{host}/24") for host in (1, 2, 3)])
    assert [address.flags for address in (one, two_, three)] == [(), ("secondary",), ("secondary",)]
    assert repair.order_addresses([one, two_, three], [one, three], False) == ([three], [two_, three])
    assert repair.order_addresses([one, two_], [one, two_, three], False) == ([three], [])

"""Each reason for an undelivered flow, produced on real machines, in both families."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from missing import lacking

from sim.api import Delivery, Lab, World

pytestmark = pytest.mark.world

SWALLOW = {"v4": "net.ipv4.icmp_echo_ignore_all", "v6": "net.ipv6.icmp.echo_ignore_all"}
TO_INTERNET = {"v4": "198.51.100.50", "v6": "2001:db8:2::50"}
ROUTER = {"v4": "192.0.2.1", "v6": "2001:db8:1::1"}
NOBODY = {"v4": "192.0.2.66", "v6": "2001:db8:1::66"}


class Net:
    """lan-and-router with both families, and the flows of one of them."""

    def __init__(self, lab: Lab, family: str) -> None:
        self.lab = lab
        self.family = family
        self.ip = "ip -4" if family == "v4" else "ip -6"

    def run(self, machine: str, command: str) -> str:
        return self.lab.machine(machine).run(command).output

    def sysctl(self, machine: str, key: str, value: int) -> None:
        self.run(machine, f"echo {value} > /proc/sys/{key.replace('.', '/')}")

    def filter(self, machine: str, hook: str, rule: str) -> None:
        """One rule of nftables in a hook of its own."""
        chain = f"type filter hook {hook} priority 0; policy accept;"
        self.run(machine, f"nft 'add table inet x; add chain inet x y {{ {chain} }}; add rule inet x y {rule}'")

    def flow(self, text: str) -> Delivery:
        seen = self.lab.flow(f"{text} {self.family}")
        assert seen.family == self.family
        return seen

    def reason(self, text: str) -> str:
        """The reason, which there must be, and with it some evidence."""
        seen = self.flow(text)
        assert not seen.delivered
        assert seen.detail, "a reason has its evidence"
        assert seen.lost == seen.sent
        return seen.reason


@pytest.fixture(params=["v4", "v6"])
def net(request: pytest.FixtureRequest, world: World) -> Net:
    net = Net(world("dual-stack", listen={"internet": ["tcp/22", "udp/53"], "client": ["tcp/22"]}), request.param)
    for flow in ("server -> client", "server -> internet", "server -> internet tcp/22", "server -> internet udp/53"):
        assert net.flow(flow).delivered
    return net


@pytest.fixture
def nft() -> None:
    """nftables; what is missing is a failure with CI=true."""
    if shutil.which("nft") is None:
        lacking("the program nft is not installed")


# -- the sender's own side -----------------------------------------------------------------------------------------


def test_link_down_when_the_cable_is_pulled(net: Net) -> None:
    net.lab.machine("server").unplug("eth0")
    assert net.reason("server -> client") == "link-down"
    assert net.reason("server -> internet tcp/22") == "link-down"
    net.lab.machine("server").plug("eth0")
    assert net.lab.flow(f"server -> client {net.family}", within_s=5).delivered


def test_link_down_when_the_interface_is_down(net: Net) -> None:
    net.run("server", "ip link set eth0 down")
    assert net.reason("server -> client") == "link-down"
    assert net.reason("server -> internet") == "link-down"


def test_link_down_when_the_sender_is_off(net: Net) -> None:
    net.lab.machine("server").crash()
    assert net.reason("server -> client") == "link-down"


def test_no_address_when_the_sender_has_none_of_the_family(net: Net) -> None:
    net.run("server", f"{net.ip} addr flush dev eth0 scope global")
    if net.family == "v4":  # a link-local address and a router on the same link do for IPv6
        assert net.reason("server -> client") == "no-address"
    assert net.reason("server -> internet") == "no-address"
    assert net.reason("server -> internet tcp/22") == "no-address"


def test_no_route_without_a_default_route(net: Net) -> None:
    net.run("server", f"{net.ip} route del default")
    assert net.reason("server -> internet") == "no-route"
    assert net.reason("server -> internet tcp/22") == "no-route"
    assert net.flow("server -> client").delivered


@pytest.mark.parametrize("kind", ["unreachable", "blackhole"])
def test_no_route_when_a_route_says_so(net: Net, kind: str) -> None:
    net.run("server", f"{net.ip} route add {kind} {TO_INTERNET[net.family]}")
    assert net.reason("server -> internet") == "no-route"
    assert net.reason("server -> internet udp/53") == "no-route"


def test_prohibited_by_a_route_of_the_sender(net: Net) -> None:
    net.run("server", f"{net.ip} route add prohibit {TO_INTERNET[net.family]}")
    assert net.reason("server -> internet") == "prohibited"
    assert net.reason("server -> internet tcp/22") == "prohibited"


def test_prohibited_by_a_rule_of_the_sender(net: Net) -> None:
    net.run("server", f"{net.ip} rule add to {TO_INTERNET[net.family]} prohibit")
    assert net.reason("server -> internet") == "prohibited"


# -- neighbours ----------------------------------------------------------------------------------------------------


def test_neighbour_unreachable_behind_a_wrong_gateway(net: Net) -> None:
    net.run("server", f"{net.ip} route replace default via {NOBODY[net.family]}")
    assert net.reason("server -> internet") == "neighbour-unreachable"
    assert net.reason("server -> internet tcp/22") == "neighbour-unreachable"


@pytest.mark.parametrize("known", [False, True])
def test_neighbour_unreachable_when_the_receiver_has_lost_its_address(net: Net, known: bool) -> None:
    """Whether or not the sender still remembers who had it."""
    net.run("client", f"{net.ip} addr flush dev eth0 scope global")
    if not known:
        net.run("server", "ip neigh flush dev eth0")
    assert net.reason("server -> client") == "neighbour-unreachable"
    assert net.reason("server -> client tcp/22") == "neighbour-unreachable"


@pytest.mark.parametrize("how", ["off", "unplugged"])
def test_neighbour_unreachable_when_the_receiver_is_not_there(net: Net, how: str) -> None:
    client = net.lab.machine("client")
    client.crash() if how == "off" else client.unplug("eth0")
    assert net.reason("server -> client") == "neighbour-unreachable"


def test_neighbour_unreachable_beyond_the_router(net: Net) -> None:
    net.lab.machine("internet").shutdown()
    assert net.reason("server -> internet") == "neighbour-unreachable"


# -- on the way ----------------------------------------------------------------------------------------------------


def test_no_route_of_the_router(net: Net) -> None:
    net.run("router", f"{net.ip} addr flush dev eth1 scope global")
    assert net.reason("server -> internet") == "no-route"


def test_no_route_back(net: Net) -> None:
    net.run("internet", f"{net.ip} route del default")
    assert net.reason("server -> internet") == "no-route"
    assert "on the way back, internet" in net.flow("server -> internet").detail


def test_no_route_through_a_router_that_forwards_nothing(net: Net) -> None:
    net.sysctl("router", "net.ipv4.ip_forward" if net.family == "v4" else "net.ipv6.conf.all.forwarding", 0)
    assert net.reason("server -> internet") == "no-route"
    assert "forwards nothing" in net.flow("server -> internet").detail


def test_no_route_in_a_circle(net: Net) -> None:
    net.run("router", f"{net.ip} route add {TO_INTERNET[net.family]} via {ROUTER[net.family][:-1]}10")
    net.sysctl("server", "net.ipv4.ip_forward" if net.family == "v4" else "net.ipv6.conf.all.forwarding", 1)
    assert net.reason("server -> internet") == "no-route"


def test_link_down_on_the_router(net: Net) -> None:
    net.lab.machine("router").unplug("eth1")
    assert net.reason("server -> internet") == "link-down"
    assert "router" in net.flow("server -> internet").detail


def test_prohibited_by_a_route_of_the_router(net: Net) -> None:
    net.run("router", f"{net.ip} route add prohibit {TO_INTERNET[net.family]}")
    assert net.reason("server -> internet") == "prohibited"
    assert net.reason("server -> internet udp/53") == "prohibited"


# -- ports and sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["tcp/23", "udp/54"])
def test_refused_where_nothing_listens(net: Net, port: str) -> None:
    assert net.reason(f"server -> internet {port}") == "refused"
    assert net.reason(f"server -> client {port}") == "refused"


def test_too_big_for_the_senders_own_interface(net: Net) -> None:
    net.run("server", "ip link set eth0 mtu 1300")
    assert net.reason("server -> client size=1400") == "too-big"
    assert net.flow("server -> client size=1000").delivered


def test_too_big_for_the_router_which_says_so(net: Net) -> None:
    net.run("router", "ip link set eth1 mtu 1300")
    assert net.reason("server -> internet size=1400") == "too-big"
    assert net.flow("server -> internet size=1000").delivered


@pytest.mark.parametrize("protocol", ["icmp", "tcp/22", "udp/53"])
def test_too_big_into_a_black_hole(net: Net, protocol: str) -> None:
    """The router's interface drops what is too long for it, and nobody says a word."""
    net.run("router", "ip link set eth0 mtu 1300")
    assert net.flow(f"server -> internet {protocol}").delivered
    assert net.reason(f"server -> internet {protocol} size=1400") == "too-big"


# -- filters -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nft")
@pytest.mark.parametrize(("machine", "hook"), [("server", "output"), ("router", "forward"), ("internet", "input")])
@pytest.mark.parametrize("protocol", ["icmp", "tcp/22", "udp/53"])
def test_filtered_by_a_rule_that_drops(net: Net, machine: str, hook: str, protocol: str) -> None:
    if protocol == "icmp":
        word = "icmp type echo-request" if net.family == "v4" else "icmpv6 type echo-request"
    else:
        word = f"{protocol.partition('/')[0]} dport {protocol.partition('/')[2]}"
    net.filter(machine, hook, f"{word} drop")
    assert net.reason(f"server -> internet {protocol}") == "filtered"
    assert net.flow("server -> client").delivered or machine == "server"


@pytest.mark.usefixtures("nft")
def test_filtered_on_the_way_back(net: Net) -> None:
    word = "icmp type echo-reply" if net.family == "v4" else "icmpv6 type echo-reply"
    net.filter("router", "forward", f"{word} drop")
    assert net.reason("server -> internet") == "filtered"


@pytest.mark.usefixtures("nft")
def test_filtered_when_a_rule_rejects_a_ping(net: Net) -> None:
    word = "icmp type echo-request" if net.family == "v4" else "icmpv6 type echo-request"
    net.filter("router", "forward", f"{word} reject with icmpx port-unreachable")
    assert net.reason("server -> internet") == "filtered"


@pytest.mark.usefixtures("nft")
def test_prohibited_when_a_rule_says_so(net: Net) -> None:
    net.filter("router", "forward", "udp dport 53 reject with icmpx admin-prohibited")
    assert net.reason("server -> internet udp/53") == "prohibited"


@pytest.mark.usefixtures("nft")
def test_a_filter_elsewhere_explains_nothing(net: Net) -> None:
    net.filter("client", "input", "tcp dport 9999 drop")
    net.sysctl("internet", SWALLOW[net.family], 1)
    assert net.reason("server -> internet") == "timeout"


# -- silence -------------------------------------------------------------------------------------------------------


def test_timeout_when_the_receiver_swallows(net: Net) -> None:
    net.sysctl("internet", SWALLOW[net.family], 1)
    assert net.reason("server -> internet") == "timeout"
    assert net.flow("server -> internet tcp/22").delivered


# -- what the laboratory itself answers with -------------------------------------------------------------------------


def test_a_listener_outlives_clients_that_go_away(net: Net) -> None:
    """A client that closes its connection before the echo is there (RFC 9293: it answers with a reset)."""
    client = (
        "import socket\n"
        "for _ in range(150):\n"
        f"    sock = socket.create_connection(('{TO_INTERNET[net.family]}', 22))\n"
        "    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "    for _ in range(3):\n"
        "        sock.send(b'x' * 1000)\n"
        "    sock.close()\n"
    )
    net.lab.machine("server").write("/tmp/client.py", client)
    net.run("server", f"{os.path.realpath(getattr(sys, '_base_executable', sys.executable))} /tmp/client.py")
    assert net.flow("server -> internet tcp/22").delivered

"""A real kernel: whatever is done to a network namespace, `kernel.restore` gives back what was."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from children import in_namespaces
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from sim.world import kernel as namespaces
from snapcore import kernel, netmessage, netstate, probes
from snapcore.netstate import Route

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(kernel.missing()), reason=kernel.missing()),
]


@pytest.fixture(autouse=True)
def programs(need: Callable[[str], str]) -> None:
    for program in ("ip", "bridge", "tc"):
        need(program)


EVERYTHING = os.environ.get("SNAPCORE_EVERY_POINT") == "1"
SEED = int(os.environ.get("SNAPCORE_SEED", "20110911"))
EXAMPLES = int(os.environ.get("SNAPCORE_EXAMPLES", "1500" if EVERYTHING else "40"))


def in_namespace(work: Callable[[], Any]) -> Any:
    """The value of `work()`, done by a process in a network namespace of its own; its exception is raised here."""

    def inside() -> Any:
        namespaces.mount("none", "/", "", namespaces.MS_SLAVE | namespaces.MS_REC)
        namespaces.mount("sysfs", "/sys", "sysfs")  # /sys/class/net of the new namespace
        for scope in ("all", "default"):
            write(f"ipv6/conf/{scope}/accept_dad", "0")
        return work()

    return in_namespaces(inside, namespaces.NEWNET | namespaces.NEWNS)


def write(path: str, value: str) -> None:
    try:
        with open(f"/proc/sys/net/{path}", "w") as file:
            file.write(value)
    except OSError:
        pass  # the device is not there, or the value makes no sense: as a command that fails


def run(commands: Sequence[str]) -> None:
    """Carries out `PROGRAM ARGUMENTS` or `sysctl PATH VALUE`, each whether the one before failed or not."""
    batch: list[str] = []
    for command in [*commands, ""]:
        program, _, rest = command.partition(" ")
        alone = rest.startswith("-")  # a batch takes no options
        if batch and (alone or program not in ("ip", "tc", "bridge") or program != batch[0].partition(" ")[0]):
            words = "\n".join(line.partition(" ")[2] for line in batch) + "\n"
            subprocess.run(
                [batch[0].partition(" ")[0], "-force", "-batch", "-"], input=words.encode(), capture_output=True
            )
            batch = []
        if program == "sysctl":
            write(*rest.split())
        elif alone:
            subprocess.run(command.split(), capture_output=True)
        elif command:
            batch.append(command)


def settled() -> netstate.State:
    """The state, when links that have a carrier are operational and no address is tried any more."""
    with kernel._Session() as session:
        session.settle(netstate.empty())
        now = session.read(nft=False)
        addresses = [address.address.split("/")[0] for group in now.addresses.values() for address in group]
        session.settle(now._replace(routes=tuple(Route("v6", "default", prefsrc=address) for address in addresses)))
        return session.read(nft=False)


FOLLOWS = """ifindex link_index operstate hello_timer tcn_timer topology_change_timer gc_timer bridge_id root_id
    root_port root_path_cost no id designated_port designated_cost designated_bridge designated_root state state_str
    forward_delay_timer message_age_timer hold_timer bridge_port promiscuity allmulti valid_life_time
    preferred_life_time qdisc topology_change topology_change_detected config_pending topology_change_ack
    port_no tso_max_size tso_max_segs tentative"""
"""What `ip -j -d` says and what is no configuration: numbers that differ for a device that was made again, timers."""


def said() -> dict[str, Any]:
    """What `ip -j -d` says about links, addresses, routes of all tables, and rules."""
    found = {}
    for what in (
        "-d link",
        "-d addr",
        "-d -4 route show table all",
        "-d -6 route show table all",
        "-4 rule",
        "-6 rule",
    ):
        out = subprocess.run(["ip", "-j", *what.split()], capture_output=True, check=True).stdout
        found[what] = sorted((plain(entry) for entry in json.loads(out or b"[]")), key=json.dumps)
    return found


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return (
            sorted((plain(part) for part in value), key=json.dumps) if value and isinstance(value[0], dict) else value
        )
    if not isinstance(value, dict):
        return value
    kept = {key: plain(part) for key, part in sorted(value.items()) if key not in FOLLOWS.split()}
    if "flags" in kept:
        gone = ("LOWER_UP", "NO-CARRIER", "M-DOWN", "linkdown", "dead")
        kept["flags"] = [flag for flag in kept["flags"] if flag not in gone]
    return kept


def compared(was: list[Any], now: list[Any]) -> list[str]:
    """What differs, entry by entry where they are of one name."""
    found = []
    names = {entry.get("ifname"): entry for entry in now}
    for entry in was:
        other = names.get(entry.get("ifname")) if "ifname" in entry else None
        if entry not in now:
            keys = [key for key in {**entry, **(other or {})} if entry.get(key) != (other or {}).get(key)]
            found += [f"{entry.get('ifname', '')} {k}: {entry.get(k)} is now {(other or {}).get(k)}" for k in keys]
    return found + [f"new: {entry}" for entry in now if entry not in was and "ifname" not in entry]


def given_back(state: Sequence[str], change: Sequence[str]) -> dict[str, Any]:
    """What differs after the change and what is left after the restoration."""
    run(state)
    old, words = settled(), said()
    run(change)
    changed = netstate.differences(old, settled())
    left, troubles = kernel.restore(old)
    late = netstate.differences(old, settled())
    now = said()
    wrong = [line for key in words for line in compared(words[key], now[key])]
    return {"changed": len(changed), "left": list(map(str, left)), "late": list(map(str, late)),
            "troubles": troubles, "wrong": wrong}  # fmt: skip


# -- one thing at a time -----------------------------------------------------------------------------------------

VETH = ("ip link add a0 type veth peer name a1", "ip link set a0 up", "ip link set a1 up")
CASES = {
    "an MTU that a lowered base took along": (
        [*VETH, "ip link set a0 mtu 9000", "ip link add mv0 link a0 type macvlan", "ip link set mv0 mtu 9000"],
        ["ip link set a0 mtu 1400"],
    ),
    "a VXLAN's id": (
        [*VETH, "ip link add vx0 type vxlan id 5 dstport 4789 dev a0", "ip addr add 10.5.0.1/24 dev vx0",
         "ip link set vx0 up", "bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.9"],
        ["ip link del vx0", "ip link add vx0 type vxlan id 6 dstport 4789 dev a0", "ip link set vx0 up"],
    ),
    "a bridge with its options, ports and their options": (
        [*VETH, "ip link add br0 type bridge stp_state 1 forward_delay 400 priority 4096",
         "ip link set a0 master br0",
         "ip link set a0 type bridge_slave isolated on cost 77", "ip link set br0 up",
         "ip addr add 10.0.0.1/24 dev br0", "ip route add default via 10.0.0.254"],
        ["ip link del br0"],
    ),
    "the order of addresses": (
        [*VETH, *(f"ip addr add 10.0.0.{n}/24 dev a0" for n in (1, 2, 3)), "ip addr add 10.0.1.1/24 dev a0"],
        ["ip addr del 10.0.0.1/24 dev a0", "ip addr add 10.0.0.2/24 dev a0", "ip addr add 10.0.0.1/24 dev a0"],
    ),
    "multicast, local, blackhole and policy routes": (
        [*VETH, "ip addr add 10.0.0.1/24 dev a0", "ip route add multicast 239.1.0.0/16 dev a0",
         "ip route add local 10.77.0.0/16 dev lo table local", "ip route add blackhole 10.3.0.0/16 table 100",
         "ip rule add from 10.3.0.0/16 lookup 100", "ip -6 route add unreachable 2001:db8:9::/48"],
        ["ip route flush table all", "ip -6 route flush table all", "ip rule flush"],
    ),
    "a route whose way to the gateway was removed": (
        [*VETH, "ip addr add 10.0.0.1/24 dev a0", "ip route add default via 10.0.0.254 proto static",
         "ip route del 10.0.0.0/24 dev a0"],
        ["ip route del default"],
    ),
    "IPv6 switched off": (
        [*VETH, "ip addr add 2001:db8::1/64 dev a0", "ip -6 route add default via 2001:db8::fe"],
        ["sysctl ipv6/conf/all/disable_ipv6 1"],
    ),
    "IPv6 taken away by a small MTU": (
        [*VETH, "sysctl ipv6/conf/a0/accept_ra 2", "ip addr add 2001:db8::1/64 dev a0"],
        ["ip link set a0 mtu 1000"],
    ),
    "a route that sends from an IPv6 address which must be tried first": (
        [*VETH, "sysctl ipv6/conf/a0/accept_dad 1", "ip addr add 2001:db8::1/64 dev a0 nodad",
         "ip -6 route add 2001:db8:6::/48 dev a0 src 2001:db8::1"],
        ["ip addr flush dev a0"],
    ),
    "names": (
        [*VETH, "ip link add b0 type veth peer name b1", "ip link property add dev a0 altname uplink",
         "ip addr add 10.0.0.1/24 dev a0"],
        ["ip link set a0 name t", "ip link set b0 name a0", "ip link set t name b0", "ip link set a1 name away"],
    ),
    "forwarding": (
        [*VETH, "sysctl ipv4/ip_forward 1", "sysctl ipv4/conf/a0/forwarding 0"],
        ["sysctl ipv4/ip_forward 0"],
    ),
    "a tap device": (["ip tuntap add tap0 mode tap user 0", "ip link set tap0 up"], ["ip link del tap0"]),
    "queueing disciplines": (
        [*VETH, "tc qdisc add dev a0 root tbf rate 1mbit burst 10k latency 9ms", "tc qdisc add dev a1 clsact"],
        ["tc qdisc del dev a0 root", "tc qdisc del dev a1 clsact", "tc qdisc add dev a1 root pfifo limit 3"],
    ),
    "neighbours": (
        [*VETH, "ip addr add 10.0.0.1/24 dev a0", "ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev a0",
         "ip neigh add proxy 10.0.0.8 dev a0"],
        ["ip neigh flush all nud permanent", "ip neigh del proxy 10.0.0.8 dev a0", "ip link set a0 down"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_what_was_changed_is_given_back(what: str) -> None:
    found = in_namespace(lambda: given_back(*CASES[what]))
    assert found["changed"], "the change did nothing"
    assert (found["left"], found["late"], found["wrong"], found["troubles"]) == ([], [], [], [])


KINDS = {
    "dummy": ("dummy", ""),
    "VLAN": ("vlan", "link a0 type vlan id 5 protocol 802.1ad"),
    "bond": ("bond", "type bond mode active-backup miimon 100"),
    "VRF": ("vrf", "type vrf table 100"),
    "macvlan": ("macvlan", "link a0 type macvlan mode private"),
    "ipvlan": ("ipvlan", "link a0 type ipvlan mode l3"),
    "VXLAN": ("vxlan", "type vxlan id 9 dstport 4789 remote 192.0.2.9"),
    "bridge": ("bridge", "type bridge ageing_time 500"),
    "GRE": ("gre", "type gre local 192.0.2.1 remote 192.0.2.2"),
    "ifb": ("ifb", ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_device_is_made_again(kind: str) -> None:
    word, options = KINDS[kind]
    make = f"ip link add name x0 {options or f'type {word}'}"

    def work() -> dict[str, Any] | None:
        run([*VETH, make])
        if "x0" not in kernel.read().links:
            return None
        return given_back(["ip link set x0 mtu 1400 up", "ip addr add 10.0.0.1/24 dev x0"], ["ip link del x0"])

    found = in_namespace(work)
    if found is None:
        pytest.skip(f"this kernel has no {kind}")
    assert found["changed"]
    assert (found["left"], found["late"], found["wrong"], found["troubles"]) == ([], [], [], [])


OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("vlan", {"id": 5, "flags": {"flags": 1, "mask": 0xFFFFFFFF}, "protocol": 0x88A8,
              "egress_qos": (("IFLA_VLAN_QOS_MAPPING", {"from": 1, "to": 2}),)}),
    ("bond", {"mode": 1, "miimon": 100, "primary": "eth7", "xmit_hash_policy": 2}),
    ("bond", {"mode": 1, "arp_interval": 100, "arp_ip_target": ("192.0.2.1", "192.0.2.2")}),
    ("vrf", {"table": 100}),
    ("ipvlan", {"mode": 1}),
    ("macvtap", {"mode": "bridge"}),
    ("gretap", {"local": "192.0.2.1", "remote": "192.0.2.2", "ttl": 5}),
    ("sit", {"local": "192.0.2.1", "ttl": 64}),
    ("ip6gre", {"local": "2001:db8::1"}),
    ("geneve", {"id": 5, "remote": "192.0.2.1"}),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_options_survive_a_message_also_of_kinds_that_this_kernel_lacks(kind: str, options: dict[str, Any]) -> None:
    ifinfmsg = kernel._classes()["link"]
    message = ifinfmsg()
    message["index"] = 3
    data = netmessage.data_attributes(kind, options, {"eth7": 7})
    info = [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": data})]
    message["attrs"] = [("IFLA_IFNAME", "x0"), ("IFLA_LINKINFO", {"attrs": info})]
    message.encode()
    again = ifinfmsg(bytes(message.data))
    again.decode()
    assert netmessage.link(again, {3: "x0", 7: "eth7"}).options == options


@pytest.mark.parametrize("kind", sorted(netmessage.NAME_THEIR_BASE))
def test_the_device_below_survives_a_message_also_of_kinds_that_this_kernel_lacks(kind: str) -> None:
    message = kernel._classes()["link"]()
    message["index"] = 3
    info = [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": netmessage.base_attributes(kind, 7)})]
    message["attrs"] = [("IFLA_IFNAME", "x0"), ("IFLA_LINKINFO", {"attrs": info})]
    message.encode()
    again = kernel._classes()["link"](bytes(message.data))
    again.decode()
    link = netmessage.link(again, {3: "x0", 7: "eth7"})
    assert (link.parent, dict(link.options)) == ("eth7", {})


def test_links_that_did_not_change_are_not_touched() -> None:
    def look() -> Any:
        found = json.loads(subprocess.run(["ip", "-j", "-s", "-d", "link"], capture_output=True, check=True).stdout)
        return {x["ifname"]: x["ifindex"] for x in found}, carriers()

    def carriers() -> dict[str, str]:
        with os.scandir("/sys/class/net") as entries:
            names = [entry.name for entry in entries if entry.is_symlink()]
        found = {}
        for name in names:
            with open(f"/sys/class/net/{name}/carrier_changes") as file:
                found[name] = file.read()
        return found

    def work() -> Any:
        run([*VETH, "ip addr add 10.0.0.1/24 dev a0", "ip link add b0 type veth peer name b1"])
        old, before = settled(), look()
        run(["ip addr add 10.0.0.2/24 dev a0", "ip rule add from 10.1.0.0/16 lookup 7", "ip link add br0 type bridge",
             "ip link set b0 master br0"])  # fmt: skip
        return kernel.restore(old), before, look()

    (left, _), before, after = in_namespace(work)
    assert left == []
    assert before == after


def a_guest(name: str, master: str) -> Callable[[], None]:
    """A veth whose other end is in another namespace, put into a bridge; what it returns ends that namespace."""
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        namespaces.unshare(namespaces.NEWNET)
        os.close(to_child[1])
        os.write(to_parent[1], b".")
        os.read(to_child[0], 1)  # until the other side closes
        os._exit(0)
    os.close(to_child[0])
    os.read(to_parent[0], 1)
    run([f"ip link add {name} type veth peer name eth0 netns {child}", f"ip link set {name} master {master} up"])

    def end() -> None:
        os.close(to_child[1])
        os.waitpid(child, 0)

    return end


@pytest.mark.parametrize("ports", ["keep", "restore"])
def test_a_guests_new_port_stays_in_its_bridge_unless_asked(ports: str) -> None:
    def work() -> Any:
        run(["ip link add br0 type bridge", "ip link set br0 up", *VETH])
        old = settled()
        end = a_guest("guest", "br0")
        run(["ip link set a0 master br0"])
        left, _ = kernel.restore(old, external_ports=ports)
        after = kernel.read().links
        end()
        return left, {name: link.master for name, link in after.items() if link.master}

    left, masters = in_namespace(work)
    assert left == []
    assert masters == ({"guest": "br0"} if ports == "keep" else {})


def test_a_guests_port_that_a_change_has_detached_comes_back() -> None:
    def work() -> Any:
        run(["ip link add br0 type bridge", "ip link set br0 up"])
        end = a_guest("guest", "br0")
        old = settled()
        run(["ip link del br0", "ip link add br0 type bridge stp_state 1"])
        found = kernel.restore(old), kernel.read().links["guest"].master
        end()
        return found

    (left, troubles), master = in_namespace(work)
    assert (left, troubles, master) == ([], [], "br0")


def test_a_device_that_vanished_is_named_and_the_rest_is_given_back() -> None:
    def work() -> Any:
        run(["ip link add br0 type bridge", "ip link set br0 up", *VETH, "ip addr add 10.0.0.1/24 dev a0"])
        end = a_guest("guest", "br0")
        run(["ip addr add 10.9.0.1/24 dev guest", "ip route add 10.10.0.0/16 dev guest"])
        old = settled()
        run(["ip link del guest", "ip addr flush dev a0"])
        left, troubles = kernel.restore(old)
        after = kernel.read().addresses["a0"][0].address
        end()
        return [str(change) for change in left], troubles, after

    left, troubles, after = in_namespace(work)
    assert left == ["guest: is gone (veth)"]
    assert troubles == ["guest: is gone and cannot be made again (veth, its other end is in another namespace)"]
    assert after == "10.0.0.1/24"


def test_only_the_interfaces_asked_for_are_given_back() -> None:
    def work() -> Any:
        run([*VETH, "ip addr add 10.0.0.1/24 dev a0", "ip addr add 10.0.1.1/24 dev a1"])
        old = settled()
        run(["ip addr flush dev a0", "ip addr flush dev a1"])
        left, _ = kernel.restore(old, only=["a0"])
        now = kernel.read().addresses
        return left, [[a.address for a in now.get(n, ()) if a.family == "v4"] for n in ("a0", "a1")]

    assert in_namespace(work) == ([], [["10.0.0.1/24"], []])


def test_the_rule_set_of_nftables_is_given_back_once(need: Callable[[str], str]) -> None:
    need("nft")
    saved = "table inet filter {\n\tchain input {\n\t\ttcp dport 22 accept\n\t}\n}\n"

    def nft(text: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)

    def work() -> Any:
        nothing = kernel.read(nft=True)
        nft(saved)
        old = kernel.read(nft=True)
        nft("flush ruleset; add table ip nat; add chain ip nat x; add rule ip nat x counter drop;")
        first = kernel.restore(old), kernel.read(nft=True).nft
        nft(saved)  # a hook that runs again at each reload
        return old.nft, first, (kernel.restore(old), kernel.read(nft=True).nft), kernel.restore(nothing)[0]

    before, first, second, emptied = in_namespace(work)
    assert before == saved
    assert first == second == (([], []), saved)
    assert emptied == []


def test_the_rule_set_of_nftables_may_hold_any_bytes_and_a_refusal_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nft"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program.write_text(f"#!/bin/sh\nif [ $1 = -f ]; then cat > {tmp_path}/given; else printf 'comment \"\\377\"'; fi\n")
    program.chmod(0o755)
    rules = kernel._nft()
    assert kernel._nft(rules) == rules
    assert (tmp_path / "given").read_bytes() == b'flush ruleset\ncomment "\xff"'
    program.write_text("#!/bin/sh\necho 'Error: not today' >&2\nexit 1\n")
    with pytest.raises(kernel.Unavailable) as refused:
        kernel._nft()
    assert str(refused.value) == "nft: Error: not today"


def test_a_name_that_is_no_utf8_is_a_name() -> None:
    name = b"br\xff"

    def work() -> Any:
        subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
        old = netstate.from_json(netstate.to_json(settled()), "it")
        subprocess.run(["ip", "link", "set", name, "mtu", "1400"], check=True)
        changed = netstate.differences(old, settled())
        return [ascii(str(change)) for change in changed], kernel.restore(old)

    assert in_namespace(work) == ([ascii("br\udcff: MTU 1400, was 1500")], ([], []))


def test_a_route_that_had_a_lifetime_has_what_was_left_of_it() -> None:
    def work() -> Any:
        run(
            [
                *VETH,
                "ip addr add 2001:db8::1/64 dev a0",
                "ip -6 route add default via 2001:db8::fe proto ra expires 600",
            ]
        )
        old = settled()
        run(["ip -6 route del default"])
        left = kernel.restore(old)
        return left, [route.expires for route in kernel.read().routes if route.protocol == 9]

    left, expires = in_namespace(work)
    assert left == ([], []) and len(expires) == 1 and 500 < expires[0] <= 600


def test_what_keeps_changing_while_it_is_read_is_told_in_words() -> None:
    class Refused(Exception):
        pass

    class Interrupted(Refused):
        pass

    def ask() -> Any:
        raise Interrupted

    session = kernel._Session.__new__(kernel._Session)
    session.error, session.interrupted = Refused, Interrupted
    with pytest.raises(kernel.Unavailable, match="keeps changing"):
        session._dump(ask)


def test_a_connection_by_a_link_local_address_is_known() -> None:
    def work() -> Any:
        run([*VETH, "ip link set lo up", "ip addr add fe80::77/64 dev a0 nodad"])
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("fe80::77", 0, 0, socket.if_nametoindex("a0")))
            listener.listen()
            with (
                socket.create_connection(("fe80::77%a0", listener.getsockname()[1]), 5),
                listener.accept()[0] as session,
            ):
                local, remote = session.getsockname(), session.getpeername()
                ends = [(end[0].partition("%")[0], end[1]) for end in (local, remote)]
                os.environ["SSH_CONNECTION"] = f"{remote[0]} {remote[1]} {local[0]} {local[1]}"
                probe = probes.parse("client", lambda: session.sendall(b"hello"))
                return ends, probe.connection, probes.measured(probe, time.monotonic() + 5)

    ends, connection, result = in_namespace(work)
    assert connection == tuple(ends)
    assert result.passed, result.words


# -- generated states and changes --------------------------------------------------------------------------------

VETHS = ("a0", "a1", "b0", "b1")
DEVICES = (*VETHS, "br0", "br1", "mv0", "vx0", "tap0", "ifb0")
device = st.sampled_from(DEVICES)
bridge = st.sampled_from(("br0", "br1"))
base = st.sampled_from(("a0", "a1", "b0", "br0"))
ADDRESSES = (
    "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/25", "10.0.1.1/24 brd + metric 50",
    "10.0.0.5/24 noprefixroute", "10.9.0.1 peer 10.9.0.2", "192.0.2.9/32 scope link", "2001:db8::1/64",
    "2001:db8::2/64", "2001:db8:1::1/64 metric 90", "fd00::1/128", "2001:db8::3/64 noprefixroute", "fe80::5/64",
    "2001:db8::9/64 preferred_lft 0",
)  # fmt: skip
ROUTES = (
    "default via 10.0.0.254", "default via 10.0.0.253 metric 100", "10.1.0.0/16 via 10.0.0.254 mtu 1400 advmss 1300",
    "10.2.0.0/16 dev a0", "10.2.0.0/16 dev b0 metric 5", "10.2.0.0/16 dev br0 tos 0x10", "blackhole 10.3.0.0/16",
    "unreachable 10.4.0.0/16 table 100", "prohibit 10.5.0.0/16 metric 9", "throw 10.6.0.0/16 table 100",
    "10.7.0.0/16 via 192.0.2.1 dev a0 onlink", "10.8.0.0/16 dev a0 table 100 src 10.0.0.1",
    "10.10.0.0/16 nexthop via 10.0.0.7 weight 3 nexthop via 10.0.0.8", "multicast 239.1.0.0/16 dev a0 table main",
    "local 10.77.0.1 dev a0 table local", "default via 10.0.0.254 table 300 proto static",
    "10.11.0.0/16 via inet6 fe80::1 dev a0", "2001:db8:1::/48 via 2001:db8::5", "default via 2001:db8::6 metric 7",
    "2001:db8:2::/48 dev a0 table 100", "blackhole 2001:db8:3::/48", "unreachable 2001:db8:4::/48 metric 8 table 100",
    "2001:db8:5::/48 nexthop via 2001:db8::5 nexthop via 2001:db8::6", "2001:db8:6::/48 dev br0 src 2001:db8::1",
    "2001:db8:7::/48 via fe80::9 dev b0 mtu 1300 pref high", "2001:db8:8::/48 via 2001:db8:f::1 dev a0 onlink",
)  # fmt: skip
RULES = (
    "from 10.0.0.0/8 lookup 100", "from 10.0.0.0/8 lookup 100 prio 50", "to 192.0.2.0/24 prio 50 lookup 300",
    "fwmark 7/0xff prio 60 lookup 100", "iif a0 prio 61 prohibit", "oif br0 prio 62 blackhole",
    "not from 10.1.0.0/16 prio 63 lookup 100", "prio 64 ipproto tcp dport 80 lookup 100",
    "prio 65 lookup main suppress_prefixlength 0", "prio 66 uidrange 5-9 lookup 100",
)  # fmt: skip
SETTINGS = (
    ("ipv4", "rp_filter", "012"), ("ipv4", "forwarding", "01"), ("ipv4", "promote_secondaries", "01"),
    ("ipv4", "arp_ignore", "01"), ("ipv4", "proxy_arp", "01"), ("ipv4", "accept_redirects", "01"),
    ("ipv6", "disable_ipv6", "01"), ("ipv6", "forwarding", "01"), ("ipv6", "accept_ra", "012"),
    ("ipv6", "addr_gen_mode", "01"), ("ipv6", "keep_addr_on_down", "01"), ("ipv6", "autoconf", "01"),
    ("ipv6", "use_tempaddr", "02"),
)  # fmt: skip


def say(text: str, **values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.fixed_dictionaries(values).map(lambda found: text.format(**found))


def setting() -> st.SearchStrategy[str]:
    scope = st.sampled_from(("all", "default", *DEVICES))
    each = st.tuples(scope, st.sampled_from(SETTINGS), st.randoms(use_true_random=False))
    return each.map(lambda t: f"sysctl {t[1][0]}/conf/{t[0]}/{t[1][1]} {t[2].choice(t[1][2])}")


mac = st.sampled_from(("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"))
mtu = st.sampled_from((1000, 1280, 1400, 1500, 2000, 9000))
make = st.one_of(
    st.just("ip link add a0 type veth peer name a1"),
    st.just("ip link add b0 type veth peer name b1"),
    say("ip link add {b} type bridge forward_delay {f} ageing_time {a}", b=bridge, f=st.sampled_from((200, 1500)),
        a=st.sampled_from((0, 30000))),
    say("ip link add mv0 link {on} type macvlan mode {m}", on=base,
        m=st.sampled_from(("private", "bridge", "vepa", "passthru"))),
    say("ip link add vx0 type vxlan id {i} dstport 4789 {rest}", i=st.integers(1, 3),
        rest=st.sampled_from(("", "dev a0", "dev br0 remote 192.0.2.9", "local 10.0.0.1 nolearning", "ttl 5 dev b0"))),
    st.just("ip tuntap add tap0 mode tap"),
    st.just("ip link add ifb0 type ifb"),
)  # fmt: skip
links = st.one_of(
    say("ip link set {d} up", d=device),
    say("ip link set {d} up", d=device),
    say("ip link set {d} down", d=device),
    say("ip link set {d} mtu {m}", d=device, m=mtu),
    say("ip link set {d} master {b}", d=device, b=bridge),
    say("ip link set {d} nomaster", d=device),
    say("ip link set {d} address {m}", d=device, m=mac),
    say("ip link set {d} {w}", d=device, w=st.sampled_from(
        ("arp off", "multicast off", "promisc on", "allmulticast on", "txqueuelen 77", "alias somewhere", "group 5"))),
    say("ip link property add dev {d} altname {n}", d=device, n=st.sampled_from(("other", "another"))),
    say("ip link set {b} type bridge {o}", b=bridge, o=st.sampled_from(
        ("stp_state 1", "stp_state 0", "forward_delay 300", "mcast_snooping 0", "priority 4096", "group_fwd_mask 8"))),
    say("ip link set {d} type bridge_slave {o}", d=device, o=st.sampled_from(
        ("cost 5", "priority 7", "isolated on", "hairpin on", "learning off", "flood off"))),
    st.sampled_from(("ip link set mv0 type macvlan mode private", "ip link set vx0 type vxlan id 1 ttl 9")),
)  # fmt: skip
layer3 = st.one_of(
    say("ip addr add {a} dev {d}", a=st.sampled_from(ADDRESSES), d=device),
    say("ip addr add {a} dev {d}", a=st.sampled_from(ADDRESSES), d=device),
    say("ip addr del {a} dev {d}", a=st.sampled_from(ADDRESSES), d=device),
    say("ip route add {r}", r=st.sampled_from(ROUTES)),
    say("ip route append {r}", r=st.sampled_from(ROUTES)),
    say("ip route replace {r}", r=st.sampled_from(ROUTES)),
    say("ip route del {r}", r=st.sampled_from(ROUTES)),
    say("ip {f} rule add {r}", f=st.sampled_from(("-4", "-6")), r=st.sampled_from(RULES)),
    say("ip {f} rule del {r}", f=st.sampled_from(("-4", "-6")), r=st.sampled_from(RULES)),
    say("ip neigh add {a} lladdr {m} dev {d}", a=st.sampled_from(("10.0.0.7", "2001:db8::7")), m=mac, d=device),
    say("ip neigh add proxy {a} dev {d}", a=st.sampled_from(("10.0.0.8", "2001:db8::8")), d=device),
    say("bridge fdb add 02:00:00:00:00:f{n} dev {d} master static", n=st.integers(0, 1), d=device),
    say("bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.{n}", n=st.integers(1, 3)),
    say("tc qdisc add dev {d} {q}", d=device, q=st.sampled_from(
        ("root handle 5: pfifo limit 9", "clsact", "root handle 6: tbf rate 1mbit burst 10k latency 9ms"))),
    setting(),
    setting(),
)  # fmt: skip
harm = st.one_of(
    say("ip link del {d}", d=device),
    say("ip link del {d}", d=device),
    say("ip link set {d} name {n}", d=device, n=st.sampled_from(("c0", "c1", *DEVICES))),
    say("ip addr flush dev {d}", d=device),
    st.just("ip route flush table main"),
    st.sampled_from(("ip -6 route flush table local", "ip -6 route flush table all", "ip -6 route flush table main")),
    st.just("ip route flush table local"),
    st.sampled_from(("ip rule flush", "ip -6 rule flush", "ip -6 addr flush scope link",
                     "ip neigh flush all nud permanent")),
    st.sampled_from(("ip link add n0 type veth peer name n1", "ip link add n2 type bridge", "ip link set n0 master br0",
                     "ip link add n3 link a0 type macvlan", "ip addr add 10.0.0.66/24 dev n0", "ip link set n0 up")),
    say("tc qdisc del dev {d} root", d=device),
)  # fmt: skip
UP = [f"ip link set {name} up" for name in DEVICES]


@settings(
    max_examples=EXAMPLES, database=None, deadline=None, print_blob=False, suppress_health_check=list(HealthCheck)
)
@seed(SEED)
@given(
    st.lists(make, min_size=4, max_size=8),
    st.sampled_from((True, True, True, False)),
    st.lists(st.one_of(links, layer3, layer3), min_size=8, max_size=30),
    st.lists(st.one_of(make, links, layer3, layer3, harm, harm), min_size=4, max_size=16),
)
def test_any_change_to_any_state_is_undone(made: list[str], up: bool, state: list[str], change: list[str]) -> None:
    found = in_namespace(lambda: given_back([*made, *(["ip link set lo up", *UP] if up else []), *state], change))
    assert (found["left"], found["late"], found["wrong"]) == ([], [], []), f"SNAPCORE_SEED={SEED}: {found['troubles']}"

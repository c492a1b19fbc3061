"""The embedded stack against a real kernel: what the files say is what `ip` shows, at boot and after a reload."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ifcfg_machine import Machine, ip, on_machine
from ruamel.yaml import YAML

from sim.stacks.ifcfg import resolv
from sim.stacks.ifcfg.kernel import Kernel
from sim.stacks.ifcfg.model import FOLDER
from sim.stacks.ifcfg.record import Records

pytestmark = pytest.mark.root

DATA = Path(__file__).parents[1] / "data" / "ifcfg"
CASES = {path.stem: YAML(typ="safe", pure=True).load(path.read_text()) for path in sorted(DATA.glob("*.yaml"))}
USUAL = {
    "accept_ra": "1",
    "accept_redirects": "1",
    "autoconf": "1",
    "disable_ipv6": "0",
    "forwarding": "0",
    "use_tempaddr": "0",
}
SERVER = "DEVICE=eth0\nIPADDR=192.0.2.10\nPREFIX=24\n"
OTHER = "DEVICE=eth1\nIPADDR=198.51.100.10\nPREFIX=24\n"


@pytest.fixture(autouse=True)
def _iproute2(need: Callable[[str], str]) -> None:
    need("ip")


def shown(machine: Machine, before: Mapping[str, Any]) -> dict[str, Any]:
    """The state as the data files write it: without what the kernel does by itself."""
    state = machine.state()
    found: dict[str, Any] = {
        "links": {name: text for name, text in state["links"].items() if text != before["links"].get(name)},
        "addresses": {name: found for name, found in state["addresses"].items() if found},
        "routes": [route for route in state["routes"] if "proto kernel" not in route],
        "rules": [rule for rule in state["rules"] if rule not in before["rules"]],
        "sysctls": {},
        "resolv.conf": names(machine)[0],
    }
    for name, values in state["sysctls"].items():
        unusual = {key: value for key, value in values.items() if name != "lo" and USUAL.get(key, value) != value}
        if unusual or not values:
            found["sysctls"][name] = unusual or "none"
    return {key: value for key, value in found.items() if value}


def names(machine: Machine) -> list[str | None]:
    paths = [machine.root / "etc/resolv.conf", machine.root / "etc/resolv.conf.save"]
    return [path.read_text() if path.exists() else None for path in paths]


def whole(machine: Machine) -> dict[str, Any]:
    """All that a rollback must give back. The order of equal prefixes on different devices is not judged."""
    state = machine.state()
    state["routes"].sort()
    return {**state, "names": names(machine)}


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_as_the_files_say(name: str) -> None:
    case = CASES[name]

    def boot(machine: Machine) -> None:
        before = machine.state()
        machine.write(case["files"])
        files = {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()}
        status = machine.run("network", "start")
        told = [line for line in machine.output.splitlines() if not line.startswith("Bringing up")]
        assert status == case["status"], machine.output
        assert [line.replace(f"{FOLDER}/", "") for line in told] == case.get("messages", [])
        kernel = {key: value for key, value in case.items() if key not in ("about", "files", "status", "messages")}
        assert shown(machine, before) == kernel
        booted = whole(machine)
        machine.run("network", "reload")
        assert whole(machine) == booted, "a reload without a change changes nothing"
        machine.run("network", "stop")
        assert machine.state() == before, "a stop leaves nothing behind"
        assert {path: path.read_bytes() for path in files} == files, "no configuration file is written"
        machine.run("network", "start")
        assert whole(machine) == booted, "a second boot is like the first"

    on_machine(boot)


PAIRS = list(zip(list(CASES), [*list(CASES)[41:], *list(CASES)[:41]]))[::3]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_reload_ends_where_a_boot_would(old: str, new: str) -> None:
    """There and back again: the change, then its rollback. Nothing of the other configuration is left."""

    def files(name: str) -> dict[str, str | None]:
        return {path: text for path, text in CASES[name]["files"].items() if path != "/etc/resolv.conf"}

    def booted(name: str) -> Any:
        def boot(machine: Machine) -> Any:
            machine.write(files(name))
            machine.run("network", "start")
            return whole(machine)

        return on_machine(boot)

    def there_and_back(machine: Machine) -> tuple[Any, Any]:
        machine.write(files(old))
        machine.run("network", "start")
        machine.write({**{path: None for path in files(old) if path not in files(new)}, **files(new)})
        machine.run("network", "reload")
        there = whole(machine)
        machine.write({**{path: None for path in files(new) if path not in files(old)}, **files(old)})
        machine.run("network", "reload")
        return there, whole(machine)

    there, back = on_machine(there_and_back)
    assert there == booted(new)
    assert back == booted(old)


def test_a_reload_leaves_unchanged_interfaces_alone() -> None:
    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER + "GATEWAY=192.0.2.1\n", "ifcfg-eth1": OTHER})
        machine.run("network", "start")
        with subprocess.Popen(["ip", "monitor", "link", "address", "dev", "eth0"], stdout=subprocess.PIPE) as monitor:
            machine.write({"ifcfg-eth1": OTHER + "MTU=1400\n", "rule-eth1": "from 198.51.100.10 table 5\n"})
            assert machine.run("network", "reload") == 0
            ip("link", "set", "eth0", "alias", "done")
            assert monitor.stdout is not None
            first = monitor.stdout.readline()
            monitor.kill()
        assert b"eth0" in first and b"DOWN" not in first, "the only event of eth0 is the one that ends the test"
        assert "eth0" not in machine.output
        assert "mtu 1400" in machine.state()["links"]["eth1"]

    on_machine(work)


def test_a_changed_rule_takes_no_link_down() -> None:
    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER, "rule-eth0": "from 192.0.2.10 table 5\nfrom 192.0.2.11 table 6\n"})
        machine.run("network", "start")
        machine.write({"rule-eth0": "from 192.0.2.10 table 5\nfrom 192.0.2.12 table 6\n"})
        assert machine.run("network", "reload") == 0
        assert machine.output == ""
        assert "32764: from 192.0.2.12 lookup 6" in machine.state()["rules"]

    on_machine(work)


def test_an_interface_whose_file_is_gone_can_be_taken_down() -> None:
    def work(machine: Machine) -> None:
        before = machine.state()
        machine.write({"ifcfg-eth1": OTHER + "MTU=1400\nMACADDR=02:00:00:00:00:77\nIPV6INIT=no\n",
                       "route-eth1": "10.0.0.0/8 via 198.51.100.1\nblackhole 10.1.0.0/16\n",
                       "rule-eth1": "from 198.51.100.10 table 7\n"})  # fmt: skip
        assert machine.run("network", "start") == 0
        machine.write({"ifcfg-eth1": None, "route-eth1": None, "rule-eth1": None})
        assert machine.run("ifdown", "eth1") == 0
        assert machine.state() == before
        assert machine.run("ifdown", "eth1") == 1
        assert "eth1 is unknown" in machine.output

    on_machine(work)


def test_ifup_and_ifdown_take_one_interface() -> None:
    def work(machine: Machine) -> None:
        before = machine.state()
        machine.write({"ifcfg-lan": SERVER + "ONBOOT=no\nDNS1=192.0.2.1\n", "ifcfg-eth1": OTHER})
        assert machine.run("ifup", "lan", "boot") == 0
        assert machine.state() == before, "ONBOOT=no counts at a boot"
        assert machine.run("ifup", "ifcfg-lan") == 0
        assert machine.state()["addresses"]["eth0"][0] == "192.0.2.10/24 brd 192.0.2.255"
        assert names(machine)[0] == "nameserver 192.0.2.1\n"
        up = machine.state()
        assert machine.run("ifup", "eth0") == 0, "by device, and again"
        assert machine.state() == up
        assert machine.run("network", "reload") == 0
        assert machine.state()["addresses"]["eth0"] == up["addresses"]["eth0"], "brought up by hand: left alone"
        assert machine.run("ifdown", "eth1") == 0
        assert machine.run("ifdown", "/etc/sysconfig/network-scripts/ifcfg-lan") == 0
        assert machine.state() == before
        assert names(machine) == [None, None]
        assert (machine.run("ifup", "eth5"), machine.run("ifup"), machine.run("ifdown")) == (1, 1, 1)
        assert machine.run("ifup", "eth0:1") == 1

    on_machine(work)


def test_a_changed_file_is_taken_down_as_it_was_applied() -> None:
    def work(machine: Machine) -> None:
        machine.write(
            {"ifcfg-eth0": SERVER + "MTU=1400\nGATEWAY=192.0.2.1\n", "route-eth0": "10.0.0.0/8 via 192.0.2.3\n"}
        )
        machine.run("network", "start")
        machine.write({"ifcfg-eth0": SERVER.replace("192.0.2.10", "203.0.113.10"), "route-eth0": None})
        assert machine.run("ifup", "eth0") == 0
        state = machine.state()
        assert state["addresses"]["eth0"][0] == "203.0.113.10/24 brd 203.0.113.255"
        assert "mtu 1500" in state["links"]["eth0"]
        assert not [route for route in state["routes"] if "192.0.2" in route]

    on_machine(work)


def test_a_bridge_keeps_the_ports_that_others_attached() -> None:
    bridge = "DEVICE=br0\nTYPE=Bridge\nIPADDR=192.0.2.10\nPREFIX=24\n"

    def work(machine: Machine) -> None:
        machine.write({"ifcfg-br0": bridge, "ifcfg-eth0": "DEVICE=eth0\nBRIDGE=br0\n"})
        machine.run("network", "start")
        ip("link", "set", "eth1", "master", "br0", "up")  # a container's port, say
        for change in ("STP=on\n", "MACADDR=02:00:00:00:00:99\n", "MTU=1400\n", "IPADDR1=10.0.0.1\n", ""):
            machine.write({"ifcfg-br0": bridge + change})
            assert machine.run("network", "reload") == 0, machine.output
            assert "Shutting down interface eth0" not in machine.output
            for port in ("eth0", "eth1"):
                assert "master br0" in machine.state()["links"][port], change
        ip("link", "set", "eth1", "nomaster", "down")
        there = whole(machine)
        machine.run("network", "restart")
        assert whole(machine) == there, "in the end it is as after a boot"

    on_machine(work)


def test_a_port_that_leaves_its_bridge_is_free() -> None:
    """An address that was on the port comes back, and the bridge is gone."""

    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER})
        machine.run("network", "start")
        before = whole(machine)
        machine.write({"ifcfg-eth0": SERVER + "BRIDGE=br0\n", "ifcfg-br0": "DEVICE=br0\nTYPE=Bridge\nSTP=on\n"})
        assert machine.run("network", "reload") == 0
        assert "master br0" in machine.state()["links"]["eth0"]
        machine.write({"ifcfg-eth0": SERVER, "ifcfg-br0": None})
        assert machine.run("network", "reload") == 0
        assert whole(machine) == before

    on_machine(work)


def test_what_an_earlier_reload_did_not_finish_the_next_one_repairs() -> None:
    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER + "GATEWAY=192.0.2.1\n", "rule-eth0": "from 192.0.2.10 table 5\n"})
        machine.run("network", "start")
        booted = whole(machine)
        records = Records(machine.root)
        (record,) = records.applied()
        records.put(replace(record, state="failed", routes=()))  # as a program leaves it that was killed
        ip("route", "del", "default")
        ip("addr", "del", "192.0.2.10/24", "dev", "eth0")
        assert machine.run("network", "reload") == 0
        assert whole(machine) == booted

    on_machine(work)


ROUTED: dict[str, str] = {
    "ifcfg-eth0": SERVER + "IPADDR1=192.0.2.11\nPREFIX1=24\nGATEWAY=192.0.2.1\nMTU=1400\nDNS1=192.0.2.1\n",
    "route-eth0": "blackhole 10.1.0.0/16\n10.2.0.0/16 via 192.0.2.3\n",
    "rule-eth0": "from 192.0.2.10 table 5\nto 10.0.0.0/8 table 6\n",
    "ifcfg-eth1": OTHER + "IPV6INIT=no\n",
}
BRIDGED: dict[str, str] = {
    "ifcfg-eth0": "DEVICE=eth0\nBRIDGE=br0\nMACADDR=02:00:00:00:00:77\n",
    "ifcfg-br0": "DEVICE=br0\nTYPE=Bridge\nSTP=on\nIPADDR=192.0.2.10\nPREFIX=24\nDNS1=192.0.2.9\nDOMAIN=x.example\n",
    "route-br0": "unreachable 10.1.0.0/16\nblackhole 10.3.0.0/16\n",
    "rule-br0": "from 192.0.2.10 table 7\nto 10.0.0.0/8 table 6\n",
    "ifcfg-eth1": "DEVICE=eth1\nIPADDR=198.51.100.11\nPREFIX=24\nGATEWAY=198.51.100.1\nMETRIC=5\n",
}


def swap(machine: Machine, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    machine.write({**{name: None for name in old if name not in new}, **new})


def reload_that_dies(machine: Machine, last: int) -> bool:
    """A reload whose process ends just before its change number `last`. -> it came to its end before that."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    count = 0

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == last:
                os._exit(9)
            return work(*arguments, **options)

        return counted

    for name in ("set_link", "create", "delete", "add_address", "flush_addresses", "route", "rule", "set_sysctl"):
        setattr(Kernel, name, dying(getattr(Kernel, name)))
    for name in ("_write", "remove", "remove_made"):
        setattr(Records, name, dying(getattr(Records, name)))
    resolv._write = dying(resolv._write)
    machine.run("network", "reload")
    os._exit(0)


@pytest.mark.parametrize("ending", ["the change is applied", "the change is rolled back"])
@pytest.mark.parametrize(("old", "new"), [(ROUTED, BRIDGED), (BRIDGED, ROUTED)], ids=["to a bridge", "from a bridge"])
def test_a_reload_that_is_killed_is_repaired_by_the_next(
    old: Mapping[str, str], new: Mapping[str, str], ending: str
) -> None:
    def booted(files: Mapping[str, str]) -> Any:
        def boot(machine: Machine) -> Any:
            machine.write(files)
            machine.run("network", "start")
            return whole(machine)

        return on_machine(boot)

    def dies(machine: Machine, last: int) -> tuple[bool, Any]:
        machine.write(old)
        machine.run("network", "start")
        swap(machine, old, new)
        over = reload_that_dies(machine, last)
        if ending == "the change is rolled back":
            swap(machine, new, old)
        machine.run("network", "reload")
        return over, whole(machine)

    wanted = booted(new if ending == "the change is applied" else old)
    over, last = False, 1
    while not over:
        over, found = on_machine(lambda machine: dies(machine, last))  # noqa: B023 (called before it changes)
        assert found == wanted, f"killed before change number {last}"
        last += 7
    assert last > 50


def test_a_default_route_that_was_replaced_comes_back() -> None:
    """The last interface wins, as at a boot; when it no longer asks, the other's route is there again."""

    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER + "GATEWAY=192.0.2.1\n", "ifcfg-eth1": OTHER})
        machine.run("network", "start")
        booted = whole(machine)
        machine.write({"ifcfg-eth1": OTHER + "GATEWAY=198.51.100.1\n"})
        machine.run("network", "reload")
        assert "default via 198.51.100.1 dev eth1" in machine.state()["routes"]
        machine.write({"ifcfg-eth0": SERVER + "GATEWAY=192.0.2.1\nMTU=1400\n"})
        machine.run("network", "reload")
        assert "default via 198.51.100.1 dev eth1" in machine.state()["routes"], "eth0 was last, but is first at a boot"
        machine.write({"ifcfg-eth0": SERVER + "GATEWAY=192.0.2.1\n", "ifcfg-eth1": OTHER})
        machine.run("network", "reload")
        assert whole(machine) == booted

    on_machine(work)


def test_two_interfaces_in_one_network_keep_their_order() -> None:
    """Traffic to the network leaves by the interface that is first at a boot, also after that one was reloaded."""

    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER, "ifcfg-eth1": OTHER.replace("198.51.100.10", "192.0.2.11")})
        machine.run("network", "start")
        booted = machine.state()
        assert "dev eth0" in ip("route", "get", "192.0.2.99")
        for change in ("MTU=1400\n", ""):
            machine.write({"ifcfg-eth0": SERVER + change})
            assert machine.run("network", "reload") == 0, machine.output
            assert "dev eth0" in ip("route", "get", "192.0.2.99")
        assert [route for route in machine.state()["routes"] if not route.startswith("-6")] == [
            route for route in booted["routes"] if not route.startswith("-6")
        ]

    on_machine(work)


def test_a_device_that_was_plugged_in_again_is_configured_again() -> None:
    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": SERVER})
        machine.run("network", "start")
        booted = whole(machine)
        ip("link", "del", "eth0")
        assert machine.run("network", "reload") == 1
        assert "device eth0 does not seem to be present" in machine.output
        ip("link", "add", "eth0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "far0")
        Path("/proc/sys/net/ipv6/conf/far0/disable_ipv6").write_text("1")
        ip("link", "set", "far0", "up")
        assert machine.run("network", "reload") == 0
        after = whole(machine)
        assert after["addresses"] == booted["addresses"] and after["routes"] == booted["routes"]

    on_machine(work)


def test_rules_and_routes_are_those_of_ip_itself() -> None:
    """The same lines, given to `ip` one after another, as RHEL's ifup-routes does."""
    routes = CASES["routes-ip-syntax"]["files"]["route-eth0"].replace("\\\n", "")
    routes6 = CASES["routes6"]["files"]["route6-eth0"]
    rules = CASES["rules"]["files"]["rule-eth0"] + CASES["rules-without-priority"]["files"]["rule-eth0"] * 2
    config = SERVER + "IPV6ADDR=2001:db8:1::10/64\n"

    def by_ip(machine: Machine) -> Any:
        machine.write({"ifcfg-eth0": config})
        machine.run("network", "start")
        for family, kind, text in (("-4", "route", routes), ("-6", "route", routes6), ("-4", "rule", rules)):
            for line in text.splitlines():
                if line.strip() and not line.startswith("#"):
                    ip(family, kind, "add", *line.split())
        return whole(machine)

    def by_files(machine: Machine) -> Any:
        machine.write({"ifcfg-eth0": config, "route-eth0": routes, "route6-eth0": routes6, "rule-eth0": rules})
        assert machine.run("network", "start") == 0
        return whole(machine)

    assert on_machine(by_files) == on_machine(by_ip)


def test_duplicate_address_detection_is_waited_for() -> None:
    def work(machine: Machine) -> None:
        machine.write({"ifcfg-eth0": "DEVICE=eth0\nIPV6ADDR=2001:db8:1::10/64\n"})
        assert machine.run("network", "start") == 0
        assert machine.state()["addresses"]["eth0"][0] == "2001:db8:1::10/64", "not tentative any more"

    on_machine(work, dad=True)


def test_a_vlan_and_a_bond_are_skipped_by_name_where_the_kernel_lacks_them() -> None:
    def work(machine: Machine) -> None:
        with Kernel() as kernel:
            lacks = []
            for kind in ("vlan", "bond"):
                try:
                    kernel.create(f"try-{kind}", kind, **({"link": 1, "vlan_id": 1} if kind == "vlan" else {}))
                except OSError:
                    lacks.append(kind)
                else:
                    ip("link", "del", f"try-{kind}")
        machine.write({"ifcfg-eth0": SERVER, "ifcfg-eth0.10": "DEVICE=eth0.10\nVLAN=yes\nIPADDR=10.0.0.1\nPREFIX=24\n",
                       "ifcfg-bond0": 'DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS="mode=active-backup miimon=100"\n',
                       "ifcfg-eth1": "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n"})  # fmt: skip
        before = machine.state()
        status = machine.run("network", "start")
        assert machine.state()["addresses"]["eth0"][0].startswith("192.0.2.10/24"), "the others come up"
        assert status == (1 if lacks else 0)
        for kind, text in (("vlan", "no 802.1Q VLAN support"), ("bond", "no bonding support")):
            assert (text in machine.output) == (kind in lacks), machine.output
        machine.run("network", "stop")
        assert machine.state() == before

    on_machine(work)


def test_verbs_and_their_exit_statuses() -> None:
    def work(machine: Machine) -> None:
        assert machine.run("network") == machine.run("network", "dance") == 2
        assert machine.run("network", "start") == 0, "nothing to do"
        machine.write({"ifcfg-eth0": SERVER})
        assert machine.run("network", "status") == 0
        assert machine.output.splitlines()[:2] == ["Configured devices:", "lo eth0"]
        assert machine.run("network", "force-reload") == 0
        assert "eth0" in machine.state()["addresses"]
        assert machine.run("network", "stop") == machine.run("network", "stop") == 0

    on_machine(work)

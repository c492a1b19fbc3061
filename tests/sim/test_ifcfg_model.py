"""Files -> interfaces, and the pure parts of applying them. The kernel's side is tests/world/test_ifcfg_kernel.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sim.stacks.ifcfg import STACK
from sim.stacks.ifcfg.apply import number_rules
from sim.stacks.ifcfg.files import read_files
from sim.stacks.ifcfg.iproute import Rule, parse_route, parse_rule
from sim.stacks.ifcfg.model import (
    FOLDER,
    NETWORK,
    Configuration,
    Files,
    Interface,
    broadcast_of,
    configuration,
    default_prefix,
    mask_prefix,
)
from sim.stacks.ifcfg.record import Applied, Records
from sim.stacks.ifcfg.resolv import resolv_conf, update

DATA = Path(__file__).parents[1] / "data" / "ifcfg"
CASES = {path.stem: YAML(typ="safe", pure=True).load(path.read_text()) for path in sorted(DATA.glob("*.yaml"))}
SERVER = "DEVICE=eth0\nIPADDR=192.0.2.10\nPREFIX=24\n"


def read(scripts: dict[str, str], network: str | None = None) -> Configuration:
    return configuration(Files(scripts, network))


def corpus(name: str) -> Files:
    files = CASES[name]["files"]
    scripts = {path: text for path, text in files.items() if path != "network" and not path.startswith("/")}
    return Files(scripts, files.get("network"), files.get("/etc/iproute2/rt_tables", ""))


@pytest.mark.parametrize("name", CASES)
def test_every_complaint_names_its_file(name: str) -> None:
    """What the files alone tell (without a kernel) is among the messages that the boot shows."""
    config = configuration(corpus(name), {"eth0": "02:00:00:00:00:01", "eth1": "02:00:00:00:00:02"})
    expected = CASES[name].get("messages", [])
    skips = [one.skip for one in config.at_boot if one.skip]
    for message in [*config.messages, *(m for one in config.at_boot for m in one.messages), *skips]:
        assert str(message).replace(f"{FOLDER}/", "") in expected
        assert message.file.startswith((FOLDER, NETWORK))


@pytest.mark.parametrize("name", CASES)
def test_a_record_gives_back_what_was_applied(name: str, tmp_path: Path) -> None:
    records = Records(tmp_path)
    for one in configuration(corpus(name)).interfaces:
        applied = Applied(one, one.device, 7, mtu=1500, sysctls=one.sysctls, routes=one.routes, state="complete")
        records.put(applied)
        assert records.get(one.name) == applied
    records.put_rules([rule for one in records.applied() for rule in one.interface.rules])
    assert Records(tmp_path).rules() == [rule for one in records.applied() for rule in one.interface.rules]


def test_interfaces_come_up_in_the_order_of_network_start() -> None:
    """Plain ones, VLANs, bridges; names by their letters and then by number; ports of a bond after their bond."""
    scripts = {f"ifcfg-{name}": f"DEVICE={name}\n" for name in ("eth10", "eth9", "eth1.5", "vlan7", "wlan0", "em1")}
    scripts |= {"ifcfg-abridge": "DEVICE=abridge\nTYPE=Bridge\n"}
    scripts |= {"ifcfg-bond0": "DEVICE=bond0\nTYPE=Bond\n", "ifcfg-aport": "DEVICE=aport\nMASTER=bond0\nSLAVE=yes\n"}
    order = [one.name for one in read(scripts).at_boot]
    assert order == ["bond0", "aport", "em1", "eth9", "eth10", "wlan0", "eth1.5", "vlan7", "abridge"]


def test_ports_of_a_bond_that_stays_down_stay_down() -> None:
    scripts = {
        "ifcfg-bond0": "DEVICE=bond0\nTYPE=Bond\nONBOOT=no\n",
        "ifcfg-eth0": "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes",
    }
    assert read(scripts).at_boot == ()


def test_a_word_finds_the_interface_that_need_config_would() -> None:
    config = read({"ifcfg-lan": SERVER, "ifcfg-eth1": "DEVICE=eth1\n"})
    for word in ("lan", "ifcfg-lan", "/etc/sysconfig/network-scripts/ifcfg-lan", "eth0"):
        found = config.find(word)
        assert found is not None and found.name == "lan"
    assert config.find("eth2") is None


@pytest.mark.parametrize(
    ("text", "physdev", "number"),
    [
        ("DEVICE=eth0.10\nVLAN=yes\n", "eth0", 10),
        ("DEVICE=eth0.10\nVLAN=yes\nPHYSDEV=eth7\n", "eth0", 10),
        ("DEVICE=vlan0012\nVLAN=yes\nPHYSDEV=eth1\n", "eth1", 12),
        ("DEVICE=up\nVLAN=yes\nPHYSDEV=eth1\nVLAN_ID=7\n", "eth1", 7),
        ("DEVICE=eth0.10\nVLAN=yes\nPHYSDEV=eth1\nVID=7\n", "eth1", 7),
    ],
)
def test_a_vlan_gets_its_id_as_ifup_finds_it(text: str, physdev: str, number: int) -> None:
    (one,) = read({"ifcfg-v": text}).interfaces
    assert (one.kind, one.physdev, one.vlan_id) == ("vlan", physdev, number)


def test_bond_options_are_pairs() -> None:
    (one,) = read({"ifcfg-b": 'DEVICE=bond0\nBONDING_OPTS="mode=1 miimon=100 odd"\n'}).interfaces
    assert one.kind == "bond" and one.bonding == (("mode", "1"), ("miimon", "100"))
    assert "'odd' is no KEY=VALUE" in str(one.messages[0])


def test_addresses_are_calculated_as_ipcalc_does() -> None:
    assert [default_prefix(a) for a in ("10.0.0.1", "127.0.0.1", "128.0.0.1", "192.0.2.1", "224.0.0.1")] == [
        8,
        8,
        16,
        24,
        32,
    ]
    assert [mask_prefix(m) for m in ("255.255.255.0", "0.0.0.0", "255.255.255.255", "16")] == [24, 0, 32, 16]
    assert broadcast_of("192.0.2.10", 24) == "192.0.2.255"
    for mask in ("255.0.255.0", "mask", "33", ""):
        with pytest.raises(ValueError, match="netmask"):
            mask_prefix(mask)


@pytest.mark.parametrize("line", ["", "10.0.0.0/8 via", "default table", "10.0.0.0/8 frob", "10.0.0.0/8 mtu lock 5",
                                  "10.0.0.0/8 via inet6 ::1", "10.0.0.0/8 metric -1", "10.0.0.0/8 nexthop dev",
                                  "10/8", "10.0.0.0/8 scope galaxy", "::/0"])  # fmt: skip
def test_a_route_that_makes_no_sense_says_why(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ .*\w+"):
        parse_route(line.split(), 4, {})


@pytest.mark.parametrize(
    "line", ["from", "from x", "frob", "table nobody", "priority x", "goto 7", "dport 0", "type nat"]
)
def test_a_rule_that_makes_no_sense_says_why(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ .*\w+"):
        parse_rule(line.split(), 4, {})


def test_rules_without_priority_go_before_the_lowest_one() -> None:
    first, second, fixed = Rule(4, source="10.0.0.1/32"), Rule(4, source="10.0.0.2/32"), Rule(4, priority=100)
    numbered, problems = number_rules([first, fixed, second, fixed], {4: [0, 32766, 32767], 6: [0, 32766]})
    assert [rule.priority for rule in numbered] == [32765, 100, 99]
    assert len(problems) == 1 and "File exists" in problems[0]


def with_names(*dns: str, domain: str = "", name: str = "eth0") -> Interface:
    return Interface(name, name, dns=dns, domain=domain)


def test_name_servers_replace_and_domains_add_up() -> None:
    text = "options rotate\nnameserver 203.0.113.1\nsearch old.example\n"
    one, two = with_names("192.0.2.1", domain="a.example"), with_names("192.0.2.2", "192.0.2.3", domain="b.example")
    assert resolv_conf(text, [one]) == "options rotate\nsearch a.example old.example\nnameserver 192.0.2.1\n"
    assert resolv_conf(text, [one, two]).splitlines() == [
        "options rotate",
        "search b.example a.example old.example",
        "nameserver 192.0.2.2",
        "nameserver 192.0.2.3",
    ]
    assert resolv_conf(text, [with_names("203.0.113.1")]) == text


def test_resolv_conf_comes_back_also_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "etc/resolv.conf"
    path.parent.mkdir()
    path.write_text("nameserver 203.0.113.1\n")
    path.chmod(0o640)
    update(tmp_path, [with_names("192.0.2.1", domain="a.example")])
    update(tmp_path, [with_names("192.0.2.9", domain="b.example")])  # the next boot, after a crash
    assert path.read_text() == "search b.example\nnameserver 192.0.2.9\n", "nothing of before the crash is left"
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.stat()
    update(tmp_path, [with_names("192.0.2.9", domain="b.example")])
    assert path.stat().st_ino == before.st_ino, "written only where it differs"
    update(tmp_path, [])
    assert path.read_text() == "nameserver 203.0.113.1\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["resolv.conf"]


def test_a_link_at_resolv_conf_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    target = tmp_path / "stub.conf"
    target.write_text("nameserver 127.0.0.53\n")
    (tmp_path / "etc/resolv.conf").symlink_to("../stub.conf")
    update(tmp_path, [with_names("192.0.2.1")])
    assert (tmp_path / "etc/resolv.conf").is_symlink() and target.read_text() == "nameserver 192.0.2.1\n"
    update(tmp_path, [])
    assert (tmp_path / "etc/resolv.conf").is_symlink() and target.read_text() == "nameserver 127.0.0.53\n"


def test_without_a_resolv_conf_there_is_none_again(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    update(tmp_path, [with_names("192.0.2.1")])
    update(tmp_path, [])
    assert list((tmp_path / "etc").iterdir()) == []


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "ifcfg-folder").mkdir()
    os.mkfifo(folder / "ifcfg-pipe")
    (folder / "ifcfg-nowhere").symlink_to("nothing")
    (folder / "ifcfg-linked").symlink_to(folder / "ifcfg-eth0")
    (folder / "ifcfg-eth0").write_bytes(b"DEVICE=eth0\nNAME=\xff\xfe\n")
    (folder / "ifup-eth").write_text("#!/bin/sh\n")
    files = read_files(tmp_path)
    assert sorted(files.scripts) == ["ifcfg-eth0", "ifcfg-linked"]
    assert sorted(message.file.rpartition("-")[2] for message in files.messages) == ["folder", "nowhere", "pipe"]
    assert read_files(tmp_path / "nothing") == Files({})
    assert configuration(files).interfaces[0].device == "eth0"


def test_names_that_are_no_text_are_named_and_nothing_else_suffers(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / FOLDER.lstrip("/"))
    os.makedirs(folder)
    for name in (b"ifcfg-\xff", b"ifcfg-a b", b"ifcfg-a\nb", b"ifcfg-*", b"ifcfg-eth0:\xff", b"ifcfg-", b"ifcfg-eth0"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"DEVICE=" + (b"eth0\n" + SERVER.encode() if name == b"ifcfg-eth0" else name[6:] + b"\n"))
    config = configuration(read_files(tmp_path))
    assert [one.name for one in config.interfaces if not one.skip and not one.failed] == ["*"]
    (server,) = [one for one in config.interfaces if one.name == "eth0"]
    assert server.skip is None and [address.address for address in server.addresses] == ["192.0.2.10"]
    assert "invalid alias number" in str(server.messages[0])
    assert len(config.messages) == 3
    records = Records(tmp_path)
    for one in config.interfaces:
        records.put(Applied(one, one.device, 1))
    assert {one.interface.name for one in records.applied()} == {one.name for one in config.interfaces}


TEXT = """DEVICE IPADDR IPADDR0 PREFIX NETMASK GATEWAY MTU IPV6ADDR DNS1 TYPE BRIDGE VLAN DELAY STP METRIC HWADDR
ADDRESS0 NETMASK0 GATEWAY0 = = = = yes eth0 192.0.2.1 24 255.0.0.0 2001:db8::1/64 ' -1 Bridge via dev default table from
10.0.0.0/8 nexthop é ² ٣ % 1_0 PHYSDEV"""
WORDS = st.sampled_from([*TEXT.split(), "\n", "\n", "\n", " ", '"'])


@given(st.lists(WORDS).map("".join), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join))
def test_no_file_raises(ifcfg: str, other: str, network: str) -> None:
    scripts = {"ifcfg-eth0": ifcfg, "ifcfg-eth0:1": ifcfg, "ifcfg-x": "DEVICE=eth0\n" + ifcfg}
    scripts |= {f"{kind}-eth0": other for kind in ("route", "route6", "rule", "rule6", "keys")}
    configuration(Files(scripts, network, other), {"eth0": "02:00:00:00:00:01"})


def test_the_stack_names_what_it_reads_and_runs() -> None:
    assert f"{FOLDER}/ifcfg-*" in STACK.patterns and "*.rpmsave" in STACK.ignored
    programs = {"/usr/sbin/ifup", "/usr/sbin/ifdown", "/etc/init.d/network"}
    assert set(STACK.programs) == programs | {"/etc/dhcp/dhclient.conf"}
    assert set(STACK.builtins) == {"ifup", "ifdown", "network"}
    assert STACK.missing() is None

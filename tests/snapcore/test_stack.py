"""The adapters: what a changed file is about, and what the stack's own commands are asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from snapcore import profiles, stack
from snapcore.stack import Config, Ran

SCRIPTS = "etc/sysconfig/network-scripts"


class Asked:
    """Stands for `stack.run`: what was asked, and whether somebody waits for it."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, words: Sequence[str], wait: bool = True) -> Ran:
        name = Path(words[0]).name
        self.words.append(" ".join([name, *words[1:]]) + ("" if wait else " &"))
        return Ran(tuple(words), 0 if wait else None, detached=not wait)


def configs(adapter: type[stack.Stack], files: dict[str, str]) -> dict[str, Config]:
    return adapter().configs(files, profiles.load(adapter.family).cover())


def test_files_about_one_interface_are_one_configuration_with_its_device() -> None:
    found = configs(
        stack.Ifcfg,
        {
            f"{SCRIPTS}/ifcfg-office": "DEVICE=eth0\nBOOTPROTO='dhcp' # leased\n",
            f"{SCRIPTS}/route-office": "default via 192.0.2.1\n",
            f"{SCRIPTS}/ifcfg-office:1": "IPADDR=192.0.2.9\n",
            f"{SCRIPTS}/ifcfg-br0": "TYPE=Bridge\n",
            f"{SCRIPTS}/ifcfg-eth0.7": 'VLAN="yes"\n',
            f"{SCRIPTS}/ifcfg-lo": "DEVICE=lo\n",
            "etc/sysconfig/network": "GATEWAY=192.0.2.1\n",
        },
    )
    assert {name: (each.device, each.dhcp) for name, each in found.items()} == {
        "office": ("eth0", True),
        "br0": ("br0", False),
        "eth0.7": ("eth0.7", False),
    }
    assert "192.0.2.9" in found["office"].text and "default via" in found["office"].text
    assert sorted(found, key=lambda name: found[name].rank) == ["br0", "office", "eth0.7"]


def test_a_route_file_alone_is_about_its_interface() -> None:
    assert configs(stack.Ifcfg, {f"{SCRIPTS}/route-eth1": "x"})["eth1"].device == "eth1"


INTERFACES = """\
# comment
auto lo
iface lo inet loopback

auto eth0 eth1
iface eth0 inet static
    address 192.0.2.10/24
    up ip route add \\
        198.51.100.0/24 via 192.0.2.1
iface eth0 inet6 auto
source /etc/network/interfaces.d/*
allow-hotplug eth2
iface eth1 inet dhcp
mapping eth3
    script /bin/true
iface eth2 inet manual
"""


def test_paragraphs_of_one_file_are_told_apart() -> None:
    """Whoever changes one interface in /etc/network/interfaces has not changed the others."""
    before = configs(stack.Ifupdown, {"etc/network/interfaces": INTERFACES})
    after = configs(stack.Ifupdown, {"etc/network/interfaces": INTERFACES.replace("via 192.0.2.1", "via 192.0.2.2")})
    assert list(before) == ["eth0", "eth1", "eth2"]
    assert [name for name in before if before[name].text != after[name].text] == ["eth0"]
    assert [name for name in before if before[name].dhcp] == ["eth1"]
    respaced = INTERFACES.replace("    address", "\taddress").replace("# comment", "# another")
    assert configs(stack.Ifupdown, {"etc/network/interfaces": respaced}) == before


def test_a_paragraph_that_moved_to_another_file_has_not_changed() -> None:
    head, tail = INTERFACES.split("iface eth1")
    before = configs(stack.Ifupdown, {"etc/network/interfaces": INTERFACES})
    files = {"etc/network/interfaces": head, "etc/network/interfaces.d/b": "iface eth1" + tail}
    assert {name: each.text for name, each in configs(stack.Ifupdown, files).items()} == {
        name: each.text for name, each in before.items()
    }


def test_units_of_networkd_and_profiles_of_networkmanager_know_their_device() -> None:
    unit = {"etc/systemd/network/10-x.network": "[Match]\nName=eth0\n[Network]\nDHCP=yes\n"}
    wide = {"etc/systemd/network/20-y.network": "[Match]\nName=en*\n"}
    found = configs(stack.Networkd, {**unit, **wide, "etc/systemd/network/10-x.network.d/z.conf": "[Network]\n"})
    assert [(each.device, each.dhcp) for each in found.values()] == [("eth0", True), ("", False)]
    keyfile = "[connection]\nid=Office\ninterface-name=eth0\n[ipv4]\nmethod=auto\n"
    profile = configs(stack.NetworkManager, {"etc/NetworkManager/system-connections/o.nmconnection": keyfile})
    assert profile["Office"][:3] == ("Office", "eth0", True)


@pytest.mark.parametrize(
    ("adapter", "down", "up", "late"),
    [
        (stack.Ifcfg, ["ifdown a", "ifdown b"], ["ifup a", "ifup b"], ["ifup a &", "ifup b &"]),
        (stack.Ifupdown, ["ifdown -f --ignore-errors a b"], ["ifup a b"], ["ifup a &", "ifup b &"]),
        (stack.Networkd, [], [" reconfigure eth0"], [" reconfigure eth0"]),
        (
            stack.NetworkManager,
            [" --wait 0 connection down id a", " --wait 0 connection down id b"],
            [" --wait 0 connection up id a", " --wait 0 connection up id b"],
            [" --wait 0 connection up id a", " --wait 0 connection up id b"],
        ),
        (stack.Netplan, [], [], []),
    ],
)
def test_only_named_interfaces_are_asked_for_and_nobody_waits_for_a_lease(
    adapter: type[stack.Stack], down: list[str], up: list[str], late: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "program", lambda name: f"/usr/sbin/{name}" if name.startswith("if") else "")
    asked = Asked()
    named = [Config("a", "eth0"), Config("b", "eth0")]
    adapter(asked).down(named)
    assert asked.words == down
    for wait, wanted in ((True, up), (False, late)):
        asked.words.clear()
        adapter(asked).up(named, wait=wait)
        assert asked.words == wanted


def test_a_command_that_hangs_is_stopped_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "COMMAND_S", 0.2)
    ran = stack.run(["sh", "-c", "echo before; sleep 60 & wait"])
    assert ran.status is None and ran.output == "before\n"
    assert str(ran).startswith("sh -c") and "stopped after 0.2 s: before" in str(ran)


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for() -> None:
    started = time.monotonic()
    ran = stack.run(["sh", "-c", "echo up; sleep 9 & exit 3"])
    assert (ran.status, ran.output) == (3, "up\n")
    assert time.monotonic() - started < 8


def test_a_program_that_is_not_there_is_said_and_no_traceback() -> None:
    assert "nowhere: exit status 127: No such file" in str(stack.run(["/nowhere"]))


def test_nobody_waits_for_a_detached_command() -> None:
    ran = stack.run([sys.executable, "-I", "-c", "input()"], wait=False)
    assert ran.detached and ran.status is None

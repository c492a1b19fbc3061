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
    keyfile = "[connection]\nid=Office\nuuid=1-2\ninterface-name=eth0\n[ipv4]\nmethod=auto\n"
    profile = configs(stack.NetworkManager, {"etc/NetworkManager/system-connections/o.nmconnection": keyfile})
    assert profile["Office"][:3] == ("Office", "eth0", True)
    assert profile["Office"].key == "1-2"


def test_settings_of_a_daemon_and_profiles_that_it_made_up_are_no_interface_s() -> None:
    made_up = "[connection]\nid=br7\n[.nmmeta]\nnm-generated=true\nvolatile=true\nexternal=true\n"
    files = {
        "etc/NetworkManager/conf.d/9.conf": "[keyfile]\nunmanaged-devices=interface-name:eth0\n",
        "run/NetworkManager/system-connections/br7.nmconnection": made_up,
    }
    found = configs(stack.NetworkManager, files)
    assert [(name, each.setting) for name, each in found.items()] == [("etc/NetworkManager/conf.d/9.conf", True)]
    assert [each.setting for each in configs(stack.Networkd, {"etc/systemd/networkd.conf": ""}).values()] == [True]


def test_what_has_ports_comes_up_before_them() -> None:
    kinds = {"port": "type=ethernet\nmaster=br0", "br0": "type=bridge", "plain": "type=ethernet", "v": "type=vlan"}
    files = {f"etc/NetworkManager/system-connections/{name}": f"[connection]\nid={name}\n{text}\n"
             for name, text in kinds.items()}  # fmt: skip
    found = configs(stack.NetworkManager, files)
    assert sorted(found, key=lambda name: found[name].rank) == ["br0", "port", "plain", "v"]


def test_networkmanager_s_notes_say_what_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "NM_DEVICES", str(tmp_path))
    (tmp_path / "1").write_text("[device]\nmanaged=true\nconnection-uuid=1-2\n")
    (tmp_path / "9999999").write_text("[device]\nmanaged=true\nconnection-uuid=3-4\n")
    assert stack.NetworkManager().active() == {"lo": "1-2"}
    (tmp_path / "1").write_text("[device]\nmanaged=false\n")
    assert stack.NetworkManager().active() == {}


def test_netplan_is_asked_only_where_its_renderer_s_files_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for adapter in stack.ADAPTERS:
        monkeypatch.setattr(adapter, "found", lambda self: True)
    files = {"etc/netplan/1.yaml": "network: {ethernets: {}}", "etc/netplan/2.yaml": "network: {wifis: {}}"}
    cover = profiles.load("netplan").cover()
    alone = stack.found(["netplan"])[-1]
    rendered = stack.found(["netplan", "networkd", "networkmanager"])[-1]
    assert list(alone.configs(files, cover)) == list(files)
    assert list(rendered.configs(files, cover)) == ["etc/netplan/2.yaml"]


@pytest.mark.parametrize("booted", [True, False])
def test_netplan_applies_by_systemd_or_tells_the_renderer(
    booted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "program", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(stack, "SYSTEMD", str(tmp_path) if booted else "/nowhere")
    monkeypatch.setattr(stack.Networkd, "found", lambda self: True)
    monkeypatch.setattr(stack.NetworkManager, "found", lambda self: False)
    asked = Asked()
    stack.Netplan(asked).reload([])
    assert asked.words == ["netplan generate", "netplan apply" if booted else "networkctl reload"]


def test_networkd_is_asked_by_name_only_for_what_it_has_given_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "NETIF_LINKS", str(tmp_path))
    (tmp_path / "1").write_text("ADMIN_STATE=configured\n")
    asked = Asked()
    changed = [Config("a", "lo"), Config("b", "not-there"), Config("c", "")]
    stack.Networkd(asked).reload(changed)
    (tmp_path / "1").write_text("ADMIN_STATE=failed\n")
    stack.Networkd(asked).reload(changed)
    assert [words.partition(" ")[2] for words in asked.words] == ["reload", "reload", "reconfigure lo"]


def test_networkmanager_reads_its_settings_again_before_its_profiles() -> None:
    asked = Asked()
    stack.NetworkManager(asked).reload([Config("conf", "", setting=True)])
    stack.NetworkManager(asked).reload([Config("office", "eth0")])
    assert [words.split()[-3:] for words in asked.words] == [
        ["general", "reload", "conf"],
        ["connection", "reload"],
        ["connection", "reload"],
    ]


@pytest.mark.parametrize(
    ("adapter", "down", "up", "late"),
    [
        (stack.Ifcfg, ["ifdown a", "ifdown b"], ["ifup a", "ifup b"], ["ifup a &", "ifup b &"]),
        (stack.Ifupdown, ["ifdown -f --ignore-errors a b"], ["ifup a b"], ["ifup a &", "ifup b &"]),
        (stack.Networkd, [], [" reconfigure eth0"], [" reconfigure eth0"]),
        (
            stack.NetworkManager,
            [" connection down id a", " connection down uuid 1-2"],
            [" --wait 5 connection up id a", " --wait 0 connection up uuid 1-2"],
            [" --wait 5 connection up id a", " --wait 0 connection up uuid 1-2"],
        ),
        (stack.Netplan, [], [], []),
    ],
)
def test_only_named_interfaces_are_asked_for_and_nobody_waits_for_a_lease(
    adapter: type[stack.Stack], down: list[str], up: list[str], late: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "program", lambda name: f"/usr/sbin/{name}" if name.startswith("if") else "")
    asked = Asked()
    named = [Config("a", "eth0"), Config("b", "eth0", dhcp=True, key="1-2")]
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

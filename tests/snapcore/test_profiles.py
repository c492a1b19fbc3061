"""Families of configuration: what each covers, and what is wrong with a bad profile."""

from __future__ import annotations

import configparser
import fnmatch
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapcore_hosts import HostTree

from snapcore import patterns, profiles
from snapcore.errors import Usage

EVERYWHERE = {
    "ifcfg": ["sysconfig/network-scripts/ifcfg-a", "sysconfig/network-scripts/keys-a", "sysconfig/network"],
    "ifupdown": ["network/interfaces", "network/interfaces.d/eth0"],
    "netplan": ["netplan/50-a.yaml"],
    "networkd": ["systemd/network/10-a.network", "systemd/network/10-a.network.d/b.conf", "systemd/networkd.conf"],
    "networkmanager": ["NetworkManager/system-connections/a.nmconnection", "NetworkManager/conf.d/a.conf"],
    "wicked": ["sysconfig/network/ifcfg-a", "sysconfig/network/routes", "wicked/ifconfig/a.xml"],
    "resolver": ["resolv.conf", "systemd/resolved.conf"],
    "hosts": ["hosts"],
    "hostname": ["hostname"],
    "nsswitch": ["nsswitch.conf"],
    "dispatcher": ["NetworkManager/dispatcher.d/10-a", "NetworkManager/dispatcher.d/pre-up.d/b", "network/if-up.d/c"],
    "nftables": ["nftables.conf", "nftables/a.nft"],
    "iptables": ["iptables/rules.v4", "sysconfig/iptables"],
    "sysctl": ["sysctl.conf", "sysctl.d/10-a.conf"],
}


def write(root: Path, paths: list[str], text: str) -> None:
    for path in paths:
        (root / "etc" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "etc" / path).write_text(text)


def test_every_shipped_profile_is_sound_and_tried_here() -> None:
    assert set(profiles.shipped()) == set(EVERYWHERE)
    assert {name for name in EVERYWHERE if profiles.load(name).default} == {
        "ifcfg", "ifupdown", "netplan", "networkd", "networkmanager", "wicked", "resolver"
    }  # fmt: skip
    for name in EVERYWHERE:
        assert profiles.load(name).about


@pytest.mark.parametrize("name", sorted(EVERYWHERE))
def test_a_family_is_restored_changed_removed_and_added(tmp_path: Path, name: str) -> None:
    paths = EVERYWHERE[name]
    for what in ("changed", "removed", "added"):
        host = HostTree(tmp_path / what)
        host.root.mkdir()
        if what != "added":
            write(host.root, paths, "OLD\n")
        old = host.seen()
        assert host.run("begin", "--profile", name) == 0
        if what == "removed":
            for path in paths:
                (host.root / "etc" / path).unlink()
        else:
            write(host.root, paths, "NEW\n")
        assert host.run("rollback") == 0
        now = host.seen()
        assert {path: value for path, value in now.items() if not path.startswith(b"/var")} == old or (
            what == "added" and set(now) - set(old) <= {b"/etc", b"/var", b"/var/lib"}
        )


def test_a_switch_of_the_renderer_is_undone(tmp_path: Path) -> None:
    host = HostTree(tmp_path)
    write(host.root, EVERYWHERE["ifupdown"], "OLD\n")
    assert host.run("begin") == 0
    write(host.root, EVERYWHERE["netplan"] + EVERYWHERE["networkmanager"], "NEW\n")
    os.unlink(host.root / "etc/network/interfaces")
    assert host.run("rollback") == 0
    assert (host.root / "etc/network/interfaces").read_text() == "OLD\n"
    assert sorted(os.listdir(host.root / "etc")) == ["network"]


def test_one_familys_file_may_be_another_ones_folder(tmp_path: Path) -> None:
    for name, path in (("suse", "sysconfig/network/ifcfg-a"), ("rhel", "sysconfig/network")):
        host = HostTree(tmp_path / name)
        write(host.root, [path], "OLD\n")
        assert host.run("begin") == 0
        write(host.root, [path], "NEW\n")
        assert host.run("rollback") == 0
        assert (host.root / "etc" / path).read_text() == "OLD\n"


def test_what_source_lines_reach_is_covered(tmp_path: Path) -> None:
    host = HostTree(tmp_path)
    write(host.root, ["network/interfaces"], "auto lo\nsource /etc/net/*.if\nsource-directory more\nsource $HOME/x\n")
    write(host.root, ["net/a.if"], "source ../deep/b\n")
    write(host.root, ["deep/b", "network/more/c"], "iface b\n")
    assert host.run("begin") == 0
    write(host.root, ["net/a.if", "deep/b", "network/more/c", "net/added.if"], "NEW\n")
    assert host.run("rollback") == 0
    assert (host.root / "etc/deep/b").read_text() == "iface b\n"
    assert (host.root / "etc/network/more/c").read_text() == "iface b\n"
    assert (host.root / "etc/net/a.if").read_text() == "source ../deep/b\n"
    assert not (host.root / "etc/net/added.if").exists()


def test_editor_backups_are_nobodys_configuration(tmp_path: Path) -> None:
    host = HostTree(tmp_path)
    write(host.root, ["netplan/a.yaml"], "OLD\n")
    assert host.run("begin") == 0
    write(host.root, ["netplan/a.yaml~", "network/interfaces.d/eth0.dpkg-old"], "BACKUP\n")
    assert host.run("rollback") == 0
    assert (host.root / "etc/netplan/a.yaml~").exists()
    assert (host.root / "etc/network/interfaces.d/eth0.dpkg-old").exists()


def test_a_profile_of_ones_own_is_given_by_its_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.ini"
    mine.write_text("[profile]\nabout = mine\n[files]\ninclude = /etc/mine/*.conf\n")
    host = HostTree(tmp_path / "root")
    write(host.root, ["mine/a.conf", "hosts"], "OLD\n")
    assert host.run("begin", "--profile", str(mine), "--profile", "hosts") == 0
    write(host.root, ["mine/a.conf", "hosts"], "NEW\n")
    assert host.run("rollback") == 0
    assert (host.root / "etc/mine/a.conf").read_text() == (host.root / "etc/hosts").read_text() == "OLD\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "files"),
        ("[files]\ninclude = etc/x/*\n", "absolute"),
        ("[files]\ninclude = /etc/../x\n", "absolute"),
        ("[files]\ninclude = /etc/x/*\nexlude = *~\n", "exlude"),
        ("[file]\ninclude = /etc/x/*\n", "[file]"),
        ("[files]\ninclude = /etc/x/*\n[interface]\nname = (\n", "interface"),
        ("[profile]\ndefault = perhaps\n[files]\ninclude = /etc/x/*\n", "perhaps"),
        ("include = /etc/x\n", "section"),
    ],
)
def test_a_bad_profile_is_one_line_that_says_why(text: str, says: str) -> None:
    with pytest.raises(Usage) as raised:
        profiles.parse("bad", text, "bad.ini")
    assert says in str(raised.value) and "bad.ini" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", sorted(EVERYWHERE))
def test_a_shipped_profile_means_what_the_standard_library_reads_in_it(name: str) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(profiles.read_resource(f"profiles/{name}.ini"))
    profile = profiles.load(name)
    assert profile.about == parser.get("profile", "about")
    assert profile.default == parser.getboolean("profile", "default")
    assert profile.include == tuple(parser.get("files", "include").split())
    assert profile.exclude == tuple(parser.get("files", "exclude", fallback="").split())
    assert profile.sources == tuple(parser.get("files", "sources", fallback="").split())
    assert profile.interface == parser.get("interface", "name", fallback="")
    if profile.interface:
        assert re.compile(profile.interface).groups == 1


@settings(max_examples=300, deadline=None)
@given(st.text("ab.~*", max_size=8), st.lists(st.text("ab.~*?[]", max_size=6), max_size=4))
def test_patterns_match_as_fnmatch_has_it(name: str, wanted: list[str]) -> None:
    expected = any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    assert patterns.Matcher(wanted)(name) is expected
    assert any(patterns.matches(name, pattern) for pattern in wanted) is expected


def test_a_name_with_a_leading_dot_is_meant_only_by_a_pattern_with_one() -> None:
    assert [name for name in ("a", ".a", "a~", ".a~") if patterns.Chooser(["*", ".*"], ["*~"])(name)] == ["a", ".a"]
    assert [name for name in ("a", ".a") if patterns.Chooser(["*"])(name)] == ["a"]

"""snapcore with the daemons that really look after ports: what they say afterwards, and what they leave alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest
from daemons import DAEMONS, KEYFILES, NETWORKD, Host, why_not
from laboratory import in_sandbox

from sim.mechanisms import snapcore
from sim.world.machine import Completed

pytestmark = [pytest.mark.world, pytest.mark.root]  # the daemons become users of their own
LEASE_S = 25.0
"""NetworkManager waits 45 s for a lease, networkd for ever."""


def networkd_file(device: str, *lines: str) -> str:
    return "\n".join(("[Match]", f"Name={device}", "[Network]", "IPv6AcceptRA=no", *lines, ""))


def keyfile(name: str, device: str, number: int, address: str, method: str = "manual", more: str = "") -> str:
    return (
        f"[connection]\nid={name}\nuuid=00000000-0000-4000-8000-{number:012d}\ntype=ethernet\n"
        f"interface-name={device}\n{more}[ipv4]\nmethod={method}\naddress1={address}\n[ipv6]\nmethod=link-local\n"
    )


ETH0, ETH1 = f"{NETWORKD}/10-eth0.network", f"{NETWORKD}/20-eth1.network"
OFFICE, YAML = f"{KEYFILES}/office.nmconnection", "/etc/netplan/01.yaml"
FILES = {
    "networkd": {
        ETH0: networkd_file("eth0", "Address=192.0.2.10/24", "Gateway=192.0.2.1"),
        ETH1: networkd_file("eth1", "Address=198.51.100.10/24"),
    },
    "NetworkManager": {
        OFFICE: keyfile("office", "eth0", 1, "192.0.2.10/24,192.0.2.1"),
        f"{KEYFILES}/lab.nmconnection": keyfile("lab", "eth1", 2, "198.51.100.10/24"),
        f"{KEYFILES}/spare.nmconnection": keyfile("spare", "eth0", 3, "192.0.2.99/24", more="autoconnect=false\n"),
    },
    "netplan": {
        YAML: """\
network:
  version: 2
  ethernets:
    eth0: {accept-ra: no, addresses: [192.0.2.10/24], routes: [{to: default, via: 192.0.2.1}]}
    eth1: {accept-ra: no, addresses: [198.51.100.10/24]}
"""
    },
}


def on_host(work: Any, daemon: str, files: dict[str, str] | None = None, dad: bool = False) -> Any:
    """What `work` says of a machine with that daemon. It is fetched where this host has none."""
    why = snapcore.mechanism().missing or why_not(daemon)
    if why:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    return in_sandbox(lambda: work(Host(daemon, {**FILES[daemon], **(files or {})}, dad)))


@dataclass
class Seen:
    """What a begin, a change that came to its end, and a rollback were seen to do."""

    planned: set[tuple[str, str, str]]
    """(action, interface, words) of what the plan asks a stack for."""
    done: Completed
    files_back: bool
    kernel_back: bool
    says: str
    heard: list[str]
    after: str

    def check(self, says: str) -> None:
        """All is as it was; the daemon says so, too, and the other port heard nothing."""
        assert self.done.status == 0, self.done.output
        assert "exit status" not in self.done.output
        assert self.files_back and self.kernel_back
        assert says in self.says
        assert self.heard == []


def rolled_back(
    host: Host, change: str, about: str, wanted: str, after: str = ":", begin: str = "", plan: bool = False
) -> Seen:
    """`change` is over when `wanted` is in the output of `about`; `after` is asked for in the end."""
    host.sh(f"snapcore begin {begin}")
    host.sh(change)
    host.until(about, wanted)
    steps: list[dict[str, Any]] = json.loads(host.sh("snapcore plan --json"))["steps"] if plan else []
    with host.heard("eth1") as heard:
        done = host.do("snapcore rollback")
        kernel_back = host.becomes(host.kernel) == host.kernel
        says = host.settle("eth0")
    planned = {
        (step["action"], step["interface"], step["words"])
        for step in steps
        if step["action"] in ("take-down", "bring-up")
    }
    return Seen(planned, done, host.all_files() == host.written, kernel_back, says, heard, host.sh(after))


ADDRESSES = "ip -br address show dev eth0"
DEVICES = "nmcli -g DEVICE,STATE device"
PROFILES = "nmcli -g NAME,DEVICE connection"


def here(files: dict[str, str]) -> str:
    """The command that writes these files."""
    return "; ".join(f"cat > {path} <<'end'\n{text}end\n:" for path, text in files.items())


UNIT = {
    "another address": (f"sed -i s/192.0.2.10/192.0.2.99/ {ETH0}", ADDRESSES, "192.0.2.99"),
    "a drop-in": (
        f"mkdir {ETH0}.d; printf '[Network]\\nAddress=203.0.113.9/24\\n' > {ETH0}.d/more.conf",
        ADDRESSES,
        "203.0.113.9",
    ),
    "no file": (f"rm {ETH0}", DAEMONS["networkd"].about("eth0"), "unmanaged"),
}
BRIDGE = {
    f"{NETWORKD}/05-br0.netdev": "[NetDev]\nName=br0\nKind=bridge\n",
    f"{NETWORKD}/06-br0.network": networkd_file("br0", "Address=192.0.2.20/24"),
    ETH0: networkd_file("eth0", "Bridge=br0"),
}


def test_networkd_has_its_port_as_before_each_change() -> None:
    def work(host: Host) -> dict[str, Seen]:
        return {
            name: rolled_back(host, f"{change}; networkctl reload", about, wanted, plan=True)
            for name, (change, about, wanted) in UNIT.items()
        }

    for name, seen in on_host(work, "networkd").items():
        print(name)
        seen.check("routable configured")
        assert seen.planned == {("bring-up", "eth0", "10-eth0.network (networkd)")}


def test_networkd_takes_its_port_back_from_a_new_bridge() -> None:
    def work(host: Host) -> Seen:
        change = f"{here(BRIDGE)}; networkctl reload"
        return rolled_back(host, change, "ip -br link show master br0", "eth0", after="ip -br link")

    # With duplicate address detection, as on a host: networkd misses a link-local address that is there at once.
    seen: Seen = on_host(work, "networkd", dad=True)
    seen.check("routable configured")
    assert "br0" not in seen.after


def test_networkd_makes_a_bridge_again_that_was_deleted() -> None:
    def work(host: Host) -> Seen:
        change = f"rm {NETWORKD}/0*; {here({ETH0: FILES['networkd'][ETH0]})}; networkctl delete br0; networkctl reload"
        # systemd 252 still wants to put the port into the bridge, and gives up on it.
        over = f"{DAEMONS['networkd'].about('eth0')} | grep -E 'failed|routable'"
        return rolled_back(host, change, over, "eth0", after="ip -br link show master br0")

    seen: Seen = on_host(work, "networkd", BRIDGE)
    seen.check("enslaved configured")
    assert "eth0" in seen.after


@pytest.mark.parametrize("daemon", ["networkd", "NetworkManager"])
def test_nobody_waits_for_a_lease_that_does_not_come(daemon: str) -> None:
    path, text, apply = {
        "networkd": (
            ETH0,
            networkd_file("eth0", "DHCP=yes", "Address=192.0.2.10/24"),
            f"sed -i /DHCP/d {ETH0}; networkctl reload",
        ),
        "NetworkManager": (
            OFFICE,
            keyfile("office", "eth0", 1, "192.0.2.10/24", "auto"),
            f"sed -i s/auto/manual/ {OFFICE}; nmcli connection reload; nmcli connection up office",
        ),
    }[daemon]

    def work(host: Host) -> Seen:
        return rolled_back(host, f"sed -i s/192.0.2.10/192.0.2.99/ {path}; {apply}", ADDRESSES, "192.0.2.99")

    seen: Seen = on_host(work, daemon, {path: text})
    seen.check("eth0" if daemon == "networkd" else "\noffice\n")
    assert seen.done.seconds < LEASE_S


PROFILE = {
    "another address": (
        f"sed -i s/192.0.2.10/192.0.2.98/ {OFFICE}; nmcli connection reload; nmcli connection up office",
        ADDRESSES,
        "192.0.2.98",
    ),
    "no autoconnect": (
        "nmcli connection modify office autoconnect no ipv4.addresses 192.0.2.98/24; nmcli connection up office",
        ADDRESSES,
        "192.0.2.98",
    ),
    "deleted": ("nmcli connection delete office", DEVICES, "eth0:disconnected"),
    "taken down": ("nmcli connection down office", DEVICES, "eth0:disconnected"),
    "another profile": ("nmcli connection up spare", ADDRESSES, "192.0.2.99"),
    "unmanaged at run time": ("nmcli device set eth0 managed no", DEVICES, "eth0:unmanaged"),
}


def test_networkmanager_has_the_old_profile_at_work_after_each_change() -> None:
    def work(host: Host) -> dict[str, Seen]:
        return {name: rolled_back(host, *change, after=PROFILES, plan=True) for name, change in PROFILE.items()}

    for name, seen in on_host(work, "NetworkManager").items():
        print(name)
        seen.check("(connected)\noffice\n")
        assert seen.planned == {("bring-up", "eth0", "office (NetworkManager)")}
        assert {"office:eth0", "lab:eth1", "spare:"} == set(seen.after.split()) - {"lo:lo"}


def test_networkmanager_forgets_new_bridges_its_own_and_foreign_ones() -> None:
    own = (
        "nmcli connection add type bridge ifname br0 con-name br0 ipv4.method manual ipv4.addresses 192.0.2.20/24"
        " ipv6.method link-local bridge.stp no; nmcli connection up br0;"
        " nmcli connection add type ethernet ifname eth0 con-name port master br0; nmcli connection up port"
    )
    foreign = "ip link add br7 type bridge; ip link set br7 up; ip address add 203.0.113.1/24 dev br7"

    def work(host: Host) -> list[Seen]:
        after = f"{PROFILES}; ip -br link"
        return [
            rolled_back(host, own, "ip -br link show master br0", "eth0", after),
            rolled_back(host, foreign, DEVICES, "br7:connected", after),
        ]

    for seen in on_host(work, "NetworkManager"):
        seen.check("(connected)\noffice\n")
        assert not {"br0", "br7", "port"} & set(seen.after.replace(":", " ").split())


def test_networkmanager_manages_a_port_again_that_its_settings_had_taken_away_also_after_a_boot() -> None:
    def work(host: Host) -> tuple[Seen, str]:
        conf = "/etc/NetworkManager/conf.d/99-mine.conf"
        change = f"printf '[keyfile]\\nunmanaged-devices=interface-name:eth0\\n' > {conf}; nmcli general reload conf"
        seen = rolled_back(host, change, DEVICES, "eth0:unmanaged")
        host.reboot()
        host.start()
        return seen, host.settle("eth0")

    seen, booted = on_host(work, "NetworkManager")
    seen.check("(connected)\noffice\n")
    assert "(connected)\noffice\n" in booted


def test_netplan_s_files_and_what_it_made_of_them_are_back() -> None:
    new = "network: {bridges: {br0: {addresses: [203.0.113.1/24]}}}"
    change = (
        f"sed -i s/192.0.2.10/192.0.2.99/ {YAML}; echo '{new}' > /etc/netplan/02.yaml; chmod 600 /etc/netplan/*;"
        " netplan generate; networkctl reload"
    )

    def work(host: Host) -> list[Seen]:
        begins = ("", "--profile netplan")
        return [rolled_back(host, change, ADDRESSES, "192.0.2.99", "ip -br link", each, plan=True) for each in begins]

    whole, alone = on_host(work, "netplan")
    alone.heard.clear()  # netplan writes all of its files again, and networkd takes that for a change of each
    for seen in (whole, alone):
        seen.check("routable configured")
        assert "br0" not in seen.after
    assert ("bring-up", "eth0", "10-netplan-eth0.network (networkd)") in whole.planned
    assert ("bring-up", "", "etc/netplan/01.yaml (netplan)") in alone.planned

"""Debian's ifupdown in a machine: what its reload must clear away that `ifdown` leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from laboratory import Server, in_sandbox
from missing import lacking

from sim import stacks
from sim.scenario import FileText
from sim.steps import write_file

PLAIN: dict[str, Any] = {"ethernets": {"eth0": {"addresses": ["192.0.2.10/24"]}, "eth1": {}}}
OTHER: dict[str, Any] = {"ethernets": {"eth0": {"addresses": ["192.0.2.99/24"]}, "eth1": {}}}
INTERFACES = "/etc/network/interfaces"


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    why = stacks.get("ifupdown").missing()
    if why:
        lacking(why)
    yield


def back_to_plain(*commands: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The kernel state of a fresh boot, and after the commands, another configuration and the way back."""

    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        server = Server("ifupdown", PLAIN)
        fresh = server.state()
        for command in commands:
            server.run(command)
        server.configure(OTHER)
        server.configure(PLAIN)
        return fresh, server.becomes(fresh)

    fresh, back = in_sandbox(work)
    return fresh, back


def test_what_was_added_by_hand_to_a_device_is_gone() -> None:
    fresh, back = back_to_plain(
        "ip address add 203.0.113.7/24 dev eth0",
        "ip route add 198.51.100.0/24 via 203.0.113.1 table 77",
        "ip link set dev eth0 mtu 1300 address 02:00:00:00:00:bb",
        "ip link set dev eth1 promisc off; ip address add 2001:db8::7/64 dev eth1",
        "sysctl -q -w net/ipv6/conf/eth0/disable_ipv6=1",
    )
    assert back == fresh


def test_an_interface_that_came_up_half_is_taken_down_wholly() -> None:
    """A failing `up` line leaves the address in the kernel, and ifup counts the interface as down."""

    def work() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        server = Server("ifupdown", PLAIN)
        fresh = server.state()
        lines = ["auto br7", "iface br7 inet static", "address 198.51.100.7/24", "pre-up ip link add br7 type bridge",
                 "up ip rule add from 198.51.100.7 table 7", "up false",
                 "down ip rule del from 198.51.100.7 table 7"]  # fmt: skip
        write_file(server.machine, f"{INTERFACES}.d/half", FileText("\n".join(lines).encode() + b"\n"))
        server.run(server.stack.reload)
        half = server.state()
        server.run(f"rm {INTERFACES}.d/half")
        server.run(server.stack.reload)
        return fresh, half, server.becomes(fresh)

    fresh, half, back = in_sandbox(work)
    assert "198.51.100.7" in str(half["addresses"]["br7"])
    assert any("lookup 7" in rule for rule in half["rules"]["v4"])
    assert back == fresh


def test_a_file_that_makes_no_sense_stops_the_boot_of_interfaces_and_the_next_reload_heals() -> None:
    """ifup refuses a file with a mistake as a whole: that is how hosts get lost."""

    def work() -> tuple[dict[str, Any], dict[str, Any], int, dict[str, Any]]:
        server = Server("ifupdown", PLAIN)
        fresh = server.state()
        write_file(server.machine, INTERFACES, FileText(b"auto eth0\niface eth0 inet sttaic\n"))
        server.reboot()
        lost, status = server.state(), server.phase("network")["status"]
        server.configure(PLAIN)
        return fresh, lost, status, server.becomes(fresh)

    fresh, lost, status, back = in_sandbox(work)
    assert status != 0
    assert "v4" not in lost["addresses"].get("eth0", {})
    assert back == fresh


def test_shutdown_takes_down_what_was_applied_even_if_the_files_are_gone() -> None:
    def work() -> str:
        server = Server("ifupdown", PLAIN)
        write_file(server.machine, INTERFACES, FileText(b""))
        server.run(server.stack.stop)
        return server.run("ip -br address show dev eth0")

    state = in_sandbox(work).split()
    assert state[1] == "DOWN"
    assert state[2:] == []

"""snapcore on a running machine, on both stacks: what comes back, what is left alone, what is said to be missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from laboratory import Server, in_sandbox
from missing import lacking

from sim import stacks
from sim.mechanisms import snapcore
from sim.steps import write_file
from sim.world.machine import Completed

pytestmark = pytest.mark.world
CONFIG: dict[str, Any] = {
    "ethernets": {
        "eth0": {
            "addresses": ["192.0.2.10/24", "2001:db8:1::10/64"],
            "routes": [{"to": "default", "via": "192.0.2.1"}],
        },
        "eth1": {"addresses": ["198.51.100.10/24", "2001:db8:2::10/64"]},
    }
}
FILES = {
    "ifcfg": "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "ifupdown": "/etc/network/interfaces",
}
COMMAND_S = 60.0


@pytest.fixture(params=["ifcfg", "ifupdown"])
def stack(request: pytest.FixtureRequest) -> Iterator[str]:
    name = str(request.param)
    why = stacks.get(name).missing() or snapcore.mechanism().missing
    if why:
        lacking(why)
    yield name


class Host(Server):
    """The machine with snapcore on it, its kernel settled."""

    def __init__(self, stack: str) -> None:
        super().__init__(stack, CONFIG)
        for path, file in snapcore.mechanism().install.items():
            write_file(self.machine, path, file)
        self.fresh = self.state()

    def change(self, config: dict[str, Any]) -> None:
        self.configure(config)

    def is_back(self) -> bool:
        return self.becomes(self.fresh) == self.fresh

    def touched(self, device: str) -> list[str]:
        """What changes when somebody takes the device down, or makes it again."""
        names = ("ifindex", "carrier_changes", "carrier_up_count", "carrier_down_count")
        return self.sh("cat " + " ".join(f"/sys/class/net/{device}/{name}" for name in names)).split()


def on_host(work: Callable[[Host], Any], stack: str) -> Any:
    return in_sandbox(lambda: work(Host(stack)))


def test_the_port_of_a_new_bridge_is_free_again_and_has_its_addresses(stack: str) -> None:
    def work(host: Host) -> tuple[bool, str, str]:
        host.sh("snapcore begin")
        host.change({"ethernets": {"eth1": CONFIG["ethernets"]["eth1"]}, "bridges": {"br0": {"interfaces": ["eth0"]}}})
        broken = host.sh("ip -br link show master br0")
        host.sh("snapcore rollback")
        return host.is_back(), broken, host.sh("ip -br link")

    back, broken, links = on_host(work, stack)
    assert "eth0" in broken
    assert back, links
    assert "br0" not in links


def test_new_devices_go_with_what_stands_on_them(stack: str) -> None:
    def work(host: Host) -> bool:
        host.sh("snapcore begin")
        host.sh(
            "ip link add v0 type veth peer name v1; ip link add br7 type bridge; ip link set v0 master br7 up;"
            " ip link set v1 up; ip link set br7 up; ip link add link br7 name br7.5 type vlan id 5;"
            " ip link set br7.5 up; ip address add 203.0.113.1/24 dev br7.5;"
            " ip route add 203.0.114.0/24 via 203.0.113.9 table 77; ip rule add iif br7.5 lookup 77"
        )
        host.sh("snapcore rollback")
        return host.is_back()

    assert on_host(work, stack)


def test_new_devices_stay_where_that_is_asked_for(stack: str) -> None:
    def work(host: Host) -> str:
        host.sh("snapcore begin --new-devices keep")
        host.sh("ip link add br7 type bridge; ip link set eth1 mtu 1400")
        host.sh("snapcore rollback")
        return host.sh("ip -br link show br7; cat /sys/class/net/eth1/mtu")

    assert on_host(work, stack).split()[0] == "br7"


def test_a_device_that_vanished_is_named_and_the_rest_comes_back(stack: str) -> None:
    def work(host: Host) -> tuple[Completed, str, int]:
        host.sh("snapcore begin")
        host.sh("ip address flush dev eth0; ip link delete eth1")
        done = host.do("snapcore rollback")
        return done, host.sh("ip -br address show dev eth0; ip route"), host.do("snapcore status").status

    done, eth0, status = on_host(work, stack)
    assert done.status == 11
    assert "eth1: is gone" in done.output
    assert "192.0.2.10/24" in eth0 and "2001:db8:1::10/64" in eth0 and "default via 192.0.2.1" in eth0
    assert status == 0  # still open


def test_a_step_that_fails_is_reported_the_rest_is_done_and_a_retry_succeeds(stack: str) -> None:
    def work(host: Host) -> tuple[Completed, str, Completed, bool]:
        host.sh("snapcore begin")
        setting = "/proc/sys/net/ipv4/conf/eth1/rp_filter"
        host.sh(f"echo $((1 - $(cat {setting}))) > {setting}; ip address flush dev eth0; ip link set eth0 mtu 1300")
        host.sh(f"mount -o bind {setting} {setting}; mount -o remount,bind,ro {setting}")
        failed = host.do("snapcore rollback")
        seen = host.sh("ip -br address show dev eth0; cat /sys/class/net/eth0/mtu")
        host.sh(f"umount {setting}")
        return failed, seen, host.do("snapcore rollback"), host.is_back()

    failed, seen, again, back = on_host(work, stack)
    assert failed.status == 11
    assert "net/ipv4/conf/eth1/rp_filter" in failed.output
    assert "192.0.2.10/24" in seen and "1500" in seen
    assert again.status == 0, again.output
    assert back


def test_a_stack_that_fails_is_told_and_netlink_brings_the_interface_back(stack: str) -> None:
    def work(host: Host) -> tuple[Completed, bool]:
        host.sh("snapcore begin")
        host.sh(f"sed -i s/192.0.2.10/192.0.2.99/ {FILES[stack]}; ifdown eth0; ifup eth0")
        host.sh("for p in ifup ifdown; do echo '#!/bin/sh' > /usr/sbin/$p; echo 'echo broken; exit 7' >> /usr/sbin/$p;"
                " chmod +x /usr/sbin/$p; done")  # fmt: skip
        return host.do("snapcore rollback"), host.is_back()

    done, back = on_host(work, stack)
    assert done.status == 0, done.output
    assert "exit status 7: broken" in done.output
    assert back


@pytest.mark.parametrize("strategy", ["minimal", "netlink"])
def test_a_link_that_did_not_change_is_not_touched(stack: str, strategy: str) -> None:
    def work(host: Host) -> tuple[list[str], list[str], str, bool]:
        host.sh("snapcore begin")
        host.sh(f"sed -i s/192.0.2.10/192.0.2.99/ {FILES[stack]}; ifdown eth0; ifup eth0; ip route del default")
        before = host.touched("eth1")
        host.sh("ip monitor link address dev eth1 > /tmp/heard 2>&1 & echo $! > /tmp/monitor")
        host.sh(f"snapcore rollback --strategy {strategy}")
        host.sh("kill $(cat /tmp/monitor)")
        return before, host.touched("eth1"), host.sh("cat /tmp/heard"), host.is_back()

    before, after, heard, back = on_host(work, stack)
    assert back
    assert after == before
    assert heard == ""


@pytest.mark.parametrize("strategy", ["minimal", "bounce-all", "netlink"])
def test_each_strategy_ends_where_begin_was(stack: str, strategy: str) -> None:
    def work(host: Host) -> tuple[bool, str]:
        host.sh(f"snapcore begin --strategy {strategy}")
        host.change({"ethernets": {"eth0": {"addresses": ["203.0.113.10/24"], "mtu": 1400}, "eth1": {"mtu": 1300}}})
        host.sh("ip rule add from 203.0.113.10 lookup 5; ip route add blackhole 10.9.0.0/16")
        host.sh("snapcore rollback")
        host.becomes(host.fresh)
        return host.is_back(), host.sh("ip address; ip route; ip rule")

    back, seen = on_host(work, stack)
    assert back, seen


def test_a_rollback_that_is_killed_half_way_is_finished_by_the_next_one(stack: str) -> None:
    def work(host: Host) -> tuple[int, str, bool, str]:
        host.sh("snapcore begin")
        host.sh(f"sed -i s/192.0.2.10/192.0.2.99/ {FILES[stack]}; ifdown eth0; ifup eth0")
        host.sh("p=$(readlink -f $(command -v ifup)); cp $p $p.real; printf '#!/bin/sh\\nkill -9 $PPID\\n' > $p.new;"
                " chmod +x $p.new; mv $p.new $p")  # fmt: skip
        killed = host.do("snapcore rollback").status
        between = host.sh("ip -br address show dev eth0; snapcore status")
        host.sh("p=$(readlink -f $(command -v ifup)); mv $p.real $p")
        host.sh("snapcore rollback")
        return killed, between, host.is_back(), host.sh("ifdown eth0 2>&1; ip -br address show dev eth0")

    killed, between, back, down = on_host(work, stack)
    assert killed != 0
    assert "192.0.2.10" not in between and "rolling-back" in between
    assert back
    assert "192.0.2.10" not in down  # the stack knows that it is up: it can take it down


def test_after_a_reboot_only_the_files_are_given_back(stack: str) -> None:
    def work(host: Host) -> tuple[Completed, str, str]:
        host.sh("snapcore begin")
        old = host.sh(f"cat {FILES[stack]}")
        host.sh(f"sed -i s/192.0.2.10/192.0.2.99/ {FILES[stack]}")
        host.reboot()
        return host.do("snapcore rollback"), old, host.sh(f"cat {FILES[stack]}; ip -br address show dev eth0")

    done, old, now = on_host(work, stack)
    assert done.status == 0
    assert "another boot" in done.output
    assert now.startswith(old) and "192.0.2.99" in now


def test_only_some_interfaces(stack: str) -> None:
    def work(host: Host) -> tuple[str, str]:
        host.sh("snapcore begin --only eth1")
        host.sh("ip link set eth0 mtu 1400; ip link set eth1 mtu 1300")
        said = host.sh("snapcore diff; [ $? = 1 ]")
        host.sh("snapcore rollback")
        return said, host.sh("cat /sys/class/net/eth[01]/mtu")

    said, mtus = on_host(work, stack)
    assert said.splitlines() == ["eth1: MTU 1300, was 1500"]
    assert mtus.split() == ["1400", "1500"]


def test_plan_says_what_the_rollback_will_do(stack: str) -> None:
    def work(host: Host) -> list[dict[str, Any]]:
        host.sh("snapcore begin")
        host.sh(f"sed -i s/192.0.2.10/192.0.2.99/ {FILES[stack]}; ifdown eth0; ifup eth0")
        steps: list[dict[str, Any]] = json.loads(host.sh("snapcore plan --json"))["steps"]
        return steps

    steps = on_host(work, stack)
    assert [step["action"] for step in steps][:3] == ["take-down", "restore", "bring-up"]
    assert {step["interface"] for step in steps} <= {"eth0", ""}
    assert any(step["action"] == "repair" and "192.0.2.10/24" in step["words"] for step in steps)


def test_a_loaded_snapshot_is_what_runs(stack: str) -> None:
    def work(host: Host) -> tuple[str, bool]:
        host.sh("snapcore save good")
        host.sh(f"sed -i s/192.0.2.10/192.0.2.99/ {FILES[stack]}; ifdown eth0; ifup eth0")
        changed = host.sh("ip -br address show dev eth0")
        host.sh("snapcore load good")
        return changed, host.is_back()

    changed, back = on_host(work, stack)
    assert "192.0.2.99" in changed
    assert back

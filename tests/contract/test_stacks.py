"""What every stack must do: the same tests for all of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from laboratory import Server, in_sandbox
from missing import lacking

from sim import stacks
from sim.expect import kernel_differences

PLAIN: dict[str, Any] = {
    "ethernets": {
        "eth0": {
            "addresses": ["192.0.2.10/24", "2001:db8:1::10/64"],
            "routes": [{"to": "default", "via": "192.0.2.1"}, {"to": "::/0", "via": "2001:db8:1::1"}],
        },
        "eth1": {"addresses": ["198.51.100.10/24"]},
    }
}


def changed(**patches: Mapping[str, Any] | None) -> dict[str, Any]:
    """PLAIN with a device's settings replaced (None: the device is gone); sections are found by the name."""
    config = copy.deepcopy(PLAIN)
    for name, settings in patches.items():
        section = "bridges" if name.startswith("br") else "ethernets"
        config.setdefault(section, {}).pop(name, None)
        if settings is not None:
            config[section][name] = dict(settings)
    return config


CHANGES: dict[str, dict[str, Any]] = {
    "another address": changed(eth0={"addresses": ["192.0.2.100/24"]}),
    "several addresses": changed(eth1={"addresses": ["198.51.100.10/24", "203.0.113.10/24", "2001:db8:2::10/64"]}),
    "MTU and MAC": changed(eth1={"addresses": ["198.51.100.10/24"], "mtu": 1400, "macaddress": "02:00:00:00:00:aa"}),
    "a small MTU": changed(eth0={"addresses": ["192.0.2.10/24"], "mtu": 1200}),
    "routes and policies": changed(
        eth0={
            "addresses": ["192.0.2.10/24"],
            "routes": [
                {"to": "default", "via": "192.0.2.1", "metric": 50},
                {"to": "default", "via": "192.0.2.2", "table": 200},
                {"to": "203.0.113.0/24", "via": "192.0.2.3"},
                {"to": "10.0.0.0/8", "type": "blackhole"},
            ],
            "routing-policy": [{"from": "192.0.2.0/24", "table": 200, "priority": 100}],
        }
    ),
    "a bridge": changed(
        eth1=None, br0={"interfaces": ["eth1"], "addresses": ["198.51.100.10/24"], "parameters": {"stp": False}}
    ),
    "no IPv6": changed(eth1={"addresses": ["198.51.100.10/24"], "link-local": []}),
    "no advertisements": changed(eth1={"addresses": ["198.51.100.10/24"], "accept-ra": False}),
    "advertisements": changed(eth1={"addresses": ["198.51.100.10/24"], "accept-ra": True}),
    "an interface without a configuration": changed(eth1=None),
}


@pytest.fixture(params=stacks.names())
def stack(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each stack that can run here; with CI=true a stack that cannot is a failure."""
    name = str(request.param)
    why = stacks.get(name).missing()
    if why:
        lacking(f"stack {name}: {why}")
    yield name


def words(kernel: Mapping[str, Any], device: str, family: str) -> list[str]:
    return [text.split()[0] for text in kernel["addresses"].get(device, {}).get(family, [])]


def has_route(kernel: Mapping[str, Any], table: str, start: str) -> bool:
    return any(f"{route} ".startswith(f"{start} ") for route in kernel["routes"].get(table, []))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In words; all that they do not say of the two states is said as well."""
    return kernel_differences({"kernel": old}, {"kernel": new}) or ([] if old == new else ["something else"])


def test_a_boot_makes_the_kernel_what_the_configuration_says(stack: str) -> None:
    kernel = in_sandbox(lambda: Server(stack, PLAIN).state())
    assert words(kernel, "eth0", "v4") == ["192.0.2.10/24"]
    assert "2001:db8:1::10/64" in words(kernel, "eth0", "v6")
    assert words(kernel, "eth1", "v4") == ["198.51.100.10/24"]
    assert has_route(kernel, "v4 main", "default via 192.0.2.1 dev eth0")
    assert has_route(kernel, "v6 main", "default via 2001:db8:1::1 dev eth0")
    assert all(kernel["links"][name]["up"] and kernel["links"][name]["mtu"] == 1500 for name in ("eth0", "eth1"))


def all_is_so(seen: Mapping[str, Any]) -> None:
    """`seen`: for each of CHANGES, the kernel state of a machine that booted with it."""
    assert words(seen["another address"], "eth0", "v4") == ["192.0.2.100/24"]
    assert words(seen["several addresses"], "eth1", "v4") == ["198.51.100.10/24", "203.0.113.10/24"]
    assert "2001:db8:2::10/64" in words(seen["several addresses"], "eth1", "v6")
    link = seen["MTU and MAC"]["links"]["eth1"]
    assert (link["mtu"], link["mac"]) == (1400, "02:00:00:00:00:aa")
    assert seen["a small MTU"]["links"]["eth0"]["mtu"] == 1200
    routed = seen["routes and policies"]
    assert has_route(routed, "v4 200", "default via 192.0.2.2 dev eth0")
    assert has_route(routed, "v4 main", "203.0.113.0/24 via 192.0.2.3 dev eth0")
    assert has_route(routed, "v4 main", "blackhole 10.0.0.0/8")
    assert any("default via 192.0.2.1" in r and "metric 50" in r for r in routed["routes"]["v4 main"])
    assert "100: from 192.0.2.0/24 lookup 200" in routed["rules"]["v4"]
    bridged = seen["a bridge"]
    assert (bridged["links"]["br0"]["kind"], bridged["links"]["eth1"]["master"]) == ("bridge", "br0")
    assert words(bridged, "br0", "v4") == ["198.51.100.10/24"]
    assert words(bridged, "eth1", "v4") == []
    assert words(seen["no IPv6"], "eth1", "v6") == []
    assert seen["no advertisements"]["sysctls"]["net.ipv6.conf.eth1.accept_ra"] == "0"
    assert seen["advertisements"]["sysctls"]["net.ipv6.conf.eth1.accept_ra"] in ("1", "2")
    assert words(seen["an interface without a configuration"], "eth1", "v4") == []


def test_a_reload_does_what_a_boot_does_and_back_is_a_fresh_boot(stack: str) -> None:
    """A rollback that ends with a reload is right only if nothing of the change survives the reload."""

    def change_and_back() -> dict[str, Any]:
        server = Server(stack, PLAIN)
        fresh, found = server.state(), {}
        for name, config in CHANGES.items():
            booted = Server(stack, config).state()
            output = server.configure(config)
            there = server.becomes(booted)
            output += server.configure(PLAIN)
            found[name] = (booted, there, server.becomes(fresh), output)
        return {"fresh": fresh, "found": found}

    said = in_sandbox(change_and_back)
    all_is_so({name: booted for name, (booted, *_) in said["found"].items()})
    for name, (booted, there, back, output) in said["found"].items():
        assert differences(booted, there) == [], f"{name}: a reload is not a boot; it said: {output}"
        assert differences(said["fresh"], back) == [], f"{name}: the way back leaves something; it said: {output}"


def test_an_interface_that_left_the_files_is_gone_after_a_reload(stack: str) -> None:
    def remove() -> dict[str, Any]:
        server = Server(stack, CHANGES["a bridge"])
        server.state()
        server.configure(changed(eth1=None))
        return server.state()

    kernel = in_sandbox(remove)
    assert "br0" not in kernel["links"]
    assert kernel["links"]["eth1"]["master"] is None
    assert words(kernel, "eth1", "v4") == []


def test_a_reboot_changes_nothing(stack: str) -> None:
    def reboot() -> list[dict[str, Any]]:
        server = Server(stack, CHANGES["routes and policies"])
        before = server.state()
        server.reboot()
        return [before, server.becomes(before)]

    before, after = in_sandbox(reboot)
    assert before == after


def test_a_boot_ends_when_addresses_are_usable(stack: str) -> None:
    """With duplicate address detection, which takes more than a second, no address is tentative after the boot."""

    def boot() -> list[str]:
        server = Server(stack, PLAIN, dad=True)
        return server.run("ip -6 -o address show scope global tentative").splitlines()

    assert in_sandbox(boot) == []


def test_files_that_a_stack_renders_are_its_configuration(stack: str) -> None:
    """What is rendered lies where the stack reads; only the resolver's file may lie beside it."""
    from sim.observe import is_configuration

    known = stacks.get(stack)
    for config in CHANGES.values():
        for path, text in known.render(config).items():
            assert path == "/etc/resolv.conf" or is_configuration(path, known.patterns, known.ignored), path
            assert text.endswith("\n")

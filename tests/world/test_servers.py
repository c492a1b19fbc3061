"""Real servers in topologies, and names that are asked of the source's own name servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_up import Said
from missing import lacking

from sim import services
from sim.scenario import Machine

TOPOLOGY = """
sim: 1
topology:
  networks: {lan: {}}
  machines:
    server: {ports: {eth0: lan}, stack: STACK, config: {ethernets: {eth0: SERVER}}}
    client: {ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.20/24]}}}}
    router:
      ports: {eth0: lan}
      config: {ethernets: {eth0: {addresses: [192.0.2.1/24, "2001:db8:1::1/64"]}}}
      services:
        dhcp: {range: [192.0.2.100, 192.0.2.100], router: 192.0.2.1, dns: [192.0.2.1], domain: example.org}
        dns: {records: {www.example.org: 192.0.2.80, six.example.org: "2001:db8:1::80"}}
RA
steps:
"""
STATIC = "{addresses: [192.0.2.10/24], accept-ra: false, nameservers: {addresses: [SERVERS]}}"


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    why = list(
        services.missing([Machine("m", {}, services={"dns": {}}, config={"ethernets": {"eth0": {"dhcp4": True}}})])
    )
    if why:
        lacking("; ".join(why))
    yield


def unmet(sim_run: Callable[..., Said], server: str, steps: str, stack: str = "ifcfg", ra: str = "") -> str:
    """What was expected in steps and not seen. (What a step broke stays broken: the verdict is not asked.)"""
    text = TOPOLOGY.replace("SERVER", server).replace("STACK", stack).replace("RA", f"        {ra}") + steps
    said = sim_run(text, "--mechanism", "none")
    assert len(said.results) == 1, said.text
    findings = said.results[0]["findings"]
    bad = [f for f in findings if f["verdict"] in ("fail", "unknown") and f["check"] not in ("flows", "reboot")]
    return said.text if bad else ""


@pytest.mark.parametrize("stack", ["ifcfg", "ifupdown"])
def test_a_machine_gets_its_address_route_and_name_server_by_dhcp(sim_run: Callable[..., Said], stack: str) -> None:
    steps = """
  - run: {on: server, command: "ip -4 -o address show dev eth0; ip route; cat /etc/resolv.conf"}
  - expect: {output: "inet 192.0.2.100/24"}
  - expect: {output: "default via 192.0.2.1 dev eth0"}
  - expect: {output: "nameserver 192.0.2.1"}
  - reboot: server
  - expect: {flows: {client -> server: delivered, server -> router dns=www.example.org: delivered}}
"""
    assert unmet(sim_run, "{dhcp4: true}", steps, stack) == ""


@pytest.mark.parametrize("stack", ["ifcfg", "ifupdown"])
def test_a_machine_makes_its_address_of_an_advertised_prefix(sim_run: Callable[..., Said], stack: str) -> None:
    steps = """
  - expect: {flows: {server -> router v6: delivered}}
  - run: {on: server, command: "ip -6 route show default"}
  - expect: {output: "proto ra"}
"""
    assert unmet(sim_run, "{accept-ra: true}", steps, stack, 'ra: {prefix: "2001:db8:1::/64"}') == ""


@pytest.mark.parametrize(
    "servers, outcome",
    [
        ("192.0.2.1", "delivered"),
        ('"2001:db8:1::1"', "no-address"),  # the question goes where the file says, not to the flow's destination
        ("192.0.2.66", "neighbour-unreachable"),
        ("192.0.2.20", "refused"),  # a machine without a name server
        ("192.0.2.66, 192.0.2.1", "delivered"),
        ("198.51.100.1", "no-route"),
    ],
)
def test_names_are_asked_of_the_sources_own_name_servers(
    sim_run: Callable[..., Said], servers: str, outcome: str
) -> None:
    steps = f"""
  - config: {{on: server, merge: {{ethernets: {{eth0: {{nameservers: {{addresses: [{servers}]}}}}}}}}}}
  - reload: server
  - expect: {{flows: {{server -> router dns=www.example.org: {outcome}}}}}
"""
    assert unmet(sim_run, STATIC.replace("SERVERS", "192.0.2.1"), steps) == ""


@pytest.mark.parametrize(
    "name, change, outcome",
    [
        ("six.example.org", "true", "delivered"),  # an address of either family will do
        ("www.example.org", "rm /etc/resolv.conf", "no-name"),
        ("www.example.org", "echo options edns0 > /etc/resolv.conf", "no-name"),
        ("www.example.org", "ln -sf /run/resolv.conf /etc/; echo nameserver 192.0.2.1 > /run/resolv.conf", "delivered"),
    ],
)
def test_what_the_resolvers_file_says_decides(
    sim_run: Callable[..., Said], name: str, change: str, outcome: str
) -> None:
    steps = f"""
  - run: {{on: server, command: "{change}"}}
  - expect: {{flows: {{server -> router dns={name}: {outcome}}}}}
"""
    assert unmet(sim_run, STATIC.replace("SERVERS", "192.0.2.1"), steps) == ""


def test_a_name_that_the_server_does_not_know_is_no_name(sim_run: Callable[..., Said]) -> None:
    steps = """
  - run: {on: router, command: "sed -i s/www.example.org/gone.example.org/ /run/sim/dnsmasq/conf"}
  - run: {on: router, command: "kill $(pidof dnsmasq); while pidof -q dnsmasq; do :; done"}
  - run: {on: router, command: "dnsmasq --conf-file=/run/sim/dnsmasq/conf"}
  - expect: {flows: {server -> router dns=www.example.org: no-name}}
"""
    assert unmet(sim_run, STATIC.replace("SERVERS", "192.0.2.1"), steps) == ""


def test_servers_stop_with_their_machine_and_start_with_it(sim_run: Callable[..., Said]) -> None:
    steps = """
  - shutdown: router
  - expect: {flows: {server -> router dns=www.example.org: unreachable}}
  - boot: router
  - expect: {flows: {server -> router dns=www.example.org: delivered}}
"""
    assert unmet(sim_run, STATIC.replace("SERVERS", "192.0.2.1"), steps) == ""


def test_a_topology_with_servers_is_shown_as_it_was_written(tmp_path: Path) -> None:
    from made_up import sim

    path = tmp_path / "it.sim.yaml"
    text = TOPOLOGY.replace("SERVER", "{dhcp4: true}").replace("STACK", "ifcfg").replace("RA\n", "")
    path.write_text(text + "  - reload: server\n")
    shown = tmp_path / "shown.sim.yaml"
    shown.write_text(sim("show", str(path)).stdout)
    assert "192.0.2.100" in shown.read_text()
    assert sim("validate", str(shown)).returncode == 0

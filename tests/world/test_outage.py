"""Outages and recoveries by the mechanism itself, for real: probes, held connections, deadlines, lost clients."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import Said

from sim import library

SimRun = Callable[..., Said]
pytestmark = pytest.mark.world

OTHER_PORT = """
sim: 1
name: other-port
topology: two-lans
subject: server
change: {config: {ethernets: {eth0: {addresses: [192.0.2.110/24]}}}}
breaks: [client1 -> server]
keeps: [client2 -> server, client2 -> server tcp/22]
recover: [rollback]
outage: {client2 -> server: "<= 50ms"}
"""


def flows(said: Said) -> dict[str, Any]:
    (result,) = said.results
    found: dict[str, Any] = result["flows"]
    return found


def rows(said: Said, flow: str) -> dict[int | None, dict[str, Any]]:
    """What was lost of a flow in each step, and (None) over all."""
    (result,) = said.results
    return {row["step"]: row for row in result["outages"] if row["flow"] == flow}


def findings(said: Said, check: str) -> list[tuple[str, str]]:
    return [(f["verdict"], f["why"]) for result in said.results for f in result["findings"] if f["check"] == check]


def initscript(folder: Path, **more: str) -> str:
    """A mechanism file made of the example initscript; `more`: keys that replace its own."""
    shipped = library.shipped() / "mechanisms"
    shutil.copy(shipped / "networking-config", folder)
    lines = (shipped / "initscript.yaml").read_text().splitlines()
    kept = [line for line in lines if line.split(":")[0] not in more]
    (folder / "mine.yaml").write_text("\n".join([*kept, *(f"{key}: {value}" for key, value in more.items()), ""]))
    return str(folder / "mine.yaml")


def test_an_interface_that_did_not_change_is_never_out_and_its_connection_lives_on(sim_run: SimRun) -> None:
    said = sim_run(OTHER_PORT, "--mechanism", "initscript")
    assert said.verdicts == ["pass"], said.why()
    kept, broken = flows(said)["client2 -> server"], flows(said)["client1 -> server"]
    assert kept["lost"] == 0 and kept["sent"] > 300
    assert 0 < broken["lost"] < broken["sent"] and broken["outage_ms"] > 100  # the longest; `lost` counts all of them
    assert findings(said, "connection")[0][0] == "pass"


def test_a_mechanism_that_restarts_all_interfaces_misses_the_budget(sim_run: SimRun, tmp_path: Path) -> None:
    restart = '"/etc/init.d/networking-config change-rollback && /etc/init.d/network restart"'
    said = sim_run(OTHER_PORT.replace("<= 50ms", "<= 5ms"), "--mechanism", initscript(tmp_path, rollback=restart))
    ((verdict, why),) = [found for found in findings(said, "outage") if "budget 5 ms" in found[1]]
    assert (said.verdicts, verdict) == (["fail"], "fail"), why
    by_step = rows(said, "client2 -> server")
    assert by_step[len(by_step) - 2]["lost"] > 0, "in the step rollback, before the last expect"
    assert by_step[1]["lost"] == 0, "not in the step begin"


def test_a_cable_that_is_out_for_a_while_is_an_outage_of_that_length_with_its_reason(sim_run: SimRun) -> None:
    said = sim_run("""
sim: 1
name: cable
topology:
  networks: {lan: {}}
  machines:
    server: {ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.10/24, "2001:db8:1::10/64"]}}}}
    client: {ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.20/24, "2001:db8:1::20/64"]}}}}
  flows:
    out: server -> client v4
    six: server -> client v6
    datagrams: server -> client udp/9 v4
    in: client -> server v4
mechanism: initscript
checks: {flaps: false, reason: a cable is pulled out}
steps:
  - begin: server
  - unplug: server:eth0
  - expect: {flows: {out: link-down}, holds-for: 300ms}
  - plug: server:eth0
  - expect: {flows: {out: delivered, in: delivered, six: delivered}}
  - rollback: server
""")
    assert said.verdicts == ["pass"], said.why()
    for name, reason in {
        "out": "link-down",
        "six": "link-down",
        "datagrams": "link-down",
        "in": "neighbour-unreachable",
    }.items():
        seen = flows(said)[name]
        assert seen["outage_ms"] >= 300 and seen["reason"] == reason, (name, seen)


def test_a_connection_whose_address_is_gone_is_found_broken(sim_run: SimRun) -> None:
    said = sim_run("""
sim: 1
name: cut
topology: one-lan
keeps: [client -> server tcp/22]
checks: {kernel: false, flows: false, reboot: false, reason: the address is taken away for good}
steps:
  - run: {on: server, command: ip address del 192.0.2.10/24 dev eth0}
  - expect: {flows: {client -> server: unreachable}}
""")
    assert said.verdicts == ["fail"], said.why()
    assert findings(said, "connection")[0][0] == "fail"


# -- recoveries by the mechanism itself ----------------------------------------------------------------------------

GUARDD = """#!/bin/sh
# guardd SECONDS [PROCESS]: rolls back after so many seconds, when the process is gone, or when told to quit
undo() { trap '' TERM; /etc/init.d/networking-config change-rollback; exit 0; }
trap undo TERM
(timeout "$1" tail -f /dev/null; kill "$$") &
[ -z "$2" ] || (tail --pid="$2" -f /dev/null; kill "$$") &
while :; do wait; done
"""
GUARD = """#!/bin/sh
# guard begin SECONDS | try SECONDS COMMAND | probe HOST COMMAND
script=/etc/init.d/networking-config
watch() { setsid /usr/sbin/guardd "$@" < /dev/null > /dev/null 2>&1 & }
$script change-begin || exit
case $1 in
begin) watch "$2" ;;
try) watch "$2" $$; "$3"; tail -f /dev/null ;;
probe) "$3"; ping -q -c 2 -W 1 "$2" > /dev/null && exit 0; $script change-rollback; exit 10 ;;
esac
"""
OFFERS = """
mechanism: 1
name: guard
install:
  - {from: networking-config, to: /etc/init.d/networking-config, mode: "0755"}
  - {from: guard, to: /usr/sbin/guard, mode: "0755"}
  - {from: guardd, to: /usr/sbin/guardd, mode: "0755"}
begin: /etc/init.d/networking-config change-begin
commit: /etc/init.d/networking-config change-commit
rollback: /etc/init.d/networking-config change-rollback
boot: /etc/init.d/networking-config start
status: /etc/init.d/networking-config status
state: [/var/lib/networking-config]
stack: ifcfg
offers: [timeout, probe, client-loss, quit]
timeout: guard begin {seconds}
probe: "guard probe {probe} {command}"
client-loss: "guard try {seconds} {command}"
quit: guard begin {seconds}
watcher: guardd 60
"""
NO_WAY = """
sim: 1
name: no-way
topology: one-lan
subject: server
change: {config: {ethernets: {eth0: {addresses: [198.51.100.10/24]}}}}
breaks: [client -> server, server -> client]
recover: [timeout, probe, client-loss, quit]
"""


def guard(folder: Path, guardd: str = GUARDD, program: str = GUARD) -> str:
    """A mechanism file around the example initscript, with a watcher."""
    shutil.copy(library.shipped() / "mechanisms" / "networking-config", folder)
    for name, text in (("guard", program), ("guardd", guardd), ("guard.yaml", OFFERS)):
        (folder / name).write_text(text)
    return str(folder / "guard.yaml")


def test_a_mechanism_that_undoes_the_change_by_itself_passes_each_way(sim_run: SimRun, tmp_path: Path) -> None:
    said = sim_run(NO_WAY, "--mechanism", guard(tmp_path))
    assert [result["params"]["recover"] for result in said.results] == ["timeout", "probe", "client-loss", "quit"]
    assert said.verdicts == ["pass"] * 4, said.why()
    assert all("undone after" in why for _, why in findings(said, "await"))


def test_a_mechanism_that_only_says_so_fails_each_way(sim_run: SimRun, tmp_path: Path) -> None:
    deaf = "#!/bin/sh\ntrap '' TERM\ntail -f /dev/null\n"
    idle = GUARD.replace("exit 0; $script change-rollback; exit 10", "exit 0; exit 10")
    said = sim_run(NO_WAY, "--mechanism", guard(tmp_path, deaf, idle))
    assert said.verdicts == ["fail"] * 4, said.why()
    assert {verdict for verdict, _ in findings(said, "await")} == {"fail"}
    assert said.why().count("not undone in time") == 4


def test_a_mechanism_that_keeps_what_its_probe_condemned_fails(sim_run: SimRun, tmp_path: Path) -> None:
    kept = GUARD.replace("exit 10", "exit 0")
    said = sim_run(NO_WAY, "--mechanism", guard(tmp_path, GUARDD, kept), "--recover", "probe")
    assert said.verdicts == ["fail"]
    assert "expected its command to say that nothing was kept; seen exit status 0" in said.why()

"""Outages: what a record of probes says, how budgets are judged, and what may be written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import CLIENT, INTERNET, good, plan

from sim.check import Finding, Result, judge
from sim.errors import BadInput
from sim.events import ConnectionRead, Event, OutageRead, PoweredOff, StepStarted, from_line, to_line
from sim.load import load_scenario
from sim.outage import Record, Window, lateness, measured, read
from sim.plan import expand
from sim.probe import Target
from sim.report import json_
from sim.scenario import Flow
from sim.show import show

TIMES = [i / 1000 for i in range(100)]
"""A probe each millisecond."""


def record(lost: range, **told: str) -> Record:
    """A hundred probes; those in `lost` did not come back, and of some something was heard (`p12="refused"`)."""
    came = bytearray(0 if i in lost else 1 for i in range(100))
    return Record(came, {int(name[1:]): reason for name, reason in told.items()})


# -- a record of probes --------------------------------------------------------------------------------------------


def test_an_outage_lasts_from_the_first_lost_probe_to_the_next_that_came_back() -> None:
    assert read(record(range(20, 32)), TIMES, Window(None, 0.0, 0.1)) == (100, 12, 12.0, "timeout")


def test_the_longest_of_several_outages_counts() -> None:
    several = record(range(20, 22))
    several.came[50:57] = bytes(7)
    assert read(several, TIMES, Window(None, 0.0, 0.1)) == (100, 9, 7.0, "timeout")


def test_an_outage_that_outlasts_a_step_is_shared_out() -> None:
    long = record(range(20, 80))
    assert read(long, TIMES, Window(0, 0.0, 0.05))[:3] == (50, 30, 30.0)
    assert read(long, TIMES, Window(1, 0.05, 0.1))[:3] == (50, 30, 30.0)
    assert read(long, TIMES, Window(2, 0.0305, 0.0405))[2] == 10.0
    assert read(long, TIMES, Window(None, 0.0, 0.1))[2] == 60.0


def test_an_outage_without_an_end_lasts_to_the_end() -> None:
    assert read(record(range(90, 100)), TIMES, Window(None, 0.0, 0.2)) == (100, 10, 110.0, "timeout")


def test_what_was_told_of_some_lost_probes_is_the_reason_of_all() -> None:
    told = record(range(20, 60), p5="refused", p20="no-route", p58="link-down", p59="link-down")
    assert read(told, TIMES, Window(None, 0.0, 0.1))[3] == "link-down"
    assert read(record(range(0)), TIMES, Window(None, 0.0, 0.1)) == (100, 0, 0.0, "")


def test_pauses_of_the_probes_themselves_are_told_from_five_milliseconds_on() -> None:
    window = Window(None, 0.0, 0.1)
    assert lateness(TIMES, window) == 0.0
    assert lateness([*TIMES[:40], *TIMES[60:]], window) == 21.0
    assert lateness(TIMES[:40], window) == 61.0, "at its end"
    assert lateness([], window) == 100.0


def test_a_tcp_flow_is_measured_by_icmp_and_its_connection_held_where_it_must_not_break() -> None:
    ports = {"a": {"eth0": "lan", "eth1": "far"}, "b": {"eth0": "lan"}}
    tcp = Target("t", Flow("a", "b", "tcp", 22, size=9), "v4", "192.0.2.1")
    found = measured(tcp, ports, held=True)
    assert found is not None
    assert (found.by, found.port, found.size, found.held) == ("icmp", 0, None, 22)
    assert (found.near, found.far) == (("eth0",), ("eth0",)), "only ports on a network of both count"
    udp = measured(Target("u", Flow("a", "b", "udp", 9), "v4", "192.0.2.1"), ports)
    assert udp is not None and (udp.by, udp.port, udp.held) == ("udp", 9, 0)
    assert measured(Target("d", Flow("a", "b", "dns", asked="x"), "v4", "192.0.2.1"), ports) is None


# -- budgets -------------------------------------------------------------------------------------------------------


def outage(lost: int, ms: float, late: float = 0.0, sent: int = 1004, step: int | None = None) -> OutageRead:
    """What was seen of `server -> client`."""
    reason = "neighbour-unreachable" if lost else ""
    return OutageRead(9.9, step, CLIENT.text, CLIENT.text, "v4", sent, lost, ms, reason, late)


def judged(*events: Event, limit: float | None = 50.0, before: int = -1) -> Result:
    """A good run with these events in it, and a budget."""
    journal = good()
    journal[before:before] = events
    return judge(plan(outage={} if limit is None else {CLIENT: limit}), journal)


def findings(result: Result, check: str = "outage") -> list[Finding]:
    return [finding for finding in result.findings if finding.check == check]


def test_a_budget_that_is_kept_passes_and_says_what_was_lost() -> None:
    result = judged(outage(12, 11.9, step=5), outage(12, 11.9))
    (found,) = findings(result)
    words = "server -> client: lost 12 of 1,004, 11.9 ms, neighbour-unreachable; budget 50 ms"
    assert (result.verdict, found.verdict, found.why) == ("pass", "pass", words)
    assert found.detail == ("step 6, rollback: lost 12 of 1,004, 11.9 ms, neighbour-unreachable",)
    assert result.summary.endswith("; server -> client lost 12 of 1,004, 11.9 ms, neighbour-unreachable")


def test_a_budget_that_is_missed_fails() -> None:
    result = judged(outage(80, 79.5))
    assert (result.verdict, findings(result)[0].verdict) == ("fail", "fail")
    assert "79.5 ms" in result.summary


@pytest.mark.parametrize(
    ("ms", "late", "verdict"),
    [
        (79.5, 20.0, "fail"),
        (79.5, 30.0, "unknown"),  # missed by less than the probes were late
        (45.0, 3.0, "pass"),
        (45.0, 10.0, "unknown"),  # it may have been longer
        (0.0, 60.0, "unknown"),
    ],
)
def test_where_the_probes_were_late_only_what_is_beyond_doubt_is_judged(ms: float, late: float, verdict: str) -> None:
    (found,) = findings(judged(outage(int(ms), ms, late)))
    assert (found.verdict, f"up to {late:g} ms late" in found.why) == (verdict, True)


def test_a_budget_of_which_nothing_was_measured_is_unknown() -> None:
    for events in ((), (outage(0, 0.0, sent=0),)):
        (found,) = findings(judged(*events))
        assert (found.verdict, found.why) == ("unknown", "server -> client: nothing was sent: not measured")


def test_a_reboot_by_the_scenario_is_no_outage_that_a_mechanism_is_blamed_for() -> None:
    down = PoweredOff(9.8, "server", 1, "reboot", 5.0)
    (found,) = findings(judged(StepStarted(0.1, 0, "begin", "server"), down, outage(500, 499.0)))
    assert (found.verdict, "took server down itself" in found.why) == ("skip", True)


def test_a_flow_without_a_budget_is_told_and_not_judged() -> None:
    result = judged(outage(800, 799.0), limit=None)
    (found,) = findings(result)
    assert (result.verdict, found.verdict, "no budget" in found.why) == ("pass", "pass", True)


def test_json_has_what_was_measured_of_each_flow() -> None:
    result = judged(outage(12, 11.9, step=5), outage(12, 11.9))
    document = json.loads(json_.render([result]))["results"][0]
    seen = {"sent": 1004, "lost": 12, "outage_ms": 11.9, "reason": "neighbour-unreachable"}
    assert document["flows"][CLIENT.text] == seen
    assert document["flows"][INTERNET.text]["outage_ms"] > 0, "one that was not measured: from its readings"
    assert [row["step"] for row in document["outages"]] == [6, None]


def test_what_stands_in_for_a_flow_does_not_hide_that_the_flow_itself_failed() -> None:
    internet = dataclasses.replace(outage(0, 0.0), flow=INTERNET.text, written=INTERNET.text)
    assert judged(internet, limit=None).flows[INTERNET.text].lost > 0


@pytest.mark.parametrize(
    ("outcome", "verdict"), [("alive", "pass"), ("broken", "fail"), ("ended", "skip"), ("unknown", "skip")]
)
def test_a_held_connection_must_live_on_where_no_boot_lay_between(outcome: Any, verdict: str) -> None:
    result = judged(ConnectionRead(9.9, "ssh", "v4", outcome, "the other end has closed it"), limit=None)
    assert findings(result, "connection")[0].verdict == verdict


def test_outages_and_connections_are_read_back_from_a_journal() -> None:
    for event in (outage(1, 2.5, 3.5, step=2), ConnectionRead(1.0, "ssh", "v4", "alive")):
        assert from_line(to_line(event)) == event


# -- scenario files ------------------------------------------------------------------------------------------------

TEXT = """
sim: 1
topology: one-lan
change: {config: {ethernets: {eth0: {mtu: 1400}}}}
breaks: []
recover: [rollback]
outage: {client -> server: "<= 0.5s", server -> client tcp/22: "<=20 ms"}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "it.sim.yaml").write_text(text)
    return folder / "it.sim.yaml"


def test_budgets_are_read_in_any_unit_and_shown_in_milliseconds(tmp_path: Path) -> None:
    (made,) = expand(load_scenario(str(written(tmp_path, TEXT))))
    assert [(str(flow), limit) for flow, limit in made.outage.items()] == [
        ("client -> server", 500.0), ("server -> client tcp/22", 20.0),
    ]  # fmt: skip
    assert made.listeners == {"client": (("tcp", 22),)}, "somebody must answer there"
    (again,) = expand(load_scenario(str(written(tmp_path, show(made)))))
    assert again.outage == made.outage


@pytest.mark.parametrize("budget", ["50ms", "< 50ms", "<= 50", "<= fast", "5"])
def test_what_is_no_budget_is_a_mistake(tmp_path: Path, budget: str) -> None:
    with pytest.raises(BadInput, match="valid: a budget like '<= 50ms'"):
        load_scenario(str(written(tmp_path, TEXT.replace("<= 0.5s", budget))))

"""What people and programs are told about results."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import junitparser
import pytest
from made_up_runs import good, plan, recovered, state, until_recovery
from rich.console import Console

import sim.check
from sim.check import Result, judge
from sim.events import StepStarted
from sim.report import json_, junit, tap, text
from sim.report.live import LiveView
from sim.report.words import exit_status


@pytest.fixture(autouse=True)
def selective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.check, "_selective", lambda stack: True)


def passed() -> Result:
    return judge(plan(), good())


def failed(output: str = "cannot write\n") -> Result:
    journal = until_recovery().step(5, "rollback", "refused", status=1, output=output).picture("final", state("bad"))
    return judge(plan(recover="crash"), journal.flows("final", internet="no-route").ended().events)


def unknown() -> Result:
    return judge(plan(scenario="address-typo"), recovered().events)


def skipped(scenario: str = "vlan-id") -> Result:
    return judge(plan(scenario=scenario, skip="this kernel has no 8021q"), [])


def not_offered() -> Result:
    return judge(plan(not_offered="site does not offer 'boot'", recover="reboot"), [])


def printed(*results: Result, width: int = 80, terminal: bool = False) -> str:
    out = io.StringIO()
    text.show(Console(file=out, width=width, force_terminal=terminal, highlight=False), results, 3.0)
    return out.getvalue()


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([], 4),
        ([passed()], 0),
        ([passed(), skipped()], 0),
        ([skipped(), not_offered()], 4),
        ([passed(), unknown()], 3),
        ([failed(), unknown(), passed()], 1),
    ],
)
def test_the_exit_status_is_that_of_the_worst_verdict(results: list[Result], status: int) -> None:
    assert exit_status(results) == status


# -- for people -------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_a_run_and_fits_eighty_columns() -> None:
    lines = printed(passed(), failed(), unknown(), skipped()).splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if not line.strip() or "skip:" in line)]
    rows = [line for line in table[2:] if not line.startswith(" ")]
    assert [line.split()[:3] for line in rows] == [
        ["gateway-typo", "rollback", "pass"],
        ["gateway-typo", "crash", "fail"],
        ["address-typo", "rollback", "unknown"],
        ["vlan-id", "rollback", "skip"],
    ]
    assert max(map(len, table)) <= 80


def test_totals_count_every_run_and_name_what_all_share() -> None:
    last = printed(passed(), failed(), skipped()).splitlines()[-1]
    assert last == "3 runs: 1 passed, 1 failed, 1 skipped · 3.0 s · stack ifcfg, mechanism snapcore"


def test_skips_are_named_with_their_reason_and_counted() -> None:
    out = printed(passed(), skipped(), skipped("vlan-gone"), not_offered())
    assert "skip: this kernel has no 8021q (2)\n  vlan-id rollback, vlan-gone rollback" in out
    assert "not-offered: site does not offer 'boot' (1)\n  gateway-typo reboot" in out


def test_a_failure_tells_what_was_expected_and_seen_the_difference_the_output_and_how_to_repeat_it() -> None:
    out = printed(failed())
    assert "FAIL  gateway-typo" in out
    assert "rollback on server (step 6): expected exit status 0; seen 1" in out
    assert "| cannot write" in out
    assert "server -> internet: expected delivered, as before the change; seen no-route" in out
    assert "line 4: 'GATEWAY=bad', was 'GATEWAY=192.0.2.1'" in out
    assert "again: sim run scenarios/routes/gateway-typo.sim.yaml --set stack=ifcfg --mechanism snapcore" in out


def test_a_parameter_that_differs_gets_a_column() -> None:
    other = judge(plan(params=sim.check.Params("networkd", "snapcore", "rollback", "v6")), good())
    header = printed(passed(), other).splitlines()[0]
    assert header.split() == ["scenario", "stack", "family", "verdict", "s", "why"]


def test_what_a_command_prints_cannot_steer_the_terminal() -> None:
    out = printed(failed("\x1b[2J[red]gone\r\x07\udcff\n"), terminal=False)
    assert "| \\x1b[2J[red]gone" in out
    assert "\x1b" not in out and "\x07" not in out


def test_colour_is_for_terminals_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in printed(passed())
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32m" in printed(passed(), terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in printed(passed(), terminal=True)


# -- for programs -----------------------------------------------------------------------------------------------


def test_the_json_has_the_published_keys() -> None:
    document = json.loads(json_.render([passed(), failed(), skipped()]))
    assert document["version"] == 1
    assert document["totals"] == {"pass": 1, "fail": 1, "skip": 1}
    first = document["results"][0]
    assert {"scenario", "file", "params", "verdict", "seconds", "findings", "flows"} <= first.keys()
    assert first["params"]["stack"] == "ifcfg"
    assert first["params"]["mechanism"] == "snapcore"
    assert first["params"]["recover"] == "rollback"
    assert all({"check", "verdict", "why"} <= finding.keys() for finding in first["findings"])
    assert set(first["flows"]["server -> internet"]) == {"sent", "lost", "outage_ms", "reason"}


def test_junit_says_failure_error_and_skipped() -> None:
    suite = next(iter(junitparser.JUnitXml.fromstring(junit.render([passed(), failed(), unknown(), skipped()]))))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 1, 1)
    case = list(suite)[1]
    assert case.name == "gateway-typo [stack=ifcfg mechanism=snapcore recover=crash]"
    assert "again: sim run" in case.result[0].text


def test_junit_is_xml_whatever_a_command_printed() -> None:
    junitparser.JUnitXml.fromstring(junit.render([failed("\x00\x1b[2J\udcff <&]]>\n")]))


def test_tap_counts_unknown_as_not_ok() -> None:
    lines = tap.render([passed(), failed(), unknown(), skipped()]).splitlines()
    assert lines[:2] == ["TAP version 14", "1..4"]
    points = [line for line in lines if line.startswith(("ok", "not ok"))]
    assert [line.split(" - ")[0] for line in points] == ["ok 1", "not ok 2", "not ok 3", "ok 4"]
    assert points[3].endswith("# SKIP this kernel has no 8021q")
    assert "  verdict: unknown" in lines


def test_tap_names_cannot_be_taken_for_directives() -> None:
    assert "ok 1 - a \\# SKIP" in tap.render([judge(plan(scenario="a # SKIP"), good())])


# -- while it runs ----------------------------------------------------------------------------------------------


def live(terminal: bool, *events: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, height=20, force_terminal=terminal, legacy_windows=False, highlight=False)
    with LiveView(console, [plan()]) as view:
        for event in events:
            view._last = 0.0
            view.event(0, event)
            view.tick()
    return out.getvalue()


def test_without_a_terminal_each_finished_run_is_one_plain_line() -> None:
    out = live(False, *good())
    assert out == f"pass    gateway-typo (ifcfg snapcore rollback) {passed().seconds:.1f} s\n"


def test_on_a_terminal_the_running_step_is_shown_and_no_thread_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    threads = threading.active_count()
    out = live(True, StepStarted(0.1, 2, "reload", "server"))
    assert "0/1" in out
    assert "gateway-typo rollback" in out
    assert "step 3/6: reload server" in out
    assert threading.active_count() == threads


def test_on_a_terminal_a_failure_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = live(True, *recovered().picture("final", state("bad")).ended().events)
    assert "gateway-typo rollback:" in out
    assert "1 failed" in out

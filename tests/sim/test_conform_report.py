"""What people and programs are told about what a mechanism guarantees."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import junitparser
import pytest
from made_up_tables import (
    IFCFG,
    LOST,
    SCRIPT,
    TITLE,
    failed,
    good,
    large,
    lost,
    not_offered,
    row,
    skipped,
    table,
    unknown,
    untold,
)
from rich.console import Console

from sim.conform.values import Heard, Table
from sim.load import load_scenario
from sim.report import conform

CONFORMANCE = Path(__file__).parents[2] / "scenarios/conformance"


def printed(made: Table, width: int = 100) -> str:
    out = io.StringIO()
    conform.show(Console(file=out, width=width), made)
    return out.getvalue()


def line_of(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f"{name} "))


# -- the table -------------------------------------------------------------------------------------------------------


def test_each_requirement_has_a_row_with_verdict_trials_bad_ones_and_why() -> None:
    text = printed(table(row("K1"), failed(), row("B4", points=84, tried=12), not_offered()))
    assert line_of(text, "K1")[:4] == ["K1", "pass", "2", "0"]
    assert line_of(text, "K8")[:7] == ["K8", "fail", "10", "3", "3", "of", "10"]
    assert line_of(text, "B4")[:6] == ["B4", "pass", "12", "of", "84", "0"]
    assert line_of(text, "M1")[:4] == ["M1", "not-offered", "netsnap.yaml", "names"]


def test_requirements_are_grouped_by_what_they_are_about_and_sorted_by_number() -> None:
    text = printed(table(row("P1"), row("K10"), row("K9"), row("XY3"), row("B1")))
    firsts = [line.split()[0] for line in text.splitlines()[1:10]]
    assert firsts == ["begin", "B1", "rollback", "K9", "K10", "power", "P1", "more", "XY3"]


def test_what_did_not_pass_has_the_command_that_tries_it_alone_in_one_piece() -> None:
    again = "sim conform " + "/a/rather/long/folder" * 6 + "/netsnap.yaml"
    for line in (f"    {again} --only K8", f"  again: {again} --only K8   (--at 3: that trial alone)"):
        assert line in printed(table(row(), failed(), again=again), 80).splitlines()
    assert "--only K1" not in printed(table(row(), failed(), again=again))


def test_the_table_fits_eighty_columns_and_what_passed_a_line() -> None:
    lines = printed(large(), 80).split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("K4 ") for line in lines) == 1
    assert not [line for line in lines if line.startswith("      ") and "old configuration" in line]


def test_what_was_not_tried_is_named_with_its_reason_and_counted() -> None:
    text = printed(
        table(skipped("P2"), skipped("P1"), row("K4", skipped=("as a user · ifcfg: no ACLs here",)), not_offered())
    )
    assert "skip: no loop devices here (4 cases)\n  P1, P2\n" in text
    assert "skip: no ACLs here (1 case)\n  K4\n" in text
    assert "not-offered: netsnap.yaml names no 'commit' (1)\n  M1\n" in text


def test_the_last_line_counts_requirements_and_trials_and_names_the_seed() -> None:
    made = table(row(), row("K2"), failed(), unknown(), skipped(), seed=42)
    assert printed(made).splitlines()[-1] == (
        "5 requirements: 2 passed, 1 failed, 1 unknown, 1 skipped · 19 trials, sampled by SIM_SEED=42 · 61.2 s"
        " · mechanism netsnap"
    )


def test_nothing_chosen_is_no_traceback() -> None:
    assert "0 requirements: nothing was tried" in printed(table())


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([], 4),
        ([row()], 0),
        ([row(), skipped(), not_offered()], 0),
        ([skipped(), not_offered()], 4),
        ([row(), unknown()], 3),
        ([failed(), unknown(), row()], 1),
    ],
)
def test_the_exit_status_is_that_of_the_worst_requirement(rows: list[Any], status: int) -> None:
    assert conform.exit_status(table(*rows)) == status


# -- the evidence ----------------------------------------------------------------------------------------------------


def test_a_bad_trial_is_told_with_its_call_its_line_its_steps_their_output_and_what_was_wrong() -> None:
    lines = [line.strip() for line in printed(table(failed())).splitlines()]
    at = lines.index("3  interrupted, then a boot · ifcfg · one-lan · SIGKILL before point 3")
    assert lines[at - 3 : at + 11] == [
        f"3 of 10 trials are bad; the first: {LOST}",
        "bad: 3-4, 9 of 10",
        "usually: Saved copies are moved back instead of copied.",
        "3  interrupted, then a boot · ifcfg · one-lan · SIGKILL before point 3",
        f"rollback: rename {IFCFG}",
        "by mv -f /var/lib/netsnap/old/* /etc/…",
        f"{SCRIPT}:41: mv -f $f",
        "1. begin: done -> exit status 0",
        "| saved 3 files",
        "2. change: standard",
        "3. rollback, SIGKILL before point 3",
        "4. boot: done -> exit status 1",
        "| netsnap: mv: cannot stat '/var/lib/netsnap/old/ifcfg-eth0'",
        "5. expect: old",
    ]
    assert lines[at + 11] == LOST


def test_the_same_problems_are_told_once() -> None:
    text = printed(table(failed(trials=(lost(3), lost(4), lost(5)), bad=(3, 4, 5), why="it loses files")))
    assert text.count(LOST) == 1
    assert text.count("as at 3") == 2


def test_a_problem_that_no_step_has_said_is_told_after_them() -> None:
    trial = lost(3, steps=(Heard("begin: done", 0),))
    lines = [line.strip() for line in printed(table(failed(trials=(trial,)))).splitlines()]
    assert lines[lines.index("1. begin: done -> exit status 0") + 1] == LOST


def test_hundreds_of_bad_trials_are_counted_not_printed() -> None:
    trials = tuple(lost(n, f"file {n} is missing") for n in range(1, 401))
    lines = printed(table(failed(trials=trials, bad=tuple(range(1, 401)), points=400, tried=400))).splitlines()
    assert len(lines) < 60
    assert "  bad: 1-400 of 400" in lines
    assert "  … and 397 trials more" in lines


def test_long_output_is_cut_to_its_end() -> None:
    steps = (Heard("rollback: done", 1, "".join(f"line {n}\n" for n in range(100)) + "x" * 9999),)
    text = printed(table(failed(trials=(lost(3, steps=steps),))))
    assert "| … 95 lines before" in text
    assert "line 94" not in text and "line 95" in text
    assert max(map(len, text.splitlines())) < 500


def test_an_unknown_requirement_says_what_the_laboratory_could_not_tell() -> None:
    lines = [line.strip() for line in printed(table(unknown())).splitlines()]
    assert any(line.startswith("UNKNOWN  T4") for line in lines)
    assert "the machine did not boot in 20 s" in lines


def test_the_bad_trials_come_before_those_that_could_not_be_told() -> None:
    text = printed(table(failed(trials=(untold(1), lost(3)))))
    assert text.index("before point 3") < text.index("before point 1")


def test_nothing_that_a_mechanism_says_reaches_the_terminal_raw() -> None:
    evil = "\x1b[2J\udcff"
    trial = lost(3, evil, where=evil, steps=(Heard(evil, 1, evil),))
    made = table(failed(why=evil, title=evil, trials=(trial,)), skipped(why=evil), again=evil, mechanism=evil)
    assert "\x1b[2J" not in printed(made)
    assert "\\x1b[2J\\udcff" in printed(made)


# -- for programs ----------------------------------------------------------------------------------------------------


def test_the_json_has_the_published_keys_and_all_evidence() -> None:
    document = json.loads(conform.render_json(table(row(), failed(), skipped(), seed=7)))
    assert {
        "version": 1,
        "mechanism": "netsnap",
        "verdict": "fail",
        "seed": 7,
        "seconds": 61.25,
    }.items() <= document.items()
    assert document["facts"]["topologies"] == ["one-lan", "dual-stack"]
    assert document["totals"] == {"fail": 1, "pass": 1, "skip": 1}
    found = document["requirements"]
    assert list(found) == ["K1", "K8", "P1"]
    assert found["K8"]["verdict"] == "fail"
    assert (found["K8"]["points"], found["K8"]["bad"]) == (10, [3, 4, 9])
    assert not {"points", "bad"} & found["K1"].keys(), "it enumerates nothing"
    assert found["P1"]["skipped"] == ["no loop devices here"] * 2
    trial = found["K8"]["evidence"][1]
    assert trial["point"]["syscall"] == "rename" and trial["point"]["line"].startswith(SCRIPT)
    assert trial["problems"] == [LOST]
    assert trial["steps"][3] | {"output": ""} == {"what": "boot: done", "status": 1, "output": "", "problems": []}


def test_the_json_is_ascii_whatever_a_file_is_called() -> None:
    assert conform.render_json(table(failed(why="\udcff ä"))).isascii()


def test_junit_says_failure_error_and_skipped() -> None:
    made = table(row(), failed(), unknown(), skipped(), not_offered())
    suite = next(iter(junitparser.JUnitXml.fromstring(conform.render_junit(made))))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (5, 1, 1, 2)
    cases = {case.name.split()[0]: case for case in suite}
    assert cases["K8"].name == f"K8 {TITLE}"
    assert f"      {LOST}" in cases["K8"].result[0].text
    assert cases["K8"].result[0].text.count("again: sim conform netsnap.yaml --only K8") == 1
    assert cases["P1"].result[0].message == "no loop devices here"
    assert cases["M1"].result[0].message == "netsnap.yaml names no 'commit'"


def test_junit_is_xml_whatever_a_command_printed() -> None:
    evil = "\x00\x1b[2J\udcff <&]]>\n"
    trial = lost(3, evil, steps=(Heard(evil, 1, evil),))
    junitparser.JUnitXml.fromstring(conform.render_junit(table(failed(evil, why=evil, title=evil, trials=(trial,)))))


def test_tap_counts_unknown_as_not_ok() -> None:
    lines = conform.render_tap(table(row(), failed(), unknown(), skipped(), not_offered())).splitlines()
    assert lines[:2] == ["TAP version 14", "1..5"]
    points = [line for line in lines if line.startswith(("ok", "not ok"))]
    assert [line.split(" - ")[1].split()[0] for line in points] == ["K1", "K8", "M1", "T4", "P1"]
    assert [line.split(" - ")[0] for line in points] == ["ok 1", "not ok 2", "ok 3", "not ok 4", "ok 5"]
    assert points[4].endswith("# SKIP no loop devices here")
    assert "  verdict: unknown" in lines
    assert '  again: "sim conform netsnap.yaml --only T4"' in lines


# -- meanwhile -------------------------------------------------------------------------------------------------------


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 9.0, 12.0, 17.0, 100.0])
    monkeypatch.setattr(conform.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with conform.Progress(Console(file=out, width=30), "netsnap") as progress:
        progress.counting("1 of 20 verbs recorded")
        progress.counting("2 of 20 verbs recorded")
        progress(0, 200, None)
        progress(1, 200, good())
        progress(20, 200, lost(4))
        progress(50, 200, untold(5))
        progress(100, 200, None)
    assert out.getvalue().splitlines() == [
        "netsnap: 2 of 20 verbs recorded · 6 s",
        "netsnap: 20 of 200, 1 bad · 12 s, 45 s left",
        "netsnap: 50 of 200, 1 bad, 1 unknown · 17 s, 30 s left",
        "netsnap: 100 of 200, 1 bad, 1 unknown · 1 min 40 s, 1 min 33 s left",
    ]


def test_on_a_terminal_a_bar_is_drawn_without_a_thread_and_goes_when_all_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out, threads = io.StringIO(), threading.active_count()
    with conform.Progress(
        Console(file=out, width=100, force_terminal=True, legacy_windows=False), "netsnap"
    ) as progress:
        progress._last = 0.0
        progress.counting("recording")
        progress._last = 0.0
        progress(5, 10, lost(5))
        assert threading.active_count() == threads
    assert "netsnap: recording" in out.getvalue()
    assert "5 of 10, 1 bad" in out.getvalue()
    assert "\x1b[2K" in out.getvalue().rpartition("1 bad")[2]


# -- --explain -------------------------------------------------------------------------------------------------------


def explained(name: str) -> str:
    out = io.StringIO()
    conform.explain(Console(file=out, width=100), load_scenario(str(CONFORMANCE / name)), "netsnap.yaml")
    return out.getvalue()


def test_a_requirement_is_explained_by_its_story_its_causes_and_its_steps() -> None:
    text = explained("K8.sim.yaml")
    lines = text.splitlines()
    assert lines[0] == f"K8  {TITLE}"
    assert "an impatient client" in text
    assert "Saved copies are moved back instead of copied" in text
    assert "on one-lan, dual-stack" in lines
    at = lines.index("interrupted, then a boot:")
    assert lines[at + 1 : at + 5] == [
        "  - begin: done",
        "  - change: [standard]",
        "  - interrupt: {verb: rollback, by: [KILL, TERM]}",
        "  - boot: done",
    ]
    assert "done: exit status 0" in lines
    assert any(line.startswith("interrupt: all processes of the verb die before one of its calls") for line in lines)
    assert "source: initscript, reproduced" in lines
    assert lines[-1] == "alone: sim conform netsnap.yaml --only K8"


def test_every_requirement_can_be_explained() -> None:
    for path in sorted(CONFORMANCE.glob("*.sim.yaml")):
        assert "--only" in explained(path.name)

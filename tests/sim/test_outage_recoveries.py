"""Recoveries by which a mechanism undoes a change itself: what is planned, what may be written, how it is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_runs import Journal, plan, state, until_recovery

from sim import mechanisms
from sim.check import judge
from sim.errors import BadInput
from sim.load import load_scenario
from sim.plan import DEADLINES, expand
from sim.planned import Plan
from sim.scenario import Step
from sim.show import show

GUARD = """
mechanism: 1
name: guard
begin: g begin
commit: g commit
rollback: g rollback
boot: g boot
offers: [timeout, probe, client-loss, quit]
timeout: g begin {seconds}
probe: g probe {probe} {command}
client-loss: g try {seconds} {command}
quit: g begin {seconds}
watcher: g watch
"""
TEXT = """
sim: 1
topology: one-lan
mechanism: guard
change: {config: {ethernets: {eth0: {addresses: [192.0.2.99/24]}}}}
breaks: [client -> server, server -> client]
"""


def plans(folder: Path, text: str = TEXT, guard: str = GUARD) -> list[Plan]:
    (folder / "it.sim.yaml").write_text(text)
    (folder / "guard.mechanism.yaml").write_text(guard)
    return expand(load_scenario(str(folder / "it.sim.yaml")))


def of(made: list[Plan], recover: str) -> Plan:
    return next(one for one in made if one.params.recover == recover)


def test_what_a_mechanism_offers_is_tried_by_default(tmp_path: Path) -> None:
    tried = [made.params.recover for made in plans(tmp_path)]
    assert tried == ["rollback", "reboot", "crash", "timeout", "probe", "client-loss", "quit"]
    tried = [made.params.recover for made in plans(tmp_path, TEXT + "recover: [quit]\n")]
    assert tried == ["quit"]


@pytest.mark.parametrize(
    ("recover", "acts"),
    [
        ("timeout", ["await"]),
        ("probe", ["release", "await"]),
        ("client-loss", ["kill", "await"]),
        ("quit", ["kill", "await"]),
    ],
)
def test_the_change_is_seen_before_it_is_undone(tmp_path: Path, recover: str, acts: list[str]) -> None:
    made = of(plans(tmp_path), recover)
    assert [step.verb for step in made.steps] == ["begin", "config", "reload", "expect", *acts, "expect"]
    begin = made.steps[0].args
    assert (begin["by"], begin["deadline"]) == (recover, DEADLINES[recover])
    assert (begin["probe"].text if begin["probe"] else "None") == ("server -> client" if recover == "probe" else "None")


@pytest.mark.parametrize("recover", ["timeout", "probe", "client-loss", "quit"])
def test_what_is_shown_can_be_run(tmp_path: Path, recover: str) -> None:
    made = of(plans(tmp_path), recover)
    (again,) = plans(tmp_path, show(made))
    assert [(step.verb, step.on, step.args) for step in again.steps] == [
        (step.verb, step.on, step.args) for step in made.steps
    ]


def test_a_probe_is_asked_for_only_where_a_ping_from_the_subject_sees_the_damage(tmp_path: Path) -> None:
    blind = TEXT.replace("[client -> server, server -> client]", "[client -> server, server -> client size=1472]")
    assert "probe" not in [made.params.recover for made in plans(tmp_path, blind)]
    (made,) = plans(tmp_path, blind + "recover: [probe]\n")
    assert made.skip == "no flow in 'breaks' is a plain ping from 'server': no probe would see the damage"


@pytest.mark.parametrize(
    ("line", "recover", "skip"),
    [
        ("timeout: g begin {seconds}\n", "timeout", "guard offers 'timeout', but names no command for it"),
        ("watcher: g watch\n", "quit", "guard does not say what its watcher is called (the key 'watcher')"),
    ],
)
def test_an_offer_that_is_not_spelt_out_is_a_skip_by_name(tmp_path: Path, line: str, recover: str, skip: str) -> None:
    assert of(plans(tmp_path, guard=GUARD.replace(line, "")), recover).skip == skip


def test_what_is_not_offered_is_not_asked_in_the_long_form_either(tmp_path: Path) -> None:
    steps = "{sim: 1, topology: one-lan, mechanism: guard, steps: [{begin: {on: server, by: quit, deadline: 9s}}]}"
    (made,) = plans(tmp_path, steps, GUARD.replace(", quit]", "]"))
    assert made.not_offered == "guard does not offer 'quit'"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("begin: {on: server, by: time, deadline: 1s}", "unknown offer 'time'"),
        ("begin: {on: server, deadline: 1s}", "valid: by: timeout, probe, client-loss, quit"),
        ("begin: {on: server, by: timeout}", "valid: deadline: a duration like 4s"),
        ("begin: {on: server, by: quit, deadline: 1s, probe: server -> client}", "valid: probe with 'by: probe' only"),
        ("kill: {on: server}", "kills nobody; valid: exactly one of process, client, watcher"),
        ("kill: {on: server, client: true, process: x}", "kills process and client; valid: exactly one of"),
        ("kill: {on: server, client: true, signal: HUP}", "valid: client alone (it is KILL)"),
    ],
)
def test_half_of_a_guard_is_a_mistake(tmp_path: Path, step: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        plans(tmp_path, f"{{sim: 1, topology: one-lan, steps: [{{{step}}}]}}")
    assert message in str(caught.value)


def test_a_command_that_leaves_no_place_for_what_it_is_given_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "guard.yaml").write_text(GUARD.replace("{probe} ", "").replace("{seconds} {command}", "{seconds}"))
    with pytest.raises(BadInput) as caught:
        mechanisms.from_file(tmp_path / "guard.yaml")
    assert [mistake.message for mistake in caught.value.mistakes] == [
        "probe: lacks {probe}, what the laboratory puts there",
        "client-loss: lacks {command}, what the laboratory puts there",
    ]


def waited(journal: Journal) -> Plan:
    """A plan whose last step waits for the mechanism."""
    steps = (*plan().steps[:5], Step("await", "server", {"within": 9.0}))
    return plan(steps=steps, recover="timeout")


def test_a_change_that_was_undone_in_time_passes_and_says_when() -> None:
    journal = until_recovery().step(5, "await").picture("final").flows("final").boot(2)
    result = judge(waited(journal), journal.picture("rebooted", boot=2).flows("rebooted").ended().events)
    assert result.verdict == "pass", result.findings
    assert any(f.check == "await" and f.why == "await on server (step 6): undone after 0.1 s" for f in result.findings)


def test_a_change_that_was_not_undone_is_the_mechanism_s_failure() -> None:
    broken = state("192.0.2.66")
    problems = ("not undone in time: 2 differences to what begin saw",)
    journal = until_recovery().step(5, "await", "refused", problems=problems)
    journal.picture("final", broken).flows("final", internet="no-route").boot(2)
    events = journal.picture("rebooted", boot=2).flows("rebooted").ended().events
    result = judge(waited(journal), events)
    assert result.verdict == "fail"
    assert any(f.check == "await" and f.verdict == "fail" and "not undone in time" in f.why for f in result.findings)

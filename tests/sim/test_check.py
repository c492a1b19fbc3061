"""Verdicts: from a plan and a journal written by hand."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest
from made_up_runs import IFCFG, INTERNET, Journal, good, plan, recovered, state, until_recovery

import sim.check
from sim.check import CHECKS, Finding, Result, judge
from sim.events import Event, from_line, to_line
from sim.expect import boot_problems
from sim.planned import Plan
from sim.scenario import Flow, Mechanism, Step


@pytest.fixture(autouse=True)
def selective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reloads leave alone what did not change, whatever the real stack does."""
    monkeypatch.setattr(sim.check, "_selective", lambda stack: True)


def finding(result: Result, check: str) -> Finding:
    """The worst finding of a check."""
    found = [f for f in result.findings if f.check == check]
    assert found, f"no finding of {check}: {result.findings}"
    return min(found, key=lambda f: ("fail", "unknown", "pass", "skip").index(f.verdict))


def finish(journal: Journal, final: Any = None, rebooted: Any = None, **reasons: str) -> list[Event]:
    """Final pictures and one more reboot."""
    journal.picture("final", final).flows("final", **reasons).boot(2)
    return journal.picture("rebooted", final if rebooted is None else rebooted, boot=2).flows("rebooted").ended().events


def test_a_run_in_which_all_is_as_it_was_passes_and_says_what_was_looked_at() -> None:
    result = judge(plan(), good())
    assert result.verdict == "pass"
    assert {f.check for f in result.findings} >= {*CHECKS, "begin", "rollback", "damage", "expect", "boot hook"}
    assert {f.verdict for f in result.findings} == {"pass"}


def test_a_journal_from_disk_is_judged_as_the_live_one() -> None:
    stored = [from_line(to_line(event)) for event in good()]
    assert judge(plan(), stored) == judge(plan(), good())


# -- the laboratory ---------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_is_unknown_at_whatever_event() -> None:
    events = good()
    for length in range(len(events)):
        assert judge(plan(), events[:length]).verdict == "unknown", events[length]


def test_trouble_of_the_laboratory_is_unknown_and_says_only_that() -> None:
    result = judge(plan(), until_recovery().ended(trouble="the neighbour table overflowed").events)
    assert result.verdict == "unknown"
    assert [f.why for f in result.findings if f.verdict == "unknown"] == ["the neighbour table overflowed"]


def test_what_is_missing_on_this_machine_is_a_skip() -> None:
    result = judge(plan(), Journal().started().ended(missing="no loop devices").events)
    assert (result.verdict, result.findings[0].why) == ("skip", "no loop devices")


def test_a_plan_that_cannot_be_run_is_a_skip_and_one_that_is_not_asked_is_not_offered() -> None:
    assert judge(plan(skip="not for this stack"), []).verdict == "skip"
    assert judge(plan(not_offered="none does not offer 'boot'", skip="x"), []).verdict == "not-offered"


def test_a_failure_of_the_laboratory_in_a_step_is_unknown() -> None:
    journal = Journal().started().boot().flows("baseline").picture("begin").step(0, "begin", status=0)
    journal.step(1, "write", "lab-error", problems=("write: No space left on device",)).step(2, "reload", "skipped")
    result = judge(plan(), finish(journal))
    assert result.verdict == "unknown"
    assert finding(result, "write").why == "write on server (step 2): write: No space left on device"


def test_nothing_is_held_against_the_product_after_the_laboratory_failed() -> None:
    events = until_recovery().step(5, "rollback", "skipped").events
    events = [
        dataclasses.replace(e, outcome="lab-error", problems=("no memory",))  # type: ignore[call-arg]
        if type(e).__name__ == "StepEnded" and e.step == 2  # type: ignore[union-attr]
        else e
        for e in events
    ]
    journal = Journal()
    journal.events = events
    result = judge(plan(), finish(journal, state("192.0.2.66"), internet="no-route"))
    assert (result.verdict, finding(result, "files").verdict) == ("unknown", "unknown")


def test_a_step_that_never_ended_is_unknown() -> None:
    result = judge(plan(), finish(until_recovery()))
    assert finding(result, "steps").why == "step 6 (rollback) was never begun"


def test_a_check_that_cannot_read_the_journal_is_unknown() -> None:
    broken = state()
    del broken["kernel"]
    result = judge(plan(), finish(recovered(), broken))
    assert finding(result, "kernel").verdict == "unknown"
    assert finding(result, "files").verdict == "pass"
    assert result.verdict == "unknown"


def test_fail_is_worse_than_unknown() -> None:
    result = judge(plan(), recovered().picture("final", state("192.0.2.66")).ended().events)
    assert finding(result, "reboot").verdict == "unknown"
    assert result.verdict == "fail"


# -- the way there ----------------------------------------------------------------------------------------------


def test_a_verb_of_the_product_with_a_wrong_exit_status_fails() -> None:
    journal = until_recovery().step(5, "rollback", "refused", status=1, expected=0, output="cannot write\n")
    result = judge(plan(), finish(journal))
    assert result.verdict == "fail"
    assert finding(result, "rollback").why == "rollback on server (step 6): expected exit status 0; seen 1"
    assert "| cannot write" in finding(result, "rollback").detail


def test_damage_that_was_not_seen_is_unknown_and_names_the_flow() -> None:
    events = [
        dataclasses.replace(e, delivered=True, reason="") if getattr(e, "label", "") == "step" else e for e in good()
    ]
    problem = "server -> internet: expected unreachable; seen delivered"
    events = [
        dataclasses.replace(e, outcome="unmet", problems=(problem,)) if getattr(e, "step", None) == 3 and
        type(e).__name__ == "StepEnded" else e
        for e in events
    ]  # fmt: skip
    result = judge(plan(), events)
    assert result.verdict == "unknown"
    assert finding(result, "damage").why == (
        "the damage was not seen: server -> internet was still delivered after the change: "
        "this scenario does not show what it says"
    )


def test_an_expectation_that_was_not_met_fails() -> None:
    events = [
        dataclasses.replace(e, outcome="unmet", problems=("server -> client: expected delivered; seen timeout",))
        if getattr(e, "step", None) == 4 and type(e).__name__ == "StepEnded"
        else e
        for e in good()
    ]
    result = judge(plan(), events)
    assert result.verdict == "fail"
    assert finding(result, "expect").why == "step 5: server -> client: expected delivered; seen timeout"


def test_a_flow_that_was_never_delivered_shows_nothing() -> None:
    events = [
        dataclasses.replace(e, delivered=False, reason="timeout") if getattr(e, "label", "") == "baseline" and
        getattr(e, "flow", "") == INTERNET.text else e
        for e in good()
    ]  # fmt: skip
    result = judge(plan(), events)
    assert result.verdict == "unknown"
    assert "expected delivered before anything was changed; seen timeout" in finding(result, "baseline").why


def test_a_flow_that_the_laboratory_never_got_through_is_not_held_against_the_product() -> None:
    events = []
    for event in good():
        if getattr(event, "flow", "") == "server -> client":
            event = dataclasses.replace(event, delivered=False, reason="timeout")  # type: ignore[call-arg]
        if type(event).__name__ == "StepEnded" and event.step == 4:  # type: ignore[union-attr]
            event = dataclasses.replace(event, outcome="unmet", problems=("server -> client: …",))  # type: ignore[call-arg]
        events.append(event)
    result = judge(plan(), events)
    assert (result.verdict, finding(result, "expect").verdict) == ("unknown", "unknown")


def test_a_named_flow_that_nobody_looked_at_is_unknown() -> None:
    assert judge(plan(keeps=(Flow("server", "moon"),)), good()).verdict == "unknown"


def test_half_a_pair_is_found_among_the_readings() -> None:
    assert judge(plan(keeps=(Flow("server", "client", family="v4"),)), good()).verdict == "pass"
    assert judge(plan(keeps=(Flow("server", "client", family="v6"),)), good()).verdict == "unknown"


def test_a_boot_hook_that_fails_fails_and_shows_its_output() -> None:
    journal = recovered().picture("final").flows("final").boot(2, hook=11, output="2 files differ\n")
    result = judge(plan(), journal.picture("rebooted", boot=2).flows("rebooted").ended().events)
    assert finding(result, "boot hook").why == "server, boot 2: expected exit status 0; seen 11"
    assert "| 2 files differ" in finding(result, "boot hook").detail
    assert result.verdict == "fail"


@pytest.mark.parametrize(("baseline", "verdict"), [(0, "fail"), (1, "pass")])
def test_a_network_phase_that_fails_in_the_end_is_held_against_the_baseline(baseline: int, verdict: str) -> None:
    events = [
        dataclasses.replace(e, status=baseline)
        if type(e).__name__ == "PhaseEnded" and (e.phase, e.boot) == ("network", 1)  # type: ignore[union-attr]
        else dataclasses.replace(e, status=1)
        if type(e).__name__ == "PhaseEnded" and e.phase == "network"  # type: ignore[union-attr]
        else e
        for e in good()
    ]
    result = judge(plan(), events)
    assert finding(result, "network").verdict == verdict
    assert result.verdict == verdict


# -- the always-on checks ---------------------------------------------------------------------------------------


def test_a_rollback_that_gave_nothing_back_fails_for_the_right_reasons() -> None:
    result = judge(plan(), finish(recovered(), state("192.0.2.66"), internet="neighbour-unreachable"))
    assert result.verdict == "fail"
    assert finding(result, "files").detail == (f"{IFCFG}: line 4: 'GATEWAY=192.0.2.66', was 'GATEWAY=192.0.2.1'",)
    assert "route default via 192.0.2.1 dev eth0 is missing" in finding(result, "kernel").detail
    assert finding(result, "flows").why == (
        "server -> internet: expected delivered, as before the change; seen neighbour-unreachable"
    )


@pytest.mark.parametrize("check", CHECKS)
def test_what_was_not_looked_at_is_never_pass(check: str) -> None:
    result = judge(plan(), recovered().ended().events)
    assert finding(result, check).verdict == "unknown"


@pytest.mark.parametrize("check", CHECKS)
def test_an_excused_check_is_not_made_and_says_why(check: str) -> None:
    excused = plan(checks=frozenset(CHECKS) - {check}, excused="the lease differs")
    assert finding(judge(excused, good()), check) == Finding(check, "skip", "the lease differs")
    assert judge(excused, good()).verdict == "pass"


def test_the_reboot_check_leaves_out_what_is_excused() -> None:
    events = finish(recovered(), state(), {**state(), "files": {}})
    assert judge(plan(), events).verdict == "fail"
    assert judge(plan(checks=frozenset(CHECKS) - {"files"}), events).verdict == "pass"


def test_the_records_of_the_mechanism_are_not_compared() -> None:
    final = state()
    final["files"]["/var/lib/snapcore/last"] = {"type": "file"}
    assert judge(plan(), finish(recovered(), final, state())).verdict == "pass"


def test_what_a_recovery_leaves_beside_the_configuration_fails() -> None:
    final = state(others={"/etc/sysconfig/network-scripts/.ifcfg-eth0.tmp": {"type": "file"}})
    result = judge(plan(), finish(recovered(), final))
    assert finding(result, "files").detail == (
        "beside the configuration: /etc/sysconfig/network-scripts/.ifcfg-eth0.tmp: is left over, a regular file",
    )


def test_a_link_that_flapped_without_need_fails_only_within_one_boot() -> None:
    final = state()
    final["transient"]["links"]["eth1"]["carrier_changes"] = 4
    assert finding(judge(plan(), finish(recovered(), final)), "flaps").verdict == "fail"
    rebooted = recovered().picture("final", final, boot=2).flows("final").picture("rebooted", final, boot=3)
    result = judge(plan(), rebooted.flows("rebooted").ended().events)
    assert finding(result, "flaps") == Finding("flaps", "skip", "server: a boot lay between begin and the end")


def test_flaps_are_not_asked_of_a_stack_that_restarts_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.check, "_selective", lambda stack: False)
    final = state()
    final["transient"]["links"]["eth1"]["carrier_changes"] = 4
    assert judge(plan(), finish(recovered(), final)).verdict == "pass"


@pytest.mark.parametrize(
    ("seen", "offers", "verdict"),
    [("none", True, "pass"), ("open", True, "fail"), ("unknown", True, "unknown"), ("unknown", False, "skip")],
)
def test_no_transaction_is_left_open(seen: str, offers: bool, verdict: str) -> None:
    mechanism = Mechanism("m", extra={"status": "m status"} if offers else {})
    journal = recovered().picture("final", transaction=seen).flows("final")
    journal.boot(2).picture("rebooted", boot=2, transaction=seen).flows("rebooted").ended()
    assert finding(judge(plan(mechanism=mechanism), journal.events), "transaction").verdict == verdict


def test_a_reboot_that_changes_something_fails() -> None:
    journal = recovered().picture("final").flows("final").boot(2).picture("rebooted", state("192.0.2.66"), boot=2)
    result = judge(plan(), journal.flows("rebooted", internet="no-route").ended().events)
    whys = [f.why for f in result.findings if f.check == "reboot"]
    assert whys == [
        "expected server unchanged by one more reboot; seen 3 differences",
        "server -> internet: expected delivered, as before the reboot; seen no-route",
    ]


def test_with_a_family_the_other_one_is_not_judged() -> None:
    final = state()
    final["kernel"]["addresses"]["eth0"]["v6"] = []
    events = finish(recovered(), final)
    assert judge(plan(), events).verdict == "fail"
    assert judge(plan(params=dataclasses.replace(plan().params, family="v4")), events).verdict == "pass"


# -- what the end is compared with ------------------------------------------------------------------------------


def committed() -> Journal:
    return until_recovery().flows("changed", internet="neighbour-unreachable").step(5, "commit", status=0)


def test_after_a_commit_the_new_state_is_what_must_be_there() -> None:
    steps = (*plan().steps[:5], Step("commit", "server", {"status": 0}))
    new, lost = state("192.0.2.66"), {"internet": "neighbour-unreachable"}
    kept = finish(committed(), new, **lost)
    assert judge(plan(recover="commit", steps=steps), kept).verdict == "pass"
    assert judge(plan(recover=None, steps=steps), kept).verdict == "pass"
    undone = finish(committed(), state())
    assert finding(judge(plan(recover="commit", steps=steps), undone), "files").verdict == "fail"


def test_a_look_after_the_commit_does_not_hide_that_it_lost_the_change() -> None:
    steps = (*plan().steps[:5], Step("commit", "server", {"status": 0}), Step("run", "server", {"command": "ls"}))
    journal = committed().step(6, "run", status=0).picture("changed", state())
    assert judge(plan(recover=None, steps=steps), finish(journal, state())).verdict == "fail"


def long(*verbs: tuple[str, Any]) -> tuple[Plan, Journal]:
    """A long-form plan, and the journal of its steps: (verb, picture taken before it | exit status | both)."""
    steps = tuple(Step(verb, "server", {"file": "/etc/x"} if verb == "write" else {"status": 0}) for verb, _ in verbs)
    journal = Journal().started().boot().flows("baseline").picture("baseline")
    for number, (verb, what) in enumerate(verbs):
        picture, status = what if isinstance(what, tuple) else (None, what) if isinstance(what, int) else (what, 0)
        if picture is not None:
            journal.picture("begin" if verb == "begin" else "changed", picture)
        journal.step(number, verb, status=status)
    return plan(recover=None, steps=steps, breaks=(), keeps=()), journal


OLD, NEW, NEWER = state(), state("192.0.2.66"), state("192.0.2.77")


@pytest.mark.parametrize(
    ("verbs", "right", "wrong"),
    [
        ([("rollback", 199)], OLD, NEW),  # nothing was changed
        (
            [("write", None), ("rollback", (NEW, 199)), ("commit", 199)],
            NEW,
            OLD,
        ),  # without a transaction nothing is undone
        ([("begin", OLD), ("write", None), ("rollback", NEW)], OLD, NEW),
        ([("begin", OLD), ("begin", 199), ("write", None), ("rollback", NEW)], OLD, NEW),
        ([("begin", OLD), ("write", None), ("rollback", NEW), ("commit", 199)], OLD, NEW),
        ([("begin", OLD), ("write", None), ("commit", NEW), ("rollback", 199)], NEW, OLD),
        ([("begin", OLD), ("write", None), ("commit", NEW), ("begin", NEW), ("rollback", None)], NEW, OLD),
        ([("begin", OLD), ("commit", None)], OLD, NEW),
        ([("begin", OLD), ("write", None), ("rollback", NEW), ("write", None), ("reboot", NEWER)], NEWER, OLD),
        ([("begin", OLD), ("write", None), ("rollback", NEW), ("run", None), ("reboot", NEW)], OLD, NEW),
    ],
)
def test_the_long_form_is_compared_with_what_its_last_verb_promises(verbs: Any, right: Any, wrong: Any) -> None:
    made, journal = long(*verbs)
    assert judge(made, finish(journal, right)).verdict == "pass"
    made, journal = long(*verbs)
    result = judge(made, finish(journal, wrong))
    assert (result.verdict, finding(result, "files").verdict) == ("fail", "fail")


def test_a_load_has_no_picture_to_compare_with() -> None:
    made, journal = long(("load", None))
    assert finding(judge(made, finish(journal)), "files").verdict == "unknown"


# -- the rest ---------------------------------------------------------------------------------------------------


def test_the_outage_of_a_flow_lasts_until_it_is_delivered_again() -> None:
    flows = judge(plan(), good()).flows
    assert set(flows) == {"server -> internet", "server -> client"}
    lost = flows["server -> internet"]
    assert (lost.sent, lost.lost, lost.reason) == (5, 2, "neighbour-unreachable")
    assert lost.outage_ms == 800
    assert dataclasses.asdict(flows["server -> client"]) == {"sent": 5, "lost": 0, "outage_ms": 0, "reason": ""}


def test_a_few_words_say_what_a_run_has_shown() -> None:
    assert judge(plan(), good()).summary == "broken, then as at begin"
    assert judge(plan(checks=frozenset({"files"})), good()).summary.endswith(
        "; not asked: flows, kernel, flaps, transaction, reboot"
    )
    bad = finish(recovered(), state("192.0.2.66"), internet="no-route")
    assert judge(plan(), bad).summary == "not as at begin: flows, files, kernel"
    refused = finish(until_recovery().step(5, "rollback", "refused", status=11), state("192.0.2.66"))
    assert judge(plan(), refused).summary == "rollback on server (step 6): expected exit status 0; seen 11"
    assert judge(plan(skip="no loop devices"), []).summary == "no loop devices"


def test_a_run_says_how_to_repeat_it() -> None:
    made = plan(file="my scenarios/a.sim.yaml", mechanism=Mechanism("site", file="/srv/site.yaml"))
    assert judge(made, []).again == (
        "sim run 'my scenarios/a.sim.yaml' --set stack=ifcfg --mechanism /srv/site.yaml --recover rollback"
    )


def test_no_journal_however_torn_makes_judging_fall_over_or_a_bad_run_pass() -> None:
    chance = random.Random(1217288)
    bad = finish(recovered(), state("192.0.2.66"), internet="no-route")
    for _ in range(300):
        events = [event for event in bad if chance.random() > 0.2]
        assert judge(plan(), events).verdict != "pass"
        mangled = [from_line(json.dumps(_mangled(json.loads(to_line(event)), chance))) for event in events]
        assert judge(plan(), mangled).verdict != "pass"


def _mangled(value: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    if "state" in value and chance.random() < 0.5:
        value["state"] = chance.choice([{}, {"files": None}, {"files": {"/x": None}}, {"kernel": {"links": {"e": 1}}}])
    return value


# -- what is seen during a boot -----------------------------------------------------------------------------------

REBOOT = (*plan().steps[:5], Step("reboot", "server"))
TYPO = "v4 main: default via 192.0.2.66 dev eth0"


def rebooted(*seen: str, hook: int = 0, overflow: bool = False, before: Any = None) -> Result:
    """A run with one reboot inside the transaction, and what was seen during that boot."""
    journal = until_recovery()
    if before is not None:
        before(journal)
    journal.boot(2, hook=hook).seen_at_boot(*seen, overflow=overflow).step(5, "reboot")
    journal.picture("final", boot=2).flows("final").boot(3)
    journal.picture("rebooted", boot=3).flows("rebooted").ended()
    return judge(plan(recover="reboot", steps=REBOOT), journal.events)


def test_a_boot_that_shows_nothing_of_the_change_passes() -> None:
    result = rebooted("v4 main: default via 192.0.2.1 dev eth0", "eth0 v4: 192.0.2.10/24 scope global")
    assert result.verdict == "pass"
    assert finding(result, "boot").verdict == "pass"


def test_a_route_of_the_change_that_a_boot_shows_for_a_moment_is_a_failure() -> None:
    result = rebooted(TYPO, "v4 main: default via 192.0.2.1 dev eth0")
    assert result.verdict == "fail"
    assert [f.check for f in result.findings if f.verdict == "fail"] == ["boot"]
    assert finding(result, "boot").detail == ("v4 main: route default via 192.0.2.66 dev eth0",)


def test_what_neither_picture_has_is_not_of_the_change() -> None:
    assert rebooted("eth0 v4: 169.254.7.7/16 scope link", "v4 main: default via 192.0.2.7 dev eth0").verdict == "pass"


def test_a_boot_that_was_too_loud_to_be_heard_out_is_unknown_unless_it_was_heard_to_be_wrong() -> None:
    assert finding(rebooted(overflow=True), "boot").verdict == "unknown"
    assert rebooted(TYPO, overflow=True).verdict == "fail"


def test_a_boot_after_the_transaction_is_over_may_show_what_it_likes() -> None:
    def over(verb: str, status: int = 0) -> Any:
        return lambda journal: journal.step(0, verb, status=status)

    for ends in (over("rollback"), over("commit"), over("commit", 1), lambda journal: journal.boot(1)):
        result = rebooted(TYPO, before=ends)
        assert not [f for f in result.findings if f.check == "boot"]
    assert finding(rebooted(TYPO, before=over("rollback", 1)), "boot").verdict == "fail"


def test_a_boot_whose_hook_was_made_to_fail_need_not_roll_back() -> None:
    steps = (*REBOOT[:5], Step("fault", "server", {"error": "EIO"}), Step("reboot", "server"))
    journal = until_recovery().step(5, "fault").boot(2, hook=1).seen_at_boot(TYPO).step(6, "reboot")
    journal.boot(3).seen_at_boot(boot=3).picture("final", boot=3).flows("final")
    journal.boot(4).picture("rebooted", boot=4).flows("rebooted").ended()
    found = [f for f in judge(plan(recover=None, steps=steps), journal.events).findings if f.check == "boot"]
    assert [(f.verdict, f.why.partition(":")[0]) for f in found] == [("pass", "server, boot 3")]


def test_a_mechanism_without_a_boot_hook_is_not_asked_for_what_a_boot_shows() -> None:
    machines = {name: dataclasses.replace(machine, boot_hook=None) for name, machine in plan().machines.items()}
    journal = until_recovery().boot(2).seen_at_boot(TYPO).step(5, "reboot").picture("final", boot=2).flows("final")
    result = judge(plan(recover="reboot", steps=REBOOT, machines=machines), journal.ended().events)
    assert not [f for f in result.findings if f.check == "boot"]


def test_a_command_that_names_the_mechanism_may_have_ended_the_transaction() -> None:
    for command, asked in (("snapcore commit", False), ("/usr/bin/snapcore status", False), ("ip link", True)):
        steps = (*REBOOT[:5], Step("run", "server", {"command": command, "status": 0}), Step("reboot", "server"))
        journal = until_recovery().step(5, "run", status=0).boot(2).seen_at_boot(TYPO).step(6, "reboot")
        result = judge(plan(recover=None, steps=steps), journal.ended().events)
        assert bool([f for f in result.findings if f.check == "boot"]) is asked, command


def test_what_the_kernel_makes_by_itself_is_not_of_the_change() -> None:
    old, new = state(), state()
    new["kernel"]["addresses"]["eth1"] = {
        "v4": ["198.51.100.10/24 scope global", "198.51.100.11/24 scope global secondary"],
        "v6": ["fe80::1/64 scope link", "2001:db8:7::1/64 scope global dynamic"],
    }
    new["kernel"]["routes"]["v4 main"].append("198.51.100.0/24 dev eth1 proto kernel scope link")
    new["kernel"]["routes"]["v6 main"] = ["default via fe80::9 dev eth1 proto ra metric 1024"]
    seen = [f"eth1 {family}: {text}" for family, texts in new["kernel"]["addresses"]["eth1"].items() for text in texts]
    routes = [f"{key}: {text}" for key, texts in new["kernel"]["routes"].items() for text in texts]
    assert boot_problems(old, new, seen, routes) == [
        "eth1 v4: address 198.51.100.10/24 scope global",
        "eth1 v4: address 198.51.100.11/24 scope global",
    ]
    assert boot_problems(old, new, seen, routes, "v6") == []

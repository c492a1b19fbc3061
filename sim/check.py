"""Judges a run: Plan × Events → findings → verdict. Pure, so that a journal can be judged again years later.

The worst verdict wins: fail (the product is wrong) > unknown (the laboratory could not tell) > pass. What was not
looked at is never pass: a check that is in force and whose picture is not in the journal is unknown.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import sim.stacks
from sim.events import Event, FlowRead, OutageRead, StateRead, StepEnded, StepStarted
from sim.expect import (
    boot_problems,
    file_differences,
    flap_differences,
    kernel_differences,
    litter,
    printable,
    transaction_problem,
    without,
)
from sim.history import CHANGES, TRANSACTION, History, Reference
from sim.planned import Params, Plan
from sim.scenario import Flow, Mechanism, Step, Verdict
from sim.vocabulary import VERBS

_OUTPUT_LINES = 20
_FAULTY_JOURNAL = (LookupError, TypeError, ValueError, AttributeError)
"""What a check raises when the journal does not have the shape that it should have."""

_WHEN: dict[Reference, str] = {"begin": "at begin", "changed": "after the change", "baseline": "at the baseline"}
_FLOWS_WHEN = {**_WHEN, "begin": "before the change"}


@dataclass(frozen=True)
class Finding:
    """What one check says. `why` is one line, `detail` the evidence: differences in words, output of commands."""

    check: str
    verdict: Verdict
    why: str
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class FlowSummary:
    """A flow over the whole run. `reason`: why packets were lost, as last seen; empty when none was.

    `outage_ms`: of a flow that was measured (`sim.outage`), the longest outage while it was, to a tenth; of any other
    the longest time from the first reading that failed to the next that did not, or to the end.
    """

    sent: int
    lost: int
    outage_ms: float
    reason: str


@dataclass(frozen=True)
class Result:
    """One run, judged. `again` is the command that repeats it; `summary` is for a table."""

    scenario: str
    file: str
    params: Params
    verdict: Verdict
    seconds: float
    findings: tuple[Finding, ...]
    flows: Mapping[str, FlowSummary] = field(default_factory=dict)
    again: str = ""
    summary: str = ""
    outages: tuple[OutageRead, ...] = ()  # of each measured flow, by step and (None) over all of them


def judge(plan: Plan, events: Sequence[Event]) -> Result:
    """The verdict on one run. Never raises for what a journal may contain: a check that stumbles is unknown."""
    history = History(plan, tuple(events))
    findings: list[Finding] = []
    if plan.not_offered is not None:
        findings.append(Finding("plan", "not-offered", plan.not_offered))
    elif plan.skip is not None:
        findings.append(Finding("plan", "skip", plan.skip))
    elif history.end is not None and history.end.missing:
        findings.append(Finding("laboratory", "skip", history.end.missing))
    else:
        for name, check in (*_LABORATORY.items(), *_ALWAYS_ON.items()):
            findings += _findings(name, check, history)
    return Result(
        scenario=plan.scenario,
        file=plan.file,
        params=plan.params,
        verdict=_worst(findings),
        seconds=round(events[-1].at, 3) if events else 0.0,
        findings=tuple(findings),
        flows=_flow_summaries(history),
        again=_command(plan),
        summary=_summary(history, findings),
        outages=tuple(history.outages),
    )


def _findings(name: str, check: Callable[[History], list[Finding]], history: History) -> list[Finding]:
    plan = history.plan
    if name in _ALWAYS_ON and name not in plan.checks:
        return [Finding(name, "skip", plan.excused or "the scenario excuses this check")]
    try:
        found = check(history)
    except _FAULTY_JOURNAL as error:
        return [Finding(name, "unknown", f"this check could not read the journal: {type(error).__name__}: {error}")]
    if name in _ALWAYS_ON and history.trouble:
        # the missing pictures follow from the trouble, which has a finding of its own
        found = [finding for finding in found if finding.verdict != "unknown"]
    if name in _ALWAYS_ON and history.lost_at is not None:
        # steps were skipped after it, perhaps the recovery itself
        found = [replace(finding, verdict="unknown") if finding.verdict == "fail" else finding for finding in found]
    return found


def _worst(findings: Iterable[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    order: tuple[Verdict, ...] = ("fail", "unknown", "pass", "not-offered", "skip")
    return next((verdict for verdict in order if verdict in verdicts), "unknown")


def _summary(history: History, findings: Sequence[Finding]) -> str:
    """A few words for a table: what a pass has shown, what is wrong after a fail, what is first to say otherwise."""
    verdict = _worst(findings)
    named = [finding for finding in findings if finding.verdict == verdict]
    reference = history.reference(history.judged[0]) if history.judged else None
    ended = f"as {_WHEN[reference[0]]}" if reference else "as expected"
    if verdict == "pass":
        excused = ", ".join(name for name in _ALWAYS_ON if name not in history.plan.checks)
        broken = "broken, then " if any(finding.check == "damage" for finding in named) else ""
        return broken + ended + (f"; not asked: {excused}" if excused else "") + _lost(history)
    differ = [name for name in ("flows", "files", "kernel") if any(finding.check == name for finding in named)]
    refused = any(finding.check in VERBS and finding.check != "expect" for finding in named)
    if verdict == "fail" and differ and not refused:
        return f"not {ended}: {', '.join(differ)}"
    return f"{named[0].why}" if named else "nothing was looked at"


def _lost(history: History) -> str:
    """What a pass has cost: flows with a budget, and those that must not break and did for a moment."""
    plan, words = history.plan, []
    for event in history.outages:
        kept = any(_is(event, flow) for flow in plan.keeps) and event.lost
        if event.step is None and (kept or any(_is(event, flow) for flow in plan.outage)):
            words.append(f"{event.flow} {outage_words(event)}")
    return "".join(f"; {text}" for text in dict.fromkeys(words))


def outage_words(event: OutageRead) -> str:
    """`lost 12 of 1,004, 11.9 ms, neighbour-unreachable`."""
    words = f"lost {event.lost:,} of {event.sent:,}"
    return f"{words}, {event.outage_ms:,.1f} ms, {event.reason}" if event.lost else words


def _command(plan: Plan) -> str:
    params = plan.params
    words = ["sim", "run", plan.file, "--set", f"stack={params.stack}"]
    for key, value, default in (
        ("family", params.family, None),
        ("disk", params.disk, "keep"),
        ("dad", "true" if params.dad else "false", "false"),
    ):
        if value != default:
            words += ["--set", f"{key}={value}"]
    file = plan.mechanism.file
    # a mechanism of the library is found by its name; any other by its file
    shipped = file is None or PurePath(file).parent.name == "mechanisms"
    words += ["--mechanism", params.mechanism if shipped else str(file)]
    if params.recover is not None:
        words += ["--recover", params.recover]
    return shlex.join(words)


# -- flows over the whole run --------------------------------------------------------------------------------


def _name(key: tuple[str, str], keys: Iterable[tuple[str, str]]) -> str:
    """The name of a flow in reports: with its family where two flows differ in nothing else."""
    return f"{key[0]} {key[1]}" if sum(other[0] == key[0] for other in set(keys)) > 1 else key[0]


def _flow_summaries(history: History) -> dict[str, FlowSummary]:
    readings: dict[tuple[str, str], list[FlowRead]] = {}
    for _, event in history.flows:
        readings.setdefault((event.flow, event.family), []).append(event)
    end = history.events[-1].at if history.events else 0.0
    whole = {(event.flow, event.family): event for event in history.outages if event.step is None}
    return {_name(key, readings): _flow_summary(found, end, whole.get(key)) for key, found in readings.items()}


def _flow_summary(readings: Sequence[FlowRead], end: float, seen: OutageRead | None = None) -> FlowSummary:
    failed = [reading for reading in readings if not reading.delivered]
    if seen is not None and seen.sent and (seen.lost or not failed):  # what stands in for a flow may have got through
        reasons = [seen.reason, *(reading.reason for reading in failed)]
        told = [reason for reason in reasons if reason not in ("", "timeout")]  # a reading may know more than silence
        return FlowSummary(seen.sent, seen.lost, seen.outage_ms, told[0] if told else seen.reason)
    longest, since = 0.0, None
    for reading in readings:
        if not reading.delivered and since is None:
            since = reading.at
        elif reading.delivered and since is not None:
            longest, since = max(longest, reading.at - since), None
    if since is not None:
        longest = max(longest, end - since)
    return FlowSummary(
        sent=sum(max(reading.sent, 1) for reading in readings),
        lost=sum(reading.lost if reading.sent else not reading.delivered for reading in readings),
        outage_ms=round(longest * 1000),
        reason=failed[-1].reason if failed else "",
    )


# -- what went well or wrong on the way -------------------------------------------------------------------------


def _laboratory(history: History) -> list[Finding]:
    """Whether the laboratory did its part to the end."""
    return [Finding("laboratory", "unknown", history.trouble)] if history.trouble else []


def _baseline(history: History) -> list[Finding]:
    """Flows that the scenario names must be delivered before anything is changed: else nothing is shown."""
    plan, readings = history.plan, history.readings("baseline")
    if history.trouble and not readings:
        return []
    findings = []
    for flow in _named(plan):
        found = [event for event in readings.values() if _is(event, flow)]
        if not found:
            findings.append(Finding("baseline", "unknown", f"{flow}: was not read before the change"))
        for event in found:
            if not event.delivered:
                why = f"{event.flow}: expected delivered before anything was changed; seen {event.reason}"
                findings.append(Finding("baseline", "unknown", why, _evidence(event)))
    return findings or [Finding("baseline", "pass", f"{_count(readings, 'flow')} read before the change")]


def _named(plan: Plan) -> list[Flow]:
    return [flow for flow in dict.fromkeys((*plan.flows, *plan.breaks, *plan.keeps)) if _asked(flow, plan)]


def _never_delivered(history: History, flow: Flow) -> bool:
    """Whether the laboratory never tried a flow, or did not get it through before the change, though it had to."""
    found = [event for event in history.readings("baseline").values() if _is(event, flow)]
    named = any(flow.text == other.text for other in _named(history.plan))
    return not found or (named and not any(event.delivered for event in found))


def _asked(flow: Flow, plan: Plan) -> bool:
    return None in (flow.family, plan.params.family) or flow.family == plan.params.family


def _is(event: FlowRead | OutageRead, flow: Flow) -> bool:
    """Whether a reading is one of `flow`; `A -> B v6` is also the v6 half of the pair `A -> B`."""
    if flow.family is not None:
        if event.family != flow.family:
            return False
        if replace(flow, family=None, name="").text == event.written:
            return True
    return flow.text in (event.written, event.flow) or (bool(flow.name) and event.flow == flow.name)


def _steps(history: History) -> list[Finding]:
    findings = []
    broken = False  # later steps are skipped for a reason that has a finding
    for event in history.steps:
        step = history.plan.steps[event.step]
        broken = broken or event.outcome in ("refused", "lab-error")
        if event.outcome == "skipped" and not broken:
            findings.append(Finding(event.verb, "unknown", f"step {event.step + 1} was not done"))
        elif event.outcome != "skipped":
            findings += _step(history, event, step)
    ended = {event.step for event in history.steps}
    begun = {event.step for event in history.events if isinstance(event, StepStarted)}
    missing = sorted(set(range(len(history.plan.steps))) - ended)
    if missing and not broken and not history.trouble:
        number = missing[0]
        word = "did not end" if number in begun else "was never begun"
        findings.append(Finding("steps", "unknown", f"step {number + 1} ({history.plan.steps[number].verb}) {word}"))
    return findings


def _step(history: History, event: StepEnded, step: Step) -> list[Finding]:
    where = f"{event.verb}{f' on {event.machine}' if event.machine else ''} (step {event.step + 1})"
    product, output = VERBS[event.verb].product, _output(event.output)
    if event.outcome == "done":
        if step.verb == "expect":
            return [Finding(_ask(step), "pass", f"step {event.step + 1}: as expected after {event.seconds:.1f} s")]
        if step.verb == "await":
            return [Finding("await", "pass", f"{where}: undone after {event.seconds:.1f} s", output)]
        told = product or event.status
        return [Finding(event.verb, "pass", f"{where}: exit status {event.status or 0}", output)] if told else []
    if event.outcome == "unmet":
        return [_unmet(history, event, step)]
    problem = event.problems[0] if step.verb == "await" and event.problems else "; ".join(event.problems)
    if event.outcome == "refused" and event.status is not None:
        problem = f"expected exit status {event.expected or 0}; seen {event.status}"
    verdict: Verdict = "fail" if event.outcome == "refused" and product else "unknown"
    return [Finding(event.verb, verdict, f"{where}: {problem or 'failed'}", (*event.problems, *output))]


def _ask(step: Step) -> str:
    return "damage" if step.args.get("otherwise") == "unknown" else "expect"


def _unmet(history: History, event: StepEnded, step: Step) -> Finding:
    output, first = _output(event.output), event.problems[0] if event.problems else "not met in time"
    if _ask(step) == "expect":
        flows = [flow for flow, _ in step.args.get("flows", ())]
        shown = not flows or not all(_never_delivered(history, flow) for flow in flows)
        return Finding(
            "expect", "fail" if shown else "unknown", f"step {event.step + 1}: {first}", (*event.problems[1:], *output)
        )
    reads = {(e.flow, e.family): e for _, e in history.flows if e.step == event.step}
    outcomes = [(flow, outcome) for flow, outcome in step.args.get("flows", ()) if outcome != "delivered"]
    if not outcomes:
        why = f"the damage was shown, but could not be taken back before the run itself: {first}"
        return Finding("damage", "unknown", why, (*event.problems, *output))
    still = [e.flow for e in reads.values() if e.delivered and any(_is(e, flow) for flow, _ in outcomes)]
    seen = f"{', '.join(dict.fromkeys(still))} was still delivered after the change" if still else first
    why = f"the damage was not seen: {seen}: this scenario does not show what it says"
    return Finding("damage", "unknown", why, (*event.problems, *output))


def _boot_hooks(history: History) -> list[Finding]:
    """The mechanism's boot hook exits with 0 at every boot that was given a chance (no fault made on purpose)."""
    hooks = [
        event
        for event in history.phases("pre-network")
        if event.command and (event.machine, event.boot) not in history.faulty_boots
    ]
    findings = [
        Finding(
            "boot hook",
            "fail",
            f"{event.machine}, boot {event.boot}: expected exit status 0; seen {event.why or event.status}",
            (f"$ {printable(event.command)}", *_output(event.output)),
        )
        for event in hooks
        if event.status or event.why
    ]
    if hooks and not findings:
        findings.append(Finding("boot hook", "pass", f"exit status 0 at {_count(hooks, 'boot')}"))
    return findings


def _boot(history: History) -> list[Finding]:
    """A boot inside a transaction gives back the old configuration before the stack reads any: the kernel never has an
    address or a route of the new one."""
    findings = []
    for seen, begin, changed in history.boots_in_a_change():
        family = history.plan.params.family
        lines = boot_problems(begin.state, changed.state, seen.addresses, seen.routes, family)
        if lines:
            why = f"{seen.machine}, boot {seen.boot}: expected nothing of the change; seen, if for a moment, {lines[0]}"
            findings.append(Finding("boot", "fail", why, tuple(lines)))
        elif seen.overflow:
            why = f"{seen.machine}, boot {seen.boot}: more happened to addresses and routes than could be heard"
            findings.append(Finding("boot", "unknown", why))
        else:
            why = f"{seen.machine}, boot {seen.boot}: no address and no route of the change was seen"
            findings.append(Finding("boot", "pass", why))
    return findings


def _network(history: History) -> list[Finding]:
    """The stack of the machine that changed starts in the end as it did at first."""
    findings = []
    for machine in history.judged:
        phases = [event for event in history.phases("network") if event.machine == machine]
        pictures = (history.state("final", machine), history.state("rebooted", machine))
        boots = {found[1].boot for found in pictures if found}
        last = [event for event in phases if event.boot in boots]
        failed = next((event for event in last if event.status), None)
        if failed is None:
            continue
        found = history.reference(machine)
        why = f"{machine}, boot {failed.boot}: the network phase ended with exit status {failed.status}"
        verdict: Verdict = "fail"
        if phases[0].status:
            verdict, why = "pass", f"{why}, as it did at the baseline"
        elif found and found[0] == "changed":
            verdict, why = "pass", f"{why}: that is the configuration that was to be kept"
        findings.append(Finding("network", verdict, why, (f"$ {printable(failed.command)}", *_output(failed.output))))
    return findings


def _outage(history: History) -> list[Finding]:
    """No measured flow was out for longer than its budget, from the first begin to the last step."""
    found = [_budget(history, flow, limit) for flow, limit in history.plan.outage.items() if _asked(flow, history.plan)]
    whole = [event for event in history.outages if event.step is None]
    budgets = list(history.plan.outage)
    for event in whole:
        if event.sent and not any(_is(event, flow) for flow in budgets):
            found.append([Finding("outage", "pass", f"{event.flow}: {outage_words(event)}; no budget{_by(event)}")])
    return [finding for group in found for finding in group]


def _budget(history: History, flow: Flow, limit: float) -> list[Finding]:
    rows = [event for event in history.outages if event.step is None and _is(event, flow) and event.sent]
    if not rows:
        return [] if history.trouble else [Finding("outage", "unknown", f"{flow}: nothing was sent: not measured")]
    down = history.went_down
    if down:
        return [
            Finding("outage", "skip", f"{e.flow}: {outage_words(e)}; the scenario took {', '.join(down)} down itself")
            for e in rows
        ]
    return [_judged_budget(history, event, limit) for event in rows]


def _judged_budget(history: History, event: OutageRead, limit: float) -> Finding:
    """Where the probes themselves were late, the outage may have been so much shorter, or longer."""
    verdict: Verdict = "pass" if event.outage_ms <= limit else "fail"
    why, late = f"{event.flow}: {outage_words(event)}; budget {limit:,g} ms{_by(event)}", event.late_ms
    if late:
        why += f"; the probes were up to {late:,g} ms late"
        if event.outage_ms - late <= limit < event.outage_ms + late:
            verdict = "unknown"
    if verdict == "fail" and history.lost_at is not None:
        verdict = "unknown"
    return Finding("outage", verdict, why, _outage_by_step(history, event))


def _by(event: OutageRead) -> str:
    """Says where something else than the flow itself was sent."""
    return " (measured by ICMP)" if " tcp/" in event.written else ""


def _outage_by_step(history: History, whole: OutageRead) -> tuple[str, ...]:
    rows = [event for event in history.outages if (event.flow, event.family) == (whole.flow, whole.family)]
    return tuple(
        f"step {event.step + 1}, {history.plan.steps[event.step].verb}: {outage_words(event)}"
        for event in rows
        if event.step is not None and event.lost
    )


def _connections(history: History) -> list[Finding]:
    """A connection that was open before the first begin lives on, where no boot lay between."""
    findings = []
    for event in history.connections:
        name = f"{event.flow} {event.family}"
        if event.outcome == "alive":
            findings.append(Finding("connection", "pass", f"{name}: the connection from before begin lives on"))
        elif event.outcome == "broken":
            why = f"{name}: expected the connection from before begin to live on; seen: {event.detail}"
            verdict: Verdict = "unknown" if history.lost_at is not None else "fail"
            findings.append(Finding("connection", verdict, why))
        else:
            findings.append(Finding("connection", "skip", f"{name}: {event.detail or 'it was not tried'}"))
    return findings


def _output(text: str) -> tuple[str, ...]:
    lines = text.splitlines()
    more = [f"| … {len(lines) - _OUTPUT_LINES} lines more"] if len(lines) > _OUTPUT_LINES else []
    return (*more, *(f"| {printable(line.expandtabs())}" for line in lines[-_OUTPUT_LINES:]))


def _evidence(event: FlowRead) -> tuple[str, ...]:
    return (f"{event.flow}: {printable(event.detail)}",) if event.detail else ()


def _count(things: Iterable[object], noun: str) -> str:
    number = len(list(things))
    return f"{number} {noun}{'' if number == 1 else 's'}"


# -- the always-on checks ---------------------------------------------------------------------------------------


def _pairs(history: History, check: str) -> tuple[list[tuple[str, str, StateRead, StateRead]], list[Finding]]:
    """(machine, when, reference picture, final picture) for each machine, and a finding for each that lacks one."""
    pairs, findings = [], []
    for machine in history.pictured:
        reference, final = history.reference(machine), history.state("final", machine)
        if final is not None and reference is not None:
            pairs.append((machine, _WHEN[reference[0]], reference[2], final[1]))
        elif machine in history.judged:
            what = "picture of the end" if final is None else "picture to compare the end with"
            findings.append(Finding(check, "unknown", f"{machine}: the journal has no {what}"))
    if not pairs and not findings:
        findings.append(Finding(check, "unknown", "no machine was looked at"))
    return pairs, findings


def _compared(
    history: History, check: str, noun: str, differences: Callable[[StateRead, StateRead], list[str]]
) -> list[Finding]:
    pairs, findings = _pairs(history, check)
    for machine, when, reference, final in pairs:
        if lines := differences(reference, final):
            why = f"expected the {noun} of {machine} as {when}; seen {_count(lines, 'difference')}"
            findings.append(Finding(check, "fail", why, tuple(lines)))
    if not findings:
        findings.append(Finding(check, "pass", f"{noun} as {_of(pairs)}"))
    return findings


def _of(pairs: Sequence[tuple[str, str, StateRead, StateRead]]) -> str:
    by_when: dict[str, list[str]] = {}
    for machine, when, _, _ in pairs:
        by_when.setdefault(when, []).append(machine)
    return "; ".join(f"{when}: {', '.join(machines)}" for when, machines in by_when.items())


def _file_lines(history: History, old: StateRead, new: StateRead) -> list[str]:
    """Differences of the configuration, without the mechanism's own records."""
    machine = history.plan.machines.get(new.machine)
    records = machine.state if machine else ()
    return file_differences(without(old.state, records), without(new.state, records))


def _litter(history: History, old: StateRead, new: StateRead) -> list[str]:
    """What is left over beside the configuration, and was made by no step."""
    changed = [(index, e) for index, e in history.states if e.label == "changed" and e.machine == new.machine]
    last = changed[-1][0] if changed else -1
    if any(index > last for index, _ in history.after_step(frozenset({"run"}), new.machine)):
        return []  # nobody knows what a command of the scenario made
    named = {str(step.args.get("file")) for step in history.plan.steps if step.on == new.machine}
    lines = litter(old.state, [event.state for _, event in changed], new.state)
    return [line for line in lines if not any(f": {printable(path)}: " in line for path in named)]


def _kernel_lines(history: History, old: StateRead, new: StateRead) -> list[str]:
    return kernel_differences(old.state, new.state, history.plan.params.family)


def _files(history: History) -> list[Finding]:
    def lines(old: StateRead, new: StateRead) -> list[str]:
        return _file_lines(history, old, new) + _litter(history, old, new)

    return _compared(history, "files", "files", lines)


def _kernel(history: History) -> list[Finding]:
    return _compared(history, "kernel", "kernel state", lambda old, new: _kernel_lines(history, old, new))


def _flows(history: History) -> list[Finding]:
    reference = history.reference_flows()
    if reference is None:
        return [Finding("flows", "unknown", "the journal does not say which flows must be delivered in the end")]
    kind, wanted = reference
    if wanted:
        return _delivered_again(history, "flows", _FLOWS_WHEN[kind], wanted, "final", "in the end")
    found = _delivered_again(history, "flows", _WHEN["baseline"], history.readings("baseline"), "final", "in the end")
    if all(finding.verdict == "pass" for finding in found):  # whatever the change did to them
        return found
    return [Finding("flows", "unknown", f"no flow was read {_FLOWS_WHEN[kind]}: nothing says what must be delivered")]


def _delivered_again(
    history: History,
    check: str,
    when: str,
    wanted: Mapping[tuple[str, str], FlowRead],
    label: str,
    now: str,
) -> list[Finding]:
    """Every flow that is delivered in `wanted` is delivered in the readings with `label`."""
    if not wanted:
        return [Finding(check, "unknown", f"no flow was read {when}")]
    readings, findings = history.readings(label), []
    delivered = [key for key, event in wanted.items() if event.delivered]
    for key in delivered:
        name, event = _name(key, wanted), readings.get(key)
        if event is None:
            findings.append(Finding(check, "unknown", f"{name}: was not read {now}"))
        elif not event.delivered:
            why = f"{name}: expected delivered, as {when}; seen {event.reason or 'not delivered'}"
            findings.append(Finding(check, "fail", why, _evidence(event)))
    return findings or [Finding(check, "pass", f"{_count(delivered, 'flow')} delivered, as {when}")]


def _flaps(history: History) -> list[Finding]:
    """Links that the change left alone are the same links, undisturbed. Only asked within one boot."""
    findings = []
    for machine in history.judged:
        begin, final = history.state("begin", machine), history.state("final", machine)
        stack = history.plan.machines[machine].stack
        if begin is None or final is None:
            verdict: Verdict = "unknown" if final is None or history.after_step(TRANSACTION, machine) else "skip"
            findings.append(Finding("flaps", verdict, f"{machine}: the journal has no picture of begin and end"))
        elif begin[1].boot != final[1].boot:
            findings.append(Finding("flaps", "skip", f"{machine}: a boot lay between begin and the end"))
        elif not _selective(stack):
            findings.append(Finding("flaps", "skip", f"{machine}: a reload of {stack} restarts every interface"))
        else:
            findings.append(_flaps_of(history, machine, begin, final[1]))
    return findings or [Finding("flaps", "skip", "no machine was asked to change")]


def _selective(stack: str) -> bool:
    return sim.stacks.get(stack).selective_reload


def _flaps_of(history: History, machine: str, begin: tuple[int, StateRead], final: StateRead) -> Finding:
    changed = [e for i, e in history.states if e.label == "changed" and e.machine == machine and i > begin[0]]
    if not changed and any(index > begin[0] for index, _ in history.after_step(CHANGES, machine)):
        return Finding("flaps", "unknown", f"{machine}: the journal has no picture after the change")
    found = [flap_differences(begin[1].state, event.state, final.state) for event in changed or [begin[1]]]
    # a link is left alone only if every change left it alone
    lines = [line for line in found[0] if all(line in others for others in found)]
    # a cable that was pulled out is no flap
    pulled = {str(step.args.get("port")) for step in history.plan.steps if step.verb in ("plug", "unplug")}
    lines = [line for line in lines if line.partition(":")[0] not in pulled]
    if lines:
        return Finding("flaps", "fail", f"{machine}: {_count(lines, 'link')} disturbed without need", tuple(lines))
    return Finding("flaps", "pass", f"{machine}: links that did not change were left alone")


def _transaction(history: History) -> list[Finding]:
    """No transaction is left open."""
    findings = []
    for machine in history.judged:
        pictures = [history.state(label, machine) for label in ("final", "rebooted")]
        seen = {found[1].transaction for found in pictures if found}
        verdict, why = _open(machine, seen, history.plan.mechanism)
        asked = "status" in history.plan.mechanism.extra or verdict != "fail"
        detail = () if asked else ("it has no `status`; a commit in the end was not refused with its wrong-state",)
        findings.append(Finding("transaction", verdict, why, detail))
    return findings or [Finding("transaction", "skip", "no machine was asked to change")]


def _open(machine: str, seen: Collection[str], mechanism: Mechanism) -> tuple[Verdict, str]:
    if not seen:
        return "unknown", f"{machine}: nobody asked for an open transaction"
    if "open" in seen:
        return "fail", f"{transaction_problem(machine, 'none', 'open')}"
    if "none" in seen and ("unknown" not in seen or "status" not in mechanism.extra):
        return "pass", f"{machine}: no transaction is open"
    if "status" in mechanism.extra:
        return "unknown", f"{transaction_problem(machine, 'none', 'unknown')}"
    return "skip", f"{mechanism.name} cannot say whether a transaction is open"


def _reboot(history: History) -> list[Finding]:
    """One more reboot changes nothing: files, kernel state and flows, as far as those checks are in force."""
    checks, findings = history.plan.checks, []
    for machine in history.pictured:
        final, rebooted = history.state("final", machine), history.state("rebooted", machine)
        if final is None or rebooted is None:
            if machine in history.judged:
                what = "the end" if final is None else "one more reboot"
                findings.append(Finding("reboot", "unknown", f"{machine}: the journal has no picture of {what}"))
            continue
        lines = []
        if "files" in checks:
            lines += _file_lines(history, final[1], rebooted[1]) + litter(final[1].state, [], rebooted[1].state)
        lines += _kernel_lines(history, final[1], rebooted[1]) if "kernel" in checks else []
        if lines:
            why = f"expected {machine} unchanged by one more reboot; seen {_count(lines, 'difference')}"
            findings.append(Finding("reboot", "fail", why, tuple(lines)))
    if not any(event.label == "rebooted" for _, event in history.states):
        return findings or [Finding("reboot", "unknown", "the journal has no picture of one more reboot")]
    if "flows" in checks:
        reference = history.reference_flows()
        asked = reference[1].keys() | history.readings("rebooted").keys() if reference else None
        wanted = {key: event for key, event in history.readings("final").items() if asked is None or key in asked}
        again = _delivered_again(history, "reboot", "before the reboot", wanted, "rebooted", "after one more reboot")
        findings += [finding for finding in again if finding.verdict != "pass"]
    return findings or [Finding("reboot", "pass", "one more reboot changed nothing")]


_LABORATORY: dict[str, Callable[[History], list[Finding]]] = {
    "laboratory": _laboratory,
    "baseline": _baseline,
    "steps": _steps,
    "boot hook": _boot_hooks,
    "boot": _boot,
    "network": _network,
    "outage": _outage,
    "connection": _connections,
}
_ALWAYS_ON: dict[str, Callable[[History], list[Finding]]] = {
    "flows": _flows,
    "files": _files,
    "kernel": _kernel,
    "flaps": _flaps,
    "transaction": _transaction,
    "reboot": _reboot,
}
CHECKS: tuple[str, ...] = tuple(_ALWAYS_ON)
"""The names of the always-on checks: what `checks: {NAME: false}` may excuse."""

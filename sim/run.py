"""Plan → Events: the one loop. It acts, and writes down what happens; it does not judge.

`execute` must be called inside a sandbox (`sim.world.sandbox.spawn`); `sim.parallel` does that.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from sim import crash, outage, steps
from sim.errors import LabError, Missing
from sim.events import (
    ConnectionRead,
    Event,
    Note,
    OutageRead,
    PhaseEnded,
    RunEnded,
    RunStarted,
    State,
    StepEnded,
    StepStarted,
)
from sim.outage import Meter, Window
from sim.planned import Plan
from sim.probe import Outcome
from sim.scenario import Flow, Step
from sim.session import (
    HASTE_S,
    SETTLE_S,
    Context,
    ask_by_commit,
    baseline,
    services,
    settle,
    wait_delivered,
    wait_equal,
)
from sim.vocabulary import VERBS
from sim.world.lab import Lab


def execute(plan: Plan, emit: Callable[[Event], None]) -> None:
    """Run a plan to its end; every event goes to `emit`, the last one is RunEnded. Never raises for a lab failure."""
    began = time.monotonic()
    trouble = missing = ""
    try:
        _run(plan, emit, began)
    except Missing as error:
        missing = str(error)
    except (LabError, NetlinkError) as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    emit(RunEnded(round(time.monotonic() - began, 4), trouble, missing))


def _run(plan: Plan, emit: Callable[[Event], None], began: float) -> None:
    def tell(machine: str, message: Mapping[str, Any]) -> None:
        now = round(time.monotonic() - began, 4)
        if message["event"] == "phase":
            fields = {key: message[key] for key in ("phase", "command", "status", "milliseconds", "output", "why")}
            emit(PhaseEnded(at=now, machine=machine, boot=lab.machines[machine].boots, **fields))
        elif message["event"] == "note":
            emit(Note(now, machine, message["text"]))

    watched = next((step.on for step in plan.steps if step.verb == "fault" and step.args.get("error")), None)
    meter = Meter() if _is_measured(plan) else None  # forked first: it must not hold what belongs to machines
    lab = Lab(plan, functools.partial(services, plan), tell, watched)
    context = Context(plan, lab, emit, began, meter=meter)
    emit(RunStarted(context.now, plan.scenario, asdict(plan.params), lab.facts()))
    baseline(context)
    _steps(context)
    _final(context)


def _steps(context: Context) -> None:
    """Every step in order; after one that failed only those that ask."""
    plan, emit, broken = context.plan, context.emit, False
    first = next((number for number, step in enumerate(plan.steps) if step.verb == "begin"), 0)
    windows: list[Window] = []
    for number, step in enumerate(plan.steps):
        context.step = number
        if number == first:
            _measure(context)
        if broken and not VERBS[step.verb].asks:
            emit(StepEnded(context.now, number, step.verb, step.on, "skipped", 0.0))
            continue
        emit(StepStarted(context.now, number, step.verb, step.on))
        _pace(context, step)
        started, began = context.now, time.monotonic()
        done = crash.everywhere(context, step) if step.verb == "crash-everywhere" else steps.do(context, step)
        seconds = round(context.now - started, 4)
        windows += [Window(number, began, time.monotonic())] if number >= first else []
        emit(StepEnded(context.now, number, step.verb, step.on, seconds=seconds, **asdict(done)))
        broken = broken or done.outcome in ("refused", "lab-error")
        context.failed = context.failed or done.outcome != "done"
    context.step = None
    _measured(context, windows)


# -- outages -------------------------------------------------------------------------------------------------------


def _measured_flows(plan: Plan) -> tuple[Flow, ...]:
    return tuple(dict.fromkeys((*plan.outage, *plan.breaks, *plan.keeps, *plan.flows)))


def _is_measured(plan: Plan) -> bool:
    """Where every point of a verb is tried in laboratories of their own, an outage would mean nothing."""
    return bool(_measured_flows(plan)) and all(step.verb != "crash-everywhere" for step in plan.steps)


def _measure(context: Context) -> None:
    """From now on every measured flow is sent a probe each millisecond."""
    plan = context.plan
    ports = {name: {port.name: port.network for port in machine.ports} for name, machine in plan.machines.items()}
    targets = [(flow, target) for flow in _measured_flows(plan) for target in context.matching(flow)]
    found = {target.key: outage.measured(target, ports, held=flow in plan.keeps) for flow, target in reversed(targets)}
    flows = [flow for flow in found.values() if flow is not None]
    if context.meter is not None and flows:
        context.meter.start(flows)


def _pace(context: Context, step: Step) -> None:
    """While the damage is looked at nothing changes; what was given back may still be on its way."""
    if context.meter is not None and context.meter.began is not None:
        returning = step.args.get("restored") or step.args.get("changed")
        context.meter.pace(VERBS[step.verb].asks and not returning)


def _measured(context: Context, windows: Sequence[Window]) -> None:
    """Write down what the probes saw, and let them end."""
    meter, context.meter = context.meter, None
    if meter is None:
        return
    if meter.began is not None and windows:
        whole = Window(None, windows[0].begin, windows[-1].end)
        rows, connections = meter.report([*windows, whole])
        written = {target.key: target.flow.text for target in context.targets}
        for row in rows:
            fields = asdict(row)
            key = fields.pop("key")
            context.emit(OutageRead(context.now, flow=key, written=written[key], **fields))
        for held in connections:
            context.emit(ConnectionRead(context.now, held.key, held.family, held.outcome, held.detail))
    meter.close()


# -- before and after --------------------------------------------------------------------------------------------


def _judged(context: Context) -> list[str]:
    plan = context.plan
    named = [plan.subject] if plan.subject else []
    named += [step.on for step in plan.steps if step.on and VERBS[step.verb].product]
    return [name for name in dict.fromkeys(named) if context.machine(name).on]


def _final(context: Context) -> None:
    """The always-on pictures: how it ended, and what one more reboot makes of it."""
    names = _judged(context)
    outside = [name for name in names if name in context.dirty]
    for name in outside:
        context.changed_picture(name)
    if outside:  # changed outside of any transaction: that is how flows are to stay
        context.flows("changed", context.probe(context.targets))
    references = {name: context.reference(name) for name in names}
    outcomes = _closing(context, "final", names, references, wanted_flows(context))
    if not names or "reboot" not in context.plan.checks:
        return
    finals: dict[str, State | None] = {name: context.read(name) for name in names}
    delivered = [key for key, outcome in outcomes.items() if outcome.delivered]
    for name in names:
        machine = context.machine(name)
        context.power_off(machine, "reboot")
        context.boot(name)
    _closing(context, "rebooted", names, finals, delivered)


def _closing(
    context: Context,
    label: str,
    names: Sequence[str],
    references: Mapping[str, State | None],
    wanted: Sequence[str],
) -> dict[str, Outcome]:
    deadline = time.monotonic() + (HASTE_S if context.failed else SETTLE_S)
    settle(context, names, deadline)
    for name in names:
        state = wait_equal(context, name, references[name], deadline)
        transaction = context.transaction(name)
        if transaction == "unknown" and label == "final":
            transaction = ask_by_commit(context, name)
        context.picture(label, name, state, transaction)
    outcomes = wait_delivered(context, [t for t in context.targets if t.key in wanted], deadline)
    rest = [target for target in context.targets if target.key not in outcomes]
    outcomes.update(context.probe(rest) if rest and label == "final" else {})
    context.flows(label, outcomes)
    return outcomes


def wanted_flows(context: Context) -> list[str]:
    """The keys of the flows that must be delivered in the end."""
    outcomes = context.kept_flows if context.kept_flows is not None else context.baseline
    return [key for key, outcome in outcomes.items() if outcome.delivered]

"""A run while it goes on: what `sim.run` and `sim.steps` share. Pictures, waits, and the journal's pen."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sim import expect, probe, stacks
from sim.events import Event, FlowRead, PoweredOff, SeenAtBoot, State, StateRead
from sim.faults.order import Order
from sim.observe import read_state, seen_at_boot
from sim.outage import Meter
from sim.planned import MachinePlan, Plan
from sim.probe import Outcome, Target
from sim.scenario import Flow, Step
from sim.services import server
from sim.world import kernel
from sim.world.lab import STOP_S, Lab
from sim.world.machine import Job, Machine

BASELINE_S = 10.0
"""How long the topology may take until the flows that the scenario names are delivered for the first time."""
SETTLE_S = 6.0
"""How long files, kernel state and flows may take to be what they were, after the step that gives them back."""
HASTE_S = 1.0
"""The same, when it is known already that it is not."""
VERB_S = 120.0
"""How long a verb of a mechanism, or a command of a scenario, may take."""

_RTMGRP = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x80000  # linux/rtnetlink.h: links, neighbours, addresses,
# routes of both families, rules


@dataclass
class Done:
    """How a step ended; the fields of `StepEnded` that it decides."""

    outcome: Literal["done", "refused", "unmet", "lab-error"] = "done"
    status: int | None = None
    expected: int | None = None
    output: str = ""
    problems: tuple[str, ...] = ()


@dataclass
class Guard:
    """A transaction that ends by itself. `due`: when (monotonic), of a time-out; `job`: the client that runs."""

    due: float | None = None
    job: Job | None = None
    end: int = -1  # our end of what the client's command waits for

    def close(self) -> None:
        """The machine goes down, or all is over."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


@dataclass
class Context:
    """What a run knows while it goes on. `sim.steps` acts through it."""

    plan: Plan
    lab: Lab
    emit: Callable[[Event], None]
    began: float
    targets: list[Target] = field(default_factory=list)
    baseline: dict[str, Outcome] = field(default_factory=dict)
    begin: dict[str, State] = field(default_factory=dict)  # machine -> picture before its last begin
    changed: dict[str, State] = field(default_factory=dict)
    kept: dict[str, bool] = field(default_factory=dict)  # machine -> whether its transaction ended by commit
    kept_flows: dict[str, Outcome] | None = None
    dirty: set[str] = field(default_factory=set)  # machines changed since the last picture
    last_output: str = ""
    last_act: float = 0.0  # when the last step that changes ended: deadlines count from there
    step: int | None = None
    faults: dict[str, Order] = field(default_factory=dict)  # machine -> what fails during its next step
    failed: bool = False  # a step was refused or not met: then no patience is owed at the end
    meter: Meter | None = None  # measures outages, where anything is to be measured
    guards: dict[str, Guard] = field(default_factory=dict)  # machine -> its transaction that ends by itself

    @property
    def now(self) -> float:
        """Seconds since the run started."""
        return round(time.monotonic() - self.began, 4)

    def machine(self, name: str) -> Machine:
        """A machine by name."""
        return self.lab.machines[name]

    # -- pictures ------------------------------------------------------------------------------------------------

    def read(self, name: str) -> State:
        """Files and kernel state of a running machine, now."""
        machine = self.machine(name)
        stack = stacks.get(machine.plan.stack)
        return read_state(machine, stack.patterns, stack.ignored, (*machine.plan.state, *stack.records))

    def picture(self, label: str, name: str, state: State, transaction: str = "unknown") -> None:
        """Write a picture down."""
        boot = self.machine(name).boots
        self.emit(StateRead(self.now, label, self.step, name, boot, state, transaction))  # type: ignore[arg-type]  # checked by its callers

    def flows(self, label: str, outcomes: Mapping[str, Outcome]) -> None:
        """Write the outcome of a round down."""
        by_key = {target.key: target for target in self.targets}
        for key, outcome in outcomes.items():
            target = by_key[key]
            fields = probe.outcome_fields(outcome)
            self.emit(FlowRead(self.now, label, self.step, key, target.flow.text, target.family, **fields))

    def matching(self, flow: Flow) -> list[Target]:
        """The targets that a flow of the scenario stands for: one for each family."""
        found = [target for target in self.targets if target.flow.text == flow.text]
        if not found and flow.family:  # `A -> B v6` is the v6 half of the pair
            plain = Flow(flow.source, flow.destination, flow.protocol, flow.port, flow.asked, None, flow.size).text
            found = [t for t in self.targets if t.flow.text == plain and t.family == flow.family]
        return found

    def probe(self, targets: Sequence[Target], attempts: int = probe.ATTEMPTS) -> dict[str, Outcome]:
        """One round over some flows."""
        return probe.probe(targets, self.lab.machines, attempts)

    def changed_picture(self, name: str) -> None:
        """Write down what a machine looks like after its changes, before the step that ends them."""
        if name in self.dirty and self.machine(name).on:
            self.changed[name] = self.read(name)
            self.picture("changed", name, self.changed[name])
            self.dirty.discard(name)

    def reference(self, name: str) -> State | None:
        """What the machine must be like in the end; None when nothing was asked of it."""
        return self.changed.get(name) if self.kept.get(name) else self.begin.get(name)

    def begun(self, name: str, before: State) -> None:
        """A begin has succeeded: this is what a rollback must give back."""
        self.begin[name] = before
        self.picture("begin", name, before)
        self.kept[name] = False
        self.dirty.discard(name)
        if self.kept_flows is not None:
            self.baseline, self.kept_flows = self.kept_flows, None

    def power_off(self, machine: Machine, how: str) -> None:
        """Shut down in order, or crash, and write it down."""
        boot = machine.boots
        self.guards.pop(machine.plan.name, Guard()).close()
        if self.meter is not None:
            self.meter.off(machine.plan.name)
        milliseconds = machine.crash() if how in ("crash", "power-cut") else machine.shutdown(STOP_S * 3)
        self.emit(PoweredOff(self.now, machine.plan.name, boot, how, round(milliseconds, 3)))

    def boot(self, name: str) -> None:
        """Power a machine on, wait until it has booted, and write down what it showed if that was in a transaction."""
        machine = self.machine(name)
        machine.listen_at_boot = name in self.begin and not self.kept.get(name)
        try:
            self.lab.boot(name, self.metered)
            if machine.listen_at_boot:
                self.emit(SeenAtBoot(self.now, name, machine.boots, *seen_at_boot(machine)))
        finally:
            machine.listen_at_boot = False

    def metered(self, machine: Machine) -> None:
        """What measures outages hears of a machine's new namespace."""
        if self.meter is not None:
            self.meter.on(machine.plan.name, machine.running.netns)

    def transaction(self, name: str) -> str:
        """open | none | unknown, as the mechanism's own `status` says."""
        command = self.plan.mechanism.extra.get("status")
        return by_status(self.machine(name), command, VERB_S) if command and self.machine(name).on else "unknown"


def by_status(machine: Machine, command: str, timeout_s: float) -> str:
    """open | none | unknown, as the exit status of a mechanism's `status` says."""
    return {0: "open", 3: "none"}.get(machine.run(command, timeout_s).status, "unknown")


class Events:
    """Waits for something to happen in a machine's network (rtnetlink(7)), with a deadline."""

    def __init__(self, machine: Machine) -> None:
        with kernel.inside(machine.running.netns):
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._sock.bind((0, _RTMGRP))
        self._sock.setblocking(False)

    def fileno(self) -> int:
        """For select(2)."""
        return self._sock.fileno()

    def wait(self, timeout_s: float) -> None:
        """Until the next event, or the time-out: files and remote neighbours change without one."""
        wait_any([self], timeout_s)

    def drain(self) -> None:
        """Take all events that are there."""
        try:
            while self._sock.recv(1 << 16):
                pass
        except OSError:
            return  # drained, or more happened than the socket holds: either way something did

    def close(self) -> None:
        """Let the namespace go."""
        self._sock.close()


def wait_any(events: Sequence[Events], timeout_s: float) -> None:
    """Until something happens in one of several machines' networks, or the time-out."""
    for one in select.select(events, [], [], timeout_s)[0]:
        one.drain()


def settle(context: Context, names: Sequence[str], deadline: float) -> None:
    """Wait until links are operational and no address is tentative, or until the deadline."""
    for name in names:
        machine = context.machine(name)
        if not machine.on:
            continue
        events = Events(machine)
        try:
            while context.read(name)["transient"]["unsettled"] and time.monotonic() < deadline:
                events.wait(max(0.0, min(0.5, deadline - time.monotonic())))
        finally:
            events.close()


def differences(context: Context, old: State, new: State) -> list[str]:
    """Files and kernel state, in words."""
    lines = expect.file_differences(old, new) if "files" in context.plan.checks else []
    if "kernel" in context.plan.checks:
        lines += expect.kernel_differences(old, new, context.plan.params.family)
    return lines


def wait_equal(context: Context, name: str, reference: State | None, deadline: float) -> State:
    """Read until the machine equals the reference, or until the deadline; the last reading."""
    state = context.read(name)
    if reference is None or not differences(context, reference, state):
        return state
    events = Events(context.machine(name))
    try:
        while differences(context, reference, state) and time.monotonic() < deadline:
            events.wait(max(0.0, min(0.25, deadline - time.monotonic())))
            state = context.read(name)
    finally:
        events.close()
    return state


def wait_delivered(context: Context, targets: Sequence[Target], deadline: float) -> dict[str, Outcome]:
    """Probe until all are delivered, or until the deadline; the last outcome of each, probes counted together."""
    outcomes = context.probe(targets) if targets else {}
    while time.monotonic() < deadline:
        again = [target for target in targets if not outcomes[target.key].delivered]
        if not again:
            break
        for key, outcome in context.probe(again).items():
            outcome.sent += outcomes[key].sent
            outcome.lost += outcomes[key].lost
            outcomes[key] = outcome
    return outcomes


def services(plan: Plan, machine: MachinePlan) -> Mapping[str, Callable[[], None]]:
    """What a machine runs from its late phase on: the topology's servers, then the listeners of flows."""
    ports = plan.listeners.get(machine.name, ())
    servers = {"dnsmasq": server(machine.services)} if machine.services else {}
    return {**servers, **({"listeners": probe.listener(ports)} if ports else {})}


def baseline(context: Context) -> None:
    """Boot everything, wait until the named flows are delivered, and write down how things are."""
    plan, lab = context.plan, context.lab
    lab.boot_all()
    for machine in lab.machines.values():
        context.metered(machine)
    deadline = time.monotonic() + BASELINE_S
    settle(context, list(plan.machines), deadline)
    named = tuple(dict.fromkeys((*plan.flows, *plan.breaks, *plan.keeps, *plan.outage, *_asked(plan.steps))))
    _find_targets(context, named, deadline)
    wanted = {target.key for flow in named for target in context.matching(flow)}
    outcomes = context.probe(context.targets)
    while any(not outcomes[key].delivered for key in wanted) and time.monotonic() < deadline:
        again = [target for target in context.targets if not outcomes[target.key].delivered]
        outcomes.update(context.probe(again))
    context.baseline = outcomes
    context.flows("baseline", outcomes)
    for name in plan.machines:
        context.picture("baseline", name, context.read(name))
    context.last_act = time.monotonic()


def _find_targets(context: Context, named: Sequence[Flow], deadline: float) -> None:
    """Wait until both ends of every named flow have addresses: those that a router advertises come after the boot."""
    plan, lab = context.plan, context.lab
    events = [Events(machine) for machine in lab.machines.values()]
    try:
        while True:
            addresses = {name: probe.global_addresses(machine.running.ip) for name, machine in lab.machines.items()}
            context.targets = probe.targets(named, list(plan.machines), addresses, plan.params.family)
            left = deadline - time.monotonic()
            if left <= 0 or all(context.matching(flow) for flow in named):
                return
            wait_any(events, left)
    finally:
        for one in events:
            one.close()


def _asked(steps: Sequence[Step]) -> list[Flow]:
    return [flow for step in steps if step.verb == "expect" for flow, _ in step.args.get("flows", ())]


def ask_by_commit(context: Context, name: str) -> str:
    """A mechanism without a `status`: a commit without a transaction is refused with its `wrong-state`."""
    mechanism = context.plan.mechanism
    if mechanism.commit is None:
        return "unknown"
    status = context.machine(name).run(mechanism.commit, VERB_S).status
    return {0: "open", mechanism.wrong_state: "none"}.get(status, "unknown")

"""Requirement files × a mechanism → the cases that are tried, and what each of them varies. Pure but for reading files.

A case is one `tries` entry on one stack and topology; only the subject is there, with its cables. What a case varies
(`choices`) is known once the verb has been recorded: its points.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sim import stacks, trials
from sim.conform.family import Family
from sim.errors import BadInput, Mistake
from sim.faults.order import Point
from sim.library import scenario_files, shipped
from sim.load import load_all
from sim.plan import expand
from sim.planned import Params, Plan
from sim.scenario import Mechanism, Scenario, Step, Topology

STACKS = ("ifcfg", "ifupdown")
"""Those on which a mechanism is tried that does not name the only one it works with."""


FEWER_CYCLES = 52
"""More than the copies that a state may hold: one copy left by each cycle shows. On a requirement's first topology, and
in a full run, there are as many cycles as it says."""


@dataclass(frozen=True)
class Case:
    """One list of steps in one world. `index` counts all cases of a run; `skip`, `not_offered`: why it is not tried."""

    index: int
    requirement: str
    name: str
    steps: tuple[Step, ...]
    plan: Plan
    stack: str
    topology: str
    main: bool = True  # on the requirement's first topology; on others each point is tried once, not in every way
    reading: bool = False
    skip: str = ""
    not_offered: str = ""

    @property
    def where(self) -> str:
        """In words: what is tried, and where."""
        words = [self.name, self.stack, self.topology]
        return " · ".join(words + (["/var apart"] if self.plan.params.apart else []))

    @property
    def axis(self) -> Step | None:
        """The step that enumerates."""
        return trials.axis(self.steps)

    @property
    def recorded(self) -> str:
        """The verb that must be recorded to know the choices; empty when none must."""
        axis = self.axis
        return str(axis.args["verb"]) if axis is not None and axis.verb in ("interrupt", "fail", "hold") else ""

    @property
    def enumerates(self) -> bool:
        """Whether its trials are points, in the sense of reports."""
        axis = self.axis
        return axis is not None and axis.verb in ("interrupt", "fail", "hold", "race")


@dataclass(frozen=True)
class Variant:
    """What one trial of a case does at its axis. `words` for people; empty where nothing varies."""

    words: str = ""
    point: Point | None = None
    by: str = ""
    error: str = ""
    kind: str = ""
    pattern: str = ""


def requirements(folder: str = "") -> list[Scenario]:
    """The scenarios that state a requirement, by id: those of the folder, default the shipped ones. Raises BadInput."""
    files = [folder] if folder else [str(file) for file in scenario_files(shipped() / "conformance")]
    found = [scenario for scenario in load_all(files) if scenario.requirement is not None]
    if not found:
        raise BadInput([Mistake(folder, "no requirement here: a scenario that has the key 'requirement'")])
    if twice := list(_twice(found)):
        raise BadInput(twice)
    return sorted(found, key=lambda one: _order(one.requirement.id if one.requirement else ""))


def _twice(scenarios: Sequence[Scenario]) -> Iterator[Mistake]:
    first: dict[str, str] = {}
    for one in scenarios:
        identity = one.requirement.id if one.requirement else ""
        if first.setdefault(identity, one.file) != one.file:
            yield Mistake(one.file, f"requirement {identity} is stated in {first[identity]}, too")


def _order(identity: str) -> tuple[int, str, int]:
    letters, number = identity.rstrip("0123456789"), identity.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    place = "BKMTP".find(letters) if len(letters) == 1 else -1
    return (place if place >= 0 else 99, letters, int(number or 0))


def stacks_for(mechanism: Mechanism) -> tuple[str, ...]:
    """The stacks on which a mechanism is tried."""
    return (mechanism.stack,) if mechanism.stack else STACKS


def cases_of(scenarios: Sequence[Scenario], mechanism: str) -> list[Case]:
    """All cases of these requirements, in their order. Raises BadInput."""
    worlds = _Worlds(mechanism)
    found: list[Case] = []
    for scenario in scenarios:
        for case in _cases(scenario, worlds):
            found.append(replace(case, index=len(found)))
    return found


class _Worlds:
    """The subject alone on each topology and stack: planned once, however many requirements are tried there."""

    def __init__(self, mechanism: str) -> None:
        self.mechanism = mechanism
        self.plans: dict[tuple[str, str | None, str], list[Plan]] = {}

    def of(self, scenario: Scenario, topology: Topology) -> list[Plan]:
        """A plan for each stack."""
        key = topology.name, scenario.subject, str(scenario.file) if topology.name == scenario.name else ""
        if key not in self.plans:
            bare = replace(scenario, topology=topology, steps=(), change=None, recover=None)
            first = expand(bare, {"mechanism": self.mechanism})[0]
            plans = expand(bare, {"mechanism": self.mechanism, "stack": stacks_for(first.mechanism)})
            self.plans[key] = [_alone(plan) for plan in plans]
        return [replace(plan, scenario=scenario.name, file=scenario.file) for plan in self.plans[key]]


def _alone(plan: Plan) -> Plan:
    assert plan.subject is not None
    machines = {plan.subject: plan.machines[plan.subject]}
    params = Params(plan.params.stack, plan.params.mechanism)
    return replace(plan, machines=machines, params=params, flows=(), listeners={})


def _cases(scenario: Scenario, worlds: _Worlds) -> Iterator[Case]:
    requirement = scenario.requirement
    assert requirement is not None
    for name, steps in requirement.tries.items():
        for topology in (scenario.topology, *requirement.topologies):
            for plan in worlds.of(scenario, topology):
                for apart in (False, True) if requirement.apart else (False,):
                    case = _case(requirement.id, name, steps, plan, topology.name, apart)
                    if topology is not scenario.topology:
                        fewer = tuple(_shorter(step, FEWER_CYCLES) for step in case.steps)
                        case = replace(case, main=False, steps=fewer)
                    yield case


def _case(identity: str, name: str, steps: tuple[Step, ...], plan: Plan, topology: str, apart: bool) -> Case:
    cut = any(step.verb == "power-cut" or "power-cut" in step.args.get("by", ()) for step in trials.walk(steps))
    params = replace(plan.params, disk="lose-unsynced" if cut else "keep", apart=apart)
    lacks = [verb for verb in trials.VERBS if verb in trials.verbs_needed(steps) and not getattr(plan.mechanism, verb)]
    axis = trials.axis(steps)
    return Case(
        index=0,
        requirement=identity,
        name=name,
        steps=steps,
        plan=replace(plan, params=params),
        stack=params.stack,
        topology=topology,
        reading=axis is not None and axis.args.get("calls") == "reading",
        skip=plan.skip or "",
        not_offered=f"{plan.mechanism.name} does not offer '{lacks[0]}'" if lacks else "",
    )


def plans_of(scenarios: Sequence[Scenario], mechanism: str) -> list[tuple[str, Plan]]:
    """The runs of the requirements that are scenarios of their own: (id, plan)."""
    found = []
    for scenario in scenarios:
        requirement = scenario.requirement
        if requirement is None or scenario.change is None:
            continue
        for topology in (scenario.topology, *requirement.topologies):
            here = replace(scenario, topology=topology, name=f"{scenario.name} on {topology.name}")
            stacks_here = stacks_for(expand(here, {"mechanism": mechanism})[0].mechanism)
            plans = expand(here, {"mechanism": mechanism, "stack": stacks_here})
            found += [(requirement.id, plan) for plan in plans]
    return found


def quickly(
    cases: Sequence[Case], plans: Sequence[tuple[str, Plan]], seed: int
) -> tuple[list[Case], list[tuple[str, Plan]]]:
    """A sample: each list of steps in one world, the same one as far as possible, drawn by the seed; shorter cycles;
    each scenario once. (Each further world costs a laboratory.) What is skipped is drawn only where all is.
    """
    chooser = random.Random(seed)
    worlds: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        worlds.setdefault((case.requirement, case.name), []).append(case)
    worlds = {key: [case for case in group if not case.skip] or group for key, group in worlds.items()}
    drawn = chooser.random()
    chosen = [replace(group[int(drawn * len(group))], index=number) for number, group in enumerate(worlds.values())]
    short = [replace(case, steps=tuple(_shorter(step, FEWER_CYCLES) for step in case.steps)) for case in chosen]
    runs: dict[str, list[Plan]] = {}
    for identity, plan in plans:
        runs.setdefault(identity, []).append(plan)
    able = {identity: [plan for plan in group if not plan.skip] or group for identity, group in runs.items()}
    return short, [(identity, chooser.choice(group)) for identity, group in able.items()]


def _shorter(step: Step, cycles: int) -> Step:
    if step.verb != "cycle":
        return step
    return replace(step, args={**step.args, "times": min(cycles, step.args["times"])})


def variants(case: Case, points: Sequence[Point]) -> list[Variant]:
    """What the trials of a case do, in order; `points` are those of the recorded verb."""
    axis = case.axis
    if axis is None:
        return [Variant()]
    found = {"interrupt": _interrupted, "fail": _failed, "hold": _held, "race": _raced}.get(axis.verb)
    if found is not None:
        return list(found(axis if case.main else _narrowed(axis), points))
    kinds = axis.args["is"] if axis.verb.startswith("change") else ()
    if axis.verb == "change-each":
        return [Variant(kind, kind=kind) for kind in kinds]
    if axis.verb == "change-each-pattern":
        patterns = Family(stacks.get(case.stack).patterns).patterns
        return [Variant(f"{kind}, {one}", kind=kind, pattern=one) for one in patterns for kind in kinds]
    return [Variant()]


def _narrowed(axis: Step) -> Step:
    """Each point once: by the first signal, with the first error; a fifth of the races."""
    less = {key: axis.args[key][:1] for key in ("by", "errors") if key in axis.args}
    if "tries" in axis.args:
        less["tries"] = -(-axis.args["tries"] // 5)
    return replace(axis, args={**axis.args, **less})


def _interrupted(axis: Step, points: Sequence[Point]) -> Iterator[Variant]:
    for by in axis.args["by"]:
        how = "a power cut" if by == "power-cut" else f"SIG{by}"
        for point in points:
            yield Variant(f"{how} before call {point.number}", point, by)
        yield Variant(f"{how} after it has returned", None, by)


def _failed(axis: Step, points: Sequence[Point]) -> Iterator[Variant]:
    more = " and all that follow" if axis.args["reach"] == "all-that-follow" else ""
    for error in axis.args["errors"]:
        for point in points:
            yield Variant(f"{error} at call {point.number}{more}", point, error=error)


def _held(axis: Step, points: Sequence[Point]) -> Iterator[Variant]:
    for point in points:
        yield Variant(f"held before call {point.number}", point)


def _raced(axis: Step, points: Sequence[Point]) -> Iterator[Variant]:
    for number in range(1, axis.args.get("tries", 1) + 1):
        yield Variant(f"try {number}")

"""The ways in which a running host is brought back, side by side on the same scenarios: what each costs.

The question is as old as the idea: is it worth the trouble to bounce only what has changed? Runs take turns, one at a
time, so that whatever else this machine does falls on all of them. Each figure is the median of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sim.check import judge
from sim.errors import LabError
from sim.events import Event, OutageRead, StateRead, StepEnded
from sim.library import shipped
from sim.load import load_all
from sim.parallel import run_all
from sim.plan import expand
from sim.planned import Plan

STRATEGIES = {"minimal": "snapcore", "netlink": "snapcore-netlink", "bounce-all": "snapcore-bounce-all"}
SCENARIOS = (
    "running/untouched-port",
    "addresses/address-typo",
    "routes/gateway-typo",
    "bridges/address-left-on-port",
    "running/new-devices",
    "mtu/jumbo-frames",
)


@dataclass(frozen=True)
class Cost:
    """What one rollback cost. Outages in ms: the longest of flows that the change had broken (from the start of the
    rollback on) and of those that it had not; `flapped`: links whose carrier changed; `rollback`: ms of the verb.
    """

    scenario: str
    strategy: str
    verdict: str
    rollback_ms: float
    changed_ms: float
    untouched_ms: float
    flapped: int


def compare(paths: Sequence[str], rounds: int, tick: Callable[[str], None]) -> list[Cost]:
    """The median of `rounds` for each scenario and strategy. Raises BadInput, LabError."""
    files = list(paths) or [str(shipped() / f"{name}.sim.yaml") for name in SCENARIOS]
    found: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds):
        for scenario in load_all(files):
            for strategy, mechanism in STRATEGIES.items():
                tick(f"round {number + 1} of {rounds}: {scenario.name}, {strategy}")
                for plan in expand(scenario, {"mechanism": mechanism}, None, ["rollback"]):
                    (events,) = run_all([plan], 1, lambda index, event: None, lambda: None)
                    cost = _cost(plan, strategy, events)
                    found.setdefault((cost.scenario, strategy), []).append(cost)
    return [_median(costs) for costs in found.values()]


def _cost(plan: Plan, strategy: str, events: Sequence[Event]) -> Cost:
    result = judge(plan, events)
    ended = [one for one in events if isinstance(one, StepEnded) and one.verb == "rollback"]
    if not ended:
        raise LabError(f"{plan.scenario}, {strategy}: there was no rollback: {result.summary}")
    step = ended[0].step
    broken = {flow.text for flow in plan.breaks}
    outages = [one for one in events if isinstance(one, OutageRead) and one.step is not None and one.step >= step]
    changed = [one.outage_ms for one in outages if one.written in broken]
    untouched = [one.outage_ms for one in outages if one.written not in broken]
    return Cost(
        plan.scenario,
        strategy,
        result.verdict,
        ended[0].seconds * 1000,
        max(changed, default=0.0),
        max(untouched, default=0.0),
        sum(1 for _ in _flapped(plan, events)),
    )


def _flapped(plan: Plan, events: Sequence[Event]) -> Iterator[str]:
    """Links of the subject whose carrier changed between the change and the end, or that are others of the name."""
    pictures = [one for one in events if isinstance(one, StateRead) and one.machine == plan.subject]
    before = [one for one in pictures if one.label == "changed"]
    after = [one for one in pictures if one.label == "final"]
    if not before or not after:
        return
    old, new = _links(before[-1]), _links(after[-1])
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            yield name


def _links(picture: StateRead) -> dict[str, Any]:
    links: dict[str, Any] = picture.state["transient"]["links"]
    return links


def _median(costs: Sequence[Cost]) -> Cost:
    def of(name: str) -> float:
        return float(statistics.median(getattr(cost, name) for cost in costs))

    wrong = [cost.verdict for cost in costs if cost.verdict != "pass"]
    verdict = f"{len(wrong)} of {len(costs)} {wrong[0]}" if wrong else "pass"
    return Cost(costs[0].scenario, costs[0].strategy, verdict, of("rollback_ms"), of("changed_ms"),
                of("untouched_ms"), int(of("flapped")))  # fmt: skip


def in_words(costs: Sequence[Cost]) -> Iterator[str]:
    """A Markdown table."""
    yield "| scenario | strategy | verdict | rollback | outage, changed | outage, untouched | links flapped |"
    yield "|---|---|---|---|---|---|---|"
    for cost in costs:
        yield (
            f"| {cost.scenario} | {cost.strategy} | {cost.verdict} | {cost.rollback_ms:.0f} ms"
            f" | {cost.changed_ms:.0f} ms | {cost.untouched_ms:.1f} ms | {cost.flapped} |"
        )

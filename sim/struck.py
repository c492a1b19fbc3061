"""What an interruption has left, and what is to be interrupted: frozen values of `sim.crash`. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from sim import expect
from sim.errors import BadInput, Mistake
from sim.events import State
from sim.faults.order import Point
from sim.planned import Plan
from sim.scenario import Step
from sim.vocabulary import VERBS

Left = Literal["old", "new", "mixed", "lost", "unreachable", "unreached"]
ALLOWED: dict[str, tuple[Left, ...]] = {"begin": ("old",), "rollback": ("old",), "boot": ("old",),
                                         "commit": ("old", "new")}  # fmt: skip
"""What may be left when a verb has been interrupted."""


@dataclass(frozen=True)
class Strike:
    """What one interruption left. `image`: "" for a crash, else which of the two images of a power cut.

    `at` is the point's number; one more than the last stands for the instant after the verb has returned.
    `left`: old | new | mixed (each file is old or new) | lost (a file is neither) | unreachable (files are right,
    the machine is not) | unreached (the verb ended before this point).
    """

    at: int
    image: str
    left: Left
    good: bool
    problems: tuple[str, ...]
    seconds: float

    @property
    def unknown(self) -> bool:
        """Whether the laboratory could not tell."""
        return self.left == "unreached"


@dataclass(frozen=True)
class Campaign:
    """What is to be done: a plan that has `begin` and a change, the verb, and which points (None: all).

    `sample`: of all points only so many (0: all), chosen by `seed`.
    """

    plan: Plan
    verb: str
    at: tuple[int, ...] | None = None
    sample: int = 0
    seed: int = 0

    def numbers(self, points: int) -> list[int]:
        """Which points are struck, of a verb that has so many; one more than those is the instant after it."""
        numbers = list(self.at or range(1, points + 2))
        if self.at or not 0 < self.sample < len(numbers):
            return numbers
        return sorted(random.Random(self.seed).sample(numbers, self.sample))


@dataclass(frozen=True)
class Report:
    """The result of a campaign. `trouble`: why it could not be finished (then the verdict is unknown)."""

    campaign: Campaign
    points: tuple[Point, ...]
    strikes: tuple[Strike, ...]
    seconds: float
    trouble: str = ""
    missing: str = ""

    @property
    def verdict(self) -> str:
        """fail | unknown | skip | pass."""
        if any(not strike.good and not strike.unknown for strike in self.strikes):
            return "fail"
        if self.missing:
            return "skip"
        if self.trouble or not self.points or any(strike.unknown for strike in self.strikes):
            return "unknown"
        return "pass"


def split(plan: Plan) -> tuple[Step, list[Step]]:
    """The `begin` of a plan and the steps that change the machine after it. Raises BadInput when it has none."""
    begins = [number for number, step in enumerate(plan.steps) if step.verb == "begin" and not step.args.get("status")]
    if not begins:
        raise BadInput([Mistake(plan.file, "a crash needs a scenario with a begin and a change after it")])
    changes = []
    for step in plan.steps[begins[0] + 1 :]:
        if VERBS[step.verb].product or step.verb in ("reboot", "crash", "power-cut", "shutdown", "boot"):
            break
        if not VERBS[step.verb].asks:
            changes.append(step)
    return plan.steps[begins[0]], changes


def classify(old: State, new: State, seen: State) -> Left:
    """What the configuration is: wholly old, wholly new, mixed, or lost."""
    if not expect.file_differences(old, seen):
        return "old"
    if not expect.file_differences(new, seen):
        return "new"
    before, after, now = old["files"], new["files"], seen["files"]
    for path in before.keys() | after.keys() | now.keys():
        if now.get(path) not in (before.get(path), after.get(path)):
            return "lost"
    return "mixed"

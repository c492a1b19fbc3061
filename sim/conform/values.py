"""What a conformance run is made of: frozen values, no behaviour but arithmetic. Pure.

    Requirement files -> Cases -> Trials (one for each point, error, race, …) -> Rows -> Table

A `Case` is one `tries` entry of a requirement on one stack, topology and kind of disk. Its trials are numbered from 1
within the requirement, over all its cases: the same number means the same trial in every run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sim.faults.order import Point
from sim.scenario import Verdict

ORDER: tuple[Verdict, ...] = ("fail", "unknown", "pass", "skip", "not-offered")
"""The worst first; a case that was skipped or is not offered says nothing about the others."""


@dataclass(frozen=True)
class Heard:
    """One step of a trial as it went: `what` in words; `status` where a command ran; `problems`: what was wrong."""

    what: str
    status: int | None = None
    output: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """How one trial ended. `number` counts within the requirement; `where` names the case, `choice` what was varied.

    `point`: the call at which the verb was interrupted, held, or made to fail. `trouble`: why the laboratory could
    not tell; then `problems` is empty.
    """

    number: int
    where: str  # "interrupted, then a boot · ifcfg · one-lan"
    choice: str  # "SIGTERM before point 12", "EIO at point 3 and after", "" where nothing varies
    verb: str = ""  # the verb that the point belongs to
    point: Point | None = None
    problems: tuple[str, ...] = ()
    trouble: str = ""
    steps: tuple[Heard, ...] = ()
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """fail | unknown | pass."""
        return "fail" if self.problems else "unknown" if self.trouble else "pass"


@dataclass(frozen=True)
class Row:
    """One requirement. `points`: how many trials it has where it enumerates (else 0); `tried`: how many were made.

    `skipped`: "CASE: what this machine lacks" for each that could not be tried. `trials`: the evidence: all that did
    not pass, and the first that did.
    """

    id: str
    title: str
    verdict: Verdict
    why: str = ""
    points: int = 0
    tried: int = 0
    bad: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    marks: tuple[tuple[str, str], ...] = ()  # for each enumerating case: its name, a mark a trial: . good, x bad, ? u
    about: str = ""
    causes: str = ""
    source: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Table:
    """The result of `sim conform`. `seed`: what sampled the trials (0: all were made)."""

    mechanism: str
    file: str
    rows: tuple[Row, ...]
    seconds: float
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)  # stacks, topologies, kernel: what it ran on
    again: str = ""  # the command line, without --only

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows."""
        return next((one for one in ORDER if any(row.verdict == one for row in self.rows)), "not-offered")

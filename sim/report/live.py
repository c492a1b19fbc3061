"""What is seen while runs are going on: on a terminal the runs with their steps, else a line for each that ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sim.check import Result, judge
from sim.events import Event, PhaseEnded, RunEnded, StepEnded, StepStarted
from sim.expect import printable
from sim.planned import Plan
from sim.report.screen import Screen
from sim.report.text import STYLES
from sim.report.words import MEANINGS, ORDER, parameters, why
from sim.scenario import Verdict


@dataclass
class _Running:
    started: float
    events: list[Event] = field(default_factory=list)
    doing: str = "building"


class LiveView(Screen):
    """Takes events as they happen; a context manager around the runs. Not for use from several threads."""

    def __init__(self, console: Console, plans: Sequence[Plan]) -> None:
        super().__init__(console)
        self._plans = plans
        self._running: dict[int, _Running] = {}
        self._verdicts: Counter[Verdict] = Counter()
        self._begun = time.monotonic()

    def event(self, index: int, event: Event) -> None:
        """One event of the run with this index into the plans."""
        run = self._running.setdefault(index, _Running(time.monotonic()))
        run.events.append(event)
        if isinstance(event, RunEnded):
            del self._running[index]
            self._ended(index, judge(self._plans[index], run.events))
        else:
            run.doing = self._doing(self._plans[index], event) or run.doing

    def tick(self) -> None:
        """Refresh the view if it is time."""
        now = time.monotonic()
        if self._live is not None and self._due(now):
            self._draw(self._view(now))

    def _ended(self, index: int, result: Result) -> None:
        self._verdicts[result.verdict] += 1
        if self._live is None:
            values = parameters(result.params)
            words = " ".join(values[key] for key in ("stack", "mechanism", "recover") if key in values)
            line = f"{result.verdict:<8}{result.scenario} ({words}) {result.seconds:.1f} s"
            if result.verdict != "pass":
                line += f": {why(result)}"
            self._console.print(Text(printable(line)), soft_wrap=True)
        elif result.verdict in ("fail", "unknown"):
            line = f"{result.scenario} {result.params.recover or ''}: {why(result)}"
            text = Text.assemble((f"{result.verdict} ", STYLES[result.verdict]), printable(line))
            self._console.print(text, overflow="ellipsis", no_wrap=True)
        self.tick()

    @staticmethod
    def _doing(plan: Plan, event: Event) -> str | None:
        if isinstance(event, StepStarted):
            return f"step {event.step + 1}/{len(plan.steps)}: {event.verb} {event.machine or ''}".rstrip()
        if isinstance(event, StepEnded) and event.step + 1 == len(plan.steps):
            return "comparing"
        if isinstance(event, PhaseEnded) and event.phase != "stop":
            return f"{event.machine}: boot {event.boot}, {event.phase}" if not event.boot > 1 else None
        return None

    def _view(self, now: float) -> Group:
        done, total = sum(self._verdicts.values()), len(self._plans)
        head = Table.grid(padding=(0, 1))
        counts = Text(f"{done}/{total}")
        for verdict in ORDER:
            if self._verdicts[verdict]:
                counts.append(f"  {self._verdicts[verdict]} {MEANINGS[verdict]}", style=STYLES[verdict])
        head.add_row(ProgressBar(total=max(total, 1), completed=done, width=24), counts, f"{now - self._begun:.0f} s")
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, overflow="ellipsis", max_width=36)
        rows.add_column(no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        for index, run in sorted(self._running.items())[: max(1, self._console.height - 4)]:
            plan = self._plans[index]
            name = " ".join(filter(None, (plan.scenario, plan.params.recover)))
            rows.add_row(printable(name), f"{now - run.started:4.1f} s", Text(printable(run.doing), style="dim"))
        return Group(head, rows)

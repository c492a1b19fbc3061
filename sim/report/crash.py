"""What `sim crash` says: progress, a strip with a mark for each point, the bad points, JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from sim.expect import printable
from sim.faults.order import Point
from sim.report.screen import Screen
from sim.struck import Report, Strike

Kind = Literal["good", "bad", "unknown"]

_LINE_S = 5.0
_ROW = 50  # marks in a row of the strip
_MOST = 8  # problems shown for an image
_MARKS = {"old": (".", "green"), "new": ("+", "green"), "mixed": ("M", "yellow"), "lost": ("L", "bold red"),
          "unreachable": ("U", "bold magenta"), "unknown": ("?", "bold yellow"), "bad": ("N", "bold red")}  # fmt: skip
_WORDS = {".": "old", "+": "new", "M": "mixed", "L": "lost", "U": "unreachable", "N": "new, not old", "?": "unknown"}
_WORSE = ("old", "new", "mixed", "unreachable", "lost")
_IMAGES = {"": "", "as-it-is": "disk as it is: ", "journal": "after the journal was written: "}


@dataclass(frozen=True)
class Outcome:
    """All strikes of one point: two after a power cut. `point` is None for the instant after the verb."""

    number: int
    point: Point | None
    strikes: tuple[Strike, ...]

    @property
    def kind(self) -> Kind:
        """Bad when one of the images is; unknown when the laboratory could not tell and none is bad."""
        if any(not strike.good and not strike.unknown for strike in self.strikes):
            return "bad"
        return "unknown" if any(strike.unknown for strike in self.strikes) else "good"

    @property
    def left(self) -> str:
        """What the worst image left: old | new | mixed | unreachable | lost."""
        chosen = [s for s in self.strikes if not s.unknown and (self.kind != "bad" or not s.good)]
        return max((strike.left for strike in chosen), key=_WORSE.index, default="unknown")

    @property
    def syscall(self) -> str:
        """The call before which everything stopped; `return` after the verb."""
        return self.point.syscall if self.point else "return"

    @property
    def mark(self) -> tuple[str, str]:
        """One letter and its colour."""
        if self.kind == "unknown":
            return _MARKS["unknown"]
        if self.kind == "bad" and self.left in ("old", "new"):
            return _MARKS["bad"] if self.left == "new" else _MARKS["lost" if self.point is None else "mixed"]
        return _MARKS[self.left]


def outcomes(report: Report) -> list[Outcome]:
    """The points that were struck, in order."""
    found = []
    for number in sorted({strike.at for strike in report.strikes}):
        point = report.points[number - 1] if number <= len(report.points) else None
        found.append(Outcome(number, point, tuple(strike for strike in report.strikes if strike.at == number)))
    return found


def render(report: Report) -> str:
    """The JSON of `sim crash`, version 1."""
    found = outcomes(report)
    plan = report.campaign.plan
    whole = {
        "version": 1,
        "scenario": plan.scenario,
        "mechanism": plan.params.mechanism,
        "stack": plan.params.stack,
        "verb": report.campaign.verb,
        "disk": plan.params.disk,
        "verdict": report.verdict,
        "why": report.missing or report.trouble,
        "points": len(report.points),
        "struck": len(found),
        "bad": [_bad(outcome, report) for outcome in found if outcome.kind == "bad"],
        "unknown": [outcome.number for outcome in found if outcome.kind == "unknown"],
        "seed": report.campaign.seed if report.campaign.sample else None,
        "seconds": report.seconds,
    }
    return json.dumps(whole, indent=2) + "\n"


def _bad(outcome: Outcome, report: Report) -> dict[str, Any]:
    left = outcome.left
    if left == "old":  # right files, wrong transaction; or a commit that had returned and is gone
        left = "lost" if outcome.point is None and report.campaign.verb == "commit" else "mixed"
    return {
        "at": outcome.number,
        "syscall": outcome.syscall,
        "path": outcome.point.path if outcome.point else "",
        "left": left,
        "files": outcome.left,
        "process": outcome.point.command if outcome.point else "",
        "line": outcome.point.line if outcome.point else "",
        "images": [strike.image for strike in outcome.strikes if not strike.good],
        "problems": [line for strike in outcome.strikes if not strike.good for line in strike.problems],
    }


# -- the end ---------------------------------------------------------------------------------------------------------


def show(console: Console, report: Report, replay: str) -> None:
    """The strip, the bad points, the counts; `replay`: the command line that repeats one point, without its number."""
    found = outcomes(report)
    if found:
        _strip(console, found)
    said: dict[tuple[str, ...], int] = {}  # what was lost -> the point that it was printed for
    for outcome in found:
        if outcome.kind == "bad" or report.campaign.at:
            _describe(console, outcome, said)
    if report.missing or report.trouble:
        console.print(Text(printable(report.missing or report.trouble)), soft_wrap=True)
    console.print(Text(summary(report, found)), soft_wrap=True)
    bad = [outcome.number for outcome in found if outcome.kind == "bad"]
    if bad and not report.campaign.at:
        console.print(Text(f"again: {replay} --at {bad[0]}   (--keep: look at the machine)"), soft_wrap=True)


def summary(report: Report, found: Sequence[Outcome]) -> str:
    """`fail: 3 of 24 instants of begin are bad (disk keep, mechanism naive): 2 lost, 1 mixed · 4.1 s`."""
    kinds = Counter(outcome.kind for outcome in found)
    params = report.campaign.plan.params
    what = f"{report.campaign.verb} of {params.mechanism}, disk {params.disk}"
    if not found:
        return f"{report.verdict}: {what}: no point was struck"
    of = ""
    if report.campaign.sample:
        of = f" of {len(report.points) + 1}, SIM_SEED={report.campaign.seed}"
    counts = Counter(outcome.left for outcome in found if outcome.kind == "bad")
    parts = [f"{number} {left}" for left, number in sorted(counts.items())]
    text = f"{report.verdict}: {what}: {len(found)} instant{'' if len(found) == 1 else 's'}{of}, {kinds['bad']} bad"
    text += f" ({', '.join(parts)})" if parts else ""
    text += f", {kinds['unknown']} unknown" if kinds["unknown"] else ""
    rate = len(found) / report.seconds if report.seconds else 0.0
    return f"{text} · {report.seconds:.1f} s, {rate:.1f} a second"


def _strip(console: Console, found: Sequence[Outcome]) -> None:
    for first in range(0, len(found), _ROW):
        row = found[first : first + _ROW]
        text = Text(f"{row[0].number:>5} ")
        for outcome in row:
            text.append(*outcome.mark)
        console.print(text, soft_wrap=True)
    used = dict.fromkeys(outcome.mark[0] for outcome in found)
    console.print(Text("      " + "  ".join(f"{mark} {_WORDS[mark]}" for mark in used), style="dim"), soft_wrap=True)


def _describe(console: Console, outcome: Outcome, said: dict[tuple[str, ...], int]) -> None:
    mark, style = outcome.mark
    where = f"before {outcome.syscall} {outcome.point.path}" if outcome.point else "after the verb has returned"
    head = Text.assemble((f"{outcome.number:>5} ", style), (f"{_WORDS[mark]}", style), f"  {printable(where)}")
    console.print(head, soft_wrap=True)
    if outcome.point:
        console.print(Text(f"      by {printable(outcome.point.command)}", style="dim"), soft_wrap=True)
        if outcome.point.line:
            console.print(Text(f"      {printable(outcome.point.line)}", style="dim"), soft_wrap=True)
    lines = _lost(outcome)
    if said.setdefault(lines, outcome.number) != outcome.number:
        lines = (f"as at {said[lines]}",)
    for line in lines[:_MOST]:
        console.print(Text(f"      {printable(line)}"), soft_wrap=True)
    if len(lines) > _MOST:
        console.print(Text(f"      … and {len(lines) - _MOST} more"))


def _lost(outcome: Outcome) -> tuple[str, ...]:
    """What is wrong, in lines; what both images have in common once, and of each file the first difference."""
    shown = [strike for strike in outcome.strikes if outcome.kind != "bad" or not strike.good]
    texts = [_by_file(strike.problems) or [f"left: {strike.left}"] for strike in shown]
    if all(text == texts[0] for text in texts):
        return tuple(texts[0])
    return tuple(f"{_IMAGES[strike.image]}{line}" for strike, text in zip(shown, texts) for line in text)


def _by_file(problems: Sequence[str]) -> list[str]:
    firsts: dict[str, list[str]] = {}
    for problem in problems:
        firsts.setdefault(problem.partition(": ")[0] if problem.startswith("/") else problem, []).append(problem)
    return [found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") for found in firsts.values()]


# -- meanwhile -------------------------------------------------------------------------------------------------------


class Progress(Screen):
    """Called with (done, of, strike); a bar on a terminal, else a line every few seconds. A context manager."""

    def __init__(self, console: Console, title: str, images: int = 1) -> None:
        """`images`: how many strikes a point has."""
        self._begun = time.monotonic()
        super().__init__(console, _LINE_S, self._begun)
        self._title, self._images = title, images
        self._struck: float | None = None  # when the first strikes were under way
        self._bad: set[int] = set()

    def __call__(self, done: int, of: int, strike: Strike | None) -> None:
        """`of` is 0 as long as the recording goes on."""
        now = time.monotonic()
        done, of = done // self._images, of // self._images
        if of and self._struck is None:
            self._struck = now
        if strike is not None and not strike.good and not strike.unknown:
            self._bad.add(strike.at)
        if self._due(now):
            self._line_or_bar(f"{self._title}: {self._words(done, of, now)}", done, of)

    def _words(self, done: int, of: int, now: float) -> str:
        if not of or self._struck is None:
            return f"recording, {now - self._begun:.0f} s"
        words = f"{done} of {of}, {len(self._bad)} bad"
        rate = done / (now - self._struck) if now > self._struck else 0.0
        if rate:
            words += f", {rate:.1f} a second, {(of - done) / rate:.0f} s left"
        return words

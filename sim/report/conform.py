"""What `sim conform` says: progress, the table by requirement, the evidence, JSON, JUnit, TAP, and `--explain`."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from sim.conform.values import ORDER, Heard, Row, Table, Trial
from sim.expect import printable
from sim.report import junit, tap
from sim.report.screen import Screen
from sim.report.text import STYLES
from sim.report.words import MEANINGS, Case, status_of
from sim.report.words import ORDER as TOLD
from sim.scenario import Requirement, Scenario, Step, Verdict
from sim.trials import ABOUT, CHANGES, EXPECTED, STATUSES, VERBS, in_words, kinds, walk

GROUPS = {
    "B": "begin",
    "K": "rollback",
    "M": "commit",
    "T": "boot",
    "P": "power cut",
    "": "more",
}
"""First letters of ids, and what their requirements are about."""

_LINE_S = 5.0
_DISTINCT = 3  # trials of a requirement that are told with all their steps
_MOST = 8  # trials of a requirement that are told at all
_OUTPUT = 6  # lines of a command's output: the last ones
_WIDE = 400  # characters of a line of output

Line = tuple[str, str]
"""A line of text and its style."""


# -- words that the terminal and the page share ----------------------------------------------------------------------


def groups(table: Table) -> list[tuple[str, list[Row]]]:
    """The rows by what they are about, in the order of their ids; no empty group."""
    found: dict[str, list[Row]] = {letter: [] for letter in GROUPS}
    for row in sorted(table.rows, key=lambda row: _natural(row.id)):
        letter = row.id.rstrip("0123456789")
        found[letter if letter in GROUPS else ""].append(row)
    return [(GROUPS[letter], rows) for letter, rows in found.items() if rows]


def _natural(name: str) -> tuple[str, int]:
    digits = re.search(r"\d*$", name)
    number = digits.group() if digits else ""
    return name.removesuffix(number), int(number or 0)


def tried(row: Row) -> str:
    """`84`, `12 of 84`, or nothing."""
    if row.points and row.tried != row.points:
        return f"{row.tried} of {row.points}"
    return str(row.tried) if row.tried else ""


def bad(row: Row) -> str:
    """How many of the trials were bad; nothing where none was made."""
    return str(len(row.bad)) if row.tried or row.bad else ""


def ranges(numbers: Sequence[int]) -> str:
    """`1, 3-7, 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def count(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def totals(table: Table) -> str:
    """`40 requirements: 36 passed, 4 failed`."""
    counts = Counter(row.verdict for row in table.rows)
    parts = [f"{counts[verdict]} {MEANINGS[verdict]}" for verdict in TOLD if counts[verdict]]
    return f"{count(len(table.rows), 'requirement')}: {', '.join(parts) or 'nothing was tried'}"


def made(table: Table) -> str:
    """How much was tried, and by which seed it can be tried again."""
    trials = sum(row.tried for row in table.rows)
    return count(trials, "trial") + (f", sampled by SIM_SEED={table.seed}" if table.seed else "")


def replay(table: Table, row: Row, trial: Trial | None = None) -> str:
    """The command line that tries this requirement, or one of its trials, alone."""
    return f"{table.again} --only {row.id}" + (f" --at {trial.number}" if trial else "")


def absent(table: Table) -> list[tuple[Verdict, str, int, list[str]]]:
    """What was not tried: (skip | not-offered, reason, how many cases, ids), a reason once.

    A row's `skipped` says "CASE: REASON": the case is left to the evidence.
    """
    found: dict[tuple[Verdict, str], list[str]] = {}
    for _, rows in groups(table):
        for row in rows:
            reasons = row.skipped or ((row.why,) if row.verdict == "skip" else ())
            for reason in reasons:
                found.setdefault(("skip", reason.partition(": ")[2] or reason), []).append(row.id)
            if row.verdict == "not-offered":
                found.setdefault(("not-offered", row.why), []).append(row.id)
    return [(verdict, why, len(ids), list(dict.fromkeys(ids))) for (verdict, why), ids in found.items()]


def wrong(row: Row) -> list[Trial]:
    """The trials that did not pass, the bad ones first."""
    return sorted((t for t in row.trials if t.verdict != "pass"), key=lambda t: (ORDER.index(t.verdict), t.number))


def status(step: Heard) -> str:
    """` -> exit status 3`, where a command ran."""
    return "" if step.status is None else f" -> exit status {step.status}"


def output(step: Heard) -> list[str]:
    """The last lines of what a command said."""
    lines = [line for line in step.output.splitlines() if line.strip()]
    cut = [line if len(line) <= _WIDE else f"{line[:_WIDE]} …" for line in lines[-_OUTPUT:]]
    return ([f"… {count(len(lines) - _OUTPUT, 'line')} before"] if len(lines) > _OUTPUT else []) + cut


def where(trial: Trial) -> list[str]:
    """The call that the trial is about, with its process and the script's line, in up to three lines."""
    point = trial.point
    if point is None:
        return []
    lines = [f"{trial.verb}: {point.syscall} {point.path}".removeprefix(": ")]
    lines += [f"by {point.command}"] if point.command else []
    return lines + ([point.line] if point.line else [])


def unsaid(trial: Trial) -> list[str]:
    """The problems that no step of the trial has said."""
    said = {problem for step in trial.steps for problem in step.problems}
    return [problem for problem in trial.problems if problem not in said]


def exit_status(table: Table) -> int:
    """0 some passed, and none did worse · 1 some failed · 3 some unknown, none failed · 4 nothing could be tried."""
    return status_of(row.verdict for row in table.rows)


# -- the table -------------------------------------------------------------------------------------------------------


def show(console: Console, table: Table) -> None:
    """The table, what was not tried, the evidence of each requirement that did not pass, the totals."""
    _table(console, table)
    console.print()
    _absent(console, table)
    for _, rows in groups(table):
        for row in rows:
            if row.verdict in ("fail", "unknown"):
                _print(console, [(f"{row.verdict.upper()}  {row.id}  {row.title}", STYLES[row.verdict])])
                _print(console, [(f"  {text}", style) for text, style in evidence(table, row)])
                console.print()
    parts = [totals(table), made(table), f"{table.seconds:.1f} s", f"mechanism {table.mechanism}"]
    console.print(Text(printable(" · ".join(parts)), style=STYLES[table.verdict]), soft_wrap=True)


def _print(console: Console, lines: Sequence[Line]) -> None:
    for text, style in lines:
        console.print(Text(printable(text), style=style), soft_wrap=True)


def _table(console: Console, table: Table) -> None:
    """Not a table of rich's: a command line in a cell would be broken into pieces that nobody can copy."""
    cells = [(row.id, row.verdict, tried(row), bad(row)) for row in table.rows]
    heads = ("", "verdict", "tried", "bad")
    id_, verdict, many, few = (max(map(len, column)) for column in zip(heads, *cells))
    first = id_ + verdict + many + few + 8
    wide = max(console.width - first, 24)
    head = f"{'':<{id_}}  {'verdict':<{verdict}}  {'tried':>{many}}  {'bad':>{few}}  why"
    console.print(Text(head, style="bold"), soft_wrap=True)
    for name, rows in groups(table):
        console.print(Text(name, style="dim"), soft_wrap=True)
        for row in rows:
            why, *more = _why(row, wide) or [""]
            line = Text(f"{printable(row.id):<{id_}}  ")
            line.append(f"{row.verdict:<{verdict}}", style=STYLES[row.verdict])
            line.append(f"  {tried(row):>{many}}  {bad(row):>{few}}  {why}")
            console.print(line, soft_wrap=True)
            for rest in more:
                console.print(Text(" " * first + rest), soft_wrap=True)
            if row.verdict in ("fail", "unknown"):
                _print(console, [(" " * (id_ + 2) + replay(table, row), "dim")])


def _why(row: Row, wide: int) -> list[str]:
    """Why not, in a line or two (the evidence says it in full); of what passed, no more than a line."""
    most = 1 if row.verdict == "pass" else 2
    text = printable(row.why or row.title)
    return textwrap.wrap(text, wide, max_lines=most, placeholder=" …", break_on_hyphens=False)


def _absent(console: Console, table: Table) -> None:
    for verdict, why, number, ids in absent(table):
        cases = f" ({count(number, 'case')})" if verdict == "skip" else f" ({number})"
        _print(console, [(f"{verdict}: {why}{cases}", STYLES[verdict]), (f"  {', '.join(ids)}", "")])
    if absent(table):
        console.print()


# -- the evidence ----------------------------------------------------------------------------------------------------


def evidence(table: Table, row: Row) -> Iterator[Line]:
    """All that is known of a requirement that did not pass, for a person; what was told already is only named."""
    yield row.why, ""
    if row.bad:
        yield f"bad: {ranges(row.bad)} of {row.points or row.tried}", STYLES["fail"]
    if row.causes:
        yield f"usually: {row.causes}", "dim"
    told: dict[tuple[str, ...], int] = {}
    trials = wrong(row)
    shown = 0
    for trial in trials:
        key = (trial.verdict, *trial.problems, trial.trouble)
        if shown == _MOST or (key not in told and len(told) == _DISTINCT):
            continue
        shown += 1
        first = told.setdefault(key, trial.number)
        yield _head(trial)
        if first != trial.number:
            yield f"      {' '.join([*where(trial)[:1], f'(as at {first})'])}", "dim"
        else:
            yield from _body(trial)
    rest = max(len(trials), len(row.bad)) - shown
    if rest > 0:
        yield f"… and {count(rest, 'trial')} more", "dim"
    one = next((trial for trial in trials if trial.choice), None)
    yield f"again: {replay(table, row)}" + (f"   (--at {one.number}: that trial alone)" if one else ""), ""


def _head(trial: Trial) -> Line:
    return f"{trial.number:>4}  {' · '.join(filter(None, (trial.where, trial.choice)))}", STYLES[trial.verdict]


def _body(trial: Trial) -> Iterator[Line]:
    for number, line in enumerate(where(trial)):
        yield f"      {line}", "dim" if number else ""
    for number, step in enumerate(trial.steps, 1):
        yield f"      {number}. {step.what}{status(step)}", ""
        for line in output(step):
            yield f"         | {line}", "dim"
        for problem in step.problems:
            yield f"         {problem}", STYLES["fail"]
    for problem in unsaid(trial):
        yield f"      {problem}", STYLES["fail"]
    if trial.trouble:
        yield f"      {trial.trouble}", STYLES["unknown"]


# -- for programs ----------------------------------------------------------------------------------------------------


def render_json(table: Table) -> str:
    """The JSON of `sim conform`, version 1; pure ASCII, whatever bytes a file name holds."""
    whole = {
        "version": 1,
        "mechanism": table.mechanism,
        "file": table.file,
        "verdict": table.verdict,
        "requirements": {row.id: _row(table, row) for _, rows in groups(table) for row in rows},
        "totals": dict(sorted(Counter(row.verdict for row in table.rows).items())),
        "seed": table.seed,
        "seconds": table.seconds,
        "facts": table.facts,
    }
    return json.dumps(whole, indent=2) + "\n"


def _row(table: Table, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"verdict": row.verdict, "why": row.why}
    if row.points:
        found |= {"points": row.points, "bad": list(row.bad)}
    return found | {
        "title": row.title,
        "tried": row.tried,
        "skipped": list(row.skipped),
        "seconds": row.seconds,
        "again": replay(table, row),
        "evidence": [_trial(trial) for trial in row.trials],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    point = trial.point
    return {
        "number": trial.number,
        "verdict": trial.verdict,
        "where": trial.where,
        "choice": trial.choice,
        "verb": trial.verb,
        "point": None
        if point is None
        else {
            "at": point.number,
            "syscall": point.syscall,
            "path": point.path,
            "process": point.command,
            "line": point.line,
        },
        "problems": list(trial.problems),
        "trouble": trial.trouble,
        "steps": [
            {"what": step.what, "status": step.status, "output": step.output, "problems": list(step.problems)}
            for step in trial.steps
        ],
        "seconds": trial.seconds,
    }


def render_junit(table: Table) -> str:
    """One test suite, one case a requirement."""
    return junit.document(_cases(table), f"sim conform {printable(table.mechanism)}")


def render_tap(table: Table) -> str:
    """One test point a requirement."""
    return tap.document(_cases(table))


def _cases(table: Table) -> list[Case]:
    return [_case(table, row) for _, rows in groups(table) for row in rows]


def _case(table: Table, row: Row) -> Case:
    counted = {"mechanism": table.mechanism, "tried": tried(row), "bad": bad(row)}
    return Case(
        name=f"{row.id} {row.title}",
        file=table.file,
        verdict=row.verdict,
        seconds=row.seconds,
        why=row.why or "; ".join(dict.fromkeys(row.skipped)),
        findings=[row.why],
        details=[text for text, _ in evidence(table, row)][:-1],  # the last one is what `again` says
        again=replay(table, row),
        properties={key: value for key, value in counted.items() if value},
    )


# -- meanwhile -------------------------------------------------------------------------------------------------------


class Progress(Screen):
    """Called with (done, of, trial); a bar on a terminal, else a line every few seconds. A context manager."""

    def __init__(self, console: Console, title: str) -> None:
        self._begun = time.monotonic()
        super().__init__(console, _LINE_S, self._begun)
        self._title = title
        self._first: float | None = None  # when the first trials were under way
        self._found: Counter[Verdict] = Counter()

    def counting(self, text: str) -> None:
        """What goes on before it is known how many trials there are."""
        self._say(text, 0, 0, time.monotonic())

    def __call__(self, done: int, of: int, trial: Trial | None) -> None:
        """`trial`: the one that has just ended, if one has."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
        if trial is not None:
            self._found[trial.verdict] += 1
        words = f"{done} of {of}, {self._found['fail']} bad"
        words += f", {self._found['unknown']} unknown" if self._found["unknown"] else ""
        left = (of - done) * (now - self._first) / done if done else 0.0
        self._say(words, done, of, now, f", {duration(left)} left" if left else "")

    def _say(self, words: str, done: int, of: int, now: float, left: str = "") -> None:
        if self._due(now):
            line = f"{self._title}: {words} · {duration(now - self._begun)}{left}"
            self._line_or_bar(printable(line), done, of)


def duration(seconds: float) -> str:
    """`12 s`, `3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


# -- what a requirement asks -----------------------------------------------------------------------------------------


def explain(console: Console, scenario: Scenario, mechanism: str = "MECHANISM") -> None:
    """The story of a requirement: what it asks, where that comes from, what is usually wrong, how it is tried."""
    asked = scenario.requirement
    if asked is None:
        raise ValueError(f"{scenario.file} is no requirement")
    _print(console, [(f"{asked.id}  {asked.title}", "bold")])
    for head, text in (("", scenario.about), ("What usually causes a failure", asked.causes)):
        if text:
            console.print(Text(f"\n{head}" if head else "", style="bold"))
            _print(console, [(line, "") for line in textwrap.wrap(text, min(console.width, 100))])
    console.print(Text("\nHow it is tried", style="bold"))
    _print(console, list(_tries(asked, scenario)))
    console.print()
    sources = [f"source: {', '.join(scenario.source)}"] if scenario.source else []
    _print(console, [(line, "dim") for line in (*sources, f"file: {scenario.file}")])
    _print(console, [(f"alone: sim conform {mechanism} --only {asked.id}", "")])


def _tries(asked: Requirement, scenario: Scenario) -> Iterator[Line]:
    where = [scenario.topology.name, *(topology.name for topology in asked.topologies)]
    yield f"on {', '.join(where)}" + ("; and with /var on a disk of its own" if asked.apart else ""), ""
    if not asked.tries:
        yield f"by the scenario itself: `sim show {scenario.file}` prints its steps", ""
    for name, steps in asked.tries.items():
        yield f"{name}:", ""
        yield from _steps(steps, "  ")
    meanings = {word: text for one in asked.tries.values() for step in walk(one) for word, text in _words(step)}
    yield "", ""
    for word, text in meanings.items():
        yield f"{word}: {text}", "dim"


def _words(step: Step) -> Iterator[tuple[str, str]]:
    """The words of a step that a reader may not know, with what they mean."""
    if step.verb in VERBS:
        yield step.args["is"], STATUSES[step.args["is"]]
    elif step.verb == "expect":
        yield step.args["is"], EXPECTED[step.args["is"]]
    elif step.verb != "change":
        yield step.verb, ABOUT[step.verb]
    for kind in kinds([step]):
        yield kind, CHANGES[kind]


def _steps(steps: Sequence[Step], indent: str) -> Iterator[Line]:
    for step in steps:
        if step.verb in ("if-done", "if-failed"):
            yield f"{indent}- {step.verb}:", ""
            yield from _steps(step.args["is"], f"{indent}  ")
        else:
            yield f"{indent}- {in_words(step)}", ""

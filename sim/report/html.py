"""The page of `sim conform`: one file, no network, no script, that can be attached to a bug report.

It is read without a mouse and without colours: headings, a table, `details`; verdicts are words beside their signs.
Texts become markup by `_tag` alone, which escapes them; what is already markup is an `_Html`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from sim.conform.values import Heard, Row, Table, Trial
from sim.expect import printable
from sim.report.conform import (
    absent,
    bad,
    count,
    groups,
    made,
    output,
    ranges,
    replay,
    status,
    totals,
    tried,
    unsaid,
    where,
    wrong,
)
from sim.report.style import STYLE
from sim.scenario import Verdict

_SIGNS: dict[Verdict, str] = {"pass": "✓", "fail": "✗", "unknown": "?", "skip": "–", "not-offered": "–"}
_CELLS = {".": ("good", "·", "good"), "x": ("bad", "✗", "bad"), "?": ("unknown", "?", "could not be told")}
_WHOLE = 20  # trials of a requirement that are told with all their steps
_HEADS = ("requirement", "verdict", "tried", "bad", "why")


class _Html(str):
    """Markup."""

    __slots__ = ()


def _tag(name: str, *children: str, **attributes: str) -> _Html:
    """An element; `class_` is the attribute class, and `aria_label` aria-label."""
    parts = [f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items()]
    return _Html(f"<{name}{''.join(parts)}>{_join(children)}</{name}>")


def _text(text: str) -> str:
    return html.escape(printable(text))


def _join(children: Iterable[str]) -> _Html:
    return _Html("".join(child if isinstance(child, _Html) else _text(child) for child in children))


def render_html(table: Table) -> str:
    """The whole page, in characters that every encoding of a file can hold (UTF-8 is declared)."""
    title = f"What {table.mechanism} guarantees"
    head = _join(
        [
            _Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            _tag("title", title),
            _Html(f"<style>{STYLE}</style>"),
        ]
    )
    body = _join(
        [
            _tag("a", "Skip to the requirements", class_="skip-link", href="#requirements"),
            _tag("header", _tag("h1", title), *_summary(table)),
            _tag("main", *_requirements(table), *_absent(table), *_facts(table), id="requirements", tabindex="-1"),
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en">{_tag("head", head)}\n{_tag("body", body)}</html>\n'


# -- the top ---------------------------------------------------------------------------------------------------------


def _summary(table: Table) -> Iterator[_Html]:
    yield _tag("p", _verdict(table.verdict), f" {totals(table)}", class_="totals")
    yield _tag("p", f"{made(table)} · {table.seconds:.1f} s · ", _command(table.again))
    if any(row.marks for row in table.rows):
        legend = "; ".join(f"{sign} {words}" for _, sign, words in _CELLS.values())
        yield _tag("p", f"Strips have a cell for each trial: {legend}.", class_="legend")
    for verdict, what in (("fail", "Failed: "), ("unknown", "Unknown: ")):
        names = [row.id for _, rows in groups(table) for row in rows if row.verdict == verdict]
        if names:
            links = [_tag("li", _tag("a", name, href=f"#{name}")) for name in names]
            yield _tag("nav", what, _tag("ul", *links), aria_label=f"{what.rstrip(': ')} requirements")


def _facts(table: Table) -> Iterator[_Html]:
    facts = {"mechanism": table.mechanism, "file": table.file, **table.facts}
    yield _tag("h2", "What it ran on")
    yield _tag("dl", *(part for key, value in facts.items() for part in (_tag("dt", key), _tag("dd", _value(value)))))


def _command(line: str) -> _Html:
    """A command line that is not broken within an option."""
    return _tag("code", *(part for word in line.split(" ") for part in (_tag("span", word), " ")))


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _absent(table: Table) -> Iterator[_Html]:
    found = [
        _tag("li", _verdict(verdict), f" {why}: {', '.join(ids)} ({count(number, 'case')})")
        for verdict, why, number, ids in absent(table)
    ]
    if found:
        yield _tag("h2", "Not tried")
        yield _tag("ul", *found)


def _verdict(verdict: Verdict) -> _Html:
    return _tag("span", _tag("span", _SIGNS[verdict], aria_hidden="true"), f" {verdict}", class_=f"verdict {verdict}")


# -- the table -------------------------------------------------------------------------------------------------------


def _requirements(table: Table) -> Iterator[_Html]:
    for name, rows in groups(table):
        yield _tag("h2", name.capitalize())
        # the roles are what a narrow screen's `display: grid` would take from a table
        heads = _tag("tr", *(_tag("th", head, scope="col", role="columnheader") for head in _HEADS), role="row")
        bodies = [_tag("tbody", *_row(table, row), role="rowgroup") for row in rows]
        label = f"requirements: {name}"
        yield _tag("table", _tag("thead", heads, role="rowgroup"), *bodies, role="table", aria_label=label)


def _row(table: Table, row: Row) -> Iterator[_Html]:
    cells = [
        _tag("th", row.id, scope="row", role="rowheader"),
        _tag("td", _verdict(row.verdict), role="cell"),
        _tag("td", tried(row), class_="number", role="cell", data_head="tried"),
        _tag("td", bad(row), class_="number", role="cell", data_head="bad"),
        _tag("td", row.why, class_="why", role="cell"),
    ]
    yield _tag("tr", *cells, role="row")
    heading = _tag("summary", _tag("h3", f"{row.id}: {row.title}"))
    folded = _tag("details", heading, _tag("div", *_folded(table, row), id=row.id))  # a link to what is in it opens it
    yield _tag("tr", _tag("td", folded, colspan="5", role="cell"), role="row", class_="more")


def _folded(table: Table, row: Row) -> Iterator[_Html]:
    for head, text in (
        ("", row.about),
        ("Usual cause of a failure: ", row.causes),
        ("Source: ", ", ".join(row.source)),
    ):
        if text:
            yield _tag("p", _tag("b", head) if head else "", " ".join(text.split()))
    yield _tag("p", _tag("b", "To try it alone: "), _command(replay(table, row)))
    if row.skipped:
        yield _tag("p", _tag("b", "Not tried here: "), "; ".join(dict.fromkeys(row.skipped)))
    numbers = list(row.bad) if sum(marks.count("x") for _, marks in row.marks) == len(row.bad) else []
    for name, marks in row.marks:
        many = marks.count("x")
        yield from _strip(row, name, marks, numbers[:many])
        numbers = numbers[many:]
    told: dict[tuple[str, ...], int] = {}
    for trial in [*wrong(row), *(trial for trial in row.trials if trial.verdict == "pass")]:
        first = told.setdefault((trial.verdict, *trial.problems, trial.trouble), trial.number)
        yield _trial(table, row, trial, first, len(told) <= _WHOLE)


def _strip(row: Row, name: str, marks: str, numbers: list[int]) -> Iterator[_Html]:
    """A sentence, and a cell for each trial; `numbers`: of the bad ones, empty where they are not known."""
    known = {trial.number for trial in wrong(row)}
    parts: list[str] = [f"{name}: {count(len(marks), 'trial')}, {marks.count('x') or 'none'} bad"]
    named: list[str] = [_tag("a", str(n), href=f"#{row.id}-{n}") for n in numbers if n in known]
    named += [ranges([n for n in numbers if n not in known])] if set(numbers) - known else []
    for place, name_of in enumerate(named):
        parts += [", " if place else ": trial ", name_of]
    if "?" in marks:
        parts.append(f"; {marks.count('?')} could not be told")
    yield _tag("p", *parts, class_="strip-words")
    left = iter(numbers)
    cells = []
    for place, mark in enumerate(marks, 1):
        kind, sign, words = _CELLS[mark]
        known_as = next(left, None) if mark == "x" else None
        title = f"{place} of {len(marks)}: {words}" if known_as is None else f"trial {known_as}: {words}"
        cells.append(_tag("i", sign, class_=kind, title=title))
    yield _tag("div", *cells, class_="strip", aria_hidden="true")  # the sentence says it to a screen reader


# -- the evidence ----------------------------------------------------------------------------------------------------


def _trial(table: Table, row: Row, trial: Trial, first: int, whole: bool) -> _Html:
    """One trial; `first`: the one that had the same problems; `whole`: with its steps."""
    name = " · ".join(filter(None, (trial.where, trial.choice)))
    summary = _tag("summary", _tag("h4", _verdict(trial.verdict), f" Trial {trial.number}: {name}"))
    call, *made_by = where(trial) or [""]
    body = [_tag("p", call, *(_join([_Html("<br>"), _tag("code", line)]) for line in made_by))] if call else []
    if first != trial.number and trial.verdict != "pass":
        body.append(_tag("p", "The same problems as at ", _tag("a", f"trial {first}", href=f"#{row.id}-{first}"), "."))
    elif whole:
        body += [_tag("ol", *map(_step, trial.steps)), _problems(unsaid(trial))]
    else:
        body.append(_problems(list(trial.problems)))
    if trial.choice and trial.verdict != "pass":
        body.append(_tag("p", "To try it alone: ", _command(replay(table, row, trial))))
    if trial.trouble:
        body.append(_tag("p", _verdict("unknown"), f": {trial.trouble}"))
    return _tag("details", summary, _tag("div", *body, id=f"{row.id}-{trial.number}"), class_="trial")


def _step(step: Heard) -> _Html:
    said = [_tag("pre", _Html("\n".join(map(_text, output(step)))))] if step.output.strip() else []
    return _tag("li", f"{step.what}{status(step)}", *said, _problems(list(step.problems)))


def _problems(problems: list[str]) -> _Html:
    if not problems:
        return _Html("")
    return _tag(
        "ul", *(_tag("li", _tag("span", "✗", aria_hidden="true"), f" {text}") for text in problems), class_="problems"
    )

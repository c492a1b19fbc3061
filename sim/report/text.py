"""The final report for people: a table, totals, what was skipped, and each failure with all that is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sim.check import Finding, Result
from sim.expect import printable
from sim.report.words import common, decisive, parameters, totals, why
from sim.scenario import Verdict

STYLES: dict[Verdict, str] = {
    "pass": "green",
    "fail": "bold red",
    "unknown": "bold yellow",
    "skip": "cyan",
    "not-offered": "cyan",
}


def show(console: Console, results: Sequence[Result], seconds: float | None = None) -> None:
    """Print the whole report; `seconds` is how long all runs together took by the clock on the wall."""
    if results:
        console.print(table(results))
    _skips(console, results)
    for result in results:
        if result.verdict in ("fail", "unknown"):
            failure(console, result)
    line = totals(results) + (f" · {seconds:.1f} s" if seconds is not None else "")
    if shared := common(results):
        line += " · " + ", ".join(f"{key} {value}" for key, value in shared.items())
    order: tuple[Verdict, ...] = ("fail", "unknown", "pass")
    worst: Verdict = next((v for v in order if any(r.verdict == v for r in results)), "skip")
    console.print(Text(line, style=STYLES[worst]), soft_wrap=True)


def table(results: Sequence[Result]) -> Table:
    """A row a run. Parameters that all runs share are left to the line of totals."""
    shared = common(results)
    # a power cut has its own kind of disk: that is no news
    keys = [key for key in ("stack", "mechanism", "recover", "family", "dad") if key not in shared]
    keys = [key for key in keys if any(key in parameters(result.params) for result in results)]
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", expand=True)
    grid.add_column("scenario", overflow="fold", min_width=12)
    for key in keys:
        grid.add_column(key, overflow="fold")
    grid.add_column("verdict", no_wrap=True)
    grid.add_column("s", justify="right", no_wrap=True)
    grid.add_column("why", overflow="fold", min_width=24, ratio=1)
    for result in results:
        values = parameters(result.params)
        ran = result.verdict not in ("skip", "not-offered")
        grid.add_row(
            Text(printable(result.scenario)),
            *(Text(printable(values.get(key, ""))) for key in keys),
            Text(result.verdict, style=STYLES[result.verdict]),
            f"{result.seconds:.1f}" if ran else "",
            Text(printable(result.summary)),
        )
    return grid


def _skips(console: Console, results: Sequence[Result]) -> None:
    """Every run that was not made, by name: grouped by the reason."""
    by_reason: dict[str, list[Result]] = {}
    for result in results:
        if result.verdict in ("skip", "not-offered"):
            by_reason.setdefault(f"{result.verdict}: {printable(why(result))}", []).append(result)
    for reason, group in by_reason.items():
        console.print(Text(f"{reason} ({len(group)})", style="cyan"), soft_wrap=True)
        names = [" ".join(filter(None, (r.scenario, r.params.recover))) for r in group]
        console.print(Padding(Text(printable(", ".join(names))), (0, 0, 1, 2)))


def failure(console: Console, result: Result) -> None:
    """Print one run that did not pass, with all that is known of it."""
    words = ", ".join(f"{key} {value}" for key, value in parameters(result.params).items())
    head = Text.assemble(
        (result.verdict.upper(), STYLES[result.verdict]),
        (f"  {printable(result.scenario)}", "bold"),
        (f"  {printable(words)}", "dim"),
    )
    console.print(head, soft_wrap=True)
    told: set[str] = set()
    for finding in decisive(result):
        line = Text("  ")
        line.append(finding.check, style=STYLES[finding.verdict])
        if finding.verdict != result.verdict:
            line.append(f" ({finding.verdict})", style="dim")
        line.append(f": {printable(finding.why)}")
        console.print(line, soft_wrap=True)
        _details(console, finding, told)
    for finding in result.findings:
        if finding.verdict == "pass" and finding.detail:  # what commands said on the way
            console.print(Text(f"  {finding.check}: {printable(finding.why)}", style="dim"), soft_wrap=True)
            _details(console, finding, set())
    console.print(Text(f"  again: {printable(result.again)}\n"), soft_wrap=True)


def _details(console: Console, finding: Finding, told: set[str]) -> None:
    """The evidence of a finding; what another one has shown already is only counted."""
    for detail in finding.detail:
        if detail not in told:
            style = "dim" if detail.startswith(("| ", "$ ")) or finding.verdict == "pass" else ""
            console.print(Text(f"      {printable(detail)}", style=style), soft_wrap=True)
    if again := sum(detail in told for detail in finding.detail):
        console.print(Text(f"      {again} as above", style="dim"), soft_wrap=True)
    told.update(finding.detail)

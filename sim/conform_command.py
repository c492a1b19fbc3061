"""`sim conform`: what a mechanism guarantees, requirement by requirement."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.arguments import counted, output_file, parse_names, unwritable, write_out
from sim.errors import BadInput, Mistake

if TYPE_CHECKING:
    from rich.console import Console

    from sim.conform.cases import Case
    from sim.conform.values import Table
    from sim.planned import Plan
    from sim.scenario import Mechanism, Scenario

_DIGITS = 9
QUICK = 1
"""Points of each case in a quick run."""


@click.command()
@click.argument("mechanism", required=False, metavar="NAME|FILE")
@click.option("--only", metavar="ID,…", callback=parse_names, help="Only these requirements.")
@click.option("--at", metavar="N,…", callback=parse_names, help="Only these trials, by the numbers of a table.")
@click.option("--quick", is_flag=True, help="A sample of every requirement, chosen by SIM_SEED.")
@click.option("-n", "workers", type=click.IntRange(min=1), metavar="WORKERS", help="Trials at once. Default: CPUs.")
@click.option(
    "--json", "json_file", metavar="FILE", callback=output_file, help="Write the table; - is standard output."
)
@click.option("--junit", "junit_file", metavar="FILE", callback=output_file, help="Write the table for a CI system.")
@click.option("--tap", is_flag=True, help="Print the table in the Test Anything Protocol.")
@click.option("--html", metavar="DIR", help="Write DIR/index.html, one page with all evidence.")
@click.option("--explain", metavar="ID", help="Tell the story of a requirement, and what usually breaks it.")
@click.option("--requirements", metavar="FOLDER", help="Requirement files in place of the shipped ones.")
def conform(
    mechanism: str | None,
    only: tuple[str, ...] | None,
    at: tuple[str, ...] | None,
    quick: bool,
    workers: int | None,
    json_file: str | None,
    junit_file: str | None,
    tap: bool,
    html: str | None,
    explain: str | None,
    requirements: str | None,
) -> int:
    """Try what a rollback mechanism guarantees: every requirement, at every instant.

    \b
    Exit status: 0 all passed · 1 some failed · 2 bad input, found before
    anything runs · 3 some unknown, none failed · 4 nothing could run here
    """
    from rich.console import Console

    from sim.conform.cases import requirements as read_requirements
    from sim.report import conform as words

    scenarios = _chosen(read_requirements(requirements or ""), only)
    if explain is not None:
        words.explain(Console(highlight=False), _chosen(scenarios, (explain,))[0], mechanism or "MECHANISM")
        return 0
    if mechanism is None:
        raise click.UsageError("Missing argument 'NAME|FILE': the mechanism that is tried (or --explain ID).")
    if sum((json_file == "-", junit_file == "-", tap)) > 1:
        raise click.UsageError("only one of --json -, --junit - and --tap can have the standard output")
    folder = _folder(html)
    console = Console(stderr=tap or "-" in (json_file, junit_file), highlight=False)
    again = shlex.join(["sim", "conform", mechanism] + (["--requirements", requirements] if requirements else []))
    table = _table(console, mechanism, scenarios, quick, _numbers(at), workers, again)
    words.show(console, table)
    _write(table, json_file, junit_file, tap, folder)
    return words.exit_status(table)


def _chosen(scenarios: list[Scenario], only: Sequence[str] | None) -> list[Scenario]:
    from sim.document import nearest, shown

    if only is None:
        return scenarios
    known = {one.requirement.id: one for one in scenarios if one.requirement is not None}
    wrong = [Mistake("--only", f"unknown requirement {shown(name)}; {nearest(name, known)}") for name in only
             if name not in known]  # fmt: skip
    if wrong:
        raise BadInput(wrong)
    return [one for name, one in known.items() if name in only]


def _numbers(at: tuple[str, ...] | None) -> tuple[int, ...]:
    for word in at or ():
        if not word.isdecimal() or len(word) > _DIGITS or not int(word):
            raise BadInput([Mistake("--at", f"{word!r} is no number of a trial; valid: 1, 2, …")])
    return tuple(int(word) for word in at or ())


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--html {name}: {error.strerror}") from error
    why = unwritable(Path(name) / "index.html")
    if why is not None:
        raise click.UsageError(f"--html {name}: {why}")
    return Path(name)


def _table(
    console: Console,
    name: str,
    scenarios: list[Scenario],
    quick: bool,
    at: tuple[int, ...],
    workers: int | None,
    again: str,
) -> Table:
    """Do all trials, and put what they say together."""
    from sim.conform.cases import cases_of, plans_of, quickly
    from sim.conform.conduct import Sample, conduct, rows, run_scenarios
    from sim.conform.values import Table
    from sim.crash import chosen_seed
    from sim.library import find_mechanism
    from sim.report.conform import Progress

    began = time.monotonic()
    mechanism = find_mechanism(name)
    seed = chosen_seed() if quick else 0
    cases, plans = cases_of(scenarios, name), plans_of(scenarios, name)
    if quick:
        cases, plans = quickly(cases, plans, seed)
    count = workers or len(os.sched_getaffinity(0))
    sample = Sample(QUICK if quick and not at else 0, seed, at)
    with Progress(console, f"conform {mechanism.name}") as progress:
        # a trial of a scenario is a whole run: they are few, and have no numbers that can be asked for
        runs = [] if at else plans
        ran = run_scenarios(runs, count, lambda: progress.counting(counted(len(runs), "scenario")))
        tried = conduct(cases, count, sample, progress, progress.counting)
    return Table(
        mechanism=mechanism.name,
        file=mechanism.file or "",
        rows=rows(scenarios, tried, ran),
        seconds=round(time.monotonic() - began, 2),
        seed=seed,
        facts=_facts(mechanism, cases, plans),
        again=f"SIM_SEED={seed} {again} --quick" if quick else again,  # a sample has numbers of its own
    )


def _facts(mechanism: Mechanism, cases: Sequence[Case], plans: Sequence[tuple[str, Plan]]) -> dict[str, object]:
    stacks = dict.fromkeys([case.stack for case in cases] + [plan.params.stack for _, plan in plans])
    return {
        "stacks": list(stacks),
        "topologies": list(dict.fromkeys(case.topology for case in cases)),
        "covers": list(mechanism.covers),
        "kernel": os.uname().release,
        "user": "root" if os.geteuid() == 0 else "unprivileged",
        "cases": len(cases) + len(plans),
    }


def _write(table: Table, json_file: str | None, junit_file: str | None, tap: bool, folder: Path | None) -> None:
    from sim.report import conform as words
    from sim.report.html import render_html

    if json_file is not None:
        write_out(json_file, words.render_json(table))
    if junit_file is not None:
        write_out(junit_file, words.render_junit(table))
    if tap:
        write_out("-", words.render_tap(table))
    if folder is not None:
        write_out(str(folder / "index.html"), render_html(table))
        print(f"the page: {folder / 'index.html'}", file=sys.stderr)

"""The commands of `sim`: arguments in, the stages in their order, an exit status out.

Exit status: 0 all passed · 1 some failed · 2 bad input, found before anything runs · 3 some unknown, none failed ·
4 nothing could run here · 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.arguments import Choice, chooses, counted, output_file, paths_argument, plans_of, say_left, write_out
from sim.conform_command import conform
from sim.crash_command import bench, crash
from sim.errors import BadInput, LabError, Missing, SimError

if TYPE_CHECKING:
    from rich.console import Console

    from sim.check import Result
    from sim.events import Event
    from sim.planned import Plan

BAD_INPUT = 2
INTERRUPTED = 130


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. What the user did wrong is said on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows fewer characters than we print
    try:
        status = program.main(None if arguments is None else list(arguments), prog_name="sim", standalone_mode=False)
    except BadInput as error:
        for mistake in dict.fromkeys(map(str, error.mistakes)):
            print(mistake, file=sys.stderr)
        return BAD_INPUT
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Missing as error:
        print(f"sim: {error}", file=sys.stderr)
        return 4
    except SimError as error:
        print(f"sim: {error}", file=sys.stderr)
        return 3
    return status if isinstance(status, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="snapcore", prog_name="sim")
def program() -> None:
    """Build small networks, break them, roll them back, and say whether every machine is reachable again."""


program.add_command(crash)
program.add_command(bench)
program.add_command(conform)


# -- run --------------------------------------------------------------------------------------------------------


def _shard(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    one, slash, many = value.partition("/")
    if not (slash and one.isdecimal() and many.isdecimal() and 1 <= int(one) <= int(many)):
        raise click.BadParameter(f"{value!r} is not I/N with 1 ≤ I ≤ N, as in 1/4")
    return int(one), int(many)


@program.command()
@paths_argument
@click.option("-n", "workers", type=click.IntRange(min=1), metavar="WORKERS", help="Runs at once. Default: CPUs.")
@chooses
@click.option(
    "--json", "json_file", metavar="FILE", callback=output_file, help="Write the results; - is standard output."
)
@click.option("--junit", "junit_file", metavar="FILE", callback=output_file, help="Write the results for a CI system.")
@click.option("--tap", is_flag=True, help="Print the results in the Test Anything Protocol.")
@click.option("--shard", metavar="I/N", callback=_shard, help="Only every Nth run, from the Ith.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="At most N runs of each scenario, drawn by SIM_SEED."
)
@click.option("--journal", metavar="DIR", help="Keep what happened in each run, a file of JSON lines each.")
def run(
    paths: tuple[str, ...],
    workers: int | None,
    sets: dict[str, str],
    mechanism: str | None,
    recover: tuple[str, ...] | None,
    json_file: str | None,
    junit_file: str | None,
    tap: bool,
    shard: tuple[int, int] | None,
    sample: int | None,
    journal: str | None,
) -> int:
    """Run scenarios: files, or folders with them.

    \b
    Exit status: 0 all passed · 1 some failed · 2 bad input, found before
    anything runs · 3 some unknown, none failed · 4 nothing could run here
    """
    from rich.console import Console

    from sim.report import json_, junit, text
    from sim.report import tap as tap_report
    from sim.report.words import exit_status

    if sum((json_file == "-", junit_file == "-", tap)) > 1:
        raise click.UsageError("only one of --json -, --junit - and --tap can have the standard output")
    chosen = plans_of(paths, Choice(sets, mechanism, recover))
    plans = chosen.plans if sample is None else _sampled(chosen.plans, sample)
    if shard is not None:
        plans = plans[shard[0] - 1 :: shard[1]]
    say_left(chosen)
    console = Console(stderr=tap or "-" in (json_file, junit_file), highlight=False)
    begun = time.monotonic()
    outcome = _run(plans, workers, _folder(journal), console)
    text.show(console, outcome.results, time.monotonic() - begun)
    if json_file is not None:
        write_out(json_file, json_.render(outcome.results))
    if junit_file is not None:
        write_out(junit_file, junit.render(outcome.results))
    if tap:
        write_out("-", tap_report.render(outcome.results))
    if outcome.unfinished:
        print(f"sim: interrupted; {counted(outcome.unfinished, 'run')} did not finish", file=sys.stderr)
        return INTERRUPTED
    return exit_status(outcome.results)


def _sampled(plans: Sequence[Plan], size: int) -> list[Plan]:
    """At most so many runs of each scenario that can be made, and all that cannot; the seed is printed."""
    import random

    from sim.crash import chosen_seed

    seed = chosen_seed()
    chooser = random.Random(seed)
    groups: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        if plan.skip is None and plan.not_offered is None:
            groups.setdefault(plan.file, []).append(index)
    left_out = {index for group in groups.values() for index in chooser.sample(group, max(0, len(group) - size))}
    click.echo(f"sim: {len(left_out)} runs left out, drawn by SIM_SEED={seed}", err=True)
    return [plan for index, plan in enumerate(plans) if index not in left_out]


@dataclass(frozen=True)
class _Outcome:
    results: list[Result]
    unfinished: int = 0  # runs that an interrupt cut off, or kept from beginning


def _run(plans: Sequence[Plan], workers: int | None, journal: Path | None, console: Console) -> _Outcome:
    """Do the runs that can be done here, and judge all of them, in the order of `plans`."""
    from sim.check import judge
    from sim.events import RunEnded
    from sim.parallel import run_all
    from sim.report.live import LiveView

    todo = [index for index, plan in enumerate(plans) if plan.skip is None and plan.not_offered is None]
    seen: dict[int, list[Event]] = {index: [] for index in todo}
    interrupted = False
    with LiveView(console, [plans[index] for index in todo]) as live:

        def on_event(position: int, event: Event) -> None:
            seen[todo[position]].append(event)
            live.event(position, event)

        try:
            workers = workers or min(len(os.sched_getaffinity(0)), max(len(todo), 1))
            histories = run_all([plans[index] for index in todo], workers, on_event, live.tick, journal) if todo else []
            seen = dict(zip(todo, histories, strict=True))
        except KeyboardInterrupt:
            interrupted = True
        except (Missing, LabError) as error:
            # the laboratory as a whole: nothing that had not ended can be said anything about
            kind = "missing" if isinstance(error, Missing) else "trouble"
            for events in seen.values():
                if not any(isinstance(event, RunEnded) for event in events):
                    events.append(RunEnded(events[-1].at if events else 0.0, **{kind: str(error)}))
    cut = {i for i, events in seen.items() if interrupted and not any(isinstance(e, RunEnded) for e in events)}
    results = [judge(plan, seen.get(index, ())) for index, plan in enumerate(plans) if index not in cut]
    return _Outcome(results, len(cut))


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--journal {name}: {error.strerror}") from error
    return path


# -- the others -------------------------------------------------------------------------------------------------


@program.command()
@paths_argument
@chooses
def validate(
    paths: tuple[str, ...], sets: dict[str, str], mechanism: str | None, recover: tuple[str, ...] | None
) -> int:
    """Check scenario files without running anything."""
    chosen = plans_of(paths, Choice(sets, mechanism, recover), validate=True)
    requirements = [counted(chosen.requirements, "requirement")] if chosen.requirements else []
    scenarios = [counted(chosen.scenarios, "scenario"), counted(len(chosen.plans), "run")]
    click.echo(f"{', '.join(scenarios + requirements)}: good")
    return 0


@program.command()
@paths_argument
@chooses
def show(paths: tuple[str, ...], sets: dict[str, str], mechanism: str | None, recover: tuple[str, ...] | None) -> int:
    """Print the steps that a scenario is expanded into, for each run."""
    from sim.plan import show as shown

    chosen = plans_of(paths, Choice(sets, mechanism, recover))
    say_left(chosen)
    click.echo("\n\n".join(_shown(shown, chosen.plans)))
    return 0


def _shown(shown: Callable[[Plan], str], plans: Iterable[Plan]) -> list[str]:
    return [shown(plan).rstrip("\n") for plan in plans]


@program.command()
def schema() -> int:
    """Print the JSON Schema (draft-07) of scenario files, for editors."""
    import sim.schema

    click.echo(json.dumps(sim.schema.schema(), indent=2, ensure_ascii=False))
    return 0

"""`sim crash`: one scenario, one verb, stopped at every instant that matters."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

import click

from sim.arguments import Choice, mechanism_option, output_file, plans_of, sets_option, write_out
from sim.errors import BadInput, Mistake

if TYPE_CHECKING:
    from rich.console import Console

    from sim.planned import Plan
    from sim.struck import Campaign, Report

_VERBS = ("begin", "commit", "rollback", "boot")
_DISKS = ("keep", "lose-unsynced")
_STATUS = {"pass": 0, "fail": 1, "unknown": 3, "skip": 4}


@click.command()
@click.argument("path")
@click.option("--verb", required=True, type=click.Choice(_VERBS), help="What is interrupted.")
@click.option("--disk", type=click.Choice(_DISKS), help="keep: a crash (the default); lose-unsynced: a power cut.")
@mechanism_option
@sets_option
@click.option("--at", type=click.IntRange(min=1), metavar="N", help="Only this point.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only N points, chosen by SIM_SEED.")
@click.option("--keep", is_flag=True, help="Leave the machine standing after --at, with a shell in it.")
@click.option("-n", "workers", type=click.IntRange(min=1), metavar="WORKERS", help="At once. Default: CPUs.")
@click.option("--json", "json_file", metavar="FILE", callback=output_file, help="Write the result; - is the output.")
def crash(
    path: str,
    verb: str,
    disk: str | None,
    mechanism: str | None,
    sets: dict[str, str],
    at: int | None,
    sample: int | None,
    keep: bool,
    workers: int | None,
    json_file: str | None,
) -> int:
    """Stop a verb before every call that changes the disk, boot, and say what is left.

    \b
    Exit status: 0 no bad point · 1 bad points · 2 bad input · 3 unknown
    4 could not run here
    """
    from rich.console import Console

    from sim.crash import chosen_seed
    from sim.struck import Campaign

    if keep and at is None:
        raise click.UsageError("--keep needs --at N: the point whose machine is to be left standing")
    if keep and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("--keep opens a shell in the machine: it needs a terminal as standard input and output")
    plan = _plan(path, {**sets, "disk": _disk(disk, sets)}, mechanism)
    console = Console(stderr=json_file == "-", highlight=False)
    lacks = next((name for name in ("begin", verb) if getattr(plan.mechanism, name) is None), None)
    if lacks:
        console.print(f"not-offered: {plan.mechanism.name} does not offer '{lacks}'", markup=False)
        return 4
    campaign = Campaign(plan, verb, None if at is None else (at,), sample or 0, chosen_seed())
    report = _conduct(console, campaign, workers or len(os.sched_getaffinity(0)))
    _say(console, report, json_file, _again(path, verb, plan, mechanism, sets))
    if keep and report.strikes:
        _stand(console, report)
    return _STATUS[report.verdict]


@click.group()
def bench() -> None:
    """How fast this laboratory is on this machine."""


@bench.command("crash")
@click.argument("path", required=False)
@click.option("--verb", default="begin", type=click.Choice(_VERBS), help="What is interrupted.", show_default=True)
@click.option("--disk", type=click.Choice(_DISKS), help="keep: a crash (the default); lose-unsynced: a power cut.")
@click.option("--mechanism", metavar="NAME|FILE", default="initscript", help="The mechanism.", show_default=True)
@sets_option
@click.option("-n", "workers", type=click.IntRange(min=1), metavar="WORKERS", help="At once. Default: CPUs.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, help="Points of each worker.", show_default=True)
def bench_crash(
    path: str | None,
    verb: str,
    disk: str | None,
    mechanism: str,
    sets: dict[str, str],
    workers: int | None,
    rounds: int,
) -> None:
    """Points per second, beside what the machine itself needs: both measured in one run.

    The floor of a point is the verb under the filter, an empty machine's boot, and a copy of the disk (an image: and
    its mount); the last two for each image that a power cut leaves.
    """
    from sim.bench import crash_speed
    from sim.library import shipped
    from sim.struck import Campaign

    path = path or str(shipped() / "files/changed-file.sim.yaml")
    plan = _plan(path, {**sets, "disk": _disk(disk, sets)}, mechanism)
    speed = crash_speed(Campaign(plan, verb), rounds, workers or len(os.sched_getaffinity(0)))
    click.echo(f"{speed.points} points of {verb}, mechanism {plan.params.mechanism}, disk {plan.params.disk}")
    times = f"{speed.images} × " if speed.images > 1 else ""
    parts = f"verb {_ms(speed.verb)} + {times}(empty boot {_ms(speed.boot)} + disk {_ms(speed.copy)})"
    click.echo(f"floor   {_ms(speed.floor):>8} a point: {parts}")
    click.echo(f"crash   {_ms(speed.point):>8} a point: {speed.ratio:.2f} × the floor")
    click.echo(f"        {speed.rate:.1f} points a second, {speed.workers} at once")


@bench.command("strategies")
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Runs of each.", show_default=True)
def bench_strategies(paths: tuple[str, ...], rounds: int) -> None:
    """What a rollback of a running host costs by each strategy of snapcore: a table of medians.

    Outages are measured by probes at 1 kHz, from the beginning of the rollback on.
    """
    from sim.strategies import compare, in_words

    for line in in_words(compare(paths, rounds, lambda words: click.echo(words, err=True))):
        click.echo(line)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _disk(disk: str | None, sets: dict[str, str]) -> str:
    if disk is not None and sets.get("disk", disk) != disk:
        raise click.UsageError(f"the disk is set twice: {disk!r} and {sets['disk']!r}")
    return disk or sets.get("disk", "keep")


def _plan(path: str, sets: dict[str, str], mechanism: str | None) -> Plan:
    """The run whose verb is interrupted. Raises BadInput when there is not exactly one, or it changes nothing."""
    from dataclasses import replace

    from sim.struck import split

    chosen = plans_of([path], Choice(sets, mechanism, ("rollback",)))
    plans = chosen.plans
    if chosen.scenarios != 1:
        raise BadInput([Mistake(path, f"{chosen.scenarios} scenarios are here: name one file")])
    if len(plans) != 1:
        choices = sorted({f"stack={plan.params.stack} mechanism={plan.params.mechanism}" for plan in plans})
        raise BadInput([Mistake(path, f"{len(plans)} runs: choose one by --set ({'; '.join(choices)})")])
    begin, changes = split(plans[0])
    if not changes:
        raise BadInput([Mistake(plans[0].file, "a crash needs a change after the begin")])
    return replace(plans[0], subject=begin.on)


def _conduct(console: Console, campaign: Campaign, workers: int) -> Report:
    from sim.crash import conduct
    from sim.report.crash import Progress

    params = campaign.plan.params
    title = f"{campaign.verb} of {params.mechanism}, disk {params.disk}"
    with Progress(console, title, 2 if params.disk == "lose-unsynced" else 1) as progress:
        return conduct(campaign, workers, progress)


def _say(console: Console, report: Report, json_file: str | None, again: str) -> None:
    from sim.report import crash as words

    words.show(console, report, again)
    if json_file is not None:
        write_out(json_file, words.render(report))


def _again(path: str, verb: str, plan: Plan, mechanism: str | None, sets: dict[str, str]) -> str:
    """The command line that repeats one point, without its number."""
    words = ["sim", "crash", path, "--verb", verb, "--disk", plan.params.disk]
    words += ["--mechanism", mechanism] if mechanism else []
    for key, value in sets.items():
        words += ["--set", f"{key}={value}"] if key != "disk" else []
    return shlex.join(words)


def _stand(console: Console, report: Report) -> None:
    from sim.look import stand

    wrong = [strike for strike in report.strikes if not strike.good and not strike.unknown]
    strike = (wrong or list(report.strikes))[0]
    name = report.campaign.plan.subject
    console.print(f"\n{name} after the boot; this shell is in it. `exit` or Ctrl-D ends it, and nothing is left.\n")
    stand(report, strike)

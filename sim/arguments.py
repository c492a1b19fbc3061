"""What the commands of `sim` have in common: options that choose the runs, and files that they write."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.errors import BadInput, LabError, Mistake

if TYPE_CHECKING:
    from sim.planned import Plan
    from sim.scenario import Scenario

_SETTABLE = ("stack", "mechanism", "recover", "family", "disk", "dad")


@dataclass(frozen=True)
class Choice:
    """What the command line chooses for every scenario: parameters replace what the file says."""

    sets: dict[str, str]
    mechanism: str | None
    recover: tuple[str, ...] | None


def parse_sets(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`--set KEY=VALUE`, repeated, as a mapping."""
    sets: dict[str, str] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not rest:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        if key not in _SETTABLE:
            near = difflib.get_close_matches(key, _SETTABLE, 1)
            hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(_SETTABLE)}"
            raise click.BadParameter(f"nothing is called {key!r}; {hint}")
        if sets.setdefault(key, rest) != rest:
            raise click.BadParameter(f"{key} is set twice: {sets[key]!r} and {rest!r}")
    return sets


def parse_names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`NAME,…` as a tuple without repetitions."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if not all(names):
        raise click.BadParameter(f"{value!r} is not NAME,…")
    return names


def output_file(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A file that can be written in the end: better to know now than after an hour."""
    if value in (None, "-"):
        return value
    why = unwritable(Path(str(value)))
    if why is not None:
        raise click.BadParameter(why)
    return value


def unwritable(path: Path) -> str | None:
    """Why `write_out` could not write this file, or None."""
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path} is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return None if os.access(path if path.exists() else folder, os.W_OK) else f"{path} can't be written"


paths_argument = click.argument("paths", nargs=-1, required=True, metavar="PATH…")


sets_option = click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", callback=parse_sets, help=", ".join(_SETTABLE)
)
mechanism_option = click.option(
    "--mechanism", metavar="NAME|FILE", help="The rollback mechanism, in place of the file's."
)


def chooses(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose parameters: the same for every command that expands scenarios."""
    recover = click.option("--recover", metavar="NAME,…", callback=parse_names, help="Only these recoveries.")
    return sets_option(mechanism_option(recover(command)))


@dataclass(frozen=True)
class Chosen:
    """What paths and options stand for. `requirements`: those that are left to `sim conform`, not run here."""

    scenarios: int
    plans: list[Plan]
    requirements: int = 0


def plans_of(paths: Sequence[str], choice: Choice, validate: bool = False) -> Chosen:
    """The scenarios below `paths`, and all their runs. Raises BadInput with every mistake there is.

    A requirement (`sim conform`) is a scenario too where its file is named and says what is changed. `validate`: files
    are only looked at, so that one of which there is no run is no mistake.
    """
    from sim.load import load_all
    from sim.plan import expand

    loaded = load_all(paths)
    scenarios = [scenario for scenario in loaded if runs(scenario, paths)]
    mistakes = [] if validate else [*unrunnable(loaded, paths)]
    plans: list[Plan] = []
    for scenario in scenarios:
        try:
            plans += expand(scenario, choice.sets, choice.mechanism, choice.recover)
        except BadInput as error:
            mistakes += error.mistakes
    if mistakes:
        raise BadInput(mistakes)
    if not loaded:
        raise BadInput([Mistake(path, "no scenario here: they are called NAME.sim.yaml") for path in paths])
    if not scenarios and not validate:
        raise BadInput([Mistake(path, f"holds requirements alone; valid: {_CONFORM}") for path in paths])
    return Chosen(len(scenarios), plans, len(loaded) - len(scenarios))


_CONFORM = "sim conform MECHANISM"


def runs(scenario: Scenario, paths: Sequence[str]) -> bool:
    """Whether `sim run PATHS` runs it: a requirement only where its file is named, and if it says what is changed."""
    return scenario.requirement is None or (_named(scenario, paths) and not _only_tried(scenario))


def unrunnable(scenarios: Sequence[Scenario], paths: Sequence[str]) -> Iterator[Mistake]:
    """A mistake for each file that is named and is nothing but a requirement."""
    for scenario in scenarios:
        if scenario.requirement is not None and _only_tried(scenario) and _named(scenario, paths):
            how = f"{_CONFORM} --only {scenario.requirement.id}"
            yield Mistake(scenario.file, f"is a requirement without a change of its own; valid: {how}")


def _only_tried(scenario: Scenario) -> bool:
    return scenario.change is None and scenario.steps is None


def _named(scenario: Scenario, paths: Sequence[str]) -> bool:
    return os.path.realpath(scenario.file) in {os.path.realpath(path) for path in paths}


def say_left(chosen: Chosen) -> None:
    """One line on standard error about the requirements that were passed over."""
    if chosen.requirements:
        print(f"sim: {counted(chosen.requirements, 'requirement')} left to `{_CONFORM}`", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def write_out(name: str, text: str) -> None:
    """Write `text` to standard output (`-`) or to a file, which is wholly old or wholly new whatever happens."""
    if name == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        path = Path(os.path.realpath(name))
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: there is nothing to replace
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path, text)
    except OSError as error:
        raise LabError(f"can't write {name}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)  # mkstemp makes files that nobody else can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

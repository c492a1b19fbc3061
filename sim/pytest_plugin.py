"""pytest collects scenario files, and tests written in Python get laboratories.

    pytest -n auto tests/network --sim-mechanism packaging/my-initscript.yaml

`NAME.sim.yaml` (also .yml, .json) is collected as one item for each of its runs: `NAME[STACK-MECHANISM-RECOVERY]`.
A run that fails shows what `sim run` shows; one that is unknown fails too, by that name; skip and not-offered are
skips. The parameters of a run are properties of its case in JUnit files. The fixture `world` is `sim.api.World`.

Nothing but pytest is imported before the first scenario file is found, or the first test asks for `world`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from sim.api import World
    from sim.check import Result
    from sim.events import Event
    from sim.planned import Plan
    from sim.remote import Server

_SERVER: pytest.StashKey[Server] = pytest.StashKey()
_SUFFIXES = (".sim.yaml", ".sim.yml", ".sim.json")


class Fail(Exception):
    """A run whose verdict is fail: the product is wrong."""

    __module__ = "builtins"  # reports then call it by its bare name, as they do with pytest's own


class Unknown(Exception):
    """A run whose verdict is unknown: the laboratory could not tell."""

    __module__ = "builtins"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `sim run` that choose runs."""
    group = parser.getgroup("sim", "scenario files (*.sim.yaml)")
    group.addoption("--sim-mechanism", metavar="NAME|FILE", help="the rollback mechanism, in place of the file's")
    group.addoption("--sim-recover", metavar="NAME,…", help="only these recoveries")
    group.addoption(
        "--sim-set", metavar="KEY=VALUE", action="append", default=[], help="stack, family, disk or dad of all runs"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an option that says nothing; whether names are known is seen when a scenario is planned."""
    for text in config.getoption("sim_set"):
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise pytest.UsageError(f"--sim-set: {text!r} is not KEY=VALUE")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A scenario file."""
    if file_path.name.endswith(_SUFFIXES):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class ScenarioFile(pytest.File):
    """A scenario file: one item for each run."""

    def collect(self) -> Iterable[pytest.Item]:
        """The runs. What is wrong with the file is a collection error that says where."""
        from sim.cli import lacking

        if lack := lacking():
            raise self.CollectError(f"sim: {lack}")
        from sim.errors import BadInput

        try:
            plans = self._plans()
        except BadInput as error:
            mistakes = (str(mistake).replace("--set", "--sim-set", 1) for mistake in error.mistakes)
            raise self.CollectError("\n".join(dict.fromkeys(mistakes))) from None
        for plan in plans:
            yield ScenarioItem.from_parent(self, name=_name(plan), plan=plan)

    def _plans(self) -> list[Plan]:
        """Its runs. A requirement (`sim conform`) has some only where its file is named, as for `sim run`."""
        from sim.arguments import runs, unrunnable
        from sim.errors import BadInput
        from sim.load import load_scenario
        from sim.plan import expand

        scenario = load_scenario(self._shown())
        named = [str(self.path)] if self.session.isinitpath(self.path) else []
        if mistakes := list(unrunnable([scenario], named)):
            raise BadInput(mistakes)
        if not runs(scenario, named):
            return []
        option = self.config.getoption
        sets = dict(text.split("=", 1) for text in option("sim_set"))
        recover = option("sim_recover")
        names = [name.strip() for name in recover.split(",")] if recover else None
        return expand(scenario, sets, option("sim_mechanism"), names)

    def _shown(self) -> str:
        """The path as the user would write it: relative to where pytest was started."""
        start = self.config.invocation_params.dir
        return str(self.path.relative_to(start) if self.path.is_relative_to(start) else self.path)


def _name(plan: Plan) -> str:
    from sim.report.words import parameters

    return f"{plan.scenario}[{'-'.join(parameters(plan.params).values())}]"


class ScenarioItem(pytest.Item):
    """One run of a scenario."""

    def __init__(self, *, plan: Plan, **others: Any) -> None:
        super().__init__(**others)
        from sim.report.words import parameters

        self.plan = plan
        self.user_properties.extend(parameters(plan.params).items())

    def runtest(self) -> None:
        """Run, judge, and raise what the verdict is."""
        from sim.check import judge
        from sim.report.words import why

        plan = self.plan
        runs_here = plan.skip is None and plan.not_offered is None
        result = judge(plan, self._events() if runs_here else [])
        self.user_properties.append(("verdict", result.verdict))
        if result.verdict in ("skip", "not-offered"):
            pytest.skip(f"{result.verdict}: {why(result)}" if result.verdict == "not-offered" else why(result))
        if result.verdict != "pass":
            raise (Fail if result.verdict == "fail" else Unknown)(result)

    def _events(self) -> list[Event]:
        from sim.remote import received

        return list(received(_server(self.config).start("run", self.plan)))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What `sim run` shows of a run; anything else is a mistake of ours, with its traceback."""
        if not isinstance(excinfo.value, (Fail, Unknown)):
            return super().repr_failure(excinfo, style=style)
        from sim.report.words import why

        result: Result = excinfo.value.args[0]
        shown: Any = excinfo.getrepr(style="value")
        # plain text in pytest's own form, which it can send between processes and cut into a summary
        shown.chain[0][0].reprentries[:] = shown.chain[0][0].reprentries[-1:]
        shown.chain[0][0].reprentries[0].lines[:] = _text(result).splitlines()
        shown.reprcrash.path, shown.reprcrash.lineno = str(self.path), 1
        shown.reprcrash.message = f"{result.verdict}: {why(result)}"
        return shown

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands, and its name."""
        return self.path, 0, self.name


def _text(result: Result) -> str:
    from io import StringIO

    from rich.console import Console

    from sim.report.text import failure

    out = StringIO()
    failure(Console(file=out, width=120, highlight=False, color_system=None), result)
    return out.getvalue().rstrip("\n")


# -- laboratories ------------------------------------------------------------------------------------------------------


def _server(config: pytest.Config) -> Server:
    """The process of this pytest that starts laboratories."""
    from sim.remote import Server

    if _SERVER not in config.stash:
        config.stash[_SERVER] = Server()
        config.add_cleanup(config.stash[_SERVER].close)
    return config.stash[_SERVER]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Makes laboratories: `lab = world("one-lan")`. They end with the test. See `sim.api`."""
    from sim.api import World

    mechanism = request.config.getoption("sim_mechanism") or "none"
    world = World(_server(request.config), request.path.parent, mechanism, _skip)
    yield world
    world.close()


def _skip(why: str) -> NoReturn:
    pytest.skip(why)

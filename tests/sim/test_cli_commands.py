"""The command line: what is printed where, and the exit statuses. The stages behind it are made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import good, plan, recovered, state

import sim.check
import sim.cli
from sim.errors import BadInput, LabError, Missing, Mistake
from sim.events import Event
from sim.planned import Plan

RESTORED = good()
BROKEN = recovered().picture("final", state("bad")).flows("final", internet="no-route").ended().events
KILLED = good()[:5]


class Named(str):
    """Stands for a scenario: its name is its file."""

    requirement = None


class Stages:
    """Stand-ins for load, plan and parallel; a run ends with the events of its place in `histories`."""

    def __init__(self) -> None:
        self.plans: list[Plan] = [plan()]
        self.histories: list[list[Event]] = [RESTORED]
        self.expanded: list[Any] = []
        self.ran: list[Plan] = []
        self.workers = 0
        self.journal: Path | None = None
        self.mistakes: list[Mistake] = []
        self.error: BaseException | None = None

    def load_all(self, paths: Sequence[str]) -> list[str]:
        if self.mistakes:
            raise BadInput(self.mistakes)
        return [Named(path) for path in paths]

    def expand(self, scenario: str, sets: Any, mechanism: Any, recover: Any) -> list[Plan]:
        self.expanded.append((scenario, sets, mechanism, recover))
        return self.plans

    def run_all(
        self,
        plans: Sequence[Plan],
        workers: int,
        on_event: Callable[[int, Event], None],
        tick: Callable[[], None],
        journal: Path | None = None,
    ) -> list[list[Event]]:
        self.ran, self.workers, self.journal = list(plans), workers, journal
        histories = [list(self.histories[self.plans.index(plan)]) for plan in plans]
        for index, events in enumerate(histories):
            for event in events:
                on_event(index, event)
            tick()
            if self.error is not None:
                raise self.error
        return histories


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    made = Stages()
    monkeypatch.setattr(sim.check, "_selective", lambda stack: True)
    for name, functions in {
        "sim.load": {"load_all": made.load_all},
        "sim.plan": {"expand": made.expand, "show": lambda plan: f"steps of {plan.params.recover}\n"},
        "sim.parallel": {"run_all": made.run_all},
        "sim.schema": {"schema": lambda: {"title": "scenario"}},
    }.items():
        module = types.ModuleType(name)
        for key, function in functions.items():
            setattr(module, key, function)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(sim, name.partition(".")[2], module, raising=False)
    return made


def run(*arguments: str) -> int:
    return sim.cli.main(arguments)


def test_all_passed_is_zero_and_ends_with_totals(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "scenarios") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 run: 1 passed")


@pytest.mark.parametrize(("history", "status"), [(BROKEN, 1), (KILLED, 3)])
def test_failed_is_one_and_unknown_is_three(stages: Stages, history: list[Event], status: int) -> None:
    stages.histories = [history]
    assert run("run", "x") == status


def test_what_cannot_run_here_is_not_started_and_is_four(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    stages.plans = [plan(skip="no loop devices"), plan(not_offered="none offers nothing")]
    assert run("run", "x") == 4
    assert stages.ran == []
    assert "no loop devices" in capsys.readouterr().out


def test_skips_beside_a_pass_do_not_hide_it(stages: Stages) -> None:
    stages.plans = [plan(skip="no loop devices"), plan(recover="crash")]
    stages.histories = [[], RESTORED]
    assert run("run", "x") == 0
    assert stages.ran == stages.plans[1:]


def test_bad_input_is_one_line_a_mistake_and_nothing_runs(
    stages: Stages, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stages.mistakes = [Mistake("a.sim.yaml", "unknown key 'topolgy'; did you mean 'topology'?", 3, 1)] * 2
    stages.mistakes.append(Mistake("b.sim.yaml", "empty"))
    assert run("run", "x", "--json", str(tmp_path / "out.json")) == 2
    out, err = capsys.readouterr()
    assert err.splitlines() == ["a.sim.yaml:3:1: unknown key 'topolgy'; did you mean 'topology'?", "b.sim.yaml: empty"]
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["ruin", "x"],
        ["run", "x", "-n", "0"],
        ["run", "x", "--set", "stack"],
        ["run", "x", "--set", "stak=ifcfg"],
        ["run", "x", "--set", "stack=a", "--set", "stack=b"],
        ["run", "x", "--recover", "reboot,,crash"],
        ["run", "x", "--shard", "3/2"],
        ["run", "x", "--shard", "0/2"],
        ["run", "x", "--json", "/no/such/folder/out.json"],
        ["run", "x", "--json", "/tmp"],
        ["run", "x", "--journal", "/dev/null/x"],
        ["run", "x", "--json", "-", "--tap"],
        ["run", "x", "--html", "x"],
    ],
)
def test_a_wrong_command_line_is_two(stages: Stages, arguments: list[str]) -> None:
    assert run(*arguments) == 2
    assert stages.ran == []


def test_a_misspelt_parameter_is_told_the_nearest_name(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    run("run", "x", "--set", "stak=ifcfg")
    assert "did you mean stack?" in capsys.readouterr().err


def test_choices_reach_the_planner(stages: Stages) -> None:
    run("run", "x", "--set", "stack=ifcfg", "--set", "family=v6", "--mechanism", "none", "--recover", "reboot,crash")
    assert stages.expanded == [("x", {"stack": "ifcfg", "family": "v6"}, "none", ("reboot", "crash"))]


def test_workers_are_as_many_as_asked_and_by_default_no_more_than_runs(stages: Stages) -> None:
    run("run", "x", "-n", "7")
    assert stages.workers == 7
    run("run", "x")
    assert stages.workers == 1


def test_shards_share_out_all_runs(stages: Stages) -> None:
    recoveries = ["rollback", "reboot", "crash"]
    stages.plans = [plan(recover=recovery) for recovery in recoveries]
    stages.histories = [RESTORED] * 3
    ran = []
    for shard in ("1/2", "2/2"):
        run("run", "x", "--shard", shard)
        ran.append([made.params.recover for made in stages.ran])
    assert ran == [["rollback", "crash"], ["reboot"]]


def test_the_journal_folder_is_made(stages: Stages, tmp_path: Path) -> None:
    run("run", "x", "--journal", str(tmp_path / "a" / "b"))
    assert stages.journal == tmp_path / "a" / "b"
    assert stages.journal.is_dir()


def test_json_to_a_file_is_whole_and_readable_by_others(stages: Stages, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")
    run("run", "x", "--json", str(out))
    assert json.loads(out.read_text())["totals"] == {"pass": 1}
    assert out.stat().st_mode & 0o444 == 0o444 & ~_umask()
    assert list(tmp_path.iterdir()) == [out]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_json_on_standard_output_is_alone_there(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    run("run", "x", "--json", "-")
    out, err = capsys.readouterr()
    assert json.loads(out)["version"] == 1
    assert "1 passed" in err


def test_json_to_a_device_does_not_replace_it(stages: Stages, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("run", "x", "--json", str(pipe)) == 0
        assert json.loads(os.read(reader, 1 << 16))["version"] == 1
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_junit_and_tap_are_written(stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("run", "x", "--junit", str(tmp_path / "out.xml"), "--tap")
    assert "<testsuite" in (tmp_path / "out.xml").read_text()
    assert capsys.readouterr().out.startswith("TAP version 14\n1..1\nok 1 - ")


def test_an_interrupt_prints_what_is_known(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    stages.plans = [plan(), plan(recover="crash")]
    stages.histories = [RESTORED, RESTORED]
    stages.error = KeyboardInterrupt()
    assert run("run", "x") == 130
    out, err = capsys.readouterr()
    assert "1 run: 1 passed" in out
    assert "interrupted; 1 run did not finish" in err


@pytest.mark.parametrize(("error", "status"), [(Missing("no user namespaces here"), 4), (LabError("no memory"), 3)])
def test_a_laboratory_that_cannot_stand_is_no_failure(
    stages: Stages, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    stages.histories = [[]]
    stages.error = error
    assert run("run", "x") == status
    assert str(error) in capsys.readouterr().out


def test_validate_counts(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    stages.plans = [plan()] * 3
    assert run("validate", "a", "b") == 0
    assert capsys.readouterr().out == "2 scenarios, 6 runs: good\n"


def test_show_prints_the_steps_of_each_run(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    stages.plans = [plan(), plan(recover="crash")]
    assert run("show", "a") == 0
    assert capsys.readouterr().out == "steps of rollback\n\nsteps of crash\n"


def test_schema_is_json(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out) == {"title": "scenario"}


def test_help_names_no_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.split("Commands:")[1].splitlines() if line.strip()}
    assert {"run", "validate", "show", "schema"} <= listed
    for name in listed:
        assert run(name, "--help") == 0


def test_without_its_extra_sim_prints_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    top = Path(sim.cli.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(top)!r}); from sim.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, "run", "x"], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'snapcore[sim]'" in done.stderr


def test_an_old_python_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sim.cli.sys, "version_info", (3, 9, 2, "final", 0))
    assert sim.cli.main(["run", "x"]) == 4
    assert capsys.readouterr().err == "sim: needs Python 3.11 or later, this is 3.9.2; snapcore itself runs here\n"

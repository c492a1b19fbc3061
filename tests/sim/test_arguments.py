"""Which runs paths stand for: requirements beside scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim.cli
from sim.arguments import Choice, Chosen, plans_of
from sim.errors import BadInput

ALL = Choice({}, None, None)
SCENARIO = """
sim: 1
topology: one-lan
subject: server
change: {config: {ethernets: {eth0: {addresses: [192.0.2.110/24]}}}}
breaks: [client -> server]
"""
REQUIREMENT = """
requirement:
  id: ID
  title: a rollback gives back what begin saved
"""
TRIES = """  tries:
    changed: [{begin: done}, {change: [content]}, {rollback: done}, {expect: old}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scenario, a requirement that is one too, and one that is not."""
    (tmp_path / "plain.sim.yaml").write_text(SCENARIO)
    (tmp_path / "K1.sim.yaml").write_text(SCENARIO + REQUIREMENT.replace("ID", "K1") + TRIES)
    only = SCENARIO[: SCENARIO.index("change:")]
    (tmp_path / "K2.sim.yaml").write_text(only + REQUIREMENT.replace("ID", "K2") + TRIES)
    return tmp_path


def scenarios(chosen: Chosen) -> set[str]:
    """The names of what runs."""
    return {plan.scenario for plan in chosen.plans}


def test_in_a_folder_requirements_are_left_to_conform(folder: Path) -> None:
    chosen = plans_of([str(folder)], ALL)
    assert (scenarios(chosen), chosen.scenarios, chosen.requirements) == ({"plain"}, 1, 2)


@pytest.mark.parametrize("both", [False, True])
def test_a_requirement_whose_file_is_named_runs_if_it_says_what_is_changed(folder: Path, both: bool) -> None:
    paths = [*([str(folder)] if both else []), f"{folder}/../{folder.name}/K1.sim.yaml"]
    chosen = plans_of(paths, ALL)
    assert scenarios(chosen) == ({"plain", "K1"} if both else {"K1"})
    assert chosen.requirements == (1 if both else 0)


def test_one_that_is_only_tried_is_a_mistake_when_its_file_is_named(folder: Path) -> None:
    with pytest.raises(BadInput) as caught:
        plans_of([str(folder / "plain.sim.yaml"), str(folder / "K2.sim.yaml")], ALL)
    (mistake,) = caught.value.mistakes
    assert mistake.file == str(folder / "K2.sim.yaml")
    assert "sim conform MECHANISM --only K2" in mistake.message


def test_a_folder_with_nothing_but_requirements_has_no_runs(folder: Path) -> None:
    (folder / "plain.sim.yaml").unlink()
    with pytest.raises(BadInput, match="requirements alone; valid: sim conform MECHANISM"):
        plans_of([str(folder)], ALL)


def test_they_are_validated_with_the_others_wherever_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.cli.main(["validate", str(folder)]) == 0
    assert capsys.readouterr().out == "1 scenario, 6 runs, 2 requirements: good\n"
    assert sim.cli.main(["validate", str(folder / "K2.sim.yaml")]) == 0
    assert capsys.readouterr().out == "0 scenarios, 0 runs, 1 requirement: good\n"
    text = (folder / "K2.sim.yaml").read_text()
    (folder / "K2.sim.yaml").write_text(text.replace("change: [content]", "change: [contents]"))
    assert sim.cli.main(["validate", str(folder)]) == 2
    assert "contents" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "said"), [("run", 1), ("show", 1)])
def test_what_is_left_is_said_on_standard_error(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    said: int,
) -> None:
    monkeypatch.setattr("sim.parallel.run_all", lambda plans, *_: [[] for _ in plans])
    for path, times in ((folder, said), (folder / "plain.sim.yaml", 0)):
        sim.cli.main([command, str(path)])
        captured = capsys.readouterr()
        assert captured.err.count("2 requirements left to `sim conform MECHANISM`") == times
        assert "conform" not in captured.out


@pytest.mark.parametrize("path", ["K2.sim.yaml", ""])
def test_crash_wants_one_that_changes_something(folder: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    (folder / "plain.sim.yaml").unlink()
    assert sim.cli.main(["crash", str(folder / path), "--verb", "begin"]) == 2
    assert "sim conform MECHANISM" in capsys.readouterr().err

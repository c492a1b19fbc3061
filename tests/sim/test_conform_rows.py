"""What the trials of a requirement come to: its verdict, its numbers, and what is asked of a picture. Nothing runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from sim.commands import program
from sim.conform.cases import Variant, cases_of, plans_of, quickly, requirements
from sim.conform.conduct import Ran, Tried, rows, run_scenarios
from sim.conform.stand import Picture, Stand
from sim.conform.trial import _Known, _Run, _Wrong
from sim.conform.values import Heard, Row, Trial
from sim.errors import BadInput
from sim.scenario import Step

CONFORMANCE = Path(__file__).parents[2] / "scenarios" / "conformance"
FOLDER = "/etc/sysconfig/network-scripts/ifcfg-"
OLD = {"type": "file", "sha256": "1", "size": 1}


def only_begin(folder: Path) -> str:
    """A mechanism that offers nothing but begin."""
    file = folder / "only-begin.yaml"
    file.write_text('mechanism: 1\nname: only-begin\nbegin: "true"\nstack: ifcfg\ncovers: [files]\n')
    return str(file)


def row(identity: str, tried: list[Tried], ran: list[Ran]) -> Row:
    """The row of a shipped requirement."""
    scenarios = [one for one in requirements() if one.requirement and one.requirement.id == identity]
    return rows(scenarios, tried, ran)[0]


def tried(identity: str, **fields: Any) -> Tried:
    """What became of the first case of a shipped requirement."""
    scenarios = [one for one in requirements() if one.requirement and one.requirement.id == identity]
    return Tried(cases_of(scenarios, "initscript")[0], **fields)


def test_a_scenario_that_needs_a_verb_that_is_not_named_is_not_offered(tmp_path: Path) -> None:
    scenarios = [one for one in requirements() if one.name == "K13"]
    ran = run_scenarios(plans_of(scenarios, only_begin(tmp_path)), 1, lambda: None)
    found = row("K13", [], ran)
    assert (found.verdict, found.why) == ("not-offered", "only-begin does not offer 'rollback'")


def test_a_scenario_for_which_this_machine_lacks_something_is_a_skip(tmp_path: Path) -> None:
    scenarios = [one for one in requirements() if one.name == "K13"]
    plans = [(name, replace(plan, skip="no ifup here")) for name, plan in plans_of(scenarios, "initscript")]
    found = row("K13", [], run_scenarios(plans, 1, lambda: None))
    assert found.verdict == "skip" and found.tried == 0
    assert found.skipped and all(line.endswith(": no ifup here") for line in found.skipped)


def test_a_sample_prefers_what_can_be_tried_here() -> None:
    scenarios = [one for one in requirements() if one.name in ("K1", "K13")]
    cases = [replace(case, skip="" if case.main else "not here") for case in cases_of(scenarios, "initscript")]
    plans = plans_of(scenarios, "initscript")
    plans = [(name, replace(plan, skip="not here")) for name, plan in plans[1:]] + plans[:1]
    for seed in range(8):
        chosen, runs = quickly(cases, plans, seed)
        assert not any(case.skip for case in chosen) and not any(plan.skip for _, plan in runs)


def test_a_verb_that_could_not_be_recorded_counts_as_one_trial_everywhere() -> None:
    broken = Trial(1, "interrupted", "", problems=("rollback exits with 9",))
    found = row("K8", [tried("K8", broken=broken, trials=[broken])], [])
    assert (found.verdict, found.points, found.tried, found.bad) == ("fail", 1, 1, (1,))


def test_a_number_that_no_trial_has_is_told_with_those_that_are_valid() -> None:
    case = tried("K8")
    assert not case.variants
    found = row("K8", [replace(case, variants=[Variant()] * 40)], [])
    assert (found.verdict, found.why) == ("unknown", "no trial of these numbers; valid: 1 to 40")


def test_a_folder_without_requirements_is_bad_input() -> None:
    with pytest.raises(BadInput, match="no requirement here"):
        requirements(str(CONFORMANCE.parent / "files"))


def test_a_requirement_that_is_stated_twice_is_bad_input(tmp_path: Path) -> None:
    text = (CONFORMANCE / "B5.sim.yaml").read_text()
    (tmp_path / "one.sim.yaml").write_text(text)
    (tmp_path / "two.sim.yaml").write_text(text.replace("name: B5", "name: other"))
    with pytest.raises(BadInput, match=r"two\.sim\.yaml: requirement B5 is stated in .*one\.sim\.yaml, too"):
        requirements(str(tmp_path))


@pytest.mark.parametrize("words", [("--html", "page"), ("--at", "9" * 5000)])
def test_what_cannot_be_written_or_counted_is_said_before_anything_runs(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page/index.html").mkdir(parents=True)
    with pytest.raises((click.UsageError, BadInput), match=words[0]):
        program(["conform", "initscript", *words], standalone_mode=False)


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [("is_spared", "odd name", False), ("is_spared", "sim-added", True), ("is_untouched", "sim-added", True)],
)
def test_a_file_that_is_there_and_should_not_be_is_wrong_unless_its_name_is_odd(
    kind: str, name: str, wrong: bool
) -> None:
    old = Picture({f"{FOLDER}one": OLD}, {}, {f"{FOLDER}one": (1, 1, 1)})
    new = Picture({**old.files, f"{FOLDER}{name}": OLD}, {}, {**old.stamps, f"{FOLDER}{name}": (2, 2, 2)})
    run = _Run.__new__(_Run)
    run.known = _Known(old, new, {}, before=old)
    assert bool(getattr(run, kind)(new)) is wrong


def test_a_machine_is_sound_as_before_only_if_what_is_beside_its_disk_is_equal_too() -> None:
    run = _Run.__new__(_Run)
    run.heard = [Heard("sound: afterwards")]
    run.stand = cast(Stand, SimpleNamespace(
        sound={("equal", frozenset({"/run/lock"}), 1)},
        disk=SimpleNamespace(fingerprint=lambda exact: "equal"),
        mechanism=SimpleNamespace(extra={"status": "true"}),
        transaction=lambda: "open",
        volatile=lambda: (frozenset({("/run/lock", 0, 0)}), 1),
    ))  # fmt: skip
    run.sound(Step("sound", None, {"is": "afterwards"}))
    vars(run.stand)["volatile"] = lambda: (frozenset({("/run/lock", 0, 0), ("/run/open", 0, 0)}), 1)
    with pytest.raises(_Wrong, match="still open: status exits with 0"):
        run.sound(Step("sound", None, {"is": "afterwards"}))

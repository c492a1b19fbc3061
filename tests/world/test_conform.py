"""`sim conform` for real: the sound script passes, each broken one fails what it breaks, and it matters not who tries.

Which broken scripts are tried is drawn by SIM_SEED, printed below; with SIM_EVERY_POINT=1 all are, at every point.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sim.commands import program
from sim.conform.cases import cases_of, plans_of, requirements
from sim.conform.conduct import Sample, conduct, rows, run_scenarios
from sim.conform.values import Row
from sim.crash import chosen_seed

BROKEN = sorted((Path(__file__).parents[1] / "data" / "broken").glob("*.yaml"))
EVERY = os.environ.get("SIM_EVERY_POINT") == "1"
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")  # the same in all workers of a run, which must agree on the tests
SEED = zlib.crc32(RUN.encode()) if RUN and "SIM_SEED" not in os.environ else chosen_seed()
DRAWN = BROKEN if EVERY else sorted(random.Random(SEED).sample(BROKEN, 4))
print(f"broken initscripts drawn by SIM_SEED={SEED}")


def rows_of(mechanism: str, only: set[str], size: int = 0, workers: int = 2, until_bad: bool = False) -> dict[str, Row]:
    """The table of some requirements."""
    scenarios = [one for one in requirements() if one.requirement and one.requirement.id in only]
    ran = run_scenarios(plans_of(scenarios, mechanism), workers, lambda: None)
    tried = conduct(cases_of(scenarios, mechanism), workers, Sample(size, SEED, until_bad=until_bad), lambda *_: None)
    return {row.id: row for row in rows(scenarios, tried, ran)}


@pytest.mark.parametrize("file", DRAWN, ids=lambda path: path.stem)
def test_a_broken_initscript_fails_what_it_breaks(file: Path) -> None:
    identity = file.name.partition("-")[0]
    row = rows_of(str(file), {identity}, until_bad=not EVERY)[identity]
    assert row.verdict == "fail", row.why
    assert row.bad and row.why
    trial = row.trials[0]
    assert trial.problems and trial.steps


def test_the_sound_initscript_passes_what_a_broken_one_fails() -> None:
    found = rows_of("initscript", {"B1", "K2", "K10", "M2", "T4"}, size=3)
    assert {identity: row.verdict for identity, row in found.items()} == dict.fromkeys(found, "pass")
    assert found["T4"].points > found["T4"].tried > 0


def test_it_matters_neither_how_often_nor_by_how_many_workers_it_is_tried() -> None:
    broken = next(str(path) for path in BROKEN if path.name.startswith("K8-"))
    tables = [rows_of(broken, {"K3", "K8", "M2"}, size=4, workers=workers) for workers in (2, 1, 2)]
    told = [{row.id: (row.verdict, row.points, row.tried, row.bad) for row in table.values()} for table in tables]
    assert told[0] == told[1] == told[2]
    assert told[0]["K8"][0] == "fail" and told[0]["M2"][0] == "pass"


def run(*words: str) -> tuple[int, str]:
    """The command: exit status and standard output."""
    done = CliRunner().invoke(program, ["conform", *words], standalone_mode=False)
    return int(done.return_value or 0), done.stdout


def test_one_bad_trial_can_be_repeated_alone(tmp_path: Path) -> None:
    broken = next(str(path) for path in BROKEN if path.name.startswith("K8-"))
    status, _ = run(broken, "--only", "K8", "--json", str(tmp_path / "all.json"), "--html", str(tmp_path))
    found: dict[str, Any] = json.loads((tmp_path / "all.json").read_text())["requirements"]["K8"]
    assert status == 1 and found["verdict"] == "fail" and found["points"] > len(found["bad"]) > 0
    assert "<html" in (tmp_path / "index.html").read_text()
    number = found["bad"][0]
    status, _ = run(broken, "--only", "K8", "--at", str(number), "--json", str(tmp_path / "one.json"))
    again = json.loads((tmp_path / "one.json").read_text())["requirements"]["K8"]
    assert status == 1 and again["bad"] == [number]


def test_a_verb_that_is_not_named_is_not_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "only-begin.yaml"
    file.write_text('mechanism: 1\nname: only-begin\nbegin: "true"\nstack: ifcfg\ncovers: [files]\n')
    status, _ = run(str(file), "--only", "B5,K1,T1,M1", "--json", str(tmp_path / "table.json"))
    found = json.loads((tmp_path / "table.json").read_text())["requirements"]
    assert {identity: row["verdict"] for identity, row in found.items()} == {
        "B5": "pass",
        "K1": "not-offered",
        "T1": "not-offered",
        "M1": "not-offered",
    }
    assert status == 0


def mechanism_file(folder: Path, **verbs: str) -> str:
    """A mechanism of the example initscript with other commands or values for these keys."""
    shipped = Path(__file__).parents[2] / "scenarios" / "mechanisms"
    lines = (shipped / "initscript.yaml").read_text().replace("from: ", f"from: {shipped}/").splitlines()
    kept = [line for line in lines if line.partition(":")[0] not in verbs]
    file = folder / "other.yaml"
    file.write_text("\n".join([*kept, *(f"{verb}: {command}" for verb, command in verbs.items()), ""]))
    return str(file)


@pytest.mark.parametrize("remembers", ["in a file of /run", "in what its file does not name"])
def test_what_a_mechanism_remembers_beside_its_records_is_there_at_every_point(remembers: str, tmp_path: Path) -> None:
    script = "/etc/init.d/networking-config"
    file = mechanism_file(
        tmp_path,
        begin=f"{script} change-begin && touch /run/open",
        commit=f"test -e /run/open && {script} change-commit || exit 199",
        rollback=f"test -e /run/open && {script} change-rollback || exit 199",
        **({} if "/run" in remembers else {"state": "[]"}),
    )
    found = rows_of(file, {"M2", "T4"}, size=2)
    assert {identity: row.verdict for identity, row in found.items()} == {"M2": "pass", "T4": "pass"}, found
    assert all(row.points > 4 for row in found.values())


def test_a_begin_that_takes_the_files_away_is_wrong_and_what_it_hinders_cannot_be_told(tmp_path: Path) -> None:
    folder = "/etc/sysconfig/network-scripts"
    moves = f"mkdir -p /var/lib/networking-config && mv {folder}/ifcfg-* /var/lib/networking-config/"
    found = rows_of(mechanism_file(tmp_path, begin=moves), {"B5", "M2"})
    assert {identity: row.verdict for identity, row in found.items()} == {"B5": "fail", "M2": "unknown"}
    assert found["B5"].why.startswith(f"{folder}/ifcfg-") and "is gone" in found["B5"].why
    assert found["M2"].why == f"No such file or directory: {folder}/ifcfg-sim-three"


def test_records_behind_a_link_are_counted(tmp_path: Path) -> None:
    kept = "mkdir -p /srv/kept && ln -sfnT /srv/kept /var/lib/kept && for n in $(seq 10); do mktemp -p /srv/kept; done"
    verbs = {"begin": kept, "commit": '"true"', "rollback": '"true"', "boot": '"true"', "state": "[/var/lib/kept]"}
    found = rows_of(mechanism_file(tmp_path, **verbs), {"K12"})["K12"]
    assert found.verdict == "fail"
    assert "its state holds 1000 files" in found.why

"""What every mechanism must do in the laboratory, and what a mechanism file may say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import MADE_UP, Said

SimRun = Callable[..., Said]
SCENARIOS = Path(__file__).parents[2] / "scenarios"
ALL = {  # what every mechanism over the files of a stack is asked for; others are about more than that
    "boot": "broken-after-reboot commit-then-reboot reboot-before-networking reboot-in-the-window",
    "files": "added-file changed-file foreign-file new-port newer-than-before other-owner package-upgrade removed-file"
    " through-a-link",
    "verbs": "begin-twice commit-after-rollback left-open rollback-without-begin second-change-fails",
}
pytestmark = pytest.mark.world

NAIVE = """#!/bin/sh
# saves and restores, and is gone after a boot
d=@config@ s=@state@
case $1 in
begin) [ ! -d $s ] || exit 199; mkdir -p $s && cp -a $d/. $s/ ;;
rollback) [ -d $s ] || exit 199; rm -rf $d/* && cp -a $s/. $d/ && rm -rf $s ;;
commit) [ -d $s ] || exit 199; rm -rf $s ;;
status) [ -d $s ] || exit 3 ;;
esac
"""
FILE = """mechanism: 1
name: site
install:
  - {from: FROM, to: /usr/local/sbin/site, mode: "0755"}
replace: {"@config@": /etc/sysconfig/network-scripts, "@state@": /var/lib/site}
begin: site begin
rollback: site rollback
commit: site commit
status: site status
state: [/var/lib/site]
stack: ifcfg
covers: [files]
"""


def site(folder: Path, text: str = FILE) -> str:
    """A mechanism file of a distribution, with its script in a folder beside it."""
    (folder / "src").mkdir()
    (folder / "src/site.sh").write_text(NAIVE)
    (folder / "site.yaml").write_text(text)
    return str(folder / "site.yaml")


@pytest.mark.parametrize("folder", ALL)
def test_the_example_initscript_passes_what_every_mechanism_is_asked_for(sim_run: SimRun, folder: str) -> None:
    first, *others = [SCENARIOS / folder / f"{name}.sim.yaml" for name in ALL[folder].split()]
    said = sim_run(first, *map(str, others), "--mechanism", "initscript")
    assert said.status == 0, said.why()
    assert set(said.verdicts) == {"pass"}


@pytest.mark.parametrize("mechanism", ["snapcore", str(SCENARIOS / "mechanisms/initscript.yaml")])
def test_a_shipped_mechanism_is_found_by_name_and_by_file(sim_run: SimRun, mechanism: str) -> None:
    said = sim_run(SCENARIOS / "files/added-file.sim.yaml", "--mechanism", mechanism)
    assert set(said.verdicts) == {"pass"}, said.why()


def test_the_initscript_is_told_another_family_by_its_mechanism_file(
    sim_run: SimRun, need: Callable[[str], str]
) -> None:
    need("ifquery")
    said = sim_run(MADE_UP, "--mechanism", "initscript-ifupdown", "--set", "stack=ifupdown")
    assert said.verdicts == ["pass"] * 3, said.why()


def test_a_mechanism_for_another_stack_is_a_skip_by_name(sim_run: SimRun) -> None:
    said = sim_run(MADE_UP, "--mechanism", "initscript-ifupdown", "--recover", "rollback")
    assert said.verdicts == ["skip"]
    assert "initscript-ifupdown works with the stack ifupdown only" in said.text.replace("\n", " ")


@pytest.mark.parametrize("source", ["src/site.sh", "./src/../src/site.sh", "ABSOLUTE"])
def test_what_is_installed_is_found_from_the_mechanism_file(sim_run: SimRun, tmp_path: Path, source: str) -> None:
    absolute = str(tmp_path / "src/site.sh")
    file = site(tmp_path, FILE.replace("FROM", absolute if source == "ABSOLUTE" else source))
    elsewhere = os.path.relpath(file)
    said = sim_run(MADE_UP, "--mechanism", elsewhere, "--recover", "rollback")
    assert said.verdicts == ["pass"], said.why()


def test_replacements_are_made_in_the_installed_text_only(sim_run: SimRun, tmp_path: Path) -> None:
    file = site(tmp_path, FILE.replace("FROM", "src/site.sh"))
    said = sim_run(
        """
sim: 1
name: replaced
topology: one-lan
steps:
  - run: {on: server, command: "grep -c @ /usr/local/sbin/site", status: 1}
  - run: {on: server, command: "stat -c %a:%U /usr/local/sbin/site; sed -n 3p /usr/local/sbin/site"}
  - expect: {output: "755:root\\nd=/etc/sysconfig/network-scripts s=/var/lib/site"}
""",
        "--mechanism",
        file,
    )
    # nothing was asked of the mechanism, so it is on no machine but the subject's
    assert said.verdicts == ["pass"], said.why()
    assert (tmp_path / "src/site.sh").read_text() == NAIVE


def test_without_a_boot_verb_nothing_is_asked_of_it_after_a_boot(sim_run: SimRun, tmp_path: Path) -> None:
    file = site(tmp_path, FILE.replace("FROM", "src/site.sh"))
    said = sim_run(MADE_UP, "--mechanism", file)
    assert [result["params"]["recover"] for result in said.results] == ["rollback"]
    said = sim_run(MADE_UP, "--mechanism", file, "--recover", "reboot,crash")
    assert said.verdicts == ["not-offered"] * 2


def test_a_boot_verb_that_does_nothing_fails_the_boots_alone(sim_run: SimRun, tmp_path: Path) -> None:
    file = site(tmp_path, FILE.replace("FROM", "src/site.sh") + 'boot: "true"\n')
    said = sim_run(MADE_UP, "--mechanism", file)
    assert said.verdicts == ["pass", "fail", "fail"], said.why()


def test_its_own_exit_status_for_a_wrong_state_is_the_one_that_counts(sim_run: SimRun, tmp_path: Path) -> None:
    refuses = SCENARIOS / "verbs/begin-twice.sim.yaml"
    file = site(tmp_path, FILE.replace("FROM", "src/site.sh") + "wrong-state: 7\n")
    said = sim_run(refuses, "--mechanism", file)
    assert said.verdicts == ["fail"]
    assert "expected exit status 7; seen 199" in said.why()
    (tmp_path / "src/site.sh").write_text(NAIVE.replace("exit 199", "exit 7"))
    said = sim_run(refuses, "--mechanism", file)
    assert said.verdicts == ["pass"], said.why()

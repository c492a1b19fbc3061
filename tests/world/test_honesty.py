"""Nothing is called pass that was not restored, and nothing is called fail that could not be told."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import MADE_UP, Said

SimRun = Callable[..., Said]
pytestmark = pytest.mark.world


def test_a_sound_mechanism_passes_every_recovery(sim_run: SimRun) -> None:
    said = sim_run(MADE_UP)
    ways = ["rollback", "reboot", "crash", "timeout", "client-loss", "quit"]  # a probe of its own would see nothing
    assert [result["params"]["recover"] for result in said.results] == ways
    assert said.verdicts == ["pass"] * 6, said.why()
    assert said.status == 0


def test_no_mechanism_fails_every_recovery_because_nothing_came_back(sim_run: SimRun) -> None:
    said = sim_run(MADE_UP, "--mechanism", "none")
    assert said.verdicts == ["fail"] * 3
    assert said.status == 1
    for result in said.results:
        failed = {finding["check"] for finding in result["findings"] if finding["verdict"] == "fail"}
        assert {"files", "kernel", "flows"} <= failed


def test_a_flow_in_breaks_that_still_works_makes_the_run_unknown(sim_run: SimRun) -> None:
    harmless = MADE_UP.replace("addresses: [192.0.2.110/24]", "addresses: [192.0.2.10/24, 192.0.2.110/24]")
    said = sim_run(harmless, "--recover", "rollback")
    assert said.verdicts == ["unknown"]
    assert "still delivered" in said.why()
    assert said.status == 3


def test_a_scenario_that_expects_a_wrong_thing_fails(sim_run: SimRun) -> None:
    said = sim_run("""
sim: 1
name: wrong
topology: one-lan
steps:
  - expect: {flows: {client -> server: unreachable}, within: 300ms}
""")
    assert said.verdicts == ["fail"]
    assert "client -> server: expected unreachable; seen delivered" in said.why()


def test_a_mechanism_that_says_ok_and_does_nothing_fails(sim_run: SimRun, tmp_path: Path) -> None:
    (tmp_path / "liar.yaml").write_text(
        "mechanism: 1\nname: liar\nbegin: echo ok\ncommit: echo ok\nrollback: echo ok\nboot: echo ok\n"
        "state: [/var/lib/liar]\nstack: ifcfg\ncovers: [files]\n"
    )
    said = sim_run(MADE_UP, "--mechanism", str(tmp_path / "liar.yaml"))
    assert said.verdicts == ["fail"] * 3


def test_a_mechanism_that_restores_files_but_is_not_run_at_boot_fails_only_the_boots(
    sim_run: SimRun, tmp_path: Path
) -> None:
    (tmp_path / "naive.sh").write_text(
        "#!/bin/sh\nd=/etc/sysconfig/network-scripts s=/var/lib/naive\n"
        "case $1 in begin) mkdir -p $s && cp -a $d/. $s/;; rollback) rm -rf $d/* && cp -a $s/. $d/ && rm -rf $s;;"
        " commit) [ -d $s ] || exit 199; rm -rf $s;; esac\n"
    )
    (tmp_path / "naive.yaml").write_text(
        "mechanism: 1\nname: naive\ninstall: [{from: naive.sh, to: /usr/sbin/naive, mode: '0755'}]\n"
        "begin: /usr/sbin/naive begin\nrollback: /usr/sbin/naive rollback\ncommit: /usr/sbin/naive commit\n"
        "boot: 'true'\nstate: [/var/lib/naive]\nstack: ifcfg\ncovers: [files]\n"
    )
    said = sim_run(MADE_UP, "--mechanism", str(tmp_path / "naive.yaml"))
    assert said.verdicts == ["pass", "fail", "fail"], said.why()


SCENARIOS = Path(__file__).parents[2] / "scenarios"
EVERY = os.environ.get("SIM_EVERY_POINT") == "1"
SEED = int(os.environ.get("SIM_SEED") or random.SystemRandom().randrange(1, 1 << 30))


def controls() -> list[Path]:
    """All shipped scenarios (requirements are for `sim conform`), or two of them, chosen by a seed."""
    files = sorted(path for path in SCENARIOS.rglob("*.sim.yaml") if path.parent.name != "conformance")
    return files if EVERY else sorted(random.Random(SEED).sample(files, 2))


def test_the_negative_control_finds_every_recovery_wanting(sim_run: SimRun) -> None:
    print(f"seed {SEED}: SIM_SEED={SEED} repeats this, SIM_EVERY_POINT=1 takes all")
    for path in controls():
        said = sim_run(path, "--mechanism", "none", "-n", "2", *(() if EVERY else ("--sample", "3")))
        wrong = [result for result in said.results if result["verdict"] == "pass" and was_to_come_back(result)]
        assert wrong == [], said.text


def was_to_come_back(result: dict[str, Any]) -> bool:
    """Whether the run is about giving something back; after a commit there is nothing to give back."""
    restored = any("at begin" in finding["why"] for finding in result["findings"] if finding["check"] == "files")
    return restored and result["params"]["recover"] != "commit"


SAVER = Path(__file__).parents[1] / "data/saver"
ADDRESS = "eth0 v4: address 192.0.2.110/24"


@pytest.mark.parametrize("recover", ["reboot", "crash"])
def test_a_boot_that_shows_the_change_for_a_moment_fails_though_all_is_as_it_was_in_the_end(
    sim_run: SimRun, recover: str
) -> None:
    said = sim_run(MADE_UP, "--mechanism", str(SAVER / "late.yaml"), "--recover", recover)
    assert said.verdicts == ["fail"], said.why()
    assert said.why().startswith("boot: server, boot 2: expected nothing of the change") and ADDRESS in said.why()
    assert "\n" not in said.why(), "nothing else is wrong"


@pytest.mark.parametrize("mechanism", ["initscript", "snapcore", str(SAVER / "durable.yaml")])
def test_a_boot_that_rolls_back_before_the_stack_shows_nothing_of_the_change(sim_run: SimRun, mechanism: str) -> None:
    said = sim_run(MADE_UP, "--mechanism", mechanism, "--recover", "reboot")
    assert said.verdicts == ["pass"], said.why()
    (found,) = [finding for result in said.results for finding in result["findings"] if finding["check"] == "boot"]
    assert found["verdict"] == "pass"

"""What programs of a machine print, however much and of whatever kind it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from laboratory import Server, in_sandbox

from sim.conform.cases import cases_of, requirements
from sim.conform.conduct import Sample, conduct, rows
from sim.mischief import barrier
from sim.world.init import LARGEST, REQUESTS

pytestmark = pytest.mark.world
MECHANISMS = Path(__file__).parents[2] / "scenarios" / "mechanisms"
TRIED = ("started together", "never begun")


def said(command: str) -> str:
    """What a command on a machine prints."""
    return in_sandbox(lambda: Server("ifcfg", {}).run(command))


def test_of_much_output_the_end_is_told() -> None:
    assert said("head -c 3000000 /dev/zero; echo; echo what it failed of").endswith("\nwhat it failed of\n")


def test_a_program_that_opens_its_output_anew_leaves_no_hole_in_it() -> None:
    assert said("echo one; echo two > /dev/stderr; echo three").endswith("two\nthree\n")


def test_output_without_end_does_not_take_all_memory() -> None:
    assert int(said("ulimit -f")) * 512 == LARGEST


def test_a_long_message_that_is_no_request_is_said_and_passed_over() -> None:
    def work() -> tuple[str, list[str]]:
        server = Server("ifcfg", {})
        rubbish = r"{ head -c 60000 /dev/zero | tr '\0' '\377'; printf '\0'; }"
        server.run(f"{rubbish} | dd of={REQUESTS} bs=60001 iflag=fullblock")
        alive = server.run("echo alive")
        return alive, [message["text"] for message in server.said if message["event"] == "note"]

    alive, notes = in_sandbox(work)
    assert alive == "alive\n"
    assert any(note.startswith(f"{REQUESTS}: no request: ") for note in notes)


def test_a_mechanism_is_judged_by_what_it_does_whatever_it_prints(tmp_path: Path) -> None:
    noise = "head -c 2000000 /dev/urandom"
    text = (MECHANISMS / "initscript.yaml").read_text().replace("from: ", f"from: {MECHANISMS}/")
    for verb in ("begin", "boot"):
        text = text.replace(f"\n{verb}: ", f"\n{verb}: {noise}; ")
    file = tmp_path / "noisy.yaml"
    file.write_text(text)
    scenarios = [one for one in requirements() if one.requirement and one.requirement.id in ("B2", "T2")]
    chosen = [case for case in cases_of(scenarios, str(file)) if case.main and case.name in TRIED]
    cases = [replace(case, index=number) for number, case in enumerate(chosen)]
    found = {row.id: row for row in rows(scenarios, conduct(cases, 2, Sample(2, 7), lambda *_: None), [])}
    assert {identity: row.verdict for identity, row in found.items()} == {"B2": "pass", "T2": "pass"}, found


@pytest.mark.parametrize("verb", ["exit 3", "printf done", "true  # and no more", "(exit 7)"])
def test_verbs_that_are_started_together_end_as_each_does_alone(verb: str) -> None:
    def work() -> tuple[int, int]:
        machine = Server("ifcfg", {}).machine
        together = machine.run(barrier([verb, verb]), 10.0)
        one, two = (int(word) for word in together.output.split()[-2:])
        assert one == two
        return one, machine.run(verb, 10.0).status

    together, alone = in_sandbox(work)
    assert together == alone

"""The requirements of `sim conform` are all there and told, and for each there is a script that breaks it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sim.document import Mistakes, read
from sim.load import load_all
from sim.mechanisms import from_file
from sim.scenario import Requirement, Scenario, Step
from sim.trials import walk

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "scenarios" / "conformance"
SOUND = ROOT / "scenarios" / "mechanisms" / "networking-config"
BROKEN = sorted((ROOT / "tests" / "data" / "broken").glob("*.yaml"))
IDS = [
    f"{group}{number}"
    for group, count in (("B", 6), ("K", 14), ("M", 3), ("T", 4), ("P", 6))
    for number in range(1, count + 1)
]


def scenario(requirement: str) -> Scenario:
    (found,) = load_all([str(CONFORMANCE / f"{requirement}.sim.yaml")])
    return found


def requirement_of(requirement: str) -> Requirement:
    found = scenario(requirement).requirement
    assert found is not None
    return found


def heads(file: Path, word: str) -> list[str]:
    """The ids after `# WORD:` at the head of a broken mechanism."""
    lines = [line for line in file.read_text().splitlines() if line.startswith(f"# {word}:")]
    return [name for line in lines for name in line.partition(":")[2].split()]


def boots(steps: Sequence[Step]) -> bool:
    return any("boot" in (step.verb, step.args.get("verb")) for step in walk(steps))


def test_every_requirement_has_one_file() -> None:
    assert sorted(path.name for path in CONFORMANCE.iterdir()) == sorted(f"{name}.sim.yaml" for name in IDS)


@pytest.mark.parametrize("name", IDS)
def test_a_requirement_is_told_and_tried_on_two_topologies(name: str) -> None:
    found, asked = scenario(name), requirement_of(name)
    assert asked.id == found.name == name
    assert found.subject == "server"
    assert len(found.about.split(". ")) >= 2, "a story has more than one sentence"
    assert asked.causes.strip() and asked.title.strip()
    assert len({found.topology.name, *(topology.name for topology in asked.topologies)}) >= 2
    assert asked.tries or found.change, "there must be something to try"


@pytest.mark.parametrize("name", IDS)
def test_after_a_boot_a_requirement_asks_whether_all_is_sound(name: str) -> None:
    for words, steps in requirement_of(name).tries.items():
        assert not boots(steps) or steps[-1].verb == "sound", words


@pytest.mark.parametrize("name", IDS)
def test_what_depends_on_an_exit_status_is_done_once(name: str) -> None:
    """`if-done` comes first: the verbs of `if-failed` may end otherwise than the one that is asked about."""
    for words, steps in requirement_of(name).tries.items():
        verbs = [step.verb for step in steps if step.verb in ("if-done", "if-failed")]
        assert verbs in ([], ["if-done", "if-failed"]), words


@pytest.mark.parametrize("name", IDS)
def test_the_laboratory_changes_nothing_on_a_disk_that_it_spoiled(name: str) -> None:
    def follow(steps: Sequence[Step], spoiled: bool) -> bool:
        ends = []
        for step in steps:
            if step.verb in ("if-done", "if-failed"):
                ends.append(follow(step.args["is"], spoiled))
                continue
            if ends:
                spoiled, ends = any(ends), []
            spoiled = step.args["is"] != "normal" if step.verb == "disk" else spoiled
            assert not (spoiled and (step.verb.startswith("change") or step.verb == "sound")), step
        return any(ends) if ends else spoiled

    for steps in requirement_of(name).tries.values():
        assert not follow(steps, False)


@pytest.mark.parametrize("name", IDS)
def test_every_requirement_has_a_script_that_breaks_it(name: str) -> None:
    assert [path for path in BROKEN if heads(path, "breaks") == [name]]


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_a_broken_script_differs_from_the_sound_one_where_it_says(file: Path) -> None:
    found = from_file(file)
    (breaks,) = heads(file, "breaks")
    assert found.name == file.stem and file.stem.startswith(f"{breaks}-")
    assert set(heads(file, "follows")) <= set(IDS) - {breaks}
    (installed,) = found.install.values()
    mistakes = Mistakes(str(file))
    node = read(file, mistakes)
    assert node is not None and node.get("about") is not None
    replaced = node.get("replace")
    text = SOUND.read_text()
    for key, value in replaced.items() if replaced else ():
        assert text.count(key.text) == 1, f"{key.text!r} must be there once"
        text = text.replace(key.text, str(value.value))
    assert installed.content == text.encode()
    assert text != SOUND.read_text() or found.covers != ("files",), "nothing is broken"


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_a_broken_script_is_still_a_shell_script(file: Path) -> None:
    (installed,) = from_file(file).install.values()
    done = subprocess.run(["sh", "-n"], input=installed.content, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")

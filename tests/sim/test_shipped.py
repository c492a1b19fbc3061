"""The shipped scenarios are sound and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.load import load_all

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FILES = sorted(SCENARIOS.rglob("*.sim.yaml"))
NAMES = [str(path.relative_to(SCENARIOS)) for path in FILES]


def test_every_shipped_scenario_loads_under_the_name_of_its_file() -> None:
    loaded = load_all([str(SCENARIOS)])
    assert [Path(scenario.file).name for scenario in loaded] == [f"{scenario.name}.sim.yaml" for scenario in loaded]
    assert len(loaded) == len(FILES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_tells_its_story_and_its_source(name: str) -> None:
    (scenario,) = load_all([str(SCENARIOS / name)])
    assert scenario.about.strip() and scenario.source
    assert f"]({name})" in (SCENARIOS / "README.md").read_text(), "needs a line in scenarios/README.md"


@pytest.mark.parametrize("name", NAMES)
def test_an_editor_finds_the_schema(name: str) -> None:
    first = (SCENARIOS / name).read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (
        (SCENARIOS / name).parent.joinpath(first.partition("$schema=")[2]).samefile(SCENARIOS / "scenario.schema.json")
    )

"""The shipped scenarios are sound, told, and complete in editors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from sim.load import load_all
from sim.schema import schema

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
def test_an_editor_finds_the_schema_and_the_scenario_fits_it(name: str) -> None:
    text = (SCENARIOS / name).read_text()
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    published = json.loads((SCENARIOS / name).parent.joinpath(first.partition("$schema=")[2]).read_text())
    jsonschema.validate(YAML(typ="safe").load(text), published)


def test_the_published_schema_is_the_one_that_the_loader_uses() -> None:
    published = json.loads((SCENARIOS / "scenario.schema.json").read_text())
    assert published == schema(), "renew it: sim schema > scenarios/scenario.schema.json"

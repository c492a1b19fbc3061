"""The published schema says what the loader does, as far as a schema can."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from test_load import BAD, LONG, SHORT

from sim.errors import BadInput
from sim.load import load_scenario
from sim.schema import schema

SCENARIOS = Path(__file__).parents[2] / "scenarios"

# What only the loader can tell: names, what fits together, and what is no YAML.
BEYOND = {
    "alias-bomb", "bad-flows", "binary", "change-does-not-fit", "duplicate-key", "empty", "not-closed", "nul-byte",
    "only-a-comment", "tab", "two-documents", "unknown-devices", "unknown-machine",
}  # fmt: skip


def fits(tree: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return jsonschema.Draft7Validator(schema()).is_valid(tree)


def test_it_is_a_draft_07_schema() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


@pytest.mark.parametrize("file", sorted(SCENARIOS.rglob("*.sim.yaml")), ids=lambda file: file.name)
def test_every_shipped_scenario_fits_the_schema_and_loads(file: Path) -> None:
    assert fits(YAML(typ="safe").load(file))
    load_scenario(str(file))


@pytest.mark.parametrize("text", [SHORT, LONG.replace("mode: 0600", 'mode: "0600"')])
def test_what_loads_fits_the_schema(text: str) -> None:
    assert fits(YAML(typ="safe").load(text))


@pytest.mark.parametrize("name", sorted({file.name.split(".")[0] for file in BAD.glob("*.sim.yaml")} - BEYOND))
def test_what_the_loader_refuses_for_its_form_does_not_fit(name: str) -> None:
    file = BAD / f"{name}.sim.yaml"
    assert not fits(YAML(typ="safe").load(file))
    with pytest.raises(BadInput):
        load_scenario(str(file))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("breaks: [server -> internet]", "breaks: [server => internet]"),
        ("breaks: [server -> internet]", "breaks: {after: never, flows: []}"),
        ("breaks: [server -> internet]\n", ""),
        ("keeps: [server -> client tcp/22 v4 size=5]", "keeps: [server -> client tcp22]"),
        ("via: 192.0.2.66", "gateway: 192.0.2.66"),
        ("recover: [rollback, reboot]", "recover: []"),
        ("change: {config:", "change: {run: x, config:"),
        ("name: typo", "name: 5"),
        ("sim: 1", "sim: 2"),
        ("topology: lan-and-router", "topology: {networks: {lan: {}}}"),
        ("reason: it is so", "reason: [it, is]"),
    ],
)
def test_schema_and_loader_refuse_the_same_edits(tmp_path: Path, old: str, new: str) -> None:
    assert old in SHORT
    file = tmp_path / "it.sim.yaml"
    file.write_text(SHORT.replace(old, new))
    assert not fits(YAML(typ="safe").load(file))
    with pytest.raises(BadInput):
        load_scenario(str(file))


def test_editors_are_told_what_keys_and_verbs_mean() -> None:
    made = schema()
    assert all("description" in entry for entry in made["properties"].values())
    assert all("description" in entry for entry in made["definitions"]["step"]["properties"].values())
    assert made["definitions"]["step"]["additionalProperties"] is False


def test_the_schema_beside_the_scenarios_is_this_one() -> None:
    told = "write it anew: sim schema > scenarios/scenario.schema.json"
    assert json.loads((SCENARIOS / "scenario.schema.json").read_text()) == schema(), told

"""The published JSON Schema (draft-07) of scenario files: from the shapes that the loader uses."""

from __future__ import annotations

from typing import Any

from sim import config, grammar, trials


def schema() -> dict[str, Any]:
    """JSON Schema, draft-07, of a scenario file: keys, words and forms. Whether a name exists is for `sim validate`."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A scenario for sim",
        **grammar.SCENARIO.schema(),
        "definitions": {
            "config": config.WHOLE.shape.schema(),
            "config-patch": config.PATCH.shape.schema(),
            "flow": grammar.FLOW.shape.schema(),
            "policy": config.POLICY.shape.schema(),
            "route": config.ROUTE.shape.schema(),
            "step": grammar.STEP.shape.schema(),
            "topology": grammar.TOPOLOGY.schema(),
            "trial": trials.STEP.shape.schema(),
        },
    }

"""Results as JSON: one document for a `sim run`. Keys are stable; new ones may be added."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sim.check import Result
from sim.events import OutageRead

VERSION = 1


def document(results: Sequence[Result]) -> dict[str, Any]:
    """`{"version": 1, "results": […], "totals": {VERDICT: N}}`; `totals` names only verdicts that occur."""
    return {
        "version": VERSION,
        "results": [_result(result) for result in results],
        "totals": dict(sorted(Counter(result.verdict for result in results).items())),
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "scenario": result.scenario,
        "file": result.file,
        "params": dataclasses.asdict(result.params),
        "verdict": result.verdict,
        "seconds": result.seconds,
        "findings": [
            {"check": f.check, "verdict": f.verdict, "why": f.why, "detail": list(f.detail)} for f in result.findings
        ],
        "flows": {name: dataclasses.asdict(flow) for name, flow in result.flows.items()},
        "outages": [_outage(event) for event in result.outages],
        "again": result.again,
    }


def _outage(event: OutageRead) -> dict[str, Any]:
    """What one measured flow lost in one step; `step` is counted from 1, null: over all steps from the first begin."""
    fields = {key: getattr(event, key) for key in ("flow", "family", "sent", "lost", "outage_ms", "reason", "late_ms")}
    return {"step": None if event.step is None else event.step + 1, **fields}


def render(results: Sequence[Result]) -> str:
    """The document as text, with a newline at its end; pure ASCII, whatever bytes a file name holds."""
    return json.dumps(document(results), indent=2) + "\n"

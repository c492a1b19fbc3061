"""Results in the Test Anything Protocol, version 14 (https://testanything.org/tap-version-14-specification.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sim.check import Result
from sim.expect import printable
from sim.report.words import decisive, title


def render(results: Sequence[Result]) -> str:
    """One test point a run. Unknown is `not ok`, with `verdict: unknown` in its diagnostics: it is never a pass."""
    return "".join(f"{line}\n" for line in _lines(results))


def _lines(results: Sequence[Result]) -> Iterator[str]:
    yield "TAP version 14"
    yield f"1..{len(results)}"
    for number, result in enumerate(results, 1):
        ok = "not ok" if result.verdict in ("fail", "unknown") else "ok"
        line = f"{ok} {number} - {_escaped(title(result))}"
        if result.verdict in ("skip", "not-offered"):
            reasons = "; ".join(finding.why for finding in decisive(result))
            yield f"{line} # SKIP {_escaped(reasons)}"
            continue
        yield line
        if ok == "not ok":
            yield "  ---"
            yield f"  verdict: {result.verdict}"
            yield "  findings:"
            for finding in decisive(result):
                yield f"    - {json.dumps(f'{finding.check}: {finding.why}')}"  # a JSON string is YAML
            yield f"  again: {json.dumps(result.again)}"
            yield "  ..."


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("#", "\\#")

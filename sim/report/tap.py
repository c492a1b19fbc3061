"""Results in the Test Anything Protocol, version 14 (https://testanything.org/tap-version-14-specification.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sim.check import Result
from sim.expect import printable
from sim.report.words import Case, case


def render(results: Sequence[Result]) -> str:
    """One test point a run. Unknown is `not ok`, with `verdict: unknown` in its diagnostics: it is never a pass."""
    return document([case(result) for result in results])


def document(cases: Sequence[Case]) -> str:
    """One test point a case."""
    return "".join(f"{line}\n" for line in _lines(cases))


def _lines(cases: Sequence[Case]) -> Iterator[str]:
    yield "TAP version 14"
    yield f"1..{len(cases)}"
    for number, one in enumerate(cases, 1):
        ok = "not ok" if one.verdict in ("fail", "unknown") else "ok"
        line = f"{ok} {number} - {_escaped(one.name)}"
        if one.verdict in ("skip", "not-offered"):
            yield f"{line} # SKIP {_escaped(one.why)}"
            continue
        yield line
        if ok == "not ok":
            yield "  ---"
            yield f"  verdict: {one.verdict}"
            yield "  findings:"
            for finding in one.findings:
                yield f"    - {json.dumps(finding)}"  # a JSON string is YAML
            yield f"  again: {json.dumps(one.again)}"
            yield "  ..."


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("#", "\\#")

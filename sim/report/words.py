"""What every report says in the same words: the name of a run, the findings that decided its verdict, totals."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sim.check import Finding, Result
from sim.planned import Params
from sim.scenario import Verdict

ORDER: tuple[Verdict, ...] = ("pass", "fail", "unknown", "skip", "not-offered")
MEANINGS: dict[Verdict, str] = {
    "pass": "passed",
    "fail": "failed",
    "unknown": "unknown",
    "skip": "skipped",
    "not-offered": "not offered",
}


@dataclass(frozen=True)
class Case:
    """What a test system is told of a run, or of a requirement. `findings`: a line each; `details`: all that is known.

    `why`: of a verdict that is neither pass nor fail the reason, of a failure its first finding.
    """

    name: str
    file: str
    verdict: Verdict
    seconds: float
    why: str
    findings: Sequence[str]
    details: Sequence[str]
    again: str
    properties: Mapping[str, str] = field(default_factory=dict)


_DEFAULTS = {"family": None, "disk": "keep", "dad": False, "recover": None, "apart": False}


def parameters(params: Params) -> dict[str, str]:
    """The parameters that a reader must know, by name: those that are not what they always are."""
    values = dataclasses.asdict(params)
    return {
        key: ("on" if value is True else str(value))
        for key, value in values.items()
        if key not in _DEFAULTS or value != _DEFAULTS[key]
    }


def common(results: Sequence[Result]) -> dict[str, str]:
    """The parameters that all runs share."""
    if not results:
        return {}
    shared = set(parameters(results[0].params).items())
    for result in results[1:]:
        shared &= set(parameters(result.params).items())
    return {key: value for key, value in parameters(results[0].params).items() if (key, value) in shared}


def title(result: Result) -> str:
    """The run in one line: `gateway-typo [stack=ifcfg mechanism=snapcore recover=reboot]`."""
    words = " ".join(f"{key}={value}" for key, value in parameters(result.params).items())
    return f"{result.scenario} [{words}]"


def decisive(result: Result) -> list[Finding]:
    """The findings that made the verdict what it is; for a failed run also those that are unknown."""
    if result.verdict == "fail":
        order = {"fail": 0, "unknown": 1}
        return sorted((f for f in result.findings if f.verdict in order), key=lambda f: order[f.verdict])
    return [finding for finding in result.findings if finding.verdict == result.verdict]


def why(result: Result) -> str:
    """One line for a table."""
    found = decisive(result)
    if result.verdict == "pass":
        return result.summary
    if not found:
        return "nothing was looked at"
    more = sum(finding.verdict == result.verdict for finding in found) - 1
    return found[0].why + (f" (and {more} more)" if more else "")


def totals(results: Sequence[Result]) -> str:
    """`12 runs: 10 passed, 1 failed, 1 skipped`."""
    counts = Counter(result.verdict for result in results)
    parts = [f"{counts[verdict]} {MEANINGS[verdict]}" for verdict in ORDER if counts[verdict]]
    return f"{len(results)} run{'' if len(results) == 1 else 's'}: {', '.join(parts) or 'nothing ran'}"


def case(result: Result) -> Case:
    """One run for a test system."""
    findings = decisive(result)
    details: list[str] = []
    for finding in findings:
        details.append(f"{finding.check} ({finding.verdict}): {finding.why}")
        details += [f"  {line}" for line in finding.detail]
    return Case(
        title(result),
        result.file,
        result.verdict,
        result.seconds,
        why(result),
        [f"{finding.check}: {finding.why}" for finding in findings],
        details,
        result.again,
        parameters(result.params),
    )


def exit_status(results: Sequence[Result]) -> int:
    """0 all passed · 1 some failed · 3 some unknown, none failed · 4 nothing could run here."""
    return status_of(result.verdict for result in results)


def status_of(verdicts: Iterable[Verdict]) -> int:
    """The exit status that these verdicts make together."""
    found = set(verdicts)
    worst: tuple[tuple[Verdict, int], ...] = (("fail", 1), ("unknown", 3), ("pass", 0))
    return next((status for verdict, status in worst if verdict in found), 4)

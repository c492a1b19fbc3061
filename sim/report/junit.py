"""Results as JUnit XML, for CI systems: fail is a failure, unknown an error, skip and not-offered are skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import junitparser

from sim.check import Result
from sim.expect import printable
from sim.report.words import decisive, parameters, title, why

_junit: Any = junitparser  # it annotates only part of its API


def render(results: Sequence[Result]) -> str:
    """One test suite, one case a run; its parameters are properties of the case."""
    suite = _junit.TestSuite("sim")
    for result in results:
        suite.add_testcase(_case(result))
    document = _junit.JUnitXml("sim")
    document.add_testsuite(suite)
    document.update_statistics()
    text: bytes = document.tostring()
    return text.decode("utf-8")


def _case(result: Result) -> Any:
    # `printable` also takes out the control characters that XML 1.0 cannot hold (section 2.2)
    case = _junit.TestCase(printable(title(result)), classname=printable(result.file), time=result.seconds)
    properties = _junit.Properties()
    for key, value in parameters(result.params).items():
        properties.add_property(_junit.Property(key, printable(value)))
    case.append(properties)
    kinds = {"fail": _junit.Failure, "unknown": _junit.Error, "skip": _junit.Skipped, "not-offered": _junit.Skipped}
    if result.verdict in kinds:
        outcome = kinds[result.verdict](printable(why(result)), result.verdict)
        outcome.text = "\n".join(map(printable, _details(result)))
        case.result = [outcome]
    return case


def _details(result: Result) -> list[str]:
    lines = []
    for finding in decisive(result):
        lines.append(f"{finding.check} ({finding.verdict}): {finding.why}")
        lines += [f"  {line}" for line in finding.detail]
    return [*lines, f"again: {result.again}"]

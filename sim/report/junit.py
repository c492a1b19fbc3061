"""Results as JUnit XML, for CI systems: fail is a failure, unknown an error, skip and not-offered are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import junitparser

from sim.check import Result
from sim.expect import printable
from sim.report.words import Case, case

_junit: Any = junitparser  # it annotates only part of its API


def render(results: Sequence[Result]) -> str:
    """One test suite, one case a run; its parameters are properties of the case."""
    return document(map(case, results))


def document(cases: Iterable[Case], name: str = "sim") -> str:
    """One test suite of that name."""
    suite = _junit.TestSuite(name)
    for one in cases:
        suite.add_testcase(_case(one))
    whole = _junit.JUnitXml("sim")
    whole.add_testsuite(suite)
    whole.update_statistics()
    text: bytes = whole.tostring()
    return text.decode("utf-8")


def _case(one: Case) -> Any:
    # `printable` also takes out the control characters that XML 1.0 cannot hold (section 2.2)
    made = _junit.TestCase(printable(one.name), classname=printable(one.file), time=one.seconds)
    properties = _junit.Properties()
    for key, value in one.properties.items():
        properties.add_property(_junit.Property(key, printable(value)))
    made.append(properties)
    kinds = {"fail": _junit.Failure, "unknown": _junit.Error, "skip": _junit.Skipped, "not-offered": _junit.Skipped}
    if one.verdict in kinds:
        outcome = kinds[one.verdict](printable(one.why), one.verdict)
        outcome.text = "\n".join(map(printable, [*one.details, f"again: {one.again}"]))
        made.result = [outcome]
    return made

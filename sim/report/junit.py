"""Results as JUnit XML, for CI systems: fail is a failure, unknown an error, skip and not-offered are skipped."""

from __future__ import annotations

from collections.abc import Sequence

import junitparser

from sim.check import Result
from sim.expect import printable
from sim.report.words import decisive, parameters, title, why


def render(results: Sequence[Result]) -> str:
    """One test suite, one case a run; its parameters are properties of the case."""
    suite = junitparser.TestSuite("sim")
    for result in results:
        suite.add_testcase(_case(result))
    document = junitparser.JUnitXml("sim")
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]  # junitparser annotates part of its API
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]  # as above
    return text.decode("utf-8")


def _case(result: Result) -> junitparser.TestCase:
    case = junitparser.TestCase(_xml(title(result)), classname=_xml(result.file), time=result.seconds)
    properties = junitparser.Properties()
    for key, value in parameters(result.params).items():
        properties.add_property(junitparser.Property(key, _xml(value)))
    case.append(properties)
    reason = _xml(why(result))
    if result.verdict == "fail":
        case.result = [junitparser.Failure(reason, "fail")]
    elif result.verdict == "unknown":
        case.result = [junitparser.Error(reason, "unknown")]
    elif result.verdict != "pass":
        case.result = [junitparser.Skipped(reason, result.verdict)]
    if result.verdict in ("fail", "unknown"):
        case.result[0].text = _xml_lines(_details(result))
    return case


def _details(result: Result) -> list[str]:
    lines = []
    for finding in decisive(result):
        lines.append(f"{finding.check} ({finding.verdict}): {finding.why}")
        lines += [f"  {line}" for line in finding.detail]
    return [*lines, f"again: {result.again}"]


def _xml(text: str) -> str:
    """`text` without the control characters that XML 1.0 cannot hold (section 2.2), on one line."""
    return printable(text)


def _xml_lines(lines: Sequence[str]) -> str:
    return "\n".join(map(_xml, lines))

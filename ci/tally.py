"""Counts what the phases of `ci/test` left in a folder and prints `N passed, N failed, N skipped`.

Exit status 1 if any failed.
Reads NAME.status (exit status of a phase), *.xml (JUnit, of pytest) and *.json (of `sim run`).
An unknown verdict counts as failed; a phase that failed without counting anything counts as one.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

VERDICTS = {"pass": "passed", "fail": "failed", "unknown": "failed", "skip": "skipped", "not-offered": "skipped"}


def of_junit(path: Path) -> Counter[str]:
    """The counts of one JUnit file."""
    count: Counter[str] = Counter()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        count.update(failed=failed, skipped=skipped, passed=int(suite.get("tests", 0)) - failed - skipped)
    return count


def of_run(path: Path) -> Counter[str]:
    """The counts of one JSON file of `sim run`."""
    count: Counter[str] = Counter()
    for verdict, number in json.loads(path.read_text())["totals"].items():
        count[VERDICTS[verdict]] += number
    return count


def main(folder: Path) -> int:
    """Print the closing line; 1 if anything failed."""
    count: Counter[str] = Counter()
    for status in sorted(folder.glob("*.status")):
        phase = Counter[str]()
        for path in folder.glob(f"{status.stem}*.xml"):
            phase += of_junit(path)
        for path in folder.glob(f"{status.stem}*.json"):
            phase += of_run(path)
        if status.read_text().strip() != "0" and not phase["failed"]:
            phase["failed"] = 1
        count += phase
    print(f"\n{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""What is left of a configuration, in one word; and what `sim crash` says about it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from made_up_runs import plan
from rich.console import Console

from sim.faults.order import Point
from sim.report import crash as words
from sim.struck import Campaign, Report, Strike, classify

A, B = "/etc/a", "/etc/b"


def files(**content: str) -> dict[str, Any]:
    entries = {f"/etc/{name}": {"type": "file", "mode": "0644", "owner": "0:0", "text": text, "size": len(text),
                                "sha256": text} for name, text in content.items()}  # fmt: skip
    return {"files": entries}


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        (files(a="1", b="1"), "old"),
        (files(a="2", c="2"), "new"),
        (files(a="2", b="1"), "mixed"),
        (files(a="1", b="1", c="2"), "mixed"),
        (files(a="1"), "mixed"),  # b is as in the new configuration: absent
        (files(a="", b="1"), "lost"),
        (files(b="1"), "lost"),  # a is in both
        (files(a="1", b="1", d="1"), "lost"),  # nobody's
    ],
)
def test_what_is_left_is_old_new_mixed_or_lost(seen: dict[str, Any], left: str) -> None:
    assert classify(files(a="1", b="1"), files(a="2", c="2"), seen) == left


# -- the report ------------------------------------------------------------------------------------------------------


def point(number: int, syscall: str = "write", path: str = "/var/lib/x") -> Point:
    return Point(number, syscall, path, "cp # [1]", number, "cp a b", "/etc/init.d/x:7: cp a b")


def report(*strikes: Strike, points: int = 3, verb: str = "begin", disk: str = "keep", **fields: Any) -> Report:
    made = plan()
    made = replace(made, params=replace(made.params, disk=disk))
    return Report(Campaign(made, verb), tuple(point(n + 1) for n in range(points)), strikes, 2.0, **fields)


def good(at: int, image: str = "") -> Strike:
    return Strike(at, image, "old", True, (), 0.1)


def lost(at: int, image: str = "", *problems: str) -> Strike:
    return Strike(at, image, "lost", False, problems or ("/etc/a: is missing, was a regular file",), 0.1)


def unreached(at: int) -> Strike:
    return Strike(at, "", "unreached", False, ("the verb ended before this point",), 0.1)


def shown(made: Report) -> str:
    out = io.StringIO()
    words.show(Console(file=out, width=100), made, "sim crash x")
    return out.getvalue()


def test_the_json_has_each_bad_point_with_its_call_and_what_was_left() -> None:
    made = json.loads(words.render(report(good(1), lost(2), good(3), good(4))))
    assert {key: made[key] for key in ("version", "verb", "disk", "points", "verdict")} == {
        "version": 1, "verb": "begin", "disk": "keep", "points": 3, "verdict": "fail"}  # fmt: skip
    (bad,) = made["bad"]
    assert (bad["at"], bad["syscall"], bad["path"], bad["left"]) == (2, "write", "/var/lib/x", "lost")


def test_a_point_is_bad_when_one_of_its_two_images_is() -> None:
    made = report(good(1, "as-it-is"), lost(1, "journal"), good(2, "as-it-is"), good(2, "journal"), points=1)
    (bad,) = json.loads(words.render(made))["bad"]
    assert (bad["at"], bad["images"]) == (1, ["journal"])


def test_an_open_transaction_over_old_files_is_left_mixed() -> None:
    made = report(Strike(1, "", "old", False, ("a transaction is still open",), 0.1))
    (bad,) = json.loads(words.render(made))["bad"]
    assert (bad["left"], bad["files"]) == ("mixed", "old")


def test_a_commit_that_had_returned_and_is_gone_is_lost() -> None:
    made = report(Strike(4, "journal", "old", False, (), 0.1), verb="commit", disk="lose-unsynced")
    (bad,) = json.loads(words.render(made))["bad"]
    assert (bad["at"], bad["syscall"], bad["left"]) == (4, "return", "lost")


def test_points_that_were_not_reached_are_counted_as_unknown() -> None:
    made = report(good(1), unreached(2), good(3), good(4))
    assert made.verdict == "unknown"
    assert json.loads(words.render(made))["unknown"] == [2]
    assert "1 unknown" in shown(made)


def test_no_points_are_unknown() -> None:
    assert report(points=0).verdict == "unknown"


def test_the_strip_is_legible_without_colour() -> None:
    text = shown(report(good(1), lost(2), unreached(3), good(4)))
    assert text.splitlines()[0] == "    1 .L?."
    assert text.splitlines()[1].split() == [".", "old", "L", "lost", "?", "unknown"]


def test_a_bad_point_is_named_with_its_call_its_process_its_line_and_what_was_lost() -> None:
    lines = [line.strip() for line in shown(report(good(1), lost(2), good(3), good(4))).splitlines()]
    at = lines.index("2 lost  before write /var/lib/x")
    assert lines[at + 1 : at + 4] == [
        "by cp a b", "/etc/init.d/x:7: cp a b", "/etc/a: is missing, was a regular file"]  # fmt: skip
    assert lines[-1].startswith("again: sim crash x --at 2")


def test_what_several_points_lose_is_said_once() -> None:
    text = shown(report(lost(1), lost(2), good(3), good(4)))
    assert text.count("is missing, was a regular file") == 1
    assert "as at 1" in text


def test_a_sample_says_of_how_many_and_by_which_seed() -> None:
    made = report(good(2))
    made = replace(made, campaign=replace(made.campaign, sample=1, seed=42))
    assert "1 instant of 4, SIM_SEED=42, 0 bad" in shown(made)


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    campaign = Campaign(plan(), "begin", sample=5, seed=7)
    assert campaign.numbers(30) == campaign.numbers(30) == sorted(set(campaign.numbers(30)))
    assert len(campaign.numbers(30)) == 5
    assert campaign.numbers(3) == [1, 2, 3, 4], "all there are, and the instant after the verb"


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 6.0, 8.0, 12.0])
    monkeypatch.setattr(words.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with words.Progress(Console(file=out, width=100), "begin of x") as progress:
        progress(0, 0, None)
        progress(0, 10, None)
        progress(4, 10, lost(4))
        progress(6, 10, None)
    assert out.getvalue().splitlines() == [
        "begin of x: 0 of 10, 0 bad",
        "begin of x: 6 of 10, 1 bad, 1.0 a second, 4 s left",
    ]

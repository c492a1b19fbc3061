"""The page of `sim conform`: complete, safe, and readable by everybody."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

import pytest
from made_up_tables import LOST, SCRIPT, failed, good, large, lost, not_offered, row, skipped, table, unknown

from sim.conform.values import Heard, Table
from sim.report.html import render_html
from sim.report.style import STYLE

VOID = {"meta", "br"}


class Page(HTMLParser):
    """The elements of a page, with their texts; fails where tags do not nest."""

    def __init__(self, made: Table) -> None:
        super().__init__()
        self.open: list[tuple[str, int]] = []
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.source = render_html(made)
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, index in self.open:
            self.elements[index][2].append(data)

    def texts(self, tag: str, **wanted: str) -> list[str]:
        """The texts of all elements of that tag (and with these attributes), in order."""
        return ["".join(text) for name, attrs, text in self.elements if name == tag and wanted.items() <= attrs.items()]

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs, _ in self.elements if attribute in attrs]


def cells(page: Page) -> dict[str, list[str]]:
    """The row of each requirement, by its id."""
    found: dict[str, list[str]] = {}
    for tag, attrs, text in page.elements:
        if attrs.get("role") == "rowheader":
            found["".join(text)] = []
        elif tag == "td" and "colspan" not in attrs:
            found[list(found)[-1]].append("".join(text))
    return found


def test_each_requirement_has_a_row() -> None:
    found = cells(
        Page(table(row(), failed(why="it loses files"), unknown(), skipped(), not_offered(), row("B4", points=84)))
    )
    assert found["K1"] == ["✓ pass", "2", "0", ""]
    assert found["K8"] == ["✗ fail", "10", "3", "it loses files"]
    assert found["B4"][1] == "2 of 84"
    assert found["T4"][0] == "? unknown"
    assert found["P1"] == ["– skip", "", "", "no loop devices here"]
    assert found["M1"] == ["– not-offered", "", "", "netsnap.yaml names no 'commit'"]


def test_the_top_has_the_mechanism_the_totals_and_the_seed_and_the_end_what_it_ran_on() -> None:
    page = Page(large())
    assert page.texts("h1") == ["What netsnap guarantees"]
    assert "✗ fail 40 requirements: 33 passed, 3 failed, 1 unknown, 2 skipped, 1 not offered" in page.texts("p")
    assert any("sampled by SIM_SEED=4711" in text for text in page.texts("p"))
    assert page.texts("dd")[-2:] == ["one-lan, dual-stack", "6.1.0-18-amd64"]
    assert "– skip no loop devices here: P1, P2 (4 cases)" in page.texts("li")


def test_behind_a_row_is_its_evidence() -> None:
    (folded,) = Page(table(failed())).texts("div", id="K8")
    for expected in (
        "A rollback is killed after some of the files are back.",
        "Usual cause of a failure: Saved copies are moved back instead of copied.",
        "Source: initscript, reproduced",
        "To try it alone: sim conform netsnap.yaml --only K8",
        "SIGKILL before point 3",
        f"{SCRIPT}:41: mv -f $f",
        "boot: done -> exit status 1",
        "cannot stat '/var/lib/netsnap/old/ifcfg-eth0'",
        LOST,
        "The same problems as at trial 3.",
    ):
        assert expected in folded
    assert folded.count(LOST) == 1


def test_what_passed_shows_a_trial_too() -> None:
    (trial,) = Page(table(row(trials=(good(1),)))).texts("div", id="K1-1")
    assert "begin: done -> exit status 0" in trial


def test_a_strip_has_a_cell_for_each_trial_and_a_sentence_that_says_the_same() -> None:
    page = Page(table(failed()))
    assert page.texts("i") == list("··✗✗····✗·")
    assert page.values("title")[2] == "trial 3: bad"
    assert page.values("title")[8] == "trial 9: bad", "it is the fourth of its own strip"
    assert "interrupted, then a boot · ifcfg · one-lan: 5 trials, 2 bad: trial 3, 4" in page.texts("p")
    assert "then rollback again · ifcfg: 5 trials, 1 bad: trial 9" in page.texts("p")
    many = failed(bad=tuple(range(3, 40)), marks=(("begin", "..x" + "x" * 36),))
    assert "begin: 39 trials, 37 bad: trial 3, 4, 9, 5-8, 10-39" in Page(table(many)).texts("p")
    assert "boot: 5 trials, none bad; 1 could not be told" in Page(table(unknown())).texts("p")
    assert page.texts("div", **{"class": "strip", "aria-hidden": "true"}) == ["··✗✗·", "···✗·"]


def test_bad_trials_that_no_strip_has_do_not_give_cells_wrong_numbers() -> None:
    page = Page(table(failed(bad=(3, 4, 9, 12))))
    assert "trial 3: bad" not in page.values("title")
    assert "3 of 5: bad" in page.values("title")


def test_every_link_leads_somewhere_and_no_id_is_used_twice() -> None:
    page = Page(large())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = page.values("href")
    assert {"#requirements", "#K8", "#K8-3"} <= set(targets)
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_the_page_needs_no_network_and_no_script() -> None:
    page = Page(large())
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _, _ in page.elements}
    assert "src=" not in page.source
    assert not re.search(r"https?:|url\(|@import", page.source)
    assert not [name for _, attrs, _ in page.elements for name in attrs if name.startswith("on")]


def test_the_page_has_language_viewport_headings_in_order_and_a_skip_link() -> None:
    page = Page(large())
    assert page.values("lang") == ["en"]
    assert "width=device-width, initial-scale=1" in page.values("content")
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.values("href")[0] == "#requirements"
    assert "main" in {tag for tag, _, _ in page.elements}


def test_what_a_mechanism_says_stays_text() -> None:
    evil = "<script>alert('1')</script>\x1b\udcff\"&"
    trial = lost(3, evil, where=evil, choice=evil, trouble=evil, steps=(Heard(evil, 1, evil, (evil,)),))
    fields = {"why": evil, "title": evil, "about": evil, "causes": evil, "source": (evil,), "trials": (trial,)}
    made = table(failed(**fields, marks=((evil, "..x"),)), skipped(why=evil), mechanism=evil, again=evil, file=evil,
                 facts={evil: evil})  # fmt: skip
    page = Page(made)
    assert "script" not in {tag for tag, _, _ in page.elements}
    assert "\x1b" not in page.source
    page.source.encode("utf-8")
    assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;\\x1b\\udcff&quot;&amp;" in page.source


def test_nothing_chosen_is_a_page_too() -> None:
    assert "0 requirements: nothing was tried" in render_html(table())


# -- the colours -----------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_every_text_has_enough_contrast(which: int) -> None:
    block = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[which]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
    for ground in ("ground", "panel"):
        for text in ("text", "dim", "link", "pass", "fail", "unknown", "skip"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text, ground in (("mark", "fail"), ("mark", "unknown"), ("text", "line")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)

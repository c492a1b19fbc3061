"""Whatever a file holds, loading either works or says what is wrong: there is no third way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_up_stacks import install
from test_load import LONG, SHORT

from sim import plan
from sim.document import Mistakes, parse, write
from sim.errors import BadInput
from sim.load import load_scenario

SEEDS = [SHORT, LONG, *(file.read_text() for file in (Path(__file__).parents[2] / "scenarios").rglob("*.sim.yaml"))]
WORDS = sorted({word for seed in SEEDS for word in re.findall(r"[^\s,{}\[\]]+", seed)})
JUNK = ["null", "~", "[]", "{}", "-1", "1e99", ".nan", "'", '"', "&a", "*a", "!!x", "? ", "|\n", "- ", ": ", "\t", "<<"]

RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)


@pytest.fixture(autouse=True)
def _stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def survives(folder: Path, data: bytes) -> None:
    """Loading and planning raise nothing but BadInput, and every message is one line."""
    (folder / "it.yaml").write_bytes(data)
    try:
        for made in plan.expand(load_scenario(str(folder / "it.yaml"))):
            plan.show(made)
    except BadInput as error:
        assert error.mistakes
        for mistake in error.mistakes:
            assert str(mistake).isprintable(), mistake


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A sound file with a few words replaced, removed, doubled or moved."""
    parts = re.split(r"(\s+|[,{}\[\]])", draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        what = draw(st.sampled_from(["replace", "remove", "double", "junk", "swap"]))
        if what == "remove":
            parts[at] = ""
        elif what == "double":
            parts[at] *= 2
        elif what == "swap":
            other = draw(st.integers(0, len(parts) - 1))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = draw(st.sampled_from(WORDS if what == "replace" else JUNK))
    return "".join(parts)


@RELAXED
@given(text=mutations())
def test_a_mutated_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    survives(tmp_path, text.encode("utf-8", "surrogatepass"))


@RELAXED
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
@example(data=b'sim: "\\UFFFFFFFF"')
@example(data=b'sim: 1\nname: "\\uD800\\0"')
@example(data=b"%YAML 3.0\n---\nsim: 1")
@example(data=b"[" * 5000)
@example(data=b"a: " * 5000)
@example(data=b"? " * 5000)
@example(data=b"\xef\xbb\xbfsim: 1")
@example(data=b"sim: " + b"9" * 5000)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    survives(tmp_path, data)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PLACES = ["topology", "change", "breaks", "steps", "matrix", "checks", "keeps", "outage"]
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXTS | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.sampled_from(WORDS), inner),
    max_leaves=20,
)


@RELAXED
@given(tree=st.dictionaries(st.sampled_from(WORDS) | TEXTS, TREES, max_size=5))
def test_what_is_written_is_read_back(tree: dict[str, object]) -> None:
    mistakes = Mistakes("it")
    node = parse(write(tree) or "{}", mistakes)
    assert not mistakes.found
    assert node is not None and node.plain() == tree


@RELAXED
@given(tree=TREES, key=st.sampled_from(PLACES))
def test_any_tree_in_any_place_is_read_or_refused(tmp_path: Path, tree: object, key: str) -> None:
    base: dict[str, object] = {"sim": 1, "topology": "one-lan", "change": {"run": "true"}, "breaks": []}
    survives(tmp_path, write({**base, key: tree}).encode("utf-8", "surrogatepass"))

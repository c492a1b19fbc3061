"""Reading ifcfg files by a shell's rules, without a shell."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.stacks.ifcfg.parse import Value, argument_lines, is_false, is_true, read_assignments


def read(text: str) -> tuple[dict[str, str], list[str]]:
    values, messages = read_assignments(text, "f")
    return {name: value.text for name, value in values.items()}, [str(message) for message in messages]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1", {"A": "1"}),
        ("  A=1  # why\n#B=2\n\n", {"A": "1"}),
        ("A=x#y\n", {"A": "x#y"}),
        ("A='x # y' B=\"z\"\n", {"A": "x # y", "B": "z"}),
        ("A=1; B=2;\n", {"A": "1", "B": "2"}),
        ("A=\nB=''\n", {"A": "", "B": ""}),
        ("A=a'b'\"c\"d\n", {"A": "abcd"}),
        ("A=a\\ b\\\nc\n", {"A": "a bc"}),
        ("A='a\\b'\n", {"A": "a\\b"}),
        ('A="a\\b \\" \\\\ \\$x"\n', {"A": 'a\\b " \\ $x'}),
        ("A='two\nlines'\nB=1\n", {"A": "two\nlines", "B": "1"}),
        ("A=1\nB=$A.$A\nC=${A}x\nD='$A'\nE=$NONE-\n", {"A": "1", "B": "1.1", "C": "1x", "D": "$A", "E": "-"}),
        ("export A=1 B\nexport B\n", {"A": "1"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=x=y\n", {"A": "x=y"}),
        ('A="cost: $ 5"\n', {"A": "cost: $ 5"}),
    ],
)
def test_values_are_those_of_a_shell(text: str, values: dict[str, str]) -> None:
    assert read(text) == (values, [])
    script = text + "\n" + "".join(f'printf "%s\\0" "${name}"\n' for name in values)
    shell = subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True)
    assert shell.stdout.split("\0")[:-1] == list(values.values())


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("A=1\nfoo bar\nB=2\n", {"A": "1", "B": "2"}, "f:2: 'foo bar' is no assignment NAME=VALUE; left out"),
        ("A = 1\n", {}, "f:1: 'A = 1' is no assignment NAME=VALUE; left out"),
        ("1A=1\n", {}, "f:1: '1A=1' is no assignment NAME=VALUE; left out"),
        ("'A'=1\n", {}, "f:1: \"'A'=1\" is no assignment NAME=VALUE; left out"),
        ("A=1 reboot\n", {}, "f:1: 'A=1 reboot' is no assignment NAME=VALUE; left out"),
        ("A=1 && B=2\n", {}, "f:1: 'A=1 && B=2' is no assignment NAME=VALUE; left out"),
        ("A=1\nB=$(date)\nC=3\n", {"A": "1", "C": "3"}, "f:2: B uses $(…: files are read, never executed; left out"),
        ("B=$(a $(b c) d)\nC=3\n", {"C": "3"}, "f:1: B uses $(…: files are read, never executed; left out"),
        ("B=`date +%s`\n", {}, "f:1: B uses `…`: files are read, never executed; left out"),
        ("B=${A:-1}\n", {}, "f:1: B uses ${…}: files are read, never executed; left out"),
        ("A=1\nB='x\nC=3\n", {"A": "1"}, "f:2: the ' is never closed; nothing after it is read"),
        ('A=1\n\nB="x\n', {"A": "1"}, 'f:3: the " is never closed; nothing after it is read'),
        ("A=1\0\n", {"A": "1"}, "f:1: holds NUL bytes; they are left out"),
    ],
)
def test_what_is_no_assignment_is_named_with_its_line(text: str, values: dict[str, str], message: str) -> None:
    assert read(text) == (values, [message])


def test_later_files_see_the_values_of_earlier_ones() -> None:
    values, _ = read_assignments("GATEWAY=$NET.1\n", "ifcfg", {"NET": Value("192.0.2", "network", 1)})
    assert values["GATEWAY"] == Value("192.0.2.1", "ifcfg", 1)
    assert values["NET"].file == "network"


@given(st.text(alphabet=st.sampled_from("AB=1 \t\n'\"\\#$(){}`;&|<>xé\0\r")))
def test_no_text_raises(text: str) -> None:
    values, messages = read_assignments(text, "f")
    lines = text.count("\n") + 1
    assert all(message.line is not None and 1 <= message.line <= lines for message in messages)
    assert all(1 <= value.line <= lines for value in values.values())


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_what_is_quoted_comes_back(text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert read(f"A={quoted}\nB=2\n") == ({"A": text, "B": "2"}, [])


def test_lines_of_arguments_are_read_as_a_shell_reads_lines() -> None:
    text = "# comment\n\n 10.0.0.0/8 via \\\n  192.0.2.1\nfrom x # y\na\\b 'c'\nlast"
    assert argument_lines(text) == [
        (3, ["10.0.0.0/8", "via", "192.0.2.1"]),
        (5, ["from", "x", "#", "y"]),
        (6, ["ab", "'c'"]),
        (7, ["last"]),
    ]


def test_only_the_words_of_the_scripts_are_booleans() -> None:
    for word in ("yes", "YES", "y", "t", "True", "on", "1"):
        assert is_true(word) and not is_false(word)
    for word in ("no", "NO", "n", "f", "False", "off", "0"):
        assert is_false(word) and not is_true(word)
    for word in ("", None, "never", "2", " no", "no\r"):
        assert not is_true(word) and not is_false(word)

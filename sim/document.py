"""A YAML or JSON file as a tree of values that know where they stand. Nothing here knows what a scenario is.

YAML 1.2, core schema (so `no`, `on` and `12:30` are texts). The file is refused before a tree is built from it when
it is larger than `MAX_BYTES`, nested deeper than `MAX_DEPTH`, or when its aliases stand for more than `MAX_NODES`
values ("billion laughs").
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as yaml_events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sim.errors import Mistake

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000

Scalar = str | int | float | bool | None


@dataclass(frozen=True, eq=False)
class Node:
    """A value and where it stands (1-based; 0: it was not read from a file).

    `value` is a Scalar, a tuple of Nodes (list) or a tuple of (key, value) pairs of Nodes (mapping). `text` is a
    scalar as it was written; keys are always taken by their text. `size` counts the values in it, itself included.
    """

    kind: str  # scalar | list | mapping
    value: Any
    line: int = 0
    column: int = 0
    text: str = ""
    size: int = 1

    def items(self) -> Iterator[tuple[Node, Node]]:
        """(key, value) pairs of a mapping; nothing for other kinds."""
        if self.kind == "mapping":
            yield from self.value

    def get(self, key: str) -> Node | None:
        """The value of `key` in a mapping, or None."""
        return next((value for name, value in self.items() if name.text == key), None)

    def key(self, key: str) -> Node | None:
        """The key itself, for its place."""
        return next((name for name, _ in self.items() if name.text == key), None)

    def plain(self) -> Any:
        """dict, list and scalars."""
        if self.kind == "mapping":
            return {key.text: value.plain() for key, value in self.value}
        if self.kind == "list":
            return [item.plain() for item in self.value]
        return self.value


def node_of(value: Any) -> Node:
    """A tree without places, from dict, list and scalars."""
    if isinstance(value, Mapping):
        return Node("mapping", tuple((Node("scalar", str(k), text=str(k)), node_of(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return Node("list", tuple(node_of(item) for item in value))
    return Node("scalar", value, text=str(value))


class Mistakes:
    """Collects what is wrong in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Mistake] = []

    def add(self, node: Node | None, message: str) -> None:
        """Note `message` at the place of `node`."""
        line, column = (node.line or None, node.column or None) if node else (None, None)
        self.found.append(Mistake(self.file, message, line, column))


def nearest(value: str, valid: Iterable[str]) -> str:
    """`did you mean 'x'?`, or `valid: …` where nothing is near."""
    names = sorted(set(valid))
    folded = {name.casefold(): name for name in names}
    wanted = value.casefold()
    close = sorted(difflib.get_close_matches(wanted, folded))
    if close:  # of equally near ones the first
        best = max(close, key=lambda name: difflib.SequenceMatcher(None, name, wanted).ratio())
        return f"did you mean '{folded[best]}'?"
    if not names:
        return "there is none"
    return "valid: " + ", ".join(names[:24]) + (", …" if len(names) > 24 else "")


def shown(value: object) -> str:
    """A value as messages show it: one line, cut when long, without control characters."""
    text = f"'{value}'" if isinstance(value, str) else _SHOWN.get(str(value), str(value))
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= 70 else text[:66] + "…" + text[-1]


_SHOWN = {"True": "true", "False": "false", "None": "null"}


def read_text(path: str | Path, mistakes: Mistakes) -> str | None:
    """The text of a file, or None after noting why it has none (missing, too large, binary, no UTF-8)."""
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = file.read(MAX_BYTES + 1) if regular else b""
    except FileNotFoundError:
        mistakes.add(None, "no such file")
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        mistakes.add(None, f"cannot be read: {reason}")
        return None
    if not regular or len(data) > MAX_BYTES:
        mistakes.add(None, f"is larger than {MAX_BYTES // 1024} KiB" if regular else "is not a regular file")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8 text; valid: a YAML text file"
        mistakes.found.append(Mistake(mistakes.file, what, line, column))
        return None
    return text


# Characters that YAML 1.2 allows (section 5.1), without surrogates, which UTF-8 cannot hold.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# What escapes can still make ("\\0", "\\uD800") though no file name, command or UTF-8 text can hold it.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


def read(path: str | Path, mistakes: Mistakes) -> Node | None:
    """The tree of a file, or None when there is none; what is wrong is noted in `mistakes`."""
    text = read_text(path, mistakes)
    return None if text is None else parse(text, mistakes)


def parse(text: str, mistakes: Mistakes) -> Node | None:
    """The tree of a text, or None when there is none; what is wrong is noted in `mistakes`."""
    bad = _UNPRINTABLE.search(text)
    if bad:
        line, column = _place(text, bad.start())
        what = f"character U+{ord(bad.group()):04X} does not belong in a YAML text file; is this a binary file?"
        mistakes.found.append(Mistake(mistakes.file, what, line, column))
        return None
    composer = _Composer(mistakes)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            composer.take(event)
    except _Stop:
        return None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(str(part) for part in (error.context, error.problem) if part)
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        mistakes.found.append(Mistake(mistakes.file, f"is not YAML: {_one_line(what)}", *place))
        return None
    # What ruamel.yaml's scanner raises besides for broken escapes, tags and directives.
    except (YAMLError, ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError) as error:
        mistakes.add(None, f"is not YAML: {_one_line(str(error)) or type(error).__name__}")
        return None
    if composer.root is None:
        mistakes.found.append(Mistake(mistakes.file, "is empty; valid: a mapping that starts with 'sim: 1'", 1, 1))
    return composer.root


def _place(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Stop(Exception):
    """What follows in this file cannot be understood any more; the reason is noted."""


@dataclass
class _Open:
    """A list or mapping whose end has not been seen."""

    kind: str
    anchor: str | None
    line: int
    column: int
    items: list[Node]
    size: int = 1


class _Composer:
    """Builds the tree from parser events, without recursion; aliases share their node."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.root: Node | None = None
        self.anchors: dict[str, Node] = {}
        self.open: list[_Open] = []
        self.documents = 0

    def take(self, event: Any) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml_events.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.stop("a second document; valid: one document a file", line, column)
        elif isinstance(event, (yaml_events.MappingStartEvent, yaml_events.SequenceStartEvent)):
            kind = "mapping" if isinstance(event, yaml_events.MappingStartEvent) else "list"
            self.check_tag(event, "map" if kind == "mapping" else "seq", line, column)
            if len(self.open) >= MAX_DEPTH:
                self.stop(f"is nested deeper than {MAX_DEPTH} levels", line, column)
            self.open.append(_Open(kind, event.anchor, line, column, []))
        elif isinstance(event, (yaml_events.MappingEndEvent, yaml_events.SequenceEndEvent)):
            self.close()
        elif isinstance(event, yaml_events.AliasEvent):
            node = self.anchors.get(event.anchor)
            if node is None:
                self.stop(f"alias '*{event.anchor}' stands for nothing that was completed before it", line, column)
            else:
                self.put(Node(node.kind, node.value, line, column, node.text, node.size))
        elif isinstance(event, yaml_events.ScalarEvent):
            bad = _UNUSABLE.search(event.value)
            if bad:
                what = f"character U+{ord(bad.group()):04X} cannot be part of a value"
                self.mistakes.found.append(Mistake(self.mistakes.file, what, line, column))
            plain = not event.style
            tag = self.check_tag(event, "str", line, column)
            value = resolve(event.value) if plain and tag is None else event.value
            self.put(Node("scalar", value, line, column, event.value), event.anchor)

    def check_tag(self, event: Any, usual: str, line: int, column: int) -> str | None:
        tag = event.tag and str(event.tag)
        if tag in (None, "!", f"tag:yaml.org,2002:{usual}"):
            return str(tag) if tag else None
        name = tag.replace("tag:yaml.org,2002:", "!!")
        self.mistakes.found.append(Mistake(self.mistakes.file, f"tag {shown(name)} has no meaning here", line, column))
        return str(tag)

    def close(self) -> None:
        done = self.open.pop()
        value: tuple[Any, ...] = tuple(done.items)
        if done.kind == "mapping":
            value = tuple(self.pairs(done.items))
        self.put(Node(done.kind, value, done.line, done.column, "", done.size), done.anchor)

    def pairs(self, items: list[Node]) -> Iterator[tuple[Node, Node]]:
        seen: dict[str, Node] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            if key.kind != "scalar":
                self.mistakes.add(key, f"a {key.kind} cannot be a key; valid: a text")
            elif key.text in seen:
                self.mistakes.add(key, f"duplicate key {shown(key.text)}; first in line {seen[key.text].line}")
            else:
                seen[key.text] = key
                yield key, value

    def put(self, node: Node, anchor: str | None = None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        self.open[-1].items.append(node)
        self.open[-1].size += node.size
        if self.open[-1].size > MAX_NODES:
            what = f"more than {MAX_NODES} values, counting what aliases stand for"
            self.stop(what, node.line, node.column)

    def stop(self, message: str, line: int, column: int) -> None:
        self.mistakes.found.append(Mistake(self.mistakes.file, message, line, column))
        raise _Stop


_INTEGER = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS.update({"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False})


def resolve(text: str) -> Scalar:
    """The value of a plain scalar: YAML 1.2.2, section 10.3.2 (core schema)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text.lower().endswith(("inf", "nan")) else text)
    return text


# Writing


def write(value: Any, indent: int = 0) -> str:
    """A mapping as YAML that `parse` reads back as the same value; what fits in a line stands in a line."""
    pad, lines = " " * indent, []
    for key, item in value.items():
        head = f"{pad}{_scalar(str(key))}:"
        lines.append(_entry(head, item, indent))
    return "".join(lines)


def _entry(head: str, item: Any, indent: int) -> str:
    """One `key: value` or `- value`, with its line ends."""
    line = f"{head} {_flow(item)}\n"
    if isinstance(item, str) and _fits_block(item):
        pad = " " * (indent + 2)
        return f"{head} |\n" + "".join(f"{pad}{text}\n" if text else "\n" for text in item[:-1].split("\n"))
    if len(line) <= 110 or not isinstance(item, (dict, list, tuple)) or not item:
        return line
    if isinstance(item, dict):
        return f"{head}\n{write(item, indent + 2)}"
    return f"{head}\n" + "".join(_item(each, indent + 2) for each in item)


def _item(item: Any, indent: int) -> str:
    pad = " " * indent
    line = f"{pad}- {_flow(item)}\n"
    if isinstance(item, dict) and len(item) == 1:  # a step: its verb stands beside the dash
        text = write(item, indent + 2)
        return f"{pad}- {text[indent + 2 :]}"
    if isinstance(item, dict) and len(line) > 110:
        return f"{pad}-\n{write(item, indent + 2)}"
    return line


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


_PLAIN = re.compile(r"[A-Za-z0-9_./<=][A-Za-z0-9_./@%+ <>=()-]*")


def _scalar(value: Any) -> str:
    """A scalar, quoted where it would otherwise be read as something else."""
    if not isinstance(value, str):
        return _SHOWN.get(str(value), str(value))
    if _PLAIN.fullmatch(value) and not value.endswith(" ") and isinstance(resolve(value), str):
        return value
    return '"' + "".join(_escaped(char) for char in value) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char == "\n":
        return "\\n"
    if char.isprintable() and ord(char) < 0x10000:
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\U{ord(char):08x}"


def _fits_block(text: str) -> bool:
    """Whether a literal block says exactly this text."""
    lines = text.split("\n")
    plain = all(char.isprintable() and ord(char) < 0x10000 for line in lines for char in line)
    ends = text.endswith("\n") and not text.endswith("\n\n")
    return plain and ends and len(lines) > 2 and bool(lines[0]) and not any(line.startswith(" ") for line in lines[:1])

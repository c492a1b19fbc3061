"""What a document may look like, as values: a shape checks a tree, one message a mistake, and is its JSON Schema.

`check(node, context)` returns the value in the program's own terms (durations in seconds, flows as `Flow`), or
`INVALID` after noting the mistake. `schema()` says the same to editors (JSON Schema, draft-07), as far as a schema
can: whether a machine exists is for `check` alone.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sim.document import Mistakes, Node, nearest, shown

INVALID: Any = object()
"""Returned by `check` for what is no value; the mistake is noted."""

Schema = dict[str, Any]


@dataclass
class Context:
    """Where a document is checked: where mistakes go, and which names are known.

    `names[kind]` are the valid names of a kind (machine, network, flow, …); a kind that is not there is not checked.
    `partial`: a patch of configuration, in which null removes and nothing is required.
    """

    mistakes: Mistakes
    folder: Path = Path()
    names: dict[str, Any] = field(default_factory=dict)
    partial: bool = False
    key: str = ""  # the key whose value is checked, for messages

    def add(self, node: Node | None, message: str) -> Any:
        """Note a mistake; returns INVALID."""
        self.mistakes.add(node, f"{self.key}: {message}" if self.key else message)
        return INVALID

    def below(self, key: Node) -> Context:
        """The context for the value of a key."""
        return replace(self, key=shown(key.text)[1:-1])

    def known(self, kind: str, value: str, node: Node) -> Any:
        """`value` if it is a known name of `kind`, else INVALID with the nearest one noted."""
        if kind not in self.names or value in self.names[kind]:
            return value
        return self.add(node, f"unknown {kind} {shown(value)}; {nearest(value, self.names[kind])}")


class Shape(ABC):
    """Base: a shape accepts one kind of node."""

    what: str  # not for those that make it in `valid`

    def valid(self) -> str:
        """What is valid, for messages."""
        return self.what

    @abstractmethod
    def check(self, node: Node, context: Context) -> Any:
        """The value, or INVALID after noting the mistake."""

    @abstractmethod
    def schema(self) -> Schema:
        """The same as JSON Schema (draft-07)."""

    def refuse(self, node: Node, context: Context) -> Any:
        """Note that `node` is not of this shape."""
        return context.add(node, f"{describe(node)}; valid: {self.valid()}")


def describe(node: Node) -> str:
    """What a node is, for a message."""
    if node.kind != "scalar":
        return f"is a {node.kind}"
    if node.value is None:
        return "is null" if node.text else "has no value"
    if isinstance(node.value, str):
        return f"{shown(node.value)} is a text" if node.value else "is an empty text"
    return f"{node.text} is {'true or false' if isinstance(node.value, bool) else 'a number'}"


class Anything(Shape):
    """Whatever it is, as plain values."""

    what = "a value"

    def check(self, node: Node, context: Context) -> Any:
        return node.plain()

    def schema(self) -> Schema:
        return {}


@dataclass
class Text(Shape):
    """A text. `pattern` (anchored) and `parse` narrow it; `parse` raises ValueError with what is wrong."""

    what: str = "a text"
    pattern: str | None = None
    parse: Callable[[str], Any] | None = None
    empty: bool = False
    hint: Callable[[str], str] | None = None

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or not isinstance(node.value, str):
            message = f"{describe(node)}; valid: {self.valid()}"
            if node.kind == "scalar" and node.value is not None:
                message += f", in quotes: '{node.text}'" if self.matches(node.text) else ""
            return context.add(node, message)
        if not node.value and not self.empty:
            return context.add(node, f"is an empty text; valid: {self.valid()}")
        if not self.matches(node.value):
            return context.add(node, f"{shown(node.value)}; valid: {self.valid()}")
        if self.parse is None:
            return node.value
        try:
            return self.parse(node.value)
        except ValueError as error:
            return context.add(node, f"{shown(node.value)} {error}")

    def matches(self, text: str) -> bool:
        """Whether the pattern fits."""
        return self.pattern is None or re.fullmatch(self.pattern, text) is not None

    def schema(self) -> Schema:
        made: Schema = {"type": "string"}
        if self.pattern is not None:
            made["pattern"] = f"^(?:{self.pattern})$"
        elif not self.empty:
            made["minLength"] = 1
        return made


@dataclass
class Scalar(Shape):
    """A text or a number, taken as it is written (modes, durations): `0644` is not 644."""

    what: str
    pattern: str
    parse: Callable[[str], Any]
    number: bool = True  # a number fits too, as far as the schema can tell

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or node.value is None or isinstance(node.value, bool):
            return self.refuse(node, context)
        if not re.fullmatch(self.pattern, node.text):
            return context.add(node, f"{shown(node.text)}; valid: {self.valid()}")
        try:
            return self.parse(node.text)
        except ValueError as error:
            return context.add(node, f"{shown(node.text)} {error}")

    def schema(self) -> Schema:
        text: Schema = {"type": "string", "pattern": f"^(?:{self.pattern})$"}
        return {"anyOf": [text, {"type": "number", "minimum": 0}]} if self.number else text


@dataclass
class Whole(Shape):
    """An integer between two bounds."""

    low: int
    high: int

    def valid(self) -> str:
        return f"a whole number from {self.low} to {self.high}" if self.low < self.high else str(self.low)

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or not isinstance(node.value, int) or isinstance(node.value, bool):
            return self.refuse(node, context)
        if not self.low <= node.value <= self.high:
            return context.add(node, f"{node.text} is out of range; valid: {self.valid()}")
        return node.value

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Flag(Shape):
    """true or false."""

    what = "true or false"

    def check(self, node: Node, context: Context) -> Any:
        return node.value if isinstance(node.value, bool) else self.refuse(node, context)

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass
class Choice(Shape):
    """One of a few texts."""

    values: tuple[str, ...]
    noun: str = "value"

    def valid(self) -> str:
        return ", ".join(self.values)

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or not isinstance(node.value, str):
            return self.refuse(node, context)
        if node.value not in self.values:
            return context.add(node, f"unknown {self.noun} {shown(node.value)}; {nearest(node.value, self.values)}")
        return node.value

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.values)}


@dataclass
class Name(Shape):
    """The name of something known: a machine, a network, a stack."""

    kind: str
    pattern: str = r"\S+"

    def valid(self) -> str:
        return f"the name of a {self.kind}"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or node.value is None or isinstance(node.value, bool) or not node.text:
            return self.refuse(node, context)
        return context.known(self.kind, node.text, node)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass
class ListOf(Shape):
    """A list, as a tuple."""

    item: Shape
    at_least: int = 0

    def valid(self) -> str:
        return f"a list (each item: {self.item.valid()})"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "list":
            return self.refuse(node, context)
        if len(node.value) < self.at_least:
            return context.add(node, f"is an empty list; valid: {self.valid()}")
        whole = replace(context, partial=False)  # a list replaces: its items are never patches
        values = tuple(self.item.check(item, whole) for item in node.value)
        return INVALID if INVALID in values else values

    def schema(self) -> Schema:
        made: Schema = {"type": "array", "items": self.item.schema()}
        if self.at_least:
            made["minItems"] = self.at_least
        return made


@dataclass
class MapOf(Shape):
    """A mapping whose keys are names of the author's, as a dict."""

    key: Shape
    value: Shape
    at_least: int = 0
    what: str = "a mapping"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "mapping":
            return self.refuse(node, context)
        if len(node.value) < self.at_least:
            return context.add(node, f"is an empty mapping; valid: {self.valid()}")
        made, sound = {}, True
        for name, item in node.value:
            # keys are taken as written: 10 and "10" are the same key
            key = self.key.check(Node("scalar", name.text, name.line, name.column, name.text), context)
            value = _or_null(self.value, item, context.below(name))
            if key is INVALID or value is INVALID:
                sound = False
            else:
                made[key] = value
        return made if sound else INVALID

    def schema(self) -> Schema:
        made: Schema = {"type": "object", "additionalProperties": self.value.schema()}
        names = self.key.schema()
        names.pop("type", None)
        if names:
            made["propertyNames"] = names
        if self.at_least:
            made["minProperties"] = self.at_least
        return made


@dataclass(frozen=True)
class Field:
    """One key of a `Record`."""

    shape: Shape
    about: str = ""
    required: bool = False


After = Callable[[dict[str, Any], Node, Context], Any]


@dataclass
class Record(Shape):
    """A mapping with known keys, as a dict of those that are there.

    `after(values, node, context)` sees only sound values; it may note further mistakes, and returns the result.
    """

    fields: Mapping[str, Field]
    after: After | None = None
    what: str = "a mapping"
    more: Schema = field(default_factory=dict)  # what the schema says besides
    open: bool = False  # other keys are allowed, and kept as plain values

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "mapping":
            return self.refuse(node, context)
        made: dict[str, Any] = {}
        sound = True
        for key, item in node.value:
            if key.text not in self.fields and not self.open:
                context.add(key, f"unknown key {shown(key.text)}; {nearest(key.text, self.fields)}")
                sound = False
                continue
            shape = self.fields[key.text].shape if key.text in self.fields else Anything()
            made[key.text] = _or_null(shape, item, context.below(key))
            sound = sound and made[key.text] is not INVALID
        for key_name, entry in self.fields.items():
            if entry.required and key_name not in made and not context.partial:
                context.add(node, f"lacks the key '{key_name}'" + (f" ({entry.about})" if entry.about else ""))
                sound = False
        if not sound:
            return INVALID
        return self.after(made, node, context) if self.after else made

    def schema(self) -> Schema:
        properties = {}
        for name, entry in self.fields.items():
            made = entry.shape.schema()
            # draft-07 ignores what stands beside a $ref
            made = {"allOf": [made]} if "$ref" in made and entry.about else dict(made)
            properties[name] = {"description": entry.about, **made} if entry.about else made
        made = {"type": "object", "properties": properties, "additionalProperties": self.open}
        required = [name for name, entry in self.fields.items() if entry.required]
        if required:
            made["required"] = required
        return {**made, **self.more}


def _or_null(shape: Shape, node: Node, context: Context) -> Any:
    """The value of a key; in a patch null removes the key."""
    if context.partial and node.kind == "scalar" and node.value is None:
        return None
    return shape.check(node, context)


@dataclass
class Either(Shape):
    """One shape for each kind of node, so that a mistake gets the message of the shape that was meant."""

    scalar: Shape | None = None
    mapping: Shape | None = None
    list: Shape | None = None
    null: bool = False  # null is a value too

    def valid(self) -> str:
        return " or ".join([part.valid() for part in self.parts()] + ["null"] * self.null)

    def parts(self) -> Iterable[Shape]:
        """The shapes that are accepted."""
        return [part for part in (self.scalar, self.list, self.mapping) if part is not None]

    def check(self, node: Node, context: Context) -> Any:
        if self.null and node.kind == "scalar" and node.value is None:
            return None
        shape: Shape | None = getattr(self, node.kind)
        return shape.check(node, context) if shape else self.refuse(node, context)

    def schema(self) -> Schema:
        made = [part.schema() for part in self.parts()] + [{"type": "null"}] * self.null
        return made[0] if len(made) == 1 else {"anyOf": made}


@dataclass
class Patch(Shape):
    """A patch of something: the same keys, where null removes and nothing is required."""

    shape: Shape

    def valid(self) -> str:
        return self.shape.valid()

    def check(self, node: Node, context: Context) -> Any:
        return self.shape.check(node, replace(context, partial=True))

    def schema(self) -> Schema:
        return _partial(self.shape.schema())


def _partial(schema: Schema) -> Schema:
    made = {key: value for key, value in schema.items() if key not in ("required", "minProperties")}
    for key in ("properties", "additionalProperties"):
        if key == "properties" and key in made:
            made[key] = {name: _nullable(value) for name, value in made[key].items()}
        elif isinstance(made.get(key), dict):
            made[key] = _nullable(made[key])
    return made


def _nullable(schema: Schema) -> Schema:
    made = {"anyOf": [_partial(schema), {"type": "null"}]}
    return {"description": schema["description"], **made} if "description" in schema else made


@dataclass
class Defined(Shape):
    """A shape that the schema defines once, under a name."""

    name: str
    shape: Shape

    def valid(self) -> str:
        return self.shape.valid()

    def check(self, node: Node, context: Context) -> Any:
        return self.shape.check(node, context)

    def schema(self) -> Schema:
        return {"$ref": f"#/definitions/{self.name}"}


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text).groups()  # type: ignore[union-attr]  # its pattern fits
    seconds = float(number) * {"": 1.0, "s": 1.0, "ms": 0.001, "min": 60.0}[unit]
    if seconds > 86400:
        raise ValueError("is longer than a day")
    return seconds


def _mode(text: str) -> int:
    return int(text.removeprefix("0o"), 8)


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("is no absolute path; valid: one that starts with '/'")
    if ".." in text.split("/") or text.endswith("/"):
        raise ValueError("names no file; valid: an absolute path without '..', not ending in '/'")
    return re.sub("/+", "/", text)


DURATION = Scalar("a duration like 2s or 500ms (a number: seconds)", r"[0-9]+(?:\.[0-9]+)?\s*(?:ms|s|min)?", _seconds)
MODE = Scalar('an octal mode like "0644"', "(?:0o?)?[0-7]{3,4}", _mode)
PATH = Text("an absolute path", parse=_absolute)
OWNER = Text("USER or USER:GROUP", r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?")
TEXT = Text(empty=True)
LINE = Text("a text of one line", r"[^\n]+")
FLAG = Flag()

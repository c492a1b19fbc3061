"""The vocabulary of requirements: the steps of a `tries` list, and their shapes. Pure.

All steps are done on the subject alone, which starts with a configuration of its stack's family that was made for the
purpose. At most one step of a list enumerates (`interrupt`, `fail`, `hold`, `race`, `power-cut`, `change-each`,
`change-each-pattern`): the list is tried once for each of its points, in a world of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.document import Node, nearest, shown
from sim.scenario import Step
from sim.shape import (
    FLAG,
    INVALID,
    LINE,
    Choice,
    Context,
    Defined,
    Field,
    ListOf,
    MapOf,
    Record,
    Schema,
    Shape,
    Text,
    Whole,
)

VERBS = ("begin", "commit", "rollback", "boot")
STATUSES = {
    "done": "exit status 0",
    "refused": "the mechanism's wrong-state",
    "failed": "any but 0",
    "any": "whatever it is",
}
ODD = {
    "space": "a space",
    "newline": "a newline",
    "glob": "glob characters",
    "bytes": "bytes that are no UTF-8",
}
CHANGES = {
    "standard": "content, same-length, removed and added at once",
    "content": "a file gets other content",
    "same-length": "a file gets other content of the same length",
    "same-time": "as same-length, and the old modification time",
    "removed": "a file is removed",
    "added": "a file is added",
    "later": "one more file gets other content",
    "mode": "only the mode of a file changes",
    "owner": "only owner and group of a file change",
    "user-attribute": "only an attribute user.* of a file changes",
    "acl": "only the POSIX ACL of a file changes",
    "security-attribute": "only an attribute security.* of a file changes",
    "replaced": "a file with all of these is replaced by a plain one of the same name",
    "attributes-removed": "a file with all of these is removed",
    "link-replaced": "a symbolic link is replaced by a file",
    "link-removed": "a symbolic link is removed",
    "link-retargeted": "a symbolic link gets another target",
    "link-dangling": "a symbolic link to nothing is removed",
    "link-written": "somebody writes through a symbolic link: what it points to is no configuration",
    "file-linked": "a file is replaced by a symbolic link to a file that is no configuration",
    "link-added": "a symbolic link to a file that is no configuration is added",
    "link-dangling-added": "a symbolic link to nothing is added",
    "stranger-written": "a file of another name in the folder gets other content",
    "stranger-added": "a file of another name in the folder is added",
    "stranger-removed": "a file of another name in the folder is removed",
    "folder-there": "a folder whose name fits is there all the time; a file in it gets other content",
    "folder-added": "a folder whose name fits is added, with a file in it whose name fits",
    "pipe-there": "a named pipe whose name fits is there all the time",
    "pipe-added": "a named pipe whose name fits is added",
    "elsewhere": "files elsewhere below /etc are written, added and removed",
    **{f"{odd}-there": f"a file with {what} in its name gets other content" for odd, what in ODD.items()},
    **{f"{odd}-added": f"a file with {what} in its name is added" for odd, what in ODD.items()},
}
"""Kinds of change. Each has files of its own, which are there from the start of a list of steps that names it."""

EXPECTED = {
    "old": "the configuration is exactly what it was at begin, nothing is left over beside it, and what is no "
    "configuration is as it was left (what a link leads to: so, or as at begin)",
    "new": "the configuration is exactly what the last change made of it",
    "whole": "it is exactly old or exactly new",
    "each-whole": "each file is wholly old or wholly new",
    "promised": "it is what the one verb that exited with 0 promises: new after commit, old after rollback",
    "untouched": "each configuration file has the inode, modification and change time that it had before the last verb",
    "kept": "files that nobody touched since begin have the inode and modification time that they had then",
    "spared": "as old, but files with odd names that were added may be there or not",
    "pruned": "the mechanism's state holds no more files than 50 copies of the configuration would",
}
SIGNALS = ("KILL", "TERM", "power-cut")
ERRORS = ("ENOSPC", "EIO", "EROFS")
ENUMERATE = ("interrupt", "fail", "hold", "race", "power-cut", "change-each", "change-each-pattern")

ABOUT = {
    **{verb: f"the mechanism's {verb}; DONE, REFUSED, FAILED or ANY is expected" for verb in VERBS[:3]},
    "boot": "power off, if it is on, and boot; the exit status of the mechanism's boot command is expected",
    "change": "change the configuration in each of these ways",
    "change-each": "in one of these ways; one try for each",
    "change-each-pattern": "in one of these ways, at files of one pattern; one try for each way and pattern",
    "interrupt": "all processes of the verb die before one of its calls that change the disk; one try for each",
    "fail": "one of the verb's calls fails; one try for each call and error",
    "hold": "the verb is held before one of its calls, another verb meanwhile; one try for each call",
    "race": "verbs are started together; one try each time",
    "cycle": "the verbs, so many times; `change` among them changes a file",
    "disk": "the disk is so from now on",
    "power-cut": "every process dies and unsynced writes are lost; one try for each of the two images",
    "expect": "what must be so",
    "if-done": "only if the last verb exited with 0",
    "if-failed": "only if it did not",
    "sound": "a boot that changes nothing and exits 0, then a begin, a change and a rollback that work",
}


class _Steps(Shape):
    """A list of steps; it may be nested."""

    what = "a list of steps, like [begin: done, boot: done, expect: old]"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "list" or not node.value:
            return self.refuse(node, context)
        found = [STEP.check(item, context) for item in node.value]
        return INVALID if any(step is INVALID for step in found) else tuple(found)

    def schema(self) -> Schema:
        return {"type": "array", "items": {"$ref": "#/definitions/trial"}, "minItems": 1}


_EXIT = Choice(tuple(STATUSES), "expected end")
_VERB = Field(Choice(VERBS, "verb"), "the verb", required=True)
_KINDS = ListOf(Choice(tuple(CHANGES), "change"), 1)
_BODIES: dict[str, Shape] = {
    **dict.fromkeys(VERBS, _EXIT),
    "change": _KINDS,
    "change-each": _KINDS,
    "change-each-pattern": ListOf(Choice(("content", "removed", "added"), "change"), 1),
    "interrupt": Record({"verb": _VERB, "by": Field(ListOf(Choice(SIGNALS, "signal"), 1), "", required=True)}),
    "fail": Record(
        {
            "verb": _VERB,
            "calls": Field(Choice(("changing", "reading"), "kind of call"), "", required=True),
            "errors": Field(ListOf(Choice(ERRORS, "error"), 1), "", required=True),
            "reach": Field(Choice(("one", "all-that-follow"), "reach"), "", required=True),
        }
    ),
    "hold": Record({"verb": _VERB, "while": Field(Choice(VERBS[:3], "verb"), "", required=True)}),
    "race": Record(
        {"verbs": Field(ListOf(Choice(VERBS[:3], "verb"), 2), "", required=True), "tries": Field(Whole(1, 10_000))}
    ),
    "cycle": Record(
        {"verbs": Field(ListOf(Choice((*VERBS[:3], "change"), "verb"), 1), "", required=True),
         "times": Field(Whole(1, 100_000), "", required=True)}
    ),
    "disk": Choice(("full", "read-only", "normal"), "state"),
    "power-cut": Choice(("both",), "images"),
    "expect": Choice(tuple(EXPECTED), "state"),
    "if-done": _Steps(),
    "if-failed": _Steps(),
    "sound": Choice(("afterwards",), "word"),
}  # fmt: skip
assert _BODIES.keys() == ABOUT.keys()


class _TrialStep(Shape):
    what = "a mapping with one verb, like 'begin: done'"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "mapping" or len(node.value) != 1:
            return self.refuse(node, context)
        key, body = node.value[0]
        if key.text not in _BODIES:
            return context.add(key, f"unknown verb {shown(key.text)}; {nearest(key.text, _BODIES)}")
        values = _BODIES[key.text].check(body, context.below(key))
        if values is INVALID:
            return INVALID
        return Step(key.text, None, values if isinstance(values, dict) else {"is": values}, key.line or None)

    def schema(self) -> Schema:
        properties = {verb: {"description": ABOUT[verb], **shape.schema()} for verb, shape in _BODIES.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False,
                "minProperties": 1, "maxProperties": 1}  # fmt: skip


STEP = Defined("trial", _TrialStep())


def _tries(values: dict[str, Any], node: Node, context: Context) -> Any:
    for name, steps in values.get("tries", {}).items():
        axes = [step for step in walk(steps) if step.verb in ENUMERATE]
        if len(axes) > 1:
            words = " and ".join(f"'{step.verb}' (line {step.line})" for step in axes)
            context.add(node.get("tries") or node, f"{shown(name)} enumerates by {words}; valid: at most one of them")
    return values


REQUIREMENT = Record(
    {
        "id": Field(Text("an id like K8", r"[A-Z]{1,3}[0-9]{1,3}"), "its id in tables", required=True),
        "title": Field(LINE, "what a mechanism must do, in one line", required=True),
        "causes": Field(Text("a text"), "what usually causes a failure"),
        "topologies": Field(ListOf(LINE), "further topologies on which it is tried"),
        "tries": Field(MapOf(Text("a name"), _Steps(), 1), "NAME: steps"),
        "apart": Field(FLAG, "whether it is tried with /var on a disk of its own, too"),
    },
    _tries,
    "a mapping of id, title and tries",
)


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps, those that are nested too."""
    for step in steps:
        yield step
        if step.verb in ("if-done", "if-failed"):
            yield from walk(step.args["is"])


def axis(steps: Sequence[Step]) -> Step | None:
    """The step that enumerates, or None."""
    return next((step for step in walk(steps) if step.verb in ENUMERATE), None)


def verbs_needed(steps: Sequence[Step]) -> set[str]:
    """The verbs of the mechanism without which these steps cannot be tried."""
    needed: set[str] = set()
    for step in walk(steps):
        if step.verb in VERBS:
            needed.add(step.verb)
        for key in ("verb", "while"):
            needed |= {step.args[key]} if isinstance(step.args.get(key), str) else set()
        needed |= {verb for verb in step.args.get("verbs", ()) if verb in VERBS}
    return needed


def kinds(steps: Sequence[Step]) -> list[str]:
    """The kinds of change that these steps make."""
    found = [kind for step in walk(steps) if step.verb.startswith("change") for kind in step.args["is"]]
    return list(dict.fromkeys(found))


def in_words(step: Step) -> str:
    """The step as its author wrote it, on one line."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
        if isinstance(value, (tuple, list)):
            return "[" + ", ".join(in_words(item) if isinstance(item, Step) else text(item) for item in value) + "]"
        return str(value)

    return f"{step.verb}: {text(step.args['is'] if set(step.args) == {'is'} else step.args)}"

"""The shapes of the files that people write: scenario, topology and mechanism files. Pure; `sim.load` uses them.

`sim.schema` prints the same shapes as JSON Schema, so that editors and the loader agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sim import config, services, trials
from sim.document import Node, nearest, shown
from sim.faults.calls import GROUPS
from sim.scenario import (
    OFFERS,
    REASONS,
    RECOVERIES,
    Breaks,
    Change,
    FileText,
    Flow,
    Machine,
    Network,
    Step,
    Topology,
)
from sim.shape import (
    DURATION,
    FLAG,
    INVALID,
    LINE,
    MODE,
    OWNER,
    PATH,
    TEXT,
    Choice,
    Context,
    Defined,
    Either,
    Field,
    ListOf,
    MapOf,
    Name,
    Record,
    Scalar,
    Schema,
    Shape,
    Text,
    Whole,
)  # fmt: skip
from sim.vocabulary import VERBS

CHECKS = ("files", "kernel", "flows", "flaps", "transaction", "reboot")
"""The checks that are always on, unless a scenario excuses one."""

DISKS = ("keep", "lose-unsynced")
IMAGES = ("as-it-is", "journal")
ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES")
SIGNALS = ("KILL", "TERM", "HUP", "INT")
CALLS = tuple(sorted(GROUPS))
"""Calls by the names of their families: `rename` is renameat and renameat2 too."""

OUTCOMES = ("delivered", "unreachable", *REASONS)

NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
"""What a machine, a network or a named flow may be called."""

_NAMED = "a name of letters, digits, '-', '_' and '.'"

_FLOW_WORD = r"icmp|(?:tcp|udp)/[0-9]+|dns=\S+|v4|v6|size=[0-9]+"
_FLOW = rf"\s*\S+\s*->\s*\S+(?:\s+(?:{_FLOW_WORD}))*\s*"


class FlowText(Shape):
    """A flow, by its name or as `SOURCE -> DESTINATION [icmp | tcp/PORT | …] [v4|v6] [size=BYTES]`."""

    what = "a flow like 'client -> server tcp/22', or the name of one"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or not isinstance(node.value, str) or not node.value:
            return self.refuse(node, context)
        if "->" not in node.value:
            name = node.value.strip()
            if not re.fullmatch(NAME, name):
                return parse_flow(node, context)
            if context.known("flow", name, node) is INVALID:
                return INVALID
            return context.names.get("flow", {}).get(name, Flow("", "", name=name))
        return parse_flow(node, context)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{_FLOW}|{NAME})$"}


def parse_flow(node: Node, context: Context, name: str = "") -> Any:
    """The Flow that a node's text says, or INVALID with one mistake noted."""
    text = str(node.value)
    found = re.fullmatch(r"\s*(\S+)\s*->\s*(\S+)(.*)", text)
    if not found:
        what = "'SOURCE -> DESTINATION [icmp | tcp/PORT | udp/PORT | dns=NAME] [v4|v6] [size=BYTES]'"
        return context.add(node, f"{shown(text)} is no flow; valid: {what}")
    source, destination, rest = found.groups()
    for machine in (source, destination):
        if context.known("machine", machine, node) is INVALID:
            return INVALID
    if source == destination:
        return context.add(node, f"{shown(text)} goes from a machine to itself; valid: two machines")
    values: dict[str, Any] = {}
    for word in rest.split():
        try:
            more = _flow_word(word)
        except ValueError as error:
            return context.add(node, f"{shown(word)} in the flow {shown(text)} {error}")
        if more.keys() & values.keys():
            what = "says again what another word said; valid: one of them"
            return context.add(node, f"{shown(word)} in the flow {shown(text)} {what}")
        values.update(more)
    return Flow(source, destination, name=name or " ".join(text.split()), **values)


def _flow_word(word: str) -> dict[str, Any]:
    if word in ("v4", "v6"):
        return {"family": word}
    if word == "icmp":
        return {"protocol": word}
    found = re.fullmatch(r"(tcp|udp)/([0-9]{1,9})", word)
    if found:
        if not 1 <= int(found[2]) <= 65535:
            raise ValueError("is an impossible port; valid: 1 to 65535")
        return {"protocol": found[1], "port": int(found[2])}
    found = re.fullmatch(r"size=([0-9]{1,9})", word)
    if found:
        if int(found[1]) > 65507:
            raise ValueError("is an impossible size; valid: 0 to 65507 bytes")
        return {"size": int(found[1])}
    found = re.fullmatch(r"dns=([A-Za-z0-9_.-]{1,253})", word)
    if found:
        return {"protocol": "dns", "asked": found[1]}
    head = re.split("[/=]", word)[0]
    words = ("icmp", "tcp/PORT", "udp/PORT", "dns=NAME", "v4", "v6", "size=BYTES")
    raise ValueError(f"means nothing; {nearest(head, words)}")


class _NamedFlow(FlowText):
    """A flow in full, where names are given."""

    what = "a flow like 'client -> server tcp/22'"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "scalar" or not isinstance(node.value, str) or not node.value:
            return self.refuse(node, context)
        return parse_flow(node, context)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{_FLOW})$"}


class Apart(Shape):
    """Checked by the loader, which must know more than this place in the file to do so."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.what = shape.valid()

    def check(self, node: Node, context: Context) -> Any:
        return node.plain()

    def schema(self) -> Schema:
        return self.shape.schema()


class Plug(Shape):
    """`MACHINE:PORT`, as (machine, port)."""

    what = "MACHINE:PORT"

    def check(self, node: Node, context: Context) -> Any:
        machine, _, port = node.text.partition(":")
        if node.kind != "scalar" or not machine or not port:
            return context.add(node, f"{shown(node.text)} is no port of a machine; valid: {self.what}")
        return check_port(machine, port, node, context)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^\S+:\S+$"}


def check_port(machine: str, port: str, node: Node, context: Context) -> Any:
    """(machine, port) when the machine has that port, else INVALID."""
    if context.known("machine", machine, node) is INVALID:
        return INVALID
    ports: Mapping[str, Iterable[str]] = context.names.get("ports", {})
    if machine in ports and port not in ports[machine]:
        return context.add(node, f"unknown port {shown(port)} of '{machine}'; {nearest(port, ports[machine])}")
    return machine, port


FLOW = Defined("flow", FlowText())
MACHINE = Name("machine", NAME)


def _status(text: str) -> int | str:
    if text in ("any", "failed"):
        return text
    if int(text) > 255:
        raise ValueError("is no exit status; valid: 0 to 255, any, failed")
    return int(text)


STATUS = Scalar("an exit status (0 to 255), 'any', or 'failed' for all but 0", r"[0-9]{1,3}|any|failed", _status)


# Topologies


def _file(values: Any) -> FileText:
    if values is None or isinstance(values, str):
        return FileText(None if values is None else values.encode())
    return FileText(values["text"].encode(), values.get("mode", 0o644), values.get("owner", "root:root"))


_FILE = Either(
    scalar=TEXT,
    mapping=Record(
        {"text": Field(TEXT, required=True), "mode": Field(MODE), "owner": Field(OWNER)},
        what="a mapping of text, mode and owner",
    ),
    null=True,
)


def _machine(values: dict[str, Any], node: Node, context: Context) -> Any:
    written = node.get("config")
    values["config"] = written.plain() if written else {}
    services.check_place(values.get("services", {}), values["config"], node.get("services") or node, context)
    values["files"] = {path: _file(value) for path, value in values.get("files", {}).items()}
    if not values.get("root", "/").startswith("/"):
        values["root"] = str(context.folder / values["root"])
    return values


_MACHINE = Record(
    {
        "ports": Field(
            MapOf(Text("the name of a port (at most 15 characters)", config.IFNAME), Name("network", NAME)),
            "port: network",
        ),
        "stack": Field(Name("stack"), "what turns its files into kernel state; default: ifcfg"),
        "config": Field(config.WHOLE, "its configuration, in netplan's words"),
        "files": Field(MapOf(PATH, _FILE), "PATH: text; null: not there; or {text, mode, owner}"),
        "forward": Field(FLAG, "it forwards packets"),
        "services": Field(services.SERVICES, "servers that it runs"),
        "root": Field(LINE, "the root tree below its disk; default: /"),
    },
    _machine,
)
_NETWORK = Either(
    mapping=Record({"mtu": Field(config.MTU, "bytes; default: 1500"), "stp": Field(FLAG, "spanning tree")}),
    null=True,
)


def _topology(values: dict[str, Any], node: Node, context: Context) -> Any:
    networks = {name: Network(name, **(given or {})) for name, given in values.get("networks", {}).items()}
    machines = {name: Machine(name, **{"ports": {}, **given}) for name, given in values["machines"].items()}
    flows = {}
    for name, flow in values.get("flows", {}).items():
        flows[name] = Flow(**{**vars(flow), "name": name})
    return Topology(values.get("name", ""), networks, machines, flows)


TOPOLOGY = Record(
    {
        "name": Field(LINE, "its name, where it is a file of its own"),
        "about": Field(TEXT, "what it is for"),
        "networks": Field(MapOf(Text(_NAMED, NAME), _NETWORK), "bridges that ports are plugged into"),
        "machines": Field(MapOf(Text(_NAMED, NAME), _MACHINE, 1), "simulated hosts", required=True),
        "flows": Field(MapOf(Text(_NAMED, NAME), _NamedFlow()), "NAME: SOURCE -> DESTINATION …"),
    },
    _topology,
    "a mapping of networks, machines and flows",
)


# Steps


def _on(**fields: Field) -> Shape:
    """`MACHINE`, or `{on: MACHINE, …}`; the short form where nothing else must be given."""
    record = Record({"on": Field(MACHINE, "the machine", required=True), **fields})
    if any(entry.required for entry in fields.values()):
        return record
    return Either(scalar=MACHINE, mapping=record)


def _must(shape: Shape, about: str = "") -> Field:
    return Field(shape, about, required=True)


def _asks(values: dict[str, Any], node: Node, context: Context) -> Any:
    if not values.keys() - {"within", "holds-for", "otherwise"}:
        return context.add(node, "asks for nothing; valid: flows, restored, changed, transaction, file, output")
    values["flows"] = tuple(values.get("flows", {}).items())
    return values


def _asked_file(values: dict[str, Any], node: Node, context: Context) -> Any:
    if not values.keys() - {"on", "path"}:
        return context.add(node, "asks for nothing; valid: text, absent, mode, owner, target")
    return values


def _fault(values: dict[str, Any], node: Node, context: Context) -> Any:
    if ("disk" in values) == ("error" in values):
        return context.add(node, "says neither or both of error and disk; valid: one of them")
    if "disk" in values and values.keys() & {"call", "at"}:
        return context.add(node, "says which calls fail, and a state of the disk; valid: one of them")
    if "call" in values:
        values["call"] = (values["call"],) if isinstance(values["call"], str) else tuple(values["call"])
    return values


def _kill(values: dict[str, Any], node: Node, context: Context) -> Any:
    named = [key for key in ("process", "client", "watcher") if values.get(key)]
    if len(named) != 1:
        said = " and ".join(named) or "nobody"
        return context.add(node, f"kills {said}; valid: exactly one of process, client, watcher")
    if named == ["client"] and "signal" in values:
        return context.add(node, "says by which signal the client is killed; valid: client alone (it is KILL)")
    return values


def _begin(values: dict[str, Any], node: Node, context: Context) -> Any:
    by = values.get("by")
    if by is None and values.keys() & {"deadline", "probe"}:
        return context.add(node, f"says how, but not by what it is undone; valid: by: {', '.join(OFFERS)}")
    if by is not None and not values.get("deadline"):
        return context.add(node, "gives the mechanism no time; valid: deadline: a duration like 4s")
    if "probe" in values:
        if by != "probe":
            return context.add(node, f"names a probe, and is undone by {by}; valid: probe with 'by: probe' only")
        values["probe"] = replace(values["probe"], name="")
    return values


_AT = Scalar("a number, 'every' or 'from NUMBER'", r"[1-9][0-9]{0,8}|every|from [1-9][0-9]{0,8}", str)
_ASKED_FILE = Record(
    {
        "on": _must(MACHINE, "the machine"),
        "path": _must(PATH, "the file"),
        "text": Field(TEXT, "its whole content"),
        "absent": Field(FLAG, "whether it is not there"),
        "mode": Field(MODE, "its mode"),
        "owner": Field(OWNER, "its owner and group"),
        "target": Field(LINE, "what the link says"),
    },
    _asked_file,
)
_EXPECT = Record(
    {
        "flows": Field(MapOf(FLOW, Choice(OUTCOMES, "outcome"), 1), "FLOW: delivered, unreachable, or a reason"),
        "restored": Field(MACHINE, "its files, kernel state and flows equal those at its last begin"),
        "changed": Field(MACHINE, "its files, kernel state and flows equal those after its last change"),
        "transaction": Field(MapOf(MACHINE, Choice(("open", "none"), "state"), 1), "MACHINE: open or none"),
        "file": Field(_ASKED_FILE, "a file of a machine"),
        "output": Field(TEXT, "text that the output of the last run contains"),
        "within": Field(DURATION, "the deadline; default: 5s"),
        "holds-for": Field(DURATION, "for so long it must stay so"),
        "otherwise": Field(Choice(("fail", "unknown"), "verdict"), "the verdict when it is not so; default: fail"),
    },
    _asks,
)
_STATUS = Field(STATUS, "the exit status that is expected; default: 0")
_FILE_FIELD = _must(PATH, "the file")
_BODIES: dict[str, Shape] = {
    "begin": Either(
        scalar=MACHINE,
        mapping=Record(
            {
                "on": _must(MACHINE, "the machine"),
                "status": _STATUS,
                "by": Field(Choice(OFFERS, "offer"), "what is to undo the change by itself"),
                "deadline": Field(DURATION, "of the mechanism"),
                "probe": Field(FLOW, "what the mechanism pings: the destination of this flow"),
            },
            _begin,
        ),
    ),
    **{verb: _on(status=_STATUS) for verb in ("commit", "rollback", "confirm")},
    "release": _on(),
    "await": _on(within=Field(DURATION, "the deadline; default: 5s")),
    **{verb: _on(name=_must(LINE, "of the snapshot"), status=_STATUS) for verb in ("save", "load")},
    **{verb: _on() for verb in ("reload", "shutdown", "reboot", "crash", "boot")},
    "power-cut": _on(image=Field(Choice(IMAGES, "image"), "of the two that a power cut is taken as")),
    "fault": Record(
        {
            "on": _must(MACHINE, "the machine"),
            "call": Field(Either(scalar=Choice(CALLS, "call"), list=ListOf(Choice(CALLS, "call"), 1)), "default: all"),
            "error": Field(Choice(ERRORS, "error"), "what they fail with"),
            "at": Field(_AT, "which"),
            "disk": Field(Choice(("full", "read-only", "normal"), "state"), "from now on"),
        },
        _fault,
        "call and error, or disk",
    ),
    "kill": Record(
        {
            "on": _must(MACHINE, "the machine"),
            "process": Field(LINE, "part of the command line"),
            "client": Field(FLAG, "the command of the last begin, and what it started in its session; by KILL"),
            "watcher": Field(FLAG, "the watcher of the mechanism, as its file names it"),
            "signal": Field(Choice(SIGNALS, "signal"), "default: TERM"),
        },
        _kill,
        "process, client or watcher",
    ),
    "crash-everywhere": _on(
        verbs=Field(ListOf(Choice(("begin", "commit", "rollback", "boot"), "verb"), 1), "default: all"),
        sample=Field(Whole(0, 1_000_000), "so many points of each verb, chosen by SIM_SEED; default: 0, all of them"),
    ),
    "race": _on(
        verbs=_must(ListOf(Choice(("begin", "commit", "rollback"), "verb"), 2)),
        winners=Field(Whole(0, 8), "how many exit with 0; default: 1"),
    ),
    **{verb: _on() for verb in ("keep-disk", "restore-disk")},
    "config": _on(merge=_must(Apart(config.PATCH), "mappings merge, lists and scalars replace, null removes")),
    "write": _on(file=_FILE_FIELD, text=_must(TEXT, "content"), mode=Field(MODE), owner=Field(OWNER)),
    "remove": _on(file=_FILE_FIELD),
    "chmod": _on(file=_FILE_FIELD, mode=_must(MODE)),
    "chown": _on(file=_FILE_FIELD, owner=_must(OWNER)),
    "link": _on(file=_FILE_FIELD, target=_must(LINE, "what the link says")),
    "setxattr": _on(file=_FILE_FIELD, name=_must(LINE, "like user.note"), value=_must(TEXT)),
    "run": _on(command=_must(Text(), "for /bin/sh"), status=_STATUS),
    **{verb: Either(scalar=Plug(), mapping=_on(port=_must(Name("port")))) for verb in ("plug", "unplug")},
    "expect": _EXPECT,
}


class StepShape(Shape):
    """One step: a mapping with exactly one verb."""

    what = "a mapping with one verb, like 'begin: server'"

    def check(self, node: Node, context: Context) -> Any:
        if node.kind != "mapping" or not node.value:
            return self.refuse(node, context)
        unknown = [key for key, _ in node.items() if key.text not in _BODIES]
        for key in unknown:
            context.add(key, f"unknown verb {shown(key.text)}; {nearest(key.text, _BODIES)}")
        if unknown:
            return INVALID
        if len(node.value) > 1:
            return context.add(node.value[1][0], f"a second verb {shown(node.value[1][0].text)} in a step; valid: one")
        key, body = node.value[0]
        context = context.below(key)
        values = _BODIES[key.text].check(body, context)
        return INVALID if values is INVALID else _step(key, body, values, context)

    def schema(self) -> Schema:
        properties = {}
        for verb, shape in _BODIES.items():
            properties[verb] = {"description": VERBS[verb].about, **shape.schema()}
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }


def _step(key: Node, body: Node, values: Any, context: Context) -> Any:
    """The Step, with short spellings and defaults filled in."""
    verb = key.text
    if isinstance(values, str):
        values = {"on": values}
    elif isinstance(values, tuple):
        values = dict(zip(("on", "port"), values, strict=True))
    elif verb in ("plug", "unplug") and check_port(values["on"], values["port"], body, context) is INVALID:
        return INVALID
    on = values.pop("on", None)
    defaults = VERBS[verb].arguments
    args = {name: value for name, value in defaults.items() if value is not ...}
    return Step(verb, on, {**args, **values}, key.line or None)


STEP = Defined("step", StepShape())


# Scenarios


def _change(values: dict[str, Any], node: Node, context: Context) -> Any:
    given = [key for key in ("config", "files", "run") if key in values]
    if len(given) != 1:
        what = " and ".join(f"'{key}'" for key in given) if given else "nothing"
        return context.add(node, f"changes {what}; valid: exactly one of config, files, run")
    return Change(**values)


_CHANGE = Record(
    {
        "config": Field(Apart(config.PATCH), "mappings merge, lists and scalars replace, null removes"),
        "files": Field(MapOf(PATH, Either(scalar=TEXT, null=True), 1), "PATH: text, or null to remove it"),
        "run": Field(Text(), "a command for /bin/sh"),
        "reload": Field(FLAG, "whether the stack reloads afterwards; default: true"),
    },
    _change,
    "exactly one of config, files, run",
    {"oneOf": [{"required": [key]} for key in ("config", "files", "run")]},
)
_FLOWS = ListOf(FLOW)
_BREAKS = Either(
    list=_FLOWS,
    mapping=Record({"after": Field(Choice(("change", "reboot"), "time")), "flows": _must(_FLOWS)}),
)
_TEXTS = Either(scalar=LINE, list=ListOf(LINE))
_RECOVER = Choice(RECOVERIES, "recovery")
_MATRIX = Record(
    {
        "stack": Field(ListOf(Name("stack"), 1), "of the subject"),
        "mechanism": Field(ListOf(LINE, 1), "names or files"),
        "recover": Field(ListOf(_RECOVER, 1)),
        "family": Field(ListOf(Choice(("v4", "v6"), "family"), 1), "the flows and checks of that family only"),
        "disk": Field(ListOf(Choice(DISKS, "disk"), 1)),
        "dad": Field(ListOf(FLAG, 1), "IPv6 duplicate address detection"),
    }
)
_CHECKS = Record(
    {
        **{name: Field(FLAG, "false: excused from this check") for name in CHECKS},
        "reason": Field(TEXT, "why a check is excused"),
    }
)


def _budget(text: str) -> float:
    """Milliseconds."""
    number, unit = re.findall(r"[0-9.]+|[a-z]+", text)
    return round(float(number) * {"ms": 1, "s": 1000, "min": 60_000}[unit], 3)


_BUDGET = Scalar("a budget like '<= 50ms'", r"<=\s*[0-9]+(?:\.[0-9]+)?\s*(?:ms|s|min)", _budget, number=False)

SCENARIO = Record(
    {
        "sim": _must(Whole(1, 1), "the version of this format: 1"),
        "name": Field(LINE, "its name; default: the name of the file"),
        "about": Field(TEXT, "what happens, in a sentence or two"),
        "source": Field(_TEXTS, "where it was reported"),
        "catalogue": Field(_TEXTS, "its id in the catalogue of failures"),
        "topology": _must(Apart(Either(scalar=LINE, mapping=Defined("topology", TOPOLOGY))), "a name or a mapping"),
        "subject": Field(MACHINE, "the machine that changes; default: server"),
        "mechanism": Field(LINE, "a name or a file; default: snapcore"),
        "change": Field(_CHANGE, "what is changed; then the stack reloads"),
        "breaks": Field(_BREAKS, "flows that must be seen broken; [] = nothing may break"),
        "keeps": Field(_FLOWS, "flows that must never break"),
        "recover": Field(ListOf(_RECOVER, 1), "one run each; default: all that the mechanism offers except commit"),
        "steps": Field(ListOf(STEP, 1), "the long form, instead of change, breaks and recover"),
        "matrix": Field(_MATRIX, "one run for each combination"),
        "checks": Field(_CHECKS, "exceptions from the checks that are always on"),
        "outage": Field(MapOf(FLOW, _BUDGET), "FLOW: the longest outage that is accepted"),
        "dad": Field(FLAG, "IPv6 duplicate address detection; default: false"),
        "needs": Field(ListOf(Choice(("kernel",), "part"), 1), "what a mechanism must cover beside files"),
        "requirement": Field(trials.REQUIREMENT, "what is asked of every mechanism (sim conform)"),
    },
    what="a mapping that starts with 'sim: 1'",
    more={
        "anyOf": [
            {"required": ["requirement"]},
            {"required": ["change", "breaks"], "not": {"required": ["steps"]}},
            {
                "required": ["steps"],
                "not": {"anyOf": [{"required": [key]} for key in ("change", "breaks", "recover")]},
            },
        ]
    },
)


def breaks(values: Any) -> Breaks:
    """The value of `breaks`, in both spellings."""
    return Breaks(values["flows"], values.get("after", "change")) if isinstance(values, dict) else Breaks(values)


# Mechanisms

EXTRA = ("confirm", "save", "load", "status")
"""Further verbs that a mechanism may name. `save` and `load` get the snapshot's name as their last argument."""

GUARDS = (*OFFERS, "watcher")
"""Keys for what it offers: a command each, and part of the command line of its watcher."""

INSTALL = Record(
    {
        "from": _must(LINE, "a file, relative to this one or absolute"),
        "to": _must(PATH, "where it goes on the machine"),
        "mode": Field(MODE, "default: that of the file"),
    }
)
_COMMAND = Text("a command for /bin/sh")

MECHANISM = Record(
    {
        "mechanism": _must(Whole(1, 1), "the version of this format: 1"),
        "name": _must(LINE, "its name in reports"),
        "about": Field(TEXT, "what it is"),
        "install": Field(ListOf(INSTALL)),
        "replace": Field(MapOf(LINE, TEXT), "TEXT: what stands for it in the installed files"),
        **{verb: Field(_COMMAND, "command") for verb in ("begin", "commit", "rollback", "boot", *EXTRA)},
        "wrong-state": Field(Whole(0, 255), "exit status of a verb that this state does not allow; default: 199"),
        "state": Field(ListOf(PATH), "where it keeps its records"),
        "stack": Field(Name("stack"), "the only stack that it works with"),
        "covers": Field(ListOf(Choice(("files", "kernel"), "part"), 1), "files, or files and kernel"),
        "offers": Field(ListOf(Choice(OFFERS, "offer")), "beyond the verbs that this file names"),
        "timeout": Field(_COMMAND, "begin, and undo after {seconds}"),
        "probe": Field(_COMMAND, "begin, run {command}, ping {probe}; undo when it does not answer any more"),
        "client-loss": Field(_COMMAND, "begin, run {command}; undo when whoever runs this is lost"),
        "quit": Field(_COMMAND, "begin; undo when the watcher is told to quit (SIGTERM)"),
        "watcher": Field(LINE, "part of the command line of its watcher"),
    },
    what="a mapping that starts with 'mechanism: 1'",
)

"""`Scenario` × parameters → `Plan`s: the short form expanded into steps, configuration rendered. Pure but for
reading the mechanism's files."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sim import config, grammar, library, services, stacks
from sim.document import nearest, shown
from sim.errors import BadInput, Mistake
from sim.planned import MachinePlan, Params, Plan, Port
from sim.scenario import OFFERS, RECOVERIES, Breaks, Change, Family, FileText, Flow, Machine, Mechanism, Scenario, Step
from sim.show import show as show
from sim.stacks.base import Stack
from sim.track import Track
from sim.vocabulary import VERBS

FORWARDING = FileText(b"net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n")
"""/etc/sysctl.d/50-forward.conf of a machine that forwards."""

SETTLE_S = 5.0
"""How long a change or a recovery may take to show, seconds."""

DEADLINES = {"timeout": 4.0, "probe": 6.0, "client-loss": 60.0, "quit": 60.0}
"""The deadline that a mechanism is given, by what is to undo the change, seconds. The first two may be waited for: they
leave the time that it takes to see what the change has broken."""

KEYS = ("stack", "mechanism", "recover", "family", "disk", "dad")
"""What `matrix` and `--set` may set."""


def expand(
    scenario: Scenario,
    sets: Mapping[str, str | Sequence[str]] | None = None,
    mechanism: str | None = None,
    recover: Sequence[str] | None = None,
) -> list[Plan]:
    """The runs of a scenario: matrix × `sets` (which replace entries of the matrix) × recoveries.

    `mechanism` and `recover` are `--mechanism` and `--recover`. Raises BadInput for unknown keys and values.
    """
    given: dict[str, str | Sequence[str]] = dict(sets or {})
    if mechanism is not None:
        given["mechanism"] = [mechanism]
    if recover is not None:
        given["recover"] = recover
    choices = {**scenario.matrix, **_checked(given)}
    found = {name: _mechanism(name, scenario, "mechanism" in given) for name in _mechanisms(scenario, choices)}
    subject = scenario.topology.machines[scenario.subject or ""]
    plans = []
    for stack, name, family, disk, dad in itertools.product(
        choices.get("stack", (subject.stack,)),
        found,
        choices.get("family", (None,)),
        choices.get("disk", ("keep",)),
        choices.get("dad", ("true" if scenario.dad else "false",)),
    ):
        for recovery in _recoveries(scenario, found[name], choices.get("recover")):
            known = cast("Family | None", family)
            params = Params(stack, found[name].name, recovery, known, disk, dad == "true")
            plans.append(_Planner(scenario, found[name], params).plan())
    return plans


def _checked(sets: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The values of `--set`, each known."""
    wrong: list[Mistake] = []
    choices = {}
    valid = {
        "stack": stacks.names(),
        "recover": RECOVERIES,
        "family": ("v4", "v6"),
        "disk": grammar.DISKS,
        "dad": ("true", "false"),
    }
    for key, text in sets.items():
        if key not in KEYS:
            wrong.append(Mistake("--set", f"unknown key {shown(key)}; {nearest(key, KEYS)}"))
            continue
        if isinstance(text, str):
            values = [text] if key == "mechanism" else [word.strip() for word in text.split(",")]
        else:
            values = list(text)
        for value in values:
            if key in valid and value not in valid[key]:
                wrong.append(Mistake(f"--set {key}", f"unknown value {shown(value)}; {nearest(value, valid[key])}"))
        choices[key] = tuple(dict.fromkeys(values))
    if wrong:
        raise BadInput(wrong)
    return choices


def _mechanisms(scenario: Scenario, choices: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return choices.get("mechanism", (scenario.mechanism,))


def _mechanism(name: str, scenario: Scenario, from_command_line: bool) -> Mechanism:
    """A file is relative to the working directory on the command line, to the scenario in a scenario."""
    if from_command_line and ("/" in name or name.endswith(library.SUFFIXES)):
        return library.find_mechanism(name)
    return library.find_mechanism(name, Path(scenario.file).parent)


def _recoveries(scenario: Scenario, mechanism: Mechanism, chosen: Sequence[str] | None) -> tuple[str | None, ...]:
    if scenario.steps is not None:
        return (None,)
    named = chosen if chosen is not None else scenario.recover
    if named is not None:
        return tuple(dict.fromkeys(named))
    usual = ["rollback", "reboot", "crash", *OFFERS] + ([] if scenario.breaks.flows else ["commit"])
    if _pinged(scenario.subject or "", scenario.breaks) is None:
        usual.remove("probe")
    return tuple(name for name in usual if _offered(name, mechanism) is None) or (usual[0],)


def _pinged(subject: str, breaks: Breaks) -> Flow | None:
    """The flow in `breaks` that the subject itself sees broken by a plain ping: what a mechanism is told to probe."""
    if breaks.after != "change":
        return None
    plain = (flow for flow in breaks.flows if flow.protocol == "icmp" and flow.size is None)
    return next((flow for flow in plain if flow.source == subject), None)


_NEEDS = {"rollback": "rollback", "commit": "commit"}


def _offered(recovery: str, mechanism: Mechanism) -> str | None:
    """Why the mechanism is not asked for a recovery, or None."""
    if recovery in OFFERS:
        lacks = None if recovery in mechanism.offers else recovery
    else:
        verb = _NEEDS.get(recovery, "boot")  # what happens to a machine is undone at its next boot
        lacks = next((name for name in ("begin", verb) if getattr(mechanism, name) is None), None)
    return f"{mechanism.name} does not offer '{lacks}'" if lacks else None


@dataclass
class _Planner:
    """Makes one Plan."""

    scenario: Scenario
    mechanism: Mechanism
    params: Params

    def __post_init__(self) -> None:
        machines = dict(self.scenario.topology.machines)
        self.subject = self.scenario.subject or ""
        machines[self.subject] = replace(machines[self.subject], stack=self.params.stack)
        self.machines = machines
        self.stacks: dict[str, Stack] = {name: stacks.get(machine.stack) for name, machine in machines.items()}
        self.breaks = self.of_family(self.scenario.breaks.flows)
        self.keeps = self.of_family(self.scenario.keeps)
        self.flows = self.of_family(self.scenario.topology.flows.values())
        budgets = self.scenario.outage.items()
        self.outage = {only: limit for flow, limit in budgets for only in self.of_family([flow])}

    def plan(self) -> Plan:
        """The Plan. What cannot be rendered for a stack is a skip, as is all that `why_not` finds."""
        steps = list(self.scenario.steps) if self.scenario.steps is not None else self.short()
        steps = list(self.steps_of_family(steps))
        skip = None
        files: dict[str, dict[str, FileText]] = {name: {} for name in self.machines}
        try:
            files = {name: self.files(machine) for name, machine in self.machines.items()}
            steps = self.rendered(steps)
        except ValueError as error:
            skip = f"stack {self.params.stack} cannot express this configuration: {error}"
        not_offered = self.not_offered(steps)
        if any(step.verb == "power-cut" for step in steps):
            self.params = replace(self.params, disk="lose-unsynced")
        return Plan(
            scenario=self.scenario.name,
            file=self.scenario.file,
            params=self.params,
            networks=self.scenario.topology.networks,
            machines={name: self.machine(machine, files[name], steps) for name, machine in self.machines.items()},
            flows=self.flows,
            steps=tuple(steps),
            mechanism=self.mechanism,
            subject=self.subject,
            breaks=self.breaks,
            keeps=self.keeps,
            checks=frozenset(grammar.CHECKS) - self.scenario.checks.keys(),
            excused=self.scenario.checks_reason,
            skip=None if not_offered else skip or next(self.why_not(steps), None),
            not_offered=not_offered,
            outage=self.outage,
            listeners=_listeners((*self.flows, *self.breaks, *self.keeps, *self.outage), steps),
        )

    # The short form

    def short(self) -> list[Step]:
        """The short form as steps."""
        steps = self.demonstration() if self.breaks and self.scenario.breaks.after == "reboot" else []
        steps += [self.begin(), *self.change()]
        if self.scenario.breaks.after == "change":
            steps += _expect(self.breaks, "unreachable", otherwise="unknown")
        everyone = (*self.flows, *self.keeps, *self.neighbours())
        named = {flow.text: flow for flow in reversed(everyone)}  # one that has a name goes by it
        keeps = self.keeps if self.breaks else tuple(reversed(named.values()))
        steps += _expect(keeps, "delivered")
        return steps + self.recovery()

    def begin(self) -> Step:
        """The begin, with what is to undo the change by itself."""
        by = self.params.recover
        if by not in OFFERS:
            return Step("begin", self.subject, _args("begin"))
        probe = _pinged(self.subject, replace(self.scenario.breaks, flows=self.breaks)) if by == "probe" else None
        probe = replace(probe, name="") if probe else None
        return Step("begin", self.subject, {**_args("begin"), "by": by, "deadline": DEADLINES[by], "probe": probe})

    def change(self) -> list[Step]:
        """The change and its reload."""
        change = self.scenario.change or Change()
        steps = []
        if change.config is not None:
            steps.append(Step("config", self.subject, {"merge": change.config}))
        for path, text in (change.files or {}).items():
            if text is None:
                steps.append(Step("remove", self.subject, {"file": path}))
            else:
                steps.append(Step("write", self.subject, {**_args("write"), "file": path, "text": text}))
        if change.run is not None:
            steps.append(Step("run", self.subject, {**_args("run"), "command": change.run}))
        return [*steps, Step("reload", self.subject)] if change.reload else steps

    def demonstration(self) -> list[Step]:
        """Shows on a disk that is then put back that a boot with the change breaks what it should."""
        return [
            Step("keep-disk", self.subject),
            *self.change(),
            Step("reboot", self.subject),
            *_expect(self.breaks, "unreachable", otherwise="unknown"),
            Step("shutdown", self.subject),
            Step("restore-disk", self.subject),
            Step("boot", self.subject),
            *_expect(self.breaks, "delivered", otherwise="unknown"),
        ]

    def recovery(self) -> list[Step]:
        """From the change to what must be so at the end."""
        recovery = self.params.recover
        acts = {
            "rollback": [Step("rollback", self.subject, _args("rollback"))],
            "reboot": [Step("reboot", self.subject)],
            "crash": [Step("crash", self.subject), Step("boot", self.subject)],
            "commit": [Step("commit", self.subject, _args("commit"))],
            "power-cut": [Step("power-cut", self.subject, _args("power-cut")), Step("boot", self.subject)],
            "timeout": [self.undone(DEADLINES["timeout"])],
            "probe": [Step("release", self.subject), self.undone(DEADLINES["probe"])],
            "client-loss": [self.kill("client"), self.undone()],
            "quit": [self.kill("watcher"), self.undone()],
        }.get(recovery or "")
        if recovery == "crash-everywhere":
            verbs = [verb for verb in _args("crash-everywhere")["verbs"] if getattr(self.mechanism, verb)]
            acts = [
                Step("crash-everywhere", self.subject, {**_args("crash-everywhere"), "verbs": tuple(verbs)}),
                Step("rollback", self.subject, _args("rollback")),
            ]
        if acts is None:
            return []
        asked = _ask(
            {
                "changed" if recovery == "commit" else "restored": self.subject,
                "transaction": {self.subject: "none"},
            }
        )
        if recovery == "power-cut":  # a cut is taken twice
            again = Step("power-cut", self.subject, {"image": "journal"})
            return [*acts, asked, again, Step("boot", self.subject), asked]
        return [*acts, asked]

    def kill(self, whom: str) -> Step:
        """A signal to the client or to the watcher of the mechanism."""
        return Step("kill", self.subject, {**_args("kill"), whom: True})

    def undone(self, deadline_s: float = 0.0) -> Step:
        """Until the mechanism has undone the change by itself."""
        return Step("await", self.subject, {"within": deadline_s + SETTLE_S})

    def neighbours(self) -> Iterator[Flow]:
        """Flows between the subject and every machine on a network that both have an address in."""
        mine = _interfaces(self.machines[self.subject])
        for name, machine in self.machines.items():
            theirs = _interfaces(machine)
            shared = [a for a, b in itertools.product(mine, theirs) if a == b] if name != self.subject else []
            for family in dict.fromkeys(family for _, _, family in shared):
                if self.params.family in (None, family):
                    yield Flow(self.subject, name, family=family)
                    yield Flow(name, self.subject, family=family)

    # One family

    def of_family(self, flows: Any) -> tuple[Flow, ...]:
        """The flows that belong to the family of this run: both ends have addresses of it, as far as can be told."""
        family = self.params.family
        if family is None:
            return tuple(flows)
        lacking = [name for name in self.machines if self.lacks(name, family)]
        return tuple(
            replace(flow, family=family)
            for flow in flows
            if flow.family in (None, family) and flow.source not in lacking and flow.destination not in lacking
        )

    def lacks(self, name: str, family: Family) -> bool:
        """Whether a machine surely has no address of a family: a stack's own files are not looked into."""
        machine = self.machines[name]
        own_files = any(_reads(self.stacks[name], path) for path in machine.files)
        return not own_files and family not in config.families(machine.config)

    def steps_of_family(self, steps: Sequence[Step]) -> Iterator[Step]:
        for step in steps:
            flows = step.args.get("flows", ())
            probe = step.args.get("probe")
            if self.params.family is not None and probe is not None:
                step = replace(step, args={**step.args, "probe": next(iter(self.of_family([probe])), None)})
            if self.params.family is None or not flows:
                yield step
                continue
            kept = [(only, outcome) for flow, outcome in flows for only in self.of_family([flow])]
            if kept or any(step.args[key] for key in ("restored", "changed", "transaction", "file", "output")):
                yield replace(step, args={**step.args, "flows": tuple(kept)})

    # Files

    def files(self, machine: Machine) -> dict[str, FileText]:
        """What the disk of a machine holds before its first boot, without the mechanism."""
        files = self.render(machine.name, machine.config)
        if machine.forward:
            files["/etc/sysctl.d/50-forward.conf"] = FORWARDING
        return {**files, **machine.files}

    def render(self, machine: str, settings: Mapping[str, Any]) -> dict[str, FileText]:
        texts = self.stacks[machine].render(_complete(settings, self.machines[machine].ports))
        return {path: FileText(text.encode()) for path, text in sorted(texts.items())}

    def rendered(self, steps: Sequence[Step]) -> list[Step]:
        """Steps with the files of each `config` step: what its merge changes in what the stack renders."""
        track: Track[Mapping[str, Any]] = Track({name: machine.config for name, machine in self.machines.items()})
        made = []
        for step in steps:
            if step.verb == "config" and step.on is not None:
                merged = config.merge(track.current[step.on], step.args["merge"])
                old, new = self.render(step.on, track.current[step.on]), self.render(step.on, merged)
                files = {path: file for path, file in new.items() if old.get(path) != file}
                files.update({path: FileText(None) for path in old if path not in new})
                track.change(step.on, merged)
                step = replace(step, args={**step.args, "files": files})
            else:
                track.follow(step)
            made.append(step)
        return made

    def machine(self, machine: Machine, files: Mapping[str, FileText], steps: Sequence[Step]) -> MachinePlan:
        acts = machine.name == self.subject or any(_is_product(step) and step.on == machine.name for step in steps)
        ports = (Port(port, network, _mac(network, machine.name, port)) for port, network in machine.ports.items())
        return MachinePlan(
            name=machine.name,
            ports=tuple(ports),
            stack=machine.stack,
            files={**files, **self.mechanism.install} if acts else files,
            root=machine.root,
            dad=self.params.dad,
            boot_hook=self.mechanism.boot if acts else None,
            state=self.mechanism.state if acts else (),
            written=machine,
            services=machine.services,
        )

    # What is not run

    def not_offered(self, steps: Sequence[Step]) -> str | None:
        """What the mechanism is asked for and does not claim."""
        lacks = [part for part in self.scenario.needs if part not in self.mechanism.covers]
        if lacks:
            return f"{self.mechanism.name} does not cover the {lacks[0]}"
        if self.params.recover is not None:
            return _offered(self.params.recover, self.mechanism)
        begun = set()
        for step in steps:
            verb = step.verb
            if verb == "run" and self.mechanism.name != _OURS and _OURS in re.split(r"[^\w.-]+", step.args["command"]):
                return f"the scenario runs {_OURS} itself: it is not for {self.mechanism.name}"
            by = step.args.get("by") if verb == "begin" else None
            if by and by not in self.mechanism.offers:
                return f"{self.mechanism.name} does not offer '{by}'"
            for wanted in _verbs_of(step):
                if not (getattr(self.mechanism, wanted, None) or self.mechanism.extra.get(wanted)):
                    return f"{self.mechanism.name} does not offer '{wanted}'"
            if verb in ("boot", "reboot") and step.on in begun and self.mechanism.boot is None:
                return f"{self.mechanism.name} does not offer 'boot'"
            if (verb == "begin" and step.args.get("status") == 0) or (verb == "race" and "begin" in step.args["verbs"]):
                begun.add(step.on)
            elif verb == "await" or (verb in ("commit", "confirm", "rollback") and step.args.get("status") == 0):
                begun.discard(step.on)
        return None

    def why_not(self, steps: Sequence[Step]) -> Iterator[str]:
        """Every reason why this cannot be run here."""
        yield from self.guard_missing(steps)
        for name, machine in self.machines.items():
            why = self.stacks[name].missing()
            if why:
                yield f"stack {machine.stack}: {why}"
        merges = [step.args["merge"] for step in steps if step.verb == "config"]
        yield from services.missing(list(self.machines.values()), merges)
        if self.mechanism.missing:
            yield f"mechanism {self.mechanism.name}: {self.mechanism.missing}"
        if self.mechanism.stack not in (None, self.params.stack):
            yield f"mechanism {self.mechanism.name} works with the stack {self.mechanism.stack} only"
        foreign = self.foreign(steps)
        if foreign:
            yield f"the scenario writes {foreign[0]}, a file of the stack {foreign[1]}, not of {self.params.stack}"
        yield from self.family_missing()

    def guard_missing(self, steps: Sequence[Step]) -> Iterator[str]:
        """What a mechanism offers, and its file does not say how; a probe that nothing would condemn."""
        named = self.mechanism.extra
        for step in steps:
            by = step.args.get("by") if step.verb == "begin" else None
            if by and by not in named:
                yield f"{self.mechanism.name} offers '{by}', but names no command for it"
            if by == "probe" and step.args.get("probe") is None:
                yield f"no flow in 'breaks' is a plain ping from '{self.subject}': no probe would see the damage"
            if step.verb == "kill" and step.args.get("watcher") and "watcher" not in named:
                yield f"{self.mechanism.name} does not say what its watcher is called (the key 'watcher')"

    def foreign(self, steps: Sequence[Step]) -> tuple[str, str] | None:
        """A file of the subject, written by name, that another stack reads and its own does not: (path, stack)."""
        written = [str(step.args["file"]) for step in steps if step.verb in _FILE_VERBS and step.on == self.subject]
        own = self.stacks[self.subject]
        others = [stacks.get(name) for name in stacks.names() if name != own.name]
        for path in (*self.machines[self.subject].files, *written):
            if not _reads(own, path):
                for other in others:
                    if _reads(other, path):
                        return path, other.name
        return None

    def family_missing(self) -> Iterator[str]:
        family = self.params.family
        if family is None:
            return
        if self.lacks(self.subject, family):
            yield f"'{self.subject}' has no address of family {family}"
        if self.scenario.breaks.flows and not self.breaks:
            yield f"no flow in 'breaks' is of family {family}"
        asked = [flow for step in self.scenario.steps or () for flow, _ in step.args.get("flows", ())]
        if asked and not self.of_family(asked):
            yield f"no flow that is expected is of family {family}"


_OURS = "snapcore"
_FILE_VERBS = ("write", "remove", "chmod", "chown", "link", "setxattr")


def _args(verb: str) -> dict[str, Any]:
    """The defaults of a verb's arguments."""
    return {name: value for name, value in VERBS[verb].arguments.items() if value is not ...}


def _verbs_of(step: Step) -> Sequence[str]:
    """The verbs that a step needs of the mechanism."""
    if step.verb in ("race", "crash-everywhere"):
        return tuple(step.args["verbs"])
    return (step.verb,) if _is_product(step) and step.verb != "await" and not step.args.get("by") else ()


def _is_product(step: Step) -> bool:
    return step.verb in VERBS and VERBS[step.verb].product


def _ask(args: Mapping[str, Any]) -> Step:
    return Step("expect", None, {**_args("expect"), "within": SETTLE_S, **args})


def _expect(flows: Sequence[Flow], outcome: str, otherwise: str = "fail") -> list[Step]:
    if not flows:
        return []
    return [_ask({"flows": tuple((flow, outcome) for flow in flows), "otherwise": otherwise})]


def _reads(stack: Stack, path: str) -> bool:
    """Whether a path is one of the files that a stack reads (`*` does not match '/')."""
    return any(PurePosixPath(path).match(pattern) for pattern in stack.patterns)


def _mac(network: str, machine: str, port: str) -> str:
    """A locally administered address, made from names, so that it is the same at every boot and in every run."""
    digest = hashlib.sha256(f"{network}/{machine}/{port}".encode()).hexdigest()
    return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])


def _listeners(flows: Sequence[Flow], steps: Sequence[Step]) -> dict[str, tuple[tuple[str, int], ...]]:
    """Where something must listen: machine -> (tcp or udp, port)."""
    asked = [flow for step in steps for flow, _ in step.args.get("flows", ())]
    wanted: dict[str, set[tuple[str, int]]] = {}
    for flow in (*flows, *asked):
        if flow.protocol in ("tcp", "udp") and flow.port is not None:
            wanted.setdefault(flow.destination, set()).add((flow.protocol, flow.port))
    return {machine: tuple(sorted(ports)) for machine, ports in sorted(wanted.items())}


def _complete(settings: Mapping[str, Any], ports: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with an entry for each port that only a bridge, bond or VLAN names."""
    made = dict(settings)
    named: list[str] = []
    for kind in config.KINDS:
        for device in made.get(kind, {}).values():
            named += [*device.get("interfaces", ()), *([device["link"]] if "link" in device else [])]
    ethernets = made.get("ethernets", {})
    bare: dict[str, Any] = {name: {} for name in named if name in ports and name not in ethernets}
    return {**made, "ethernets": {**ethernets, **bare}} if bare else made


def _interfaces(machine: Machine) -> list[tuple[str, str, Family]]:
    """(network, subnet, family) of each address that a port is given."""
    found: list[tuple[str, str, Family]] = []
    for port, network in machine.ports.items():
        for text in config.addresses(machine.config, port):
            interface = ipaddress.ip_interface(text)
            found.append((network, str(interface.network), "v4" if interface.version == 4 else "v6"))
    return found

"""Scenario files → `Scenario`: every mistake of every file, with its place, all at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sim import config, grammar, library, stacks
from sim.document import Mistakes, Node, node_of, read, shown
from sim.errors import BadInput, Mistake
from sim.scenario import Requirement, Scenario, Step, Topology
from sim.shape import INVALID, Context
from sim.track import Track


def load_scenario(path: str) -> Scenario:
    """The scenario in a file. Raises BadInput with every mistake in it."""
    return load_all([path])[0]


def load_all(paths: Sequence[str]) -> list[Scenario]:
    """The scenarios in files and below folders, in order, each once. Raises BadInput with all mistakes of all files."""
    wrong: list[Mistake] = []
    scenarios: list[Scenario] = []
    seen: set[str] = set()
    for file in (file for path in paths for file in _files(path, wrong)):
        real = os.path.realpath(file)
        if real in seen:
            continue
        seen.add(real)
        mistakes: list[Mistake] = []
        scenario = _load(file, mistakes)
        wrong.extend(sorted(mistakes, key=lambda it: (it.file != str(file), it.file, it.line or 0, it.column or 0)))
        if scenario is not None:
            scenarios.append(scenario)
    if wrong:
        raise BadInput(list(dict.fromkeys(wrong)))
    return scenarios


def _files(path: str, wrong: list[Mistake]) -> list[Path]:
    """The scenario files that a path stands for."""
    place = Path(path)
    if "\0" in path:
        wrong.append(Mistake(path, "cannot be the name of a file"))
        return []
    try:
        folder = place.is_dir()
        if not folder and place.exists() and not place.name.endswith(library.SUFFIXES):
            wrong.append(Mistake(path, f"is no scenario file; valid: a folder, or {', '.join(library.SUFFIXES)}"))
            return []
        files = list(library.scenario_files(place)) if folder else [place]
    except OSError as error:
        wrong.append(Mistake(path, f"cannot be read: {error}"))
        return []
    if not files:
        wrong.append(Mistake(path, "holds no scenarios; valid: a folder with *.sim.yaml files"))
    return files


def _load(file: Path, found: list[Mistake]) -> Scenario | None:
    mistakes = Mistakes(str(file))
    node = read(file, mistakes)
    scenario = _Reader(file, node, Context(mistakes, file.parent)).scenario() if node else None
    found.extend(mistakes.found)
    return None if mistakes.found else scenario


@dataclass
class _Reader:
    """Reads one file: the topology first, then what uses its names."""

    file: Path
    node: Node
    context: Context
    topology: Topology | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def scenario(self) -> Scenario | None:
        """The scenario, or None; what is wrong is noted."""
        if self.node.kind != "mapping" or not self.right_version():
            if self.node.kind != "mapping":
                grammar.SCENARIO.refuse(self.node, self.context)
            return None
        self.context.names["stack"] = stacks.names()
        self.read_topology()
        values = grammar.SCENARIO.check(self.node, self.context)
        self.values = {} if values is INVALID else values
        self.check_form()
        self.check_mechanisms()
        subject = self.subject()
        if self.topology is not None:
            self.check_changes(subject)
        requirement = self.requirement()
        if self.context.mistakes.found or self.topology is None:
            return None
        return replace(self.made(self.topology, subject), requirement=requirement)

    def right_version(self) -> bool:
        """Whether this is a scenario file of a version that can be read: otherwise nothing else can be judged."""
        version = self.node.get("sim")
        if version is not None and (version.value != 1 or isinstance(version.value, bool)):
            self.context.add(version, f"version {shown(version.text or version.kind)} is not supported; valid: sim: 1")
            return False
        return True

    def read_topology(self) -> None:
        node, names = self.node.get("topology"), self.context.names
        if node is None:
            return
        if node.kind == "mapping":
            self.topology = library.read_topology(node, "", self.context)
        elif node.kind == "scalar" and isinstance(node.value, str) and node.value:
            try:
                self.topology = library.find_topology(node.value, self.context.folder)
            except BadInput as error:
                self.take(node, error)
        else:
            self.context.add(node, "is no topology; valid: a name, or a mapping of networks, machines and flows")
        if self.topology is not None:
            names["machine"], names["flow"] = list(self.topology.machines), dict(self.topology.flows)
            names["ports"] = {name: list(machine.ports) for name, machine in self.topology.machines.items()}

    def take(self, node: Node, error: BadInput) -> None:
        """Note what is wrong with a name at its place here, and what is wrong in another file at its place there."""
        for mistake in error.mistakes:
            if mistake.file == node.value and mistake.line is None:
                self.context.add(node, mistake.message)
            elif mistake.line is None:
                self.context.add(node, f"{mistake.file}: {mistake.message}")
            else:
                self.context.mistakes.found.append(mistake)

    def check_form(self) -> None:
        """Short form or long form, and not both."""
        steps = self.node.key("steps")
        short = [key for key in ("change", "breaks", "recover") if self.node.key(key)]
        if steps is not None and short:
            words = " and ".join(f"'{key}'" for key in short)
            self.context.add(steps, f"'steps' stands instead of {words}; valid: one of the two forms")
        elif steps is None and not short:
            if self.tries() is None:
                self.context.add(self.node, "says nothing to do; valid: 'change' and 'breaks', or 'steps'")
        elif steps is None and "change" not in short:
            self.context.add(self.node, "lacks the key 'change' (what is changed)")
        elif steps is None and "breaks" not in short:
            self.context.add(self.node, "lacks the key 'breaks' (the flows that must be seen broken; [] for none)")

    def tries(self) -> Node | None:
        requirement = self.node.get("requirement")
        return requirement.get("tries") if requirement is not None and requirement.kind == "mapping" else None

    def requirement(self) -> Requirement | None:
        """What is asked of every mechanism, its topologies looked up."""
        values = dict(self.values.get("requirement") or {})
        if not values:
            return None
        node = self.node.get("requirement")
        names = node.get("topologies") if node else None
        found = []
        for name in names.value if names is not None else ():
            try:
                found.append(library.find_topology(name.text, self.context.folder))
            except BadInput as error:
                self.take(name, error)
        return Requirement(**{**values, "topologies": tuple(found)})

    def check_mechanisms(self) -> None:
        matrix = self.node.get("matrix")
        listed = matrix.get("mechanism") if matrix else None
        for node in (self.node.get("mechanism"), *(listed.value if listed and listed.kind == "list" else ())):
            if node is not None and node.kind == "scalar" and isinstance(node.value, str) and node.value:
                try:
                    library.find_mechanism(node.value, self.context.folder)
                except BadInput as error:
                    self.take(node, error)

    def subject(self) -> str | None:
        """The machine that changes: the one that the file names, that the mechanism acts on, `server`, the first."""
        given = self.node.get("subject")
        if given is not None:
            return given.text
        acts = [on for verb, on, _ in self.steps() if verb in ("begin", "save")]
        if acts and acts[0]:
            return acts[0]
        machines = list(self.topology.machines) if self.topology else []
        return "server" if "server" in machines else next(iter(machines), None)

    def steps(self) -> list[tuple[str, str | None, Node]]:
        """Verb, machine and body of each step that can be told, sound or not."""
        steps = self.node.get("steps")
        found = []
        for step in steps.value if steps and steps.kind == "list" else ():
            for key, body in list(step.items())[:1]:
                on = body.get("on") if body.kind == "mapping" else body
                found.append((key.text, on.text if on and on.kind == "scalar" else None, body))
        return found

    def check_changes(self, subject: str | None) -> None:
        """Each change of configuration makes a sound one of what it changes."""
        assert self.topology is not None
        track = Track({name: node_of(machine.config) for name, machine in self.topology.machines.items()})
        change = self.node.get("change")
        patch = change.get("config") if change else None
        if patch is not None:
            self.merged(patch, subject, track)
        for verb, on, body in self.steps():
            patch = body.get("merge") if verb == "config" else None
            if patch is not None:
                merged = self.merged(patch, on, track)
                if merged is not None and on is not None:
                    track.change(on, merged)
            elif on is not None:
                plain = body.plain() if body.kind == "mapping" else {}
                track.follow(Step(verb, on, plain))

    def merged(self, patch: Node, on: str | None, track: Track[Node]) -> Node | None:
        machine = self.topology.machines.get(on or "") if self.topology else None
        if machine is None:
            config.PATCH.check(patch, self.context)
            return None
        return config.check_merged(track.current[machine.name], patch, list(machine.ports), self.context)

    def made(self, topology: Topology, subject: str | None) -> Scenario:
        values = self.values
        checks = dict(values.get("checks", {}))
        reason = checks.pop("reason", "")
        name = values.get("name") or self.file.name.split(".")[0]
        return Scenario(
            name=name,
            file=str(self.file),
            topology=topology if topology.name else replace(topology, name=name),
            about=values.get("about", ""),
            source=_texts(values.get("source", ())),
            catalogue=_texts(values.get("catalogue", ())),
            subject=subject,
            mechanism=values.get("mechanism", "snapcore"),
            change=values.get("change"),
            breaks=grammar.breaks(values.get("breaks", ())),
            keeps=values.get("keeps", ()),
            recover=values.get("recover"),
            steps=values.get("steps"),
            matrix={key: tuple(map(_word, items)) for key, items in values.get("matrix", {}).items()},
            checks={key: False for key, on in checks.items() if not on},
            checks_reason=reason,
            dad=values.get("dad", False),
            needs=tuple(values.get("needs", ())),
            outage=values.get("outage", {}),
        )


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)

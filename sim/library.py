"""Finds topologies and mechanisms by name: beside the scenario file first, then in the shipped library."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sim import config, grammar, mechanisms, stacks
from sim.document import Mistakes, Node, nearest, read, shown
from sim.errors import BadInput, Mistake
from sim.scenario import Mechanism, Topology
from sim.shape import Context

SUFFIXES = (".yaml", ".yml", ".json")


def shipped() -> Path:
    """The folder of the shipped scenarios: in the wheel, else beside the package (checkout, editable install)."""
    package = Path(__file__).resolve().parent
    packed = package / "_scenarios"
    return packed if packed.is_dir() else package.parent / "scenarios"


def find_topology(name: str, beside: Path) -> Topology:
    """The topology called `name`. Raises BadInput: unknown, or its file has mistakes."""
    file = _file(name, "topology", beside)
    if file is None:
        known = _names("topology", beside)
        raise BadInput([Mistake(name, f"unknown topology {shown(name)}; {nearest(name, known)}")])
    mistakes = Mistakes(str(file))
    topology = _read_topology(file, mistakes)
    if topology is None:
        raise BadInput(mistakes.found)
    return topology


def find_mechanism(name_or_file: str, beside: Path | None = None) -> Mechanism:
    """The mechanism with this name, or in this file (relative to `beside`, else to the working directory).

    A text with a '/' or an ending of YAML or JSON is a file. Raises BadInput: unknown, or its file has mistakes.
    """
    if "/" in name_or_file or name_or_file.endswith(SUFFIXES):
        return mechanisms.from_file((beside or Path()) / name_or_file)
    file = _file(name_or_file, "mechanism", beside)
    if file is not None:
        return mechanisms.from_file(file)
    if name_or_file in _modules():
        module = name_or_file.replace("-", "_")
        mechanism = importlib.import_module(f"sim.mechanisms.{module}").mechanism()
        assert isinstance(mechanism, Mechanism)
        return mechanism
    known = {*_names("mechanism", beside), *_modules()}
    message = f"unknown mechanism {shown(name_or_file)}; {nearest(name_or_file, known)}"
    raise BadInput([Mistake(name_or_file, message)])


def name_topology(node: Node, context: Context) -> None:
    """Tell `context` the names that a topology's tree defines, so that what uses them can be checked."""
    networks, machines, flows = (node.get(key) for key in ("networks", "machines", "flows"))
    if networks is None or networks.kind == "mapping":
        context.names["network"] = [key.text for key, _ in networks.items()] if networks else []
    if machines is not None and machines.kind == "mapping":
        context.names["machine"] = [key.text for key, _ in machines.items()]
        ports = {name.text: machine.get("ports") for name, machine in machines.items()}
        context.names["ports"] = {name: [key.text for key, _ in node.items()] for name, node in ports.items() if node}
    if flows is None or flows.kind == "mapping":
        context.names["flow"] = {key.text: None for key, _ in flows.items()} if flows else {}


def read_topology(node: Node, name: str, context: Context) -> Topology | None:
    """The topology that a tree describes, or None; what is wrong is noted in `context`."""
    context.names.setdefault("stack", stacks.names())
    name_topology(node, context)
    before = len(context.mistakes.found)
    topology = grammar.TOPOLOGY.check(node, context)
    machines = node.get("machines")
    for key, machine in machines.items() if machines else ():
        settings = machine.get("config")
        if settings is not None:
            config.check_devices(settings, context.names["ports"].get(key.text, ()), context.below(key))
    if len(context.mistakes.found) > before:
        return None
    context.names["flow"] = dict(topology.flows)
    assert isinstance(topology, Topology)
    return replace(topology, name=topology.name or name)


def _read_topology(file: Path, mistakes: Mistakes) -> Topology | None:
    node = read(file, mistakes)
    if node is None:
        return None
    inner = node.get("topology")
    if inner is not None and len(node.value) == 1:  # written as it stands in a scenario file
        node = inner
    topology = read_topology(node, file.name.split(".")[0], Context(mistakes, file.parent))
    return None if mistakes.found else topology


def _file(name: str, kind: str, beside: Path | None) -> Path | None:
    """The file of a topology or mechanism, or None."""
    if not name or "/" in name or "\0" in name:
        return None
    plural = {"topology": "topologies", "mechanism": "mechanisms"}[kind]
    for folder in ([beside] if beside is not None else []) + [shipped()]:
        for suffix in SUFFIXES:
            own = [folder / f"{name}{suffix}"] if folder == beside else []
            for file in (*own, folder / f"{name}.{kind}{suffix}", folder / plural / f"{name}{suffix}"):
                if file.is_file():
                    return file
    return None


def _names(kind: str, beside: Path | None) -> set[str]:
    """The names that `_file` finds, as far as file names tell the kind."""
    plural = {"topology": "topologies", "mechanism": "mechanisms"}[kind]
    found: set[str] = set()
    for folder in ([beside] if beside is not None else []) + [shipped()]:
        for suffix in SUFFIXES:
            found.update(file.name.removesuffix(f".{kind}{suffix}") for file in folder.glob(f"*.{kind}{suffix}"))
            found.update(file.name.removesuffix(suffix) for file in (folder / plural).glob(f"*{suffix}"))
    return found


def _modules() -> list[str]:
    """The mechanisms that are modules, by their names."""
    return [info.name.replace("_", "-") for info in pkgutil.iter_modules(mechanisms.__path__)]


def scenario_files(folder: Path) -> Iterator[Path]:
    """Every scenario file below a folder, sorted; hidden folders are passed over."""
    for file in sorted(folder.rglob("*.sim.*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.name.endswith(tuple(f".sim{suffix}" for suffix in SUFFIXES)) and not hidden and file.is_file():
            yield file

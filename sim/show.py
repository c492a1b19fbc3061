"""A `Plan` in the words of a scenario file's long form, as `sim show` prints it: it can be run as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from sim import document, library
from sim.grammar import CHECKS
from sim.planned import MachinePlan, Plan
from sim.scenario import FileText, Flow, Network, Step
from sim.vocabulary import VERBS


def show(plan: Plan) -> str:
    """The plan as a scenario file in the long form, with what it was made from as comments."""
    return "".join(f"# {line}\n" for line in _remarks(plan)) + document.write(_scenario(plan))


def _remarks(plan: Plan) -> Iterator[str]:
    params = plan.params
    made = f"{plan.scenario}, from {plan.file}: stack {params.stack}, mechanism {params.mechanism}"
    yield _line(made + (f", recovery {params.recover}" if params.recover else ""))
    if plan.breaks:
        yield _line("must be seen broken: " + ", ".join(map(str, plan.breaks)))
    if plan.skip:
        yield _line(f"skipped: {plan.skip}")
    if plan.not_offered:
        yield _line(f"not offered: {plan.not_offered}")


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _scenario(plan: Plan) -> dict[str, Any]:
    params = plan.params
    values: dict[str, Any] = {"sim": 1, "name": plan.scenario, "topology": _topology(plan)}
    values["subject"] = plan.subject
    values["mechanism"] = _mechanism(plan)
    if plan.keeps:
        values["keeps"] = [_flow(flow, plan) for flow in plan.keeps]
    if plan.outage:
        values["outage"] = {_flow(flow, plan): f"<= {limit:g}ms" for flow, limit in plan.outage.items()}
    if params.dad:
        values["dad"] = True
    matrix = {"family": params.family, "disk": params.disk if params.disk != "keep" else None}
    if any(matrix.values()):
        values["matrix"] = {key: [value] for key, value in matrix.items() if value}
    excused: dict[str, Any] = {name: False for name in CHECKS if name not in plan.checks}
    if excused:
        values["checks"] = {**excused, **({"reason": plan.excused} if plan.excused else {})}
    values["steps"] = [{step.verb: _step(step, plan)} for step in plan.steps]
    return values


def _mechanism(plan: Plan) -> str:
    """Its name where the library knows it, else its file."""
    file = plan.mechanism.file
    if file is None or Path(file).resolve().is_relative_to(library.shipped().resolve()):
        return plan.mechanism.name
    return str(Path(file).resolve())


def _topology(plan: Plan) -> dict[str, Any]:
    values: dict[str, Any] = {
        "networks": {name: _network(network) for name, network in plan.networks.items()},
        "machines": {name: _machine(machine) for name, machine in plan.machines.items()},
    }
    if plan.flows:
        values["flows"] = {flow.name: flow.text for flow in plan.flows}
    return values


def _network(network: Network) -> dict[str, Any]:
    values = {"mtu": network.mtu, "stp": network.stp}
    return {key: value for key, value in values.items() if value != getattr(Network(""), key)}


def _machine(machine: MachinePlan) -> dict[str, Any]:
    written = machine.written
    values: dict[str, Any] = {"ports": {port.name: port.network for port in machine.ports}, "stack": machine.stack}
    if written is not None:
        given = {"config": written.config, "forward": written.forward, "services": written.services}
        values.update({key: value for key, value in given.items() if value})
        if written.files:
            values["files"] = {path: _file(file) for path, file in written.files.items()}
    if machine.root != "/":
        values["root"] = machine.root
    return values


def _file(file: FileText) -> Any:
    if file.content is None:
        return None
    text = file.content.decode()
    if (file.mode, file.owner) == (0o644, "root:root"):
        return text
    return {"text": text, "mode": _mode(file.mode), "owner": file.owner}


def _step(step: Step, plan: Plan) -> Any:
    """The body of a step, as short as it can be written."""
    defaults = VERBS[step.verb].arguments
    args = {key: value for key, value in step.args.items() if key not in defaults or value != defaults[key]}
    args.pop("files" if step.verb == "config" else "", None)
    if "flows" in args:
        args["flows"] = {_flow(flow, plan): outcome for flow, outcome in args["flows"]}
    if args.get("probe") is not None:
        args["probe"] = _flow(args["probe"], plan)
    if step.verb in ("plug", "unplug"):
        return f"{step.on}:{args['port']}"
    if not args and step.on is not None:
        return step.on
    made: dict[str, Any] = {"on": step.on} if step.on is not None else {}
    return {**made, **{key: _value(key, value) for key, value in args.items()}}


def _value(key: str, value: Any) -> Any:
    if key in ("within", "holds-for", "deadline") and isinstance(value, float):
        return _duration(value)
    if key == "mode" and isinstance(value, int):
        return _mode(value)
    if isinstance(value, Mapping):
        return {name: _value(name, item) for name, item in value.items()}
    return value


def _duration(seconds: float) -> str:
    return f"{Decimal(repr(seconds)).normalize():f}s"


def _mode(mode: int) -> str:
    return f"{mode:04o}"


def _flow(flow: Flow, plan: Plan) -> str:
    return flow.name if flow in plan.flows else flow.text

"""A laboratory that answers calls: the far side of `sim.api`, in the sandbox."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from pyroute2.netlink.exceptions import NetlinkError

from sim import probe, steps
from sim.errors import LabError, Missing
from sim.planned import Plan
from sim.scenario import Flow, Step
from sim.session import Context, baseline, services
from sim.world.lab import Lab


@dataclass(frozen=True)
class Reply:
    """The value of a call, or why there is none: the laboratory failed, or this machine lacks something."""

    value: Any
    kind: Literal["value", "failed", "missing"] = "value"


def serve(plan: Plan, connection: Connection[Any, Any]) -> None:
    """Build the laboratory, boot it, and answer `(name, arguments)` until None or the end of the connection."""
    desk: list[_Desk] = []
    reply = _answer(lambda: desk.append(_Desk(plan)))
    connection.send(reply)
    if reply.kind != "value":
        return
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        if call is None:
            return
        name, arguments = call
        connection.send(_answer(functools.partial(getattr(desk[0], name), *arguments)))


def _answer(call: Callable[[], Any]) -> Reply:
    try:
        return Reply(call())
    except Missing as error:
        return Reply(str(error), "missing")
    except (LabError, NetlinkError) as error:
        return Reply(str(error), "failed")
    except OSError as error:
        return Reply(f"{error.strerror}: {error.filename}" if error.filename else str(error), "failed")


class _Desk:
    """What can be asked for, by the names of its methods. Values are those of `sim.api`, as mappings."""

    def __init__(self, plan: Plan) -> None:
        lab = Lab(plan, functools.partial(services, plan), lambda machine, message: None)
        self.context = Context(plan, lab, lambda event: None, time.monotonic())
        baseline(self.context)
        self.addresses = {name: probe.global_addresses(machine.running.ip) for name, machine in lab.machines.items()}

    def on(self, name: str) -> bool:
        return self.context.machine(name).on

    def step(self, step: Step) -> Mapping[str, Any]:
        return asdict(steps.do(self.context, step))

    def run(self, name: str, command: str, timeout_s: float) -> Mapping[str, Any]:
        done = asdict(self.context.machine(name).run(command, timeout_s))
        self.context.dirty.add(name)
        return done

    def read(self, name: str, path: str) -> bytes | None:
        """A file as the machine sees it; None when there is none."""
        place = steps.follow(self.context.machine(name), path)
        if not os.path.lexists(place):
            return None
        with open(place, "rb") as file:
            return file.read()

    def state(self, name: str) -> Mapping[str, Any]:
        return self.context.read(name)

    def flows(self, flows: tuple[Flow, ...] | None, within_s: float) -> list[Mapping[str, Any]]:
        """Each flow in each family; all named ones and all pairs when none is given."""
        plan = self.context.plan
        if flows is None:
            targets = self.context.targets
        else:
            targets = probe.targets(flows, (), self.addresses, plan.params.family)
        deadline = time.monotonic() + within_s
        outcomes = self.context.probe(targets)
        while time.monotonic() < deadline and not all(outcome.delivered for outcome in outcomes.values()):
            outcomes.update(self.context.probe([t for t in targets if not outcomes[t.key].delivered]))
        return [{"flow": t.flow.text, "family": t.family, **probe.outcome_fields(outcomes[t.key])} for t in targets]

"""A small laboratory for tests of one stack: a server with two ports, its configuration, its kernel state."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from children import answer

from sim import stacks
from sim.observe import read_state
from sim.planned import MachinePlan, Params, Plan, Port
from sim.scenario import FileText, Mechanism, Network
from sim.session import Events
from sim.steps import remove_file, write_file
from sim.world import sandbox
from sim.world.lab import Lab
from sim.world.machine import Completed

SETTLE_S = 8.0
COMMAND_S = 60.0
_NUMBERS = itertools.count()
PORTS = (Port("eth0", "lan1", "02:00:00:00:00:10"), Port("eth1", "lan2", "02:00:00:00:00:11"))


class Server:
    """The machine under test, inside a sandbox."""

    def __init__(self, stack: str, config: Mapping[str, Any], dad: bool = False) -> None:
        self.stack = stacks.get(stack)
        self.config = config
        name = f"server{next(_NUMBERS)}"  # a sandbox has one disk of a name
        files = {path: FileText(text.encode()) for path, text in self.stack.render(config).items()}
        plan = Plan(
            scenario="contract",
            file="contract",
            params=Params(stack, "none"),
            networks={name: Network(name) for name in ("lan1", "lan2")},
            machines={name: MachinePlan(name, PORTS, stack, files, dad=dad)},
            flows=(),
            steps=(),
            mechanism=Mechanism("none"),
        )
        self.said: list[Mapping[str, Any]] = []
        self.lab = Lab(plan, lambda machine: {}, lambda name, message: self.said.append(message))
        self.lab.boot_all()
        self.machine = self.lab.machines[name]

    def phase(self, name: str) -> Mapping[str, Any]:
        """What the last boot said about one of its phases."""
        return next(message for message in reversed(self.said) if message.get("phase") == name)

    def configure(self, config: Mapping[str, Any]) -> str:
        """Write another configuration, as a `config` step does, and reload. What the reload printed."""
        old, new = self.stack.render(self.config), self.stack.render(config)
        for path in old.keys() - new.keys():
            remove_file(self.machine, path)
        for path, text in new.items():
            write_file(self.machine, path, FileText(text.encode()))
        self.config = config
        return self.run(self.stack.reload)

    def do(self, command: str) -> Completed:
        """A command, to its end."""
        return self.machine.run(command, COMMAND_S)

    def run(self, command: str) -> str:
        """A command's output."""
        return self.do(command).output

    def sh(self, command: str) -> str:
        """Its output; it must end well."""
        done = self.do(command)
        assert done.status == 0, f"{command}: {done.status}: {done.output}"
        return done.output

    def reboot(self) -> None:
        """Shut down in order and boot again."""
        self.machine.shutdown(COMMAND_S)
        self.lab.boot(self.machine.plan.name)

    def state(self) -> dict[str, Any]:
        """The kernel state, as soon as it is settled."""
        return self._until(lambda state: not state["transient"]["unsettled"])

    def becomes(self, kernel: Mapping[str, Any]) -> dict[str, Any]:
        """The kernel state, as soon as it is this one, or when the time is over."""
        return self._until(lambda state: not state["transient"]["unsettled"] and state["kernel"] == kernel)

    def _until(self, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + SETTLE_S
        events = Events(self.machine)
        try:
            while True:
                state = read_state(self.machine, self.stack.patterns, self.stack.ignored, ())
                if good(state) or time.monotonic() >= deadline:
                    kernel: dict[str, Any] = state["kernel"]
                    return kernel
                events.wait(0.25)
        finally:
            events.close()


def in_sandbox(work: Callable[[], Any]) -> Any:
    """The value of `work()`, done in a sandbox; its exception is raised here."""
    return answer(work, sandbox.spawn)

"""Laboratories for tests written in Python: networks, machines and flows as objects.

    def test_a_machine_without_default_route_reaches_its_own_network_only(world: World) -> None:
        lab = world("lan-and-router")
        server = lab.machine("server")
        server.run("ip route del default")
        assert lab.flow("server -> client").delivered
        assert lab.flow("server -> internet").reason == "no-route"
        server.reboot()
        assert lab.flow("server -> internet").delivered

`world` is a fixture of the pytest plugin that comes with this package. A laboratory lives in a process tree of its
own: it ends with the test, and with pytest however that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from sim import grammar, library
from sim.document import Mistakes, node_of, shown
from sim.errors import BadInput, LabError, Missing
from sim.plan import expand
from sim.planned import Plan
from sim.remote import Server
from sim.scenario import Scenario, Step, Topology
from sim.shape import INVALID, Context
from sim.vocabulary import VERBS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

COMMAND_S = 120.0
"""How long a command in a machine may take, unless told otherwise."""


class Refused(AssertionError):
    """A command, or a verb of the mechanism, ended with another exit status than was expected."""


@dataclass(frozen=True)
class Completed:
    """A command that ended. `status`: its exit status, negative for the signal that killed it (-9 after a time-out)."""

    status: int
    output: str  # stdout and stderr, in the order in which they were written
    seconds: float = 0.0
    timed_out: bool = False


@dataclass(frozen=True)
class Delivery:
    """A flow in one family. `reason`: one of `sim.scenario.REASONS`, empty when delivered; `detail`: its evidence."""

    flow: str
    family: str  # v4 | v6
    delivered: bool
    reason: str
    detail: str
    milliseconds: float
    sent: int
    lost: int


class Machine:
    """A machine of a laboratory. Methods raise LabError when the laboratory cannot do its part."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name

    def __repr__(self) -> str:
        return f"<machine {self.name}>"

    @property
    def on(self) -> bool:
        """Whether it is powered."""
        return bool(self.lab.call("on", self.name))

    def run(self, command: str, status: int | None = 0, timeout_s: float = COMMAND_S) -> Completed:
        """Run a shell command as root. Raises Refused for another exit status than `status` (None: any will do)."""
        done = Completed(**self.lab.call("run", self.name, command, timeout_s))
        if status is not None and done.status != status:
            raise Refused(f"{self.name}: {command}: exit status {done.status}, expected {status}\n{done.output}")
        return done

    # -- files ---------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """The content of a file, links in the machine followed; None when there is none."""
        content: bytes | None = self.lab.call("read", self.name, path)
        return content

    def write(self, path: str, text: str, mode: int | None = None, owner: str | None = None) -> None:
        """Write a file in place, and flush it. `mode` and `owner` are kept where they are not given."""
        self._step("write", file=path, text=text, mode=mode, owner=owner)

    def remove(self, path: str) -> None:
        """Remove a file, a link, or a folder with all that is in it."""
        self._step("remove", file=path)

    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """The configuration that the stack reads: path -> entry, as in `sim.events.State`."""
        files: Mapping[str, Mapping[str, Any]] = self.lab.call("state", self.name)["files"]
        return files

    def kernel(self) -> Mapping[str, Any]:
        """Links, addresses, routes, rules and sysctls, as in `sim.events.State`."""
        kernel: Mapping[str, Any] = self.lab.call("state", self.name)["kernel"]
        return kernel

    # -- the mechanism and the stack -------------------------------------------------------------------------------

    def begin(self, status: int = 0) -> Completed:
        """The mechanism saves the configuration. Raises Refused for another exit status than `status`."""
        return self._verb("begin", status)

    def commit(self, status: int = 0) -> Completed:
        """The mechanism keeps the change."""
        return self._verb("commit", status)

    def rollback(self, status: int = 0) -> Completed:
        """The mechanism gives back what it saved; one that covers files only is followed by a reload."""
        return self._verb("rollback", status)

    def reload(self) -> Completed:
        """The stack applies its files as they are now."""
        return self._step("reload")

    # -- power and cables ------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Stop services in order, and power off."""
        self._step("shutdown")

    def crash(self) -> None:
        """Kill every process at once; the disk keeps all writes. Off until `boot`."""
        self._step("crash")

    def boot(self) -> None:
        """Power on, and wait until networking has started."""
        self._step("boot")

    def reboot(self) -> None:
        """Shut down and boot."""
        self._step("reboot")

    def unplug(self, port: str) -> None:
        """Pull the cable out of a port."""
        self._step("unplug", port=port)

    def plug(self, port: str) -> None:
        """Plug the cable in again."""
        self._step("plug", port=port)

    def _verb(self, verb: str, status: int) -> Completed:
        done = self._step(verb, status=status)
        if done.status != status:
            raise Refused(f"{self.name}: {verb}: exit status {done.status}, expected {status}\n{done.output}")
        return done

    def _step(self, verb: str, **arguments: Any) -> Completed:
        usual = {key: value for key, value in VERBS[verb].arguments.items() if value is not ...}
        done = self.lab.call("step", Step(verb, self.name, usual | arguments))
        if done["outcome"] == "lab-error":
            raise LabError("; ".join(done["problems"]))
        return Completed(done["status"] or 0, done["output"])


class Lab:
    """A laboratory that has booted: `World` makes it. A context manager that ends it; the fixture does that too."""

    def __init__(
        self, topology: Topology, connection: Connection[Any, Any], missing: Callable[[str], NoReturn]
    ) -> None:
        self.topology = topology
        self._connection = connection
        self._missing = missing
        self._take()  # it has booted

    def machine(self, name: str) -> Machine:
        """A machine by name. Raises BadInput, with the nearest name, when there is none."""
        node, context = node_of(name), self._context()
        if context.known("machine", name, node) is INVALID:
            raise BadInput(context.mistakes.found)
        return Machine(self, name)

    def flow(self, text: str, within_s: float = 0.0) -> Delivery:
        """Probe one flow, as written in scenario files, in every family that both ends had addresses of at the boot.

        The first family in which it is not delivered, else the first. `within_s`: how long to wait until it is.
        """
        node, context = node_of(text), self._context()
        flow = grammar.FLOW.check(node, context)
        if flow is INVALID:
            raise BadInput(context.mistakes.found)
        seen = [Delivery(**fields) for fields in self.call("flows", (flow,), within_s)]
        if not seen:
            raise LabError(f"{text}: the machines have no addresses of one family")
        return next((one for one in seen if not one.delivered), seen[0])

    def flows(self, within_s: float = 0.0) -> list[Delivery]:
        """Probe the flows that the topology names, and icmp between every two machines, each family by itself."""
        return [Delivery(**fields) for fields in self.call("flows", None, within_s)]

    def _context(self) -> Context:
        names = {"machine": list(self.topology.machines), "flow": dict(self.topology.flows)}
        return Context(Mistakes(self.topology.name), names=names)

    def call(self, name: str, *arguments: Any) -> Any:
        """One call to the laboratory (`sim.served`). Raises LabError when it failed or is gone."""
        try:
            self._connection.send((name, arguments))
        except OSError as error:
            raise LabError("the laboratory is gone") from error
        return self._take()

    def _take(self) -> Any:
        try:
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise LabError("the laboratory is gone") from error
        if reply.kind == "missing":
            self._missing(reply.value)
        if reply.kind == "failed":
            raise LabError(reply.value)
        return reply.value

    def close(self) -> None:
        """End the laboratory, and wait until nothing of it is left."""
        if self._connection.closed:
            return
        try:
            self._connection.send(None)
            while self._connection.recv():
                continue  # the answer of a call that was interrupted
        except (EOFError, OSError):
            pass  # that is its end
        self._connection.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _raise_missing(what: str) -> NoReturn:
    raise Missing(what)


class World:
    """Makes laboratories: `world(topology, …)`; `close` ends all that it has made."""

    def __init__(
        self,
        server: Server,
        beside: Path,
        mechanism: str = "none",
        missing: Callable[[str], NoReturn] = _raise_missing,
    ) -> None:
        """`beside`: the folder where topologies and mechanisms are looked up first; `mechanism`: the default one;
        `missing` is called when this machine lacks something (the plugin skips the test)."""
        self._server = server
        self._beside = beside
        self._mechanism = mechanism
        self._missing = missing
        self._labs: list[Lab] = []

    def __call__(
        self,
        topology: str | Mapping[str, Any],
        *,
        mechanism: str | None = None,
        stack: str | None = None,
        family: str | None = None,
        dad: bool = False,
        listen: Mapping[str, Sequence[str]] | None = None,
    ) -> Lab:
        """Build and boot a laboratory.

        `topology`: the name of one, or a mapping as in scenario files. `stack` and `mechanism` are those of the
        machine `server`, or of the first where there is none. `listen`: what answers to flows of your own, as in
        `{"server": ["tcp/22", "udp/53"]}`. Raises BadInput for names that are not known.
        """
        found = self._topology(topology)
        subject = "server" if "server" in found.machines else next(iter(found.machines))
        sets = {"stack": stack, "family": family, "dad": "true" if dad else None}
        scenario = Scenario(
            name=f"{found.name}",
            file=str(self._beside / "a test"),
            topology=found,
            subject=subject,
            mechanism=mechanism or self._mechanism,
            steps=(),
        )
        plan = expand(scenario, {key: value for key, value in sets.items() if value is not None})[0]
        if plan.skip:
            self._missing(plan.skip)
        lab = Lab(found, self._server.start("lab", _listening(plan, listen or {})), self._missing)
        self._labs.append(lab)
        return lab

    def _topology(self, topology: str | Mapping[str, Any]) -> Topology:
        if isinstance(topology, str):
            return library.find_topology(topology, self._beside)
        mistakes = Mistakes("topology")
        found = library.read_topology(node_of(topology), "topology", Context(mistakes, self._beside))
        if found is None or mistakes.found:
            raise BadInput(mistakes.found)
        return found

    def close(self) -> None:
        """End all laboratories."""
        for lab in self._labs:
            lab.close()
        self._labs.clear()


def _listening(plan: Plan, listen: Mapping[str, Sequence[str]]) -> Plan:
    """The plan, with further listeners."""
    context = Context(Mistakes("listen"), names={"machine": list(plan.machines)})
    ports = {name: set(words) for name, words in plan.listeners.items()}
    for machine, words in listen.items():
        context.known("machine", machine, node_of(machine))
        for word in words:
            protocol, _, port = word.partition("/")
            if protocol in ("tcp", "udp") and port.isdecimal() and 0 < int(port) < 1 << 16:
                ports.setdefault(machine, set()).add((protocol, int(port)))
            else:
                context.add(None, f"{shown(word)} is nothing to listen on; valid: tcp/PORT or udp/PORT")
    if context.mistakes.found:
        raise BadInput(context.mistakes.found)
    return replace(plan, listeners={name: tuple(sorted(words)) for name, words in ports.items()})

"""What a scenario file says, after reading and before planning: frozen values, no behaviour.

Everything here is what the author wrote, checked and with names looked up, but not yet expanded:
`sim.load` makes these values, `sim.plan` turns one `Scenario` and one choice of parameters into a `Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["v4", "v6"]
Protocol = Literal["icmp", "tcp", "udp", "dns"]
Verdict = Literal["pass", "fail", "unknown", "skip", "not-offered"]

REASONS = (
    "link-down",
    "no-address",
    "no-route",
    "neighbour-unreachable",
    "prohibited",
    "refused",
    "too-big",
    "filtered",
    "timeout",
    "no-name",
)

OFFERS = ("timeout", "probe", "client-loss", "quit")
"""Ways in which a mechanism undoes a change by itself, where it says that it does."""

RECOVERIES = ("rollback", "reboot", "crash", "commit", "power-cut", "crash-everywhere", *OFFERS)


@dataclass(frozen=True)
class Flow:
    """`SOURCE -> DESTINATION [icmp | tcp/PORT | udp/PORT | dns=NAME] [v4|v6] [size=BYTES]`."""

    source: str
    destination: str
    protocol: Protocol = "icmp"
    port: int | None = None
    asked: str | None = None  # the name that a dns flow asks for
    family: Family | None = None  # None: every family that both ends have
    size: int | None = None  # payload, bytes
    name: str = ""  # the author's name, or the text as written

    def __str__(self) -> str:
        return self.name or self.text

    @property
    def text(self) -> str:
        """The flow in canonical form, without its name."""
        words = [f"{self.source} -> {self.destination}"]
        if self.protocol in ("tcp", "udp"):
            words.append(f"{self.protocol}/{self.port}")
        elif self.protocol == "dns":
            words.append(f"dns={self.asked}")
        if self.family:
            words.append(self.family)
        if self.size is not None:
            words.append(f"size={self.size}")
        return " ".join(words)


@dataclass(frozen=True)
class FileText:
    """Content and mode of a regular file to be put on a disk; `content` None removes the path."""

    content: bytes | None
    mode: int = 0o644
    owner: str = "root:root"


@dataclass(frozen=True)
class Network:
    """A bridge that ports are plugged into."""

    name: str
    mtu: int = 1500
    stp: bool = False


@dataclass(frozen=True)
class Machine:
    """A machine as the topology describes it. `config` is the netplan subset, already validated."""

    name: str
    ports: Mapping[str, str]  # port name -> network name, in the order written
    stack: str = "ifcfg"
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileText] = field(default_factory=dict)
    forward: bool = False
    services: Mapping[str, Any] = field(default_factory=dict)
    root: str = "/"  # the root tree below the machine's disk


@dataclass(frozen=True)
class Topology:
    """Networks, machines and named flows."""

    name: str
    networks: Mapping[str, Network]
    machines: Mapping[str, Machine]
    flows: Mapping[str, Flow] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What breaks the machine: exactly one of `config`, `files`, `run`; then a reload, unless told not to."""

    config: Mapping[str, Any] | None = None
    files: Mapping[str, str | None] | None = None
    run: str | None = None
    reload: bool = True


@dataclass(frozen=True)
class Breaks:
    """Flows that must be seen broken; `after` says when they are."""

    flows: tuple[Flow, ...] = ()
    after: Literal["change", "reboot"] = "change"


@dataclass(frozen=True)
class Step:
    """One step: a verb of `sim.vocabulary`, the machine it is done on (where there is one), its arguments.

    `args` is normalised: short spellings (`begin: server`) are expanded, durations are seconds (float),
    flows are `Flow`, file contents are text. `line` is where it stands in the file (None: made by expansion).
    """

    verb: str
    on: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = None


@dataclass(frozen=True)
class Mechanism:
    """A rollback mechanism: what is installed, and the shell command for each verb that it offers."""

    name: str
    install: Mapping[str, FileText] = field(default_factory=dict)
    begin: str | None = None
    commit: str | None = None
    rollback: str | None = None
    boot: str | None = None
    wrong_state: int = 199
    state: tuple[str, ...] = ()
    stack: str | None = None  # the only stack that it can work with; None: any
    covers: tuple[str, ...] = ("files",)  # files | kernel
    offers: tuple[str, ...] = ()
    missing: str | None = None  # why it cannot run on this machine (a skip), or None
    needs: tuple[str, ...] = ()  # programs that the machine's root tree must have
    # further verbs: confirm, save, load, status; the commands of `offers`; watcher: part of a command line
    extra: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True)
class Requirement:
    """What a file of scenarios/conformance/ asks of every mechanism (`sim conform`).

    `tries`: named lists of steps, each tried on its own, at every point that it enumerates. Empty: the scenario itself
    is what is tried. `topologies`: further ones on which it is tried. `apart`: also with /var on a disk of its own.
    """

    id: str
    title: str
    causes: str = ""
    topologies: tuple[Topology, ...] = ()
    tries: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    apart: bool = False


@dataclass(frozen=True)
class Scenario:
    """One scenario file."""

    name: str
    file: str  # as the user named it
    topology: Topology
    about: str = ""
    source: tuple[str, ...] = ()
    catalogue: tuple[str, ...] = ()
    subject: str | None = None
    mechanism: str = "snapcore"  # a name or a path, resolved by `sim.library`
    change: Change | None = None
    breaks: Breaks = Breaks()
    keeps: tuple[Flow, ...] = ()
    recover: tuple[str, ...] | None = None  # None: all that the mechanism offers except commit
    steps: tuple[Step, ...] | None = None  # the long form
    matrix: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    checks: Mapping[str, bool] = field(default_factory=dict)  # named exceptions: only those that are False
    checks_reason: str = ""
    dad: bool = False
    outage: Mapping[Flow, float] = field(default_factory=dict)  # the longest outage that is accepted, milliseconds
    requirement: Requirement | None = None
    needs: tuple[str, ...] = ()  # what a mechanism must cover beside files: where it does not, it is not asked

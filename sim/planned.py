"""A `Plan`: one run with everything resolved. It can be printed, written down, and run without looking anything up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.scenario import Family, FileText, Flow, Machine, Mechanism, Network, Step


@dataclass(frozen=True)
class Port:
    """A place on a machine for a cable; the cable's MAC address belongs to the network."""

    name: str
    network: str
    mac: str


@dataclass(frozen=True)
class MachinePlan:
    """A machine with all its files rendered: `files` is what its disk holds before the first boot."""

    name: str
    ports: tuple[Port, ...]
    stack: str
    files: Mapping[str, FileText]
    root: str = "/"
    dad: bool = False
    boot_hook: str | None = None  # the mechanism's command before the network phase
    state: tuple[str, ...] = ()  # where the mechanism keeps its records: not compared
    written: Machine | None = None  # the machine as its author wrote it, for `sim show`
    services: Mapping[str, Any] = field(default_factory=dict)  # servers that it runs, see `sim.services`


@dataclass(frozen=True)
class Params:
    """The choices that tell one run of a scenario from another."""

    stack: str
    mechanism: str
    recover: str | None = None  # None in the long form
    family: Family | None = None
    disk: str = "keep"
    dad: bool = False
    apart: bool = False  # of a disk that loses writes, /var is a disk of its own; `sim conform` asks for it


@dataclass(frozen=True)
class Plan:
    """One run. `steps` is the long form; `skip` says why it cannot run here, `not_offered` why it is not asked."""

    scenario: str
    file: str
    params: Params
    networks: Mapping[str, Network]
    machines: Mapping[str, MachinePlan]
    flows: tuple[Flow, ...]  # the named ones; every ordered pair has an icmp flow besides
    steps: tuple[Step, ...]
    mechanism: Mechanism
    subject: str | None = None
    breaks: tuple[Flow, ...] = ()
    keeps: tuple[Flow, ...] = ()
    checks: frozenset[str] = frozenset()  # the names of the always-on checks that are in force
    excused: str = ""  # why the others are not
    skip: str | None = None
    not_offered: str | None = None
    outage: Mapping[Flow, float] = field(default_factory=dict)  # the longest outage that is accepted, milliseconds
    listeners: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)  # machine -> (tcp|udp, port)

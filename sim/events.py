"""What happened in a run: frozen values, one JSON line each. History only; nothing here judges.

A run is a list of events in the order in which they happened. `sim.check` judges such a list against its
`Plan`, now or years later. `at` is seconds since the run started (CLOCK_MONOTONIC of the laboratory).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args

State = Mapping[str, Any]
"""`{"files": {PATH: ENTRY}, "kernel": {KIND: {KEY: VALUE}}, "transient": {...}}`, as `sim.observe` reads it.

`files`: one ENTRY (type, mode, uid, gid, sha256, size, target, xattrs) for each path that differs from the root
tree below the disk. `kernel`: typed values keyed by names, never by ifindex. `transient`: what may differ between
two boots but not within one: `{"links": {NAME: {"ifindex": N, "carrier_changes": N}}}`.
"""


@dataclass(frozen=True)
class RunStarted:
    """The laboratory stands; nothing is booted. `facts` names what it found (root, kernel, time namespace, …)."""

    at: float
    scenario: str
    params: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseEnded:
    """One phase of a boot (pre-network, network, late) or of a shutdown (stop) of a machine."""

    at: float
    machine: str
    boot: int  # counted from 1
    phase: Literal["pre-network", "network", "late", "stop"]
    command: str  # empty: there was nothing to do
    status: int
    milliseconds: float
    output: str = ""
    why: str = ""  # set when the phase was cut off by its time-out


@dataclass(frozen=True)
class PoweredOff:
    """A machine went down; `how`: shutdown | reboot | crash | power-cut | end."""

    at: float
    machine: str
    boot: int
    how: str
    milliseconds: float


@dataclass(frozen=True)
class FlowRead:
    """One flow was probed. `flow` is the key used in reports, `reason` is empty when delivered.

    `label` says when: baseline | step | final, as for `StateRead`.
    """

    at: float
    label: str
    step: int | None
    flow: str
    written: str  # `Flow.text` of the flow in the file; a pair's own text otherwise
    family: str
    delivered: bool
    reason: str = ""
    milliseconds: float = 0.0
    sent: int = 0
    lost: int = 0
    detail: str = ""  # the evidence for the reason, in words


@dataclass(frozen=True)
class StateRead:
    """Files and kernel state of one machine; `label` says what it is a picture of.

    baseline · begin (just before begin) · changed (after a change and its reload) · step (for an `expect`) ·
    final (after the last step) · rebooted (after the one more reboot).
    """

    at: float
    label: str
    step: int | None
    machine: str
    boot: int
    state: State
    transaction: Literal["open", "none", "unknown"] = "unknown"


@dataclass(frozen=True)
class StepEnded:
    """A step is over. `outcome`: done · refused (a change of the product failed: a wrong exit status) ·
    unmet (an ask was not met in time) · lab-error (the laboratory failed) · skipped (after an earlier failure).

    `problems`: one line for each thing that was expected and not found. `status`, `output`: of a command.
    """

    at: float
    step: int
    verb: str
    machine: str | None
    outcome: Literal["done", "refused", "unmet", "lab-error", "skipped"]
    seconds: float
    status: int | None = None
    expected: int | None = None
    output: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepStarted:
    """A step begins; for progress."""

    at: float
    step: int
    verb: str
    machine: str | None


@dataclass(frozen=True)
class SeenAtBoot:
    """Addresses and routes that were in a machine's kernel during a boot, if for a moment only.

    Written for every boot after a begin, until a commit.

    Each in the words of `State`, after its keys: `eth0 v4: 192.0.2.10/24 scope global`,
    `v4 main: default via 192.0.2.1 dev eth0 proto boot`. `overflow`: there was more than could be heard.
    """

    at: float
    machine: str
    boot: int
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    overflow: bool = False


@dataclass(frozen=True)
class OutageRead:
    """What probes at 1 kHz saw of one flow, in one step or (None) from the first begin to the end of the last step.

    `outage_ms`: the longest, from the sending of the first probe that was lost to that of the next that came back.
    `late_ms`: the longest pause of the probes themselves, 0 where none is worth a word. `by`: icmp | udp.
    """

    at: float
    step: int | None
    flow: str
    written: str  # as for `FlowRead`
    family: str
    sent: int
    lost: int
    outage_ms: float
    reason: str = ""
    late_ms: float = 0.0
    by: str = "icmp"


@dataclass(frozen=True)
class ConnectionRead:
    """A TCP connection that was opened before the first begin, tried after the last step.

    `outcome`: alive · broken · ended (one of its machines went down) · unknown (it could not be opened).
    """

    at: float
    flow: str
    family: str
    outcome: Literal["alive", "broken", "ended", "unknown"]
    detail: str = ""


@dataclass(frozen=True)
class Note:
    """Something the reader should know that is no verdict: a warning of the stack, a fallback that was taken."""

    at: float
    machine: str | None
    text: str


@dataclass(frozen=True)
class RunEnded:
    """The last event. `trouble`: empty, or why the laboratory could not finish (the run is unknown).

    `missing`: what this machine lacks (the run is a skip).
    """

    at: float
    trouble: str = ""
    missing: str = ""


Event = Union[
    RunStarted,
    PhaseEnded,
    PoweredOff,
    FlowRead,
    StateRead,
    StepStarted,
    StepEnded,
    SeenAtBoot,
    OutageRead,
    ConnectionRead,
    Note,
    RunEnded,
]

_KINDS = {kind.__name__: kind for kind in get_args(Event)}
_LISTS = ("problems", "addresses", "routes")


def to_line(event: Event) -> str:
    """One JSON line (without the newline) that `from_line` reads back."""
    value = {"event": type(event).__name__}
    value.update({f.name: getattr(event, f.name) for f in dataclasses.fields(event)})
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def from_line(line: str) -> Event:
    """The event that `to_line` wrote. Raises ValueError for a line that is none."""
    try:
        value = json.loads(line)
        kind = _KINDS[value.pop("event")]
        for name, item in value.items():
            if name in _LISTS:
                value[name] = tuple(item)
        event: Event = kind(**value)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not an event: {line[:80]!r}") from error
    return event

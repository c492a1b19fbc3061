"""What a journal says: the events of one run, with the questions that judging asks of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Literal

from sim.events import (
    ConnectionRead,
    Event,
    FlowRead,
    OutageRead,
    PhaseEnded,
    PoweredOff,
    RunEnded,
    SeenAtBoot,
    StateRead,
    StepEnded,
    StepStarted,
)
from sim.planned import Plan
from sim.vocabulary import VERBS

CHANGES = frozenset({"config", "write", "remove", "chmod", "chown", "link", "setxattr", "run", "plug", "unplug"})
"""The steps that change a machine."""
CLOSES = frozenset({"commit", "confirm"})
"""The steps that keep a change."""
TRANSACTION = CLOSES | {"begin", "rollback", "load", "await"}

Reference = Literal["begin", "changed", "baseline"]


@dataclass(frozen=True)
class History:
    """The events of one run, with the questions that checks ask of them."""

    plan: Plan
    events: tuple[Event, ...]

    @cached_property
    def end(self) -> RunEnded | None:
        return next((event for event in reversed(self.events) if isinstance(event, RunEnded)), None)

    @property
    def trouble(self) -> str:
        if self.end is None:
            return "the run ended without a word: its process was killed"
        return self.end.trouble

    @cached_property
    def steps(self) -> list[StepEnded]:
        return [event for event in self.events if isinstance(event, StepEnded)]

    @cached_property
    def states(self) -> list[tuple[int, StateRead]]:
        return [(index, event) for index, event in enumerate(self.events) if isinstance(event, StateRead)]

    @cached_property
    def flows(self) -> list[tuple[int, FlowRead]]:
        """Readings of the flows that the run is about: with a family, those of that family."""
        family = self.plan.params.family
        return [
            (index, event)
            for index, event in enumerate(self.events)
            if isinstance(event, FlowRead) and family in (None, event.family)
        ]

    @cached_property
    def outages(self) -> list[OutageRead]:
        """What was measured of the flows that the run is about."""
        family = self.plan.params.family
        return [e for e in self.events if isinstance(e, OutageRead) and family in (None, e.family)]

    @cached_property
    def went_down(self) -> tuple[str, ...]:
        """The machines that steps took down while outages were measured: no mechanism can do anything about that."""
        begin = next((step for step, it in enumerate(self.plan.steps) if it.verb == "begin"), 0)
        begun, found = False, []
        for event in self.events:
            begun = begun or (isinstance(event, StepStarted) and event.step >= begin)
            if begun and isinstance(event, PoweredOff):
                found.append(event.machine)
            elif isinstance(event, OutageRead):
                break
        return tuple(dict.fromkeys(found))

    @cached_property
    def connections(self) -> list[ConnectionRead]:
        return [event for event in self.events if isinstance(event, ConnectionRead)]

    @cached_property
    def lost_at(self) -> int | None:
        """The step in which the laboratory failed: from there on nothing is held against the product."""
        return next((event.step for event in self.steps if event.outcome == "lab-error" or self._unable(event)), None)

    def _unable(self, event: StepEnded) -> bool:
        return event.outcome == "refused" and not VERBS[event.verb].product

    def phases(self, phase: str) -> list[PhaseEnded]:
        return [event for event in self.events if isinstance(event, PhaseEnded) and event.phase == phase]

    def state(self, label: str, machine: str, before: int | None = None) -> tuple[int, StateRead] | None:
        """The last picture with `label`, and its place in the journal."""
        found = [
            (index, event)
            for index, event in self.states
            if event.label == label and event.machine == machine and (before is None or index < before)
        ]
        return found[-1] if found else None

    def readings(self, label: str) -> dict[tuple[str, str], FlowRead]:
        """The last reading of each flow with `label`, by name and family."""
        return {(event.flow, event.family): event for _, event in self.flows if event.label == label}

    def between(self, start: int, end: int, label: str | None = None) -> dict[tuple[str, str], FlowRead]:
        """The last reading of each flow (with `label`) between two places in the journal."""
        return {
            (event.flow, event.family): event
            for index, event in self.flows
            if start < index < end and label in (None, event.label)
        }

    def after_step(self, verbs: frozenset[str], machine: str) -> list[tuple[int, StepEnded]]:
        """The steps of `machine` with one of `verbs` that succeeded, and their places in the journal."""
        return [
            (index, event)
            for index, event in enumerate(self.events)
            if isinstance(event, StepEnded)
            and event.verb in verbs
            and event.machine == machine
            and event.outcome == "done"
            and not event.status
        ]

    @cached_property
    def faulty_boots(self) -> frozenset[tuple[str, int]]:
        """(machine, boot) of those boots whose hook ran while calls failed on purpose, or on a spoilt disk."""
        pending: set[str] = set()
        spoilt: set[str] = set()
        found = set()
        for event in self.events:
            if isinstance(event, StepEnded) and event.verb == "fault" and event.machine is not None:
                disk = self.plan.steps[event.step].args.get("disk")
                if disk is None:
                    pending.add(event.machine)
                else:
                    (spoilt.discard if disk == "normal" else spoilt.add)(event.machine)
            elif isinstance(event, StepEnded) and event.machine is not None:
                pending.discard(event.machine)
            elif isinstance(event, PhaseEnded) and event.machine in pending | spoilt:
                found.add((event.machine, event.boot))
        return frozenset(found)

    def boots_in_a_change(self) -> Iterator[tuple[SeenAtBoot, StateRead, StateRead]]:
        """What was seen at each boot that has to give back what begin saved, and the pictures at begin and after the
        change. It has to where the mechanism has a boot hook, and no fault was made on purpose."""
        for index, event in enumerate(self.events):
            if not isinstance(event, SeenAtBoot) or (event.machine, event.boot) in self.faulty_boots:
                continue
            machine = self.plan.machines.get(event.machine)
            begin = self.state("begin", event.machine, before=index)
            changed = self.state("changed", event.machine, before=index)
            if machine is None or machine.boot_hook is None or begin is None or changed is None:
                continue
            if begin[0] < changed[0] and not any(
                self._may_end(other, event) for other in self.events[begin[0] : index]
            ):
                yield event, begin[1], changed[1]

    def _may_end(self, event: Event, boot: SeenAtBoot) -> bool:
        """Whether the transaction may be over by this event, before a boot: a commit that failed may have been done."""
        if isinstance(event, PhaseEnded) and event.machine == boot.machine and event.boot < boot.boot:
            return event.phase == "pre-network" and bool(event.command) and not event.status
        if not isinstance(event, StepEnded) or event.machine != boot.machine or event.outcome == "skipped":
            return False
        if event.verb == "rollback":
            return not event.status
        if event.verb == "run":
            words = re.split(r"[^\w.-]+", str(self.plan.steps[event.step].args.get("command")))
            return not self._programs.isdisjoint(words)
        if event.verb == "race":
            return set(self.plan.steps[event.step].args["verbs"]) != {"begin"}
        return event.verb in TRANSACTION - {"begin"} or event.verb == "restore-disk"

    @cached_property
    def _programs(self) -> frozenset[str]:
        """By what the mechanism is called in commands."""
        mechanism = self.plan.mechanism
        commands = (mechanism.begin, mechanism.commit, mechanism.rollback, mechanism.boot, *mechanism.extra.values())
        return frozenset(
            {mechanism.name, *(PurePath(text.split()[0]).name for text in commands if text and text.split())}
        )

    @cached_property
    def judged(self) -> tuple[str, ...]:
        """The machines that something was asked of: their pictures must be there."""
        named = [self.plan.subject] if self.plan.subject else []
        named += [step.on for step in self.plan.steps if step.on and VERBS[step.verb].product]
        return tuple(dict.fromkeys(named))

    @cached_property
    def pictured(self) -> tuple[str, ...]:
        """Those, and the other machines that were looked at in the end."""
        others = [event.machine for _, event in self.states if event.label == "final"]
        return tuple(dict.fromkeys((*self.judged, *others)))

    def reference(self, machine: str) -> tuple[Reference, int, StateRead] | None:
        """The picture that `machine` must equal in the end, and its place. None: the journal has none."""
        kind = self._ended_by(machine)
        if kind is None:
            return None
        if kind != "changed":
            found = self.state(kind, machine)
            return (kind, *found) if found else None
        begin, found = self.state("begin", machine), self._kept(machine)
        if begin and (found is None or found[0] < begin[0]):
            # nothing was changed since begin: then that is what was kept
            changes = [index for index, _ in self.after_step(CHANGES, machine) if index > begin[0]]
            return None if changes else ("begin", *begin)
        return (kind, *found) if found else None

    def _kept(self, machine: str) -> tuple[int, StateRead] | None:
        """The picture of a change that is to stay: the last before its commit, or before any recovery."""
        commits = self.after_step(CLOSES, machine)
        written = self._written(machine)
        if commits and commits[-1][0] > written:
            return self.state("changed", machine, before=commits[-1][0])
        # `run` may only have looked; a picture after it may hold what is to be found
        later = [found for found in self.states if found[0] > written >= 0 and self._is_change(found[1], machine)]
        return later[0] if later else self.state("changed", machine)

    @staticmethod
    def _is_change(event: StateRead, machine: str) -> bool:
        return event.label == "changed" and event.machine == machine

    def _written(self, machine: str) -> int:
        """The place of the last step that is known to have changed the machine; -1 when there is none."""
        return max((index for index, _ in self.after_step(CHANGES - {"run"}, machine)), default=-1)

    def _ended_by(self, machine: str) -> Reference | None:
        recover = self.plan.params.recover
        if recover is not None and machine == self.plan.subject:
            return "changed" if recover == "commit" else "begin"
        verbs = self.after_step(TRANSACTION, machine)
        if not verbs:
            return "changed" if self.after_step(CHANGES, machine) else "baseline"
        if verbs[-1][1].verb == "load":  # no picture of what was saved
            return None
        if verbs[-1][1].verb in CLOSES or self._changed_outside(machine):
            return "changed"
        return "begin"

    def _changed_outside(self, machine: str) -> bool:
        """Whether the last change came after the transaction was over: then it is to stay."""
        begin, written = self.state("begin", machine), self._written(machine)
        over = [index for index, _ in self.after_step(frozenset({"rollback", "await"}), machine)]
        over += [
            index
            for index, event in enumerate(self.events)
            if isinstance(event, PhaseEnded)
            and event.phase == "pre-network"
            and event.machine == machine
            and event.command
            and event.status == 0
        ]
        return begin is not None and any(begin[0] < index < written for index in over)

    def reference_flows(self) -> tuple[Reference, dict[tuple[str, str], FlowRead]] | None:
        """When flows were as they must be in the end, and the readings of that time."""
        subject = self.plan.subject or next((m for m in reversed(self.judged) if self.state("final", m)), None)
        if subject is None:
            return "baseline", self.readings("baseline")
        found = self.reference(subject)
        if found is None:
            return None
        kind, place, _ = found
        if kind == "changed":
            final = next((i for i, event in self.flows if event.label == "final" and i > place), len(self.events))
            return kind, self.between(place, final, "changed") or self.between(place, final)
        commits = [index for index, _ in self.after_step(CLOSES, subject) if index < place]
        if commits:  # this begin came after a change that was kept
            return kind, self.between(0, place, "changed")
        return kind, self.readings("baseline")

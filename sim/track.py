"""What the configuration of each machine is, step by step, if every step does what it should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from sim.scenario import Step

T = TypeVar("T")


class Track(Generic[T]):
    """Follows steps. Only what `config` steps change is followed; files written otherwise are not."""

    def __init__(self, current: Mapping[str, T]) -> None:
        self.current = dict(current)
        self.begun: dict[str, T] = {}  # open transactions
        self.kept: dict[str, T] = {}  # copies of disks
        self.named: dict[tuple[str, object], T] = {}  # named snapshots

    def change(self, machine: str, value: T) -> None:
        """A `config` step has made `value` of the configuration."""
        self.current[machine] = value

    def follow(self, step: Step) -> None:
        """Any other step. One that is expected to be refused changes nothing."""
        machine = step.on
        if machine is None or machine not in self.current or step.args.get("status", 0) != 0:
            return
        if step.verb == "begin":
            self.begun[machine] = self.current[machine]
        elif step.verb in ("commit", "confirm"):
            self.begun.pop(machine, None)
        elif step.verb in ("rollback", "await", "boot", "reboot"):  # a boot gives back what an open transaction saved
            self.current[machine] = self.begun.pop(machine, self.current[machine])
        elif step.verb == "save":
            self.named[machine, step.args.get("name")] = self.current[machine]
        elif step.verb == "load":
            self.current[machine] = self.named.get((machine, step.args.get("name")), self.current[machine])
        elif step.verb == "keep-disk":
            self.kept[machine] = self.current[machine]
        elif step.verb == "restore-disk":
            self.current[machine] = self.kept.get(machine, self.current[machine])

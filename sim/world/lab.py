"""The laboratory of one run: its networks, disks and machines, inside a sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from sim import stacks
from sim.errors import Missing
from sim.faults.supervisor import Supervisor
from sim.planned import MachinePlan, Plan
from sim.scenario import FileText, Mechanism
from sim.world import kernel, sandbox, sysctls
from sim.world.disk import Disk, copy_etc
from sim.world.image import ImageDisk
from sim.world.init import Boot, Phase
from sim.world.machine import Machine
from sim.world.network import Switch

DISK_MIB = 512
HOOK_S = 30.0
"""How long a mechanism's boot hook may keep the stack from starting; the design's systemd unit has such a limit."""
NETWORK_S = 90.0
STOP_S = 30.0


class Lab:
    """Build with `Lab(plan, services, tell)`; ends with `close`, or with the process that made it."""

    made = 0  # in this process: each has its own folder

    def __init__(
        self,
        plan: Plan,
        services: Callable[[MachinePlan], Mapping[str, Callable[[], None]]],
        tell: Callable[[str, Mapping[str, Any]], None],
        watched: str | None = None,
    ) -> None:
        """`services`: what a machine runs in its late phase; `tell` hears what the machines' PID 1s report.

        `watched`: the machine that boots under a filter (`sim.faults`). Raises LabError, Missing, OSError.
        """
        self.plan = plan
        self._services = services
        privileged = sandbox.privileged_world()
        Lab.made += 1
        scratch = f"{sandbox.SCRATCH}/lab-{Lab.made}"
        if plan.params.disk == "lose-unsynced" and not privileged:
            raise Missing("losing unsynced writes needs root (a loop device)")
        self.switches = {name: Switch(network) for name, network in plan.networks.items()}
        self.machines: dict[str, Machine] = {}
        copies: dict[str, str] = {}
        # forked first: it must not hold what belongs to machines
        self.supervisor = Supervisor() if watched else None
        for name, machine in plan.machines.items():
            if not privileged and machine.root not in copies:
                copies[machine.root] = copy_etc(machine.root, f"{scratch}/etc-{len(copies)}")
            # a file system of its own, so that a full disk is full for its machine alone
            medium = f"{scratch}/disks/{name}"
            os.makedirs(medium)
            kernel.mount("tmpfs", medium, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"mode=0755,size={DISK_MIB}m")
            home = f"{medium}/{name}"
            if plan.params.disk == "lose-unsynced" and name == plan.subject:
                disk: Disk = ImageDisk(home, machine.root, apart=plan.params.apart)
            else:
                disk = Disk(home, machine.root, privileged, copies.get(machine.root))
            programs = stacks.get(machine.stack).programs
            scripts = {path: FileText(text.encode(), 0o755) for path, text in programs.items()}
            disk.format({**scripts, **machine.files}, machine.state)
            if machine.root != "/" and machine.boot_hook is not None:
                _check_tree(machine.root, plan.mechanism)
            self.machines[name] = Machine(machine, disk, self.switches, self._boot, tell)
            if name == watched:
                self.machines[name].supervisor = self.supervisor

    def _boot(self, machine: MachinePlan) -> Boot:
        stack = stacks.get(machine.stack)
        return Boot(
            hostname=machine.name,
            phases=(
                Phase("pre-network", machine.boot_hook or "", HOOK_S),
                Phase("network", stack.start, NETWORK_S),
                Phase("late", "", NETWORK_S),
            ),
            stop=(Phase("stop", stack.stop, STOP_S),),
            builtins=stack.builtins,
            services=self._services(machine),
            sysctls={} if machine.dad else sysctls.no_duplicate_address_detection(),
        )

    def boot_all(self) -> None:
        """Power on every machine, side by side, and wait until all have booted."""
        for machine in self.machines.values():
            machine.power_on()
        for machine in self.machines.values():
            machine.connect()
        for machine in self.machines.values():
            machine.wait_booted(HOOK_S + 2 * NETWORK_S)

    def boot(self, name: str, powered: Callable[[Machine], None] = lambda machine: None) -> None:
        """Power one machine on and wait until it has booted. `powered` is called when its network can be used."""
        self.machines[name].power_on()
        self.machines[name].connect()
        powered(self.machines[name])
        self.machines[name].wait_booted(HOOK_S + 2 * NETWORK_S)

    def close(self) -> None:
        """Power everything off and let everything go."""
        for machine in self.machines.values():
            if machine.on:
                machine.crash()
            machine.disk.close()
        for switch in self.switches.values():
            switch.close()
        if self.supervisor is not None:
            self.supervisor.close()

    def facts(self) -> dict[str, Any]:
        """What this machine of ours is, for the journal."""
        return {
            "kernel": os.uname().release,
            "user": "root" if sandbox.privileged_world() else "unprivileged",
            "stack": {name: machine.stack for name, machine in self.plan.machines.items()},
        }


def _check_tree(root: str, mechanism: Mechanism) -> None:
    """Raises Missing when a root tree of its own lacks a program that the mechanism needs."""
    for program in mechanism.needs:
        if not any(os.path.lexists(os.path.join(root, folder, program)) for folder in ("usr/bin", "bin", "usr/sbin")):
            raise Missing(f"the root tree {root} has no {program}, which {mechanism.name} needs")

"""What goes wrong on purpose: failing calls, full and read-only disks, power cuts, signals, races."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Sequence

from sim import guarded
from sim.errors import LabError
from sim.faults.calls import GROUPS
from sim.faults.order import Order
from sim.scenario import Step
from sim.session import VERB_S, Context, Done
from sim.world.image import ImageDisk
from sim.world.machine import Completed, Machine

_BARRIER = "/run/sim/barrier"


def fault(context: Context, step: Step) -> Done:
    """Calls fail during the next step of the machine; or its disk is full, read-only or normal from now on."""
    machine = context.machine(step.on or "")
    if step.args.get("disk"):
        set_disk(machine, step.args["disk"])
        return Done()
    first, last = _which(str(step.args.get("at") or "every"))
    calls = tuple(name for group in step.args.get("call") or () for name in GROUPS[group])
    number = getattr(errno, step.args["error"])
    context.faults[machine.plan.name] = Order(error=number, calls=calls, first=first, last=last)
    return Done()


def _which(text: str) -> tuple[int, int | None]:
    """`N`, `every` or `from N` as the first and the last (None: no end) of the calls that match."""
    if text == "every":
        return 1, None
    if text.startswith("from "):
        return int(text[5:]), None
    return int(text), int(text)


@contextlib.contextmanager
def faulty(context: Context, machine: Machine) -> Iterator[None]:
    """The pending fault of this machine is in force inside; raises LabError when no call met it."""
    order = context.faults.pop(machine.plan.name, None)
    supervisor = machine.supervisor
    if order is None or supervisor is None:
        yield
        return
    supervisor.arm(order)
    try:
        yield
    finally:
        supervisor.disarm()
    if supervisor.injected == 0:
        raise LabError("the fault was never met: fewer calls than that changed the disk")


def set_disk(machine: Machine, state: str) -> None:
    """full | read-only | normal, from now on. Raises LabError."""
    machine.disk.fill(state == "full")
    machine.disk.writable = state != "read-only"
    if not machine.on:
        return
    mode = "ro" if state == "read-only" else "rw"
    points = " ".join("/" + layer.at for layer in machine.disk.layers)
    done = machine.run(f"for at in {points}; do mount -o remount,{mode} $at || exit 1; done", VERB_S)
    if done.status:
        raise LabError(f"cannot remount the disk of {machine.plan.name}: {done.output.strip()}")


def power_cut(context: Context, machine: Machine, which: str) -> None:
    """Every process killed at once, and the disk is what one of the two images of this instant says.

    `which` as-it-is takes both images and leaves the first; journal puts the second one of the last cut in place.
    """
    disk = machine.disk
    if not isinstance(disk, ImageDisk):
        raise LabError(f"the disk of {machine.plan.name} cannot lose writes")
    images = {name: f"{disk.image}.{name}" for name in ("as-it-is", "journal")}
    if which == "as-it-is":
        for name, path in images.items():
            disk.image_now(path, journal=name == "journal")
    elif not os.path.exists(images[which]):
        raise LabError("there was no power cut yet whose other image could be tried")
    context.power_off(machine, "power-cut")
    disk.put(images[which])


def kill(context: Context, step: Step) -> Done:
    """Send a signal to every process of the machine whose command line contains a text, or kill the client."""
    machine = context.machine(step.on or "")
    if step.args.get("client"):
        return guarded.lose_client(context, machine)
    name = step.args.get("process")
    if step.args.get("watcher"):
        context.changed_picture(machine.plan.name)
        name = context.plan.mechanism.extra.get("watcher")
    if not name:
        raise LabError("kill: nobody is named")
    number = getattr(signal, f"SIG{step.args.get('signal', 'TERM')}")
    first = machine.running.process
    space = os.readlink(f"/proc/{first}/ns/pid")
    hit = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == first:
            continue
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{entry}/ns/pid") != space:
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = os.fsdecode(file.read().replace(b"\0", b" "))
            if name in words:
                os.kill(int(entry), number)
                hit += 1
    if not hit:
        raise LabError(f"{machine.plan.name}: no process is called {name!r}")
    return Done(output=f"{hit} processes")


def barrier(commands: Sequence[str]) -> str:
    """A shell script that starts all commands at one instant and prints their exit statuses in order.

    Each waits for the end of a fifo of its own. Opening it for writing waits until the command's shell has opened it
    for reading (fifo(7)): once all are open, all shells stand before the barrier, and closing them lets them go.
    A command has a shell of its own and its own lines: it may call exit, or end with a comment.
    """
    numbers = range(len(commands))
    lines = [f"rm -f {_BARRIER}.*", "mkfifo " + " ".join(f"{_BARRIER}.{n}" for n in numbers) + " || exit 125"]
    for n, command in enumerate(commands):
        waits, says = f"read -r _ < {_BARRIER}.{n}", f"echo $? > {_BARRIER}.{n}.status"
        lines.append(f"( {waits}; (\n{command}\n); {says} ) > {_BARRIER}.{n}.output 2>&1 &")
    lines += [f"exec {n + 3}> {_BARRIER}.{n}" for n in numbers]
    lines += ["exec " + " ".join(f"{n + 3}>&-" for n in numbers), "wait"]
    lines += [f"cat {_BARRIER}.{n}.output; echo" for n in numbers]  # its last line may have no end
    lines += [f"cat {_BARRIER}.{n}.status" for n in numbers]
    return "\n".join(lines)


def together(machine: Machine, commands: Sequence[str], timeout_s: float) -> tuple[list[int], Completed]:
    """Start commands at one instant: (exit statuses in order, fewer where not all ended; all that was said)."""
    done = machine.run(barrier(commands), timeout_s)
    words = () if done.timed_out else done.output.split()[-len(commands) :]
    return [int(word) for word in words if word.isdecimal()], done


def race(context: Context, step: Step) -> Done:
    """Start verbs of the mechanism behind one barrier; exactly `winners` of them must exit with 0."""
    machine, mechanism = context.machine(step.on or ""), context.plan.mechanism
    name = machine.plan.name
    commands = [getattr(mechanism, verb) for verb in step.args["verbs"]]
    if not all(commands):
        raise LabError(f"the mechanism {mechanism.name} does not offer all of {', '.join(step.args['verbs'])}")
    before = context.read(name)
    context.changed_picture(name)
    statuses, done = together(machine, commands, VERB_S)
    if len(statuses) != len(commands):
        return Done("refused", done.status, 0, done.output, ("the verbs did not all end",))
    won = [verb for verb, status in zip(step.args["verbs"], statuses, strict=True) if status == 0]
    if len(won) != step.args.get("winners", 1):
        said = ", ".join(f"{verb}: {status}" for verb, status in zip(step.args["verbs"], statuses, strict=True))
        return Done(
            "refused", None, None, done.output, (f"expected {step.args.get('winners', 1)} to win; seen {said}",)
        )
    if won == ["begin"]:
        context.begun(name, before)
    elif won in (["commit"], ["rollback"]):
        context.kept[name] = won == ["commit"]
    return Done("done", 0, 0, done.output)

"""A change that a mechanism undoes by itself: its begin with a deadline, its client, and the wait until it is undone.

A mechanism that runs the change itself (`probe`, `client-loss`) is given a command that returns when the laboratory
says so (`release`): the change is then made by the steps of the scenario, as ever, while that command runs.
"""

from __future__ import annotations

import os
import select
import time

from sim import expect
from sim.errors import LabError
from sim.events import State
from sim.scenario import Step
from sim.session import VERB_S, Context, Done, Events, Guard
from sim.world.machine import Completed, Machine

COMMAND = "/run/sim/change"
_STARTED, _END = f"{COMMAND}.started", f"{COMMAND}.end"
_SCRIPT = f"#!/bin/sh\necho > {_STARTED}\nread -r _ < {_END}\nexit 0\n"
BACKGROUND = ("probe", "client-loss")
_LOOK_S = 0.25
_HEAR_S = 0.02


def begin(context: Context, machine: Machine, step: Step) -> Completed:
    """The mechanism's begin of the kind `by`. One that runs a command has begun when that command runs."""
    by, name = step.args["by"], machine.plan.name
    command = context.plan.mechanism.extra.get(by)
    if command is None:
        raise LabError(f"the mechanism {context.plan.mechanism.name} names no command for {by}")
    command = command.replace("{seconds}", f"{step.args['deadline']:g}").replace("{command}", COMMAND)
    if "{probe}" in command:
        flow = step.args.get("probe")
        found = context.matching(flow) if flow is not None else []
        if not found:
            raise LabError(f"{flow}: the probe has no address to go to")
        command = command.replace("{probe}", found[0].address)
    if by in BACKGROUND:
        return _start(context, machine, command)
    began = time.monotonic()
    done = machine.run(command, VERB_S)
    context.guards[name] = Guard(began + step.args["deadline"] if by == "timeout" else None)
    return done


def _start(context: Context, machine: Machine, command: str) -> Completed:
    began = time.monotonic()
    for path in (_STARTED, _END):
        place = machine.path(path)
        if os.path.lexists(place):
            os.unlink(place)
        os.mkfifo(place, 0o600)
    with open(machine.path(COMMAND), "w", encoding="ascii") as out:
        out.write(_SCRIPT)
    os.chmod(machine.path(COMMAND), 0o755)
    # both ends open: the script does not wait for a reader, nor its line for the script
    started = os.open(machine.path(_STARTED), os.O_RDWR | os.O_NONBLOCK)
    guard = Guard(end=os.open(machine.path(_END), os.O_RDWR | os.O_NONBLOCK))
    try:
        guard.job = machine.start(["/bin/sh", "-c", command])
        while not select.select([started], [], [], 0)[0]:
            if machine.wait_for(guard.job, _HEAR_S) or time.monotonic() - began > VERB_S:
                guard.close()
                done = machine.completed(guard.job, timed_out=not machine.ended(guard.job))
                why = f"{done.output}it ended before it ran {COMMAND}\n"
                return Completed(done.status or 1, why, done.seconds, done.timed_out)
    finally:
        os.close(started)
    context.guards[machine.plan.name] = guard
    return Completed(0, "", time.monotonic() - began)


def release(context: Context, step: Step) -> Done:
    """The command that the mechanism runs returns."""
    name = str(step.on)
    guard = context.guards.get(name)
    if guard is None or guard.end < 0:
        raise LabError(f"no command of a mechanism runs on {name}")
    context.changed_picture(name)
    os.write(guard.end, b"\n")
    return Done()


def lose_client(context: Context, machine: Machine) -> Done:
    """Kill what began the transaction, with its session's process group; a watcher has a session of its own."""
    guard = context.guards.get(machine.plan.name)
    if guard is None or guard.job is None or machine.ended(guard.job):
        raise LabError(f"no client of a mechanism runs on {machine.plan.name}")
    context.changed_picture(machine.plan.name)
    done = machine.completed(guard.job, timed_out=True)
    guard.job = None
    return Done(output=done.output)


def undone(context: Context, machine: Machine, step: Step) -> Done:
    """Wait until the files (and the kernel's state, where it is covered) are as at begin, and the client has ended.

    The mechanism itself is not asked: a call of it may be what undoes an expired transaction.
    """
    name, deadline = machine.plan.name, time.monotonic() + float(step.args.get("within", 5.0))
    context.changed_picture(name)
    reference, guard = context.begin.get(name), context.guards.pop(name, Guard())
    if reference is None:
        raise LabError(f"{name}: nothing was begun that could be undone")
    events = Events(machine)
    try:
        lines = _differences(context, reference, name)
        while time.monotonic() < deadline and (lines or (guard.due or 0.0) > time.monotonic()):
            until = deadline if lines or guard.due is None else guard.due
            events.wait(max(0.0, min(_LOOK_S, until - time.monotonic())))
            lines = _differences(context, reference, name)
    finally:
        events.close()
    return _ended(context, machine, guard, lines, deadline)


def _ended(context: Context, machine: Machine, guard: Guard, lines: list[str], deadline: float) -> Done:
    problems, output = [], ""
    if guard.job is not None:
        machine.wait_for(guard.job, max(0.0, deadline - time.monotonic()))
        done = machine.completed(guard.job, timed_out=not machine.ended(guard.job))
        output = done.output
        if done.timed_out:
            problems.append("its command did not end")
        elif done.status in (0, context.plan.mechanism.wrong_state):
            problems.append(f"expected its command to say that nothing was kept; seen exit status {done.status}")
    guard.close()
    if lines:
        problems = [f"not undone in time: {lines[0]}", *lines[1:], *problems]
    context.kept[machine.plan.name] = False
    return Done("refused" if problems else "done", output=output, problems=tuple(problems))


def _differences(context: Context, reference: State, name: str) -> list[str]:
    state, plan = context.read(name), context.plan
    lines = expect.file_differences(reference, state) if "files" in plan.checks else []
    if "kernel" in plan.checks and "kernel" in plan.mechanism.covers:
        lines += expect.kernel_differences(reference, state, plan.params.family)
    return lines

"""What each step verb does. `sim.vocabulary` says which verbs there are; this is the table of actions.

An action returns a `Done`, or raises LabError when the laboratory could not do its part.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from typing import Literal

from pyroute2.netlink.exceptions import NetlinkError

from sim import expect, guarded, mischief, stacks
from sim.errors import LabError, Missing
from sim.events import State
from sim.observe import entry
from sim.probe import Outcome
from sim.scenario import FileText, Step
from sim.session import SETTLE_S, VERB_S, Context, Done, Events, differences, settle
from sim.vocabulary import VERBS
from sim.world import kernel
from sim.world.disk import owner_ids
from sim.world.machine import Machine
from sim.world.sandbox import privileged_world

WRONG_STATE = 199
"""The exit status by which a scenario means the mechanism's own `wrong-state`."""
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40  # linux/neighbour.h
_FOREIGN = (errno.EPERM, errno.EACCES, errno.EOVERFLOW)
"""What a user namespace answers where a file belongs to somebody that it does not map, or to the kernel."""


def do(context: Context, step: Step) -> Done:
    """Do one step. A failure of the laboratory is an outcome, not an exception. Raises Missing."""
    try:
        done = ACTIONS[step.verb](context, step)
    except LabError as error:
        done = Done("lab-error", problems=(str(error),))
    except OSError as error:
        where = re.sub("^/proc/[0-9]+/root", "", str(error.filename))  # as the machine calls it
        if error.errno in _FOREIGN and not privileged_world():
            raise Missing(f"{step.verb} needs root: {error.strerror}: {where}") from error
        done = Done("lab-error", problems=(f"{step.verb}: {error.strerror}: {where}",))
    if not VERBS[step.verb].asks:
        context.last_act = time.monotonic()
    return done


def _machine(context: Context, step: Step) -> Machine:
    if step.on is None:
        raise LabError(f"{step.verb}: no machine is named")
    return context.machine(step.on)


# -- the mechanism -------------------------------------------------------------------------------------------------


def _product(context: Context, step: Step) -> Done:
    mechanism, machine = context.plan.mechanism, _machine(context, step)
    own = {"begin": mechanism.begin, "commit": mechanism.commit, "rollback": mechanism.rollback}
    command = own.get(step.verb) or mechanism.extra.get(step.verb)
    if command is None and not step.args.get("by"):
        raise LabError(f"the mechanism {mechanism.name} has no {step.verb}")
    if "name" in step.args:
        command = f"{command} {shlex.quote(step.args['name'])}"
    before = context.read(machine.plan.name) if step.verb == "begin" else None
    if step.verb != "begin":
        context.changed_picture(machine.plan.name)
    if step.verb in ("commit", "confirm"):
        kept = context.probe(context.targets)
        context.flows("changed", kept)
        context.kept_flows = kept
    with mischief.faulty(context, machine):
        done = guarded.begin(context, machine, step) if step.args.get("by") else machine.run(command or "", VERB_S)
    expected = step.args.get("status", 0)
    if expected == WRONG_STATE:
        expected = mechanism.wrong_state
    problems = ("no answer in time",) if done.timed_out else ()
    if not _as_expected(expected, done.status):
        return Done("refused", done.status, _number(expected), done.output, problems)
    if done.status == 0:
        _remember(context, step.verb, machine.plan.name, before)
        if step.verb in ("rollback", "load") and "kernel" not in mechanism.covers:
            _reload_stack(context, machine)
    return Done("done", done.status, _number(expected), done.output)


def _await(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    done = guarded.undone(context, machine, step)
    context.kept_flows = None
    if done.outcome == "done" and "kernel" not in context.plan.mechanism.covers:
        _reload_stack(context, machine)
    return done


def _as_expected(expected: object, status: int) -> bool:
    """Whether an exit status is the number that is expected, or `any`, or `failed`: all but 0."""
    return expected in ("any", status) or (expected == "failed" and status != 0)


def _number(expected: object) -> int | None:
    return expected if isinstance(expected, int) else None


def _remember(context: Context, verb: str, name: str, before: State | None) -> None:
    if verb == "begin" and before is not None:
        context.begun(name, before)
    elif verb in ("commit", "confirm"):
        context.kept[name] = True
    elif verb == "rollback":
        context.kept[name] = False
        context.kept_flows = None


# -- files ---------------------------------------------------------------------------------------------------------


def _inside(machine: Machine, path: str) -> str:
    """A path of the machine, its folders' links resolved as the machine resolves them, its last part not."""
    return kernel.place_in(machine.path("/"), path)


def write_file(machine: Machine, path: str, file: FileText, keep_mode: bool = True) -> None:
    """Write as an editor does: through a symbolic link, in place, flushed to the disk."""
    target = follow(machine, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    existed = os.path.exists(target)
    with open(target, "wb") as out:
        out.write(file.content or b"")
        out.flush()
        os.fsync(out.fileno())
    if not existed or not keep_mode:
        os.chmod(target, file.mode)
        os.chown(target, *owner_ids(file.owner))
    _sync_folder(target)


def follow(machine: Machine, path: str) -> str:
    """The place of a path of the machine, every link in it resolved as the machine resolves it. Raises OSError."""
    return kernel.followed_in(machine.path("/"), path)


def remove_file(machine: Machine, path: str) -> None:
    """Remove a file, a link or a folder with all that is in it. Raises LabError when there is nothing."""
    target = _inside(machine, path)
    if not os.path.lexists(target):
        raise LabError(f"{path}: there is nothing to remove")
    if os.path.isdir(target) and not os.path.islink(target):
        shutil.rmtree(target)
    else:
        os.unlink(target)
    _sync_folder(target)


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _config(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    files: dict[str, FileText] = step.args.get("files", {})
    for path, file in files.items():
        if file.content is not None:
            write_file(machine, path, file)
        elif os.path.lexists(_inside(machine, path)):
            remove_file(machine, path)
    context.dirty.add(machine.plan.name)
    return Done()


def _write(context: Context, step: Step) -> Done:
    machine, mode, owner = _machine(context, step), step.args.get("mode"), step.args.get("owner")
    text = str(step.args["text"]).encode("utf-8", "surrogateescape")
    path = step.args["file"]
    write_file(machine, path, FileText(text))
    if mode is not None:
        os.chmod(follow(machine, path), _octal(mode))
    if owner is not None:
        os.chown(follow(machine, path), *owner_ids(owner))
    context.dirty.add(machine.plan.name)
    return Done()


def _octal(mode: object) -> int:
    return mode if isinstance(mode, int) else int(str(mode), 8)


def _remove(context: Context, step: Step) -> Done:
    remove_file(_machine(context, step), step.args["file"])
    context.dirty.add(str(step.on))
    return Done()


def _chmod(context: Context, step: Step) -> Done:
    os.chmod(_inside(_machine(context, step), step.args["file"]), _octal(step.args["mode"]))
    context.dirty.add(str(step.on))
    return Done()


def _chown(context: Context, step: Step) -> Done:
    place = _inside(_machine(context, step), step.args["file"])
    os.chown(place, *owner_ids(step.args["owner"]), follow_symlinks=False)
    context.dirty.add(str(step.on))
    return Done()


def _link(context: Context, step: Step) -> Done:
    place = _inside(_machine(context, step), step.args["file"])
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.lexists(place):
        os.unlink(place)
    os.symlink(step.args["target"], place)
    _sync_folder(place)
    context.dirty.add(str(step.on))
    return Done()


def _setxattr(context: Context, step: Step) -> Done:
    place = _inside(_machine(context, step), step.args["file"])
    os.setxattr(place, step.args["name"], str(step.args["value"]).encode(), follow_symlinks=False)
    context.dirty.add(str(step.on))
    return Done()


# -- commands and power --------------------------------------------------------------------------------------------


def _run(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    with mischief.faulty(context, machine):
        done = machine.run(step.args["command"], VERB_S)
    context.last_output = done.output
    context.dirty.add(machine.plan.name)
    expected = step.args.get("status", 0)
    if done.timed_out:
        return Done("refused", done.status, _number(expected), done.output, ("no answer in time",))
    if not _as_expected(expected, done.status):
        outcome: Literal["lab-error", "refused"] = "lab-error" if done.status in (126, 127) else "refused"
        return Done(outcome, done.status, _number(expected), done.output)
    return Done("done", done.status, _number(expected), done.output)


def _reload_stack(context: Context, machine: Machine) -> Done:
    stack = stacks.get(machine.plan.stack)
    done = machine.run(stack.reload, VERB_S)
    settle(context, [machine.plan.name], time.monotonic() + SETTLE_S)
    problems = (f"{stack.name} did not finish its reload",) if done.timed_out else ()
    return Done("lab-error" if done.timed_out else "done", done.status, None, done.output, problems)


def _reload(context: Context, step: Step) -> Done:
    return _reload_stack(context, _machine(context, step))


def _power(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    context.changed_picture(machine.plan.name)
    if step.verb == "power-cut":
        mischief.power_cut(context, machine, step.args.get("image", "as-it-is"))
        return Done()
    context.power_off(machine, step.verb)
    if step.verb == "reboot":
        return _boot(context, step)
    return Done()


def _boot(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    name = machine.plan.name
    with mischief.faulty(context, machine):
        context.boot(name)
    settle(context, [name], time.monotonic() + SETTLE_S)
    return Done()


def _cable(context: Context, step: Step) -> Done:
    machine, port = _machine(context, step), step.args["port"]
    network = next((p.network for p in machine.plan.ports if p.name == port), None)
    if network is None or not machine.on:
        raise LabError(f"{machine.plan.name} has no cable in {port}")
    context.lab.switches[network].carry(machine.plan.name, port, step.verb == "plug")
    return Done()


def _kept_at(machine: Machine) -> str:
    return f"{machine.disk.home}.kept"


def _keep_disk(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    shutil.rmtree(_kept_at(machine), ignore_errors=True)
    machine.disk.keep(_kept_at(machine))
    return Done()


def _restore_disk(context: Context, step: Step) -> Done:
    machine = _machine(context, step)
    if machine.on:
        raise LabError(f"{machine.plan.name} is on: its disk cannot be replaced")
    machine.disk.restore(_kept_at(machine))
    context.dirty.discard(machine.plan.name)
    context.changed.pop(machine.plan.name, None)
    return Done()


# -- asks ----------------------------------------------------------------------------------------------------------


def _expect(context: Context, step: Step) -> Done:
    """Poll until everything is so and stays so for `holds-for`, or until `within` after the last change is over."""
    deadline = context.last_act + float(step.args.get("within", 5.0))
    hold_s = float(step.args.get("holds-for", 0.0))
    if any(outcome != "delivered" for _, outcome in step.args.get("flows", ())):
        _forget_neighbours(context)
    watched = next((name for name in _asked_machines(context, step) if context.machine(name).on), None)
    events = Events(context.machine(watched)) if watched else None
    good_since: float | None = None
    try:
        while True:
            problems, write_down = _look(context, step)
            now = time.monotonic()
            good_since = None if problems else good_since or now
            if (good_since is not None and now - good_since >= hold_s) or (problems and now >= deadline):
                break
            if events is not None:
                limit = deadline if problems else (good_since or now) + hold_s
                events.wait(max(0.0, min(0.25, limit - now)))
    finally:
        if events is not None:
            events.close()
    write_down()
    return Done("unmet" if problems else "done", problems=tuple(problems))


def _forget_neighbours(context: Context) -> None:
    """What the machines remember of each other goes: it can hide for a minute that nobody could get to know them anew.

    (arp(7): an entry that is used is not asked for again before it has been stale for a while.)
    """
    for machine in context.lab.machines.values():
        if not machine.on:
            continue
        for known in machine.running.ip.get_neighbours():
            if known["state"] & (_NUD_PERMANENT | _NUD_NOARP) or known["flags"]:
                continue  # somebody's own
            with contextlib.suppress(NetlinkError):  # it has gone meanwhile
                address = {"dst": known.get_attr("NDA_DST"), "ifindex": known["ifindex"], "family": known["family"]}
                machine.running.ip.neigh("del", **address)


def _asked_machines(context: Context, step: Step) -> list[str]:
    asked = [step.args.get("restored"), step.args.get("changed"), *step.args.get("transaction", {})]
    asked += [flow.source for flow, _ in step.args.get("flows", ())]
    return [name for name in asked if name] + list(context.plan.machines)


def _look(context: Context, step: Step) -> tuple[list[str], Callable[[], None]]:
    """One look at everything that is asked: what is wrong, and how to write the look down."""
    problems: list[str] = []
    outcomes = _look_at_flows(context, step, problems)
    pictures: dict[str, State] = {}
    for kind, references in (("restored", context.begin), ("changed", context.changed)):
        name = step.args.get(kind)
        if not name:
            continue
        if not context.machine(name).on:
            problems.append(f"{name} is off")
            continue
        if kind == "changed":
            context.changed_picture(name)
        pictures[name] = context.read(name)
        reference = references.get(name)
        if reference is None:
            problems.append(
                f"{name}: there is no picture to compare with: no {'begin' if kind == 'restored' else 'change'} yet"
            )
        else:
            problems += differences(context, reference, pictures[name])
    transactions = {name: context.transaction(name) for name in step.args.get("transaction", {})}
    for name, wanted in step.args.get("transaction", {}).items():
        if transactions[name] != "unknown" or "status" in context.plan.mechanism.extra:
            problem = expect.transaction_problem(name, wanted, transactions[name])
            problems += [problem] if problem else []
    problems += _look_at_file(context, step)
    if step.args.get("output") is not None:
        problem = expect.output_problem(step.args["output"], context.last_output)
        problems += [problem] if problem else []

    def write_down() -> None:
        context.flows("step", outcomes)
        for name, state in pictures.items():
            context.picture("step", name, state, transactions.get(name, "unknown"))

    return problems, write_down


def _look_at_flows(context: Context, step: Step, problems: list[str]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    asked = step.args.get("flows", ())
    wanted = {target.key: target for flow, _ in asked for target in context.matching(flow)}
    if step.args.get("restored"):
        wanted |= {t.key: t for t in context.targets if context.baseline[t.key].delivered}
    if wanted:
        outcomes = context.probe(list(wanted.values()))
    for flow, outcome in asked:
        matching = context.matching(flow)
        if not matching:
            problems.append(f"{flow}: no such flow: the machines have no addresses of one family")
        for target in matching:
            seen = outcomes[target.key]
            problem = expect.flow_problem(outcome, seen.delivered, seen.reason)
            problems += [f"{target.key}: {problem}"] if problem else []
    if step.args.get("restored"):
        named = {target.key for flow, _ in asked for target in context.matching(flow)}
        for key, seen in outcomes.items():
            if key not in named and not seen.delivered:
                problems.append(f"{key}: expected delivered; seen {seen.reason}")
    return outcomes


def _look_at_file(context: Context, step: Step) -> list[str]:
    wanted = step.args.get("file")
    if not wanted:
        return []
    machine = context.machine(wanted.get("on") or context.plan.subject or "")
    if not machine.on:
        return [f"{machine.plan.name} is off"]
    found = entry(_inside(machine, wanted["path"]))
    return expect.file_problems(None if found["type"] == "absent" else found, wanted)


ACTIONS: dict[str, Callable[[Context, Step], Done]] = {
    **dict.fromkeys(("begin", "commit", "rollback", "confirm", "save", "load"), _product),
    **dict.fromkeys(("shutdown", "reboot", "crash", "power-cut"), _power),
    "config": _config,
    "write": _write,
    "remove": _remove,
    "chmod": _chmod,
    "chown": _chown,
    "link": _link,
    "setxattr": _setxattr,
    "run": _run,
    "reload": _reload,
    "release": guarded.release,
    "await": _await,
    "boot": _boot,
    "plug": _cable,
    "unplug": _cable,
    "fault": mischief.fault,
    "kill": mischief.kill,
    "race": mischief.race,
    "keep-disk": _keep_disk,
    "restore-disk": _restore_disk,
    "expect": _expect,
}
assert set(ACTIONS) == VERBS.keys() - {"crash-everywhere"}, "every verb of the vocabulary has an action"

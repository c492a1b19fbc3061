"""Stop a verb of any mechanism before every call that changes the disk, boot the machine, and say what is left.

    record: the verb once under the filter -> Points
    strike: for each point, the same again; everything stops just before that call; a crash or a power cut
    judge:  the machine boots through its real boot path; files, kernel state, flows, transaction; then boots again

Runs are independent: workers share the points out. A power cut is taken twice (`image`): as the disk is at that
instant, and after another process has fsynced another file, which writes out the journal but not delayed data.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from sim import expect, session, stacks, steps
from sim.errors import BadInput, LabError, Missing, Mistake
from sim.events import Event, PhaseEnded, State
from sim.faults import filter as seccomp
from sim.faults.order import Order, Point
from sim.observe import read_configuration
from sim.planned import Plan
from sim.probe import Outcome
from sim.scenario import Step
from sim.session import VERB_S, Context, Done, settle, wait_delivered, wait_equal
from sim.struck import ALLOWED, Campaign, Left, Report, Strike, classify, split
from sim.world import image, sandbox
from sim.world.image import ImageDisk
from sim.world.lab import Lab

VERBS_UNDER_TEST = ("begin", "commit", "rollback", "boot")
JUDGE_S = 2.0
"""How long files, kernel state and flows may take after the boot to be what they should."""


def missing(plan: Plan) -> str | None:
    """Why this cannot be done on this machine, or None."""
    if plan.skip is not None:
        return plan.skip
    return seccomp.missing() or (image.missing() if plan.params.disk == "lose-unsynced" else None)


class Bench:
    """One laboratory in which a verb is interrupted again and again. Only inside a sandbox."""

    def __init__(self, campaign: Campaign) -> None:
        plan = campaign.plan
        assert plan.subject is not None
        self.campaign, self.name = campaign, plan.subject
        self.begin, self.changes = split(plan)
        self.hooks: list[PhaseEnded] = []
        self.judged: dict[tuple[str, bool], Strike] = {}
        lab = Lab(plan, functools.partial(session.services, plan), self._tell, watched=self.name)
        self.context = Context(plan, lab, self._emit, time.monotonic())
        self.machine = lab.machines[self.name]
        self.supervisor = self.machine.supervisor
        self.disk = self.machine.disk
        self.kept: dict[str, str] = {}

    def _emit(self, event: Event) -> None:
        """Pictures are compared here and now; there is no journal of thousands of boots."""

    def _tell(self, machine: str, message: Mapping[str, Any]) -> None:
        if message["event"] == "phase" and machine == self.name and message["phase"] == "pre-network":
            fields = {key: message[key] for key in ("phase", "command", "status", "milliseconds", "output", "why")}
            self.hooks.append(PhaseEnded(at=0.0, machine=machine, boot=self.machine.boots, **fields))

    # -- before the verb -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The old state, the new one, and the disks to start from. Raises LabError."""
        session.baseline(self.context)
        self.old, self.old_flows = self._picture()
        self._keep("initial")
        self._do(self.begin)
        self._change()
        self.new, self.new_flows = self._picture()
        if self.campaign.verb == "boot" and isinstance(self.disk, ImageDisk):
            self.disk.sync()  # what a boot itself has not synced is at stake here, not what was left by the verb before
        if self.campaign.verb == "boot" or (not isinstance(self.disk, ImageDisk) and self.campaign.verb != "begin"):
            self._keep("open")
        self.machine.crash()

    def _picture(self) -> tuple[State, list[str]]:
        outcomes = self.context.probe(self.context.targets)
        return self.context.read(self.name), [key for key, outcome in outcomes.items() if outcome.delivered]

    def _keep(self, name: str) -> None:
        where = f"{sandbox.SCRATCH}/kept-{name}"
        self.disk.keep(where)
        self.kept[name] = where

    def _do(self, step: Step) -> None:
        done = steps.do(self.context, step)
        if done.outcome != "done":
            said = "; ".join((*done.problems, done.output.strip()))
            raise LabError(f"{step.verb} failed before anything was interrupted: {said or done.status}")

    def _change(self) -> None:
        for step in self.changes:
            self._do(step)

    def ready(self) -> None:
        """The machine just before the verb (for `boot`: off, with an open transaction)."""
        verb = self.campaign.verb
        if "open" in self.kept:
            self.disk.restore(self.kept["open"])
        else:
            self.disk.restore(self.kept["initial"])
        if verb == "boot":
            return
        self._boot("pre-network", watched=True)
        if "open" not in self.kept and verb != "begin":
            self._do(self.begin)
            self._change()

    def _boot(self, *without: str, watched: bool = False) -> None:
        """Boot, without the commands of these phases; under the filter when `watched`."""
        self.hooks.clear()
        self.machine.without, self.machine.supervisor = frozenset(without), self.supervisor if watched else None
        self.context.lab.boot(self.name)

    # -- the verb ------------------------------------------------------------------------------------------------

    def act(self, order: Order) -> int | None:
        """Run the verb under an order of the supervisor; its exit status, None when it was stopped."""
        assert self.supervisor is not None
        if self.campaign.verb == "boot":
            self.supervisor.arm(order)
            self._boot(watched=True)
            return None if self.machine.stopped else self.hooks[-1].status
        mechanism = self.context.plan.mechanism
        command = {"begin": mechanism.begin, "commit": mechanism.commit, "rollback": mechanism.rollback}
        self.supervisor.arm(order)
        done = self.machine.run(command[self.campaign.verb] or "false", VERB_S)
        if self.machine.stopped:
            return None
        self.supervisor.disarm()
        return done.status

    def record(self) -> list[Point]:
        """The points of the verb, in order."""
        assert self.supervisor is not None
        self.ready()
        status = self.act(Order(record=True))
        if status != 0:
            raise LabError(f"{self.campaign.verb} exits with {status} though nothing was interrupted")
        points = list(self.supervisor.points)
        self.machine.crash()
        return points

    def strike(self, number: int, point: Point | None) -> Iterator[Strike]:
        """Interrupt before `point` (None: just after the verb has returned), and judge what is left."""
        began = time.monotonic()
        if not self._interrupt(point):
            self.machine.crash()
            yield Strike(number, "", "unreached", False, ("the verb ended before this point",), _since(began))
            return
        for which in self._end():
            began = time.monotonic() if which == "journal" else began
            yield self._judge_once(number, point, which, began)

    def stand(self, point: Point | None, image: str) -> None:
        """Interrupt, and boot from what that leaves (`image` as in Strike): the machine is on. Raises LabError."""
        if not self._interrupt(point):
            raise LabError("the verb ended before this point")
        for which in self._end():
            if which == image:
                break
        self._boot()

    def _interrupt(self, point: Point | None) -> bool:
        """The machine as it is when everything stands still; False when the verb never came to the point."""
        assert self.supervisor is not None
        self.ready()
        status = self.act(Order(stop=point.key if point else None))
        stopped, self.supervisor.stopped = self.machine.stopped, None
        if point is not None:
            return stopped
        if status != 0:
            raise LabError(f"{self.campaign.verb} exits with {status} though nothing was interrupted")
        if self.campaign.verb == "begin":
            self._change()
        return True

    def _end(self) -> Iterator[str]:
        """End the machine; yields once for each disk that this may leave, with that disk in place."""
        if not isinstance(self.disk, ImageDisk):
            self.machine.crash()
            yield ""
            return
        images = {which: f"{sandbox.SCRATCH}/cut-{which}" for which in ("as-it-is", "journal")}
        self.disk.image_now(images["as-it-is"], journal=False)
        self.disk.image_now(images["journal"], journal=True)
        self.machine.crash()
        for which, path in images.items():
            self.disk.put(path)
            yield which

    # -- how fast -------------------------------------------------------------------------------------------------

    def floor(self) -> dict[str, float]:
        """What the parts of a strike cost that nobody can save, seconds: the verb under the filter, the boot of a
        machine that runs nothing, a copy of the disk (and its mount, when it is an image)."""
        began = time.monotonic()
        self.disk.restore(self.kept["initial"])
        copied = time.monotonic()
        self._boot("pre-network", "network")
        self.machine.crash()
        booted = time.monotonic()
        self.ready()
        ready = time.monotonic()
        if self.act(Order(record=True)) != 0:
            raise LabError(f"{self.campaign.verb} fails though nothing was interrupted")
        acted = time.monotonic()
        self.machine.crash()
        return {"copy": copied - began, "boot": booted - copied, "verb": acted - ready}

    # -- what is left --------------------------------------------------------------------------------------------

    def _judge_once(self, number: int, point: Point | None, which: str, began: float) -> Strike:
        """A disk that is in every respect the one that another point has left need not be booted again."""
        if not isinstance(self.disk, ImageDisk):
            return self._judge(number, point, which, began)
        key = self.disk.fingerprint(exact=True), point is None
        known = self.judged.get(key)
        if known is not None:
            return dataclasses.replace(known, at=number, image=which, seconds=_since(began))
        self.judged[key] = self._judge(number, point, which, began)
        return self.judged[key]

    def _judge(self, number: int, point: Point | None, which: str, began: float) -> Strike:
        allowed = ALLOWED[self.campaign.verb]
        if point is None and self.campaign.verb == "commit":
            allowed = ("new",)
        self._boot()
        seen = self._read()
        left: Left = classify(self.old, self.new, seen)
        problems = list(self._hook_problems())
        if left in ("old", "new"):
            reference, flows = (self.old, self.old_flows) if left == "old" else (self.new, self.new_flows)
            lost = self._reach(reference, seen, flows)
            if lost:
                left = "unreachable"
            problems += lost
        else:
            problems += expect.file_differences(self.old, seen)
        problems += self._again(seen)
        good = left in allowed and not problems
        self.machine.crash()
        return Strike(number, which, left, good, tuple(problems), _since(began))

    def _hook_problems(self) -> Iterator[str]:
        for hook in self.hooks:
            if hook.status or hook.why:
                yield f"the boot hook ended with {hook.why or hook.status}: {hook.output.strip()}"

    def _read(self) -> State:
        """Files and kernel state, once no link and no address is on its way any more."""
        seen = self.context.read(self.name)
        if seen["transient"]["unsettled"]:
            settle(self.context, [self.name], time.monotonic() + JUDGE_S)
            seen = self.context.read(self.name)
        return seen

    def _reach(self, reference: State, seen: State, flows: Sequence[str]) -> list[str]:
        deadline = time.monotonic() + JUDGE_S
        problems = self._kernel_problems(reference, seen)
        if problems:
            problems = self._kernel_problems(reference, wait_equal(self.context, self.name, reference, deadline))
        wanted = [target for target in self.context.targets if target.key in flows]
        outcomes: Mapping[str, Outcome] = wait_delivered(self.context, wanted, deadline)
        lost = [key for key, outcome in outcomes.items() if not outcome.delivered]
        return problems + [f"{key}: {outcomes[key].reason}" for key in lost]

    def _kernel_problems(self, reference: State, seen: State) -> list[str]:
        if "kernel" not in self.context.plan.checks:
            return []
        return expect.kernel_differences(reference, seen, self.context.plan.params.family)

    def _again(self, before: State) -> list[str]:
        """A second boot changes nothing, and no transaction is open.

        Its stack is not started: from equal files it would make what the first boot has made.
        """
        self.machine.crash()
        self._boot("network")
        problems = list(self._hook_problems())
        stack, excluded = stacks.get(self.machine.plan.stack), self.machine.plan.state
        after = read_configuration(self.disk, stack.patterns, stack.ignored, excluded)
        problems += [f"one more boot: {line}" for line in expect.file_differences(before, after)]
        problems += expect.litter(self.old, [self.new], after)
        open_or_not = self.context.transaction(self.name)
        if open_or_not == "unknown":
            open_or_not = session.ask_by_commit(self.context, self.name)
        if open_or_not == "open":
            problems.append("a transaction is still open")
        return problems


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)


def chosen_seed() -> int:
    """What SIM_SEED says, else a random number; it is printed, so that a run can be repeated."""
    text = os.environ.get("SIM_SEED", "")
    return int(text) if text.isdecimal() else random.SystemRandom().randrange(1, 1 << 30)


def everywhere(context: Context, step: Step) -> Done:
    """The step `crash-everywhere`: every point of every verb that is offered, in laboratories of their own."""
    why = seccomp.missing()
    if why is not None:
        raise Missing(why)
    bad: list[str] = []
    unknown = count = 0
    seed = chosen_seed()
    for verb in step.args.get("verbs") or VERBS_UNDER_TEST:
        if getattr(context.plan.mechanism, verb) is None:
            continue
        try:
            campaign = Campaign(context.plan, verb, sample=step.args.get("sample") or 0, seed=seed)
            bench = Bench(campaign)
            bench.prepare()
            points = bench.record()
            for number in campaign.numbers(len(points)):
                point = points[number - 1] if number <= len(points) else None
                for strike in bench.strike(number, point):
                    count += 1
                    unknown += strike.unknown
                    if not strike.good and not strike.unknown:
                        bad.append(_in_words(verb, strike, point))
            bench.context.lab.close()
        except LabError as error:
            return Done("lab-error", problems=(f"{verb}: {error}",))
    if bad:
        return Done("refused", problems=tuple(bad))
    if unknown or not count:
        return Done("lab-error", problems=(f"{unknown} of {count} points could not be told",))
    return Done("done", 0, 0, f"{count} interruptions (SIM_SEED={seed}), each left a whole configuration")


def _in_words(verb: str, strike: Strike, point: Point | None) -> str:
    where = f"before {point.syscall} {point.path}" if point else "after it returned"
    image_of = f", {strike.image}" if strike.image else ""
    return f"{verb}, point {strike.at} ({where}{image_of}): {strike.left}: {'; '.join(strike.problems)}"


# -- workers -------------------------------------------------------------------------------------------------------


def conduct(campaign: Campaign, workers: int, progress: Callable[[int, int, Strike | None], None]) -> Report:
    """Record, then strike every point; `progress(done, of, strike)` is called as strikes come in."""
    began = time.monotonic()
    why = missing(campaign.plan)
    if why is not None:
        return Report(campaign, (), (), 0.0, missing=why)
    hearing = _Hearing(progress)
    points: list[Point] = hearing.record(campaign)
    if hearing.trouble or not points:
        trouble = hearing.trouble or "the verb changes nothing on the disk: there is no point to stop it at"
        return Report(campaign, (), (), _since(began), trouble, hearing.missing)
    numbers = campaign.numbers(len(points))
    wrong = [number for number in numbers if not 1 <= number <= len(points) + 1]
    if wrong:
        raise BadInput([Mistake("--at", f"{wrong[0]}: there are {len(points)} points, and one after the verb")])
    hearing.strikes(campaign, points, numbers, workers)
    strikes = tuple(sorted(hearing.found, key=lambda strike: (strike.at, strike.image)))
    return Report(campaign, tuple(points), strikes, _since(began), hearing.trouble, hearing.missing)


class _Hearing:
    """The parent's side of the workers: each is a sandbox that writes JSON lines into a pipe."""

    def __init__(self, progress: Callable[[int, int, Strike | None], None]) -> None:
        self.progress = progress
        self.points: list[Point] = []
        self.found: list[Strike] = []
        self.measured: list[dict[str, Any]] = []
        self.trouble = self.missing = ""
        self.total = 0

    def record(self, campaign: Campaign) -> list[Point]:
        self.run([lambda out: _record(campaign, out)])
        return self.points

    def strikes(self, campaign: Campaign, points: Sequence[Point], numbers: Sequence[int], workers: int) -> None:
        self.total = len(numbers) * (2 if campaign.plan.params.disk == "lose-unsynced" else 1)
        count = max(1, min(workers, len(numbers)))
        shares = [numbers[first::count] for first in range(count)]
        self.run([functools.partial(_strike, campaign, list(points), share) for share in shares])

    def run(self, works: Sequence[Callable[[IO[str]], None]]) -> None:
        """Each in a sandbox of its own, until all have ended."""
        selector = selectors.DefaultSelector()
        keepers: dict[int, int] = {}
        rest: dict[int, bytes] = {}
        for work in works:
            reading, keeper = _spawn(work)
            keepers[reading], rest[reading] = keeper, b""
            selector.register(reading, selectors.EVENT_READ)
        try:
            while keepers:
                for key, _ in selector.select(0.1):
                    data = os.read(key.fd, 1 << 16)
                    *lines, rest[key.fd] = (rest[key.fd] + data).split(b"\n")
                    for line in lines:
                        self._line(json.loads(line))
                    if not data:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        _, status = os.waitpid(keepers.pop(key.fd), 0)
                        if status and not self.trouble:
                            self.trouble = "a worker ended without a word"
                self.progress(len(self.found), self.total, None)
        finally:
            for keeper in keepers.values():
                os.kill(keeper, signal.SIGKILL)
                os.waitpid(keeper, 0)

    def _line(self, message: dict[str, Any]) -> None:
        match message.pop("kind"):
            case "points":
                self.points = [Point(**point) for point in message["points"]]
            case "strike":
                strike = Strike(**{**message, "problems": tuple(message["problems"])})
                self.found.append(strike)
                self.progress(len(self.found), self.total, strike)
            case "measured":
                self.measured.append(message)
            case "trouble":
                self.trouble = message["text"]
            case "missing":
                self.missing = message["text"]


def gather(*works: Callable[[IO[str]], None]) -> list[dict[str, Any]]:
    """Run each in a sandbox of its own; returns what they have measured (`tell`). Raises Missing, LabError."""
    hearing = _Hearing(lambda *_: None)
    hearing.run(works)
    if hearing.missing:
        raise Missing(hearing.missing)
    if hearing.trouble:
        raise LabError(hearing.trouble)
    return hearing.measured


def _spawn(work: Callable[[IO[str]], None]) -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def inside() -> None:
        os.close(reading)
        with os.fdopen(writing, "w", encoding="ascii", buffering=1) as out:
            try:
                work(out)
            except Missing as error:
                tell(out, kind="missing", text=str(error))
            except LabError as error:
                tell(out, kind="trouble", text=str(error))
            except OSError as error:
                tell(out, kind="trouble", text=f"{error.strerror}: {error.filename}" if error.filename else str(error))

    keeper = sandbox.spawn(inside)
    os.close(writing)
    return reading, keeper


def tell(out: IO[str], **message: Any) -> None:
    """One message from a worker."""
    print(json.dumps(message), file=out)


def _record(campaign: Campaign, out: IO[str]) -> None:
    bench = Bench(campaign)
    bench.prepare()
    tell(out, kind="points", points=[dataclasses.asdict(point) for point in bench.record()])


def _strike(campaign: Campaign, points: list[Point], numbers: Sequence[int], out: IO[str]) -> None:
    bench = Bench(campaign)
    bench.prepare()
    for number in numbers:
        for strike in bench.strike(number, points[number - 1] if number <= len(points) else None):
            tell(out, kind="strike", **dataclasses.asdict(strike))

"""All trials of a mechanism, over workers; and what they say, requirement by requirement.

Each worker is a process in a sandbox of its own that keeps its machines (`stand`) from one trial to the next, and is
told what to do line by line. A trial starts from a disk that is put back, so it matters neither who does it nor when.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from sim.check import judge
from sim.conform.cases import Case, Variant, variants
from sim.conform.stand import Stand
from sim.conform.trial import attempt, in_words, record
from sim.conform.values import ORDER, Heard, Row, Trial
from sim.errors import LabError, Missing
from sim.events import Event
from sim.faults import filter as seccomp
from sim.faults.order import Point
from sim.parallel import run_all
from sim.planned import Plan
from sim.report.words import why as reason
from sim.scenario import Scenario, Verdict
from sim.world import image, sandbox

EVIDENCE = 12
"""So many bad trials of a requirement are kept with all their steps."""
MARKS: dict[Verdict, str] = {"pass": ".", "fail": "x", "unknown": "?"}


@dataclass
class Tried:
    """What became of a case: its variants, its trials by number, or why there are none."""

    case: Case
    skip: str = ""
    variants: list[Variant] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)  # positions of `variants`
    first: int = 1  # the number of its first variant within the requirement
    trials: list[Trial] = field(default_factory=list)
    broken: Trial | None = None  # the verb could not be recorded

    @property
    def count(self) -> int:
        """How many numbers its trials take."""
        return max(len(self.variants), 1 if self.broken else 0)


@dataclass(frozen=True)
class Sample:
    """Of each case only so many points; 0: all. `only`: only the trials with these numbers.

    `until_bad`: in an order drawn by the seed, and no more once one is bad.
    """

    size: int = 0
    seed: int = 0
    only: tuple[int, ...] = ()
    until_bad: bool = False


@dataclass(frozen=True)
class Ran:
    """A run of a requirement that is a scenario of its own: how it went, or why it was not made."""

    requirement: str
    where: str
    trial: Trial | None = None
    skip: str = ""
    not_offered: str = ""


Progress = Callable[[int, int, "Trial | None"], None]


def conduct(
    cases: Sequence[Case],
    workers: int,
    sample: Sample,
    progress: Progress,
    looking: Callable[[str], None] = lambda words: None,
) -> list[Tried]:
    """Record what must be recorded (`looking` is told how far that is), number the trials, and try them.

    Raises LabError.
    """
    tried = [Tried(case, skip=case.skip or _missing(case)) for case in cases]
    going = [one for one in tried if not one.skip and not one.case.not_offered]
    with _Workers(cases, workers) as crew:
        verbs = [(one, {"do": "record"}) for one in going if one.case.recorded]
        found = 0

        def counted(trial: Trial | None) -> None:
            nonlocal found
            found += 1

        crew.run(verbs, lambda: looking(f"{found} of {len(verbs)} verbs recorded"), counted)
        for one in going:
            if not one.case.recorded:
                one.variants = variants(one.case, ())
        _number(tried, sample)
        jobs = [
            (one, {"do": "try", "variant": dataclasses.asdict(one.variants[at]), "number": one.first + at})
            for one in going
            for at in one.chosen
        ]
        if sample.until_bad:
            random.Random(sample.seed).shuffle(jobs)
        done = 0

        def told(trial: Trial | None) -> None:
            nonlocal done
            done += trial is not None
            if sample.until_bad and trial is not None and trial.verdict == "fail":
                crew.enough = True
            progress(done, len(jobs), trial)

        crew.run(jobs, lambda: told(None), told)
    return tried


def _missing(case: Case) -> str:
    """Why a case cannot be tried on this machine."""
    why = seccomp.missing()
    if why is None and case.plan.params.disk == "lose-unsynced":
        why = image.missing()
    return why or ""


def _number(tried: Sequence[Tried], sample: Sample) -> None:
    """Number the trials of each requirement through, and choose those that are made."""
    chooser = random.Random(sample.seed)
    next_of: dict[str, int] = {}
    for one in tried:
        identity = one.case.requirement
        one.first = next_of.get(identity, 1)
        count = len(one.variants)
        next_of[identity] = one.first + one.count
        if one.broken is not None:
            one.trials.append(dataclasses.replace(one.broken, number=one.first))
        places = list(range(count))
        if sample.only:
            places = [at for at in places if one.first + at in sample.only]
        elif 0 < sample.size < count and one.case.enumerates:  # kinds of change are few: all are tried
            places = sorted(chooser.sample(places, sample.size))
        one.chosen = places


# -- workers -------------------------------------------------------------------------------------------------------


class _Workers:
    """Processes that try; a context manager. Their end is ours, by whatever signal."""

    def __init__(self, cases: Sequence[Case], count: int) -> None:
        self.cases, self.count = cases, count
        self.keepers: dict[int, int] = {}  # our end of the socket -> keeper
        self.sockets: dict[int, socket.socket] = {}
        self.rest: dict[int, bytes] = {}
        self.enough = False  # what waits is not done any more

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for number, keeper in self.keepers.items():
            self.sockets[number].close()
            os.kill(keeper, signal.SIGKILL)
            os.waitpid(keeper, 0)

    def _spawn(self) -> int:
        ours, theirs = socket.socketpair()

        def inside() -> None:
            ours.close()
            with theirs, theirs.makefile("r", encoding="ascii") as said, theirs.makefile("w", encoding="ascii") as out:
                _serve(self.cases, said, out)

        keeper = sandbox.spawn(inside)
        theirs.close()
        self.keepers[ours.fileno()], self.sockets[ours.fileno()] = keeper, ours
        self.rest[ours.fileno()] = b""
        return ours.fileno()

    def run(
        self,
        jobs: Sequence[tuple[Tried, dict[str, Any]]],
        tick: Callable[[], None],
        told: Callable[[Trial | None], None] | None = None,
    ) -> None:
        """Have all jobs done. A worker goes on with the machine that it has, as long as there is work for it."""
        waiting: dict[Any, deque[tuple[Tried, dict[str, Any]]]] = {}
        for one, job in jobs:
            waiting.setdefault(stand_key(one.case), deque()).append((one, {**job, "case": one.case.index}))
        doing: dict[int, Tried] = {}
        last: dict[int, Any] = {}
        while len(self.keepers) < min(self.count, max(1, len(jobs))):
            self._spawn()
        with selectors.DefaultSelector() as selector:
            for number in self.keepers:
                selector.register(number, selectors.EVENT_READ)
                self._next(number, waiting, doing, last)
            while doing:
                for key, _ in selector.select(0.1):
                    for message in self._hear(key.fd):
                        trial = _take(doing.pop(key.fd), message)
                        if told is not None:
                            told(trial)
                        self._next(key.fd, waiting, doing, last)
                tick()

    def _next(
        self, number: int, waiting: dict[Any, deque[tuple[Tried, dict[str, Any]]]], doing: dict[int, Tried],
        last: dict[int, Any],
    ) -> None:  # fmt: skip
        key = last.get(number)
        if self.enough:
            return
        if key not in waiting:
            if not waiting:
                return
            taken = [other for worker, other in last.items() if worker != number]
            free = [one for one in waiting if one not in taken]
            key = max(free or waiting, key=lambda one: len(waiting[one]))
        last[number] = key
        one, job = waiting[key].popleft()
        if not waiting[key]:
            del waiting[key]
        doing[number] = one
        self.sockets[number].sendall(json.dumps(job).encode() + b"\n")

    def _hear(self, number: int) -> list[dict[str, Any]]:
        data = os.read(number, 1 << 16)
        if not data:
            raise LabError("a worker ended without a word")
        *lines, self.rest[number] = (self.rest[number] + data).split(b"\n")
        return [json.loads(line) for line in lines]


def stand_key(case: Case) -> tuple[Any, ...]:
    """Cases with the same key are tried on the same stand."""
    return case.stack, case.topology, case.plan.params.disk, case.plan.params.apart, case.reading


def _take(one: Tried, message: dict[str, Any]) -> Trial | None:
    """What a worker says about a case; the trial, if it is one."""
    match message["kind"]:
        case "points":
            one.variants = variants(one.case, [Point(**point) for point in message["points"]])
        case "broken":
            one.broken = _trial(message["trial"])
        case "missing":
            one.skip = message["text"]
        case "trial":
            one.trials.append(_trial(message["trial"]))
            return one.trials[-1]
    return None


def _trial(values: Mapping[str, Any]) -> Trial:
    point = Point(**values["point"]) if values["point"] else None
    steps = tuple(Heard(**{**step, "problems": tuple(step["problems"])}) for step in values["steps"])
    return Trial(**{**values, "point": point, "steps": steps, "problems": tuple(values["problems"])})


def _serve(cases: Sequence[Case], said: IO[str], out: IO[str]) -> None:
    """A worker: do what each line says, until there are no more."""
    stands: dict[Any, Stand | str] = {}  # why there is none: it is not tried again
    for line in said:
        job = json.loads(line)
        case = cases[job["case"]]
        try:
            message = _do(_stand(stands, case), case, job)
        except Missing as error:
            message = {"kind": "missing", "text": str(error)}
        except LabError as error:
            trial = Trial(job.get("number", 0), case.where, "", trouble=str(error))
            message = {"kind": "trial" if job["do"] == "try" else "broken", "trial": dataclasses.asdict(trial)}
        print(json.dumps(message), file=out, flush=True)


def _stand(stands: dict[Any, Stand | str], case: Case) -> Stand:
    """The one for this case. Raises LabError, Missing."""
    key = stand_key(case)
    if key not in stands:
        try:
            stands[key] = Stand(case)
        except LabError as error:
            stands[key] = str(error)
        except OSError as error:
            stands[key] = in_words(error)
    found = stands[key]
    if isinstance(found, str):
        raise LabError(found)
    return found


def _do(stand: Stand, case: Case, job: Mapping[str, Any]) -> dict[str, Any]:
    if job["do"] == "record":
        points, broken = record(stand, case)
        if broken is not None:
            return {"kind": "broken", "trial": dataclasses.asdict(broken)}
        return {"kind": "points", "points": [dataclasses.asdict(point) for point in points]}
    values = dict(job["variant"])
    values["point"] = Point(**values["point"]) if values["point"] else None
    return {"kind": "trial", "trial": dataclasses.asdict(attempt(stand, case, Variant(**values), job["number"]))}


# -- requirements that are scenarios -------------------------------------------------------------------------------


def run_scenarios(plans: Sequence[tuple[str, Plan]], workers: int, tick: Callable[[], None]) -> list[Ran]:
    """Requirements that are scenarios of their own: how each run went."""
    histories = run_all([plan for _, plan in plans], workers, lambda index, event: None, tick)
    return [_ran(identity, plan, events) for (identity, plan), events in zip(plans, histories, strict=True)]


def _ran(identity: str, plan: Plan, events: Sequence[Event]) -> Ran:
    result = judge(plan, events)
    where = " · ".join(filter(None, (plan.scenario, plan.params.stack, plan.params.recover or "")))
    if result.verdict in ("skip", "not-offered"):
        skip = reason(result) if result.verdict == "skip" else ""
        return Ran(identity, where, skip=skip, not_offered="" if skip else reason(result))
    worst = [one for one in result.findings if one.verdict == result.verdict]
    lines = [f"{one.check}: {one.why}" for one in worst] + [line for one in worst for line in one.detail]
    trial = Trial(
        number=0,
        where=where,
        choice="",
        problems=tuple(lines) if result.verdict == "fail" else (),
        trouble=reason(result) if result.verdict == "unknown" else "",
        steps=tuple(Heard(f"{one.check}: {one.why}", None, "\n".join(one.detail)) for one in result.findings),
        seconds=result.seconds,
    )
    return Ran(identity, where, trial)


# -- rows ----------------------------------------------------------------------------------------------------------


def rows(scenarios: Sequence[Scenario], tried: Sequence[Tried], ran: Sequence[Ran]) -> tuple[Row, ...]:
    """What all trials say, a row for each requirement."""
    return tuple(_row(scenario, tried, ran) for scenario in scenarios)


def _row(scenario: Scenario, tried: Sequence[Tried], ran: Sequence[Ran]) -> Row:
    requirement = scenario.requirement
    assert requirement is not None
    mine = [one for one in tried if one.case.requirement == requirement.id]
    runs = [one for one in ran if one.requirement == requirement.id]
    trials = [trial for one in mine for trial in sorted(one.trials, key=lambda trial: trial.number)]
    last = max((one.first + one.count - 1 for one in mine), default=0)
    made = [one.trial for one in runs if one.trial is not None]
    extra = [dataclasses.replace(trial, number=last + n) for n, trial in enumerate(made, 1)]
    trials += extra
    bad = [trial for trial in trials if trial.verdict == "fail"]
    unknown = [trial for trial in trials if trial.verdict == "unknown"]
    skipped = [f"{one.case.where}: {one.skip}" for one in mine if one.skip]
    skipped += [f"{one.where}: {one.skip}" for one in runs if one.skip]
    lacks = [one.case.not_offered for one in mine] + [one.not_offered for one in runs]
    not_offered = next(filter(None, lacks), "")
    count = sum(one.count for one in mine)
    enumerates = any(one.case.enumerates for one in mine)
    good = [trial for trial in trials if trial.verdict == "pass"][:1]
    verdict = _verdict(trials, bool(skipped), bool(not_offered))
    return Row(
        id=requirement.id,
        title=requirement.title,
        verdict=verdict,
        why=_why(verdict, (bad, unknown), skipped, not_offered, (len(mine) + len(runs), count)),
        points=count + len(extra) if enumerates else 0,
        tried=len(trials),
        bad=tuple(trial.number for trial in bad),
        skipped=tuple(skipped),
        trials=tuple(_telling(bad) + _telling(unknown) + good),
        marks=tuple(
            (one.case.where, "".join(MARKS[trial.verdict] for trial in sorted(one.trials, key=lambda t: t.number)))
            for one in mine
            if one.case.enumerates and one.trials
        ),
        about=scenario.about,
        causes=requirement.causes,
        source=scenario.source,
        seconds=round(sum(trial.seconds for trial in trials), 3),
    )


def _telling(trials: Sequence[Trial]) -> list[Trial]:
    """At most `EVIDENCE` of them, first one of each kind of mistake in each case; in the order of their numbers."""
    first: dict[tuple[str, tuple[str, ...], str], Trial] = {}
    for trial in trials:
        first.setdefault((trial.where, trial.problems, trial.trouble), trial)
    chosen = list(first.values())[:EVIDENCE]
    chosen += [trial for trial in trials if trial not in chosen][: EVIDENCE - len(chosen)]
    return sorted(chosen, key=lambda trial: trial.number)


def _verdict(trials: Sequence[Trial], skipped: bool, not_offered: bool) -> Verdict:
    seen = {trial.verdict for trial in trials}
    worst = next((one for one in ORDER if one in seen), None)
    if worst is not None:
        return worst
    return "skip" if skipped else "not-offered" if not_offered else "unknown"


def _why(
    verdict: Verdict,
    wrong: tuple[Sequence[Trial], Sequence[Trial]],
    skipped: Sequence[str],
    not_offered: str,
    of: tuple[int, int],
) -> str:
    """`wrong`: the trials that are bad, those that are unknown; `of`: how many cases and numbered trials there are."""
    bad, unknown = wrong
    if verdict == "fail":
        first = bad[0]
        point = f" ({first.point.syscall} {first.point.path})" if first.point else ""
        where = first.choice and f"{first.choice}{point}: "
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return f"{where}{first.problems[0]}{more}"
    if verdict == "unknown":
        nothing = f"no trial of these numbers; valid: 1 to {of[1]}" if of[1] else "nothing was tried"
        return unknown[0].trouble if unknown else nothing
    if verdict == "skip":
        return skipped[0]
    if verdict == "not-offered":
        return not_offered
    return f"{len(skipped)} of {of[0]} cases skipped: {skipped[0]}" if skipped else ""

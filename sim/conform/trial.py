"""One trial: the steps of a case on a stand, with one variant of what the case varies. It ends at the first mistake.

A power cut leaves two disks: what follows it is done for each of them.
"""

from __future__ import annotations

import copy
import errno
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sim import expect, trials
from sim.conform.cases import Case, Variant
from sim.conform.family import has_odd_name
from sim.conform.stand import IMAGES, Ended, Picture, Stand
from sim.conform.values import Heard, Trial
from sim.errors import LabError
from sim.faults.order import Order, Point
from sim.scenario import Step

OUTPUT = 2000  # characters of what a verb said that are kept
COPIES = 50
"""How many copies of the configuration a mechanism's state may hold after its cycles."""
_IMAGE_WORDS = {"as-it-is": "the disk as it is", "journal": "the disk after another process's fsync"}


class _Wrong(Exception):
    """The mechanism did not do what is required. The lines of what is wrong."""


@dataclass
class _Known:
    """What the laboratory knows in the middle of a trial."""

    old: Picture
    new: Picture
    others: Mapping[str, Any]
    open: bool = False
    status: int | None = 0
    before: Picture | None = None  # before the last verb
    touched: frozenset[str] = frozenset()  # files that were changed since begin
    promise: str = "old"


@dataclass
class _Run:
    stand: Stand
    case: Case
    variant: Variant
    until: Step | None = None  # before this one it ends
    heard: list[Heard] = field(default_factory=list)
    known: _Known = field(init=False)

    # -- the loop --------------------------------------------------------------------------------------------------

    def steps(self, steps: Sequence[Step]) -> None:
        """Do these, to the end. Raises _Wrong, LabError, Missing, OSError."""
        for number, step in enumerate(steps):
            if step is self.until:
                return
            if step.verb in ("if-done", "if-failed"):
                if (self.known.status == 0) == (step.verb == "if-done"):
                    self.steps((*step.args["is"], *steps[number + 1 :]))
                    return
                continue
            images = self._do(step)
            if images:
                self._each_image(images, steps[number + 1 :])
                return

    def _do(self, step: Step) -> list[str]:
        act = _ACTS[step.verb]
        self.heard.append(Heard(self._words(step)))
        return act(self, step) or []

    def _each_image(self, images: Sequence[str], rest: Sequence[Step]) -> None:
        known = self.known
        for which, image in zip(IMAGES, images, strict=True):
            self.known = copy.copy(known)
            self.stand.put(image)
            self.heard.append(Heard(f"power cut: {_IMAGE_WORDS[which]}"))
            try:
                self.steps(rest)
            except _Wrong as error:
                raise _Wrong(*(f"{_IMAGE_WORDS[which]}: {line}" for line in error.args)) from error

    def _words(self, step: Step) -> str:
        if step.verb in trials.ENUMERATE and self.variant.words:
            verb = step.args.get("verb", "")
            return f"{step.verb} {verb}".strip() + f": {self.variant.words}"
        return trials.in_words(step)

    def say(self, status: int | None = None, output: str = "") -> None:
        """Note how the step that is being done went."""
        self.heard[-1] = replace(self.heard[-1], status=status, output=output[-OUTPUT:])

    # -- the beginning ---------------------------------------------------------------------------------------------

    def begin(self) -> tuple[Step, ...]:
        """The machine at the steps that are left: all, or those from the one that enumerates on."""
        steps, axis = self.case.steps, self.case.axis
        number = steps.index(axis) if axis in steps else 0
        prefix = steps[:number] if self.case.recorded and self._cacheable(steps[:number]) else ()
        verb = self.case.recorded
        name = f"{self.case.requirement}/{self.case.name}"
        if not prefix or not self._kept(name, prefix):
            prefix, name = (), f"laid out: {self._kinds()}"
            self._kept(name, ())
        self.known = copy.deepcopy(self.stand.put_back(name))
        self.heard += [Heard(trials.in_words(step), 0 if step.verb == "begin" else None) for step in prefix]
        rest = steps[len(prefix) :]
        if not (rest and rest[0] is axis and verb == "boot"):
            self.stand.boot(hook=False, watched=bool(verb) and verb != "boot")
        return rest

    def _kept(self, name: str, prefix: Sequence[Step]) -> bool:
        """Whether a disk is kept on which these steps were done; they are done now when that was not tried before.

        It is not where they left something that a disk does not hold: a process, or a file in /run.
        """
        stand = self.stand
        if name in stand.kept or name in stand.fleeting:
            return name in stand.kept
        if self._first(prefix):
            stand.off(orderly=not prefix)
            stand.keep(name, copy.deepcopy(self.known))
        else:
            stand.fleeting.add(name)
        return name in stand.kept

    def _cacheable(self, steps: Sequence[Step]) -> bool:
        """Whether a disk alone may tell all about what these steps do: not where the mechanism names no records."""
        return bool(steps) and bool(self.stand.machine.plan.state) and all(
            step.verb == "change" or (step.verb == "begin" and step.args["is"] == "done") for step in steps
        )  # fmt: skip

    def _kinds(self) -> tuple[str, ...]:
        kinds = trials.kinds(self.case.steps)
        if any(step.verb == "cycle" for step in trials.walk(self.case.steps)):
            kinds.append("content")
        if self.case.axis is not None and self.case.axis.verb.startswith("change-each"):
            varied = self.case.axis.args["is"]
            kinds = [kind for kind in kinds if kind not in varied] + [self.variant.kind]
        return (*kinds, *([self.variant.pattern] if self.variant.pattern else []))

    def _first(self, prefix: Sequence[Step]) -> bool:
        """The files from which everything starts; then the steps that come before the one that enumerates.

        Returns whether the disk holds all that those steps have left.
        """
        stand = self.stand
        stand.put_back("initial")
        stand.boot(hook=False)
        kinds = [kind for kind in self._kinds() if kind in trials.CHANGES]
        pattern = self.variant.pattern
        stand.editor().lay_out(kinds if pattern else list(dict.fromkeys(("content", *kinds))), pattern)
        start = stand.picture()
        self.known = _Known(start, start, start.others)
        before = stand.volatile()
        silent, self.heard = self.heard, []
        self.steps(prefix)
        self.heard = silent
        return not prefix or stand.volatile() == before

    # -- verbs -----------------------------------------------------------------------------------------------------

    def verb(self, step: Step) -> None:
        """A verb of the mechanism, or a boot, that ends as is expected."""
        stand, verb, wanted = self.stand, step.verb, step.args["is"]
        before = self.known.before = stand.picture()
        ended = stand.boot() if verb == "boot" else stand.run(verb)
        self.ended(verb, ended)
        good = {
            "done": ended.status == 0,
            "refused": ended.status == stand.mechanism.wrong_state,
            "failed": ended.status != 0,
            "any": True,
        }[wanted]
        if not good:
            number = {"done": "0", "refused": f"{stand.mechanism.wrong_state} (wrong-state)"}.get(wanted, "any but 0")
            raise _Wrong(f"{verb} exits with {ended.status}, expected {number}{_last(ended.output)}")
        self.effect(verb, before)

    def ended(self, verb: str, ended: Ended) -> None:
        """Note how a verb went. Raises _Wrong when it never ended."""
        self.known.status = ended.status
        self.say(ended.status, ended.output)
        if ended.timed_out:
            raise _Wrong(f"{verb} does not come to an end")

    def effect(self, verb: str, before: Picture) -> None:
        """What the end of a verb means for what is expected later."""
        known = self.known
        if known.status != 0:
            return
        if verb == "begin" and not known.open:
            known.old = known.new = before
            known.touched, known.open = frozenset(), True
        elif verb in ("commit", "rollback", "boot"):
            known.open = False

    def change(self, step: Step) -> None:
        """Somebody edits files."""
        kinds = step.args["is"] if step.verb == "change" else [self.variant.kind]
        editor = self.stand.editor()
        before = self.stand.picture()
        for kind in kinds:
            editor.change(kind, self.variant.pattern if step.verb == "change-each-pattern" else "")
        self.changed(before)

    def changed(self, before: Picture) -> None:
        """Files were edited since this picture was taken."""
        known = self.known
        known.new = self.stand.picture()
        known.others = known.new.others
        stamps = {**before.stamps, **known.new.stamps}
        known.touched |= {path for path in stamps if before.stamps.get(path) != known.new.stamps.get(path)}

    # -- what varies -----------------------------------------------------------------------------------------------

    def order(self, **fields: Any) -> Order:
        """What the supervisor is told."""
        return Order(reading=self.stand.read_paths() if self.case.reading else (), **fields)

    def act(self, verb: str, order: Order) -> Ended:
        """The verb that varies, under an order."""
        self.known.before = self.known.before or self.known.new
        return self.stand.boot(watched=True, order=order) if verb == "boot" else self.stand.run(verb, order)

    def stop(self, verb: str) -> bool:
        """Everything stands still before the variant's point; False when the verb never came there."""
        point = self.variant.point
        assert point is not None
        ended = self.act(verb, self.order(stop=point.key))
        if ended.status is None:
            return True
        self.ended(verb, ended)
        raise LabError(f"{verb} ended before call {point.number} ({point.syscall} {point.path})")

    def interrupt(self, step: Step) -> list[str]:
        """All processes of a verb die."""
        verb, by = step.args["verb"], self.variant.by
        before = self.stand.picture()
        if self.variant.point is None:
            ended = self.act(verb, self.order())
            self.ended(verb, ended)
            if ended.status != 0:
                raise _Wrong(f"{verb} exits with {ended.status} though nothing was interrupted{_last(ended.output)}")
            self.effect(verb, before)
        else:
            self.stop(verb)
        if by == "power-cut":
            return self.stand.cut()
        if self.variant.point is not None:
            self.ended(verb, self.stand.kill(getattr(signal, f"SIG{by}"), verb))
        return []

    def fail(self, step: Step) -> None:
        """One call fails, or all from it on."""
        verb, point = step.args["verb"], self.variant.point
        assert point is not None
        before = self.stand.picture()
        number = getattr(errno, self.variant.error)
        onward = step.args["reach"] == "all-that-follow"
        ended = self.act(verb, self.order(error=number, fail_at=point.key, onward=onward))
        self.ended(verb, ended)
        if self.stand.supervisor.injected == 0:
            raise LabError(f"{verb} ended before call {point.number} ({point.syscall} {point.path})")
        self.effect(verb, before)

    def hold(self, step: Step) -> None:
        """Another verb while this one is held."""
        verb, other = step.args["verb"], step.args["while"]
        before = self.stand.picture()
        self.stop(verb)
        first, second = self.stand.meanwhile(other)
        self.say(None, f"{first.output}{second.output}")
        if first.timed_out or second.timed_out:
            raise _Wrong(f"{verb} or {other} does not come to an end")
        self.one_of({f"{verb}, which was held": (verb, first.status), other: (other, second.status)}, before)

    def race(self, step: Step) -> None:
        """Verbs at once."""
        verbs = step.args["verbs"]
        before = self.stand.picture()
        statuses, output = self.stand.race(verbs)
        self.say(None, output)
        if not statuses:
            raise _Wrong(f"{' and '.join(verbs)}, started together, do not all come to an end")
        named = {f"{verb} ({n})": (verb, status) for n, (verb, status) in enumerate(zip(verbs, statuses), 1)}
        self.one_of(named, before)

    def one_of(self, ended: Mapping[str, tuple[str, int | None]], before: Picture) -> None:
        """Exactly one exits with 0."""
        won = [verb for verb, status in ended.values() if status == 0]
        said = ", ".join(f"{name} exits with {status}" for name, (_, status) in ended.items())
        if len(won) != 1:
            raise _Wrong(f"{len(won) or 'none'} of them exit{'s' if len(won) == 1 else ''} with 0: {said}")
        self.known.status = 0
        self.known.promise = "new" if won == ["commit"] else "old"
        self.effect(won[0], before)

    def cycle(self, step: Step) -> None:
        """The verbs, again and again."""
        for number in range(step.args["times"]):
            for verb in step.args["verbs"]:
                if verb == "change":
                    self.stand.editor().write(self.stand.family.place("sim-one"), f"# cycle {number}\n")
                    continue
                ended = self.stand.run(verb)
                if ended.status != 0:
                    self.ended(verb, ended)
                    raise _Wrong(f"{verb} exits with {ended.status} in cycle {number + 1}{_last(ended.output)}")
        self.known.new = self.stand.picture()

    def cut(self, step: Step) -> list[str]:
        """A power cut between two verbs."""
        return self.stand.cut()

    def disk(self, step: Step) -> None:
        """The disk is full, read-only, or normal again."""
        self.stand.set_disk(step.args["is"])

    # -- what must be so -------------------------------------------------------------------------------------------

    def expect(self, step: Step) -> None:
        """Raises _Wrong with every difference."""
        known, now = self.known, self.stand.picture()
        wanted = known.promise if step.args["is"] == "promised" else step.args["is"]
        problems = _EXPECTED[wanted](self, now)
        if wanted in ("old", "new", "whole", "spared"):
            problems += _strangers(self.left(now), now.others)
        if problems:
            raise _Wrong(*problems)

    def left(self, now: Picture) -> Mapping[str, Any]:
        """What is no configuration, as it must be: as it was left. What a link of the configuration leads to may count
        as configuration or not (editors write through links): it is as it was left, or as it was at begin.
        """
        expected = dict(self.known.others)
        for path, entry in self.known.old.files.items():
            target = os.path.normpath(os.path.join(os.path.dirname(path), entry.get("target", "")))
            was = self.known.old.others.get(target)
            if entry["type"] == "symlink" and was is not None and now.others.get(target) == was:
                expected[target] = was
        return expected

    def sound(self, step: Step) -> None:
        """What must work after every boot."""
        stand = self.stand
        files, processes = stand.volatile()
        equal = stand.disk.fingerprint(exact=False), frozenset(path for path, _, _ in files), processes
        if equal in stand.sound:
            self.heard[-1] = Heard("sound: as on an equal machine before")
            return
        self.heard[-1] = Heard("sound:")
        if stand.transaction() == "open":
            by = "status" if "status" in stand.mechanism.extra else "commit"
            raise _Wrong(f"a transaction is still open: {by} exits with 0")
        before = stand.picture()
        self._then("boot")
        self._same(before, "one more boot")
        if stand.mechanism.begin and stand.mechanism.rollback:
            self._then("begin")
            stand.editor().write(stand.family.place("sim-sound"), "# added\n")
            self._then("rollback")
            self._same(before, "a begin, a change and a rollback after it")
        stand.sound.add(equal)

    def _then(self, verb: str) -> None:
        self.heard.append(Heard(verb))
        ended = self.stand.boot() if verb == "boot" else self.stand.run(verb)
        self.ended(verb, ended)
        if ended.status != 0:
            raise _Wrong(f"{verb} after it exits with {ended.status}{_last(ended.output)}")

    def _same(self, before: Picture, what: str) -> None:
        now = self.stand.picture()
        problems = _files(before, now) + _strangers(before.others, now.others)
        if problems:
            raise _Wrong(*(f"{what}: {line}" for line in problems))

    # -- the states that can be expected ---------------------------------------------------------------------------

    def is_old(self, now: Picture) -> list[str]:
        """Exactly as at begin."""
        return _files(self.known.old, now)

    def is_new(self, now: Picture) -> list[str]:
        """Exactly as the last change left it."""
        return _files(self.known.new, now)

    def is_whole(self, now: Picture) -> list[str]:
        """Exactly one of the two."""
        old, new = self.is_old(now), self.is_new(now)
        return [f"neither old nor new: {line}" for line in old] if old and new else []

    def is_each_whole(self, now: Picture) -> list[str]:
        """Each file is one of the two."""
        old, new = self.known.old.files, self.known.new.files
        wrong = []
        for path in sorted(old.keys() | new.keys() | now.files.keys()):
            if now.files.get(path) not in (old.get(path), new.get(path)):
                one = {path: old[path]} if path in old else {}
                two = {path: now.files[path]} if path in now.files else {}
                wrong += expect.file_differences({"files": one}, {"files": two})
        return [f"neither old nor new: {line}" for line in wrong]

    def is_untouched(self, now: Picture) -> list[str]:
        """Nobody wrote to, or linked to, a file."""
        before = self.known.before or self.known.old
        added = [f"{path}: was added" for path in now.stamps if path not in before.stamps]
        names = ("inode", "modification time", "change time")
        return [
            f"{path}: {', '.join(n for n, a, b in zip(names, stamps, now.stamps[path]) if a != b)} changed"
            if path in now.stamps
            else f"{path}: is gone"
            for path, stamps in before.stamps.items()
            if now.stamps.get(path) != stamps
        ] + added

    def is_kept(self, now: Picture) -> list[str]:
        """Files that nobody touched have not been written again."""
        wrong = []
        for path, (inode, mtime, _) in self.known.old.stamps.items():
            if path not in self.known.touched and now.stamps.get(path, ())[:2] != (inode, mtime):
                wrong.append(f"{path}: nobody touched it, but it was written again (other inode or modification time)")
        return wrong

    def is_spared(self, now: Picture) -> list[str]:
        """As old, whatever became of the odd files that were added."""
        odd = {path for path in self.known.new.files.keys() - self.known.old.files.keys() if has_odd_name(path)}
        files = {path: entry for path, entry in now.files.items() if path not in odd}
        return _files(self.known.old, replace(now, files=files))

    def is_pruned(self, now: Picture) -> list[str]:
        """The state has not grown without bound."""
        limit, count = COPIES * len(now.files), self.stand.saved()
        if count <= limit:
            return []
        return [f"its state holds {count} files; {COPIES} copies of the configuration would be {limit}"]


_Act = Callable[[_Run, Step], "list[str] | None"]
_ACTS: dict[str, _Act] = {
    **dict.fromkeys(trials.VERBS, _Run.verb),
    **dict.fromkeys(("change", "change-each", "change-each-pattern"), _Run.change),
    "interrupt": _Run.interrupt,
    "fail": _Run.fail,
    "hold": _Run.hold,
    "race": _Run.race,
    "cycle": _Run.cycle,
    "disk": _Run.disk,
    "power-cut": _Run.cut,
    "expect": _Run.expect,
    "sound": _Run.sound,
}
_EXPECTED: dict[str, Callable[[_Run, Picture], list[str]]] = {
    "old": _Run.is_old,
    "new": _Run.is_new,
    "whole": _Run.is_whole,
    "each-whole": _Run.is_each_whole,
    "untouched": _Run.is_untouched,
    "kept": _Run.is_kept,
    "spared": _Run.is_spared,
    "pruned": _Run.is_pruned,
}


def _files(old: Picture, now: Picture) -> list[str]:
    return expect.file_differences({"files": old.files}, {"files": now.files})


def _strangers(old: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lines = expect.file_differences({"files": old}, {"files": now})
    return [f"beside the configuration: {line}" for line in lines]


def _last(output: str) -> str:
    lines = output.strip().splitlines()
    return f" ({lines[-1][:200]})" if lines else ""


def record(stand: Stand, case: Case) -> tuple[list[Point], Trial | None]:
    """The points of the verb that a case varies; or the trial that shows why there are none."""
    began = time.monotonic()
    run = _Run(stand, case, Variant(), until=case.axis)
    try:
        run.steps(run.begin())
        ended, points = stand.recorded(case.recorded, case.reading)
        run.heard.append(Heard(f"{case.recorded}, not interrupted", ended.status, ended.output[-OUTPUT:]))
        if ended.status != 0:
            raise _Wrong(f"{case.recorded} exits with {ended.status} though nothing went wrong{_last(ended.output)}")
        return points, None
    except _Wrong as error:
        return [], _trial(case, 0, run, began, problems=error.args)
    except LabError as error:
        return [], _trial(case, 0, run, began, trouble=str(error))
    except OSError as error:
        return [], _trial(case, 0, run, began, trouble=in_words(error))
    finally:
        stand.off()


def in_words(error: OSError) -> str:
    """What the laboratory could not do, and to what; the machine's paths as the machine calls them."""
    path = re.sub("^/proc/[0-9]+/root", "", os.fsdecode(error.filename)) if error.filename else ""
    return f"{error.strerror}: {path}" if path else str(error.strerror or error)


def attempt(stand: Stand, case: Case, variant: Variant, number: int) -> Trial:
    """One trial. Raises Missing when this machine lacks what it needs."""
    began = time.monotonic()
    run = _Run(stand, case, variant)
    problems: tuple[str, ...] = ()
    trouble = ""
    try:
        run.steps(run.begin())
    except _Wrong as error:
        problems = error.args
    except LabError as error:
        trouble = str(error)
    except OSError as error:
        trouble = in_words(error)
    finally:
        stand.off()
    return _trial(case, number, run, began, problems, trouble)


def _trial(
    case: Case, number: int, run: _Run, began: float, problems: tuple[str, ...] = (), trouble: str = ""
) -> Trial:
    if run.heard and problems:
        run.heard[-1] = replace(run.heard[-1], problems=problems)
    variant = run.variant
    return Trial(
        number=number,
        where=case.where,
        choice=variant.words,
        verb=case.recorded,
        point=variant.point,
        problems=problems,
        trouble=trouble,
        steps=tuple(run.heard),
        seconds=round(time.monotonic() - began, 4),
    )

"""Many plans over workers: each run in a sandbox of its own, its events back as they happen.

The runs are forked from this process, which must have one thread. Its death, by whatever signal, ends them all
(`sim.world.sandbox`); a run that dies itself simply has no RunEnded in its journal.
"""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sim.events import Event, RunEnded, from_line, to_line
from sim.planned import Plan
from sim.run import execute
from sim.world import sandbox

TICK_S = 0.1


@dataclass
class _Worker:
    index: int
    keeper: int
    reading: int
    rest: bytes = b""
    journal: IO[str] | None = None
    events: list[Event] = field(default_factory=list)


def run_all(
    plans: Sequence[Plan],
    workers: int,
    on_event: Callable[[int, Event], None],
    tick: Callable[[], None],
    journal: Path | None = None,
) -> list[list[Event]]:
    """Run every plan that is not skipped; the events of each, in the order of `plans`.

    `on_event` hears (index, event) as things happen, `tick` is called at least every 100 ms. `journal`: a folder for
    one file of JSON lines a run, written as things happen. Raises OSError when it cannot be written.
    """
    results: list[list[Event]] = [[] for _ in plans]
    waiting = [index for index, plan in enumerate(plans) if plan.skip is None and plan.not_offered is None]
    running: dict[int, _Worker] = {}
    selector = selectors.DefaultSelector()
    if journal is not None:
        journal.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            while waiting and len(running) < max(1, workers):
                worker = _start(waiting.pop(0), plans, journal)
                running[worker.reading] = worker
                selector.register(worker.reading, selectors.EVENT_READ)
            for key, _ in selector.select(TICK_S):
                worker = running[key.fd]
                if not _hear(worker, on_event):
                    selector.unregister(worker.reading)
                    results[worker.index] = _finish(running.pop(worker.reading))
            tick()
    finally:
        for worker in running.values():
            os.kill(worker.keeper, signal.SIGKILL)  # its sandbox goes with it
            os.waitpid(worker.keeper, 0)
            results[worker.index] = worker.events
        selector.close()
    return results


def _start(index: int, plans: Sequence[Plan], journal: Path | None) -> _Worker:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    plan = plans[index]

    def work() -> None:
        os.close(reading)
        with os.fdopen(writing, "w", encoding="ascii", buffering=1) as out:
            execute(plan, lambda event: print(to_line(event), file=out))

    def refused(why: str) -> None:
        os.write(writing, f"{to_line(RunEnded(0.0, missing=why))}\n".encode("ascii"))

    keeper = sandbox.spawn(work, refused)
    os.close(writing)
    worker = _Worker(index, keeper, reading)
    if journal is not None:
        worker.journal = _journal_path(journal, index, plan).open("w", encoding="ascii", buffering=1)
    return worker


def _journal_path(journal: Path, index: int, plan: Plan) -> Path:
    params = plan.params
    words = [f"{index:03d}", plan.scenario, params.stack, params.mechanism, params.recover or "steps"]
    return journal / ("-".join(word.replace("/", "_") for word in words) + ".jsonl")


def _hear(worker: _Worker, on_event: Callable[[int, Event], None]) -> bool:
    """Take in what a run has written; False at its end."""
    data = os.read(worker.reading, 1 << 16)
    lines = (worker.rest + data).split(b"\n")
    worker.rest = lines.pop()
    for line in lines:
        event = from_line(line.decode("ascii"))
        worker.events.append(event)
        if worker.journal is not None:
            worker.journal.write(line.decode("ascii") + "\n")
        on_event(worker.index, event)
    return bool(data)


def _finish(worker: _Worker) -> list[Event]:
    os.close(worker.reading)
    os.waitpid(worker.keeper, 0)
    if worker.journal is not None:
        worker.journal.close()
    return worker.events

"""Watchers, commits and kills of a transaction with a deadline, many of them: run as a program of its own, which
forks (a test's process has threads).

snapcore_guards.py ROUNDS FOLDER commits|kills: prints one JSON list, an item a round.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from snapcore import cli, guard, watch, words

OLD, NEW = "OLD=1\n", "NEW=1\n"


class Tree:
    """A host's tree with one file, in which a change was begun and made."""

    def __init__(self, root: Path, timeout_s: float) -> None:
        self.root = root
        self.file = root / "etc/sysconfig/network-scripts/ifcfg-eth0"
        self.file.parent.mkdir(parents=True)
        (root / "var/lib").mkdir(parents=True)
        self.file.write_text(OLD)
        assert self.run("begin", "--timeout", f"{timeout_s:.4f}") == 0
        self.file.write_text(NEW)
        record = json.loads((root / "var/lib/snapcore/open").read_text())
        self.id: str = record["id"]
        self.deadline: float = time.monotonic() + record["deadline_boottime"] - words.boottime()

    def run(self, *words: str) -> int:
        """The command, quietly."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return cli.main([*words, "--root", str(self.root)])

    def watched(self) -> int:
        """A watcher, as a process that is forked; it is at work when this returns."""
        reading, writing = os.pipe()

        def work() -> int:
            os.close(reading)
            os.environ["NOTIFY_SOCKET"] = ""
            watch._say_ready = lambda detach: os.close(writing)  # type: ignore[assignment]
            return watch.watch(str(self.root), self.id, False)

        process = forked(work)
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        return process


def forked(work: Callable[[], int]) -> int:
    process = os.fork()
    if process == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return process


def ended(process: int) -> int:
    """Its exit status, -N for a signal."""
    status = os.waitpid(process, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def until(moment: float) -> None:
    """CLOCK_MONOTONIC; exactly, so that the last of it is spent awake."""
    select.poll().poll(max(0.0, moment - time.monotonic() - 0.002) * 1000)
    while time.monotonic() < moment:
        pass


AIM = [-0.02]
"""When the next commit starts, in seconds after the deadline: so that about half of them come in time."""


def commits(root: Path, chance: random.Random) -> dict[str, object]:
    """A commit at about the instant of the deadline, beside a watcher."""
    tree = Tree(root, 0.15)
    watcher = tree.watched()

    def commit() -> int:
        until(tree.deadline + AIM[0])
        return tree.run("commit")

    status = ended(forked(commit))
    step = chance.uniform(0.0, 0.004)
    AIM[0] = max(-0.1, min(0.05, AIM[0] + (step if status == 0 else -step)))
    return {"commit": status, "watcher": ended(watcher), "new": tree.file.read_text() == NEW,
            "boot": tree.run("boot"), "after": tree.file.read_text() == NEW}  # fmt: skip


def kills(root: Path, chance: random.Random) -> dict[str, object]:
    """A watcher that is killed at some instant of its life, and then a boot, or the next call."""
    tree = Tree(root, 0.06)
    ready = time.monotonic()
    watcher = tree.watched()
    until(ready + chance.uniform(0.0, 0.12))
    with contextlib.suppress(ProcessLookupError):
        os.kill(watcher, signal.SIGKILL)
    end = ended(watcher)
    until(ready + 0.12)
    verb = chance.choice(["boot", "status", "touch", "extend", "commit"])
    tree.run(verb, *{"touch": [str(tree.file)], "extend": ["10"]}.get(verb, []))
    return {"killed": end == -signal.SIGKILL, "verb": verb, "new": tree.file.read_text() == NEW,
            "open": tree.run("status") == 0}  # fmt: skip


def main() -> int:
    rounds, folder, what = int(sys.argv[1]), Path(sys.argv[2]), {"commits": commits, "kills": kills}[sys.argv[3]]
    seed = int(os.environ.get("SNAPCORE_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
    sys.stderr.write(f"SNAPCORE_SEED={seed}\n")
    chance = random.Random(seed)
    assert guard  # imported here, so that no fork has to
    results = []
    for number in range(rounds):
        root = folder / str(number)
        results.append(what(root, chance))
        shutil.rmtree(root)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

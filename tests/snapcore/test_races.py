"""Two verbs at once: one held at each of its calls while another one runs, and many started together."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from snapcore_faults import Faults, injected, sampled
from snapcore_hosts import HostTree, change

from snapcore import store

Make = Callable[[], HostTree]
ROUNDS = 300 if os.environ.get("SNAPCORE_EVERY_POINT") else 6


class Held(Faults):
    """At call `at` another verb runs from its start to its end."""

    def __init__(self, at: int, other: Callable[[], int]) -> None:
        super().__init__(at)
        self.other = other
        self.status: int | None = None
        self.busy = False

    def point(self, name: str) -> None:
        if self.busy:
            return
        self.count += 1
        if self.count == self.at:
            self.busy = True
            self.status = self.other()
            self.busy = False


@pytest.mark.parametrize(
    ("held", "other"), [("begin", "begin"), ("commit", "rollback"), ("rollback", "commit"), ("rollback", "rollback")]
)
def test_a_verb_that_is_held_at_any_call_shuts_the_other_one_out(
    make_host: Make, held: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.0)

    def ready() -> tuple[HostTree, dict, dict]:
        host = make_host()
        old = host.seen()
        if held != "begin":
            assert host.run("begin") == 0
            change(host.root)
        return host, old, host.seen()

    host, old, new = ready()
    with injected(Faults()) as counted:
        assert host.run(held) == 0
    for at in sampled(counted.count, 20):
        host, old, new = ready()
        race = Held(at, lambda host=host: host.run(other))
        with injected(race):
            status = host.run(held)
        assert sorted([status == 0, race.status == 0]) == [False, True], (at, status, race.status)
        assert race.status in (0, 13, 199) and status in (0, 13, 199)
        if held == "begin":
            change(host.root)
            assert host.run("rollback") == 0
            assert host.seen() == old
            continue
        winner = held if status == 0 else other
        assert host.run("boot") == 0
        assert host.seen() == (new if winner == "commit" else old), at


def test_of_many_begins_at_once_exactly_one_wins(host: HostTree, program: Callable[..., object]) -> None:
    for round_ in range(ROUNDS):
        with ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(lambda _: program("begin", "--root", str(host.root)), range(2 + round_ % 7)))
        codes = sorted(done.returncode for done in ended)  # type: ignore[attr-defined]  # CompletedProcess
        assert codes[0] == 0 and set(codes[1:]) == {199}, codes
        assert host.run("rollback") == 0


def test_a_lock_is_gone_with_the_process_that_held_it(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.run("begin") == 0
    holder = subprocess.Popen(["flock", str(host.store), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdin.write(b"held\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(store, "LOCK_WAIT_S", 0.0)
        assert host.run("rollback") == 13
        assert host.run("begin") == 199
        assert host.run("status") == 0  # readers take no lock
    finally:
        holder.communicate()
    assert host.run("rollback") == 0


def test_who_gave_up_waiting_keeps_the_lock_from_nobody(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.run("begin") == 0
    holder = os.open(host.store, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.05)
    assert [host.run("touch", "/etc/hosts") for _ in range(3)] == [13, 13, 13]
    os.close(holder)
    assert host.run("touch", "/etc/hosts") == 0


def test_who_waits_gets_the_lock_as_soon_as_it_is_free(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.run("begin") == 0
    holder = os.open(host.store, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr(store, "LOCK_WAIT_S", 60.0)
    threading.Timer(0.2, os.close, [holder]).start()
    began = time.monotonic()
    assert host.run("touch", "/etc/hosts") == 0
    assert 0.1 < time.monotonic() - began < 30.0

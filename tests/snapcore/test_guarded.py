"""Transactions with a deadline: who holds it, what ends them, and `try`. (With the watcher that `begin` itself starts:
tests/world/test_guard.py.)"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from snapcore_faults import Faults, Killed, injected, sampled
from snapcore_hosts import HostTree, change

from snapcore import attempt, cli, guard, state, store, transaction, watch, words
from snapcore import host as host_module
from snapcore.errors import NotSaved
from snapcore.opened import Opened
from snapcore.waiting import Signals

WHERE = str(Path(cli.__file__).parents[1])
START = f"import sys; sys.path.insert(0, {WHERE!r}); from snapcore.cli import main; sys.exit(main())"
COMMAND = [sys.executable, "-I", "-c", START]
LONG_S = 60


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`later(5)`: the clock that runs through suspension is 5 s further."""
    real = words.boottime

    def go(seconds: float) -> None:
        monkeypatch.setattr(words, "boottime", lambda: real() + seconds)

    return go


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last JSON object that was printed."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


# The deadline.


def test_what_was_begun_with_a_deadline_says_so(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("begin", "--timeout", "90", "--json") == 0
    begun = said(capsys)
    assert host.run("status", "--json") == 0
    shown = said(capsys)["transaction"]
    assert begun["deadline"] == shown["deadline"] and 80 < shown["left_s"] <= 90
    assert host.run("status") == 0
    assert "rolled back in 90 s" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["0", "-1", "soon", "nan", "inf", "1e9"])
def test_a_time_that_makes_no_sense_is_refused(host: HostTree, wrong: str) -> None:
    assert host.run("begin", "--timeout", wrong) == 2
    assert host.run("extend", f"{wrong}") == 2
    assert host.run("status") == 3


@pytest.mark.parametrize("words", [["--client-loss"], ["--client", "1"], ["--timeout", "5", "--client", "0"]])
def test_a_client_needs_a_deadline_and_must_be_there(host: HostTree, words: list[str]) -> None:
    assert host.run("begin", *words) == 2
    assert host.run("status") == 3


@pytest.mark.parametrize(
    "words",
    [
        ["begin", "--timeout", ""],
        ["begin", "--timeout="],
        ["begin", "--timeout", "60", "--client", ""],
        ["begin", "--timeout", "60", "--client", "9" * 5000],
        ["begin", "--only", ""],
        ["try", "--attempts", "9" * 5000, "true"],
        ["try", "--probe", "ping:192.0.2.1,size=" + "9" * 5000, "true"],
        ["prune", "--keep", "9" * 5000],
    ],
)
def test_a_value_that_is_missing_or_far_too_long_is_refused(host: HostTree, words: list[str]) -> None:
    assert host.run(*words) == 2
    assert host.run("status") == 3


@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_who_waits_is_told_the_end_also_where_its_verb_was_killed_before_it_had_tidied_up(
    host: HostTree, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def killed(*_: object) -> list[str]:
        raise Killed

    assert host.run("begin", "--timeout", "60") == 0
    with monkeypatch.context() as cut, pytest.raises(Killed):
        cut.setattr(transaction, "tidy", killed)
        host.run(verb)
    assert host.run(verb) == 0
    with Opened(str(host.root)) as (_, kept):
        outcome = kept.outcome()
    assert outcome is not None and outcome[0] == verb


def test_confirmed_in_time_it_is_kept(host: HostTree, later: Any) -> None:
    assert host.run("begin", "--timeout", "60") == 0
    change(host.root)
    new = host.seen()
    later(59)
    assert host.run("confirm") == 0
    later(61)
    assert host.run("status") == 3
    assert host.seen() == new


@pytest.mark.parametrize("verb", ["commit", "confirm", "extend"])
def test_after_the_deadline_nothing_is_kept(
    host: HostTree, later: Any, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "60") == 0
    change(host.root)
    later(60.5)
    words = ["1"] if verb == "extend" else []
    assert host.run(verb, *words) == (199 if verb == "extend" else 10)
    assert host.seen() == old
    assert "has passed" in capsys.readouterr().err
    assert host.run("confirm") == 199
    assert "was rolled back" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["begin"], 0),
        (["touch", "/etc/hosts"], 199),
        (["extend", "5"], 199),
        (["save", "a"], 0),
        (["load", "a"], 1),
        (["delete", "a"], 1),
        (["prune"], 0),
        (["status"], 3),
        (["boot"], 0),
        (["rollback"], 0),
    ],
)
def test_a_call_that_finds_an_expired_transaction_without_its_watcher_undoes_it_first(
    host: HostTree, later: Any, words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "60") == 0
    change(host.root)
    later(61)
    assert host.run(*words) == status
    assert host.seen() == old
    printed = capsys.readouterr()
    assert "rolled back" in printed.err + printed.out


HANGS_UP = f"""
import os, signal, subprocess, sys
sys.path.insert(0, {WHERE!r})
from snapcore import cli, guard, words
signal.signal(signal.SIGHUP, signal.SIG_DFL)
clock, real = words.boottime, guard.give_back
def give_back(*arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    print(subprocess.run(["sh", "-c", "kill -HUP $$"]).returncode, flush=True)
    return real(*arguments)
words.boottime, guard.give_back = lambda: clock() + 61, give_back
sys.exit(cli.main(sys.argv[1:]))
"""
"""At the deadline, a session whose connection the rollback cuts off."""


@pytest.mark.parametrize(("verb", "status"), [("commit", 10), ("status", 3), ("begin", 0)])
def test_what_comes_too_late_outlives_the_terminal_and_what_it_starts_still_hears_of_its_end(
    host: HostTree, verb: str, status: int
) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "60") == 0
    change(host.root)
    words = [sys.executable, "-I", "-c", HANGS_UP, verb, "--root", str(host.root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[0] == str(-signal.SIGHUP)
    assert host.seen() == old


def test_status_of_a_transaction_that_another_one_replaces_meanwhile(
    host: HostTree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = cli._opened

    def late(arguments: Any) -> Any:
        monkeypatch.setattr(cli, "_opened", real)
        assert host.run("commit") == host.run("begin", "--label", "another") == 0
        return real(arguments)

    assert host.run("begin", "--timeout", "60") == 0
    monkeypatch.setattr(cli, "_opened", late)
    assert host.run("status") == 0
    assert "another" in capsys.readouterr().out


def test_status_of_a_watcher_whose_number_is_not_known(
    host: HostTree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run("begin", "--timeout", "60") == 0
    monkeypatch.setattr(guard, "watcher", lambda store, record: -1)
    assert host.run("status") == 0
    assert "; it is watched" in capsys.readouterr().out


def test_the_json_of_the_command_that_is_tried_is_none_of_ours(
    host: HostTree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["try", "--root", str(host.root), "--confirm", "x", "--", "ip", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_what_another_boot_has_left_with_a_deadline_is_over(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "6000") == 0
    change(host.root)
    monkeypatch.setattr(words, "boot_id", lambda: "another")
    assert host.run("status") == 3
    assert host.seen() == old


def test_readers_leave_an_expired_transaction_to_its_watcher(host: HostTree, later: Any) -> None:
    assert host.run("begin", "--timeout", "60") == 0
    change(host.root)
    new = host.seen()
    later(61)
    with (host.store / "snapshots/transaction-000001/watcher").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.run("status") == 0
        assert host.run("begin") == 199
        assert host.seen() == new
    assert host.run("status") == 3


def test_while_the_watcher_is_at_it_a_commit_is_told(
    host: HostTree, later: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.0)
    assert host.run("begin", "--timeout", "60") == 0
    later(61)
    lock = os.open(host.store, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert host.run("commit") == 199
    assert "is being rolled back" in capsys.readouterr().err
    os.close(lock)


def test_extended_it_lasts_longer(host: HostTree, later: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("extend", "10") == 199
    assert host.run("begin") == 0
    assert host.run("extend", "10") == 199  # it has no deadline
    assert host.run("commit") == 0
    assert host.run("begin", "--timeout", "60", "--require-token", "--token", "secret") == 0
    assert host.run("extend", "60") == 16
    assert host.run("extend", "60", "--token", "secret") == 0
    change(host.root)
    later(100)
    assert host.run("status", "--json") == 0
    assert 15 < said(capsys)["transaction"]["left_s"] <= 20
    assert host.run("confirm", "--token", "other") == 16
    assert host.run("confirm", "--token", "secret") == 0


def test_a_rollback_that_can_not_be_done_is_tried_thrice_and_then_left_to_the_boot(
    host: HostTree, later: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "60") == 0
    change(host.root)
    later(61)
    tried = 0

    def broken(*_: object) -> list[object]:
        nonlocal tried
        tried += 1
        return []

    with monkeypatch.context() as spoiled:
        spoiled.setattr(host_module.Host, "restore", broken)
        for count in range(1, 6):
            assert host.run("status", "--json") == 0
            assert said(capsys)["transaction"]["failures"] == min(3, count)
        assert tried == 3 * 2  # each compares and restores twice
        assert host.run("status") == 0
        assert "ATTENTION: 3 failed rollbacks" in capsys.readouterr().out
        assert host.run("commit") == 11
    assert host.run("boot") == 0
    assert host.seen() == old


def test_a_record_that_an_older_version_wrote_is_read(host: HostTree) -> None:
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    record = json.loads((host.store / "open").read_text())
    for field in ("deadline_boottime", "clients", "change", "attempts"):
        del record[field]
    (host.store / "open").write_bytes(state.seal({**record, "sha256": ""}))
    assert host.run("status") == 0
    assert host.run("rollback") == 0
    assert host.seen() == old


# The watcher.


class Watcher:
    """`snapcore watch` of the open transaction, at work."""

    def __init__(self, host: HostTree, folder: Path) -> None:
        record = json.loads((host.store / "open").read_text())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(folder / "notify"))
            manager.settimeout(LONG_S)
            self.process = subprocess.Popen(
                [*COMMAND, "watch", record["id"], "--root", str(host.root)],
                env={"NOTIFY_SOCKET": str(folder / "notify")},
                start_new_session=True,
            )
            assert manager.recv(100) == b"READY=1"
        os.unlink(folder / "notify")

    def ends(self) -> int:
        return self.process.wait(LONG_S)


def test_at_the_deadline_the_watcher_rolls_back(host: HostTree, tmp_path: Path) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "1.5") == 0
    watcher = Watcher(host, tmp_path)
    change(host.root)
    assert watcher.ends() == 0
    assert host.seen() == old
    assert host.run("status") == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_quit_the_watcher_rolls_back(host: HostTree, tmp_path: Path, number: int) -> None:
    old = host.seen()
    assert host.run("begin", "--timeout", "600") == 0
    watcher = Watcher(host, tmp_path)
    change(host.root)
    watcher.process.send_signal(signal.SIGHUP)  # that is for sessions that have a terminal
    assert host.run("status") == 0
    watcher.process.send_signal(number)
    assert watcher.ends() == 0
    assert host.seen() == old


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_when_the_client_is_lost_the_watcher_rolls_back(host: HostTree, tmp_path: Path, number: int) -> None:
    old = host.seen()
    # these tests may run under nohup
    hangs_up = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); print(1, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-I", "-c", hangs_up]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"1\n"
        assert host.run("begin", "--timeout", "600", "--client", str(client.pid)) == 0
        watcher = Watcher(host, tmp_path)
        change(host.root)
        client.send_signal(number)
        assert watcher.ends() == 0
    assert host.seen() == old


def test_a_client_that_is_gone_before_the_watcher_looks_is_lost(host: HostTree, tmp_path: Path) -> None:
    old = host.seen()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as client:
        assert host.run("begin", "--timeout", "600", "--client", str(client.pid)) == 0
    change(host.root)
    assert Watcher(host, tmp_path).ends() == 0
    assert host.seen() == old


@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_the_watcher_ends_with_the_transaction(host: HostTree, tmp_path: Path, verb: str) -> None:
    assert host.run("begin", "--timeout", "600") == 0
    watcher = Watcher(host, tmp_path)
    change(host.root)
    new = host.seen()
    assert host.run(verb) == 0
    assert watcher.ends() == 0
    assert verb == "rollback" or host.seen() == new


def test_the_watcher_hears_of_more_time(host: HostTree, tmp_path: Path) -> None:
    assert host.run("begin", "--timeout", "2") == 0
    watcher = Watcher(host, tmp_path)
    change(host.root)
    new = host.seen()
    assert host.run("extend", "600") == 0
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.process.wait(3)
    assert host.run("commit") == 0
    assert watcher.ends() == 0
    assert host.seen() == new


def test_status_names_the_watcher_and_the_client(
    host: HostTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run("begin", "--timeout", "600", "--client-loss") == 0
    assert host.run("status", "--json") == 0
    assert said(capsys)["transaction"]["watcher"] == 0
    watcher = Watcher(host, tmp_path)
    assert host.run("status", "--json") == 0
    shown = said(capsys)["transaction"]
    assert shown["watcher"] == watcher.process.pid and shown["clients"] == [each.pid for each in guard.clients()]
    assert host.run("commit") == 0
    watcher.ends()


def test_a_store_that_can_not_be_found_costs_a_watcher_no_descriptors(tmp_path: Path) -> None:
    (tmp_path / "var").symlink_to("var")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(OSError, match="symbolic links"):
            watch._Watcher(str(tmp_path), "0123", Signals()).read()
    assert os.listdir("/proc/self/fd") == before


def test_there_is_nothing_to_watch_in_a_transaction_that_is_over(
    host: HostTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.run("watch", "0123456789abcdef") == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:  # a unit is not started again and again for it
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert host.run("watch", "0123456789abcdef") == 0
        assert manager.recv(100, socket.MSG_DONTWAIT) == b"READY=1"


def test_verbs_that_people_do_not_call_are_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "  try " in printed and "watch " not in printed


def races(fast: Path, what: str, rounds: int) -> list[dict[str, Any]]:
    """See `snapcore_guards`."""
    script = Path(__file__).with_name("snapcore_guards.py")
    words = [sys.executable, str(script), str(rounds), str(fast), what]
    environment = os.environ | {"PYTHONPATH": WHERE} if sys.version_info >= (3, 9) else {}
    done = subprocess.run(words, stdout=subprocess.PIPE, env=environment, timeout=600, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_of_commit_and_deadline_at_one_instant_exactly_one_counts(fast: Path) -> None:
    found = races(fast, "commits", 100)
    assert {seen["new"] for seen in found} == {False, True}
    for seen in found:
        assert seen["new"] == (seen["commit"] == 0), seen
        assert seen["commit"] in (0, 10, 199) and seen["watcher"] == 0, seen
        assert seen["after"] == seen["new"] and seen["boot"] == 0, seen  # a boot changes nothing more


def test_a_watcher_that_is_killed_at_any_instant_leaves_no_change(fast: Path) -> None:
    found = races(fast, "kills", 100)
    assert any(seen["killed"] for seen in found) and not all(seen["killed"] for seen in found)
    for seen in found:
        assert not seen["new"] and not seen["open"], seen


# try


@pytest.fixture
def file(host: HostTree) -> Path:
    return host.scripts / "ifcfg-eth0"


def tried(host: HostTree, *options: str, command: str = "") -> int:
    """`try` in this process; without a command of the test's own with one that changes the configuration."""
    command = command or f"echo NEW=1 > {host.scripts}/ifcfg-eth0"
    return cli.main(["try", "--root", str(host.root), *options, "--", "sh", "-c", command])


def is_new(file: Path) -> bool:
    return file.read_text() == "NEW=1\n"


def test_a_change_that_works_is_kept(host: HostTree, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tried(host, "--probe", "exec:true", "--want", "exec:false", "--json") == 0
    shown = said(capsys)
    assert shown["state"] == "none" and shown["why"] == "kept"
    passed = [(each["required"], each["before"]["passed"], each["after"]["passed"]) for each in shown["probes"]]
    assert passed == [(True, True, True), (False, False, False)]
    assert is_new(file) and host.run("status") == 3


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "ended with 3"),
        ("kill -9 $$", "SIGKILL"),
        ("kill -40 $$", "signal 40"),
        ("exec /does/not/exist", "ended with 12"),
    ],
)
def test_a_command_that_fails_is_undone(
    host: HostTree, file: Path, command: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    assert tried(host, command=f"echo NEW=1 > {file}; {command}") == 10
    assert host.seen() == old
    assert why in capsys.readouterr().err
    assert host.run("status") == 3  # nothing stays armed that would undo a later, good change


def test_a_command_that_is_not_there_is_undone(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["try", "--root", str(host.root), "--", "/does/not/exist", "--json"]) == 10
    assert "No such file" in capsys.readouterr().err
    assert host.run("status") == 3


def test_a_command_that_is_not_done_in_time_is_stopped_and_undone(host: HostTree, file: Path, tmp_path: Path) -> None:
    old = host.seen()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert tried(host, "--timeout", "1.5", command=f"echo NEW=1 > {file}; trap '' TERM; cat {fifo}; cat {fifo}") == 10
    assert host.seen() == old
    with pytest.raises(OSError):  # nobody reads: what the command has started is gone, too
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def test_a_probe_that_the_change_breaks_has_it_undone(
    host: HostTree, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    assert tried(host, "--timeout", "1.5", "--probe", f"exec:! grep NEW {file}", "--json") == 10
    shown = said(capsys)
    seen = [shown["probes"][0][when]["passed"] for when in ("before", "after", "again")]
    assert seen == [True, False, True] and shown["undone"]
    assert host.seen() == old


def test_a_probe_that_failed_before_the_change_condemns_nothing_and_that_is_said(
    host: HostTree, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tried(host, "--probe", "exec:false", "--probe", "exec:true") == 0
    assert "exec:false: did not pass before the change either" in capsys.readouterr().err
    assert is_new(file)


def test_a_change_that_takes_its_time_is_kept(host: HostTree, file: Path, tmp_path: Path) -> None:
    """Fails twice after the change, and then no more."""
    count = tmp_path / "count"
    slow = f"exec:[ ! -e {count} ] || {{ echo >> {count}; [ $(wc -l < {count}) -gt 2 ]; }}"
    assert tried(host, "--timeout", "60", "--probe", slow, command=f"echo NEW=1 > {file}; : > {count}") == 0
    assert is_new(file) and count.read_text() == "\n" * 3


@pytest.mark.parametrize(("often", "times"), [("1", 1), ("3", 3)])
def test_it_is_tried_as_often_as_is_asked_for(host: HostTree, tmp_path: Path, often: str, times: int) -> None:
    count = tmp_path / "count"
    assert tried(host, "--attempts", often, command=f"echo >> {count}; exit 1") == 10
    assert count.read_text() == "\n" * times


def test_a_second_attempt_may_be_the_good_one(host: HostTree, file: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    command = f"[ -e {first} ] && echo NEW=1 > {file} && exit 0; : > {first}; exit 1"
    assert tried(host, "--attempts", "5", command=command) == 0
    assert is_new(file)


def test_what_no_rollback_cures_is_not_tried_again(
    host: HostTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    command = f"echo >> {gone}"
    assert tried(host, "--timeout", "1.2", "--attempts", "5", "--probe", f"exec:[ ! -e {gone} ]", command=command) == 10
    assert gone.read_text() == "\n"
    assert "does not after the rollback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--confirm", "perhaps"],
        ["--attempts", "0"],
        ["--attempts", "many"],
        ["--timeout", "x"],
        ["--probe", "pong:1"],
        ["--want", "tcp:1"],
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_begun(
    host: HostTree, file: Path, options: list[str]
) -> None:
    assert tried(host, *options) == 2
    assert not is_new(file) and not host.store.exists()


def test_nothing_is_run_inside_somebody_elses_transaction(host: HostTree, file: Path) -> None:
    assert host.run("begin") == 0
    assert tried(host) == 199
    assert not is_new(file)


def test_a_command_may_be_confirmed_while_it_runs(host: HostTree, file: Path) -> None:
    confirm = shlex.join([*COMMAND, "confirm", "--token", "mine", "--root", str(host.root)])
    command = f"echo NEW=1 > {file}; {confirm}"
    assert tried(host, "--timeout", "60", "--confirm", "token", "--token", "mine", command=command) == 0
    assert is_new(file)


class Trying:
    """`try` as a process of its own, with the terminal `terminal` if there is one."""

    def __init__(self, host: HostTree, *options: str, terminal: int = -1) -> None:
        command = f"echo NEW=1 > {host.scripts}/ifcfg-eth0"
        own = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " if terminal >= 0 else ""
        words = [*COMMAND[:-1], own + START, "try", "--root", str(host.root), *options, "--", "sh", "-c", command]
        self.process = subprocess.Popen(
            words,
            stderr=subprocess.PIPE,
            text=True,
            stdin=terminal if terminal >= 0 else subprocess.DEVNULL,
            start_new_session=True,
        )

    def says(self, what: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if what in line:
                return
        raise AssertionError(f"it never said {what!r}")

    def ends(self) -> int:
        self.process.communicate(timeout=LONG_S)
        return self.process.returncode


def test_who_has_the_token_confirms_from_anywhere(host: HostTree, file: Path) -> None:
    trying = Trying(host, "--timeout", "60", "--confirm", "token", "--token", "mine")
    trying.says("--token mine")
    assert host.run("confirm") == 16  # the same user, without it
    assert host.run("confirm", "--token", "yours") == 16
    assert host.run("confirm", "--token", "mine") == 0
    assert trying.ends() == 0 and is_new(file)


def test_whose_token_does_not_come_in_time_is_undone(host: HostTree, file: Path) -> None:
    old = host.seen()
    assert Trying(host, "--timeout", "1.5", "--confirm", "token").ends() == 10
    assert host.seen() == old


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_quit_it_is_undone(host: HostTree, file: Path, number: int) -> None:
    old = host.seen()
    trying = Trying(host, "--timeout", "60", "--confirm", "token", "--token", "mine")
    trying.says("--token mine")
    trying.process.send_signal(signal.SIGHUP)  # the terminal is gone: who has the token may still come
    assert host.run("status") == 0 and is_new(file)
    trying.process.send_signal(number)
    assert trying.ends() == 10
    assert host.seen() == old


def test_told_to_quit_it_says_nothing_of_probes_that_were_not_measured_again(host: HostTree, file: Path) -> None:
    trying = Trying(host, "--timeout", "60", "--confirm", "token", "--token", "mine", "--probe", "exec:true")
    trying.says("--token mine")
    trying.process.send_signal(signal.SIGTERM)
    _, printed = trying.process.communicate(timeout=LONG_S)
    assert trying.process.returncode == 10
    assert "told to quit (SIGTERM)" in printed and "does not after the rollback" not in printed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it still runs
def test_a_command_that_may_not_be_stopped_keeps_nothing_from_being_undone(
    host: HostTree, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(group: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    old = host.seen()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setattr(os, "killpg", refuse)  # as where the command is another user's
    assert tried(host, "--timeout", "1.5", command=f"echo NEW=1 > {file}; exec cat {fifo}") == 10
    assert host.seen() == old
    with open(fifo, "wb"):
        pass  # lets it end


def test_an_attempt_that_can_not_begin_leaves_the_last_ones_word(
    host: HostTree, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, begun = guard.begin, []

    def once(*arguments: Any) -> guard.Begin:
        if begun:
            raise NotSaved("no room")
        begun.append(real(*arguments))
        return begun[0]

    monkeypatch.setattr(guard, "begin", once)
    assert tried(host, "--attempts", "3", "--json", command=f"echo NEW=1 > {file}; exit 7") == 10
    printed = capsys.readouterr()
    shown = json.loads(printed.out.splitlines()[-1])
    assert shown["attempts"] == 1 and shown["undone"] and "ended with 7" in shown["why"]
    assert "attempt 2 could not begin: no room" in printed.err


def test_hung_up_it_is_undone_where_the_loss_of_the_client_counts(host: HostTree, file: Path) -> None:
    old = host.seen()
    trying = Trying(host, "--timeout", "60", "--confirm", "token", "--token", "mine", "--client-loss")
    trying.says("--token mine")
    trying.process.send_signal(signal.SIGHUP)
    assert trying.ends() == 10
    assert host.seen() == old


def test_killed_it_leaves_the_deadline(host: HostTree, later: Any) -> None:
    old = host.seen()
    trying = Trying(host, "--timeout", "60", "--confirm", "token", "--token", "mine")
    trying.says("--token mine")
    trying.process.kill()
    assert trying.ends() == -signal.SIGKILL
    assert host.run("status") == 0
    later(61)
    assert host.run("status") == 3
    assert host.seen() == old


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"YES\n", 0), (b"n\n", 10), (b"\n", 10), (b"\x04", 10)])
def test_the_terminal_is_asked(host: HostTree, file: Path, answer: bytes, status: int) -> None:
    with terminal() as (ours, theirs):
        trying = Trying(host, "--timeout", "60", "--confirm", "ask", terminal=theirs)
        shown = b""
        while b"keep the change? [y/N] (" not in shown:
            assert select.select([ours], [], [], LONG_S)[0]
            shown += os.read(ours, 1000)
        os.write(ours, answer)
        assert trying.ends() == status
    assert is_new(file) == (status == 0)


def test_without_a_terminal_nobody_can_be_asked(host: HostTree, file: Path) -> None:
    assert Trying(host, "--confirm", "ask").ends() == 2
    assert not is_new(file)


def test_a_rollback_that_stays_incomplete_says_so(
    host: HostTree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    with monkeypatch.context() as spoiled:
        spoiled.setattr(host_module.Host, "restore", lambda *_: [])
        assert tried(host, command=f"echo NEW=1 > {host.scripts}/ifcfg-eth0; exit 1") == 11
    printed = capsys.readouterr().err
    assert "ended with 1" in printed and "ifcfg-eth0" in printed
    assert host.run("status") == 0
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_client_is_the_probe_where_nobody_asks_for_another_and_its_lack_is_said(
    host: HostTree, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("snapcore.probes.client_connection", lambda: None)
    assert tried(host) == 0
    assert "this session came by no TCP connection" in capsys.readouterr().err
    assert is_new(file)


def test_wrappers_are_not_taken_for_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {12: "sudo", 11: "timeout", 10: "bash"}
    monkeypatch.setattr(os, "getppid", lambda: 12)
    monkeypatch.setattr(guard, "process_name", lambda pid: names.get(pid, ""))
    monkeypatch.setattr(guard, "parent", lambda pid: pid - 1)
    assert [each.pid for each in guard.clients()] == [10]
    assert [each.pid for each in guard.clients(trying=True)] == [10, os.getpid()]
    monkeypatch.setattr(guard, "parent", lambda pid: 1)  # called by init: nobody whose end counts
    with pytest.raises(guard.Usage):
        guard.clients()
    assert [each.pid for each in guard.clients(trying=True)] == [os.getpid()]


def test_without_a_watcher_nothing_is_begun(
    host: HostTree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "SYSTEMD", "/does/not/exist")
    monkeypatch.setattr(guard, "is_this_host", lambda root: True)
    for program, why in ((["sh", "-c", "echo no room >&2; exit 3"], "no room"), (["/does/not/exist"], "No such file")):
        monkeypatch.setattr(guard, "program", lambda program=program: program)
        assert host.run("begin", "--timeout", "60") == 15
        printed = capsys.readouterr().err
        assert "could not start the watcher, nothing is armed" in printed and why in printed
        assert tried(host) == 15
        assert host.run("status") == 3


def test_a_watcher_that_hangs_before_it_is_ready_is_not_waited_for(
    host: HostTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "SYSTEMD", "/does/not/exist")
    monkeypatch.setattr(guard, "is_this_host", lambda root: True)
    monkeypatch.setattr(guard, "READY_S", 0.2)
    monkeypatch.setattr(guard, "program", lambda: ["sh", "-c", "sleep 20 & exit 0"])
    began = time.monotonic()
    assert host.run("begin", "--timeout", "60") == 15
    assert time.monotonic() - began < 15
    assert host.run("status") == 3


def test_the_watcher_finds_the_pyroute2_that_begin_has_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tmp_path / "pyroute2" / "__init__.py"
    module.parent.mkdir()
    module.write_text("raise ImportError('the one of this test')\n")
    monkeypatch.setitem(sys.modules, "pyroute2", types.SimpleNamespace(__file__=str(module)))
    interpreter, *words = guard.program()
    begin = [interpreter, "-S", *words, "begin", "--kernel", "--root", str(tmp_path)]
    done = subprocess.run(begin, capture_output=True, text=True, check=False)
    assert done.returncode == 15 and "the one of this test" in done.stderr


def test_a_watcher_that_dies_at_any_call_of_its_rollback_leaves_it_to_the_boot(
    make_host: Callable[[], HostTree], later: Any
) -> None:
    def expired() -> tuple[HostTree, dict[bytes, tuple[object, ...]], str]:
        host = make_host()
        old = host.seen()
        assert host.run("begin", "--timeout", "60") == 0
        change(host.root)
        return host, old, json.loads((host.store / "open").read_text())["id"]

    def act(host: HostTree, id: str) -> None:
        assert watch._Watcher(str(host.root), id, Signals()).roll_back("the deadline")

    host, _, id = expired()
    later(61)
    with injected(Faults()) as counted:
        act(host, id)
    for at in sampled(counted.count, 20):
        later(0)
        host, old, id = expired()
        later(61)
        with injected(Faults(at)), contextlib.suppress(Killed):
            act(host, id)
        assert host.run("boot") == 0
        assert host.seen() == old, at
        assert host.run("status") == 3


def test_where_systemd_runs_the_watcher_is_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemd-run"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/words\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(guard, "SYSTEMD", str(tmp_path))
    guard.start_watcher("0123")
    given = (tmp_path / "words").read_text().splitlines()
    assert "--unit=snapcore-watch-0123" in given and "--property=Restart=on-failure" in given
    assert "--property=KillMode=process" in given  # what `ifup` starts in a rollback goes on when the watcher has ended
    assert "--service-type=notify" in given and given[-2:] == ["watch", "0123"]


def test_no_more_attempts_than_make_sense(host: HostTree) -> None:
    assert tried(host, "--attempts", str(attempt.MOST_ATTEMPTS + 1)) == 2

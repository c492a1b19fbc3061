"""Every call that each verb makes is once the last one, and once a failing one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from snapcore_faults import ERRORS, Faults, Killed, injected, sampled
from snapcore_hosts import HostTree, change

Make = Callable[[], HostTree]


def attempt(host: HostTree, verb: str, faults: Faults) -> int | None:
    """The exit status; None if the process died."""
    with injected(faults):
        try:
            return host.run(verb)
        except Killed:
            return None


def prepared(make: Make, verb: str) -> tuple[HostTree, dict, dict]:
    """(host ready for `verb`, its old configuration, its new one)."""
    host = make()
    old = host.seen()
    if verb == "begin":
        return host, old, old
    assert host.run("begin") == 0
    change(host.root)
    return host, old, host.seen()


def points(make: Make, verb: str, reads: bool = False) -> list[int]:
    """The numbers of the calls that `verb` makes when nothing is in its way: all of them, or some (`sampled`)."""
    counted = Faults(reads=reads)
    assert attempt(prepared(make, verb)[0], verb, counted) == 0
    assert counted.count > 10
    return sampled(counted.count, 12)


def works_again(host: HostTree) -> None:
    """A boot changes nothing, and a whole cycle works."""
    now = host.seen()
    assert host.run("boot") == 0
    assert host.seen() == now
    assert host.run("begin") == 0
    (host.scripts / "ifcfg-eth0").write_text("ONCE=more\n")
    (host.scripts / "ifcfg-fresh").write_text("ONCE=more\n")
    assert host.run("rollback") == 0
    assert host.seen() == now
    left = {path.name for path in host.store.iterdir()}
    assert left <= {"snapshots", "archive"}
    assert not list((host.store / "snapshots").iterdir())


def file_wise_old_or_new(host: HostTree, old: dict, new: dict) -> None:
    """No file is a mixture, and nothing else lies about. Hard links are judged when all is back."""
    now = host.seen()
    for path, value in now.items():
        sides = [side[path][:5] for side in (old, new) if path in side]
        if b"/.snapcore-" not in path:
            assert value[:5] in sides, path
    for path in old.keys() & new.keys():
        assert path in now, path


@pytest.mark.parametrize("then", ["boot", "rollback"])
def test_begin_killed_at_any_call_leaves_the_configuration_untouched(make_host: Make, then: str) -> None:
    for at in points(make_host, "begin"):
        host, old, _ = prepared(make_host, "begin")
        assert attempt(host, "begin", Faults(at)) is None
        assert host.run(then) in ((0,) if then == "boot" else (0, 199))
        assert host.seen() == old, at
        works_again(host)


@pytest.mark.parametrize("then", ["boot", "rollback"])
@pytest.mark.parametrize("verb", ["rollback", "boot"])
def test_rollback_killed_at_any_call_is_finished_by_the_next_one(make_host: Make, verb: str, then: str) -> None:
    for at in points(make_host, verb):
        host, old, new = prepared(make_host, verb)
        assert attempt(host, verb, Faults(at)) is None
        file_wise_old_or_new(host, old, new)
        assert host.run(then) in ((0,) if then == "boot" else (0, 199))
        assert host.seen() == old, at
        works_again(host)


def test_commit_killed_at_any_call_leaves_all_old_or_all_new(make_host: Make) -> None:
    for at in points(make_host, "commit"):
        host, old, new = prepared(make_host, "commit")
        assert attempt(host, "commit", Faults(at)) is None
        assert host.run("boot") == 0
        assert host.seen() in (old, new), at
        works_again(host)


@pytest.mark.parametrize("stay", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_begin_with_a_failing_call_saves_all_or_arms_nothing(make_host: Make, error: int, stay: bool) -> None:
    for at in points(make_host, "begin"):
        host, old, _ = prepared(make_host, "begin")
        status = attempt(host, "begin", Faults(at, error, stay))
        assert status in (0, 15)
        assert host.seen() == old
        change(host.root)
        new = host.seen()
        if status == 0:
            assert host.run("rollback") == 0
            assert host.seen() == old
        elif not stay:
            assert host.run("boot") == 0
            assert host.seen() == new, at
        else:
            host.run("boot")  # where nothing works, even the disarming may not have
        works_again(host)


@pytest.mark.parametrize("stay", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("verb", ["rollback", "boot"])
def test_rollback_with_a_failing_call_is_complete_or_says_so(
    make_host: Make, verb: str, error: int, stay: bool
) -> None:
    for at in points(make_host, verb):
        host, old, new = prepared(make_host, verb)
        status = attempt(host, verb, Faults(at, error, stay))
        if status == 0:
            assert host.seen() == old, at
        else:
            assert status == 11
            file_wise_old_or_new(host, old, new)
            assert host.run(verb) == 0, at
            assert host.seen() == old
        works_again(host)


@pytest.mark.parametrize("stay", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_commit_with_a_failing_call_keeps_the_new_or_says_that_it_does_not(
    make_host: Make, error: int, stay: bool
) -> None:
    for at in points(make_host, "commit"):
        host, old, new = prepared(make_host, "commit")
        status = attempt(host, "commit", Faults(at, error, stay))
        assert status in (0, 1), at
        assert host.run("boot") == 0
        assert host.seen() == new if status == 0 else host.seen() in (old, new), at
        works_again(host)


@pytest.mark.parametrize("verb", ["begin", "commit", "rollback", "boot"])
def test_a_call_that_fails_to_read_is_never_taken_for_absence(make_host: Make, verb: str) -> None:
    for at in points(make_host, verb, reads=True):
        host, old, new = prepared(make_host, verb)
        faults = Faults(at, errno.EIO, reads=True)
        status = attempt(host, verb, faults)
        about = (at, faults.names[at - 1])
        if verb == "begin":
            assert host.seen() == old, about
            change(host.root)
            new = host.seen()
            assert host.run("boot") == 0
            assert host.seen() == (old if status == 0 else new), about
        elif verb == "commit":
            assert host.run("boot") == 0
            assert host.seen() == new if status == 0 else host.seen() in (old, new), about
        else:
            assert host.seen() == old if status == 0 else True, about
            file_wise_old_or_new(host, old, new)
            if status != 0:
                assert host.run(verb) == 0
            assert host.seen() == old, about
        works_again(host)


def test_no_call_at_all_is_made_to_the_disk_by_a_boot_without_a_transaction(host: HostTree) -> None:
    counted = Faults()
    assert attempt(host, "boot", counted) == 0
    assert host.run("begin") == 0
    assert host.run("commit") == 0
    assert attempt(host, "boot", counted) == 0
    assert counted.names == []


def test_a_file_that_nobody_changed_keeps_inode_and_times(host: HostTree) -> None:
    def stamp(path: Path) -> tuple[int, int, int]:
        status = path.lstat()
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns

    untouched = [host.scripts / "rule6-eth0", host.scripts / "ifcfg-link", host.root / "etc/hosts"]
    before = [stamp(path) for path in untouched]
    assert host.run("begin") == 0
    assert [stamp(path) for path in untouched] == before
    change(host.root)
    assert host.run("rollback") == 0
    assert [stamp(path) for path in untouched] == before

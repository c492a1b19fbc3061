"""The example initscript: what it promises in its head, tried on a tree of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from initscript import ODD, Host, change, identity, make

VERBS = ("change-begin", "change-commit", "change-rollback")  # `start` is the last of them, if anything is open


@pytest.fixture(params=["ifcfg", "ifupdown"])
def host(request: pytest.FixtureRequest, tmp_path: Path, need: Callable[[str], str]) -> Host:
    """A host on which nothing has begun."""
    need("flock")
    made = Host(tmp_path / "root", request.param)
    make(made)
    made.install()
    return made


@pytest.fixture
def plain(tmp_path: Path, need: Callable[[str], str]) -> Host:
    """The same of one family, for what is slow."""
    need("flock")
    made = Host(tmp_path / "root")
    make(made)
    made.install()
    return made


def begun(host: Host) -> Host:
    """The same host in the middle of a change."""
    assert host("change-begin") == 0, host.said
    change(host)
    return host


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_shell_gives_back_exactly_what_was_saved(host: Host, need: Callable[[str], str], shell: str) -> None:
    host.shell = (need(shell), "sh") if shell == "busybox" else (need(shell),)
    old = host.picture()
    assert host("change-begin") == 0, host.said
    assert host.said == ""
    change(host)
    assert host("status") == 0
    assert host("change-rollback") == 0, host.said
    assert host.picture() == old
    assert host("status") == 3
    assert list(host.state.iterdir()) == []


@pytest.mark.root
def test_owners_and_attributes_of_the_system_come_back(host: Host) -> None:
    path = host.file("ifcfg-eth0")
    os.chown(path, 12, 34)
    os.setxattr(path, "security.note", b"label")
    acl = bytes.fromhex("0200000001000600ffffffff020004002200000004000400ffffffff10000400ffffffff20000000ffffffff")
    os.setxattr(path, "system.posix_acl_access", acl)
    old = host.picture()
    begun(host)
    path.unlink()
    path.write_text("ADDRESS=192.0.2.99\n")
    assert host("change-rollback") == 0, host.said
    assert host.picture() == old


def test_begin_and_rollback_leave_alone_what_nobody_touched(host: Host) -> None:
    before = {path: identity(path) for path in host.folder.iterdir()}
    assert host("change-begin") == 0
    assert {path: identity(path) for path in host.folder.iterdir()} == before
    host.file("ifcfg-eth0").write_text("ADDRESS=192.0.2.11\n")
    assert host("change-rollback") == 0
    touched = [path for path, was in before.items() if identity(path) != was]
    assert touched == [host.file("ifcfg-eth0")]


def test_what_a_link_points_to_is_never_written(plain: Host) -> None:
    begun(plain)
    assert plain("change-rollback") == 0
    assert (plain.root / "etc/ourapp.conf").read_text() == "colour = red\n"
    assert not plain.file("keys-eth0").is_symlink()


def test_a_folder_in_the_place_of_a_file_is_put_aside(plain: Host) -> None:
    assert plain("change-begin") == 0
    plain.file("ifcfg-eth0").unlink()
    plain.file("ifcfg-eth0").mkdir()
    plain.file("ifcfg-eth0/precious").write_text("data\n")
    assert plain("change-rollback") == 0, plain.said
    assert plain.file("ifcfg-eth0").is_file()
    assert [path.read_text() for path in plain.folder.glob("ifcfg-eth0.*.orig/precious")] == ["data\n"]


def test_a_folder_that_was_not_there_is_gone_again_and_one_that_was_is_back(host: Host) -> None:
    kept = host.folder.with_name("kept")
    host.folder.rename(kept)
    assert host("change-begin") == 0, host.said
    host.folder.mkdir()
    host.file("ifcfg-eth5").write_text("new\n")
    assert host("change-rollback") == 0, host.said
    assert not host.folder.exists()
    kept.rename(host.folder)
    assert host("change-begin") == 0, host.said
    shutil.rmtree(host.folder)
    assert host("change-rollback") == 0, host.said
    assert host.file(ODD).read_text().startswith(f"# {ODD!r}")


def test_a_second_begin_is_refused_and_the_first_one_counts(plain: Host) -> None:
    old = plain.picture()
    begun(plain)
    assert plain("change-begin") == 199
    assert plain("change-rollback") == 0
    assert plain.picture() == old


@pytest.mark.parametrize("verb", ["change-commit", "change-rollback"])
def test_nothing_begun_is_nothing_to_end(plain: Host, verb: str) -> None:
    old = plain.picture()
    assert plain(verb) == 199
    assert plain.picture() == old
    assert not plain.state.exists()


def test_a_committed_change_stays_at_every_boot(plain: Host) -> None:
    new = begun(plain).picture()
    assert plain("change-commit") == 0, plain.said
    assert plain("start") == 0
    assert plain.picture() == new
    assert plain("change-begin") == 0


def test_a_boot_takes_an_unconfirmed_change_back(host: Host) -> None:
    old = host.picture()
    begun(host)
    assert host("start") == 0, host.said
    assert host.picture() == old
    assert host("status") == 3


def test_the_usual_boot_writes_nothing(plain: Host, tmp_path: Path) -> None:
    plain.install(tmp_path / "stubs")
    assert plain("start") == 0
    assert {line.split()[1] for line in (tmp_path / "stubs/log").read_text().splitlines()} == {"stat"}
    assert not plain.state.exists()


def test_an_unknown_verb_is_a_mistake_of_the_caller(plain: Host) -> None:
    assert plain("change-everything") == 2
    assert plain.said.startswith("usage: ")


def test_a_list_that_is_not_whole_restores_nothing_and_keeps_the_snapshot(plain: Host) -> None:
    new = begun(plain).picture()
    for path in plain.state.rglob(".list"):
        path.write_text("")
    assert plain("change-rollback") == 1
    assert "damaged" in plain.said
    assert plain.picture() == new
    assert plain("status") == 0


def test_a_hundred_changes_leave_nothing_behind(plain: Host) -> None:
    for number in range(25):
        assert plain("change-begin") == 0
        plain.file("ifcfg-eth0").write_text(f"ADDRESS=192.0.2.{number}\n")
        assert plain("change-commit" if number % 2 else "change-rollback") == 0
    assert list(plain.state.rglob("*")) == []


@pytest.mark.parametrize(("first", "second"), [("change-begin",) * 2, ("change-commit", "change-rollback")])
def test_of_two_verbs_at_once_exactly_one_says_done(plain: Host, first: str, second: str) -> None:
    for _ in range(8):
        old = plain.picture()
        if first == "change-commit":
            assert plain("change-begin") == 0
            plain.file("ifcfg-eth0").write_text("ADDRESS=192.0.2.11\n")
        new = plain.picture()
        both = [plain.start(first), plain.start(second)]
        done = [process.wait(60) == 0 for process in both]
        for process in both:
            process.communicate()
        assert sum(done) == 1
        if first == "change-commit":
            assert plain.picture() == (new if done[0] else old)
            plain.file("ifcfg-eth0").write_text("ADDRESS=192.0.2.10\n")
        else:
            assert plain("change-rollback") == 0


def test_a_lock_is_not_waited_for_and_dies_with_its_holder(plain: Host, need: Callable[[str], str]) -> None:
    begun(plain)
    holder = subprocess.Popen(
        [need("flock"), str(plain.state), "sh", "-c", "echo held; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    assert plain("change-rollback") == 13
    holder.kill()
    holder.communicate()
    assert plain("change-rollback") == 0, plain.said


def programs(host: Host, verb: str, where: Path) -> int:
    """How many programs a verb starts, on a copy."""
    return len(_at(host, verb, where, "NOTHING", 0)[1])


def _at(host: Host, verb: str, where: Path, what: str, number: int) -> tuple[Host, list[str], int]:
    """A copy of the host on which a verb was stopped, or failed, at a number: it, the log, the exit status."""
    shutil.rmtree(where, ignore_errors=True)
    subprocess.run(["cp", "-a", host.root, where], check=True)
    copy = Host(where, host.family)
    stubs = where / "stubs"
    copy.install(stubs)
    status = copy(verb, **{what: str(number)})
    log = (stubs / "log").read_text().splitlines()
    copy.install()
    return copy, log, status


@pytest.mark.parametrize("what", ["STOP_BEFORE", "STOP_AFTER"])
@pytest.mark.parametrize("verb", VERBS)
def test_it_may_be_killed_before_or_after_any_program(plain: Host, tmp_path: Path, verb: str, what: str) -> None:
    old = plain.picture()
    new = old if verb == "change-begin" else begun(plain).picture()
    count = programs(plain, verb, tmp_path / "copy")
    for number in range(1, count + 1):
        copy, log, status = _at(plain, verb, tmp_path / "copy", what, number)
        if status == 0:
            continue  # a program in a pipe of its own, after which nothing was left to do
        if number % 2 or verb != "change-rollback":
            assert copy("start") == 0, (log[-1:], copy.said)
        else:
            assert copy("change-rollback") in (0, 199), (log[-1:], copy.said)
        left = copy.picture()
        assert left == old or (verb == "change-commit" and left == new), log[-1:]
        if number % 4 == 0:
            assert copy("start") == 0
            assert copy("change-begin") == 0
            copy.file("ifcfg-eth0").unlink()
            assert copy("change-rollback") == 0
            assert copy.picture() == left


@pytest.mark.parametrize("verb", VERBS)
def test_it_says_done_only_if_it_is_whichever_program_fails(plain: Host, tmp_path: Path, verb: str) -> None:
    old = plain.picture()
    new = old if verb == "change-begin" else begun(plain).picture()
    for number in range(1, programs(plain, verb, tmp_path / "copy") + 1):
        copy, log, status = _at(plain, verb, tmp_path / "copy", "FAIL_AT", number)
        left = copy.picture()
        if verb == "change-begin":
            assert left == old, log
            assert copy("status") == (0 if status == 0 else 3), log
        elif verb == "change-commit":
            assert left == new, log
            assert copy("start") == 0
            assert copy.picture() == (new if status == 0 else old), log
        else:
            assert left == old or status != 0, log
            assert copy("change-rollback") in (0, 199)
            assert copy.picture() == old, log

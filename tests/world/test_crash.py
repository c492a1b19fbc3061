"""`sim crash` finds what a mechanism loses when it is stopped, names the point, and finds nothing where nothing is."""

from __future__ import annotations

import os
import pty
import select
import time
from pathlib import Path

import pytest
from crashes import DATA, TWO_FILES, Crashed, crash
from made_up import command, sim

NAIVE = DATA / "naive/naive.yaml"
SAVED = "/var/lib/networking-config/saved"
CHANGED_FILE = Path(__file__).parents[2] / "scenarios/files/changed-file.sim.yaml"


def saver(name: str) -> Path:
    return DATA / f"saver/{name}.yaml"


def naive(verb: str, *options: str) -> Crashed:
    return crash(NAIVE, verb, *options, scenario=CHANGED_FILE)


# -- a naive mechanism -----------------------------------------------------------------------------------------------


def test_a_copy_into_the_final_folder_loses_the_files_that_are_not_copied_yet() -> None:
    done = naive("begin")
    assert done.status == 1
    first = done.json["bad"][0]
    assert (first["syscall"], first["path"], first["left"]) == ("openat", f"{SAVED}/ifcfg-eth0", "lost")
    assert first["process"].startswith("cp -p ")
    assert "ifcfg-eth0: is missing, was a regular file" in first["problems"][0]
    assert f"{first['at']} lost  before openat {SAVED}/ifcfg-eth0" in done.text
    assert f"--at {first['at']}" in done.text, "the command that repeats the first bad point"
    assert done.bad("at") == sorted(done.bad("at"))


def test_a_removal_of_the_snapshot_file_by_file_loses_a_committed_change() -> None:
    done = naive("commit")
    assert done.status == 1
    assert ("unlinkat", SAVED, "lost") in done.bad("syscall", "path", "left")


@pytest.mark.parametrize("verb", ["rollback", "boot"])
def test_a_saved_copy_that_is_deleted_once_restored_is_missed_by_the_next_rollback(verb: str) -> None:
    done = naive(verb)
    assert done.status == 1
    assert ("rmdir", SAVED, "lost") in done.bad("syscall", "path", "left")


def test_one_point_can_be_struck_again_alone() -> None:
    whole = naive("commit")
    (bad,) = whole.json["bad"]
    alone = naive("commit", "--at", str(bad["at"]))
    assert (alone.status, alone.json["points"]) == (1, whole.json["points"])
    assert alone.json["bad"] == [bad]
    good = naive("commit", "--at", str(bad["at"] - 1))
    assert (good.status, good.json["bad"]) == (0, [])


# -- power cuts ------------------------------------------------------------------------------------------------------


def test_what_is_renamed_but_not_on_the_medium_survives_a_crash() -> None:
    done = crash(saver("hasty"), "begin")
    assert (done.status, done.json["bad"]) == (0, [])
    assert done.json["points"] > 5


@pytest.mark.root
@pytest.mark.parametrize("verb", ["begin", "rollback"])
def test_what_is_renamed_but_not_on_the_medium_is_lost_in_a_power_cut(verb: str) -> None:
    done = crash(saver("hasty"), verb, "--disk", "lose-unsynced")
    assert done.status == 1
    after = done.json["points"] + 1
    assert (after, "return", "lost") in done.bad("at", "syscall", "left"), "the verb had said that it was done"


@pytest.mark.root
@pytest.mark.parametrize("verb", ["begin", "rollback", "commit"])
def test_what_is_on_the_medium_before_its_rename_survives_both(verb: str) -> None:
    for disk in ("keep", "lose-unsynced"):
        done = crash(saver("durable"), verb, "--disk", disk, "--sample", "4")
        assert (done.status, done.json["bad"], done.json["unknown"]) == (0, [], []), done.text


# -- the same every time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pipes", "background"])
def test_processes_side_by_side_give_the_same_result_every_time(name: str) -> None:
    runs = [crash(saver(name), "begin", "-n", workers).json for workers in ("1", "2")]
    assert [(run["verdict"], run["unknown"], run["bad"]) for run in runs] == [("pass", [], [])] * 2
    assert len({run["points"] for run in runs}) == 1


def test_one_worker_and_two_find_the_same_bad_points() -> None:
    keys = ("at", "syscall", "path", "left", "process", "problems")
    one, two = (naive("begin", "-n", workers) for workers in ("1", "2"))
    assert one.bad(*keys) == two.bad(*keys) != []


# -- what cannot be told, or is not asked ----------------------------------------------------------------------------


def test_a_verb_without_any_point_is_unknown_and_no_pass() -> None:
    done = crash("none", "begin")
    assert (done.status, done.json["verdict"], done.json["points"]) == (3, "unknown", 0)
    assert "no point to stop it at" in done.text


def test_a_verb_that_is_not_offered_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "half.yaml").write_text("mechanism: 1\nname: half\nbegin: mkdir /var/lib/half\nstack: ifcfg\n"
                                        "rollback: rmdir /var/lib/half\nstate: []\ncovers: [files]\n")  # fmt: skip
    done = crash(tmp_path / "half.yaml", "commit")
    assert (done.status, done.json) == (4, {})
    assert "half does not offer 'commit'" in done.text


def test_a_scenario_without_a_change_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "quiet.sim.yaml"
    path.write_text("sim: 1\nname: quiet\ntopology: one-lan\nsteps: [{reboot: server}]\n")
    done = crash("snapcore", "begin", scenario=path)
    assert done.status == 2
    assert "needs a scenario with a begin and a change after it" in done.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--verb", "begin", "--keep"), "--keep needs --at N"),
        (("--verb", "begin", "--keep", "--at", "1"), "needs a terminal"),
        (("--verb", "load"), "'load' is not one of"),
        (("--verb", "begin", "--disk", "keep", "--set", "disk=lose-unsynced"), "the disk is set twice"),
    ],
)
def test_options_that_make_no_sense_are_bad_input(options: tuple[str, ...], said: str) -> None:
    done = sim("crash", str(TWO_FILES), *options)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_point_that_is_not_there_is_bad_input() -> None:
    done = naive("commit", "--at", "99")
    assert done.status == 2
    assert "99: there are" in done.text


# -- the machine that is left ----------------------------------------------------------------------------------------


def test_the_machine_is_left_standing_with_a_shell_on_the_terminal() -> None:
    process, terminal = pty.fork()
    if process == 0:
        words = command("crash", str(CHANGED_FILE), "--mechanism", str(NAIVE), "--verb", "commit")
        os.execv(words[0], [*words, "--at", "2", "--keep"])
    said, asked, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline and select.select([terminal], [], [], 60)[0]:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # EIO: it has ended
            break
        if not asked and b"\n# " in said:
            os.write(terminal, b"echo $(hostname) has $(ls /etc/sysconfig/network-scripts | wc -l); tty\nexit\n")
            asked = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1
    text = said.decode(errors="replace")
    assert "this shell is in it" in text
    assert "server has 0" in text, "the file that the boot has removed"
    assert "/dev/pts/0" in text

"""What a user of the five verbs notices."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from snapcore_hosts import HostTree, change

import snapcore
from snapcore import cli, files

Program = Callable[..., "subprocess.CompletedProcess[str]"]


def test_rollback_gives_everything_back_and_deletes_what_was_added(host: HostTree) -> None:
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_commit_keeps_the_new_configuration_through_boots(host: HostTree) -> None:
    assert host.run("begin") == 0
    change(host.root)
    new = host.seen()
    assert host.run("commit") == 0
    assert host.run("boot") == 0
    assert host.seen() == new


def test_boot_undoes_what_nobody_committed(host: HostTree) -> None:
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    assert host.run("boot") == 0
    assert host.seen() == old
    assert host.run("status") == 3


@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_ending_no_transaction_is_refused_and_makes_no_store(host: HostTree, verb: str) -> None:
    old = host.seen()
    assert host.run(verb) == 199
    assert host.seen() == old
    assert not host.store.exists()


def test_a_second_begin_is_refused_and_names_the_holder(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    old = host.seen()
    assert host.run("begin", "--label", "first") == 0
    change(host.root)
    assert host.run("begin") == 199
    message = capsys.readouterr().err
    assert "'first'" in message and f"uid {os.getuid()}" in message and message.count("\n") == 1
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_a_configuration_without_its_folders_is_saved_as_absent(host: HostTree) -> None:
    subprocess.run(["rm", "-r", host.root / "etc/sysconfig"], check=True)
    old = host.seen()
    assert host.run("begin") == 0
    host.scripts.mkdir(parents=True)
    (host.scripts / "ifcfg-eth0").write_text("NEW=1\n")
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_a_folder_swapped_for_a_link_becomes_a_folder_again_and_nothing_is_written_through_it(host: HostTree) -> None:
    old = {path: value for path, value in host.seen().items() if b"/ifcfg-folder" not in path}
    foreign = host.root / "foreign"
    foreign.mkdir()
    (foreign / "ifcfg-eth0").write_text("FOREIGN=1\n")
    assert host.run("begin") == 0
    for name in ("ifup-eth", "ifcfg-pipe"):  # what is no configuration can't be given back
        old.pop(os.fsencode(f"/etc/sysconfig/network-scripts/{name}"))
    subprocess.run(["rm", "-r", host.scripts], check=True)
    host.scripts.symlink_to("../../foreign")
    assert host.run("rollback") == 0
    now = host.seen()
    assert (foreign / "ifcfg-eth0").read_text() == "FOREIGN=1\n"
    assert os.listdir(foreign) == ["ifcfg-eth0"]
    assert {path: value for path, value in now.items() if not path.startswith(b"/foreign")} == old


def test_a_folder_of_links_is_followed_once_at_begin(host: HostTree) -> None:
    host.scripts.rename(host.root / "etc/elsewhere")
    host.scripts.symlink_to("../elsewhere")
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_an_edit_through_a_link_is_undone_where_it_was_made(host: HostTree) -> None:
    (host.root / "etc/real").mkdir()
    (host.root / "etc/real/eth9").write_text("OLD=1\n")
    (host.scripts / "ifcfg-eth9").symlink_to("../../real/eth9")
    old = host.seen()
    assert host.run("begin") == 0
    (host.scripts / "ifcfg-eth9").write_text("NEW=1\n")
    assert (host.root / "etc/real/eth9").read_text() == "NEW=1\n"
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_a_folder_in_the_place_of_a_saved_file_makes_way(host: HostTree) -> None:
    old = host.seen()
    assert host.run("begin") == 0
    (host.scripts / "ifcfg-eth0").unlink()
    (host.scripts / "ifcfg-eth0").mkdir()
    (host.scripts / "ifcfg-eth0/inside").write_text("x")
    assert host.run("rollback") == 0
    assert host.seen() == old


def test_pipes_and_folders_whose_names_fit_stop_nothing(host: HostTree) -> None:
    assert host.run("begin") == 0
    os.mkfifo(host.scripts / "ifcfg-late-pipe")
    (host.scripts / "ifcfg-late-folder").mkdir()
    (host.scripts / "ifcfg-eth0").write_text("NEW=1\n")
    assert host.run("rollback") == 0
    assert (host.scripts / "ifcfg-late-pipe").is_fifo()
    assert (host.scripts / "ifcfg-late-folder").is_dir()
    assert (host.scripts / "ifcfg-eth0").read_text() == "NAME=ifcfg-eth0\n"


def test_a_restored_file_is_newer_than_the_change_so_that_daemons_see_it(host: HostTree) -> None:
    path = host.scripts / "ifcfg-eth0"
    assert host.run("begin") == 0
    path.write_text("NEW=1\n")
    changed = path.stat().st_mtime_ns
    assert host.run("rollback") == 0
    assert path.stat().st_mtime_ns >= changed


def test_what_a_rollback_discards_is_kept_in_a_bounded_archive(host: HostTree) -> None:
    for number in range(15):
        assert host.run("begin") == 0
        (host.scripts / "ifcfg-eth0").write_text(f"DISCARDED={number}\n")
        assert host.run("rollback") == 0
    kept = sorted((host.store / "archive").iterdir())
    assert [path.name for path in kept] == [f"{number:06}" for number in range(6, 16)]
    newest = kept[-1] / "files/etc/sysconfig/network-scripts/ifcfg-eth0"
    assert newest.read_text() == "DISCARDED=14\n"


def test_a_mode_that_only_the_owner_has_is_never_wider_while_a_file_is_restored(host: HostTree) -> None:
    assert host.run("begin") == 0
    secret = host.store / "snapshots/transaction-000001/files/etc/sysconfig/network-scripts/keys-eth0"
    assert secret.stat().st_mode & 0o077 == 0
    assert host.store.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["open", "manifest.json", "ifcfg-eth0"])
def test_a_torn_store_is_refused_by_name_and_nothing_is_touched(
    host: HostTree, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run("begin") == 0
    change(host.root)
    new = host.seen()
    path = next(path for path in host.store.rglob(what) if path.is_file())
    path.write_bytes(path.read_bytes()[:-4])
    assert host.run("rollback") == 12
    assert host.run("boot") == 12
    assert what in capsys.readouterr().err
    assert host.seen() == new


def test_a_store_of_a_newer_version_is_refused(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("begin") == 0
    document = json.loads((host.store / "open").read_text())
    (host.store / "open").write_text(json.dumps({**document, "format": 2}))
    assert host.run("rollback") == 12
    assert "version 2" in capsys.readouterr().err


def test_the_token_opens_what_asks_for_it(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("begin", "--json", "--require-token") == 0
    token = json.loads(capsys.readouterr().out)["token"]
    assert host.run("commit") == 16
    assert host.run("commit", "--token", token + "x") == 16
    assert token not in (host.store / "open").read_text()
    assert host.run("commit", "--token", token) == 0


def test_status_says_who_holds_what_since_when(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("status", "--json") == 3
    assert json.loads(capsys.readouterr().out) == {"version": 1, "status": 3, "state": "none"}
    assert host.run("begin", "--label", "up\ngrade") == 0
    capsys.readouterr()
    assert host.run("status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "open" and told["transaction"]["label"] == "up\ngrade"
    assert told["transaction"]["owner"]["uid"] == os.getuid()
    assert host.run("status") == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_after_three_failed_boots_status_is_loud(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("begin") == 0
    change(host.root)
    real = os.rename

    def broken(source: object, target: object, **folders: int) -> None:
        if b"snapcore" in os.fsencode(source):  # type: ignore[arg-type]  # a name
            raise OSError(30, "Read-only file system")
        real(source, target, **folders)  # type: ignore[arg-type]  # a name

    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "rename", broken)
            assert host.run("boot") == 11
    assert host.run("status") == 0
    assert "ATTENTION" in capsys.readouterr().out
    assert host.run("boot") == 0


def test_of_commit_and_rollback_at_once_one_wins_wholly(host: HostTree, program: Program) -> None:
    old = host.seen()
    for _ in range(6):
        assert host.run("begin") == 0
        change(host.root)
        new = host.seen()
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(program, verb, "--root", str(host.root)) for verb in ("commit", "rollback")]
            commit, rollback = (each.result().returncode for each in both)
        assert {commit, rollback} == {0, 199}
        assert host.run("boot") == 0
        assert host.seen() == (new if commit == 0 else old)
        if commit == 0:
            return
    # The commit never won: that is luck, not a failure.


def test_names_survive_a_boot_in_another_locale(host: HostTree, program: Program) -> None:
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    start = "import sys; sys.path.insert(0, sys.argv[1]); from snapcore.cli import main; sys.exit(main(sys.argv[2:]))"
    where = str(Path(cli.__file__).parents[1])
    done = subprocess.run(
        ["python3", "-c", start, where, "boot", "--root", str(host.root)],
        env={"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert host.seen() == old


def test_a_reader_that_hangs_up_changes_no_exit_status(host: HostTree) -> None:
    where = str(Path(cli.__file__).parents[1])
    start = f"import sys; sys.path.insert(0, {where!r}); from snapcore.cli import main; sys.exit(main())"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        ["python3", "-I", "-c", start, "begin", "--root", str(host.root)], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["comit"], "did you mean commit?"),
        (["begin", "--lable", "x"], "did you mean --label?"),
        (["begin", "--label"], "needs a value"),
        (["commit", "now"], "takes no arguments"),
        ([], "which verb?"),
        (["begin", "--profile", "ifcgf"], "ifcfg"),
        (["status", "--json=yes"], "takes no value"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_version_and_help_need_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"snapcore {snapcore.__version__}\n"
    assert cli.main(["--help"]) == 0
    assert "rollback" in capsys.readouterr().out
    assert cli.main(["begin", "--help"]) == 0
    assert "--label" in capsys.readouterr().out


def test_options_stand_before_or_after_the_verb(host: HostTree) -> None:
    assert cli.main(["--root", str(host.root), "begin"]) == 0
    assert cli.main(["commit", f"--root={host.root}"]) == 0


def test_a_root_that_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["begin", "--root", str(tmp_path / "none")]) == 1
    assert "none: No such file" in capsys.readouterr().err


def test_without_syncfs_each_file_is_synced_by_itself(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_syncfs", [None])
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd))[1])
    old = host.seen()
    assert host.run("begin") == 0
    saved = host.store / "snapshots/transaction-000001/files/etc/sysconfig/network-scripts/ifcfg-eth0"
    assert saved.stat().st_ino in synced and host.store.parent.stat().st_ino in synced
    change(host.root)
    assert host.run("rollback") == 0
    assert (host.scripts / "ifcfg-eth0").stat().st_ino in synced
    assert host.seen() == old

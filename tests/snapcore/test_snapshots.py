"""Named snapshots, announced changes, and what outsiders changed."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable

import pytest
from snapcore_faults import ERRORS, Faults, Killed, injected, sampled
from snapcore_hosts import HostTree, change

Make = Callable[[], HostTree]


def test_a_loaded_snapshot_is_the_identical_tree(host: HostTree) -> None:
    old = host.seen()
    assert host.run("save", "good") == 0
    assert host.run("diff", "good") == 0
    change(host.root)
    assert host.run("diff", "good") == 1
    assert host.run("load", "good") == 0
    assert host.seen() == old
    assert host.run("status") == 3


def test_a_load_inside_a_transaction_is_undone_with_it(host: HostTree) -> None:
    assert host.run("save", "good") == 0
    change(host.root)
    changed = host.seen()
    assert host.run("begin") == 0
    assert host.run("load", "good") == 0
    assert host.run("status") == 0
    assert host.run("rollback") == 0
    assert host.seen() == changed


def ready_to_load(make: Make) -> tuple[HostTree, dict, dict]:
    host = make()
    good = host.seen()
    assert host.run("save", "good") == 0
    change(host.root)
    return host, good, host.seen()


def count(make: Make, *words: str) -> list[int]:
    host, _, _ = ready_to_load(make)
    with injected(Faults()) as counted:
        assert host.run(*words) == 0
    return sampled(counted.count, 15)


def test_load_killed_at_any_call_is_undone_or_done_at_the_next_boot(make_host: Make) -> None:
    for at in count(make_host, "load", "good"):
        host, good, before = ready_to_load(make_host)
        with pytest.raises(Killed), injected(Faults(at)):
            host.run("load", "good")
        assert host.run("boot") == 0
        assert host.seen() in (good, before), at
        assert host.run("load", "good") == 0
        assert host.seen() == good


@pytest.mark.parametrize("stay", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_load_with_a_failing_call_is_whole_or_nothing(make_host: Make, error: int, stay: bool) -> None:
    for at in count(make_host, "load", "good"):
        host, good, before = ready_to_load(make_host)
        with injected(Faults(at, error, stay)):
            status = host.run("load", "good")
        assert status in (0, 1, 10, 11, 15)
        if status == 0:
            assert host.seen() == good, at
        assert host.run("boot") == 0
        assert host.seen() in ((good,) if status == 0 else (good, before)), at


@pytest.mark.parametrize("words", [("save", "other"), ("delete", "good"), ("prune", "--keep", "0")])
def test_a_killed_or_failing_call_on_snapshots_leaves_them_whole_or_gone(
    make_host: Make, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (0, errno.ENOSPC):
        for at in count(make_host, *words):
            host, _, before = ready_to_load(make_host)
            try:
                with injected(Faults(at, error)):
                    host.run(*words)
            except Killed:
                pass
            assert host.seen() == before
            capsys.readouterr()
            assert host.run("list", "--json") == 0
            for snapshot in json.loads(capsys.readouterr().out)["snapshots"]:
                assert host.run("diff", snapshot["name"]) in (0, 1)
            assert host.run("prune", "--keep", "0") == 0
            assert host.run("save", words[1] if words[0] != "prune" else "again") == 0


def test_prune_keeps_the_newest_and_never_the_clock_decides(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("c", "a", "b"):
        assert host.run("save", name) == 0
    capsys.readouterr()
    assert host.run("prune", "--keep", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == ["c"]
    assert host.run("delete", "a") == 0
    assert host.run("delete", "a") == 1
    assert "no snapshot 'a'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", ".hidden", "../escape", "a/b", "transaction-000001", "x" * 101, "a b", "-x"])
def test_a_name_that_would_be_a_trap_is_refused(host: HostTree, name: str) -> None:
    assert host.run("save", "--", name) == 2 if name else True
    assert not (host.store / "snapshots").exists()


def test_a_saved_name_is_never_replaced(host: HostTree) -> None:
    assert host.run("save", "good") == 0
    assert host.run("save", "good") == 1


def test_the_transactions_own_snapshot_can_be_shown_but_not_deleted(
    host: HostTree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run("begin") == 0
    assert host.run("delete", "transaction-000001") == 2
    capsys.readouterr()
    assert host.run("show", "--json") == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert entries["/etc/sysconfig/network-scripts/ifcfg-link"]["target"] == "ifcfg-real"


def test_plan_names_the_interfaces_that_a_rollback_would_concern(
    host: HostTree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run("begin") == 0
    (host.scripts / "route-eth0").write_text("default via 192.0.2.9\n")
    (host.scripts / "ifcfg-eth7").write_text("x\n")
    before = host.seen()
    capsys.readouterr()
    assert host.run("plan", "--json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["action"], step["interface"]) for step in steps] == [("restore", "eth0"), ("remove", "eth7")]
    assert host.seen() == before


def test_tracking_saves_a_file_when_its_change_is_announced(host: HostTree) -> None:
    before = host.seen()
    assert host.run("begin", "--track") == 0
    path = host.scripts / "ifcfg-eth0"
    assert host.run("touch", str(path)) == 0
    path.write_text("NEW=1\n")
    assert host.run("touch", str(path), str(host.root / "etc/hosts"), str(host.scripts / "ifcfg-new")) == 0
    (host.root / "etc/hosts").write_text("changed\n")
    (host.scripts / "ifcfg-new").write_text("NEW=1\n")
    (host.scripts / "ifcfg-eth1").write_text("NOT ANNOUNCED\n")
    assert host.run("rollback") == 0
    now = host.seen()
    assert now.pop(b"/etc/sysconfig/network-scripts/ifcfg-eth1") != before.pop(
        b"/etc/sysconfig/network-scripts/ifcfg-eth1"
    )
    for side in (now, before):
        side.pop(b"/etc/sysconfig/network-scripts/ifcfg-hard")
    assert now == before


def test_touch_killed_at_any_call_has_saved_all_or_nothing(make_host: Make) -> None:
    def ready() -> HostTree:
        host = make_host()
        assert host.run("begin", "--track") == 0
        assert host.run("touch", str(host.scripts / "ifcfg-eth0")) == 0
        (host.scripts / "ifcfg-eth0").write_text("NEW=1\n")
        return host

    host = ready()
    with injected(Faults()) as counted:
        assert host.run("touch", str(host.scripts / "route-eth0")) == 0
    for error in (0, errno.ENOSPC, errno.EIO):
        for at in sampled(counted.count, 15):
            host = ready()
            try:
                with injected(Faults(at, error)):
                    host.run("touch", str(host.scripts / "route-eth0"))
            except Killed:
                pass
            assert host.run("touch", str(host.scripts / "route-eth0")) == 0
            (host.scripts / "route-eth0").write_text("NEW=1\n")
            assert host.run("rollback") == 0, at
            assert (host.scripts / "route-eth0").read_text() == "NAME=route-eth0\n"
            assert (host.scripts / "ifcfg-eth0").read_text() == "NAME=ifcfg-eth0\n"


@pytest.mark.parametrize(
    ("policy", "status", "theirs"), [("restore", 0, False), ("keep-external", 0, True), ("fail", 14, True)]
)
def test_changes_that_nobody_announced_follow_the_policy(
    host: HostTree, policy: str, status: int, theirs: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run("begin", "--policy", policy) == 0
    assert host.run("touch", str(host.scripts / "ifcfg-eth0")) == 0
    (host.scripts / "ifcfg-eth0").write_text("MINE=1\n")
    (host.scripts / "ifcfg-eth1").write_text("THEIRS=1\n")
    assert host.run("rollback") == status
    assert ((host.scripts / "ifcfg-eth1").read_text() == "THEIRS=1\n") == theirs
    assert ((host.scripts / "ifcfg-eth0").read_text() == "MINE=1\n") == (policy == "fail")
    assert "ifcfg-eth1" in capsys.readouterr().err
    if policy == "fail":
        assert host.run("rollback", "--force") == 0
        assert (host.scripts / "ifcfg-eth1").read_text() == "NAME=ifcfg-eth1\n"


def test_without_an_announcement_all_changes_are_the_transactions_and_it_says_so(
    host: HostTree, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    assert host.run("begin", "--policy", "keep-external") == 0
    change(host.root)
    assert host.run("rollback") == 0
    assert host.seen() == old
    assert "no change was announced" in capsys.readouterr().err


def test_touch_without_a_transaction_is_refused(host: HostTree) -> None:
    assert host.run("touch", str(host.scripts / "ifcfg-eth0")) == 199
    assert host.run("begin") == 0
    assert host.run("commit") == 0
    assert host.run("touch", str(host.scripts / "ifcfg-eth0")) == 199

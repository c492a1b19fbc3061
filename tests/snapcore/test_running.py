"""The rollback of a running host: what is asked of the stack and of the kernel, in which order, and what fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from snapcore_hosts import HostTree

from snapcore import kernel, netstate, running, stack
from snapcore.errors import SnapcoreError
from snapcore.netstate import Address, Change, Link, State
from snapcore.stack import Config, Ran

UP = Link("", up=True)
OLD = netstate.empty()._replace(
    links={"eth0": UP, "eth1": UP, "eth2": Link("")},
    addresses={name: (Address("v4", f"192.0.2.{n}/24"),) for n, name in enumerate(("eth0", "eth1", "eth2"), 1)},
)


def changed(*names: str) -> State:
    return OLD._replace(addresses={**OLD.addresses, **dict.fromkeys(names, ())})


class World:
    """A kernel and a stack that do what a test says; `log` is all that was asked of them, in order."""

    def __init__(self, host: HostTree) -> None:
        self.host = host
        self.log: list[str] = []
        self.state = OLD
        self.left: list[Change] = []
        self.broken = ""
        self.status = 0
        self.on_command: Callable[[str], None] = lambda words: None

    # as snapcore.kernel

    def missing(self) -> str:
        return ""

    def read(self, nft: bool = False) -> State:
        if self.broken:
            raise SnapcoreError(self.broken)
        return self.state

    def restore(
        self, old: State, new_devices: str, external_ports: str, only: Sequence[str]
    ) -> tuple[list[Change], list[str]]:
        self.log.append(f"kernel {new_devices} {external_ports}{''.join(f' {name}' for name in only)}")
        if not self.left:
            self.state = old
        return self.left, []

    # as snapcore.stack.run

    def run(self, words: Sequence[str], wait: bool = True) -> Ran:
        said = " ".join([Path(words[0]).name, *words[1:]]) + ("" if wait else " &")
        content = self.text(f"ifcfg-{words[-1]}")
        self.log.append(f"{said} ({content.strip() or 'no file'})")
        self.on_command(said)
        return Ran(tuple(words), self.status if wait else None, detached=not wait)

    def text(self, name: str) -> str:
        path = self.host.scripts / name
        return path.read_text() if path.exists() else ""

    def write(self, name: str, text: str) -> None:
        (self.host.scripts / name).write_text(text)


@pytest.fixture
def world(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(host)
    for name in ("missing", "read", "restore"):
        monkeypatch.setattr(kernel, name, getattr(made, name))
    monkeypatch.setattr(stack, "found", lambda families: [stack.Ifcfg(made.run)])
    monkeypatch.setattr(stack, "program", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(running, "SETTLE_S", 0.01)
    return made


def begin(host: HostTree, *options: str) -> None:
    assert host.run("begin", "--kernel", *options) == 0


def test_what_is_new_goes_while_its_file_is_there_and_what_changed_comes_back_by_its_old_file(
    host: HostTree, world: World
) -> None:
    old = world.text("ifcfg-eth0").strip()
    begin(host)
    world.write("ifcfg-br0", "TYPE=Bridge")
    world.write("ifcfg-eth0", "BRIDGE=br0")
    world.state = changed("eth0")._replace(links={**OLD.links, "br0": Link("bridge", up=True)})
    assert host.run("rollback") == 0
    assert world.log == [
        "ifdown eth0 (BRIDGE=br0)",
        "ifdown br0 (TYPE=Bridge)",
        f"ifup eth0 ({old})",
        "kernel delete keep",
    ]
    assert host.run("status") == 3


def test_an_interface_whose_file_did_not_change_is_not_asked_for(host: HostTree, world: World) -> None:
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0", "eth1")
    assert host.run("rollback") == 0
    assert [line for line in world.log if "eth1" in line] == []


def test_a_file_that_was_written_and_never_applied_bounces_nothing(host: HostTree, world: World) -> None:
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    assert host.run("rollback") == 0
    assert world.log == []


def test_where_a_dhcp_client_came_or_went_the_kernel_alone_does_not_tell(host: HostTree, world: World) -> None:
    begin(host)
    world.write("ifcfg-eth0", "BOOTPROTO=dhcp\n")
    assert host.run("rollback") == 0
    assert [line.split(" (")[0] for line in world.log] == ["ifdown eth0", "ifup eth0", "kernel delete keep"]


def test_what_asks_for_a_lease_comes_after_the_static_parts_and_nobody_waits(host: HostTree, world: World) -> None:
    world.write("ifcfg-eth0", "BOOTPROTO=dhcp\n")
    begin(host)
    for name in ("eth0", "eth1"):
        world.write(f"ifcfg-{name}", "IPADDR=192.0.2.99\n")
    world.state = changed("eth0", "eth1")
    assert host.run("rollback") == 0
    asked = [line.split(" (")[0] for line in world.log]
    assert asked == ["ifdown eth1", "ifdown eth0", "ifup eth1", "kernel delete keep", "ifup eth0 &"]


def test_an_interface_that_was_down_at_begin_stays_down(host: HostTree, world: World) -> None:
    world.write("ifcfg-eth2", "NAME=eth2\n")
    begin(host)
    world.write("ifcfg-eth2", "NAME=new\n")
    world.state = changed("eth2")
    assert host.run("rollback") == 0
    assert [line.split(" (")[0] for line in world.log] == ["ifdown eth2", "kernel delete keep"]


def test_an_interface_whose_file_is_gone_comes_back_with_its_file(host: HostTree, world: World) -> None:
    old = world.text("ifcfg-eth0").strip()
    begin(host)
    for name in ("ifcfg-eth0", "route-eth0", "rule-eth0", "route6-eth0", "rule6-eth0", "keys-eth0"):
        (host.scripts / name).unlink()
    world.state = changed("eth0")
    assert host.run("rollback") == 0
    assert world.log == [f"ifup eth0 ({old})", "kernel delete keep"]


class Manager(stack.NetworkManager):
    """Has at work what a test says."""

    def __init__(self, runner: Callable[..., Ran]) -> None:
        super().__init__(runner)
        self.at_work = {"eth0": "1-2"}

    def active(self) -> dict[str, str]:
        return dict(self.at_work)


@pytest.fixture
def manager(host: HostTree, world: World, monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager(world.run)
    monkeypatch.setattr(stack, "found", lambda families: [made])
    folder = host.root / "etc/NetworkManager/system-connections"
    folder.mkdir(parents=True)
    for name, key in (("office", "1-2"), ("other", "3-4")):
        (folder / name).write_text(f"[connection]\nid={name}\nuuid={key}\ninterface-name=eth0\n")
    return made


def asked_of_nmcli(world: World) -> list[str]:
    return [line.split(" (")[0] for line in world.log if line.startswith("nmcli")]


def test_a_profile_that_a_daemon_has_at_work_no_longer_is_activated_again(
    host: HostTree, world: World, manager: Manager
) -> None:
    begin(host)
    manager.at_work = {"eth0": "3-4", "eth1": "3-4"}
    assert host.run("rollback") == 0
    assert asked_of_nmcli(world) == [
        "nmcli connection down uuid 3-4",  # it is on eth1, where nothing was
        "nmcli connection reload",
        "nmcli --wait 5 connection up uuid 1-2",
    ]


def test_a_daemon_that_a_killed_rollback_did_not_tell_is_told_by_the_next_one(
    host: HostTree, world: World, manager: Manager
) -> None:
    begin(host)
    path = host.root / "etc/NetworkManager/system-connections/other"
    path.write_text(path.read_text() + "[ipv4]\nmethod=disabled\n")

    class Killed(BaseException):
        pass

    def die(words: str) -> None:
        raise Killed

    world.on_command = die
    world.state = changed("eth1")
    with pytest.raises(Killed):
        host.run("rollback")
    world.on_command = lambda words: None
    world.log.clear()
    assert host.run("rollback") == 0
    assert asked_of_nmcli(world) == ["nmcli connection reload"]


@pytest.mark.parametrize("given", [("begin",), ("rollback",)])
def test_without_the_stack_netlink_does_it_all(host: HostTree, world: World, given: tuple[str]) -> None:
    options = {verb: ["--strategy", "netlink"] if verb in given else [] for verb in ("begin", "rollback")}
    begin(host, *options["begin"])
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    assert host.run("rollback", *options["rollback"]) == 0
    assert world.log == ["kernel delete keep"]


def test_bounce_all_takes_everything_down_and_up(host: HostTree, world: World) -> None:
    begin(host, "--strategy", "bounce-all")
    world.write("ifcfg-eth0", "NAME=other\n")
    assert host.run("rollback") == 0
    asked = [line.split(" (")[0] for line in world.log]
    assert asked == ["ifdown eth1", "ifdown eth0", "ifup eth0", "ifup eth1", "kernel delete keep"]


def test_options_of_begin_are_kept_and_those_of_rollback_win(host: HostTree, world: World) -> None:
    begin(host, "--new-devices", "keep", "--external-ports", "restore", "--only", "eth0")
    world.state = changed("eth0")
    assert host.run("rollback", "--new-devices", "delete") == 0
    assert world.log == ["kernel delete restore eth0"]


def test_a_word_that_is_none_is_refused_before_anything_is_saved(host: HostTree, world: World) -> None:
    assert host.run("begin", "--strategy", "maximal") == 2
    assert host.run("begin", "--kernel", "--no-kernel") == 2
    assert not host.store.exists()


def test_a_transaction_about_one_interface_leaves_the_files_of_others(host: HostTree, world: World) -> None:
    begin(host, "--only", "eth0")
    world.write("ifcfg-eth0", "NAME=other\n")
    world.write("ifcfg-eth1", "NAME=mine\n")
    world.write("ifcfg-eth7", "NAME=new\n")
    world.state = changed("eth0", "eth1")
    assert host.run("rollback") == 0
    assert (world.text("ifcfg-eth0"), world.text("ifcfg-eth1"), world.text("ifcfg-eth7")) == (
        "NAME=ifcfg-eth0\n",
        "NAME=mine\n",
        "NAME=new\n",
    )
    assert [line for line in world.log if "eth1" in line or "eth7" in line] == []


def test_a_failing_command_is_told_and_the_rest_is_done(
    host: HostTree, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    world.status = 4
    assert host.run("rollback") == 0  # the kernel is as it was: that is what counts
    said = capsys.readouterr().err
    assert "ifdown eth0: exit status 4" in said and "ifup eth0: exit status 4" in said


def test_what_remains_is_listed_and_the_next_rollback_goes_on(
    host: HostTree, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    world.left = [Change("eth0", "link", "MTU 1400, was 1500")]
    capsys.readouterr()
    assert host.run("rollback", "--json") == 11
    said = capsys.readouterr()
    assert "eth0: MTU 1400, was 1500" in said.err
    assert json.loads(said.out)["differences"][0] == "eth0: MTU 1400, was 1500"
    assert host.seen() == old  # the files are given back all the same
    assert host.run("commit") == 199
    world.left = []
    assert host.run("rollback") == 0
    assert host.run("status") == 3


def test_a_file_that_cannot_be_given_back_does_not_keep_the_kernel_from_it(
    host: HostTree, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snapcore import restore
    from snapcore.errors import Incomplete

    begin(host)
    world.state = changed("eth1")

    def fail(*_: object) -> None:
        raise Incomplete("what differs:", ["changed: /etc/hosts (content)"])

    monkeypatch.setattr(restore, "give_back", fail)
    assert host.run("rollback") == 11
    assert world.log == ["kernel delete keep"]
    monkeypatch.undo()


def test_a_kernel_that_does_not_say_how_it_is_makes_the_rollback_incomplete(
    host: HostTree, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.seen()
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.broken = "netlink: no buffer space"
    assert host.run("rollback") == 11
    assert "netlink: no buffer space" in capsys.readouterr().err
    assert host.seen() == old
    world.broken = ""
    assert host.run("rollback") == 0


def test_what_was_taken_down_before_a_kill_is_brought_up_by_the_next_rollback(host: HostTree, world: World) -> None:
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")

    class Killed(BaseException):
        pass

    def die(words: str) -> None:
        if words == "ifup eth0":
            raise Killed

    world.on_command = die
    with pytest.raises(Killed):
        host.run("rollback")
    world.on_command = lambda words: None
    world.log.clear()
    world.state = OLD  # somebody may have repaired the kernel meanwhile: the stack still counts it as down
    assert host.run("rollback") == 0
    assert "ifup eth0 (NAME=ifcfg-eth0)" in world.log


def test_at_a_boot_only_files_are_given_back(host: HostTree, world: World) -> None:
    old = host.seen()
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    assert host.run("boot") == 0
    assert (world.log, host.seen()) == ([], old)


@pytest.mark.parametrize("how", ["another boot", "--no-kernel"])
def test_after_another_boot_or_when_told_so_only_files_are_given_back(
    host: HostTree, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    if how == "another boot":
        monkeypatch.setattr(running, "instance", lambda: "another")
    assert host.run("rollback", *([how] if how.startswith("--") else [])) == 0
    assert world.log == []
    assert ("the files alone" in capsys.readouterr().err) == (how == "another boot")


def test_a_damaged_state_of_the_kernel_touches_nothing(host: HostTree, world: World) -> None:
    begin(host)
    world.write("ifcfg-eth0", "NAME=other\n")
    saved = next(host.store.glob("snapshots/*/kernel.json"))
    saved.write_bytes(saved.read_bytes().replace(b"192.0.2.1/", b"192.0.2.9/"))
    assert host.run("rollback") == 12
    assert world.text("ifcfg-eth0") == "NAME=other\n"
    assert host.run("rollback", "--no-kernel") == 0


def test_diff_and_plan_say_in_words_what_a_rollback_would_do(
    host: HostTree, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(host)
    assert host.run("diff") == 0
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    capsys.readouterr()
    assert host.run("diff") == 1
    assert capsys.readouterr().out.splitlines() == [
        "changed: /etc/sysconfig/network-scripts/ifcfg-eth0 (content)",
        "eth0: address 192.0.2.1/24 is gone",
    ]
    assert host.run("plan") == 0
    assert capsys.readouterr().out.splitlines() == [
        "take-down: eth0 (ifcfg)",
        "restore: /etc/sysconfig/network-scripts/ifcfg-eth0 (eth0)",
        "bring-up: eth0 (ifcfg)",
        "repair: eth0: add 192.0.2.1/24",
    ]
    assert host.run("plan", "--strategy", "netlink", "--json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["action"], step["interface"]) for step in steps] == [("restore", "eth0"), ("repair", "eth0")]
    assert world.log == []


def test_without_pyroute2_begin_says_so_where_nobody_asked_and_fails_where_somebody_did(
    host: HostTree, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel, "missing", lambda: "pyroute2 is not installed")
    assert host.run("begin", "--kernel") == 15
    assert "pyroute2 is not installed" in capsys.readouterr().err
    assert host.run("status") == 3


def test_in_another_tree_the_kernel_is_left_alone(host: HostTree, world: World) -> None:
    assert host.run("begin") == 0
    world.write("ifcfg-eth0", "NAME=other\n")
    world.state = changed("eth0")
    assert host.run("rollback") == 0
    assert world.log == []


def test_a_record_of_an_older_snapcore_is_still_read(host: HostTree) -> None:
    from snapcore.state import seal

    assert host.run("begin") == 0
    path = host.store / "open"
    plain = json.loads(path.read_text())
    for field in ("kernel_sha256", "instance", "strategy", "new_devices", "external_ports", "only", "nft", "bounced"):
        del plain[field]
    path.write_bytes(seal(plain))
    assert host.run("status") == 0
    assert host.run("rollback") == 0


def test_the_stack_is_asked_once_for_what_stands_together() -> None:
    assert running.Step("bring-up", Config("eth0", "eth0"), stack.Ifupdown()).key == "ifupdown:eth0"

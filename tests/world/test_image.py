"""A machine whose /var is a disk of its own, and what a power cut leaves of both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from laboratory import PORTS, in_sandbox

from sim.faults.supervisor import disk_mounts
from sim.planned import MachinePlan, Params, Plan
from sim.scenario import FileText, Mechanism, Network
from sim.world import image, sandbox
from sim.world.image import ImageDisk
from sim.world.lab import Lab
from sim.world.machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.world]
COMMAND_S = 60.0
ETC, VAR = "/etc/sysconfig/network-scripts/ifcfg-eth9", "/var/lib/note"


@pytest.fixture(autouse=True)
def loop_devices(need: Callable[[str], str]) -> None:
    """Without them there is no such disk."""
    need("mkfs.ext4")
    why = image.missing()
    if why is not None:
        pytest.skip(why)


class Apart:
    """A server with /var on a disk of its own, switched on."""

    def __init__(self, apart: bool = True) -> None:
        files = {"/etc/hosts": FileText(b"127.0.0.1 localhost\n"), "/var/lib/there": FileText(b"from the start\n")}
        plan = Plan(
            scenario="apart",
            file="apart",
            params=Params("ifcfg", "none", disk="lose-unsynced", apart=apart),
            networks={name: Network(name) for name in ("lan1", "lan2")},
            machines={"server": MachinePlan("server", PORTS, "ifcfg", files)},
            flows=(),
            steps=(),
            mechanism=Mechanism("none"),
            subject="server",
        )
        self.lab = Lab(plan, lambda machine: {}, lambda name, message: None)
        self.lab.boot_all()

    @property
    def machine(self) -> Machine:
        """The server."""
        return self.lab.machines["server"]

    @property
    def disk(self) -> ImageDisk:
        """Its disk."""
        disk = self.machine.disk
        assert isinstance(disk, ImageDisk)
        return disk

    def run(self, command: str) -> str:
        """The output of a command that must not fail."""
        done = self.machine.run(command, COMMAND_S)
        assert done.status == 0, f"{command}: {done.status}: {done.output}"
        return done.output

    def cut(self, journal: bool = False) -> None:
        """The power is cut, and comes back."""
        where = f"{sandbox.SCRATCH}/cut"
        self.disk.image_now(where, journal)
        self.machine.crash()
        self.disk.put(where)
        self.lab.boot("server")

    def there(self, *paths: str) -> list[bool]:
        """Whether the machine sees files with something in them."""
        return [self.machine.run(f"test -s {path}", COMMAND_S).status == 0 for path in paths]


def apart(work: Callable[[Apart], Any]) -> Any:
    """What `work` returns, done with such a server in a sandbox of its own."""

    def inside() -> Any:
        server = Apart()
        try:
            return work(server)
        finally:
            server.lab.close()

    return in_sandbox(inside)


@pytest.mark.parametrize("synced", [ETC, VAR])
@pytest.mark.parametrize("how", ["sync", "sync -f"])
def test_what_was_synced_on_one_of_both_survives_only_there(synced: str, how: str) -> None:
    def work(server: Apart) -> list[bool]:
        server.run(f"echo a > {ETC}; echo b > {VAR}; {how} {synced} {os.path.dirname(synced)}")
        server.cut()
        return server.there(ETC, VAR)

    assert apart(work) == [synced == ETC, synced == VAR]


def test_an_fsync_of_another_file_writes_out_both_journals() -> None:
    def work(server: Apart) -> list[bool]:
        server.run(f"mkdir {ETC}.d {VAR}.d")
        server.cut(journal=True)
        return [server.machine.run(f"test -d {path}.d", COMMAND_S).status == 0 for path in (ETC, VAR)]

    assert apart(work) == [True, True]


def test_no_rename_and_no_link_leads_from_one_to_the_other() -> None:
    def work(server: Apart) -> list[str]:
        move = "import os, sys; os.rename(sys.argv[1], sys.argv[2])"
        said = []
        for one, other in ((ETC, VAR), (VAR, ETC)):
            server.run(f"echo x > {one}")
            said.append(server.machine.run(f"python3 -c '{move}' {one} {other}", COMMAND_S).output)
            said.append(server.machine.run(f"ln {one} {other}.link", COMMAND_S).output)
        return said

    for text in apart(work):
        assert "ross-device" in text


def test_a_kept_disk_comes_back_whole() -> None:
    def work(server: Apart) -> tuple[list[bool], list[bool]]:
        where = f"{sandbox.SCRATCH}/kept"
        server.run(f"echo a > {ETC}; echo b > {VAR}; sync")
        server.disk.keep(where)
        server.run(f"rm {ETC} {VAR}; sync")
        before = server.there(ETC, VAR)
        server.machine.crash()
        server.disk.restore(where)
        server.lab.boot("server")
        return before, server.there(ETC, VAR)

    assert apart(work) == ([False, False], [True, True])


def test_files_of_the_scenario_and_those_written_while_it_is_off_are_on_the_right_one() -> None:
    def work(server: Apart) -> list[Any]:
        server.machine.crash()
        server.disk.write(VAR, FileText(b"written while it was off\n"))
        places = [os.stat(server.disk.upper_path(path)).st_dev for path in ("/etc/hosts", VAR, "/var/lib/there")]
        walked = [path for path, _, _ in server.disk.walk("/var/lib")]
        server.lab.boot("server")
        return [places, walked, server.run(f"cat {VAR} /var/lib/there")]

    places, walked, text = apart(work)
    assert places[0] != places[1] == places[2]
    assert {VAR, "/var/lib/there"} <= set(walked)
    assert text == "written while it was off\nfrom the start\n"


def test_a_fingerprint_sees_both() -> None:
    def work(server: Apart) -> list[str]:
        server.machine.crash()
        found = [server.disk.fingerprint(exact=True), server.disk.fingerprint(exact=True)]
        for path in (ETC, VAR):
            server.disk.write(path, FileText(b"x"))
            found.append(server.disk.fingerprint(exact=True))
        return found

    same, again, etc, both = apart(work)
    assert same == again
    assert len({same, etc, both}) == 3


def test_both_are_full_and_both_are_read_only_when_the_disk_is() -> None:
    def work(server: Apart) -> list[list[int]]:
        write = [f"head -c 100000 /dev/zero > {path} && sync -f {path}" for path in (ETC, VAR)]
        found = []
        for full, writable in ((True, True), (False, False), (False, True)):
            server.machine.crash()
            server.disk.fill(full)
            server.disk.writable = writable
            server.lab.boot("server")
            found.append([server.machine.run(command, COMMAND_S).status for command in write])
        return found

    full, read_only, normal = apart(work)
    assert 0 not in (*full, *read_only)
    assert normal == [0, 0]


def test_calls_on_either_count_as_changes_of_the_disk() -> None:
    def work(server: Apart) -> tuple[int, int]:
        counted = len(disk_mounts(server.machine.running.process))
        overlays = server.run("grep -c ' - overlay ' /proc/self/mountinfo")
        return counted, int(overlays)

    assert apart(work) == (2, 2)


def test_one_image_is_enough_where_nobody_asks_for_two() -> None:
    def work() -> int:
        server = Apart(apart=False)
        try:
            return len(server.disk.images)
        finally:
            server.lab.close()

    assert in_sandbox(work) == 1

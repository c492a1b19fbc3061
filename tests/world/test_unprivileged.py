"""An ordinary user gets the same verdicts as root; what it truly cannot do is a skip that names what is missing.

Run by root, these tests become such a user (no name, no groups, no home); run by anybody else, they are that user.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up import MADE_UP, Said
from missing import lacking
from test_leaks import all_ended, processes_of

from sim.world.disk import Disk

pytestmark = pytest.mark.world
ROOT = os.geteuid() == 0
UID = 54321
SCENARIOS = Path(__file__).parents[2] / "scenarios"
OWNER = """
sim: 1
name: owner
topology: one-lan
steps:
  - begin: server
  - write: {on: server, file: /etc/sysconfig/network-scripts/ifcfg-eth1, text: "DEVICE=eth1\\n", owner: "7:7"}
  - rollback: server
"""


class User:
    """An ordinary user with a folder of its own, a Python that it can run, and perhaps a name."""

    def __init__(self, home: Path, python: Sequence[str], uid: int) -> None:
        self.home = home
        self.python = python
        change = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "env"]
        self.become = change if ROOT else []  # `env`, as setpriv itself starts even what only root can
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/nonexistent",
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(SCENARIOS.parent), *(p for p in sys.path if p.endswith("-packages"))]),
        }

    def words(self, *options: str) -> list[str]:
        """The words by which this user starts `sim`."""
        return [*self.become, *self.python, "-m", "sim", *options]

    def write(self, text: str) -> str:
        """A scenario file of this user."""
        path = self.home / "x.sim.yaml"
        path.write_text(text)
        return str(path)

    def run(self, *options: str, before: Sequence[str] = (), umask: int = 0o077) -> Said:
        """`sim run`, with the words of a program `before` it that root runs."""
        words = [*before, *self.words("run", *options, "--json", "-")]
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=600, env=self.environment, cwd="/", umask=umask
        )
        results: list[dict[str, Any]] = json.loads(done.stdout)["results"] if done.stdout else []
        return Said(done.returncode, done.stderr, results)


@pytest.fixture
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """The user; skipped, or failed with CI=true, where no Python can be run by all users."""
    home = Path("/var/tmp" if ROOT else tmp_path_factory.getbasetemp()) / f"sim-user-{os.getpid()}"
    home.mkdir(exist_ok=True)
    if ROOT:
        os.chown(home, UID, UID)
        home.chmod(0o700)
    version = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, version):
        one = User(home, [python, "-P", "-B"], UID)
        if not subprocess.run(one.words("--version"), env=one.environment, capture_output=True).returncode:
            yield one
            shutil.rmtree(home)
            return
    lacking("no ordinary user can run this Python")


def outcomes(said: Said) -> list[tuple[str, str | None, str]]:
    return [(one["scenario"], one["params"]["recover"], one["verdict"]) for one in said.results]


def test_verdicts_are_those_of_root(user: User, sim_run: Callable[..., Said]) -> None:
    files = [SCENARIOS / "files/changed-file.sim.yaml", SCENARIOS / "boot/broken-after-reboot.sim.yaml"]
    for file in files:
        options = ("--recover", "rollback,reboot,timeout")
        mine, theirs = user.run(str(file), *options), sim_run(file, *options)
        assert outcomes(mine) == outcomes(theirs), mine.text + theirs.text
        assert set(mine.verdicts) == {"pass"}, mine.text
        assert mine.status == 0


def test_nothing_that_was_not_restored_is_called_pass(user: User) -> None:
    said = user.run(user.write(MADE_UP), "--mechanism", "none")
    assert said.verdicts == ["fail"] * 3
    assert said.status == 1


def test_the_findings_say_that_this_was_no_root(user: User, tmp_path: Path) -> None:
    journal = user.home / "journal"
    user.run(user.write(MADE_UP), "--recover", "rollback", "--journal", str(journal))
    first = json.loads(next(journal.iterdir()).read_text().splitlines()[0])
    assert first["facts"]["user"] == "unprivileged"


def test_files_of_other_owners_are_a_skip_by_name(user: User) -> None:
    said = user.run(user.write(OWNER))
    assert said.verdicts == ["skip"]
    assert "files of the owner 7:7 need root, or a range in /etc/subuid" in said.text
    assert said.status == 4


@pytest.mark.root
def test_a_range_of_subordinate_ids_gives_other_owners(user: User, need: Callable[[str], str]) -> None:
    need("newuidmap")
    ranges = user.home / "ranges"
    ranges.write_text("nobody:100000:65536\n")
    named = User(user.home, user.python, 65534)
    named.become = [word for word in named.become if word != "--no-new-privs"]  # newuidmap is set-uid
    os.chown(user.home, 65534, 65534)
    script = f'mount --bind {ranges} /etc/subuid && mount --bind {ranges} /etc/subgid && exec "$@"'
    said = named.run(named.write(OWNER), before=["unshare", "--mount", "sh", "-c", script, "sh"])
    assert said.verdicts == ["pass"], said.text


def test_what_belongs_to_the_real_root_is_a_skip_by_name(user: User) -> None:
    said = user.run(
        user.write("""
sim: 1
name: foreign
topology: one-lan
steps:
  - write: {on: server, file: /usr/share/doc/x, text: x}
""")
    )
    assert said.verdicts == ["skip"]
    assert "write needs root" in said.text and "/usr/share/doc/x" in said.text


def test_sigkill_leaves_nothing(user: User) -> None:
    mark = f"SIM_TEST=user-{user.home.name}"
    environment = user.environment | dict([mark.split("=")])
    words = user.words("run", user.write(MADE_UP), "-n", "2", "--journal", str(user.home / "journal"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first run has ended, others are under way
        theirs = processes_of(mark)
        process.send_signal(signal.SIGKILL)
        assert len(theirs) > 2
        assert all_ended(theirs, 10.0), "some process of the run outlived it"
    assert processes_of(mark) == []


# -- machines that do not allow it ------------------------------------------------------------------------------------


@pytest.mark.root
def test_without_user_namespaces_all_is_skipped_with_the_switch_that_forbids_them(user: User) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "$@"'
    user.become = []  # a user namespace of ours has its own switch, and one user
    os.chown(user.home, 0, 0)
    before = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    said = user.run(user.write(MADE_UP), before=before)
    assert set(said.verdicts) == {"skip"}, said.text
    assert "user namespaces are switched off (sysctl user.max_user_namespaces=0)" in said.text
    assert said.status == 4, "nothing could run here"


@pytest.mark.root
def test_in_a_container_that_masks_proc_all_is_skipped(user: User) -> None:
    masked = next(path for path in ("/proc/keys", "/proc/timer_list", "/proc/kcore") if os.path.exists(path))
    before = ["unshare", "--mount", "sh", "-c", f'mount --bind /dev/null {masked} && exec "$@"', "sh"]
    said = user.run(user.write(MADE_UP), before=before)
    assert set(said.verdicts) == {"skip"}, said.text
    assert "mount proc on /proc" in said.text and "a container needs to be privileged" in said.text
    assert said.status == 4


@pytest.mark.root
def test_file_systems_mounted_below_folders_are_no_obstacle(user: User) -> None:
    script = (
        'for at in /var/log /var/lib/misc /usr/local /boot; do [ -d "$at" ] && mount -t tmpfs below "$at"; done;'
        ' mkdir /boot/efi && mount -t tmpfs below /boot/efi; exec "$@"'
    )
    said = user.run(
        user.write("""
sim: 1
name: mounts
topology: one-lan
steps:
  - run: {on: server, command: "test -d /boot && test -e /usr/bin/env && echo kept > /var/lib/kept"}
  - reboot: server
  - run: {on: server, command: cat /var/lib/kept}
  - expect: {output: kept}
"""),
        before=["unshare", "--mount", "sh", "-c", script, "sh"],
    )
    assert said.verdicts == ["pass"], said.text


def test_a_scratch_file_system_without_attributes_serves_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.6 a tmpfs had no user.* attributes: folders are emptied name by name then."""
    root = tmp_path / "root"
    (root / "etc/network/if-up.d").mkdir(parents=True)
    (root / "etc/network/interfaces").write_text("auto lo\n")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no attributes")

    monkeypatch.setattr(os, "setxattr", refuse)
    disk = Disk(str(tmp_path / "disk"), str(root), privileged=False)
    disk.format({})
    upper = Path(disk.upper_path("/etc/network"))
    assert sorted(path.name for path in upper.iterdir()) == ["if-up.d", "interfaces"]
    for path in upper.iterdir():
        status = path.lstat()
        assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0, "a whiteout"

"""Full and read-only disks, real ones."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from snapcore_hosts import HostTree, change, fill

pytestmark = pytest.mark.root  # mounts


@pytest.fixture(params=["ext4", "tmpfs"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostTree]:
    """A host on a disk of 2 MiB of its own."""
    root = tmp_path / "root"
    root.mkdir()
    if request.param == "ext4":
        image = tmp_path / "image"
        with open(image, "wb") as file:
            file.truncate(2 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "1024", image], check=True)
        mount = ["mount", "-o", "loop", image, root]
    else:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", root]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip(f"{request.param} can't be mounted here")
    try:
        fill(root)
        yield HostTree(root)
    finally:
        subprocess.run(["umount", root], check=True)


def fill_up(host: HostTree) -> Path:
    """Leaves no room at all."""
    ballast = host.root / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return ballast


def remount(host: HostTree, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", host.root], check=True)


def test_on_a_full_disk_begin_saves_all_or_arms_nothing(small: HostTree) -> None:
    ballast = fill_up(small)
    old = small.seen()
    status = small.run("begin")
    assert status == 15
    assert small.run("status") == 3
    assert small.run("boot") == 0
    assert small.seen() == old
    ballast.unlink()
    assert small.run("begin") == small.run("commit") == 0


def test_on_a_full_disk_a_rollback_gives_back_what_it_can_and_the_rest_with_room_again(small: HostTree) -> None:
    old = small.seen()
    assert small.run("begin") == 0
    change(small.root)
    for name in ("ifcfg-eth0", "rule-eth0"):
        (small.scripts / name).write_text("x\n")
    ballast = fill_up(small)
    status = small.run("rollback")
    assert status in (0, 11)
    if status == 11:
        assert small.run("boot") in (0, 11)
        ballast.unlink()
        assert small.run("boot") in ((0,) if small.store.joinpath("open").exists() else (0, 199))
    now = small.seen()
    now.pop(b"/ballast", None)
    assert now == old
    assert small.run("status") == 3


def test_on_a_full_disk_a_commit_keeps_the_new(small: HostTree) -> None:
    assert small.run("begin") == 0
    change(small.root)
    new = small.seen()
    ballast = fill_up(small)
    assert small.run("commit") == 0
    ballast.unlink()
    assert small.run("boot") == 0
    assert small.seen() == new


def test_a_read_only_disk_is_refused_and_boots_in_peace(small: HostTree) -> None:
    old = small.seen()
    remount(small, "ro")
    assert small.run("boot") == 0
    assert small.run("status") == 3
    assert small.run("rollback") == small.run("commit") == 199
    assert small.run("begin") == 15
    remount(small, "rw")
    assert small.seen() == old
    assert small.run("begin") == 0
    change(small.root)
    remount(small, "ro")
    assert small.run("status") == 0
    assert small.run("begin") == 199
    assert small.run("commit") == 1
    assert small.run("rollback") == 11
    assert small.run("boot") == 11
    remount(small, "rw")
    assert small.run("boot") == 0
    assert small.seen() == old

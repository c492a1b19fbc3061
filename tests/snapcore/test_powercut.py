"""Power cuts: what each verb leaves on a real ext4 when everything that was not synced is lost.

The disk is mounted so that nothing is flushed out of kindness (`noauto_da_alloc,commit=600`). At each call that
changes the disk its image is taken as it is, and once more after another file was fsynced: that writes the journal,
but not delayed data.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from snapcore_faults import Faults, injected, sampled
from snapcore_hosts import HostTree, change, fill

from snapcore import files

pytestmark = [pytest.mark.root]  # loop devices and mounts


REAL_FSYNC = os.fsync


class Cut(BaseException):
    """The power is gone."""


class CutAt(Faults):
    """Takes the images of the disks at call number `at`."""

    def __init__(self, at: int, cut: Callable[[], None]) -> None:
        super().__init__(at)
        self.cut = cut

    def point(self, name: str) -> None:
        self.count += 1
        if self.at and self.count == self.at:
            self.cut()
            raise Cut
        if self.at and self.count > self.at:
            raise Cut


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class Machine:
    """A host whose root, and if `own_var` also /var, is an ext4 of its own."""

    def __init__(self, folder: Path, own_var: bool) -> None:
        self.folder = folder
        self.mounted: list[Path] = []
        self.root = folder / "root"
        self.images = {"": folder / "root.img"}
        if own_var:
            self.images["var"] = folder / "var.img"
        for image in self.images.values():
            with open(image, "wb") as file:
                file.truncate(8 << 20)
            run("mkfs.ext4", "-q", "-b", "1024", "-O", "^metadata_csum", image)

    def up(self) -> HostTree:
        for place, image in self.images.items():
            where = self.root / place
            where.mkdir(exist_ok=True)
            run("mount", "-o", "loop,noauto_da_alloc,commit=600", image, where)
            self.mounted.append(where)
        return HostTree(self.root)

    def down(self) -> None:
        while self.mounted:
            run("umount", self.mounted.pop())

    def cut(self, another_fsync: bool) -> None:
        for place, image in self.images.items():
            if another_fsync:
                with open(self.root / place / "another", "w") as file:
                    file.write("x")
                    file.flush()
                    REAL_FSYNC(file.fileno())
            run("cp", "--sparse=always", image, f"{image}.cut")

    def after_the_cut(self) -> HostTree:
        self.down()
        for image in self.images.values():
            os.replace(f"{image}.cut", image)
        host = self.up()
        for place in self.images:
            (self.root / place / "another").unlink(missing_ok=True)
        return host


@contextlib.contextmanager
def machine(folder: Path, own_var: bool) -> Iterator[Machine]:
    folder.mkdir()
    made = Machine(folder, own_var)
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(folder)


def seen(host: HostTree) -> dict:
    return {path: value for path, value in host.seen().items() if b"lost+found" not in path}


def start(made: Machine, verb: str) -> tuple[HostTree, dict, dict]:
    host = made.up()
    fill(made.root)
    old = seen(host)
    os.sync()
    if verb != "begin":
        assert host.run("begin") == 0
        change(made.root)
        if verb != "commit":  # the change has reached the disk: there is something to roll back
            os.sync()
    return host, old, seen(host)


@pytest.mark.parametrize("another_fsync", [False, True], ids=["as-it-is", "after-another-fsync"])
@pytest.mark.parametrize("own_var", [False, True], ids=["one-disk", "own-var"])
@pytest.mark.parametrize("verb", ["begin", "commit", "rollback", "boot"])
def test_a_power_cut_at_any_call_is_survived(tmp_path: Path, verb: str, own_var: bool, another_fsync: bool) -> None:
    with machine(tmp_path / "count", own_var) as made:
        host, _, _ = start(made, verb)
        with injected(CutAt(0, lambda: None)) as counted:
            assert host.run(verb) == 0
    for at in sampled(counted.count, 5):
        with machine(tmp_path / "cut", own_var) as made:
            host, old, new = start(made, verb)
            with contextlib.suppress(Cut), injected(CutAt(at, lambda made=made: made.cut(another_fsync))):
                host.run(verb)
            host = made.after_the_cut()
            assert host.run("boot") == 0
            if verb == "commit":
                # What was never synced may be lost: old, then. What `commit` has said to be kept is all there.
                assert seen(host) in (old, new), at
            else:
                assert seen(host) == old, at
            assert host.run("begin") == 0
            assert host.run("commit") == 0


@pytest.mark.parametrize("another_fsync", [False, True], ids=["as-it-is", "after-another-fsync"])
@pytest.mark.parametrize("own_var", [False, True], ids=["one-disk", "own-var"])
@pytest.mark.parametrize("verb", ["begin", "commit", "rollback", "boot"])
def test_what_a_verb_has_said_outlives_a_power_cut(
    tmp_path: Path, verb: str, own_var: bool, another_fsync: bool
) -> None:
    with machine(tmp_path / "cut", own_var) as made:
        host, old, new = start(made, verb)
        assert host.run(verb) == 0
        if verb == "begin":
            change(made.root)
            os.sync()
        made.cut(another_fsync)
        host = made.after_the_cut()
        assert host.run("boot") == 0
        assert seen(host) == (new if verb == "commit" else old)


@pytest.mark.parametrize("another_fsync", [False, True], ids=["as-it-is", "after-another-fsync"])
@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_files_put_back_by_hand_are_durable_when_the_transaction_ends(
    tmp_path: Path, verb: str, another_fsync: bool
) -> None:
    with machine(tmp_path / "cut", False) as made:
        host = made.up()
        fill(made.root)
        os.sync()
        old = seen(host)
        assert host.run("begin") == 0
        path = host.scripts / "ifcfg-eth0"
        text = path.read_text()
        path.write_text("OTHER=1\n")
        os.sync()
        path.write_text(text)
        assert host.run(verb) == 0
        made.cut(another_fsync)
        assert seen(made.after_the_cut()) == old


def test_the_power_cut_is_real_a_rollback_that_never_syncs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machine(tmp_path / "cut", False) as made:
        host, old, _ = start(made, "rollback")
        monkeypatch.setattr(files, "sync_filesystem", lambda fd: True)
        monkeypatch.setattr(os, "fsync", lambda fd: None)
        assert host.run("rollback") == 0
        made.cut(another_fsync=True)
        assert seen(made.after_the_cut()) != old

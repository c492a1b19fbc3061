"""Bytes that flip in the store, sequences of changes that nobody thought of, and a process that swaps folders."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapcore_hosts import SCRIPTS, HostTree, change, fill

from snapcore import state
from snapcore.errors import EXIT_CORRUPT, EXIT_INCOMPLETE, EXIT_WRONG_STATE, Corrupt

FULL = bool(os.environ.get("SNAPCORE_EVERY_POINT"))


@pytest.mark.parametrize("verb", ["rollback", "boot", "commit", "status"])
def test_flipped_bytes_in_the_store_are_refused_or_harmless(
    make_host: Callable[[], HostTree], verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host = make_host()
    old = host.seen()
    assert host.run("begin") == 0
    change(host.root)
    new = host.seen()
    kept = host.root.with_name("kept")
    subprocess.run(["cp", "-a", host.root, kept], check=True)
    targets = [path for path in sorted(host.store.rglob("*")) if path.is_file() and not path.is_symlink()]
    seed = int(os.environ.get("SNAPCORE_SEED", "0")) or random.randrange(1 << 32)
    print(f"SNAPCORE_SEED={seed}")
    dice = random.Random(seed)
    refused = 0
    for number in range(2500 if FULL else 60):
        path = dice.choice(targets) if number else host.store / "open"  # every verb reads that one
        data = bytearray(path.read_bytes())
        whole = bytes(data)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        else:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        status = host.run(verb)
        assert status in (0, EXIT_CORRUPT)
        now = host.seen()
        if status == EXIT_CORRUPT:
            refused += 1
            assert now == new
            path.write_bytes(whole)
        else:
            assert now == (old if verb in ("rollback", "boot") else new)
            shutil.rmtree(host.root)
            subprocess.run(["cp", "-a", kept, host.root], check=True)
    assert verb == "status" or refused > 0
    assert "Traceback" not in capsys.readouterr().err


NAMES = ["ifcfg-eth0", "ifcfg-eth1", "ifcfg-hard", "ifcfg-link", "route-eth0", "ifcfg-new", "keys-new"]
names = st.sampled_from(NAMES)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), names, st.text(max_size=8)),
        st.tuples(st.just("remove"), names),
        st.tuples(st.just("rename"), names, names),
        st.tuples(st.just("chmod"), names, st.integers(0, 0o7777)),
        st.tuples(st.just("chown"), names, st.integers(0, 3)),
        st.tuples(st.just("xattr"), names, st.binary(max_size=8)),
        st.tuples(st.just("link"), names, st.sampled_from(["/etc/hosts", "ifcfg-eth0", "nowhere"])),
        st.tuples(st.just("hard"), names, names),
        st.tuples(st.just("folder"), names),
        st.tuples(st.just("swap"), st.sampled_from(["etc/sysconfig", "etc/sysconfig/network-scripts"])),
        st.tuples(st.just("chmod-folder"), st.integers(0o700, 0o777)),
    ),
    max_size=12,
)


def apply(root: Path, operation: tuple) -> None:
    """Makes one change; what is impossible is left out."""
    verb, *values = operation
    scripts = root / "etc/sysconfig/network-scripts"
    path = scripts / str(values[0])
    try:
        if verb == "write" and not path.is_symlink():
            path.write_text(values[1])
        elif verb == "remove":
            path.unlink()
        elif verb == "rename":
            os.rename(path, scripts / values[1])
        elif verb == "chmod" and not path.is_symlink():
            path.chmod(values[1])
        elif verb == "chown":
            os.chown(path, values[1], values[1], follow_symlinks=False)
        elif verb == "xattr" and not path.is_symlink():
            os.setxattr(path, "user.x", values[1])
        elif verb == "link":
            path.unlink(missing_ok=True)
            path.symlink_to(values[1])
        elif verb == "hard":
            os.link(path, scripts / values[1], follow_symlinks=False)
        elif verb == "folder":
            path.unlink(missing_ok=True)
            path.mkdir()
            (path / "inside").write_text("x")
        elif verb == "swap":
            folder = root / values[0]
            folder.rename(root / "moved")
            folder.symlink_to(root / "moved")
        elif verb == "chmod-folder":
            scripts.chmod(values[0])
    except (OSError, ValueError):
        pass


@given(changes=operations)
@settings(max_examples=1000 if FULL else 60, suppress_health_check=list(HealthCheck))
def test_any_sequence_of_changes_ends_in_the_identical_tree(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple]
) -> None:
    root = tmp_path_factory.mktemp("any") / "root"
    root.mkdir()
    try:
        fill(root)
        for name in ("ifup-eth", "ifcfg-pipe"):  # a swapped folder takes away what is no configuration
            (root / "etc/sysconfig/network-scripts" / name).unlink()
        shutil.rmtree(root / "etc/sysconfig/network-scripts/ifcfg-folder")
        host = HostTree(root)
        old = host.seen()
        assert host.run("begin") == 0
        for operation in changes:
            apply(root, operation)
        scripts = root / "etc/sysconfig/network-scripts"
        late = [f"/{SCRIPTS}/{name}".encode() for name in NAMES if not (scripts / name).is_symlink()
                and (scripts / name).is_dir()]  # fmt: skip
        left_alone = tuple(path for path in late if path not in old)
        assert host.run("rollback") == 0
        now = {path: value for path, value in host.seen().items() if not path.startswith((b"/moved", *left_alone))}
        wanted = dict(old)
        if (root / "moved").exists():  # hard links to what was moved away can't be seen to be gone
            now, wanted = ({p: v[:5] for p, v in side.items()} for side in (now, wanted))
        assert now == wanted
    finally:
        shutil.rmtree(root.parent)


SWAPPER = """
import os, sys
folder, aside, decoy = sys.argv[1:]
print("ready", flush=True)
while True:
    try:
        os.rename(folder, aside); os.symlink(decoy, folder)
        os.unlink(folder); os.rename(aside, folder)
    except OSError:
        try: os.unlink(folder)
        except OSError: pass
        try: os.rename(aside, folder)
        except OSError: pass
"""


def test_who_swaps_folders_for_links_during_a_rollback_gains_nothing(host: HostTree) -> None:
    decoy = host.root / "precious"
    decoy.mkdir()
    for name in ("ifcfg-eth0", "ifcfg-added", "ifcfg-eth1"):
        (decoy / name).write_text("PRECIOUS=1\n")

    def stamps() -> list[tuple[str, int, int]]:
        return sorted((p.name, p.stat().st_ino, p.stat().st_ctime_ns) for p in decoy.iterdir())

    before = stamps()
    for _ in range(10):
        assert host.run("begin") == 0
        (host.scripts / "ifcfg-eth0").write_text("CHANGED=1\n")
        (host.scripts / "ifcfg-added").write_text("ADDED=1\n")
        with subprocess.Popen(
            [sys.executable, "-I", "-c", SWAPPER, host.scripts, host.root / "aside", decoy], stdout=subprocess.PIPE
        ) as swapper:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            try:
                statuses = [host.run("rollback") for _ in range(3)]
            finally:
                swapper.kill()
        assert set(statuses) <= {0, 1, EXIT_INCOMPLETE, EXIT_WRONG_STATE}
        assert stamps() == before
        if host.scripts.is_symlink():
            host.scripts.unlink()
        if (host.root / "aside").exists():
            if host.scripts.exists():
                shutil.rmtree(host.root / "aside")
            else:
                (host.root / "aside").rename(host.scripts)
        if host.run("status") == 0:
            assert host.run("rollback") == 0


@pytest.mark.root
def test_a_mount_point_is_a_difference_that_is_named(host: HostTree, capsys: pytest.CaptureFixture[str]) -> None:
    path = host.root / "etc/sysconfig/network"
    other = host.root / "other"
    other.write_text("OTHER=1\n")
    assert host.run("begin") == 0
    (host.scripts / "ifcfg-eth0").write_text("NEW=1\n")
    subprocess.run(["mount", "--bind", other, path], check=True)
    try:
        assert host.run("rollback") == 11
    finally:
        subprocess.run(["umount", path], check=True)
    assert "/etc/sysconfig/network" in capsys.readouterr().err
    assert (host.scripts / "ifcfg-eth0").read_text() == "NAME=ifcfg-eth0\n"  # the rest is restored
    assert other.read_text() == "OTHER=1\n"
    assert host.run("rollback") == 0


def test_a_document_that_is_nested_too_deeply_is_corrupt() -> None:
    for depth in range(800, 1010):
        with pytest.raises(Corrupt):
            state.unseal(b'{"kind":"k","format":1,"x":' + b"[" * depth + b"]" * depth + b"}", "it", "k")

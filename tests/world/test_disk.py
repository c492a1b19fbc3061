"""A machine's disk lies over a tree that is in use: what happens there later is none of the machine's business."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from laboratory import in_sandbox

from sim.scenario import FileText
from sim.world import kernel
from sim.world.disk import Disk

pytestmark = [pytest.mark.world, pytest.mark.root]
RECORDS = "/var/lib/saver"


def test_records_that_the_tree_gets_later_are_not_the_machines() -> None:
    def work() -> list[tuple[bool, list[str]]]:
        tree, seen, root = Path("/run/tree"), [], Path("/run/root")
        for folder in (tree / "etc", tree / "var/lib", root):
            folder.mkdir(parents=True)
        disk = Disk("/run/disk", str(tree), privileged=True)
        disk.format(
            {"/etc/hostname": FileText(b"server\n")}, (RECORDS, RECORDS, f"{RECORDS}/inside", "/nowhere/at/all")
        )
        (tree / "var/lib/saver").mkdir()
        (tree / "var/lib/saver/open").write_text("the tree's own\n")
        for _ in range(2):  # before and after the machine has a folder of that name
            disk.mount(str(root))
            there = (root / RECORDS[1:]).exists()
            (root / RECORDS[1:]).mkdir(exist_ok=True)
            seen.append((there, os.listdir(root / RECORDS[1:])))
            kernel.umount(str(root), kernel.MNT_DETACH)
        return seen

    assert in_sandbox(work) == [(False, []), (True, [])]

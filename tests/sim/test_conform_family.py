"""Whoever changes files of a machine stays inside of it, wherever a mechanism's links lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.conform.family import Editor, Family

FAMILY = Family(("/etc/net/ifcfg-*",))
KINDS = ["content", "same-time", "removed", "added", "mode", "later"]


def test_a_folder_that_a_mechanism_made_a_link_is_changed_inside_the_machine(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "generations"
    inside = root / outside.relative_to("/")
    inside.mkdir(parents=True)
    outside.mkdir()
    (root / "etc").mkdir()
    (root / "etc/net").symlink_to(outside)  # as the machine sees it: a folder of its own
    editor = Editor(FAMILY, str(root))
    editor.lay_out(KINDS)
    for kind in KINDS:
        editor.change(kind)
    assert not list(outside.iterdir())
    assert (inside / "ifcfg-sim-one").read_text().startswith("# new")
    assert sorted(path.name for path in inside.iterdir()) == [
        "ifcfg-sim-added", "ifcfg-sim-later", "ifcfg-sim-mode", "ifcfg-sim-one", "ifcfg-sim-time",
    ]  # fmt: skip


def test_a_file_that_a_mechanism_made_a_link_is_changed_inside_the_machine(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "saved"
    inside = root / outside.relative_to("/")
    (root / "etc/net").mkdir(parents=True)
    inside.parent.mkdir(parents=True)
    for path in (outside, inside):
        path.write_text("# saved\n")
    (root / "etc/net/ifcfg-sim-one").symlink_to(outside)
    Editor(FAMILY, str(root)).change("content")
    assert outside.read_text() == "# saved\n"
    assert inside.read_text().startswith("# new")


def test_links_that_lead_round_in_circles_are_an_error_of_the_operating_system(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/net").symlink_to("/etc/net")
    with pytest.raises(OSError, match="symbolic links"):
        Editor(FAMILY, str(tmp_path)).change("content")

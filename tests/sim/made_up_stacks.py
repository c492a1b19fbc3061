"""Two tiny stacks, so that the tests of loading and planning need no real one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from sim import stacks
from sim.stacks.base import Stack

FOLDER = {"ifcfg": "/etc/sysconfig/network-scripts", "other": "/etc/other"}


def _stack(name: str) -> Stack:
    def render(config: Mapping[str, Any]) -> dict[str, str]:
        if "bonds" in config:
            raise ValueError("bonds cannot be written")
        kinds = ("ethernets", "bridges", "vlans")
        devices = {key: value for kind in kinds for key, value in config.get(kind, {}).items()}
        return {f"{FOLDER[name]}/ifcfg-{key}": json.dumps(value) + "\n" for key, value in devices.items()}

    pattern = f"{FOLDER[name]}/ifcfg-*"
    missing = None if name == "ifcfg" else "the program other is not installed"
    return Stack(name, (pattern,), (), "start", "stop", "reload", render, missing=lambda: missing)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ifcfg` and `other` are the only stacks; `other` cannot run here."""
    made = {name: _stack(name) for name in FOLDER}
    monkeypatch.setattr(stacks, "names", lambda: sorted(made))
    monkeypatch.setattr(stacks, "get", made.__getitem__)

"""The stacks: one module each. `sim.stacks.base` says what a stack is; `get` finds one by name.

Adding a stack is adding a module here that defines `STACK`; no other file changes.
"""

from __future__ import annotations

import importlib
import pkgutil

from sim.stacks.base import Stack


def names() -> list[str]:
    """The names of all stacks, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base")


def get(name: str) -> Stack:
    """The stack called `name`. Raises KeyError when there is none."""
    if name not in names():
        raise KeyError(name)
    stack = importlib.import_module(f"sim.stacks.{name}").STACK
    assert isinstance(stack, Stack)
    return stack

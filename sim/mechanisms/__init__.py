"""Mechanisms: the software under test, which saves a configuration and gives it back.

A mechanism is a file (`from_file`). One that needs code is a module here with a function `mechanism()`; no other
file changes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sim import grammar, stacks
from sim.document import Mistakes, Node, read
from sim.errors import BadInput
from sim.scenario import FileText, Mechanism
from sim.shape import INVALID, Context

NEEDED = (("timeout", "{seconds}"), ("probe", "{command}"), ("probe", "{probe}"), ("client-loss", "{command}"))
"""What the commands of `offers` must contain."""


def from_file(path: str | Path) -> Mechanism:
    """The mechanism that a file describes. Raises BadInput with every mistake in it."""
    mistakes = Mistakes(str(path))
    node = read(path, mistakes)
    if node is None:
        raise BadInput(mistakes.found)
    context = Context(mistakes, Path(path).parent, {"stack": stacks.names()})
    values = grammar.MECHANISM.check(node, context)
    installed = _install(node, context) if values is not INVALID else {}
    for key, place in NEEDED:
        command = node.get(key) if values is not INVALID else None
        if command is not None and place not in command.text:
            context.add(command, f"{key}: lacks {place}, what the laboratory puts there")
    if mistakes.found:
        raise BadInput(mistakes.found)
    return _made(values, installed, str(path))


def _made(values: dict[str, Any], installed: dict[str, FileText], file: str) -> Mechanism:
    return Mechanism(
        name=values["name"],
        install=installed,
        begin=values.get("begin"),
        commit=values.get("commit"),
        rollback=values.get("rollback"),
        boot=values.get("boot"),
        wrong_state=values.get("wrong-state", 199),
        state=values.get("state", ()),
        stack=values.get("stack"),
        covers=values.get("covers", ("files",)),
        offers=values.get("offers", ()),
        extra={verb: values[verb] for verb in (*grammar.EXTRA, *grammar.GUARDS) if verb in values},
        file=file,
    )


def _install(node: Node, context: Context) -> dict[str, FileText]:
    """What is put on the machine: path -> file, with the replacements made."""
    replacements = node.get("replace")
    pairs = [(key.text.encode(), value.text.encode()) for key, value in replacements.items()] if replacements else []
    installed = {}
    entries = node.get("install")
    for entry in entries.value if entries else ():
        values = grammar.INSTALL.check(entry, context)
        source = context.folder / values["from"]
        try:
            with open(source, "rb") as file:
                content, mode = file.read(), os.fstat(file.fileno()).st_mode & 0o777
        except OSError as error:
            context.add(entry.get("from"), f"'{source}' cannot be read: {error.strerror}")
            continue
        for old, new in pairs:
            content = content.replace(old, new)
        installed[values["to"]] = FileText(content, values.get("mode", mode))
    return installed

"""Reads the files of the ifcfg family below a root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sim.stacks.ifcfg.model import FOLDER, NETWORK, Files
from sim.stacks.ifcfg.parse import Message

_KINDS = ("ifcfg-", "route-", "route6-", "rule-", "rule6-", "keys-")
_TABLES = "/etc/iproute2/rt_tables"


def read_files(root: Path = Path("/")) -> Files:
    """Every file that the stack reads. What is there but cannot be read is a message, never an exception."""
    scripts: dict[str, str] = {}
    messages: list[Message] = []
    folder = _below(root, FOLDER)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []
    except OSError as error:
        names = []
        messages.append(Message(f"cannot be listed: {error.strerror}", FOLDER))
    for name in names:
        if name.startswith(_KINDS):
            text = _text(folder / name, f"{FOLDER}/{name}", messages)
            if text is not None:
                scripts[name] = text
    network = _text(_below(root, NETWORK), NETWORK, messages)
    tables = _text(_below(root, _TABLES), _TABLES, messages)
    return Files(scripts, network, tables or "", tuple(messages))


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _text(path: Path, shown: str, messages: list[Message]) -> str | None:
    """The text of a regular file, or of one that a link leads to; bytes that are no UTF-8 survive as escapes."""
    try:
        # O_NONBLOCK: a pipe whose name fits must not hang the boot
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            messages.append(Message("is a link to nothing; left out", shown))
        return None
    except OSError as error:
        messages.append(Message(f"cannot be opened: {error.strerror}; left out", shown))
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            messages.append(Message("is no regular file; left out", shown, failed=False))
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        messages.append(Message(f"cannot be read: {error.strerror}; left out", shown))
        return None
    finally:
        os.close(descriptor)

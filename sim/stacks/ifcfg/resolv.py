"""/etc/resolv.conf as ifup-post and ifdown-post keep it.

The first interface with DNSn or DOMAIN saves the file as /etc/resolv.conf.save; the last one gives it back. Unlike
RHEL, what is written follows from the saved file and all interfaces that are up, in the order of a boot, so that
it does not depend on the order of events; and a saved file that a crash left behind is what the next boot
starts from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sim.stacks.ifcfg.model import Interface

_NONE_BEFORE = "# there was no /etc/resolv.conf before\n"


def resolv_conf(text: str, interfaces: Iterable[Interface]) -> str:
    """Pure. The file as it is after these interfaces came up, one after another (ifup-post).

    The name servers of the last one that has any replace all others; DOMAIN goes before the search list.
    """
    for one in interfaces:
        if not (one.dns or one.domain) or _has(text, one):
            continue
        lines: list[str] = []
        search: list[str] = []
        for line in text.splitlines():
            words = line.split()
            keyword = words[0] if words else ""
            if keyword == "nameserver" and one.dns:
                continue
            if keyword in ("search", "domain") and one.domain:
                search += [word for word in words[1:] if word not in one.domain.split()]
                continue
            lines.append(line)
        if one.domain:
            lines.append(" ".join(["search", *one.domain.split(), *search]))
        lines += [f"nameserver {server}" for server in one.dns]
        text = "\n".join(lines) + "\n"
    return text


def _has(text: str, one: Interface) -> bool:
    """ifup-post leaves a file alone that names these servers in a row, and DOMAIN in a search line."""
    lines = [line.split() for line in text.splitlines()]
    servers = [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]
    wanted = list(one.dns)
    in_a_row = any(servers[at : at + len(wanted)] == wanted for at in range(len(servers) + 1))
    return in_a_row and (not one.domain or any(w[:1] == ["search"] and one.domain in " ".join(w) for w in lines))


def update(root: Path, interfaces: Iterable[Interface]) -> None:
    """Makes /etc/resolv.conf what these interfaces (all that are up, in the order of a boot) ask for.

    Written only where it differs. Raises OSError.
    """
    path, saved = root / "etc/resolv.conf", root / "etc/resolv.conf.save"
    named = [one for one in interfaces if one.dns or one.domain]
    before = _read(saved)
    if before is None and not named:
        return
    if before is None:
        present = _read(path)
        if present is not None and resolv_conf(present, named) == present:
            return
        before = _NONE_BEFORE if present is None else present
        _write(saved, before)
    base = "" if before == _NONE_BEFORE else before
    if named:
        _write(path, resolv_conf(base, named))
        return
    if before == _NONE_BEFORE:
        path.unlink(missing_ok=True)
    else:
        _write(path, before)
    saved.unlink()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    if _read(path) == text:
        return
    data = text.encode("utf-8", "surrogateescape")
    if path.is_symlink():  # another program's file: its link stays, its text is replaced
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    if path.exists():
        status = path.stat()
        os.chmod(temporary, status.st_mode & 0o7777)
        os.chown(temporary, status.st_uid, status.st_gid)
    else:
        os.chmod(temporary, 0o644)
    os.replace(temporary, path)

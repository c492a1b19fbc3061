"""Compares two states: what must be done to the second to make it the first, and the same in words."""

from __future__ import annotations

from snapcore import state
from snapcore.files import shown
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snapcore.state import Entry

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


class Difference(NamedTuple):
    """One path that is not what it was."""

    path: str
    what: str
    """`added`, `removed` or `changed` since the first state was taken."""
    old: Entry | None
    new: Entry | None
    aspects: tuple[str, ...] = ()
    """Of a change: `type`, `content`, `mode`, `owner`, `xattrs`, `target`, `hard links`."""

    def __str__(self) -> str:
        aspects = f" ({', '.join(self.aspects)})" if self.aspects else ""
        return f"{self.what}: /{shown(self.path)}{aspects}"


def compare(old: dict[str, Entry], new: dict[str, Entry], own_folders: frozenset[str]) -> list[Difference]:
    """What differs in `new`, sorted by path.

    `own_folders`: folders that belong to the configuration, whose mode, owner and attributes count; of the others
    (/etc) only the existence does. Names that are no configuration count only where a saved one must stand.
    """
    groups = _live_groups(old, new)
    found = []
    for path in sorted(old.keys() | new.keys()):
        was, now = old.get(path), new.get(path)
        if was is None:
            if now is not None and now.kind != state.OTHER:
                found.append(Difference(path, ADDED, None, now))
        elif now is None:
            found.append(Difference(path, REMOVED, was, None))
        else:
            aspects = _aspects(was, now, path in own_folders)
            if was.kind == now.kind == state.FILE and was.linked != groups.get(path, ""):
                aspects = (*aspects, "hard links")
            if aspects:
                found.append(Difference(path, CHANGED, was, now, aspects))
    return found


def _aspects(was: Entry, now: Entry, metadata_counts: bool) -> tuple[str, ...]:
    if was.kind != now.kind:
        return ("type",)
    if was.kind == state.FOLDER and not metadata_counts:
        return ()
    pairs = (
        ("content", (was.size, was.sha256), (now.size, now.sha256)),
        ("target", was.target, now.target),
        # The mode of a link means nothing on Linux (symlink(7)).
        ("mode", was.mode if was.kind != state.LINK else 0, now.mode if now.kind != state.LINK else 0),
        ("owner", (was.uid, was.gid), (now.uid, now.gid)),
        ("xattrs", was.xattrs, now.xattrs),
    )
    return tuple(name for name, a, b in pairs if a != b)


def _live_groups(old: dict[str, Entry], new: dict[str, Entry]) -> dict[str, str]:
    """path → first path of its hard links, among the paths that were saved: an added link alters no saved file."""
    members: dict[str, list[str]] = {}
    for path, entry in new.items():
        if entry.linked and path in old:
            members.setdefault(entry.linked, []).append(path)
    return {path: min(group) for group in members.values() if len(group) > 1 for path in group}

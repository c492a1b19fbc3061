"""compare → difference → restore → compare again: gives saved entries back, and says what still differs."""

from __future__ import annotations

from snapcore import state
from snapcore.errors import Incomplete
from snapcore.host import differences
from snapcore.store import ARCHIVE_BYTES
from snapcore.values import NamedTuple
from snapcore.words import now, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from snapcore.diff import Difference
    from snapcore.host import Found, Host, Trouble
    from snapcore.state import Cover, Entry, Snapshot
    from snapcore.store import Store, Writer

ROUNDS = 2
"""How often is compared and restored before what still differs is said: the second round finds room that the first
one has made, and what a single failing call left."""


class GivenBack(NamedTuple):
    """A complete restoration."""

    undone: list[Difference]
    found: Found
    """The configuration as it is now."""


def compare(host: Host, covers: Sequence[Cover], saved: Mapping[str, Entry]) -> tuple[Found, list[Difference]]:
    """What is there now, and how it differs from what was saved. What can't be read counts as different."""
    found = host.scan(covers, known=saved, go_on=True)
    return found, differences(saved, found)


def give_back(
    host: Host,
    covers: Sequence[Cover],
    saved: Mapping[str, Entry],
    content: Callable[[str], bytes],
    before_placing: Callable[[list[Difference]], None],
    spared: frozenset[str] = frozenset(),
) -> GivenBack:
    """Makes the configuration equal to `saved`; `Incomplete` lists what still differs.

    `before_placing` is called once, with the differences, before the first file is put in place. Paths in `spared`
    are left as they are.
    """
    found, left = compare(host, covers, saved)
    undone = left = [each for each in left if each.path not in spared]
    troubles: list[Trouble] = []
    for number in range(ROUNDS):
        host.sweep(found.entries)
        if not left:
            break
        prepare = (lambda: before_placing(undone)) if number == 0 else (lambda: None)
        troubles = host.restore(left, content, prepare)
        found, left = compare(host, covers, saved)
        left = [each for each in left if each.path not in spared and not _is_foreign_folder(each)]
    problems = [str(each) for each in left]
    problems += [str(each) for each in dict.fromkeys((*(troubles if left else ()), *found.troubles))]
    if problems:
        raise Incomplete("what differs:", problems)
    host.sweep(found.entries)
    return GivenBack(undone, found)


def _is_foreign_folder(difference: Difference) -> bool:
    """A folder that was not there when the snapshot was taken and holds what is no configuration."""
    return difference.old is None and difference.new is not None and difference.new.kind == state.FOLDER


def archive(host: Host, store: Store, snapshot: Snapshot, undone: list[Difference]) -> list[str]:
    """Keeps what is about to be discarded, if there is room; notes for the caller."""
    discarded = {each.path: each.new for each in undone if each.new is not None and each.new.kind in ("file", "link")}
    if not discarded or sum(entry.size for entry in discarded.values()) > ARCHIVE_BYTES:
        return []

    def write(writer: Writer) -> None:
        kept: dict[str, Entry] = {}
        for path, entry in discarded.items():
            try:
                folder, name = host.tree.above(path)
                writer.take(path, folder, name)
            except (FileNotFoundError, NotADirectoryError):  # gone meanwhile, or its folder made way already
                continue
            kept[path] = entry
        writer.manifest(snapshot._replace(name="discarded", created=now(), entries=kept))

    try:
        store.archive(write)
    except OSError as error:
        return [f"what was there is not kept in the archive: {reason(error)}"]
    return []

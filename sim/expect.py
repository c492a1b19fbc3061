"""What must be so: predicates over States, flows, files and output, each difference in words. Pure.

Used twice: by the run loop to poll until an `expect` is met, and by `sim.check` to judge. Every function that
compares returns one line for each difference, in the order old, new: empty means equal. Lines say what is seen,
then what was: `eth0: MTU 1400, was 1500`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sim.events import State
from sim.scenario import Family

_LINES_PER_FILE = 12  # a file that is wholly different is not printed wholly
_TYPES = {
    "file": "a regular file",
    "dir": "a folder",
    "symlink": "a symbolic link",
    "fifo": "a named pipe",
    "socket": "a socket",
    "char": "a character device",
    "block": "a block device",
    "absent": "removed",  # of the root tree, which has it
}
_WORDS = {"mtu": "MTU", "mac": "MAC address"}
_FAMILIES = {"v4": ("v4", "net.ipv4."), "v6": ("v6", "net.ipv6.")}


def printable(text: str) -> str:
    """`text` with every character that a terminal would not show as itself written as an escape (also surrogates)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _quoted(value: Any) -> str:
    """A value as it is shown inside a line: text in quotes, anything else in its JSON-like spelling."""
    return f"'{printable(value)}'" if isinstance(value, str) else printable(str(value))


def _plain(value: Any) -> Any:
    """`value` as it would come back from a journal (sequences are lists), so that live and stored States compare."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _union(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(old.keys() | new.keys())


def _value_lines(place: str, old: Any, new: Any) -> list[str]:
    """Differences between two values of any shape; `place` names them."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [line for key in _union(old, new) for line in _value_lines(f"{place} {key}", old.get(key), new.get(key))]
    if old == new:
        return []
    if old is None:
        return [f"{place} {_bare(new)}, was not there"]
    if new is None:
        return [f"{place} is missing, was {_bare(old)}"]
    return [f"{place} {_bare(new)}, was {_bare(old)}"]


def _bare(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else printable(str(value))


# -- files ------------------------------------------------------------------------------------------------------


def without(state: State, paths: Iterable[str]) -> State:
    """`state` without the files at and below `paths`: a mechanism's own records are not compared.

    Folders that lead to them are left out too: who makes /var/lib/NAME may have to make /var/lib.
    """
    kept = [path.rstrip("/") for path in paths]

    def ours(path: str, entry: Mapping[str, Any]) -> bool:
        below = any(path == top or path.startswith(f"{top}/") for top in kept)
        return below or (entry.get("type") == "dir" and any(top.startswith(f"{path}/") for top in kept))

    return {**state, "files": {path: entry for path, entry in state["files"].items() if not ours(path, entry)}}


def file_differences(old: State, new: State) -> list[str]:
    """One line for each difference between the files of two States; empty: equal. Raises KeyError without `files`."""
    before, after = _plain(old["files"]), _plain(new["files"])
    lines = []
    for path in _union(before, after):
        shown = printable(path)
        if path not in after:
            lines.append(f"{shown}: is missing, was {_kind(before[path])}")
        elif path not in before:
            lines.append(f"{shown}: is left over, {_kind(after[path])}")
        else:
            lines += [f"{shown}: {line}" for line in _entry_lines(before[path], after[path])]
    return lines


def litter(old: State, between: Sequence[State], new: State) -> list[str]:
    """Files beside the configuration (`others`) that are neither as in `old` nor as in any State `between`.

    What others change inside a transaction is theirs to keep; what nobody else made, the recovery left behind.
    """
    known = [_plain(state.get("others") or {}) for state in (old, *between)]
    seen = _plain(new.get("others") or {})
    lines = []
    for path in sorted(set(seen).union(*known)):
        if all(seen.get(path) != others.get(path) for others in known):
            was, now = known[-1].get(path), seen.get(path)
            lines += file_differences({"files": {path: was} if was else {}}, {"files": {path: now} if now else {}})
    return [f"beside the configuration: {line}" for line in lines]


def _kind(entry: Mapping[str, Any]) -> str:
    name = _TYPES.get(entry.get("type", ""), f"a thing of type {entry.get('type')}")
    return f"{name} to {_quoted(entry['target'])}" if "target" in entry else name


def _entry_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if old.get("type") != new.get("type"):
        return [f"is {_kind(new)}, was {_kind(old)}"]
    lines = []
    if old.get("type") == "file":
        lines += _content_lines(old, new)
    for key in _union(old, new):
        # the size of a folder is its file system's affair; content is told above
        if key in ("type", "size", "sha256", "text"):
            continue
        if key == "xattrs":
            lines += _value_lines("extended attribute", old.get(key) or {}, new.get(key) or {})
        elif key == "target":
            if old.get(key) != new.get(key):
                lines.append(f"points to {_quoted(new.get(key))}, was {_quoted(old.get(key))}")
        else:
            lines += _value_lines(key, old.get(key), new.get(key))
    return lines


def _content_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if all(old.get(key) == new.get(key) for key in ("sha256", "size", "text")):
        return []
    if isinstance(old.get("text"), str) and isinstance(new.get("text"), str):
        return text_differences(old["text"], new["text"])
    if old.get("size") != new.get("size"):
        return [f"other content: {new.get('size')} bytes, was {old.get('size')}"]
    return [f"other content of the same length ({new.get('size')} bytes)"]


def text_differences(old: str, new: str, was: str = ", was ") -> list[str]:
    """One line for each line that differs, numbered from 1: in `new`, or in `old` for a line that is missing."""
    if old == new:
        return []
    before, after = old.splitlines(), new.splitlines()
    lines = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for what, i, i_end, j, j_end in matcher.get_opcodes():
        if what == "equal":
            continue
        while i < i_end and j < j_end:
            lines.append(f"line {j + 1}: {_quoted(after[j])}{was}{_quoted(before[i])}")
            i, j = i + 1, j + 1
        lines += [f"line {n + 1} is missing: {_quoted(before[n])}" for n in range(i, i_end)]
        lines += [f"line {n + 1} is left over: {_quoted(after[n])}" for n in range(j, j_end)]
    if len(lines) > _LINES_PER_FILE:
        more = len(lines) - _LINES_PER_FILE
        return [*lines[:_LINES_PER_FILE], f"… and {more} more line{'s' if more > 1 else ''}"]
    return lines or ["the same lines with other line ends"]


def file_problems(entry: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[str]:
    """What `{on, path, text | absent | mode | owner | target}` asks of a file and `entry` (None: absent) is not.

    `mode` is a number, or a text of octal digits; `owner` USER, UID, USER:GROUP or UID:GID,
    where only `root` is translated.
    """
    path = printable(str(wanted.get("path", "")))
    entry = None if entry is not None and entry.get("type") == "absent" else entry
    if wanted.get("absent"):
        return [] if entry is None else [f"expected {path} to be absent; seen {_kind(entry)}"]
    if entry is None:
        return [f"expected {path} to be there; it is absent"]
    lines = []
    if (text := wanted.get("text")) is not None:
        lines += _text_problems(path, entry, text)
    if (mode := wanted.get("mode")) is not None and _mode(mode) != _mode(entry.get("mode", "0")):
        lines.append(f"expected mode {_mode(mode):04o} of {path}; seen {entry.get('mode')}")
    if (owner := wanted.get("owner")) is not None and not _same_owner(str(owner), str(entry.get("owner"))):
        lines.append(f"expected owner {printable(str(owner))} of {path}; seen {entry.get('owner')}")
    if (target := wanted.get("target")) is not None and entry.get("target") != target:
        lines.append(f"expected {path} to be a symbolic link to {_quoted(target)}; seen {_kind(entry)}")
    return lines


def _mode(mode: int | str) -> int:
    return mode if isinstance(mode, int) else int(mode, 8)


def _text_problems(path: str, entry: Mapping[str, Any], text: str) -> list[str]:
    if entry.get("type") != "file":
        return [f"expected {path} to be a regular file; seen {_kind(entry)}"]
    if "text" in entry:
        return [f"{path}: {line}" for line in text_differences(text, entry["text"], "; expected ")]
    if entry.get("sha256") == hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest():
        return []
    return [f"{path}: other content than expected ({entry.get('size')} bytes)"]


def _same_owner(wanted: str, seen: str) -> bool:
    numbers = ["0" if part == "root" else part for part in wanted.split(":")]
    return all(number in ("", part) for number, part in zip(numbers, seen.split(":"), strict=False))


# -- a boot -----------------------------------------------------------------------------------------------------

_PASSING = ("secondary", "dadfailed", "deprecated")
"""Words of an address that tell how it came about, not which one it is."""


def boot_problems(
    old: State, new: State, addresses: Iterable[str], routes: Iterable[str], family: Family | None = None
) -> list[str]:
    """One line for each address and route that a boot has shown (`SeenAtBoot`), that `new` has and `old` has not.

    What the kernel makes by itself is left out, whatever configuration lets it: link-local and advertised addresses,
    and the routes that follow from addresses. Raises KeyError without `kernel`.
    """
    lines = []
    for kind, seen in (("addresses", addresses), ("routes", routes)):
        before, after = ({_settled(text) for text in _flat(state["kernel"].get(kind) or {})} for state in (old, new))
        for text in sorted({_settled(text) for text in seen} & after - before):
            key, _, words = text.partition(": ")
            if family in (None, *(word for word in key.split() if word in _FAMILIES)) and not _by_itself(words):
                lines.append(f"{printable(key)}: {_BOOT_WORDS[kind]} {printable(words)}")
    return lines


_BOOT_WORDS = {"addresses": "address", "routes": "route"}


def _flat(found: Mapping[str, Any], *keys: str) -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, *keys, key)
        else:
            yield from (f"{' '.join((*keys, key))}: {words}" for words in value)


def _settled(text: str) -> str:
    return " ".join(word for word in text.split() if word not in _PASSING)


def _by_itself(words: str) -> bool:
    made = any(f"proto {maker}" in words for maker in ("kernel", "ra"))
    return made or words.startswith("fe80:") or (":" in words.split("/")[0] and words.endswith(" dynamic"))


# -- kernel state -----------------------------------------------------------------------------------------------


def kernel_differences(old: State, new: State, family: Family | None = None) -> list[str]:
    """One line for each difference between the kernel state of two States; empty: equal.

    With a `family`, addresses, routes, rules and sysctls of the other family are left out; links never are.
    Kinds of state that this module does not know are compared too. Raises KeyError without `kernel`.
    """
    before, after = _plain(old["kernel"]), _plain(new["kernel"])
    links_before, links_after = before.get("links") or {}, after.get("links") or {}
    lines = _link_lines(links_before, links_after)
    # what a link takes with it, or brings, is said by the link itself
    one_sided = links_before.keys() ^ links_after.keys()
    for kind in _union(before, after):
        if kind == "links":
            continue
        one, two = before.get(kind), after.get(kind)
        if not isinstance(one or {}, Mapping) or not isinstance(two or {}, Mapping):
            lines += _value_lines(kind, one, two)
            continue
        one, two = _of_family(one or {}, family), _of_family(two or {}, family)
        if kind == "addresses":
            lines += _address_lines(one, two, family)
        elif kind in ("routes", "rules"):
            lines += _list_lines(kind.removesuffix("s"), one, two)
        elif kind == "sysctls":
            lines += _sysctl_lines(one, two, one_sided)
        else:
            lines += _value_lines(kind, one, two)
    return lines


def _of_family(table: Mapping[str, Any], family: Family | None) -> dict[str, Any]:
    """`table` without the keys that belong to the other family: `v6`, `v6 main`, `net.ipv6.…`."""
    if family is None:
        return dict(table)
    words, sysctls = _FAMILIES["v6" if family == "v4" else "v4"]
    return {key: value for key, value in table.items() if key.split(" ")[0] != words and not key.startswith(sysctls)}


def _link_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in _union(old, new):
        if name not in new:
            lines.append(f"{name}: the link is missing")
        elif name not in old:
            lines.append(f"{name}: the link is left over ({_bare(new[name].get('kind'))})")
        else:
            for key in _union(old[name], new[name]):
                one, two = old[name].get(key), new[name].get(key)
                if one == two:
                    continue
                if key == "up":
                    lines.append(f"{name}: {'up, was down' if two else 'down, was up'}")
                elif key == "options":
                    lines += _value_lines(f"{name}:", one or {}, two or {})
                else:
                    lines.append(f"{name}: {_WORDS.get(key, key)} {_bare(two)}, was {_bare(one)}")
    return lines


def _address_lines(old: Mapping[str, Any], new: Mapping[str, Any], family: Family | None) -> list[str]:
    lines = []
    for name in _union(old, new):
        before, after = (_of_family(table.get(name) or {}, family) for table in (old, new))
        for key in _union(before, after):
            one, two = _texts(before.get(key)), _texts(after.get(key))
            found = _added_and_removed(one, two, f"{name}: address ", pair=True)
            if not found and one != two:  # the first address of a prefix is the one that packets come from
                found = [f"{name}: order of addresses {', '.join(two)}; was {', '.join(one)}"]
            lines += found
    return lines


def _list_lines(noun: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Routes and rules: `{"v4 main": [TEXT, …]}` or `{"v4": […]}`. The table is said where it is not the main one."""
    lines = []
    for key in _union(old, new):
        table = key.partition(" ")[2]
        where = f" in {key.split(' ')[0]} table {table}" if table not in ("", "main") else ""
        lines += _added_and_removed(_texts(old.get(key)), _texts(new.get(key)), f"{noun} ", where)
    return lines


def _texts(value: Any) -> list[str]:
    """A list of entries, each as one text: an entry may be a text or a list of words."""
    return [" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value or []]


def _added_and_removed(
    old: Sequence[str], new: Sequence[str], before: str, after: str = "", *, pair: bool = False
) -> list[str]:
    """Lines for what one list has and the other has not. `pair`: two entries with one first word are one change."""
    gone, extra = list(old), []
    for entry in new:
        if entry in gone:
            gone.remove(entry)
        else:
            extra.append(entry)
    lines = []
    if pair:  # an address is its first word, the rest qualifies it
        for entry in list(extra):
            twin = next((item for item in gone if item.split(" ")[0] == entry.split(" ")[0]), None)
            if twin is not None:
                gone.remove(twin)
                extra.remove(entry)
                lines.append(f"{before}{printable(entry)}, was {printable(twin)}")
    lines += [f"{before}{printable(entry)}{after} is missing" for entry in gone]
    lines += [f"{before}{printable(entry)}{after} is left over" for entry in extra]
    return lines


def _sysctl_lines(old: Mapping[str, Any], new: Mapping[str, Any], one_sided: Iterable[str]) -> list[str]:
    infixes = tuple(f".{name}." for link in one_sided for name in {link, link.replace(".", "/")})
    lines = []
    for key in _union(old, new):
        if any(infix in f"{key}." for infix in infixes):
            continue
        lines += _value_lines(f"{key}:", old.get(key), new.get(key))
    return lines


# -- flaps ------------------------------------------------------------------------------------------------------


def flap_differences(old: State, changed: State, new: State) -> list[str]:
    """Links that the change (old → changed) left alone and that are not the same links, undisturbed, in `new`.

    A link is left alone when nothing in the kernel state that is about it differs: itself, its addresses and
    sysctls, routes and rules that name it, the links below it. Such a link keeps its ifindex and its count of
    carrier changes (`carrier_changes` in /sys/class/net, see Documentation/ABI/testing/sysfs-class-net).
    """
    touched = _touched(_plain(old["kernel"]), _plain(changed["kernel"]))
    before, after = old["transient"]["links"], new["transient"]["links"]
    lines = []
    for name in sorted(before.keys() - touched):
        if name not in after:
            lines.append(f"{name}: the link is missing, though the change did not touch it")
        elif before[name]["ifindex"] != after[name]["ifindex"]:
            lines.append(f"{name}: deleted and made again, though the change did not touch it")
        elif before[name]["carrier_changes"] != after[name]["carrier_changes"]:
            count = after[name]["carrier_changes"] - before[name]["carrier_changes"]
            lines.append(f"{name}: its carrier changed {count} times, though the change did not touch it")
    return lines


def _touched(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Names of links that a change touched, or that stand on such a link (a bridge on its ports)."""
    links = {**(old.get("links") or {}), **(new.get("links") or {})}
    touched = {name for name in links if _about(old, name) != _about(new, name)}
    while True:
        upper = set()
        for kernel in (old, new):
            for name, link in (kernel.get("links") or {}).items():
                if name in touched and link.get("master"):
                    upper.add(link["master"])
                if (link.get("options") or {}).get("link") in touched:
                    upper.add(name)
        if upper <= touched:
            return touched
        touched |= upper


def _about(kernel: Mapping[str, Any], name: str) -> list[Any]:
    """All that kernel state says about one link, in a form that compares."""
    named = []
    for kind in ("routes", "rules"):
        for table, entries in sorted((kernel.get(kind) or {}).items()):
            named += [(table, entry) for entry in _texts(entries) if name in entry.split(" ")]
    infixes = (f".{name}.", f".{name.replace('.', '/')}.")
    sysctls = {
        key: value
        for key, value in (kernel.get("sysctls") or {}).items()
        if any(infix in f"{key}." for infix in infixes)
    }
    return [(kernel.get("links") or {}).get(name), (kernel.get("addresses") or {}).get(name), named, sysctls]


# -- flows, output, transactions --------------------------------------------------------------------------------


def flow_problem(outcome: str, delivered: bool, reason: str) -> str | None:
    """None when a flow did what `outcome` says (delivered, unreachable: any reason, or one reason); else in words.

    The words follow the name of the flow: `expected delivered; seen no-route`.
    """
    seen = "delivered" if delivered else reason or "not delivered"
    if (not delivered) if outcome == "unreachable" else (seen == outcome):
        return None
    return f"expected {outcome}; seen {seen}"


def output_problem(wanted: str, output: str) -> str | None:
    """None when `output` contains `wanted`; else in words."""
    if wanted in output:
        return None
    return f"expected {_quoted(wanted)} in the output; seen {_quoted(output[-200:]) if output else 'none'}"


def transaction_problem(machine: str, wanted: str, seen: str) -> str | None:
    """None when the transaction of `machine` is as `wanted` (open | none); else in words."""
    if wanted == seen:
        return None
    shown = {"open": "an open transaction", "none": "no open transaction", "unknown": "nothing that tells"}
    return f"{machine}: expected {shown.get(wanted, wanted)}; seen {shown.get(seen, seen)}"

"""What a configuration is, as values: `Entry`s by path. And the manifest, its written form.

The manifest is JSON: `{"format": 1, "kind": "snapshot", "name", "id", "created", "boot_id", "covers": [COVER, …],
"entries": {PATH: ENTRY, …}, "sha256"}`. PATH is relative to the root; bytes that are no UTF-8 are lone surrogates
(U+DC80 … U+DCFF, as `surrogateescape` has them). `sha256` is that of the document without this key, written with
sorted keys and no spaces.
"""

from __future__ import annotations

from snapcore.errors import Corrupt
from snapcore.files import sha256
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
"""Version of the manifest and of the open record. A higher one is refused."""

FILE, LINK, FOLDER, OTHER = "file", "link", "folder", "other"


class Entry(NamedTuple):
    """One name of the configuration."""

    kind: str
    """`file`, `link`, `folder`; `other` is what stands at a name that fits but is no configuration (a pipe, …)."""
    mode: int = 0
    """Permission bits with set-id and sticky, 0..0o7777."""
    uid: int = 0
    gid: int = 0
    size: int = 0
    """Of a file, in bytes."""
    sha256: str = ""
    """Of a file's content, hexadecimal."""
    target: str = ""
    """Of a link, as it is written in it."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """(name, value), sorted by name."""
    linked: str = ""
    """The first (by name) of the paths that are hard links to the same file; '' for a file of its own."""


class Cover(NamedTuple):
    """What one family of configuration covers."""

    family: str
    include: tuple[str, ...]
    """Patterns of paths relative to the root, links in their folders resolved; `*`, `?` and `[…]` as fnmatch(3)."""
    exclude: tuple[str, ...] = ()
    """Patterns of names that are never configuration."""
    interface: str = ""
    """Regular expression over a file's name; its first group is the interface that the file is about."""
    sources: tuple[str, ...] = ()
    """Files whose `source` lines name further ones. Followed once, by `Host.resolve`; () ever after."""
    only: tuple[str, ...] = ()
    """If any: files that are about another interface than these are not covered."""

    def about(self, name: str) -> str:
        """The interface that a file of this name is about; '' for none in particular."""
        if not self.interface:
            return ""
        import re

        match = re.fullmatch(self.interface, name, re.DOTALL)
        return match.group(1) if match else ""

    def leaves_out(self, name: str) -> bool:
        """Whether a file of this name is about an interface that is none of `only`."""
        return bool(self.only) and self.about(name) not in ("", *self.only)


def escaped(path: str) -> str:
    """A pattern that matches `path` alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


class Snapshot(NamedTuple):
    """A manifest."""

    name: str
    id: str
    created: str
    boot_id: str
    covers: tuple[Cover, ...]
    entries: dict[str, Entry]
    label: str = ""
    serial: int = 0
    """Grows with each named snapshot: their order, whatever the clock says."""


def digest(document: dict[str, Any]) -> str:
    """The hash that a document carries of itself."""
    import json

    plain = {key: value for key, value in document.items() if key != "sha256"}
    return sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def seal(document: dict[str, Any]) -> bytes:
    """The document with its hash, as it is written: ASCII, a line for each key and for each entry."""
    import json

    def lines(mapping: dict[str, Any], indent: str) -> str:
        return ",\n".join(f"{indent}{json.dumps(key)}: {written(key, mapping[key])}" for key in sorted(mapping))

    def written(key: str, value: Any) -> str:
        return "{\n" + lines(value, "  ") + "\n }" if key == "entries" and value else json.dumps(value, sort_keys=True)

    return ("{\n" + lines({**document, "sha256": digest(document)}, " ") + "\n}\n").encode()


def unseal(data: bytes, what: str, kind: str) -> dict[str, Any]:
    """The document in `data`; `Corrupt`, naming `what`, if it is torn, altered, or of a newer version."""
    import json

    try:
        document = json.loads(data)
        found = digest(document) if isinstance(document, dict) else ""
    except (ValueError, RecursionError):
        raise Corrupt(f"{what}: torn or altered: no JSON document") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise Corrupt(f"{what}: torn or altered: no {kind}")
    version = document.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise Corrupt(f"{what}: of version {version}; this snapcore knows versions up to {FORMAT}")
    if version != FORMAT or document.get("sha256") != found:
        raise Corrupt(f"{what}: torn or altered: its SHA-256 is another one")
    return document


def entry_to_json(entry: Entry) -> dict[str, Any]:
    import binascii

    plain: dict[str, Any] = {"type": entry.kind, "mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
    if entry.kind == FILE:
        plain.update(size=entry.size, sha256=entry.sha256)
    if entry.kind == LINK:
        plain["target"] = entry.target
    if entry.xattrs:
        plain["xattrs"] = {name: binascii.b2a_base64(value, newline=False).decode() for name, value in entry.xattrs}
    if entry.linked:
        plain["hard-link-of"] = entry.linked
    return plain


def entry_from_json(plain: dict[str, Any]) -> Entry:
    import binascii

    xattrs = plain.get("xattrs", {})
    return Entry(
        kind=plain["type"],
        mode=int(plain["mode"], 8),
        uid=plain["uid"],
        gid=plain["gid"],
        size=plain.get("size", 0),
        sha256=plain.get("sha256", ""),
        target=plain.get("target", ""),
        xattrs=tuple((name, binascii.a2b_base64(xattrs[name])) for name in sorted(xattrs)),
        linked=plain.get("hard-link-of", ""),
    )


def snapshot_to_json(snapshot: Snapshot) -> bytes:
    return seal(
        {
            "format": FORMAT,
            "kind": "snapshot",
            "name": snapshot.name,
            "id": snapshot.id,
            "created": snapshot.created,
            "boot_id": snapshot.boot_id,
            "label": snapshot.label,
            "serial": snapshot.serial,
            "covers": [
                {"family": c.family, "include": list(c.include), "exclude": list(c.exclude), "interface": c.interface}
                | ({"only": list(c.only)} if c.only else {})
                for c in snapshot.covers
            ],
            "entries": {path: entry_to_json(entry) for path, entry in snapshot.entries.items()},
        }
    )


def snapshot_from_json(data: bytes, what: str) -> Snapshot:
    """The snapshot of a manifest; `Corrupt` as `unseal`, and where a value makes no sense."""
    document = unseal(data, what, "snapshot")
    try:
        entries = {path: entry_from_json(plain) for path, plain in document["entries"].items()}
        covers = tuple(
            Cover(c["family"], tuple(c["include"]), tuple(c["exclude"]), c["interface"], only=tuple(c.get("only", ())))
            for c in document["covers"]
        )
        for path in (*entries, *(pattern for cover in covers for pattern in cover.include)):
            if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
                raise ValueError(path)
        snapshot = Snapshot(
            name=document["name"],
            id=document["id"],
            created=document["created"],
            boot_id=document["boot_id"],
            covers=covers,
            entries=entries,
            label=document["label"],
            serial=document["serial"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"{what}: makes no sense: {error!r}") from None
    return snapshot

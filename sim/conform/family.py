"""What is changed in a trial: files of the family of configuration that a stack reads, made for the purpose.

A `Family` names them; `lay_out` makes those that are there from the start, `change` does one kind of change. Both act
on the root of a running machine, as an editor does: every write is flushed to the disk, its folder too.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sim.errors import Missing
from sim.trials import ODD
from sim.world import kernel

STANDARD = ("content", "same-length", "removed", "added")
_ODD = {"space": b"odd name", "newline": b"odd\nname", "glob": b"odd-[a]*?", "bytes": b"odd-\xff\xfe"}
assert _ODD.keys() == ODD.keys()
_SHARED = "/etc/sim-shared"  # files that links point to: no configuration
_ELSEWHERE = ("/etc/sim-elsewhere/written", "/etc/sim-elsewhere/removed", "/etc/sim-elsewhere/added")
_OLD_TIME = 1_000_000_000_000_000_000  # ns, 2001-09-09
_ATTRIBUTE, _SECURE, _ACL = "user.note", "security.note", "system.posix_acl_access"


@dataclass(frozen=True)
class Family:
    """The patterns of a stack's configuration. `place(kind)` is the path of the file that a kind of change is about."""

    patterns: tuple[str, ...]

    @property
    def primary(self) -> str:
        """The pattern that all but one requirement change files of: the first that has a wildcard at its end."""
        return next((one for one in self.patterns if one.endswith("*")), self.patterns[0])

    def place(self, name: str, pattern: str = "") -> str:
        """The absolute path of a file called so that this pattern (default: the primary one) fits."""
        return (pattern or self.primary).removesuffix("*") + (name if (pattern or self.primary).endswith("*") else "")

    @property
    def strangers(self) -> str:
        """A folder with configuration in it that may have files of other names, too."""
        return os.path.dirname(self.patterns[0])


class Editor:
    """Changes a machine's files below `root` (its root as the laboratory sees it)."""

    def __init__(self, family: Family, root: str) -> None:
        self.family, self.root = family, root

    def lay_out(self, kinds: Sequence[str], pattern: str = "") -> None:
        """What must be there from the start for these kinds of change. Raises Missing, OSError."""
        for kind in _plain(kinds):
            before, _ = _KINDS[kind]
            before(self, pattern)

    def change(self, kind: str, pattern: str = "") -> None:
        """Do one kind of change. Raises OSError."""
        for one in _plain([kind]):
            _, after = _KINDS[one]
            after(self, pattern)

    def text(self, name: str, word: str, pattern: str = "") -> str:
        """What a stack may read and that brings nothing up: a comment, for ifcfg-NAME a device that is not started."""
        settings = os.path.basename(pattern or self.family.primary) == "ifcfg-*"
        return f"# {word}\n" + (f"DEVICE={name}\nONBOOT=no\n" if settings else "")

    # -- what an editor does ---------------------------------------------------------------------------------------

    def at(self, path: str | bytes, through: bool = False) -> bytes:
        """A path of the machine as one of the laboratory's: whatever a mechanism has made a link leads nowhere else.

        `through`: a link at its end is followed, too. Raises OSError where that leads round in circles.
        """
        return os.fsencode((kernel.followed_in if through else kernel.place_in)(self.root, os.fsdecode(path)))

    def write(self, path: str | bytes, text: str) -> None:
        """New content in place, as an editor writes; made when it is not there."""
        place = self.at(path, through=True)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        there = os.path.lexists(place)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            if not there:
                os.fchmod(descriptor, 0o644)
            os.write(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._sync(place)

    def remove(self, path: str | bytes) -> None:
        """A file or a link goes."""
        os.unlink(self.at(path))
        self._sync(self.at(path))

    def link(self, path: str, target: str) -> None:
        """A symbolic link in the place of whatever is there."""
        place = self.at(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.lexists(place):
            os.unlink(place)
        os.symlink(os.fsencode(target), place)
        self._sync(place)

    def folder(self, path: str) -> None:
        """A folder, whose parent is flushed."""
        os.makedirs(self.at(path), exist_ok=True)
        self._sync(self.at(path))

    def pipe(self, path: str) -> None:
        """A named pipe."""
        if not os.path.lexists(self.at(path)):
            os.mkfifo(self.at(path), 0o600)
        self._sync(self.at(path))

    def _sync(self, place: bytes) -> None:
        for path in {place, os.path.dirname(place)}:
            if os.path.islink(path) or not (os.path.isdir(path) or os.path.isfile(path)):
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    # -- metadata --------------------------------------------------------------------------------------------------

    def dress(self, path: str, worn: bool) -> None:
        """Mode, owner and attributes that a careless copy loses (`worn`: as they are before the change)."""
        self.own(path, (1, 2) if worn else (3, 4))
        os.chmod(self.at(path, through=True), 0o640 if worn else 0o604)
        self.attribute(path, _ATTRIBUTE, b"old" if worn else b"new")
        self.attribute(path, _ACL, _acl(4 if worn else 6))
        self.attribute(path, _SECURE, b"old" if worn else b"new", optional=True)

    def own(self, path: str, owner: tuple[int, int]) -> None:
        """Owner and group. Raises Missing where a user namespace has no such users."""
        try:
            os.chown(self.at(path, through=True), *owner)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.EOVERFLOW):
                raise
            raise Missing("files of other owners need root") from error

    def attribute(self, path: str, name: str, value: bytes, optional: bool = False) -> None:
        """An extended attribute. Raises Missing where this one cannot be set, unless it is `optional`."""
        try:
            os.setxattr(self.at(path, through=True), name, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL):
                raise
            if not optional:
                raise Missing(f"attributes like {name} cannot be set here ({error.strerror})") from error


def _acl(mask: int) -> bytes:
    """struct posix_acl_xattr_header and entries (linux/posix_acl_xattr.h): user 5 may do what `mask` says."""
    whole = 0xFFFFFFFF
    entries = [(0x01, 6, whole), (0x02, mask, 5), (0x04, 4, whole), (0x10, mask, whole), (0x20, 0, whole)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _plain(kinds: Sequence[str]) -> list[str]:
    return [one for kind in kinds for one in (STANDARD if kind == "standard" else (kind,))]


Act = Callable[[Editor, str], None]


def _nothing(editor: Editor, pattern: str) -> None:
    """There is nothing to prepare, or to do."""


def _write(name: str, word: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        chosen = pattern or editor.family.primary
        path = editor.family.place(name, chosen)
        if chosen.endswith("*"):
            editor.write(path, editor.text(name, word, chosen))
        elif word == "old":
            return  # it is the machine's own
        elif word == "added":
            editor.write(path, "# added\n")
        else:
            with open(editor.at(path, through=True), encoding="utf-8") as file:
                editor.write(path, file.read() + f"# {word}\n")

    return act


def _remove(name: str) -> Act:
    return lambda editor, pattern: editor.remove(editor.family.place(name, pattern))


def _absent(name: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        path = editor.family.place(name, pattern)
        if os.path.lexists(editor.at(path)):
            editor.remove(path)

    return act


def _same_time(editor: Editor, pattern: str) -> None:
    path = editor.family.place("sim-time", pattern)
    place = editor.at(path, through=True)
    status = os.stat(place)
    editor.write(path, editor.text("sim-time", "new", pattern))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))


def _aged(name: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        _write(name, "old")(editor, pattern)
        os.utime(editor.at(editor.family.place(name, pattern), through=True), ns=(_OLD_TIME, _OLD_TIME))

    return act


def _dressed(editor: Editor, pattern: str) -> None:
    _write("sim-dressed", "old")(editor, pattern)
    editor.dress(editor.family.place("sim-dressed", pattern), True)


def _plain_file(editor: Editor, pattern: str) -> None:
    _write("sim-plain", "old")(editor, pattern)


def _metadata(kind: str) -> tuple[Act, Act]:
    """Only one piece of metadata changes, of a file that has just that."""
    path = "sim-" + kind

    def set_to(new: bool) -> Act:
        def act(editor: Editor, pattern: str) -> None:
            place = editor.family.place(path, pattern)
            if not new:
                _write(path, "old")(editor, pattern)
            if kind == "mode":
                os.chmod(editor.at(place, through=True), 0o600 if new else 0o644)
            elif kind == "owner":
                editor.own(place, (3, 4) if new else (1, 2))
            else:
                name = {"user-attribute": _ATTRIBUTE, "acl": _ACL, "security-attribute": _SECURE}[kind]
                value = _acl(6 if new else 4) if kind == "acl" else b"new" if new else b"old"
                editor.attribute(place, name, value)
            editor._sync(editor.at(place))

        return act

    return set_to(False), set_to(True)


def _replaced(editor: Editor, pattern: str) -> None:
    path = editor.family.place("sim-dressed", pattern)
    editor.write(f"{path}.tmp", editor.text("sim-dressed", "new", pattern))
    os.rename(editor.at(f"{path}.tmp"), editor.at(path))
    editor._sync(editor.at(path))


def _linked(name: str, target: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        editor.write(f"{_SHARED}/one", editor.text(name, "shared", pattern))
        editor.write(f"{_SHARED}/two", editor.text(name, "shared too", pattern))
        editor.link(editor.family.place(name, pattern), target)

    return act


def _file_for_link(name: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        path = editor.family.place(name, pattern)
        editor.remove(path)
        editor.write(path, editor.text(name, "new", pattern))

    return act


def _link(name: str, target: str) -> Act:
    return lambda editor, pattern: editor.link(editor.family.place(name, pattern), target)


def _with_shared(name: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        editor.write(f"{_SHARED}/one", editor.text(name, "shared", pattern))
        _write(name, "old")(editor, pattern)

    return act


def _shared(editor: Editor, pattern: str) -> None:
    editor.write(f"{_SHARED}/one", editor.text("sim-shared", "shared"))


def _in_folder(name: str, word: str) -> Act:
    return lambda editor, pattern: editor.write(f"{editor.family.strangers}/{name}", f"# {word}\n")


def _elsewhere_before(editor: Editor, pattern: str) -> None:
    for path in _ELSEWHERE[:2]:
        editor.write(path, "old\n")


def _elsewhere(editor: Editor, pattern: str) -> None:
    editor.write(_ELSEWHERE[0], "new\n")
    editor.remove(_ELSEWHERE[1])
    editor.write(_ELSEWHERE[2], "new\n")
    editor.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.1 sim\n")


def _folder(name: str, word: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        path = editor.family.place(name, pattern)
        editor.folder(path)
        editor.write(f"{path}/{os.path.basename(editor.family.place('sim-inside'))}", f"# {word}\n")

    return act


def _pipe(name: str) -> Act:
    return lambda editor, pattern: editor.pipe(editor.family.place(name, pattern))


def _odd(kind: str, word: str) -> Act:
    def act(editor: Editor, pattern: str) -> None:
        path = os.fsencode((pattern or editor.family.primary).removesuffix("*")) + _ODD[kind]
        editor.write(path, editor.text("sim-shared", word))

    return act


def has_odd_name(path: str) -> bool:
    """Whether this is a file that one of the changes ODD has named."""
    return os.fsencode(path).endswith(tuple(_ODD.values()))


def _remove_stranger(editor: Editor, pattern: str) -> None:
    editor.remove(f"{editor.family.strangers}/{_STRANGER}-removed")


_STRANGER = "sim-stranger"
_KINDS: dict[str, tuple[Act, Act]] = {
    "content": (_write("sim-one", "old"), _write("sim-one", "new, and longer than before")),
    "same-length": (_write("sim-two", "old"), _write("sim-two", "new")),
    "same-time": (_aged("sim-time"), _same_time),
    "removed": (_write("sim-three", "old"), _remove("sim-three")),
    "added": (_absent("sim-added"), _write("sim-added", "added")),
    "later": (_write("sim-later", "old"), _write("sim-later", "new")),
    **{kind: _metadata(kind) for kind in ("mode", "owner", "user-attribute", "acl", "security-attribute")},
    "replaced": (_dressed, _replaced),
    "attributes-removed": (_dressed, _remove("sim-dressed")),
    "link-replaced": (_linked("sim-link", f"{_SHARED}/one"), _file_for_link("sim-link")),
    "link-removed": (_linked("sim-link", f"{_SHARED}/one"), _remove("sim-link")),
    "link-retargeted": (_linked("sim-link", f"{_SHARED}/one"), _link("sim-link", f"{_SHARED}/two")),
    "link-dangling": (_link("sim-dangling", "sim-nothing"), _remove("sim-dangling")),
    "link-written": (
        _linked("sim-link", f"{_SHARED}/one"),
        lambda editor, pattern: editor.write(f"{_SHARED}/one", editor.text("sim-shared", "written through the link")),
    ),
    "file-linked": (_with_shared("sim-file"), _link("sim-file", f"{_SHARED}/one")),
    "link-added": (_shared, _link("sim-link-added", f"{_SHARED}/one")),
    "link-dangling-added": (_nothing, _link("sim-dangling-added", "sim-nothing")),
    "stranger-written": (_in_folder(f"{_STRANGER}-written", "old"), _in_folder(f"{_STRANGER}-written", "new")),
    "stranger-added": (_nothing, _in_folder(f"{_STRANGER}-added", "new")),
    "stranger-removed": (_in_folder(f"{_STRANGER}-removed", "old"), _remove_stranger),
    "folder-there": (_folder("sim-folder", "old"), _folder("sim-folder", "new")),
    "folder-added": (_nothing, _folder("sim-folder-added", "new")),
    "pipe-there": (_pipe("sim-pipe"), _nothing),
    "pipe-added": (_nothing, _pipe("sim-pipe-added")),
    "elsewhere": (_elsewhere_before, _elsewhere),
    **{f"{odd}-there": (_odd(odd, "old"), _odd(odd, "new")) for odd in _ODD},
    **{f"{odd}-added": (_nothing, _odd(odd, "added")) for odd in _ODD},
}

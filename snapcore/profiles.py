"""Families of network configuration: INI files that name what is covered.

    [profile]
    about = one line
    default = yes            ; covered without being asked for (where present); no: by name only

    [files]
    include = …              ; absolute patterns, one a line; *, ? and […] match within one component
    exclude = *~ *.rpmsave   ; patterns of names that are never configuration
    sources = …              ; files whose `source` and `source-directory` lines (interfaces(5)) name further ones

    [interface]
    name = ifcfg-(.+)        ; regular expression over the file's name; its first group is the interface

Shipped ones lie beside this module; any other is given by its path.
"""

from __future__ import annotations

import os

from snapcore.errors import Usage
from snapcore.state import Cover
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIX = ".ini"
_KEYS = {"profile": {"about", "default"}, "files": {"include", "exclude", "sources"}, "interface": {"name"}}
_SWITCH = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}


class Profile(NamedTuple):
    name: str
    about: str
    default: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    interface: str = ""
    sources: tuple[str, ...] = ()

    def cover(self) -> Cover:
        include, sources = (tuple(path.strip("/") for path in paths) for paths in (self.include, self.sources))
        return Cover(self.name, include, self.exclude, self.interface, sources)


def shipped() -> list[str]:
    """The names of the profiles that come with this package."""
    folder = _folder()
    if folder is None:
        return sorted(name[: -len(SUFFIX)] for name in _zipped() if name.endswith(SUFFIX))
    return sorted(name[: -len(SUFFIX)] for name in os.listdir(folder) if name.endswith(SUFFIX))


def load(name: str) -> Profile:
    """A shipped profile by its name, or one from a file by its path; `Usage` says what is wrong with it."""
    if "/" in name or name.endswith(SUFFIX):
        try:
            with open(name, encoding="utf-8") as file:
                content = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(f"profile {name}: {error}") from None
        return parse(os.path.basename(name).removesuffix(SUFFIX), content, name)
    if name not in shipped():
        raise Usage(f"no profile is called {name!r}: {', '.join(shipped())}; or give the path of a file (with a /)")
    return parse(name, read_resource(f"profiles/{name}{SUFFIX}"), name, shipped_one=True)


def chosen(names: Sequence[str]) -> list[Profile]:
    """The profiles called `names`; without names, all that are covered by default."""
    if names:
        return [load(name) for name in dict.fromkeys(names)]
    return [profile for profile in map(load, shipped()) if profile.default]


def parse(name: str, content: str, source: str, shipped_one: bool = False) -> Profile:
    """A profile from the text of its file; `source` is what messages call it.

    The expression of a `shipped_one` is not compiled only to see whether that can be done.
    """
    try:
        sections = _sections(content)
        about, covered, interface = (sections.get(each, {}) for each in _KEYS)
        return Profile(
            name=name,
            about=about.get("about", ""),
            default=_switch(about.get("default", "no")),
            include=_patterns(covered),
            exclude=tuple(covered.get("exclude", "").split()),
            sources=tuple(covered.get("sources", "").split()),
            interface=interface.get("name", "") if shipped_one else _expression(interface.get("name", "")),
        )
    except ValueError as error:
        raise Usage(f"profile {source}: {error}") from None


def _sections(content: str) -> dict[str, dict[str, str]]:
    """section → key → value, as configparser(3) has them; that would take ten times as long at every `begin`."""
    sections: dict[str, dict[str, str]] = {}
    section, key = "", ""
    for number, line in enumerate(content.splitlines(), 1):
        words = line.strip()
        if not words or words[0] in "#;":
            continue
        if line[0].isspace() and key:
            sections[section][key] += f"\n{words}"
            continue
        if words[0] == "[" and words[-1] == "]":
            section, key = words[1:-1], ""
            if section not in _KEYS:
                raise ValueError(f"line {number}: section [{section}] is unknown: {', '.join(_KEYS)}")
            if section in sections:
                raise ValueError(f"line {number}: section [{section}] stands twice")
            sections[section] = {}
            continue
        key, value = _assignment(words, number)
        if not section:
            raise ValueError(f"line {number}: {words!r} stands before the first section")
        if key not in _KEYS[section]:
            known = ", ".join(sorted(_KEYS[section]))
            raise ValueError(f"line {number}: key {key!r} in [{section}] is unknown: {known}")
        if key in sections[section]:
            raise ValueError(f"line {number}: key {key!r} in [{section}] stands twice")
        sections[section][key] = value
    return sections


def _assignment(words: str, number: int) -> tuple[str, str]:
    """(key, value) of a line."""
    places = [place for place in (words.find("="), words.find(":")) if place > 0]
    if not places:
        raise ValueError(f"line {number}: {words!r}: [section] or key = value is wanted")
    return words[: min(places)].strip().lower(), words[min(places) + 1 :].strip()


def _switch(written: str) -> bool:
    if written.lower() not in _SWITCH:
        raise ValueError(f"default {written!r} in [profile]: yes or no is wanted")
    return _SWITCH[written.lower()]


def _patterns(covered: dict[str, str]) -> tuple[str, ...]:
    include = tuple(covered.get("include", "").split())
    if not include:
        raise ValueError("include in [files] is missing: the absolute patterns of what is covered")
    for pattern in include:
        parts = pattern.split("/")
        if not pattern.startswith("/") or len(parts) < 3 or any(part in ("", ".", "..") for part in parts[1:]):
            raise ValueError(f"include {pattern!r}: an absolute pattern of at least two components, without . and ..")
    return include


def sourced(content: str, folder: str) -> list[str]:
    """The patterns (relative to the root) that the `source` and `source-directory` lines of a file name.

    As ifupdown has it (interfaces(5)): relative ones are below the file's own `folder`; of a folder, the names of
    letters, digits, dashes and underscores count, which the pattern `*` includes. What a shell would have to
    expand ($, ~, a command) is left out.
    """
    found = []
    for line in content.replace("\\\n", " ").splitlines():
        words = line.split()
        if len(words) != 2 or words[0] not in ("source", "source-directory", "source-dir"):
            continue
        path = words[1] if words[1].startswith("/") else f"/{folder}/{words[1]}"
        path = os.path.normpath(path).strip("/") + ("" if words[0] == "source" else "/*")
        if "/" in path and not any(c in path for c in "$~`"):
            found.append(path)
    return found


def _expression(written: str) -> str:
    if not written:
        return ""
    import re

    try:
        if re.compile(written).groups != 1:
            raise ValueError(f"name {written!r} in [interface]: one group is wanted")
    except re.error as error:
        raise ValueError(f"name {written!r} in [interface]: {error}") from None
    return written


def _folder() -> str | None:
    """The folder of the shipped profiles; None inside a zip file."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "profiles")
    return folder if os.path.isdir(folder) else None


def _zipped() -> list[str]:
    from importlib import resources

    return [item.name for item in (resources.files("snapcore") / "profiles").iterdir()]


def read_resource(path: str) -> str:
    """The text of a file that comes with this package; `path` is relative to it."""
    if _folder() is not None:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), path), encoding="utf-8") as file:
            return file.read()
    from importlib import resources

    return (resources.files("snapcore") / path).read_text(encoding="utf-8")

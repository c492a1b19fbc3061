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
from typing import NamedTuple

from snapcore.errors import Usage
from snapcore.state import Cover

TYPE_CHECKING = False
if TYPE_CHECKING:
    import configparser
    from collections.abc import Sequence

SUFFIX = ".ini"
_KEYS = {"profile": {"about", "default"}, "files": {"include", "exclude", "sources"}, "interface": {"name"}}


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
    return parse(name, read_resource(f"profiles/{name}{SUFFIX}"), name)


def chosen(names: Sequence[str]) -> list[Profile]:
    """The profiles called `names`; without names, all that are covered by default."""
    if names:
        return [load(name) for name in dict.fromkeys(names)]
    return [profile for profile in map(load, shipped()) if profile.default]


def parse(name: str, content: str, source: str) -> Profile:
    """A profile from the text of its file; `source` is what messages call it."""
    import configparser

    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(content, source)
        _check(parser, source)
        return Profile(
            name=name,
            about=parser.get("profile", "about", fallback=""),
            default=parser.getboolean("profile", "default", fallback=False),
            include=tuple(parser.get("files", "include").split()),
            exclude=tuple(parser.get("files", "exclude", fallback="").split()),
            sources=tuple(parser.get("files", "sources", fallback="").split()),
            interface=_expression(parser.get("interface", "name", fallback="")),
        )
    except configparser.Error as error:
        raise Usage(f"profile {source}: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise Usage(f"profile {source}: {error}") from None


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
    import re

    try:
        if written and re.compile(written).groups != 1:
            raise ValueError(f"name {written!r} in [interface]: one group is wanted")
    except re.error as error:
        raise ValueError(f"name {written!r} in [interface]: {error}") from None
    return written


def _check(parser: configparser.ConfigParser, source: str) -> None:
    for section in parser.sections():
        if section not in _KEYS:
            raise ValueError(f"section [{section}] is unknown: {', '.join(_KEYS)}")
        for key in parser[section]:
            if key not in _KEYS[section]:
                raise ValueError(f"key {key!r} in [{section}] is unknown: {', '.join(sorted(_KEYS[section]))}")
    for pattern in parser.get("files", "include").split():
        parts = pattern.split("/")
        if not pattern.startswith("/") or len(parts) < 3 or any(part in ("", ".", "..") for part in parts[1:]):
            raise ValueError(f"include {pattern!r}: an absolute pattern of at least two components, without . and ..")


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

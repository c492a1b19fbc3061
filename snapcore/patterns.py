"""Patterns of names, as fnmatch(3) has them: `*`, `?` and `[…]`, within one component of a path.

Stars alone are matched without regular expressions, which would have to be loaded and compiled at every start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def has_magic(pattern: str) -> bool:
    return any(c in pattern for c in "*?[")


def matches(name: str, pattern: str) -> bool:
    """As fnmatch.fnmatchcase."""
    if "[" in pattern or "?" in pattern:
        import fnmatch

        return fnmatch.fnmatchcase(name, pattern)
    if "*" not in pattern:
        return name == pattern
    first, *middle, last = pattern.split("*")
    start, end = len(first), len(name) - len(last)
    if end < start or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        start = name.find(part, start, end) + len(part)
        if start < len(part):
            return False
    return True


class Matcher:
    """Some patterns, for many names."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._others: list[str] = []
        prefixes, suffixes = [], []
        for pattern in patterns:
            if pattern[-1:] == "*" and not has_magic(pattern[:-1]):
                prefixes.append(pattern[:-1])
            elif pattern[:1] == "*" and not has_magic(pattern[1:]):
                suffixes.append(pattern[1:])
            else:
                self._others.append(pattern)
        self._prefixes, self._suffixes = tuple(prefixes), tuple(suffixes)

    def __call__(self, name: str) -> bool:
        """Whether one of the patterns matches."""
        if name.startswith(self._prefixes) or name.endswith(self._suffixes):
            return True
        return any(matches(name, pattern) for pattern in self._others)


class Chooser:
    """Which names are meant: those that fit `include` and not `exclude`."""

    def __init__(self, include: Iterable[str], exclude: Iterable[str] = ()) -> None:
        include = list(include)
        self._included = Matcher(include)
        self._with_dot = Matcher(pattern for pattern in include if pattern[:1] == ".")
        self._excluded = Matcher(exclude)

    def __call__(self, name: str) -> bool:
        """As in a shell, a leading dot is matched by a dot alone."""
        included = self._with_dot if name[:1] == "." else self._included
        return included(name) and not self._excluded(name)

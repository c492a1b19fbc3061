"""Errors, sorted by what the reader must do about them.

* `BadInput`: the scenario, mechanism or topology file is wrong; mend the file (exit status 2).
* `LabError`: the laboratory could not do its part; the run is *unknown*, never pass or fail.
* `Missing`: this machine lacks something; the run is a *skip*, counted and named.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One mistake in an input file, and where it is (1-based; None where no line applies)."""

    file: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        return f"{place}: {self.message}"


class SimError(Exception):
    """Base of every error that `sim` reports without a traceback."""


class BadInput(SimError):
    """One or more mistakes in what the user wrote; all of them at once."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class LabError(SimError):
    """The laboratory failed: nothing can be said about the product."""


class Missing(SimError):
    """This machine lacks something that the run needs; the text names it."""

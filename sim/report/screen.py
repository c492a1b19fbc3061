"""The part of a terminal that is drawn again and again while something goes on.

No thread refreshes it (`auto_refresh=False`): the callers' loops fork, and a fork must not meet a thread that holds a
lock. So it is drawn when it is told to, and no more often than a person can see.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_REFRESH_S = 0.1


class Screen:
    """A context manager around what is shown meanwhile; afterwards nothing of it is left. Not for several threads."""

    def __init__(self, console: Console, line_s: float = 0.0, begun: float = 0.0) -> None:
        """`line_s`: seconds between two times that `due` says so without a terminal; `begun`: the first is after it."""
        self._console = console
        self._last = begun
        self._live = (
            Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
            if console.is_terminal and not console.is_dumb_terminal
            else None
        )
        self._every_s = line_s if self._live is None else _REFRESH_S

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()

    def _due(self, now: float) -> bool:
        """Whether it is time to draw (or to print a line) again; if so, the next time is counted from now."""
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True

    def _draw(self, picture: RenderableType) -> None:
        """Replace what is shown. Nothing without a terminal."""
        if self._live is not None:
            self._live.update(picture, refresh=True)

    def _line_or_bar(self, words: str, done: int, of: int) -> None:
        """A bar with words beside it on a terminal, else the words as a line."""
        if self._live is None:
            self._console.print(Text(words), soft_wrap=True)
            return
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=max(of, 1), completed=done, width=30), Text(words))
        self._draw(row)

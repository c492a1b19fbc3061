"""The transaction as a context manager."""

from __future__ import annotations

import os
import time

from snapcore import profiles, transaction
from snapcore.errors import RolledBackInstead, SnapcoreError
from snapcore.opened import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from snapcore.diff import Difference


class Transaction:
    """Commits when its block ends well, rolls back when an exception leaves it.

        with snapcore.Transaction(timeout_s=60) as t:
            write_configuration()
            restart_network()
            if not reachable():
                raise RuntimeError("cut off")     # rolled back, and raised to the caller

    Arguments: `root`, the tree; `profiles`, names or files of families (none: the default ones); `timeout_s`,
    seconds after which the block's end rolls back instead of committing, and raises `RolledBackInstead` (nothing
    happens before the block ends); `label`, for people; `track`, `policy`, `only`, `strategy`: as the options of
    `begin`; `kernel`: whether the kernel's network state is saved and given back too (None: where `root` is / and
    pyroute2 is installed).

    Raises what the verbs raise: `WrongState` where a transaction is open already, `NotSaved`, `Incomplete`, … (all
    are `SnapcoreError`). A process that dies inside the block leaves the transaction open: the next boot, or
    `snapcore rollback`, undoes it.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        timeout_s: float | None = None,
        profiles: Sequence[str] = (),
        label: str = "",
        track: bool = False,
        policy: str = transaction.RESTORE,
        kernel: bool | None = None,
        only: Sequence[str] = (),
        strategy: str = "minimal",
    ) -> None:
        self.root = root
        self.timeout_s = timeout_s
        self.undone: list[Difference] = []
        """After a rollback: what it undid in files."""
        self.undone_in_kernel: list[str] = []
        """After a rollback: how the kernel's state had differed, in words."""
        if strategy != "minimal":
            from snapcore.running import Ways

            Ways(strategy).checked()
        self._kernel = kernel
        self._profiles = profiles
        self._terms = transaction.Terms(label=label, track=track, policy=policy, only=tuple(only), strategy=strategy)
        self._token = ""
        self._ends = 0.0

    @property
    def token(self) -> str:
        """Shows another process that it may commit or roll back."""
        return self._token

    def __enter__(self) -> Transaction:
        covers = [profile.cover() for profile in profiles.chosen(self._profiles)]
        terms = self._terms._replace(kernel=self._saves_kernel())
        with Opened(self.root) as (host, store):
            self._token = transaction.begin(host, store, covers, terms).token
        if self.timeout_s is not None:
            self._ends = time.monotonic() + self.timeout_s
        return self

    def _saves_kernel(self) -> bool:
        if self._kernel is not None:
            return self._kernel
        if os.path.abspath(self.root) != "/":
            return False
        from snapcore import kernel

        return not kernel.missing()

    def touch(self, *paths: str) -> None:
        """Announces a change to files, as `snapcore touch` does."""
        below = [transaction.path_below(self.root, path) for path in paths]
        with Opened(self.root) as (host, store):
            transaction.touch(host, store, below, transaction.Claim(self._token))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            try:
                self._roll_back()
            except SnapcoreError as failed:
                raise failed from error
            return
        if self.timeout_s is not None and time.monotonic() > self._ends:
            self._roll_back()
            raise RolledBackInstead(f"the block took longer than {self.timeout_s:g} s: rolled back")
        with Opened(self.root) as (host, store):
            transaction.commit(host, store, transaction.Claim(self._token))

    def _roll_back(self) -> None:
        with Opened(self.root) as (host, store):
            done = transaction.rollback(host, store, transaction.Claim(self._token))
        self.undone, self.undone_in_kernel = done.undone, list(done.kernel)

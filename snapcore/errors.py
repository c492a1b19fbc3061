"""One exception a kind of refusal, each with the exit status that the command ends with."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_DIFFERS = 1
EXIT_USAGE = 2
EXIT_NONE_OPEN = 3
EXIT_ROLLED_BACK = 10
EXIT_INCOMPLETE = 11
EXIT_CORRUPT = 12
EXIT_LOCKED = 13
EXIT_FOREIGN_CHANGE = 14
EXIT_NOT_SAVED = 15
EXIT_NOT_OWNER = 16
EXIT_WRONG_STATE = 199


class SnapcoreError(Exception):
    """Base of every error that the command reports in one line, without a traceback."""

    status = EXIT_ERROR


class Usage(SnapcoreError):
    """The command line makes no sense."""

    status = EXIT_USAGE


class RolledBackInstead(SnapcoreError):
    """What was to be kept could not be; the old configuration was given back."""

    status = EXIT_ROLLED_BACK


class Incomplete(SnapcoreError):
    """A rollback left something that differs from the snapshot; `differences` lists it, one line each."""

    status = EXIT_INCOMPLETE

    def __init__(self, message: str, differences: list[str] | None = None) -> None:
        super().__init__(message)
        self.differences = differences or []


class Corrupt(SnapcoreError):
    """A record or a snapshot is torn, altered, or of a newer version. Nothing was changed."""

    status = EXIT_CORRUPT


class Locked(SnapcoreError):
    """Another process is at work on the store."""

    status = EXIT_LOCKED


class ForeignChange(SnapcoreError):
    """Something changed from outside the transaction, and its policy is `fail`. Nothing was changed."""

    status = EXIT_FOREIGN_CHANGE


class NotSaved(SnapcoreError):
    """The configuration could not be saved. Nothing was changed and nothing is armed."""

    status = EXIT_NOT_SAVED


class NotOwner(SnapcoreError):
    """The transaction is somebody else's."""

    status = EXIT_NOT_OWNER


class WrongState(SnapcoreError):
    """The verb is not allowed in this state (199, as scripts of the 2011 proposal have it)."""

    status = EXIT_WRONG_STATE


class DeadlinePassed(WrongState):
    """The transaction's time is over: it is rolled back, whatever was to be done with it."""

"""The one table of states and transitions.

A store is in one of three phases:

* `none`: no transaction. Nothing will be rolled back, at a boot or otherwise.
* `open`: `begin` has saved the configuration. Only `commit` keeps what is changed from here on.
* `rolling-back`: a rollback has begun to give files back and has not finished. What is on disk may be a mixture
  of old and new, so that only a rollback leads out of it; `commit` would keep the mixture (`--force` does).

What is not in the table is refused with status 199.
"""

from __future__ import annotations

from snapcore.errors import WrongState

NONE = "none"
OPEN = "open"
ROLLING_BACK = "rolling-back"

TRANSITIONS: dict[tuple[str, str], str] = {
    (NONE, "begin"): OPEN,
    (NONE, "boot"): NONE,
    (OPEN, "touch"): OPEN,
    (OPEN, "extend"): OPEN,
    (OPEN, "commit"): NONE,
    (OPEN, "rollback"): NONE,
    (OPEN, "boot"): NONE,
    (ROLLING_BACK, "rollback"): NONE,
    (ROLLING_BACK, "boot"): NONE,
}

_REFUSALS = {
    NONE: "no transaction is open",
    OPEN: "a transaction is open already",
    ROLLING_BACK: "a rollback has begun and has not finished: finish it with `snapcore rollback`",
}


def after(phase: str, verb: str, *, force: bool = False, detail: str = "") -> str:
    """The phase that `verb` leads to; `WrongState` where it is not allowed."""
    if force and (phase, verb) == (ROLLING_BACK, "commit"):
        return NONE
    try:
        return TRANSITIONS[phase, verb]
    except KeyError:
        raise WrongState(f"{verb}: {_REFUSALS.get(phase, phase)}{detail}") from None

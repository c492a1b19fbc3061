"""snapcore that is told to leave the running host as it is: files only, then the stack reloads."""

from __future__ import annotations

from sim.mechanisms import snapcore
from sim.scenario import Mechanism


def mechanism() -> Mechanism:
    """The mechanism."""
    return snapcore.mechanism("snapcore-files", "--no-kernel", files_only=True)

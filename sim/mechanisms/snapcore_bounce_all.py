"""snapcore that brings a running host back by taking every interface down and up."""

from __future__ import annotations

from sim.mechanisms import snapcore
from sim.scenario import Mechanism


def mechanism() -> Mechanism:
    """The mechanism."""
    return snapcore.mechanism("snapcore-bounce-all", "--strategy bounce-all")

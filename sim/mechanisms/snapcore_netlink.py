"""snapcore that brings a running host back over netlink alone, without the stack."""

from __future__ import annotations

from sim.mechanisms import snapcore
from sim.scenario import Mechanism


def mechanism() -> Mechanism:
    """The mechanism."""
    return snapcore.mechanism("snapcore-netlink", "--strategy netlink")

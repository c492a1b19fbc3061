"""How fast points are struck, beside what the machine itself needs for them: both measured in one run.

Rounds of the two alternate, so that whatever else this machine does slows both down.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import IO

from sim.crash import Bench, gather, missing, tell
from sim.errors import LabError, Missing
from sim.struck import Campaign


@dataclass(frozen=True)
class Speed:
    """Means over all rounds, seconds. `images`: how many disks a point leaves (two after a power cut)."""

    points: int
    workers: int
    images: int
    point: float
    verb: float
    boot: float
    copy: float

    @property
    def floor(self) -> float:
        """The verb once, and for each image an empty machine's boot and a copy of the disk."""
        return self.verb + self.images * (self.boot + self.copy)

    @property
    def ratio(self) -> float:
        """How many times the floor a point takes."""
        return self.point / self.floor

    @property
    def rate(self) -> float:
        """Points per second, all workers together."""
        return self.workers / self.point


def crash_speed(campaign: Campaign, rounds: int, workers: int) -> Speed:
    """Strike `rounds` points in each of `workers` laboratories. Raises Missing, LabError."""
    why = missing(campaign.plan)
    if why is not None:
        raise Missing(why)

    def work(out: IO[str]) -> None:
        bench = Bench(campaign)
        bench.prepare()
        points = bench.record()
        if not points:
            raise LabError("the verb changes nothing on the disk: there is no point to stop it at")
        for number in range(rounds):
            point = points[number * len(points) // rounds]
            began = time.monotonic()
            images = len(list(bench.strike(point.number, point)))
            tell(out, kind="measured", point=time.monotonic() - began, images=images, **bench.floor())

    found = gather(*[work] * workers)
    means = {key: sum(round_[key] for round_ in found) / len(found) for key in ("point", "verb", "boot", "copy")}
    return Speed(len(found), workers, found[0]["images"], **means)

"""The shipped mechanisms have no bad point: a sample of them, or with SIM_EVERY_POINT=1 every one."""

from __future__ import annotations

import os

import pytest
from crashes import crash

SAMPLE = "2"
EVERY = bool(os.environ.get("SIM_EVERY_POINT"))


@pytest.mark.parametrize("disk", ["keep", pytest.param("lose-unsynced", marks=pytest.mark.root)])
@pytest.mark.parametrize("verb", ["begin", "commit", "rollback", "boot"])
@pytest.mark.parametrize("mechanism", ["snapcore", "initscript"])
def test_no_instant_leaves_anything_but_a_whole_configuration(mechanism: str, verb: str, disk: str) -> None:
    done = crash(mechanism, verb, "--disk", disk, *(() if EVERY else ("--sample", SAMPLE)))
    print(done.text)  # with the seed
    assert (done.json["verdict"], done.json["bad"], done.json["unknown"]) == ("pass", [], []), done.text
    assert done.json["points"] > 0

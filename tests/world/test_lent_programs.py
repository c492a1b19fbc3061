"""The embedded stack's programs run in a fork of PID 1: what they print goes where the caller's output goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from laboratory import Server, in_sandbox

from sim.world.init import REQUESTS

pytestmark = pytest.mark.world
CONFIG: Mapping[str, Any] = {"ethernets": {"eth0": {"addresses": ["192.0.2.10/24"]}}}
UP = "Bringing up interface eth0: ok\n"


def test_output_is_the_callers_though_its_request_takes_long_to_write() -> None:
    """The caller's stdout is the request until its shell gets to put it back; PID 1 may be quicker than that."""
    written = f"^printf .* > {REQUESTS}"
    done = "until ip address show dev eth0 \\| grep -q 192; do :; done"
    slow = rf"s|\(printf .*\) > {REQUESTS}|{{ \1; {done}; }} > {REQUESTS}|"

    def work() -> tuple[str, str]:
        server = Server("ifcfg", CONFIG)
        server.run("/etc/init.d/network stop")
        count = server.run(f"grep -c '{written}' /etc/init.d/network").strip()
        return count, server.run(f"sed '{slow}' /etc/init.d/network > /tmp/slow; sh /tmp/slow start")

    count, said = in_sandbox(work)
    assert count == "1", "the program writes its request in another way now"
    assert said == UP


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_no_reason_to_wait(closed: str) -> None:
    def work() -> str:
        server = Server("ifcfg", CONFIG)
        return server.run(f"ifdown eth0; ifup eth0 {closed}; echo $?; ip address show dev eth0")

    status, state = in_sandbox(work).split("\n", 1)
    assert status == "0"
    assert "192.0.2.10/24" in state


def test_what_is_no_request_is_said_and_passed_over() -> None:
    def work() -> tuple[str, list[Any]]:
        server = Server("ifcfg", CONFIG)
        for rubbish in ("rubbish", "1\\0", "a\\0b\\0c\\0", "1\\0ifup\\0-\\0", "99999999999999999999\\0ifup\\0000\\0"):
            server.run(f"printf '{rubbish}' > {REQUESTS}")
        said = server.run("/etc/init.d/network restart")
        return said, [message["text"] for message in server.said if message["event"] == "note"]

    said, notes = in_sandbox(work)
    assert UP in said
    assert len(notes) >= 4 and all(note.startswith(f"{REQUESTS}: no request: ") for note in notes)

"""snapcore's deadlines on machines: the watcher that `begin` starts, who outlives whom, and what a boot makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from sim.api import Machine, World

pytestmark = pytest.mark.world
FILE = "/etc/sysconfig/network-scripts/ifcfg-eth0"
GONE = "while snapcore status > /dev/null; do :; done"
"""The mechanism's own answer is waited for, not a time."""


def status(machine: Machine) -> dict[str, Any]:
    """The open transaction; {} where there is none."""
    done = machine.run("snapcore status --json", status=None)
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1]).get("transaction", {})
    return found


@pytest.fixture
def server(world: World) -> Machine:
    return world("one-lan", mechanism="snapcore").machine("server")


@pytest.fixture
def guarded(server: Machine) -> Callable[..., tuple[Machine, bytes | None, dict[str, Any]]]:
    """A machine in whose guarded transaction the address is changed: (it, the old file, the transaction)."""

    def begin(*options: str) -> tuple[Machine, bytes | None, dict[str, Any]]:
        old = server.read(FILE)
        server.run(f"snapcore begin {' '.join(options)}")
        server.run(f"sed -i s/192.0.2.10/192.0.2.110/ {FILE} && sync")
        assert server.read(FILE) != old
        return server, old, status(server)

    return begin


def test_the_watcher_undoes_what_nobody_confirms(guarded: Any) -> None:
    server, old, found = guarded("--timeout 2")
    assert found["watcher"] > 1 and found["left_s"] > 0
    server.run(GONE)
    assert server.read(FILE) == old
    assert server.run("snapcore confirm", status=199).output.count("was rolled back") == 1
    server.run(f"while [ -e /proc/{found['watcher']} ]; do :; done")


def test_the_watcher_has_a_session_of_its_own_and_nothing_of_its_callers(guarded: Any) -> None:
    server, _, found = guarded("--timeout 60")
    watcher = found["watcher"]
    fields = server.run(f"sed 's/.*) //' /proc/{watcher}/stat").output.split()
    parent, group, session, terminal = fields[1:5]
    assert parent == "1" and terminal == "0"
    assert (
        server.run(f"readlink /proc/{watcher}/cwd /proc/{watcher}/fd/[012]").output.split() == ["/"] + ["/dev/null"] * 3
    )
    everybody = server.run("cat /proc/[0-9]*/stat").output
    assert sum(f" {group} {session} " in line for line in everybody.splitlines()) == 1  # it is alone there
    server.run("snapcore commit")


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_told_to_quit_it_undoes(guarded: Any, number: str) -> None:
    server, old, found = guarded("--timeout 600")
    server.run(f"kill -HUP {found['watcher']}; snapcore status; kill -{number} {found['watcher']}; {GONE}")
    assert server.read(FILE) == old


@pytest.mark.parametrize("number", ["KILL", "TERM", "HUP"])
def test_the_loss_of_the_client_is_answered_where_that_was_asked_for(server: Machine, number: str) -> None:
    old = server.read(FILE)
    client = (
        f"snapcore begin --timeout 600 --client-loss && sed -i s/192.0.2.10/192.0.2.110/ {FILE} && kill -{number} $$"
    )
    server.run(f"sh -c '{client}; true'", status=None)
    server.run(GONE)
    assert server.read(FILE) == old


@pytest.mark.parametrize("number", ["KILL", "TERM", "HUP"])
def test_the_deadline_outlives_the_client_and_its_whole_session(server: Machine, number: str) -> None:
    old = server.read(FILE)
    client = f"snapcore begin --timeout 3 && sed -i s/192.0.2.10/192.0.2.110/ {FILE} && kill -{number} 0"
    assert server.run(f"{client}; true", status=None).status < 0  # the group of this very command
    assert status(server)["watcher"] > 0
    server.run(GONE)
    assert server.read(FILE) == old


@pytest.mark.parametrize("end", ["crash", "reboot"])
def test_a_boot_inside_the_window_undoes(guarded: Any, end: str) -> None:
    server, old, _ = guarded("--timeout 600")
    if end == "crash":
        server.crash()
        server.boot()
    else:
        server.reboot()
    assert server.read(FILE) == old
    server.run("snapcore status", status=3)


def test_with_its_watcher_killed_the_next_call_undoes(guarded: Any) -> None:
    server, old, found = guarded("--timeout 1")
    server.run(f"kill -KILL {found['watcher']}; {GONE}")
    assert server.read(FILE) == old


def test_the_watcher_killed_at_any_instant_leaves_no_change_behind_the_next_boot(guarded: Any) -> None:
    for turns in random.sample(range(2000), 3):  # of a loop in the shell: some hundred milliseconds
        server, old, found = guarded("--timeout 1")
        turn = f"n=0; while [ $n -lt {turns * 100} ]; do n=$((n + 1)); done"
        server.run(f"{turn}; kill -KILL {found['watcher']}", status=None)
        server.crash()
        server.boot()
        assert server.read(FILE) == old, turns
        server.run("snapcore status", status=3)


# try


def test_a_change_that_cuts_off_what_is_probed_is_undone(server: Machine) -> None:
    old = server.read(FILE)
    change = f"sed -i s/192.0.2.10/198.51.100.10/ {FILE}; ip address flush dev eth0"
    done = server.run(f"snapcore try --timeout 3 --probe ping:192.0.2.20 -- sh -c '{change}'", status=10)
    assert "ping:192.0.2.20" in done.output
    assert server.read(FILE) == old


def test_a_probe_that_no_gateway_ever_answered_keeps_no_good_change_from_being_kept(server: Machine) -> None:
    probes = "--probe ping:192.0.2.1 --probe route:default --probe ping:192.0.2.20,size=1400"
    done = server.run(
        f"snapcore try --timeout 20 {probes} -- sh -c 'echo MTU=1450 >> {FILE}; ip link set eth0 mtu 1450'"
    )
    assert done.output.count("did not pass before the change either") == 2
    assert b"MTU=1450" in (server.read(FILE) or b"")


def test_a_jumbo_probe_sees_a_smaller_mtu(server: Machine) -> None:
    probe = "--probe ping:192.0.2.20,size=1472"
    done = server.run(f"snapcore try --timeout 2 {probe} -- ip link set eth0 mtu 1400", status=10)
    assert "too long" in done.output


def test_who_comes_by_the_new_address_confirms_with_the_token(server: Machine) -> None:
    change = (
        f"sed -i s/192.0.2.10/192.0.2.110/ {FILE}; ip a add 192.0.2.110/24 dev eth0; ip a del 192.0.2.10/24 dev eth0"
    )
    trying = f"snapcore try --timeout 60 --confirm token --token mine -- sh -c '{change}'"
    server.run(f"{trying} > /tmp/said 2>&1 & echo $! > /tmp/try")
    server.run("until grep -q 'confirm --token mine' /tmp/said; do :; done")
    assert not server.lab.flow("client -> server").delivered
    server.run("snapcore confirm --token yours", status=16)
    server.run("snapcore confirm", status=16)
    server.run("snapcore confirm --token mine; while kill -0 $(cat /tmp/try); do :; done 2> /dev/null")
    assert "kept" in server.run("cat /tmp/said").output
    assert b"192.0.2.110" in (server.read(FILE) or b"")


SSHD = """
import os, socket, sys
listener = socket.create_server(("192.0.2.10", 2222))
open("/tmp/listens", "w").close()
session, client = listener.accept()
os.environ["SSH_CONNECTION"] = f"{client[0]} {client[1]} 192.0.2.10 2222"
os.dup2(session.fileno(), 2)
out = os.open("/tmp/said", os.O_WRONLY | os.O_CREAT)
os.dup2(out, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(("change", "end"), [("true", 0), ("ip link set eth0 down", 10)])
def test_the_connection_that_the_session_came_by_must_go_on(server: Machine, change: str, end: int) -> None:
    client = server.lab.machine("client")
    server.write("/tmp/sshd.py", SSHD)
    words = f"snapcore try --timeout 4 --json -- {change}"
    server.run(f"(python3 /tmp/sshd.py /usr/sbin/{words}; echo $? > /tmp/status) < /dev/null > /tmp/log 2>&1 &")
    server.run("until [ -e /tmp/listens ]; do :; done")
    client.run("python3 -c \"import socket; s = socket.create_connection(('192.0.2.10', 2222)); s.recv(1)\n"
               "while s.recv(100): pass\" > /dev/null 2>&1 &")  # fmt: skip
    server.run("until [ -s /tmp/status ]; do :; done")
    assert server.run("cat /tmp/status").output.strip() == str(end), server.run("cat /tmp/said /tmp/log").output
    said = json.loads((server.read("/tmp/said") or b"").decode())
    assert said["probes"][0]["before"]["passed"] and said["probes"][0]["after"]["passed"] == (end == 0)

"""The host is never touched: however a run ends, it leaves nothing, and runs do not see each other."""

from __future__ import annotations

import contextlib
import glob
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import MADE_UP, Said, command, sim

pytestmark = pytest.mark.world
SEED = int(os.environ.get("SIM_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def processes_of(mark: str) -> list[int]:
    """A pidfd (pidfd_open(2)) for every process that was started with this mark in its environment, and for every
    other one in their PID namespaces: the programs in the machines."""
    marked, spaces, found = set(), set(), []
    everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    for process in everyone:
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{process}/environ").read_bytes():
                marked.add(process)
                spaces.add(os.readlink(f"/proc/{process}/ns/pid"))
    spaces.discard(os.readlink("/proc/self/ns/pid"))
    for process in everyone:
        with contextlib.suppress(OSError):
            if process in marked or os.readlink(f"/proc/{process}/ns/pid") in spaces:
                found.append(os.pidfd_open(process))
    return found


def all_ended(pidfds: list[int], timeout_s: float) -> bool:
    """Whether all these processes end before the time is over."""
    deadline = time.monotonic() + timeout_s
    ended = [bool(select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]) for fd in pidfds]
    for fd in pidfds:
        os.close(fd)
    return all(ended)


def host() -> dict[str, str]:
    """What a run could leave behind, or change: links, addresses, routes, rules, mounts, sysctls, files."""
    found = {
        words: subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout
        for words in ("-o link", "-o addr", "route show table all", "-6 route show table all", "rule", "netns")
    }
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found["mounts"] = "\n".join(line for line in mounts if "pytest-of-" not in line)  # those are other tests'
    for path in glob.glob("/proc/sys/net/ipv[46]/conf/*/*") + ["/proc/sys/net/ipv4/ip_forward"]:
        try:
            found[path] = Path(path).read_text()
        except OSError:
            continue
    for folder in ("/etc", "/run", "/var/lib"):
        found[folder] = "\n".join(sorted(os.listdir(folder)))
    return found


def test_a_run_that_ends_by_itself_leaves_nothing(tmp_path: Path) -> None:
    before = host()
    (tmp_path / "x.sim.yaml").write_text(MADE_UP)
    assert sim("run", str(tmp_path / "x.sim.yaml"), mark="SIM_TEST=by-itself").returncode == 0
    assert host() == before
    assert processes_of("SIM_TEST=by-itself") == []


def test_sigkill_at_any_time_leaves_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}: SIM_SEED={SEED} repeats this")
    chance = random.Random(SEED)
    (tmp_path / "x.sim.yaml").write_text(MADE_UP)
    before = host()
    for number in range(8):
        mark = f"SIM_TEST={tmp_path.name}-{number}"
        words = command("run", str(tmp_path / "x.sim.yaml"), "-n", "2")
        environment = os.environ | dict([mark.split("=")])
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.05, 3.0))
            theirs = processes_of(mark)
            process.send_signal(signal.SIGKILL)
            assert all_ended(theirs, 10.0), "some process of the run outlived it"
        assert processes_of(mark) == []
    assert host() == before


@pytest.mark.root
def test_sigkill_leaves_no_loop_device(tmp_path: Path) -> None:
    """The image is called after its machine, whose name no other run has."""
    name = f"leak{os.getpid()}"
    ports = "ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.%s/24]}}}"
    machines = f"{{{name}: {{{ports % 10}}}, client: {{{ports % 20}}}}}"
    scenario = MADE_UP.replace("server", name)
    scenario = scenario.replace("topology: one-lan", f"topology: {{networks: {{lan: {{}}}}, machines: {machines}}}")
    (tmp_path / "x.sim.yaml").write_text(scenario + "recover: [power-cut]\n")
    mark = f"SIM_TEST={name}"
    environment = os.environ | dict([mark.split("=")])
    words = command("run", str(tmp_path / "x.sim.yaml"), "--journal", str(tmp_path / "journal"))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        assert until(lambda: loops(name) != [], 20.0), "the run has no loop device"
        theirs = processes_of(mark)
        process.send_signal(signal.SIGKILL)
        assert all_ended(theirs, 10.0)
    assert until(lambda: loops(name) == [], 10.0), "the loop device outlived the run"


def loops(name: str) -> list[str]:
    """The files behind loop devices whose path has this name."""
    found = []
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(Path(path).read_text())
    return [text for text in found if name in text]


def until(so: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it becomes so in time. The kernel tells nobody when a mount namespace is gone: look again and again."""
    deadline = time.monotonic() + timeout_s
    never, writing = os.pipe()
    while not so() and time.monotonic() < deadline:
        select.select([never], [], [], 0.02)
    os.close(never)
    os.close(writing)
    return so()


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    (tmp_path / "x.sim.yaml").write_text(MADE_UP)
    words = command("run", str(tmp_path / "x.sim.yaml"), "-n", "1")
    pair = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(outputs)


def test_a_run_inside_a_machine_of_another_run_works(sim_run: Callable[..., Said]) -> None:
    inner = MADE_UP.replace("'", "'\\''")
    said = sim_run(f"""
sim: 1
name: nested
topology: one-lan
steps:
  - run:
      on: server
      command: |
        cat > /tmp/inner.sim.yaml <<'END'
{chr(10).join("        " + line for line in inner.splitlines())}
        END
        '{sys.executable}' -m sim run /tmp/inner.sim.yaml --recover rollback
  - expect: {{output: "1 pass", flows: {{client -> server: delivered}}}}
""")
    assert said.verdicts == ["pass"], said.text

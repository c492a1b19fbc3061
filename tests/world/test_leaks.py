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


def namespaces_of(mark: str) -> set[str]:
    """The namespaces of every process that was started with this mark in its environment."""
    found = set()
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if mark.encode() in Path(folder, "environ").read_bytes():
                found |= {os.readlink(path) for path in glob.glob(f"{folder}/ns/*")}
        except OSError:
            continue  # the process has ended meanwhile
    return found


def survivors(spaces: set[str], killed_at: float) -> list[str]:
    """Processes in one of these namespaces that started before they were to be killed (proc(5), stat, field 22)."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            started = int(Path(folder, "stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            if started < killed_at and os.readlink(f"{folder}/ns/pid") in spaces:
                found.append(Path(folder, "cmdline").read_text())
    return found


def host() -> dict[str, str]:
    """What a run could leave behind, or change: links, addresses, routes, rules, mounts, loop devices, sysctls."""
    found = {
        words: subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout
        for words in ("-o link", "-o addr", "route show table all", "-6 route show table all", "rule", "netns")
    }
    found["mounts"] = Path("/proc/self/mountinfo").read_text()
    found["loop"] = "\n".join(sorted(glob.glob("/sys/block/loop*/loop/backing_file")))
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
    assert namespaces_of("SIM_TEST=by-itself") == set()


def test_sigkill_at_any_time_leaves_nothing(tmp_path: Path) -> None:
    """The ends of all processes are waited for through a pipe that each of them holds."""
    print(f"seed {SEED}: SIM_SEED={SEED} repeats this")
    chance = random.Random(SEED)
    (tmp_path / "x.sim.yaml").write_text(MADE_UP)
    before, ours = host(), os.readlink("/proc/self/ns/pid")
    for number in range(8):
        mark = f"SIM_TEST={tmp_path.name}-{number}"
        words = command("run", str(tmp_path / "x.sim.yaml"), "-n", "2")
        environment = os.environ | dict([mark.split("=")])
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.05, 3.0))
            theirs = {space for space in namespaces_of(mark) if space.startswith("pid:")} - {ours}
            killed_at = time.clock_gettime(time.CLOCK_BOOTTIME)
            process.send_signal(signal.SIGKILL)
            assert process.stderr is not None
            assert select.select([process.stderr], [], [], 10)[0], "some process of the run outlived it"
            process.stderr.read()
        assert survivors(theirs, killed_at) == []
        assert namespaces_of(mark) == set()
    assert host() == before


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
        {sys.executable} -m sim run /tmp/inner.sim.yaml --recover rollback
  - expect: {{output: "1 pass", flows: {{client -> server: delivered}}}}
""")
    assert said.verdicts == ["pass"], said.text

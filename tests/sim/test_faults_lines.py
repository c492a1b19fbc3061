"""The line of a script that makes a call: the right one, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.faults.lines import Lines, _read_script, calls

STOP = f"#!{sys.executable} -IS\nprint('.', flush=True)\ninput()\n"
SCRIPT = """#!/bin/sh
ask() {
    stop asked "$1"
}

stop first
ask second
if true; then
    ask third && stop \\
        fourth
fi
( stop fifth; : )
stop sixth | cat
exit 0
"""


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_line_is_read_from_the_shell(need: Callable[[str], str], shell: str, tmp_path: Path) -> None:
    program = need(shell)
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    (tmp_path / "stop").write_text(STOP)
    (tmp_path / "stop").chmod(0o755)
    found = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    lines, seen = Lines(), []
    with subprocess.Popen([program, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=found) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == b".\n"
            (child,) = _children(process.pid)
            seen.append(lines.of(_deepest(child)))
            process.stdin.write(b"\n")
            process.stdin.flush()
        process.kill()
    numbers = [one.removeprefix(f"{script}:").split(":")[0] for one in seen]
    assert numbers == ["6", "3", "3", "9", "12"]
    assert seen[0] == f"{script}:6: stop first"


def _children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _deepest(process: int) -> int:
    below = _children(process)
    return _deepest(below[0]) if below else process


def test_a_program_without_a_script_above_it_has_no_line() -> None:
    assert Lines().of(os.getpid()) == ""


def test_a_script_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "script")
    assert _read_script(os.getpid(), str(tmp_path / "script")) == []


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ('cp -p "$a" "$b"', ["cp", "-p", "/etc/x", "/var/x"]),
        ("mkdir -p /var/lib/x || exit 1", ["/bin/mkdir", "-p", "/var/lib/x"]),
        ('if rm -rf -- "$old" && mv -T -- "$new" "$old"; then', ["mv", "-T", "--", "/a", "/b"]),
        ("sed 's/a/b/' file > other", ["sed", "s/a/b/", "file"]),
        ("/usr/sbin/helper save", ["/bin/sh", "/usr/sbin/helper", "save"]),
        ("sync", ["sync"]),
        ("mv $options a b", ["mv", "-f", "a", "b"]),
    ],
)
def test_a_line_fits_what_it_has_started(line: str, arguments: list[str]) -> None:
    assert calls(line, arguments)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ('[ "$file" != "$last" ] || break', ["sed", "s/$//"]),
        ("sed -i x file", ["sed", "s/x//"]),
        ("rm -f a", ["rm", "-rf", "a"]),
        ("mkdir-like /x", ["mkdir", "/x"]),
        ("cp a b", ["cp", "a", "c"]),
        ("sync -f /var", ["sync"]),
        ("sync", ["sync", "-f", "/var"]),
    ],
)
def test_a_line_does_not_fit_what_it_has_not_started(line: str, arguments: list[str]) -> None:
    assert not calls(line, arguments)

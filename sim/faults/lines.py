"""Which line of a shell script makes a call: read from the memory of the shell.

A shell knows the number of the line that it is running (dash and bash put it into their error messages), but tells
nobody. Where it keeps the number is found by trial: the same program runs a script that stops at known lines, and a
word of its data that has had the right value each time is it. Offsets count from the first mapping of the program, so
they hold for every process that runs it (proc(5), maps and mem).

Nothing is said rather than something wrong: the line must name the program that makes the call.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from dataclasses import dataclass, field

SHELLS = ("dash", "bash")
_BACKGROUND = re.compile(r"(?<![&>|<])&(?![&>\d])")
_REDIRECTS = re.compile(r">|\b(echo|printf)\b")
_SEPARATOR = re.compile(r"[;&|)]|\s#")
_REDIRECTION = re.compile(r"\d*[<>]")
_INTERPRETER = re.compile(r"(ba|da)?sh$|python|perl")
_LITERAL = re.compile(r"[\w./:=@%+,-]+")
_WORD = 4
_LARGEST = 1 << 20

_STOP, _STOP_BELOW = "echo . && read answer", "sh -c 'echo .; read answer'"  # in the shell, in a program that it runs
_TRIAL = "\n".join(
    [":"] * 4
    + [_STOP, "one() {", "  :", f"  {_STOP}", f"  {_STOP_BELOW}", "}"]
    + [":"] * 30
    + [_STOP_BELOW, "one", _STOP, "exit", ""]
)
_TRIAL_LINES = (5, 41, 8, 9, 43)
"""Where the trial stops, in the order of the stops: no counter of lines that are read goes back."""


@dataclass
class Lines:
    """Remembers where each shell keeps its line, and the scripts."""

    places: dict[tuple[int, int, int], tuple[int, ...]] = field(default_factory=dict)

    def of(self, process: int) -> str:
        """`SCRIPT:NUMBER: TEXT` of the line that makes the call in which `process` waits; empty if that is unclear."""
        try:
            shell = _shell_above(process)
            return self._line(process, *shell) if shell else ""
        except (OSError, ValueError):
            return ""  # it died while it was looked at

    def _line(self, process: int, shell: int, script: str) -> str:
        text = _read_script(shell, script)
        number = self._number(shell)
        if not 1 <= number <= len(text):
            return ""
        while number > 1 and text[number - 2].endswith("\\"):  # dash counts from the first line, bash from the last
            number -= 1
        line = text[number - 1]
        for following in text[number:]:
            if not line.endswith("\\"):
                break
            line = f"{line[:-1].rstrip()} {following.strip()}"
        return f"{script}:{number}: {line.strip()}" if _fits(line, process, shell, text) else ""

    def _number(self, shell: int) -> int:
        """The line that a shell is running; 0 when that cannot be told."""
        status = os.stat(f"/proc/{shell}/exe")
        key = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if key not in self.places:
            self.places[key] = _places(shell)
        start, data = _data(shell)
        found = {_word(data, place - start) for place in self.places[key]}
        return found.pop() if len(found) == 1 else 0


def _fits(line: str, process: int, shell: int, text: list[str]) -> bool:
    """Whether this line can have made the call: a file that is sourced, or a job in the background, has others."""
    if process == shell:
        return bool(_REDIRECTS.search(line))
    with open(f"/proc/{shell}/task/{shell}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    if len(children) > 1 and any(_BACKGROUND.search(one) for one in text):
        return False
    return calls(line, _arguments(process))


def calls(line: str, arguments: list[str]) -> bool:
    """Whether a line of a script can have started a program with these arguments (argv, interpreter included).

    What is literal in the line must be among the arguments, and their options in the line unless it has variables.
    """
    at = 0
    if arguments and _INTERPRETER.match(os.path.basename(arguments[0])):
        at = next((at for at, word in enumerate(arguments[1:], 1) if not word.startswith("-")), 0)
    for name in [os.path.basename(word) for word in arguments[at : at + 1]]:
        for match in re.finditer(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", line) if name else ():
            words = _SEPARATOR.split(line[match.end() :])[0].split()
            words = words[: next((i for i, one in enumerate(words) if _REDIRECTION.match(one)), len(words))]
            literal = [one.strip("'\"") for one in words if _LITERAL.fullmatch(one.strip("'\""))]
            given = arguments[at + 1 :]
            options = [] if "$" in " ".join(words) else [one for one in given if one.startswith("-")]
            same = len(words) == len(given) or len(literal) < len(words)
            if same and set(literal) <= set(given) and set(options) <= set(literal):
                return True
    return False


def _shell_above(process: int) -> tuple[int, str] | None:
    """The nearest process, from this one upwards, that is a shell running a script; and the script's path."""
    while process > 1:
        if os.path.basename(os.readlink(f"/proc/{process}/exe")) in SHELLS:
            script = _script(_arguments(process))
            if script:
                return process, script
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
            process = int(file.read().rpartition(")")[2].split()[1])
    return None


def _script(arguments: list[str]) -> str:
    """The script among a shell's arguments; none where it runs a string (-c) or reads its standard input (-s)."""
    for word in arguments[1:]:
        if not word.startswith(("-", "+")):
            return word
        if word.startswith("-o") or "c" in word or "s" in word:
            return ""
    return ""


def _arguments(process: int) -> list[str]:
    with open(f"/proc/{process}/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]


def _read_script(shell: int, script: str) -> list[str]:
    path = script if script.startswith("/") else os.path.join(os.readlink(f"/proc/{shell}/cwd"), script)
    # a script may be read from a pipe: that one is left to the shell
    place = os.open(f"/proc/{shell}/root/{path.lstrip('/')}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(place, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(_LARGEST).split("\n") if stat.S_ISREG(os.fstat(place).st_mode) else []


# -- where the number is ---------------------------------------------------------------------------------------------


def _places(shell: int) -> tuple[int, ...]:
    """The offsets at which this shell keeps the number of the line that it runs."""
    script = os.memfd_create("trial")
    try:
        os.write(script, _TRIAL.encode())
        words = [_arguments(shell)[0], f"/proc/self/fd/{script}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words,
            executable=f"/proc/{shell}/exe",
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            pass_fds=[script],
        ) as trial:
            return _try(trial)
    finally:
        os.close(script)


def _try(trial: subprocess.Popen[bytes]) -> tuple[int, ...]:
    assert trial.stdin is not None and trial.stdout is not None
    left: set[int] | None = None
    for line in _TRIAL_LINES:
        if trial.stdout.readline() != b".\n":
            return ()
        start, data = _data(trial.pid)
        right = {start + at for at in range(0, len(data) - _WORD, _WORD) if _word(data, at) == line}
        left = right if left is None else left & right
        trial.stdin.write(b"\n")
        trial.stdin.flush()
    return tuple(sorted(left or ()))


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + _WORD], "little")


def _data(process: int) -> tuple[int, bytes]:
    """A program's writable data with its .bss, and where that begins, counted from its first mapping."""
    path = os.readlink(f"/proc/{process}/exe")
    base = start = end = 0
    with open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for text in lines:
            words = text.rstrip("\n").split(None, 5)
            first, last = (int(word, 16) for word in words[0].split("-"))
            mine = len(words) > 5 and words[5] == path
            base = base or (first if mine else 0)
            if mine and words[1].startswith("rw"):
                start, end = start or first, last
            elif start and len(words) == 5 and first == end and words[1].startswith("rw"):
                end = last  # what of .bss is on no page of the file
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        memory.seek(start)
        return start - base, memory.read(end - start)

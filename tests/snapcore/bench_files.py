"""How long begin and rollback of many files take, beside other ways to save and give back; and `status` beside Python.

    python3 tests/snapcore/bench_files.py [COUNT…]

Prints tables in Markdown. A row: COUNT files, all of them changed in between; milliseconds of saving and giving back
together, the best of some rounds in which the ways take turns.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SOURCES = str(Path(__file__).parents[2])
START = f"import sys; sys.path.insert(0, {SOURCES!r}); from snapcore.cli import main; sys.exit(main())"
PYTHON = (sys.executable, "-I", "-c")
SHELL_BEGIN = 'mkdir "$2"; for f in "$1"/*; do cp -p "$f" "$2/"; done; sync -f "$2"'
SHELL_ROLLBACK = (
    'for f in "$2"/*; do n=${f##*/}; cmp -s "$f" "$1/$n" || { cp -p "$f" "$1/.$n.new"; mv "$1/.$n.new" "$1/$n"; }; '
    'done; sync -f "$1"; rm -r "$2"'
)
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@x.invalid", "-C")
ROUNDS = {10: 12, 100: 8, 1000: 4, 10_000: 1}


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def by_snapcore(root: Path, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    def verb(name: str) -> None:
        run(*PYTHON, START, name, "--root", root)

    return lambda: verb("begin"), lambda: verb("rollback")


def by_copies(root: Path, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    def save() -> None:
        run("cp", "-a", folder, root / "copy")
        run("sync", "-f", root)

    def back() -> None:
        run("cp", "-a", f"{root / 'copy'}/.", folder)
        run("sync", "-f", root)
        run("rm", "-r", root / "copy")

    return save, back


def by_git(root: Path, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """As etckeeper does: everything is committed before a change."""
    run("git", "init", "-q", folder)

    def save() -> None:
        run(*GIT, folder, "add", "-A")
        run(*GIT, folder, "commit", "-q", "--allow-empty", "-m", "x")

    def back() -> None:
        run(*GIT, folder, "checkout", "-q", "--", ".")
        run(*GIT, folder, "clean", "-qfd")

    return save, back


def by_shell(root: Path, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    words = ("sh", folder, root / "copy")
    return lambda: run("sh", "-c", SHELL_BEGIN, *words), lambda: run("sh", "-c", SHELL_ROLLBACK, *words)


WAYS = {"snapcore": by_snapcore, "cp -a, sync -f": by_copies, "git": by_git, "shell initscript": by_shell}


def fill(folder: Path, count: int, line: str) -> None:
    for number in range(count):
        (folder / f"ifcfg-eth{number}").write_text(line.format(number) * 10)


def timed(work: Callable[[], None]) -> float:
    """Milliseconds; what was written before is on the disk already."""
    os.sync()
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def once(way: str, count: int, place: Path) -> float:
    """One save and one giving back, in a folder of its own, which stays: removing it would disturb the next one."""
    root = Path(tempfile.mkdtemp(dir=place))
    folder = root / "etc/sysconfig/network-scripts"
    folder.mkdir(parents=True)
    fill(folder, count, "DEVICE=eth{}\n")
    save, back = WAYS[way](root, folder)
    took = timed(save)
    fill(folder, count, "CHANGED={}\n")
    return took + timed(back)


def processor_ms(words: tuple[str | Path, ...]) -> float:
    """Of a program, user and system: what else runs on this machine counts for less in it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def status_row(place: Path) -> str:
    status, nothing = (*PYTHON, START, "status", "--root", place), (*PYTHON, "pass")
    took = [(processor_ms(status), processor_ms(nothing)) for _ in range(30)]
    best, floor = (min(each) for each in zip(*took))
    return f"processor time: `snapcore status` {best:.1f} ms, `python3 -I -c pass` {floor:.1f} ms: {best / floor:.2g} ×"


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or list(ROUNDS)
    print("begin + rollback, ms; in brackets: how many times longer snapcore takes\n")
    print("| files |", " | ".join(WAYS), "|")
    print("|---:|" + "---:|" * len(WAYS))
    with tempfile.TemporaryDirectory() as place:
        for count in counts:
            rounds = [{way: once(way, count, Path(place)) for way in WAYS} for _ in range(ROUNDS.get(count, 2))]
            best = {way: min(each[way] for each in rounds) for way in WAYS}
            cells = [f"{best[way]:.0f} ({best['snapcore'] / best[way]:.2g})" for way in WAYS if way != "snapcore"]
            print(f"| {count} |", " | ".join([f"{best['snapcore']:.0f}", *cells]), "|", flush=True)
        print("\n" + status_row(Path(place)))


if __name__ == "__main__":
    main()

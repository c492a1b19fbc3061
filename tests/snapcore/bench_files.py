"""How long begin and rollback of many files take, beside other ways to save and give back.

    python3 tests/snapcore/bench_files.py [COUNT…]

Each row: COUNT files, all of them changed in between; milliseconds of begin / rollback, the best of three.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SOURCES = str(Path(__file__).parents[2])
START = f"import sys; sys.path.insert(0, {SOURCES!r}); from snapcore.cli import main; sys.exit(main())"
SHELL_BEGIN = 'mkdir "$2"; for f in "$1"/*; do cp -p "$f" "$2/"; done; sync -f "$2"'
SHELL_ROLLBACK = (
    'for f in "$2"/*; do n=${f##*/}; cmp -s "$f" "$1/$n" || { cp -p "$f" "$1/.$n.new"; mv "$1/.$n.new" "$1/$n"; }; '
    'done; sync -f "$1"; rm -r "$2"'
)
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@x.invalid", "-C")


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def snapcore(root: Path, verb: str) -> None:
    run(sys.executable, "-I", "-c", START, verb, "--root", root)


def ways(root: Path, folder: Path) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """name → (save, give back)."""
    copy = root / "copy"

    def copy_back() -> None:
        run("cp", "-a", f"{copy}/.", folder)
        run("sync", "-f", root)
        run("rm", "-r", copy)

    def git_save() -> None:
        run(*GIT, folder, "add", "-A")
        run(*GIT, folder, "commit", "-q", "--allow-empty", "-m", "x")

    def git_back() -> None:
        run(*GIT, folder, "checkout", "-q", "--", ".")
        run(*GIT, folder, "clean", "-qfd")

    return {
        "snapcore": (lambda: snapcore(root, "begin"), lambda: snapcore(root, "rollback")),
        "cp -a, sync -f": (lambda: (run("cp", "-a", folder, copy), run("sync", "-f", root))[0], copy_back),
        "shell initscript": (
            lambda: run("sh", "-c", SHELL_BEGIN, "sh", folder, copy),
            lambda: run("sh", "-c", SHELL_ROLLBACK, "sh", folder, copy),
        ),
        "git": (git_save, git_back),
    }


def timed(work: Callable[[], None]) -> float:
    os.sync()
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [10, 100, 1000]
    for count in counts:
        for name in ("snapcore", "cp -a, sync -f", "shell initscript", "git"):
            with tempfile.TemporaryDirectory() as place:
                root = Path(place)
                folder = root / "etc/sysconfig/network-scripts"
                folder.mkdir(parents=True)
                for number in range(count):
                    (folder / f"ifcfg-eth{number}").write_text(f"DEVICE=eth{number}\n" * 10)
                if name == "git":
                    run("git", "init", "-q", folder)
                save, back = ways(root, folder)[name]
                times = []
                for attempt in range(3):
                    saved = timed(save)
                    for number in range(count):
                        (folder / f"ifcfg-eth{number}").write_text(f"CHANGED={attempt}\n")
                    times.append((saved, timed(back)))
                best = [min(each) for each in zip(*times)]
                print(f"{count:>6}  {name:<18}{best[0]:>8.0f} /{best[1]:>7.0f}", flush=True)


if __name__ == "__main__":
    main()

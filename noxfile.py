"""Every verb a developer types: `nox -l` lists them, `nox -s unit` takes seconds and needs no root.

A session makes its own environment the first time; `ci/test` runs the same ones in .venv (`--no-venv`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nox

nox.options.sessions = ["unit"]
nox.options.reuse_venv = "yes"


def prepare(session: nox.Session) -> None:
    """Install this checkout and the tools, unless the session runs in an environment that has them."""
    if session.venv_backend != "none":
        session.install("-q", "-e", ".[sim,dev]")


def results(session: nox.Session, suffix: str) -> str:
    """Where a session leaves its counts: a folder that ci/test names, or its own temporary folder."""
    return str(Path(os.environ.get("SIM_RESULTS") or session.create_tmp()) / f"{session.name}{suffix}")


@nox.session
def unit(session: nox.Session) -> None:
    """Tests without namespaces: seconds, no root."""
    prepare(session)
    junit = f"--junitxml={results(session, '.xml')}"
    session.run("pytest", "-q", "-n", "auto", junit, "tests/snapcore", "tests/sim", *session.posargs)


@nox.session
def world(session: nox.Session) -> None:
    """Tests on real namespaces, and the contract of every stack and mechanism."""
    prepare(session)
    junit = f"--junitxml={results(session, '.xml')}"
    others = ("--ignore=tests/sim", "--ignore=tests/snapcore")
    workers = str(3 * (os.cpu_count() or 1) // 2 or 1)  # they wait for networks and deadlines more than they compute
    session.run("pytest", "-q", "-n", workers, junit, "tests", *others, *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Every crash point, failing call and negative control; the other sessions take a sample."""
    prepare(session)
    every = {"SIM_EVERY_POINT": "1", "SNAPCORE_EVERY_POINT": "1"}
    tests = ("tests/world/test_crash_mechanisms.py", "tests/world/test_honesty.py", "tests/snapcore")
    session.run("pytest", "-q", *tests, *session.posargs, env=every)


@nox.session
def scenarios(session: nox.Session) -> None:
    """Every shipped scenario, with two of its recoveries (`-- --full`: with every one)."""
    prepare(session)
    words = [word for word in session.posargs if word != "--full"]
    sample = [] if "--full" in session.posargs else ["--sample", "2"]
    workers = str(os.cpu_count() or 1)
    session.run("sim", "run", "scenarios", "-n", workers, *sample, "--json", results(session, ".json"), *words)


@nox.session
def conform(session: nox.Session) -> None:
    """Every requirement, sampled, of the example initscript and of snapcore; `-- --full`: every point, both stacks."""
    prepare(session)
    full = "--full" in session.posargs
    words = [word for word in session.posargs if word != "--full"]
    quick = [] if full else ["--quick"]
    some = [] if full else ["--only", "B2,B3,K4,K8,K9,M2,T1,T4,P1,P2,P6"]  # tests/snapcore has its points, too
    for mechanism in ("initscript", *(["initscript-ifupdown", "snapcore"] if full else []), "snapcore-files"):
        report = results(session, f"-{mechanism}.xml")
        only = some if mechanism == "snapcore-files" else []
        session.run("sim", "conform", mechanism, *quick, *only, "--junit", report, *words)


@nox.session
def unprivileged(session: nox.Session) -> None:
    """Every other shipped scenario again, with one of its recoveries, as an ordinary user (`-- --full`: all of all)."""
    prepare(session)
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nonexistent")
    path = {"PATH": os.pathsep.join([*(session.bin_paths or ()), os.environ["PATH"]])}
    if os.geteuid() != 0 or subprocess.run([*user, "sim", "--version"], env=path).returncode != 0:
        session.skip("only root can become an ordinary user, who must be able to read this folder")
    workers = str(os.cpu_count() or 1)
    full = "--full" in session.posargs
    given = [word for word in session.posargs if word != "--full"]
    some = [] if full else ["--sample", "1", "--shard", "1/2"]
    words = ("sim", "run", "scenarios", "-n", workers, *some, "--json", "-", *given)
    with open(results(session, ".json"), "w") as out:  # that user could not make the file
        session.run(*user, *words, external=True, stdout=out, stderr=sys.stderr)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes."""
    prepare(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict."""
    prepare(session)
    session.run("mypy")


@nox.session
def grid(session: nox.Session) -> None:
    """Every Python × every pyroute2 that is there (tox)."""
    prepare(session)
    session.run("tox", "run", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """snapcore's begin and rollback beside cp, git and a shell script, as a table of times and ratios."""
    session.run("python", "tests/snapcore/bench_files.py", *session.posargs)


@nox.session
def pyz(session: nox.Session) -> None:
    """All of snapcore in one file, which needs Python 3.9 and nothing else."""
    session.run("python", "-m", "snapcore.bundle", *(session.posargs or ("snapcore.pyz",)))


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """A dozen scenarios with a live view."""
    session.run("ci/demo", *session.posargs, external=True)


@nox.session(venv_backend="none")
def full(session: nox.Session) -> None:
    """Everything: all of the above."""
    for name in ("lint", "types", "unit", "world", "crash", "scenarios", "conform", "unprivileged", "grid"):
        session.notify(name, ["--full"] if name in ("scenarios", "conform", "unprivileged") else None)

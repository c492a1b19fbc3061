"""A table of `sim conform` written by hand: an initscript that loses files, as a run would have told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.conform.values import Heard, Row, Table, Trial
from sim.faults.order import Point

SCRIPT = "/etc/init.d/netsnap"
IFCFG = "/etc/sysconfig/network-scripts/ifcfg-eth0"
LOST = f"{IFCFG}: is missing, was a regular file"
TITLE = "rollback interrupted at any point, then a boot, or then rollback again, gives exactly the old configuration"


def point(number: int, syscall: str = "rename", path: str = IFCFG) -> Point:
    return Point(
        number, syscall, path, "mv # [1]", number, "mv -f /var/lib/netsnap/old/* /etc/…", f"{SCRIPT}:41: mv -f $f"
    )


def good(number: int = 1, **fields: Any) -> Trial:
    steps = (Heard("begin: done", 0), Heard("change: standard"), Heard("expect: old"))
    values: dict[str, Any] = {
        "where": "interrupted, then a boot · ifcfg · one-lan",
        "choice": f"SIGKILL before point {number}",
        "verb": "rollback",
        "point": point(number),
        "steps": steps,
        "seconds": 0.2,
    }
    return Trial(number, **{**values, **fields})


def lost(number: int, *problems: str, **fields: Any) -> Trial:
    problems = problems or (LOST,)
    steps = (
        Heard("begin: done", 0, "saved 3 files\n"),
        Heard("change: standard"),
        Heard(f"rollback, SIGKILL before point {number}", None),
        Heard("boot: done", 1, "netsnap: mv: cannot stat '/var/lib/netsnap/old/ifcfg-eth0'\n"),
        Heard("expect: old", None, "", problems),
    )
    return good(number, **{"steps": steps, "problems": problems, **fields})


def untold(number: int, trouble: str = "the machine did not boot in 20 s") -> Trial:
    return good(number, trouble=trouble)


def row(name: str = "K1", **fields: Any) -> Row:
    values: dict[str, Any] = {"title": "rollback restores changed files", "verdict": "pass", "tried": 2, "seconds": 1.0}
    return Row(name, **{**values, "trials": (good(),), **fields})


def failed(name: str = "K8", **fields: Any) -> Row:
    trials = (good(1), lost(3), lost(4), lost(9, f"{IFCFG}: line 2: 'IPADDR=192.0.2.66', was 'IPADDR=192.0.2.10'"))
    values: dict[str, Any] = {
        "title": TITLE,
        "verdict": "fail",
        "why": f"3 of 10 trials are bad; the first: {LOST}",
        "points": 10,
        "tried": 10,
        "bad": (3, 4, 9),
        "trials": trials,
        "marks": (("interrupted, then a boot · ifcfg · one-lan", "..xx."), ("then rollback again · ifcfg", "...x.")),
        "about": "A rollback is killed after some of the files are back.",
        "causes": "Saved copies are moved back instead of copied.",
        "source": ("initscript", "reproduced"),
    }
    return row(name, **{**values, **fields})


def unknown(name: str = "T4") -> Row:
    why = "1 of 5 trials could not be told: the machine did not boot in 20 s"
    return row(
        name, verdict="unknown", why=why, points=5, tried=5, trials=(good(), untold(2)), marks=(("boot", ".?..."),)
    )


def skipped(name: str = "P1", why: str = "no loop devices here") -> Row:
    return row(name, verdict="skip", why=why, tried=0, trials=(), skipped=(why, why), title="begin, power cut")


def not_offered(name: str = "M1", why: str = "netsnap.yaml names no 'commit'") -> Row:
    return row(name, verdict="not-offered", why=why, tried=0, trials=(), title="after commit the new one survives")


def table(*rows: Row, **fields: Any) -> Table:
    values: dict[str, Any] = {
        "mechanism": "netsnap",
        "file": "netsnap.yaml",
        "seconds": 61.25,
        "facts": {"stacks": ["ifcfg"], "topologies": ["one-lan", "dual-stack"], "kernel": "6.1.0-18-amd64"},
        "again": "sim conform netsnap.yaml",
    }
    return Table(rows=rows, **{**values, **fields})


def large() -> Table:
    """Forty requirements, several of which failed: what the page looks like for a script from the wild."""
    titles = {
        "B1": "a second begin is refused with wrong-state; a rollback after it gives back what the first one saved",
        "B2": "begin while another is held at any of its points, and two started together: exactly one exits 0",
        "B3": "begin interrupted at any point, then a boot: the configuration is untouched",
        "B4": "begin while calls fail, or on a full or read-only disk: untouched, and armed only if it exits 0",
        "K4": "rollback restores mode, owner and extended attributes, also when only these changed",
        "K8": TITLE,
        "K14": "names with spaces, newlines, glob characters and bytes that are no UTF-8",
        "T1": "a boot inside a transaction restores the old configuration before the stack starts",
    }
    names = [f"B{n}" for n in range(1, 7)] + [f"K{n}" for n in range(1, 15)] + [f"M{n}" for n in range(1, 4)]
    names += [f"T{n}" for n in range(1, 5)] + [f"P{n}" for n in range(1, 7)] + [f"X{n}" for n in range(1, 8)]
    rows = [row(name, title=titles.get(name, "what this mechanism must do, in one line of words")) for name in names]
    made = {one.id: one for one in rows}
    strips = (("interrupted, then a boot · ifcfg · one-lan", "..xx" + "." * 180), ("then again", "." * 125 + "x"))
    made["K8"] = failed(bad=(3, 4, 310), tried=310, points=310, marks=strips)
    many = tuple(lost(n, f"{IFCFG}-{n}: is missing, was a regular file") for n in range(1, 30))
    made["B3"] = failed("B3", title=titles["B3"], bad=tuple(range(1, 30)), points=84, tried=30, trials=many,
                        marks=(("begin interrupted · ifcfg · one-lan", "x" * 29 + "."),))  # fmt: skip
    odd = lost(
        2, "ifcfg-\x1b[31m\udcff<script>alert(1)</script>: was added, is left over", choice="bytes-added", point=None
    )
    made["K14"] = failed("K14", title=titles["K14"], points=0, bad=(2,), tried=8, trials=(good(), odd), marks=())
    made["T4"], made["P1"], made["P2"], made["M1"] = unknown(), skipped(), skipped("P2"), not_offered()
    made["B2"] = replace(made["B2"], points=240, tried=240, marks=(("held · ifcfg", "." * 40), ("together", "." * 200)))
    return table(*made.values(), seed=4711)

"""The table of step verbs: which change, which ask, and which arguments each takes after normalisation.

`sim.load` checks and normalises against this table, `sim.run` does what it says, `sim show` and the README
print it. Durations are seconds (float).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One step verb: who acts, its arguments with their defaults (`...`: must be given), and what it means."""

    name: str
    asks: bool
    arguments: Mapping[str, object]
    about: str
    product: bool = False  # the mechanism acts: a failure is the product's, not the laboratory's


_REQUIRED = ...

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "begin",
            False,
            # by: what is to undo the change by itself; probe: the flow whose destination the mechanism is to ping
            {"status": 0, "by": None, "deadline": 0.0, "probe": None},
            "the mechanism saves the configuration; with `by` its command of that name does, which undoes the change "
            "by itself: after the deadline (timeout), when its probe fails, when its client is lost, when told to quit",
            product=True,
        ),
        Verb("commit", False, {"status": 0}, "the mechanism keeps the change", product=True),
        Verb(
            "rollback",
            False,
            {"status": 0},
            "the mechanism gives back what it saved; where it covers files only, the stack then reloads",
            product=True,
        ),
        Verb("confirm", False, {"status": 0}, "commit of a transaction with a deadline", product=True),
        Verb(
            "release",
            False,
            {},
            "the command that the mechanism runs between its begin and its probes returns",
        ),
        Verb(
            "await",
            False,
            {"within": 5.0},
            "the mechanism has undone the change by itself; where it covers files only, the stack then reloads",
            product=True,
        ),
        Verb("save", False, {"name": _REQUIRED, "status": 0}, "save a named snapshot", product=True),
        Verb("load", False, {"name": _REQUIRED, "status": 0}, "give back a named snapshot", product=True),
        # after planning a config step also has `files`: {PATH: FileText}, what the stack's rendering changes
        Verb("config", False, {"merge": _REQUIRED}, "change the configuration in netplan's words"),
        Verb("write", False, {"file": _REQUIRED, "text": _REQUIRED, "mode": None, "owner": None}, "write a file"),
        Verb("remove", False, {"file": _REQUIRED}, "remove a file, a link or a folder"),
        Verb("chmod", False, {"file": _REQUIRED, "mode": _REQUIRED}, "change the mode"),
        Verb("chown", False, {"file": _REQUIRED, "owner": _REQUIRED}, "change owner and group"),
        Verb("link", False, {"file": _REQUIRED, "target": _REQUIRED}, "make a symbolic link"),
        Verb("setxattr", False, {"file": _REQUIRED, "name": _REQUIRED, "value": _REQUIRED}, "set an attribute"),
        Verb("run", False, {"command": _REQUIRED, "status": 0}, "run a shell command in the machine"),
        Verb("reload", False, {}, "the stack applies its files"),
        Verb("shutdown", False, {}, "stop services in order and power off"),
        Verb("reboot", False, {}, "shut down and boot"),
        Verb("crash", False, {}, "kill every process at once; the disk keeps all writes; off until boot"),
        Verb(
            "power-cut",
            False,
            {"image": "as-it-is"},  # or journal: the second image of the last cut, see sim.world.image
            "as crash, and unsynced writes are lost; off until boot",
        ),
        Verb("boot", False, {}, "power on"),
        Verb("plug", False, {"port": _REQUIRED}, "plug the cable in"),
        Verb("unplug", False, {"port": _REQUIRED}, "pull the cable out"),
        Verb(
            "fault",
            False,
            {"call": (), "error": None, "at": "every", "disk": None},
            "system calls that change the disk fail during the next step of this machine; or a disk that is full or "
            "read-only from now on",
        ),
        Verb(
            "kill",
            False,
            {"process": None, "client": False, "watcher": False, "signal": "TERM"},
            "a signal to every process so named, or to the mechanism's watcher; or the client that began is killed",
        ),
        Verb(
            "crash-everywhere",
            False,
            {"verbs": ("begin", "rollback", "commit", "boot"), "sample": 0},
            "each verb stopped before every call that changes the disk, in laboratories of their own",
            product=True,
        ),
        Verb(
            "race",
            False,
            {"verbs": _REQUIRED, "winners": 1},
            "verbs of the mechanism started together; so many of them exit with 0",
            product=True,
        ),
        Verb("keep-disk", False, {}, "the laboratory keeps a copy of the disk (to show what a change would do)"),
        Verb("restore-disk", False, {}, "the laboratory puts the kept copy back; only while the machine is off"),
        Verb(
            "expect",
            True,
            {
                "flows": (),  # tuple of (Flow, outcome); outcome: delivered | unreachable | a reason
                "restored": None,  # MACHINE: files, kernel state and flows equal those at its last begin
                "changed": None,  # MACHINE: … equal those after the last change
                "transaction": {},  # MACHINE -> open | none
                "file": None,  # {on, path, text | absent | mode | owner | target}
                "output": None,  # text that the output of the last run must contain
                "within": 5.0,
                "holds-for": 0.0,
                "otherwise": "fail",  # or unknown: the laboratory asks for itself (the damage must be seen)
            },
            "what must be so",
        ),
    )
}

"""ifup, ifdown and /etc/init.d/network of the embedded stack. Each main returns its exit status."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sim.stacks.ifcfg import resolv
from sim.stacks.ifcfg.apply import Host
from sim.stacks.ifcfg.files import read_files
from sim.stacks.ifcfg.kernel import Kernel
from sim.stacks.ifcfg.model import Configuration, Interface, configuration
from sim.stacks.ifcfg.parse import Message
from sim.stacks.ifcfg.record import Applied, Records, what_matters

_USAGE = "Usage: /etc/init.d/network {start|stop|status|restart|reload|force-reload}"


class _Run:
    """One run of a program: the configuration as it is now, and the host."""

    def __init__(self, kernel: Kernel, root: Path) -> None:
        self.root, self.kernel, self.records = root, kernel, Records(root)
        self.host = Host(kernel, self.records, root, tell)
        self.config = self._read()
        self.changed: set[str] = set()  # devices that were brought up in this run
        self.ok = True

    def _read(self) -> Configuration:
        """HWADDR means the address without this stack: where one was set, the one that was noted before."""
        made = self.records.made()
        macs = {name: link.mac for name, link in self.kernel.links().items() if name not in made}
        macs.update({record.device: record.mac for record in self.records.applied() if record.mac})
        return configuration(read_files(self.root), macs)

    def tell_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            tell(str(message))
            self.ok &= not message.failed

    def up(self, one: Interface, later: Sequence[str] = ()) -> bool:
        """As `ifup`: what was applied from an older file is taken down first."""
        for message in one.messages:
            tell(str(message))
        old = self.records.get(one.name)
        if old and (old.state != "complete" or old.problems or self._differs(old, one)):
            self.host.take_down(old)
        bridges = {bridge.device: bridge for bridge in self.config.at_boot if bridge.kind == "bridge"}
        done = self.host.bring_up(one, bridges, later)
        self.changed.add(one.device)
        return done and not one.failed

    def _differs(self, record: Applied, one: Interface) -> bool:
        """The files ask for something else than was applied, or the device is another one by now."""
        link = self.kernel.link(record.device)
        if link is None or link.index != record.ifindex:
            return True
        return what_matters(record.interface) != what_matters(one)

    def _attached(self, record: Applied) -> bool:
        links = self.kernel.links()
        master = links.get(record.interface.master or "")
        return not record.interface.port_of or (master is not None and links[record.device].master == master.index)

    def forgets(self, record: Applied) -> bool:
        """A bridge can stay (with whoever is plugged into it), but not forget that its MAC or MTU was set."""
        return record.mac is None and record.mtu is None

    def boot(self, wanted: Sequence[Interface]) -> None:
        """Brings up what is not up (or only in part), in the order of a boot."""
        for place, one in enumerate(wanted):
            devices = {other.device for other in wanted[place + 1 :]} - {one.device}
            record = self.records.get(one.name)
            if record and record.state == "complete" and not self._differs(record, one) and self._attached(record):
                self.tell_all([*one.messages, *(Message(problem) for problem in record.problems)])
                self.records.put(replace(record, interface=one))  # rules and name servers may have changed
                continue
            done = self.up(one, sorted(devices))
            say(f"Bringing up interface {one.name}: {'ok' if done else 'failed'}")
            self.ok &= done

    def settle(self) -> None:
        """What spans interfaces: rules, name servers, duplicate address detection."""
        self.ok &= self.host.sync_rules()
        self.ok &= self.host.wait_for_addresses(self.changed)
        self.names()

    def names(self, only_if_changed: bool = False) -> None:
        """/etc/resolv.conf. A reload leaves it to whoever wrote it since, unless the interfaces ask for else."""
        interfaces = [record.interface for record in self.records.applied()]
        wanted = [[*one.dns, one.domain] for one in interfaces if one.dns or one.domain]
        if only_if_changed and wanted == (self.records.names() or []):
            return
        try:
            self.records.put_names("changing")
            resolv.update(self.root, interfaces)
            self.records.put_names(wanted)
        except OSError as error:
            tell(f"/etc/resolv.conf was not updated: {error.strerror}")
            self.ok = False

    def down(self, record: Applied) -> None:
        done = self.host.take_down(record)
        say(f"Shutting down interface {record.interface.name}: {'ok' if done else 'failed'}")
        self.ok &= done


def say(text: str) -> None:
    """One line on standard output, whatever bytes it repeats."""
    print(text.encode("utf-8", "backslashreplace").decode(), flush=True)


def tell(text: str) -> None:
    """One line on standard error, whatever bytes it repeats."""
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _run(root: Path) -> Iterator[_Run]:
    """One program at a time: the others wait."""
    folder = Records(root).folder
    with open(folder / "lock", "w") as lock, Kernel() as kernel:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _Run(kernel, root)


def ifup(arguments: Sequence[str], root: Path = Path("/")) -> int:
    """ifup NAME [boot]: 0 up, 1 not (or not wholly)."""
    if not arguments:
        tell("Usage: ifup <configuration>")
        return 1
    word = arguments[0]
    with _run(root) as run:
        one = run.config.find(word)
        if one is None:
            if word in ("lo", "ifcfg-lo"):
                tell("ifup: lo belongs to the machine; it is up")
                return 0
            hint = ": an alias comes up with its device" if ":" in word else ""
            tell(f"ifup: configuration for {word} not found{hint}")
            return 1
        if list(arguments[1:2]) == ["boot"] and not one.onboot:
            return 0
        group = [one, *(port for port in run.config.interfaces if _is_port_of(port, one))]
        for each in group:
            run.ok &= run.up(each)
        run.settle()
        return 0 if run.ok else 1


def _is_port_of(port: Interface, bond: Interface) -> bool:
    return bond.kind == "bond" and port.port_of == "bond" and port.master == bond.device


def ifdown(arguments: Sequence[str], root: Path = Path("/")) -> int:
    """ifdown NAME [boot]: takes down what was applied, also where the file is gone. 0 down, 1 unknown or not wholly."""
    if not arguments:
        tell("usage: ifdown <configuration>")
        return 1
    word = arguments[0]
    with _run(root) as run:
        name = word.rpartition("/")[2].removeprefix("ifcfg-")
        applied = run.records.applied()
        found = [one for one in applied if one.interface.name == name] or [one for one in applied if one.device == name]
        if not found and run.config.find(word):
            tell(f"ifdown: interface {word} is not up")
            return 0
        if not found:
            tell(f"ifdown: {word} is unknown: it has no configuration, and none was applied")
            return 1
        bonds = [record.interface for record in found]
        ports = [one for one in applied if any(_is_port_of(one.interface, bond) for bond in bonds)]
        for record in (*ports, *reversed(found)):
            run.ok &= run.host.take_down(record)
        run.host.collect(with_foreign_ports=False)
        run.settle()
        return 0 if run.ok else 1


def network(arguments: Sequence[str], root: Path = Path("/")) -> int:
    """/etc/init.d/network VERB: 0 done, 1 something failed, 2 usage, 4 not root, 6 NETWORKING=no."""
    verbs: dict[str, Callable[[_Run], None]] = {
        "start": _start,
        "stop": _stop,
        "restart": _restart,
        "force-reload": _restart,
        "reload": _reload,
        "status": _status,
    }
    if len(arguments) != 1 or arguments[0] not in verbs:
        tell(_USAGE)
        return 2
    if arguments[0] != "status" and os.geteuid() != 0:
        tell("network: only root may do this")
        return 4
    with _run(root) as run:
        if not run.config.networking and arguments[0] not in ("stop", "status"):
            if arguments[0] != "start":  # a boot would leave everything down
                _stop(run)
            return 6
        verbs[arguments[0]](run)
        return 0 if run.ok else 1


def _start(run: _Run) -> None:
    run.tell_all(run.config.messages)
    run.boot(run.config.at_boot)
    run.settle()


def _stop(run: _Run) -> None:
    for record in reversed(run.records.applied()):
        run.down(record)
    run.host.collect(with_foreign_ports=True)
    run.ok &= run.host.sync_rules()
    run.names()


def _restart(run: _Run) -> None:
    _stop(run)
    run.config = run._read()
    run.ok = True
    _start(run)


def _reload(run: _Run) -> None:
    """Only what changed: taken down as it was applied, brought up as the files say now."""
    run.tell_all(run.config.messages)
    wanted = run.config.at_boot
    current = {one.name: one for one in run.config.interfaces if not one.skip}
    going = _going(run, current, {one.name for one in wanted})
    recreated: dict[str, list[int]] = {}
    for record in reversed(run.records.applied()):
        if record.interface.name not in going:
            continue
        run.ok &= run.host.take_down(record)
        if record.interface.kind == "bridge" and not run.forgets(record):
            recreated[record.device] = run.host.recreate(record.device)
        say(f"Shutting down interface {record.interface.name}")
    run.host.collect(with_foreign_ports=False)  # a bridge that lost its last port is not as a new one is (carrier)
    run.boot(wanted)
    for bridge, ports in recreated.items():
        run.ok &= run.host.attach_foreign(bridge, ports)
    run.host.collect(with_foreign_ports=True)
    run.ok &= run.host.repair_order()
    run.ok &= run.host.repair_routes()
    run.ok &= run.host.sync_rules()
    run.ok &= run.host.wait_for_addresses(run.changed)
    run.names(only_if_changed=True)


def _going(run: _Run, current: dict[str, Interface], wanted: set[str]) -> set[str]:
    """The names of applied interfaces that must be taken down: changed, gone, or standing on one that is."""
    applied = run.records.applied()
    going: set[str] = set()
    for record in applied:
        name = record.interface.name
        one = current.get(name)
        unwanted = one is None or (record.interface.onboot and name not in wanted)
        if one is None or unwanted or record.state != "complete" or run._differs(record, one):
            going.add(name)
    while True:
        devices = {record.device for record in applied if record.interface.name in going}
        bonds = {record.device for record in applied if record.interface.kind == "bond"} & devices
        more = {
            record.interface.name
            for record in applied
            if record.device in devices  # another file for the same device
            or record.interface.physdev in devices  # a VLAN on it
            or (record.interface.port_of == "bond" and record.interface.master in bonds)
        }
        if more <= going:
            return going
        going |= more


def _status(run: _Run) -> None:
    say("Configured devices:")
    say(" ".join(["lo", *(one.name for one in run.config.interfaces)]))
    say("Currently active devices:")
    say(" ".join(name for name, link in run.kernel.links().items() if link.up))

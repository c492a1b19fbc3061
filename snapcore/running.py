"""The running host: brings it back to what it was at `begin`, and disturbs nothing else.

The files are only half of it. In the order that works:

1. When the old files lie ready beside their places, what the new files have brought up and the old ones do not know,
   or know otherwise, is taken down by its stack: `ifdown` can't do that once the file is gone. A daemon needs none
   of this: of it only what was not at work at `begin` is taken down.
2. The files are put in place (`transaction`).
3. The stack brings up what it was told to take down, and what the new files had lost: those alone that were up at
   `begin`. What asks for a lease comes last, and nobody waits for it: until then it has its old address. A daemon is
   told to read its files, and asked for what it had at work at `begin` and no longer has.
4. The kernel's state is read again, and what still differs is repaired over netlink (`repair`).
5. It is read again. What remains is listed, and the transaction stays open.

A step that fails does not keep the others from being taken: what counts is what the kernel says in the end.

Strategies: `minimal` as above; `bounce-all` takes everything down and brings everything up; `netlink` leaves the
stack alone.
"""

from __future__ import annotations

import os
import time

from snapcore import profiles, stack, state
from snapcore.errors import NotSaved, SnapcoreError, Usage
from snapcore.files import join, split
from snapcore.host import covered
from snapcore.values import NamedTuple
from snapcore.words import instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Protocol

    from snapcore.host import Host
    from snapcore.netstate import Change, State
    from snapcore.repair import Action
    from snapcore.stack import Config, Ran, Stack
    from snapcore.state import Cover, Entry
    from snapcore.store import Reader, Record

    class Kernel(Protocol):
        """What `snapcore.kernel` offers."""

        def read(self, nft: bool = False) -> State: ...

        def restore(
            self, old: State, new_devices: str, external_ports: str, only: Sequence[str]
        ) -> tuple[list[Change], list[str]]: ...


MINIMAL, BOUNCE_ALL, NETLINK = "minimal", "bounce-all", "netlink"
STRATEGIES = (MINIMAL, BOUNCE_ALL, NETLINK)
DELETE, KEEP, RESTORE = "delete", "keep", "restore"

SETTLE_S = 4.0
"""How long is waited for what the kernel and the network do by themselves (duplicate address detection, carrier,
router advertisements) before what is missing is said to be missing."""
CALM_S = 0.3
"""A stack whose commands return early is done when the kernel has had nothing to tell for so long."""


class Ways(NamedTuple):
    """How a running host is brought back; '' in what a caller gives: as was said at `begin`."""

    strategy: str = ""
    new_devices: str = ""
    external_ports: str = ""
    kernel: bool = True
    """False: the files alone."""

    def checked(self) -> Ways:
        """`Usage` where a word is none of those that there are."""
        for name, value, words in (
            ("strategy", self.strategy, STRATEGIES),
            ("new-devices", self.new_devices, (DELETE, KEEP)),
            ("external-ports", self.external_ports, (KEEP, RESTORE)),
        ):
            if value and value not in words:
                raise Usage(f"--{name} {value}: {', '.join(words)}")
        return self


AS_BEGUN = Ways()


def saved(nft: bool = False) -> bytes:
    """The kernel's network state as it is now, as it is kept; `NotSaved`."""
    from snapcore import kernel, netstate

    why = kernel.missing()
    if why:
        raise NotSaved(f"the running state can't be saved, nothing is armed: {why}")
    try:
        active = {each.name: each.active() for each in stack.found(each.family for each in stack.ADAPTERS)}
        known = {name: devices for name, devices in active.items() if devices is not None}
        return netstate.to_json(kernel.read(nft=nft)._replace(active=known))
    except SnapcoreError as error:
        raise NotSaved(f"the running state can't be saved, nothing is armed: {error}") from error


class Texts(NamedTuple):
    """What is written in the files of the stacks' families: family → path relative to the root → text."""

    covers: Mapping[str, Cover]
    old: Mapping[str, dict[str, str]]
    new: Mapping[str, dict[str, str]]


def texts(
    host: Host,
    covers: Sequence[Cover],
    entries: Mapping[str, Entry],
    content: Callable[[str], bytes],
    spared: Iterable[str] = (),
) -> Texts:
    """Of the saved files and of those that are there now. A link is read as what it leads to.

    Paths in `spared` stay as they are now.
    """
    families = {adapter.family for adapter in stack.ADAPTERS}
    mine = {cover.family: cover for cover in covers if cover.family in families}
    tracked = next((cover for cover in covers if cover.family == "touched"), None)
    if tracked is not None:  # saved one by one: the others are as they were
        shipped = [profiles.load(name).cover() for name in sorted(families - mine.keys())]
        mine.update((cover.family, cover) for cover in host.resolve(shipped))
    old: dict[str, dict[str, str]] = {}
    new: dict[str, dict[str, str]] = {}
    for family, cover in mine.items():
        new[family] = _present(host, cover)
        old[family] = _texts({path: entry for path, entry in entries.items() if covered(path, [cover])}, content)
        if tracked is not None:
            kept = {path: text for path, text in new[family].items() if not covered(path, [tracked])}
            old[family] = {**kept, **old[family]}
        for path in spared:
            old[family].pop(path, None)
            if path in new[family]:
                old[family][path] = new[family][path]
    return Texts(mine, old, new)


def _present(host: Host, cover: Cover) -> dict[str, str]:
    found: dict[str, bytes] = {}

    def keep(path: str, _: Entry, data: bytes) -> None:
        found[path] = data

    return _texts(host.scan([cover], keep=keep, go_on=True).entries, found.__getitem__)


def _texts(entries: Mapping[str, Entry], content: Callable[[str], bytes]) -> dict[str, str]:
    found = {}
    for path in entries:
        at = path
        for _ in range(8):
            entry = entries.get(at)
            if entry is None or entry.kind != state.LINK:
                break
            target = entry.target if entry.target.startswith("/") else join(split(at)[0], entry.target)
            at = os.path.normpath(target).strip("/")
        entry = entries.get(at)
        if entry is not None and entry.kind == state.FILE:
            try:
                found[path] = content(at).decode("utf-8", "surrogateescape")
            except KeyError:  # changes while it is being read
                continue
    return found


class _Task(NamedTuple):
    """What one stack is asked for."""

    stack: Stack
    old: dict[str, Config]
    new: dict[str, Config]
    names: tuple[str, ...]
    """Those of both that are not written alike, or that a daemon has at work elsewhere than at `begin`, or all."""
    was: Mapping[str, str] | None = None
    """What a daemon had at work at `begin`: device → `Config.key`; None where that is not known."""
    now: Mapping[str, str] | None = None

    def differs(self, name: str) -> bool:
        old, new = self.old.get(name), self.new.get(name)
        return old is None or new is None or old.text != new.text

    def moved(self, name: str) -> bool:
        """Whether the daemon has it at work on other devices than at `begin`."""
        key = (self.old.get(name) or self.new[name]).key
        if not key or self.was is None or self.now is None:
            return False
        was, now = ({device for device, at_work in each.items() if at_work == key} for each in (self.was, self.now))
        return was != now


class Step(NamedTuple):
    """One thing that is asked of a stack."""

    action: str
    """`take-down` or `bring-up`."""
    config: Config
    stack: Stack
    detached: bool = False
    reloaded: bool = False
    """The daemon does it when it reads its files again."""

    @property
    def key(self) -> str:
        return f"{self.stack.name}:{self.config.name}"


class Running:
    """One rollback of a running host. `before_files`, `after_files`, in this order; the rest says what they would do.

    `saved` is the state at `begin`, None where only the files were saved (`load`): the stack does all then.
    `bounced` names what an earlier attempt has taken down (`Record.bounced`).
    """

    def __init__(
        self,
        kernel: Kernel | None,
        saved: State | None,
        ways: Ways,
        only: Sequence[str] = (),
        nft: bool = False,
        stacks: Sequence[Stack] = (),
        written: Texts | None = None,
        bounced: Sequence[str] = (),
    ) -> None:
        self._kernel = kernel
        self._saved = saved
        self._ways = Ways(ways.strategy or MINIMAL, ways.new_devices or DELETE, ways.external_ports or KEEP)
        self._only = tuple(only)
        self._nft = nft
        self._bounced = set(bounced)
        self._down: list[Step] = []
        self.notes: list[str] = []
        self.now = kernel.read(nft=nft) if kernel is not None and saved is not None else None
        self.undone = self._differences(self.now)
        """How the kernel's state differed before anything was done."""
        self._tasks = [] if ways.strategy == NETLINK or written is None else self._find_tasks(stacks, written)

    def _find_tasks(self, stacks: Sequence[Stack], written: Texts) -> list[_Task]:
        tasks = []
        for each in stacks:
            if each.family not in written.covers:
                continue
            cover = written.covers[each.family]
            old, new = (each.configs(files[each.family], cover) for files in (written.old, written.new))
            was = self._saved.active.get(each.name) if self._saved is not None else None
            task = _Task(each, old, new, (), was, each.active())
            names = [name for name in {**old, **new} if self._is_meant(task, name)]
            tasks.append(task._replace(names=tuple(names)))
        return tasks

    def _is_meant(self, task: _Task, name: str) -> bool:
        device = (task.old.get(name) or task.new[name]).device
        if self._only and device not in self._only and name not in self._only:
            return False
        if self._ways.strategy == BOUNCE_ALL or f"{task.stack.name}:{name}" in self._bounced:
            return True
        return task.differs(name) or task.moved(name)

    # What would be done.

    def to_take_down(self) -> list[Step]:
        """By the files that are there now; what stands on others first."""
        steps = []
        for task in self._tasks:
            names = [name for name in task.names if name in task.new and self._goes(task, name)]
            configs = sorted((task.new[name] for name in names), key=lambda each: (each.rank, each.name), reverse=True)
            steps += [Step("take-down", config, task.stack) for config in configs]
        return steps

    def _goes(self, task: _Task, name: str) -> bool:
        """Whether it has to go down before its file goes."""
        device, key = task.new[name].device, task.new[name].key
        there = self.now is None or not device or device in self.now.links
        keeps = self._ways.new_devices == KEEP and self._saved is not None and device not in self._saved.links
        if task.stack.daemon:
            at_work = [device for device, at_work in (task.now or {}).items() if at_work == key]
            return bool(key) and task.was is not None and not keeps and any(each not in task.was for each in at_work)
        if name not in task.old:
            return there and not keeps
        return there and self._needs_bounce(task, name)

    def _needs_bounce(self, task: _Task, name: str) -> bool:
        """Not where the kernel is as it was, unless a DHCP client may have come or gone."""
        if self._ways.strategy == BOUNCE_ALL or self.now is None:
            return True
        versions = [configs[name] for configs in (task.old, task.new) if name in configs]
        if any(each.dhcp or not each.device for each in versions):
            return True
        changed = {change.interface for change in self.undone}
        return any(each.device in changed for each in versions)

    def to_bring_up(self, taken_down: Iterable[str]) -> list[Step]:
        """By the old files: what was taken down, and what they alone know; only what was up at `begin`."""
        gone = {*taken_down, *self._bounced}
        steps = []
        for task in self._tasks:
            configs = []
            for name in task.names:
                config = task.old.get(name)
                if config is not None and self._comes(task, config, f"{task.stack.name}:{name}" in gone):
                    configs.append(config)
            configs.sort(key=lambda each: (each.rank, each.name))
            for each in configs:
                reloaded = task.stack.reloads and (task.differs(each.name) or f"{task.stack.name}:{each.name}" in gone)
                late = not task.stack.daemon and each.dhcp
                steps.append(Step("bring-up", each, task.stack, late, reloaded))
        return sorted(steps, key=lambda step: step.detached)

    def _comes(self, task: _Task, config: Config, gone: bool) -> bool:
        """Whether it was up at `begin` and has to come up again; `gone`: it was taken down."""
        name = config.name
        if config.setting or not self._was_up(task, config):
            return False
        if not task.stack.daemon:
            return gone or (name not in task.new and self._needs_bounce(task, name))
        return gone or task.moved(name) or self._needs_bounce(task, name)

    def _was_up(self, task: _Task, config: Config) -> bool:
        if task.was is not None and config.key:
            return config.key in task.was.values()
        if self._saved is None:
            return config.auto or _is_up(config.device)
        if not config.device:
            return True
        link = self._saved.links.get(config.device)
        return link is not None and link.up

    def repairs(self) -> list[Action]:
        """What netlink would have to do for the state as it is now."""
        from snapcore import repair

        if self._saved is None or self.now is None:
            return []
        ways = self._ways
        return repair.plan(self._saved, self.now, ways.new_devices, ways.external_ports, self._only)

    def _differences(self, now: State | None) -> list[Change]:
        if self._saved is None or now is None:
            return []
        from snapcore import netstate

        return netstate.differences(self._saved, now, self._only, self._ways.new_devices, self._ways.external_ports)

    # Doing it.

    def before_files(self) -> list[str]:
        """Step 1 is about to be taken: the names (`STACK:NAME`) of what it takes down, and of what a daemon is to be
        told of, to be written down: the next attempt finds no difference in the files.
        """
        self._down = self.to_take_down()
        told = [f"{task.stack.name}:{name}" for task in self._tasks if task.stack.daemon for name in task.names]
        return list(dict.fromkeys([*sorted(self._bounced), *(step.key for step in self._down), *told]))

    def take_down(self) -> None:
        """Step 1."""
        self._ask(self._down, lambda of, configs: of.down(configs))

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do besides the files."""
        return bool(self._down or self._bounced or self.undone or self.to_bring_up(()))

    def after_files(self) -> list[str]:
        """Steps 3 to 5; what still differs, one line each."""
        steps = self.to_bring_up(step.key for step in self._down)
        changed = [task for task in self._tasks if task.names]
        with _Events() as events:
            for task in changed:
                self._note(task.stack.reload([task.old.get(name) or task.new[name] for name in task.names]))
            now = [step for step in steps if not step.detached and not step.reloaded]
            self._ask(now, lambda of, configs: of.up(configs))
            if any(task.stack.daemon for task in changed):
                events.wait_for_calm(CALM_S, SETTLE_S)
            left = self._repair(events)
        late = [step for step in steps if step.detached]
        self._ask(late, lambda of, configs: of.up(configs, wait=False))
        return left

    def _ask(self, steps: Sequence[Step], what: Callable[[Stack, list[Config]], list[Ran]]) -> None:
        """Asks each stack once, for what stands together."""
        rest = list(steps)
        while rest:
            of = rest[0].stack
            count = next((n for n, step in enumerate(rest) if step.stack is not of), len(rest))
            self._note(what(of, [step.config for step in rest[:count]]))
            rest = rest[count:]

    def _note(self, done: Sequence[Ran]) -> None:
        self.notes.extend(str(ran) for ran in done if not ran.detached and ran.status != 0)

    def _repair(self, events: _Events) -> list[str]:
        """Repairs until nothing differs, or nothing more can be done and nothing comes by itself; what is left."""
        if self._saved is None or self._kernel is None:
            return []
        ways = self._ways
        deadline = time.monotonic() + SETTLE_S
        while True:
            try:
                left, troubles = self._kernel.restore(self._saved, ways.new_devices, ways.external_ports, self._only)
            except SnapcoreError as error:
                return [str(error)]
            if not left or not events.wait(deadline - time.monotonic()):
                return [*map(str, left), *troubles]


def of(
    host: Host,
    record: Record,
    reader: Reader,
    covers: Sequence[Cover],
    entries: Mapping[str, Entry],
    spared: Iterable[str] = (),
    ways: Ways = AS_BEGUN,
) -> tuple[Running | None, str, str]:
    """(the running part of a rollback, why there is none though one may be expected, what failed).

    `Corrupt` where the saved state is not what was saved.
    """
    if not record.kernel_sha256 or not ways.kernel:
        return None, "", ""
    if record.instance != instance():
        return None, "the files alone: the running state was saved by another boot, or in another network namespace", ""
    from snapcore import kernel, netstate

    why = kernel.missing()
    if why:
        return None, "", why
    before = netstate.from_json(reader.kernel(record.kernel_sha256), "the kernel's saved state")
    chosen = Ways(
        ways.strategy or record.strategy,
        ways.new_devices or record.new_devices,
        ways.external_ports or record.external_ports,
    )
    written = texts(host, covers, entries, reader.content, spared)
    stacks = stack.found(written.covers)
    try:
        return Running(kernel, before, chosen, record.only, record.nft, stacks, written, record.bounced), "", ""
    except SnapcoreError as error:
        return None, "", str(error)


def of_files(
    host: Host, covers: Sequence[Cover], entries: Mapping[str, Entry], content: Callable[[str], bytes]
) -> Running:
    """Where only files are to be given back: the stack takes down and brings up what they are about."""
    written = texts(host, covers, entries, content)
    return Running(None, None, Ways(), stacks=stack.found(written.covers), written=written)


def _is_up(device: str) -> bool:
    """Whether the administrator wants it up (IFF_UP); False where it is not there, or files name no device."""
    try:
        with open(f"/sys/class/net/{device}/flags", encoding="ascii") as file:
            return bool(int(file.read(), 16) & 1)
    except (OSError, ValueError):
        return False


class _Events:
    """`with _Events() as events`: whether the kernel tells of a change of links, addresses, routes or rules."""

    # linux/rtnetlink.h: RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE
    _GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400

    def __enter__(self) -> _Events:
        self._socket = self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def _listen(self) -> socket.socket | None:
        import socket

        try:
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)  # type: ignore[attr-defined,unused-ignore]  # Linux
        except OSError:
            return None
        try:
            made.bind((0, self._GROUPS))
        except OSError:
            made.close()
            return None
        made.setblocking(False)
        return made

    def wait(self, timeout_s: float) -> bool:
        """Until something changes; False if nothing did in that time. All that has come is read."""
        import select

        if self._socket is None or timeout_s <= 0:
            return False
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        if not waiting.poll(timeout_s * 1000):
            return False
        try:
            while self._socket.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        except OSError:
            return True  # ENOBUFS: more has changed than could be told
        return True

    def wait_for_calm(self, calm_s: float, at_most_s: float) -> None:
        """Until nothing has changed for `calm_s`."""
        deadline = time.monotonic() + at_most_s
        while self.wait(min(calm_s, deadline - time.monotonic())):
            pass

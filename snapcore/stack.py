"""The stacks of a host: the programs that turn configuration files into kernel state. One small adapter for each.

An adapter finds itself (`found`), says which of its configurations a changed file is about (`changed`), and takes
these down or brings them up by the stack's own commands. Every command has a deadline, no shell, and a standard input
that is empty; what it prints is kept for the report. None waits for DHCP: what asks for a lease is started and left
to itself.

References: ifup(8), interfaces(5); RHEL's initscripts, sysconfig.txt; networkctl(1); nmcli(1); netplan(8).
"""

from __future__ import annotations

import os
import select
import signal
import time
from abc import ABC, abstractmethod

from snapcore.files import shown, split
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from snapcore.state import Cover

COMMAND_S = 30.0
"""How long one command of a stack may take. What is not done by then is repaired over netlink, or reported."""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_BYTES = 4096


class Config(NamedTuple):
    """One configuration of a stack, as it is written in files."""

    name: str
    """What the stack's commands call it."""
    device: str
    """The interface that it is about; '' where the files do not say."""
    dhcp: bool = False
    auto: bool = True
    """Whether it comes up at a boot."""
    text: str = ""
    """All that is written about it, to compare."""
    rank: int = 0
    """What is lower comes up first and is taken down last."""
    key: str = ""
    """What the daemon's own notes call it (`Stack.active`)."""
    setting: bool = False
    """It is about a daemon itself: that reads it again, and nothing comes up or goes down."""


class Ran(NamedTuple):
    """A command, and how it ended."""

    words: tuple[str, ...]
    status: int | None
    """None: it was stopped at its deadline, or (`detached`) nobody waits for it."""
    output: str = ""
    detached: bool = False

    def __str__(self) -> str:
        how = f"exit status {self.status}" if self.status is not None else f"stopped after {COMMAND_S:g} s"
        said = "; ".join(line.strip() for line in self.output.splitlines()[-3:] if line.strip())
        return shown(f"{' '.join(self.words)}: {'left to itself' if self.detached else how}{said and f': {said}'}")


def run(words: Sequence[str], wait: bool = True) -> Ran:
    """Runs a command in a session of its own; `Ran`, also where the program can't be started (status 127).

    Its output goes to a file in memory and not through a pipe: a daemon that it leaves behind may keep that open.
    """
    import subprocess

    output = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        environment = {**os.environ, "PATH": PATH, "LC_ALL": "C"}
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Ran(tuple(words), 127, error.strerror or str(error))
        if not wait:
            process.returncode = 0  # init reaps it: nobody here asks how it ends
            return Ran(tuple(words), None, detached=True)
        status = _ended(process, COMMAND_S)
        said = os.pread(output, OUTPUT_BYTES, max(0, os.fstat(output).st_size - OUTPUT_BYTES))
        return Ran(tuple(words), status, said.decode("utf-8", "replace"))
    finally:
        os.close(output)


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit status; None where the process, with all of its session, was stopped at the deadline."""
    deadline = time.monotonic() + timeout_s
    try:
        fd = os.pidfd_open(process.pid)  # Linux 5.3
    except (OSError, AttributeError):
        fd = -1
    try:
        if fd >= 0:
            waiting = select.poll()
            waiting.register(fd, select.POLLIN)
            done = bool(waiting.poll(timeout_s * 1000))
            timeout_s = max(0.0, deadline - time.monotonic()) if done else 0.0
        import subprocess

        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
    finally:
        if fd >= 0:
            os.close(fd)


def program(name: str) -> str:
    """The path of a program of the system; '' if there is none."""
    return next((path for folder in PATH.split(":") if os.access(path := f"{folder}/{name}", os.X_OK)), "")


class Stack(ABC):
    """Base of the adapters. `runner` is `run`, or what a test has instead."""

    name = ""
    family = ""
    """The profile whose files it reads."""
    daemon = False
    """Whether a daemon does the work. It hears of changed files by `reload` and finds out by itself what they mean for
    what is up: nothing is taken down for them. Its commands may return before what they ask for is done."""
    reloads = False
    """Whether a reload alone brings up what changed files are about."""

    def __init__(self, runner: Callable[..., Ran] = run) -> None:
        self._run = runner

    @abstractmethod
    def found(self) -> bool:
        """Whether this stack is at work on this host."""

    @abstractmethod
    def configs(self, files: dict[str, str], cover: Cover) -> dict[str, Config]:
        """What the files (path relative to the root → text) of one family configure, by name."""

    def down(self, configs: Sequence[Config]) -> list[Ran]:
        """Takes configurations down by the files as they are now."""
        return []

    def up(self, configs: Sequence[Config], wait: bool = True) -> list[Ran]:
        """Brings configurations up by the files as they are now."""
        return []

    def reload(self, changed: Sequence[Config]) -> list[Ran]:
        """Tells a daemon that its files have changed, once, before anything comes up."""
        return []

    def active(self) -> dict[str, str] | None:
        """Device → `Config.key` of what a daemon has at work on it; None where the files alone decide that."""
        return None


class _Commands(Stack):
    """A stack that is nothing but `ifup` and `ifdown`."""

    place = ""
    """Where its files are."""

    def found(self) -> bool:
        return bool(program("ifup")) and os.path.exists(self.place)

    def _call(self, verb: str, *words: str, wait: bool = True) -> Ran:
        return self._run([program(verb) or verb, *words], wait=wait)


class Ifcfg(_Commands):
    """The network scripts of RHEL, CentOS and Fedora."""

    name = family = "ifcfg"
    place = "/etc/sysconfig/network-scripts"

    def configs(self, files: dict[str, str], cover: Cover) -> dict[str, Config]:
        found: dict[str, Config] = {}
        for path in sorted(files):
            name = cover.about(split(path)[1]).partition(":")[0]  # an alias comes up with its device
            if not name or name == "lo":
                continue
            before = found.get(name, Config(name, "", rank=2))
            text = f"{before.text}# {split(path)[1]}\n{files[path]}"
            if split(path)[1] != f"ifcfg-{name}":
                found[name] = before._replace(text=text)
                continue
            values = _shell_values(files[path])
            protocols = [values.get("BOOTPROTO", "").lower(), values.get("DHCPV6C", "").lower()]
            device = values.get("DEVICE") or name
            dhcp = protocols[0] in ("dhcp", "bootp") or protocols[1] == "yes"
            auto = values.get("ONBOOT", "yes").lower() not in ("no", "n", "false", "off", "0")
            found[name] = Config(name, device, dhcp, auto, text, _ifcfg_rank(values))
        return {name: each._replace(device=each.device or name) for name, each in found.items()}

    def down(self, configs: Sequence[Config]) -> list[Ran]:
        return [self._call("ifdown", each.name) for each in configs]

    def up(self, configs: Sequence[Config], wait: bool = True) -> list[Ran]:
        return [self._call("ifup", each.name, wait=wait) for each in configs]


def _shell_values(text: str) -> dict[str, str]:
    """KEY → value of plain assignments; a value that a shell would have to work out is as it stands."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.isidentifier():
            quote = value[0] if value[:1] in ("'", '"') else ""
            values[key] = value[1:].partition(quote)[0] if quote else value.partition(" ")[0]
    return values


def _ifcfg_rank(values: dict[str, str]) -> int:
    """Masters before their ports, all of these before what stands on them: as the scripts do it at a boot."""
    kind = values.get("TYPE", "").lower()
    if kind == "bridge":
        return 0
    if kind == "bond" or "BONDING_OPTS" in values or values.get("BONDING_MASTER", "").lower() == "yes":
        return 1
    return 3 if values.get("VLAN", "").lower() == "yes" or "PHYSDEV" in values else 2


class Ifupdown(_Commands):
    """ifup and ifdown of Debian, or of BusyBox (Alpine)."""

    name = family = "ifupdown"
    place = "/etc/network/interfaces"

    def configs(self, files: dict[str, str], cover: Cover) -> dict[str, Config]:
        found: dict[str, Config] = {}
        for path in sorted(files):
            for name, lines, dhcp in stanzas(files[path]):
                before = found.get(name, Config(name, name.partition(":")[0], auto=False, rank=len(found)))
                auto = before.auto or lines == "auto" or lines.startswith("allow-")
                found[name] = before._replace(dhcp=before.dhcp or dhcp, auto=auto, text=f"{before.text}{lines}\n")
        found.pop("lo", None)
        return found

    def down(self, configs: Sequence[Config]) -> list[Ran]:
        # --force: an interface that came up only in part counts as down, and would be left as it is
        options = ["-f"] if os.path.realpath(program("ifdown")).endswith("busybox") else ["-f", "--ignore-errors"]
        return [self._call("ifdown", *options, *(each.name for each in configs))] if configs else []

    def up(self, configs: Sequence[Config], wait: bool = True) -> list[Ran]:
        if wait:
            return [self._call("ifup", *(each.name for each in configs))] if configs else []
        return [self._call("ifup", each.name, wait=False) for each in configs]


def stanzas(text: str) -> Iterator[tuple[str, str, bool]]:
    """(interface, the lines about it, whether it asks for a lease) of each paragraph of interfaces(5)."""
    name, lines, dhcp = "", [""], False
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        keyword = words[0]
        if keyword == "iface" and len(words) > 1:
            if name:
                yield name, "\n".join(lines), dhcp
            name, lines, dhcp = words[1], [" ".join(words)], "dhcp" in words[2:]
        elif keyword in ("auto", "source", "source-directory", "source-dir", "mapping", "template", "rename") or (
            keyword.startswith(("allow-", "no-"))
        ):
            if name:
                yield name, "\n".join(lines), dhcp
            name = ""
            if keyword == "auto" or keyword.startswith("allow-"):
                yield from ((each, keyword, False) for each in words[1:])
        elif name:
            lines.append(" ".join(words))
    if name:
        yield name, "\n".join(lines), dhcp


NETIF_LINKS = "/run/systemd/netif/links"
"""networkd's notes on each device, named by its index; libsystemd's sd_network_link_get_setup_state reads them, too."""


class Networkd(Stack):
    """systemd-networkd: a reload reconfigures the interfaces that changed files are about, and those alone.

    To ask for these by name (`networkctl reconfigure`) after that would take their addresses away a second time. One
    that networkd has given up on (`failed`) has to be asked for: a reload passes it over.
    """

    name = family = "networkd"
    daemon = reloads = True

    def found(self) -> bool:
        return bool(program("networkctl")) and os.path.exists(NETIF_LINKS)

    def configs(self, files: dict[str, str], cover: Cover) -> dict[str, Config]:
        found: dict[str, Config] = {}
        for path in sorted(files):
            file = split(path)[1] if not path.endswith(".conf") else split(split(path)[0])[1].removesuffix(".d")
            values = _sections(files[path])
            device = values.get("match.name", "") or values.get("netdev.name", "")
            plain = device if device and not any(c in device for c in "*?[! ") else ""
            before = found.get(file, Config(file, plain, setting=not file.endswith((".network", ".netdev", ".link"))))
            dhcp = before.dhcp or values.get("network.dhcp", "no").lower() not in ("no", "false", "none")
            found[file] = before._replace(dhcp=dhcp, text=f"{before.text}{files[path]}")
        return found

    def reload(self, changed: Sequence[Config]) -> list[Ran]:
        return [
            self._run([program("networkctl"), "reload"]),
            *self.up([each for each in changed if _failed(each.device)]),
        ]

    def up(self, configs: Sequence[Config], wait: bool = True) -> list[Ran]:
        devices = sorted({each.device for each in configs if each.device})
        return [self._run([program("networkctl"), "reconfigure", *devices])] if devices else []


def _failed(device: str) -> bool:
    import socket

    try:
        with open(f"{NETIF_LINKS}/{socket.if_nametoindex(device)}", encoding="utf-8", errors="replace") as file:
            return "ADMIN_STATE=failed" in file.read().splitlines()
    except OSError:
        return False


NM_DEVICES = "/run/NetworkManager/devices"
"""NetworkManager's notes, an INI file for each device, named by its index (it reads them when it is started again)."""
NM_WAIT_S = 5
"""How long an activation without DHCP is waited for: a port may have no carrier."""


class NetworkManager(Stack):
    """NetworkManager, by nmcli. Which profile is at work on a device, and whether it is managed at all, is not in its
    files: what was so at `begin` is activated again, which also takes back `nmcli device set … managed no`.
    """

    name = "NetworkManager"
    family = "networkmanager"
    daemon = True

    def found(self) -> bool:
        return bool(program("nmcli")) and os.path.isdir(NM_DEVICES)

    def configs(self, files: dict[str, str], cover: Cover) -> dict[str, Config]:
        found = {}
        for path in sorted(files):
            values = _sections(files[path])
            if "system-connections" not in path:
                found[path] = Config(path, "", text=files[path], setting=True)
            elif values.get(".nmmeta.external", values.get(".nmmeta.nm-generated")) != "true":
                name = values.get("connection.id") or split(path)[1].removesuffix(".nmconnection")
                dhcp = values.get("ipv4.method") == "auto" or values.get("ipv6.method") in ("auto", "dhcp")
                auto = values.get("connection.autoconnect", "true").lower() != "false"
                device, key = values.get("connection.interface-name", ""), values.get("connection.uuid", "")
                found[name] = Config(name, device, dhcp, auto, files[path], _keyfile_rank(values), key)
        return found

    def active(self) -> dict[str, str] | None:
        import socket

        try:
            indexes = os.listdir(NM_DEVICES)
        except OSError:
            return None
        found = {}
        for index in indexes:
            try:
                with open(f"{NM_DEVICES}/{index}", encoding="utf-8", errors="replace") as file:
                    values = _sections(file.read())
                device = socket.if_indextoname(int(index))
            except (OSError, ValueError):
                continue  # it has gone since
            if values.get("device.connection-uuid") and values.get("device.managed") != "false":
                found[device] = values["device.connection-uuid"]
        return found

    def down(self, configs: Sequence[Config]) -> list[Ran]:
        return [self._nmcli("connection", "down", *_which(each)) for each in configs]

    def reload(self, changed: Sequence[Config]) -> list[Ran]:
        # With --wait 0 nmcli gives up before the daemon has answered, and NetworkManager then does not do it.
        conf = [self._nmcli("general", "reload", "conf")] if any(each.setting for each in changed) else []
        return [*conf, self._nmcli("connection", "reload")]

    def up(self, configs: Sequence[Config], wait: bool = True) -> list[Ran]:
        return [
            self._nmcli("--wait", str(0 if each.dhcp else NM_WAIT_S), "connection", "up", *_which(each))
            for each in configs
        ]

    def _nmcli(self, *words: str) -> Ran:
        return self._run([program("nmcli"), *words])


def _which(config: Config) -> tuple[str, str]:
    """Two profiles may have one id."""
    return ("uuid", config.key) if config.key else ("id", config.name)


def _keyfile_rank(values: dict[str, str]) -> int:
    """What has ports, before these, and these before what stands on them."""
    if values.get("connection.master") or values.get("connection.controller"):
        return 1
    return {"bridge": 0, "bond": 0, "team": 0, "vrf": 0, "vlan": 3}.get(values.get("connection.type", ""), 2)


SYSTEMD = "/run/systemd/private"
"""The socket by which systemctl talks to a systemd that is PID 1. The folder of sd_booted(3) does not tell: netplan
makes it."""


class Netplan(Stack):
    """netplan, which writes the files of networkd or NetworkManager; these do the work.

    What it wrote is given back with its own files, and the renderer told: netplan itself is asked only where that is
    not so, or would not be enough. `netplan apply` would disturb every interface that it knows.
    """

    name = family = "netplan"
    daemon = reloads = True

    rendered = False
    """Whether the files that it writes are given back, too."""
    BEYOND = ("wifis", "openvswitch", "virtual-function")
    """What it configures by other means than those files."""

    def found(self) -> bool:
        return bool(program("netplan")) and os.path.isdir("/etc/netplan")

    def configs(self, files: dict[str, str], cover: Cover) -> dict[str, Config]:
        return {
            path: Config(path, "", "dhcp" in text, text=text)
            for path, text in sorted(files.items())
            if not self.rendered or any(word in text for word in self.BEYOND)
        }

    def reload(self, changed: Sequence[Config]) -> list[Ran]:
        generated = self._run([program("netplan"), "generate"])
        if generated.status:
            return [generated]
        if os.path.exists(SYSTEMD):  # apply calls systemctl
            return [self._run([program("netplan"), "apply"])]
        renderers = [each for each in (Networkd(self._run), NetworkManager(self._run)) if each.found()]
        return [ran for each in renderers for ran in each.reload([Config("", "", setting=True)])]


def _sections(text: str) -> dict[str, str]:
    """section.key → value, in lower case but for the values, of an INI file; the first one of several counts."""
    section = ""
    values: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].lower()
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            if equals:
                values.setdefault(f"{section}.{key.strip().lower()}", value.strip())
    return values


ADAPTERS: tuple[type[Stack], ...] = (Ifcfg, Ifupdown, Networkd, NetworkManager, Netplan)


def found(families: Iterable[str], runner: Callable[..., Ran] = run) -> list[Stack]:
    """The stacks that are at work on this host and read files of these families."""
    wanted = set(families)
    made = [adapter(runner) for adapter in ADAPTERS if adapter.family in wanted]
    for each in made:
        if isinstance(each, Netplan):
            each.rendered = {Networkd.family, NetworkManager.family} <= wanted
    return [each for each in made if each.found()]

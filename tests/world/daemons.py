"""The daemons of a distribution in a machine: systemd-networkd, NetworkManager, and netplan in front of networkd.

Nothing is installed on this host: a network manager that starts here would take over its network. What a machine
needs and this host does not have is fetched by apt-get into a cache folder, unpacked there, and copied to the
machine's own disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from laboratory import Server

from sim.mechanisms import snapcore
from sim.scenario import FileText
from sim.session import Events
from sim.steps import write_file

CACHE = Path(__file__).parents[2] / ".cache" / "daemons"
FETCH_S = 300.0
BECOMES_S = 10.0
"""How long a daemon may take for what it was told to do."""

NETWORKD = "/etc/systemd/network"
KEYFILES = "/etc/NetworkManager/system-connections"

_USERS = "\n".join(
    f"getent passwd {name} > /dev/null || {{ echo {name}:x:{number}:{number}::/:/usr/sbin/nologin >> /etc/passwd;"
    f" echo {name}:x:{number}: >> /etc/group; }}"
    for name, number in (("messagebus", 989), ("systemd-network", 990))
)
_BUS = "[ -s /etc/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id; dbus-daemon --system --fork"
_NETWORKD = """
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network
chown -R systemd-network:systemd-network /run/systemd/netif
setsid /lib/systemd/systemd-networkd > /run/networkd.log 2>&1 < /dev/null &
"""
_NETWORKMANAGER = """
printf '[main]\\nplugins=keyfile\\ndns=none\\nno-auto-default=*\\n' > /etc/NetworkManager/NetworkManager.conf
NetworkManager > /run/NetworkManager.log 2>&1
"""


@dataclass(frozen=True)
class Daemon:
    """How one is started in a machine, and what it says about a port."""

    packages: tuple[str, ...]
    start: str
    about: Callable[[str], str]
    """Command that prints what it says about a device."""
    settled: str
    """What is in that when it has done what it had to."""


_ON_NETWORKD = (lambda port: f"networkctl --no-pager --no-legend list {port}", " configured")
DAEMONS = {
    "networkd": Daemon(("systemd", "dbus"), _NETWORKD, *_ON_NETWORKD),
    "netplan": Daemon(("netplan.io", "systemd", "dbus"), f"ldconfig; netplan generate; {_NETWORKD}", *_ON_NETWORKD),
    "NetworkManager": Daemon(
        ("network-manager", "dbus"),
        _NETWORKMANAGER,
        lambda port: f"nmcli -t -g GENERAL.STATE,GENERAL.CONNECTION device show {port}",
        "100 (connected)",
    ),
}


class NotThere(Exception):
    """A daemon can't be had on this host."""


class Host(Server):
    """A machine whose ports `daemon` looks after by these files (path → text), with snapcore on it."""

    def __init__(self, daemon: str, files: Mapping[str, str], dad: bool = False) -> None:
        super().__init__("ifcfg", {}, dad)  # its own stack has nothing to do
        self.daemon = DAEMONS[daemon]
        self.files = files
        for path, file in snapcore.mechanism().install.items():
            write_file(self.machine, path, file)
        subprocess.run(["cp", "-a", f"{tree(self.daemon.packages)}/.", self.machine.path("/")], check=True)
        self.sh(_USERS)
        self.write(files)
        self.start()
        self.kernel = self.state()
        self.written = self.all_files()

    def start(self) -> None:
        """The bus and the daemon, until both ports are as its files say."""
        self.sh(f"{_BUS}; {self.daemon.start}")
        for port in ("eth0", "eth1"):
            self.settle(port)

    def settle(self, port: str) -> str:
        """What the daemon says about a port as soon as it has done what it had to; where it asks for a lease, now."""
        leased = any("dhcp" in text.lower() and port in text for text in self.files.values())
        about = self.daemon.about(port)
        return self.until(about, f"{port} " if leased else self.daemon.settled)

    def write(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            mode = 0o644 if path.startswith(NETWORKD) else 0o600
            write_file(self.machine, path, FileText(text.encode(), mode), keep_mode=False)

    def until(self, command: str, wanted: str) -> str:
        """The command's output as soon as that is in it; it must come to that."""
        deadline = time.monotonic() + BECOMES_S
        with contextlib.closing(Events(self.machine)) as events:
            while wanted not in (said := self.do(command).output):
                left = deadline - time.monotonic()
                assert left > 0, f"{command}: never {wanted!r}: {said}{self.do('tail -n 20 /run/*.log').output}"
                events.wait(min(0.1, left))
                events.drain()
        return said

    def all_files(self) -> str:
        """Every file that one of the daemons reads, by what is in it."""
        places = f"{NETWORKD} /run/systemd/network /etc/NetworkManager /etc/netplan /run/NetworkManager/system-c*"
        return self.sh(f"find {places} -type f -exec sha256sum {{}} + 2> /dev/null | sort -k 2 || :")

    @contextlib.contextmanager
    def heard(self, port: str) -> Iterator[list[str]]:
        """What the kernel tells of a port meanwhile; two more lines if it was made again, or lost its carrier."""
        names = ("ifindex", "carrier_changes", "carrier_up_count", "carrier_down_count")
        counts = "cat " + " ".join(f"/sys/class/net/{port}/{name}" for name in names)
        before = self.sh(counts)
        self.sh(f"ip monitor link address route dev {port} > /tmp/heard 2>&1 & echo $! > /tmp/monitor")
        said: list[str] = []
        yield said
        self.sh("kill $(cat /tmp/monitor)")
        after = self.sh(counts)
        said += self.sh("cat /tmp/heard").splitlines() + ([] if after == before else [before, after])


@functools.cache
def why_not(daemon: str) -> str:
    """Why that daemon can't be had here; '' if it can."""
    try:
        tree(DAEMONS[daemon].packages)
    except NotThere as error:
        return str(error)
    return ""


def tree(packages: tuple[str, ...]) -> Path:
    """A folder with what of these packages, and of all that they need, is not installed here. `NotThere`.

    It is made once for a set of installed packages; processes that want the same one wait for each other.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotThere(f"{packages[0]}: the program {program}, to fetch it, is not installed")
    installed = Path("/var/lib/dpkg/status").stat().st_mtime_ns
    key = hashlib.sha256(repr((packages, installed, Path("/etc/os-release").read_text())).encode()).hexdigest()[:12]
    made = CACHE / f"{packages[0]}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            for older in CACHE.glob(f"{packages[0]}-*"):
                shutil.rmtree(older)
            _fetch(packages, CACHE / "new")
            os.rename(CACHE / "new", made)
    return made


def _fetch(packages: tuple[str, ...], to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    debs = to / "debs"
    debs.mkdir(parents=True)
    try:
        options, names = _missing_packages(packages)
        if names:
            _run("apt-get", *options, "download", *names, cwd=debs)
        for deb in sorted(debs.iterdir()):
            _run("dpkg-deb", "-x", str(deb), str(to))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise NotThere(f"{packages[0]} can't be fetched: {said.strip()}") from error
    shutil.rmtree(debs)
    for part in ("doc", "man", "locale", "lintian", "bash-completion"):
        shutil.rmtree(to / "usr/share" / part, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if (to / name).is_dir() and Path("/", name).is_symlink():  # /usr is merged
            shutil.copytree(to / name, to / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(to / name)


def _missing_packages(packages: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(options of apt-get, the names): by the host's lists, or by lists of our own where it has none."""
    simulate = ("install", "-s", "--no-install-recommends", *packages)
    options: list[str] = []
    try:
        said = _run("apt-get", *simulate)
    except subprocess.CalledProcessError:
        own = CACHE / "apt"
        (own / "lists/partial").mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::Lists={own}/lists", "-o", f"Dir::Cache={own}"]
        _run("apt-get", *options, "update")
        said = _run("apt-get", *options, *simulate)
    return options, [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]


def _run(*words: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, timeout=FETCH_S, cwd=cwd, env=environment
    )  # fmt: skip
    return done.stdout

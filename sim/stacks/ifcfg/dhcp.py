"""Runs the DHCP client that is installed in the machine: dhclient, udhcpc or dhcpcd, whichever is found first."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

TIMEOUT_S = 30.0  # for the first lease
SEARCHED = "/sbin:/usr/sbin:/bin:/usr/bin"
_CLIENTS = ("dhclient", "udhcpc", "dhcpcd")


def client(family: str) -> str | None:
    """The path of a client for "4" or "6"; None: none is installed."""
    names = _CLIENTS if family == "4" else ("dhclient", "dhcpcd")
    return next((found for name in names if (found := shutil.which(name, path=SEARCHED))), None)


def start(device: str, family: str, root: Path = Path("/")) -> str:
    """Asks for a lease and leaves the client running. -> "" or why there is none."""
    program = client(family)
    if program is None:
        return f"no DHCPv{family} client is installed (dhclient, udhcpc or dhcpcd); no address by DHCP"
    pid_file = str(_pid_file(device, family, root))
    leases = root / f"var/lib/dhclient/dhclient{'6' if family == '6' else ''}-{device}.leases"
    arguments = {
        "dhclient": ["-1", "-q", *(["-6"] if family == "6" else []), "-lf", str(leases), "-pf", pid_file, device],
        "udhcpc": ["-q" if family == "6" else "-b", "-n", "-i", device, "-p", pid_file],
        "dhcpcd": [f"-{family}", "-q", "-w", device],
    }[Path(program).name]
    if Path(program).name == "dhclient":
        leases.parent.mkdir(parents=True, exist_ok=True)
    nothing = subprocess.DEVNULL
    words = [program, *arguments]
    # a session of its own: dhclient forks before it has a lease, and all of it must go when the time is over
    with subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True) as process:
        try:
            status = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stop(device, family, root)
            return f"{program}: no lease on {device} within {TIMEOUT_S:g} s"
    return "" if status == 0 else f"{program}: no lease on {device} (exit status {status})"


def stop(device: str, family: str, root: Path = Path("/")) -> None:
    """Ends the client of a device; does nothing where none runs."""
    program = client(family) or ""
    if Path(program).name == "dhcpcd":
        subprocess.run([program, f"-{family}", "-q", "-x", device], stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
        return
    pid_file = _pid_file(device, family, root)
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    pid_file.unlink(missing_ok=True)


def _pid_file(device: str, family: str, root: Path) -> Path:
    return root / f"run/dhclient{'6' if family == '6' else ''}-{device}.pid"

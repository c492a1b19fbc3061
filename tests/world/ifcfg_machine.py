"""A network namespace with cables, a file tree, and the kernel state as iproute2 shows it (not as the stack does)."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from children import in_namespaces

from sim.stacks.ifcfg import dhcp, programs
from sim.stacks.ifcfg.model import FOLDER, NETWORK

FAMILIES = (("-4", ""), ("-6", "-6 "))
SYSCTLS = ("accept_ra", "accept_redirects", "autoconf", "disable_ipv6", "forwarding", "mtu", "use_tempaddr")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Machine:
    """The machine under test: ports whose cables end in the same namespace, and a root folder."""

    def __init__(self, root: Path, ports: Sequence[str] = ("eth0", "eth1"), dad: bool = False) -> None:
        self.root = root
        if not dad:
            for name in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
        dhcp.SEARCHED = ""  # whatever this host has installed; we are in a process of our own
        ip("link", "set", "lo", "up")
        for number, name in enumerate(ports):
            mac = f"02:00:00:00:00:{number + 1:02x}"
            peer = f"far{number}"
            ip("link", "add", name, "address", mac, "type", "veth", "peer", "name", peer)
            Path(f"/proc/sys/net/ipv6/conf/{peer}/disable_ipv6").write_text("1")
            ip("link", "set", peer, "up")
        (root / FOLDER.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.output = ""

    def path(self, name: str) -> Path:
        if name.startswith("/"):
            return self.root / name.lstrip("/")
        return self.root / (NETWORK if name == "network" else f"{FOLDER}/{name}").lstrip("/")

    def write(self, files: Mapping[str, str | None]) -> None:
        """NAME (in network-scripts) or /absolute -> text; None removes."""
        for name, text in files.items():
            path = self.path(name)
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

    def run(self, program: str, *arguments: str) -> int:
        """ifup, ifdown or network; what it prints is kept in `output`."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status: int = getattr(programs, program)(arguments, root=self.root)
        self.output = out.getvalue()
        return status

    def state(self) -> dict[str, Any]:
        """Everything that must be equal between a fresh boot and a rollback, in iproute2's words."""
        links: dict[str, Any] = {}
        for link in json.loads(ip("-j", "-d", "link")):
            name = link["ifname"]
            if name.startswith("far"):
                continue
            words = ["up" if "UP" in link["flags"] else "down", f"mtu {link['mtu']}"]
            if link.get("linkinfo", {}).get("info_kind") != "bridge":
                words.append(link["address"])
            words += [f"master {link['master']}"] if "master" in link else []
            data = link.get("linkinfo", {}).get("info_data", {})
            if link.get("linkinfo", {}).get("info_kind") == "bridge":
                words += [f"{key} {data[key]}" for key in ("stp_state", "forward_delay", "priority", "ageing_time")]
            links[name] = " ".join(words)
        addresses: dict[str, list[str]] = {}
        for link in json.loads(ip("-j", "addr")):
            if link["ifname"].startswith(("far", "lo")):
                continue
            addresses[link["ifname"]] = [_address(one, link["ifname"]) for one in link["addr_info"]]
        routes = [f"{shown}{line}" for family, shown in FAMILIES for line in _routes(family)]
        rules = [
            f"{shown}{' '.join(line.split())}" for family, shown in FAMILIES for line in ip(family, "rule").splitlines()
        ]
        sysctls = {name: {key: value for key in SYSCTLS if (value := _sysctl(name, key)) is not None} for name in links}
        return {"links": links, "addresses": addresses, "routes": routes, "rules": rules, "sysctls": sysctls}


def _routes(family: str) -> list[str]:
    lines = ip(family, "-o", "route", "show", "table", "all").splitlines()
    words = [line.replace("\\", " ").split() for line in lines if "dev far" not in line]
    return [" ".join(word for word in line if word != "linkdown").replace(" pref medium", "") for line in words]


def _sysctl(device: str, name: str) -> str | None:
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{device}/{name}").read_text().strip()
    except FileNotFoundError:
        return None


def _address(one: Mapping[str, Any], device: str) -> str:
    text = f"{one['local']}/{one['prefixlen']}"
    if one.get("broadcast"):
        text += f" brd {one['broadcast']}"
    if one["scope"] != "global":
        text += f" scope {one['scope']}"
    for flag in ("secondary", "tentative", "dadfailed", "dynamic", "deprecated"):
        text += f" {flag}" if one.get(flag) else ""
    if one["family"] == "inet" and one.get("label") != device:
        text += f" label {one.get('label')}"
    return text


def on_machine(work: Callable[[Machine], Any], **options: Any) -> Any:
    """Runs `work(machine)` in a fresh namespace with a fresh root folder."""

    def inside() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return work(Machine(Path(folder), **options))

    return in_namespaces(inside)

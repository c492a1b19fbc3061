"""What was applied, kept below /run: the truth that take-down and selective reload go by.

One JSON file for each ifcfg file that was brought up, one for each device that was made, one for the rules.
Every file is replaced by rename, so a program that is killed leaves the last true record.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sim.stacks.ifcfg.iproute import Hop, Route, Rule
from sim.stacks.ifcfg.model import Address, Interface

PLACE = "run/sim/ifcfg"


@dataclass(frozen=True)
class Applied:
    """An interface that was brought up, wholly or in part.

    `mtu`, `mac`, `sysctls` are the values before the first change (None, or absent: not changed). `state` says
    whether a program is at it (or was killed while it was), or failed (the next one starts over), or is done.
    """

    interface: Interface
    device: str
    ifindex: int
    mtu: int | None = None
    mac: str | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()  # those that the kernel took, each with its device
    raised: str = ""  # a device below it that was set up for its sake
    dhcp: tuple[str, ...] = ()  # the clients that were started: "4", "6"
    state: Literal["changing", "failed", "complete"] = "changing"
    problems: tuple[str, ...] = ()  # what a boot cannot do either (routes that lead nowhere): told, not tried again

    @property
    def order(self) -> tuple[int, str, float, str]:
        return self.interface.order


@dataclass(frozen=True)
class Made:
    """A device that was made, with its options as the kernel gave them. `ifindex` 0: it was about to be made."""

    device: str
    kind: str
    ifindex: int
    options: Mapping[str, int]


def what_matters(interface: Interface) -> Interface:
    """An interface without what can change under it without taking it down (rules, name servers, ONBOOT)."""
    return replace(interface, onboot=True, rules=(), dns=(), domain="", messages=())


class Records:
    """The folder of records below a root. A record that cannot be read counts as none."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.folder = root / PLACE
        for name in ("applied", "made"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def applied(self) -> list[Applied]:
        """In the order of a boot."""
        found = [_applied(value) for value in self._all("applied")]
        return sorted(found, key=lambda record: record.order)

    def get(self, name: str) -> Applied | None:
        return next((record for record in self.applied() if record.interface.name == name), None)

    def put(self, record: Applied) -> None:
        self._write(f"applied/{_file(record.interface.name)}", dataclasses.asdict(record))

    def remove(self, name: str) -> None:
        (self.folder / "applied" / _file(name)).unlink(missing_ok=True)

    def made(self) -> dict[str, Made]:
        return {value["device"]: Made(**value) for value in self._all("made")}

    def put_made(self, made: Made) -> None:
        self._write(f"made/{_file(made.device)}", dataclasses.asdict(made))

    def remove_made(self, device: str) -> None:
        (self.folder / "made" / _file(device)).unlink(missing_ok=True)

    def rules(self) -> list[Rule]:
        """The rules that are in the kernel because of us, in the order of adding."""
        value = self._read(self.folder / "rules.json")
        return [_rule(item) for item in value["rules"]] if value else []

    def rules_are_changing(self) -> bool:
        """A program is at the rules, or was killed while it was: not all of `rules()` need be in the kernel."""
        value = self._read(self.folder / "rules.json")
        return bool(value and value["changing"])

    def put_rules(self, rules: list[Rule], changing: bool = False) -> None:
        value = {"changing": changing, "rules": [dataclasses.asdict(rule) for rule in rules]}
        self._write("rules.json", value)

    def names(self) -> Any:
        """What was last put with `put_names`; None: nothing yet."""
        value = self._read(self.folder / "names.json")
        return value["names"] if value else None

    def put_names(self, names: Any) -> None:
        """What /etc/resolv.conf was made of."""
        self._write("names.json", {"names": names})

    def _all(self, name: str) -> list[dict[str, Any]]:
        found = [self._read(path) for path in sorted((self.folder / name).glob("*.json"))]
        return [value for value in found if value is not None]

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return value

    def _write(self, name: str, value: dict[str, Any]) -> None:
        path = self.folder / name
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(value, indent=1))
        os.replace(temporary, path)


def _file(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape") + ".json"


def _pairs(value: list[list[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((first, second) for first, second in value)


def _route(value: dict[str, Any]) -> Route:
    hops = tuple(Hop(**hop) for hop in value["hops"])
    return Route(**{**value, "hops": hops, "metrics": _pairs(value["metrics"])})


def _rule(value: dict[str, Any]) -> Rule:
    ports = {name: tuple(value[name]) if value[name] else None for name in ("sport", "dport")}
    return Rule(**{**value, **ports})


def _interface(value: dict[str, Any]) -> Interface:
    return Interface(
        **{
            **value,
            "bridge": _pairs(value["bridge"]),
            "bonding": _pairs(value["bonding"]),
            "sysctls": _pairs(value["sysctls"]),
            "addresses": tuple(Address(**address) for address in value["addresses"]),
            "routes": tuple(_route(route) for route in value["routes"]),
            "rules": tuple(_rule(rule) for rule in value["rules"]),
            "dns": tuple(value["dns"]),
            "messages": (),
        }
    )


def _applied(value: dict[str, Any]) -> Applied:
    return Applied(
        **{
            **value,
            "interface": _interface(value["interface"]),
            "sysctls": _pairs(value["sysctls"]),
            "routes": tuple(_route(route) for route in value["routes"]),
            "dhcp": tuple(value["dhcp"]),
            "problems": tuple(value["problems"]),
        }
    )

"""The embedded stack: RHEL's /etc/sysconfig/network-scripts, read and applied without any system package.

parse      text -> assignments and argument lines, with line numbers            pure
iproute    arguments of `ip route` and `ip rule` -> values                      pure
model      all files -> the interfaces that they ask for                        pure
render     the subset of netplan's YAML -> files                                pure
files      reads the files below a root
kernel     links, addresses, routes, rules and sysctls over rtnetlink
record     what was applied, kept below /run/sim/ifcfg
apply      interfaces -> kernel, and back
resolv     /etc/resolv.conf
dhcp       runs the DHCP client that is installed
programs   ifup, ifdown, /etc/init.d/network
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.stacks.base import DHCLIENT_CONF, Stack, builtin_script
from sim.stacks.ifcfg.model import FOLDER, IGNORED_SUFFIXES
from sim.stacks.ifcfg.render import render


def _ifup(arguments: Sequence[str]) -> int:
    from sim.stacks.ifcfg import programs  # needs pyroute2, which rendering does not

    return programs.ifup(arguments)


def _ifdown(arguments: Sequence[str]) -> int:
    from sim.stacks.ifcfg import programs

    return programs.ifdown(arguments)


def _network(arguments: Sequence[str]) -> int:
    from sim.stacks.ifcfg import programs

    return programs.network(arguments)


def _missing() -> str | None:
    """Also loads the programs, so that a process which asked has them ready when it forks."""
    try:
        from sim.stacks.ifcfg import programs  # noqa: F401
    except ImportError as error:
        return f"the Python package {error.name} is not installed"
    return None


STACK = Stack(
    name="ifcfg",
    patterns=tuple(f"{FOLDER}/{kind}-*" for kind in ("ifcfg", "route", "rule", "route6", "rule6", "keys")),
    ignored=tuple(f"*{suffix}" for suffix in IGNORED_SUFFIXES),
    start="/etc/init.d/network start",
    stop="/etc/init.d/network stop",
    reload="/etc/init.d/network reload",
    render=render,
    programs={
        "/usr/sbin/ifup": builtin_script("ifup", "Bring an interface up: ifup CONFIGURATION [boot]"),
        "/usr/sbin/ifdown": builtin_script("ifdown", "Take an interface down: ifdown CONFIGURATION"),
        "/etc/init.d/network": builtin_script("network", "Bring up/down networking"),
        "/etc/dhcp/dhclient.conf": DHCLIENT_CONF,
    },
    builtins={"ifup": _ifup, "ifdown": _ifdown, "network": _network},
    selective_reload=True,
    records=("/etc/resolv.conf.save",),  # there while a name server of an ifcfg file is in /etc/resolv.conf
    missing=_missing,
)

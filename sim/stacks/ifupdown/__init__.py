"""Debian's ifupdown: /etc/network/interfaces, applied by the real ifup(8) and ifdown(8).

render     the subset of netplan's YAML -> files                                pure
script     start, reload and stop, around ifup and ifdown

A reload takes everything down with the configuration that was applied last and brings all up again, so no interface
is left alone (`selective_reload` is False).
"""

from __future__ import annotations

import shutil

from sim.stacks.base import DHCLIENT_CONF, Stack
from sim.stacks.ifupdown.render import INTERFACES, render
from sim.stacks.ifupdown.script import NETWORKING, PROGRAM

PROGRAMS = {"ifup": "ifupdown", "ifdown": "ifupdown", "ifquery": "ifupdown", "ip": "iproute2", "sysctl": "procps"}
"""Program -> the Debian package that has it."""

HOOKS = {f"/etc/network/{name}.d/.placeholder": "" for name in ("if-pre-up", "if-up", "if-down", "if-post-down")}
"""The package's folders for hooks, empty: ifup gives up without them, and run-parts(8) passes over such names."""

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def _missing() -> str | None:
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if not lacking:
        return None
    packages = sorted({PROGRAMS[name] for name in lacking})
    return f"{', '.join(lacking)} not installed (Debian package{'s' * (len(packages) > 1)} {', '.join(packages)})"


STACK = Stack(
    name="ifupdown",
    patterns=(INTERFACES, f"{INTERFACES}.d/*"),
    ignored=("*[!a-zA-Z0-9_-]*",),  # interfaces(5), source-directory
    start=f"{PROGRAM} start",
    stop=f"{PROGRAM} stop",
    reload=f"{PROGRAM} reload",
    render=render,
    programs={PROGRAM: NETWORKING, "/etc/dhcp/dhclient.conf": DHCLIENT_CONF, **HOOKS},
    missing=_missing,
    packages=("ifupdown", "iproute2", "procps"),
)

"""The network sysctls of a fresh machine: the kernel's own defaults, then what its files say (sysctl.d(5)).

A new network namespace copies IPv4's settings from the first one (net.core.devconf_inherit_init_net is 0:
Documentation/admin-guide/sysctl/net.rst), that is from whatever the host of the laboratory happens to have.
"""

from __future__ import annotations

import fcntl
import glob
import os
import socket
import struct
from collections.abc import Mapping

_DEFAULTS = {
    "forwarding": "0",
    "rp_filter": "0",
    "accept_redirects": "1",
    "secure_redirects": "1",
    "send_redirects": "1",
    "shared_media": "1",
    "accept_source_route": "0",
    "log_martians": "0",
    "proxy_arp": "0",
    "arp_filter": "0",
    "arp_announce": "0",
    "arp_ignore": "0",
    "arp_accept": "0",
    "arp_notify": "0",
    "promote_secondaries": "0",
}
LABORATORY = {
    "net/ipv4/icmp_ratelimit": "0",  # so that no probe goes unanswered for being the second in a second
    "net/ipv6/icmp/ratelimit": "0",
    "net/ipv4/ping_group_range": "0 0",
}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


def write(values: Mapping[str, str], root: str = "/") -> list[str]:
    """Write sysctls (keys with slashes or dots); returns a line for each one that the kernel does not take."""
    refused = []
    for key, value in values.items():
        path = os.path.join(root, "proc/sys", key if "/" in key else key.replace(".", "/"))
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(value)
        except OSError as error:
            refused.append(f"{key}: {error.strerror}")
    return refused


def reset() -> None:
    """The kernel's defaults in this network namespace, and the laboratory's patience with ICMP."""
    values = {
        f"net/ipv4/conf/{scope}/{name}": value for scope in ("all", "default") for name, value in _DEFAULTS.items()
    }
    write(values | LABORATORY)


def no_duplicate_address_detection() -> dict[str, str]:
    """The sysctls that make IPv6 addresses usable at once (DAD costs 1.4 s after every link-up)."""
    return {f"net/ipv6/conf/{scope}/{name}": "0" for scope in ("all", "default") for name in ("accept_dad",)}


def apply_files(root: str) -> None:
    """What /etc/sysctl.d/*.conf and /etc/sysctl.conf say about the network, as at a real boot (sysctl.d(5))."""
    paths = sorted(glob.glob(os.path.join(root, "etc/sysctl.d/*.conf"))) + [os.path.join(root, "etc/sysctl.conf")]
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as lines:
                write(dict(_assignments(lines.read())))
        except OSError:
            continue


def _assignments(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        key = key.strip().lstrip("-")
        if equals and not key.startswith(("#", ";")) and key.replace("/", ".").startswith("net."):
            found.append((key, value.strip()))
    return found


def loopback_up() -> None:
    """Bring `lo` up, as every init does (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))

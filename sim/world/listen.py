"""Hears what happens to the links, addresses and routes of a machine while it boots (rtnetlink(7)).

The kernel keeps every message until it is asked for: nobody has to read while the machine boots, and nothing that was
there only for a moment is missed.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from sim.world import kernel

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # linux/rtnetlink.h, RTMGRP_*: links, addresses and routes, IPv4 and IPv6
_SO_RCVBUFFORCE = 33  # socket(7): beyond rmem_max, for who has CAP_NET_ADMIN in the first user namespace
_BUFFER = 16 << 20


@dataclass(frozen=True)
class Heard:
    """`messages`: datagrams of rtnetlink, in order; `names`: ifindex -> name of the links that were there before.

    `overflow`: there were more than the socket could hold, and some are lost.
    """

    messages: tuple[bytes, ...]
    names: dict[int, str]
    overflow: bool


class Listener:
    """Opens in a network namespace and hears from then on. Raises OSError."""

    def __init__(self, netns: int) -> None:
        with kernel.inside(netns):
            self._names = dict(socket.if_nameindex())
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, _GROUPS))
        self._socket.setblocking(False)

    def take(self) -> Heard:
        """All that was heard since the last time."""
        messages: list[bytes] = []
        overflow = False
        while True:
            try:
                messages.append(self._socket.recv(1 << 16))
            except BlockingIOError:
                return Heard(tuple(messages), self._names, overflow)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # netlink(7): said once, then what is left can be read
                    raise
                overflow = True

    def close(self) -> None:
        """Let the namespace go."""
        self._socket.close()

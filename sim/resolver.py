"""What a stub resolver knows of names: which servers are asked, the questions, the answers. Pure.

Sources: resolv.conf(5), RFC 1035, RFC 3596. A name resolves, as for getaddrinfo(3), when it has an address of either
family.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Literal

MOST_SERVERS = 3  # resolv.conf(5): MAXNS
KINDS = (1, 28)  # A (RFC 1035, section 3.2.2), AAAA (RFC 3596, section 2.1)
_NXDOMAIN = 3
_CODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}

Answer = Literal["address", "no-address", "no-name", "no-help"]


def name_servers(text: str) -> list[str]:
    """The addresses of the first three `nameserver` lines of a resolv.conf; lines that are no address are passed over.

    Unlike glibc's resolver this one asks nobody when there is no such line.
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if line[:10] == "nameserver" and len(words) > 1 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append(words[1])
    return found[:MOST_SERVERS]


def questions(name: str, number: int) -> list[bytes]:
    """The queries of one attempt: for A and for AAAA, under ids that `answer` can tell apart."""
    labels = b"".join(bytes([len(part)]) + part for part in name.rstrip(".").encode("idna").split(b".") if part)
    return [
        struct.pack("!HHHHHH", (number * len(KINDS) + index) & 0xFFFF, 0x0100, 1, 0, 0, 0)
        + labels
        + struct.pack("!BHH", 0, kind, 1)
        for index, kind in enumerate(KINDS)
    ]


def answer(data: bytes) -> tuple[int, Answer, str]:
    """-> (record type that was asked for, what the response says, the same in words) (RFC 1035, section 4.1.1)."""
    if len(data) < 12:
        return 0, "no-help", "the name server's answer is cut off"
    number, flags, _, answers = struct.unpack_from("!HHHH", data)
    kind, code = KINDS[number % len(KINDS)], flags & 0x0F
    if code == _NXDOMAIN:
        return kind, "no-name", "the name server knows no such name (NXDOMAIN)"
    if code:
        return kind, "no-help", f"the name server answers {_CODES.get(code, code)}"
    return kind, "address" if answers else "no-address", "" if answers else "the name has no address"

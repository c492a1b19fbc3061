"""The stub resolver: which servers are asked, and what their answers mean."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from sim.resolver import answer, name_servers, questions


def test_the_first_three_name_servers_count_and_what_is_no_address_does_not() -> None:
    text = "search example.org\nnameserver 192.0.2.1\n# nameserver 192.0.2.2\nnameserver\nnameserver wrong\n"
    text += "nameservers 192.0.2.3\n nameserver 192.0.2.4\nnameserver\t2001:db8::1 # far\n"
    text += "nameserver 192.0.2.5\nnameserver 192.0.2.6\n"
    assert name_servers(text) == ["192.0.2.1", "2001:db8::1", "192.0.2.5"]


@given(st.text())
def test_no_resolver_file_is_too_strange(text: str) -> None:
    assert len(name_servers(text)) <= 3


def reply(query: bytes, code: int = 0, answers: int = 0) -> bytes:
    return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, answers, 0, 0) + query[12:]


def test_both_address_types_are_asked_for_and_told_apart() -> None:
    a, aaaa = questions("www.example.org", 7)
    assert a.endswith(b"\x03www\x07example\x03org\0\0\x01\0\x01")
    assert aaaa.endswith(b"\0\0\x1c\0\x01")
    assert answer(reply(a, answers=1))[:2] == (1, "address")
    assert answer(reply(aaaa))[:2] == (28, "no-address")


def test_a_name_that_does_not_exist_is_told_from_a_server_that_cannot_help() -> None:
    query = questions("nothing.example", 0)[0]
    assert answer(reply(query, code=3))[1] == "no-name"
    _, says, words = answer(reply(query, code=5))
    assert (says, words) == ("no-help", "the name server answers REFUSED")


@given(st.binary(max_size=64))
def test_no_answer_is_too_strange(data: bytes) -> None:
    assert answer(data)[1] in ("address", "no-address", "no-name", "no-help")

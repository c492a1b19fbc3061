"""Probes against servers, tables and connections of this host."""

from __future__ import annotations

import contextlib
import http.server
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapcore import probes
from snapcore.errors import Usage
from snapcore.probes import Connection, Result


def measured(spec: str, limit_s: float = 5.0) -> Result:
    return probes.measured(probes.parse(spec), time.monotonic() + limit_s)


@pytest.mark.parametrize(
    ("spec", "valid"),
    [
        ("", "ping:HOST"),
        ("pong:192.0.2.1", "exec:COMMAND"),
        ("ping:", "ping:HOST[,size=BYTES]"),
        ("ping:192.0.2.1,size=big", "0 to 65000"),
        ("ping:192.0.2.1,colour=red", "ping:HOST[,size=BYTES]"),
        ("tcp:192.0.2.1", "tcp:HOST:PORT"),
        ("tcp:192.0.2.1:0", "1 to 65535"),
        ("tcp::22", "tcp:HOST:PORT"),
        ("tcp:2001:db8::1", "tcp:HOST:PORT"),
        ("dns:", "dns:NAME[@SERVER]"),
        ("dns:a..b", "dns:NAME[@SERVER]"),
        ("dns:example.org@", "dns:NAME[@SERVER]"),
        ("http:", "http://"),
        ("https:example.org", "https://"),
        ("route:192.0.2.0/24", "route:default"),
        ("client:ssh", "client"),
        ("exec:", "exec:COMMAND"),
        ("exec", "exec:COMMAND"),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused_and_told_what_would(spec: str, valid: str) -> None:
    with pytest.raises(Usage) as refused:
        probes.parse(spec)
    assert valid in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_port_that_accepts_passes_and_one_that_refuses_does_not(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        try:
            server.bind((host.strip("[]"), 0))
        except OSError:
            pytest.skip("no IPv6 here")
        server.listen()
        port = server.getsockname()[1]
        assert measured(f"tcp:{host}:{port}").passed
    refused = measured(f"tcp:{host}:{port}")
    assert not refused.passed and "refused" in refused.words


def test_a_name_that_does_not_exist_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    for spec in ("tcp:nowhere.invalid:22", "ping:nowhere.invalid", "dns:example.org@nowhere.invalid"):
        assert "no such name" in measured(spec).words


@pytest.mark.parametrize(("command", "passed"), [("true", True), ("exit 3", False), ("kill -9 $$", False)])
def test_a_command_passes_when_it_ends_with_0(command: str, passed: bool) -> None:
    assert measured(f"exec:{command}").passed is passed


def test_a_command_that_takes_too_long_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    held = measured(f"exec:sh -c 'exec tail -f /dev/null > {fifo}'; true", 0.5)
    assert not held.passed and "in time" in held.words
    poll = select.poll()
    poll.register(reading, 0)
    assert poll.poll(5000) == [(reading, select.POLLHUP)]  # nobody has it open any more
    os.close(reading)


class Page(http.server.BaseHTTPRequestHandler):
    """/ is there, /moved leads to it, all else is not."""

    def do_GET(self) -> None:
        self.send_response({"/": 200, "/moved": 302}.get(self.path, 404))
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_passes_when_it_is_given() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{server.server_address[1]}"
        assert measured(f"{where}/").passed
        assert measured(f"{where}/moved").passed
        assert measured(f"{where}/gone") == Result(f"{where}/gone", False, "status 404")
        server.shutdown()
    assert "refused" in measured(f"{where}/").words


# dns


ALIAS = 5


def record(kind: int, data: bytes) -> bytes:
    """Of the name that was asked for (a pointer to it), for a minute."""
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


RECORDS = {
    1: record(1, bytes([192, 0, 2, 7])),
    28: record(28, b"\x20\x01\x0d\xb8".ljust(16, b"\0")),
    ALIAS: record(ALIAS, b"\3far\4away\0"),
}


@contextlib.contextmanager
def name_server(monkeypatch: pytest.MonkeyPatch, code: int, answers: dict[int, int], deaf: int = 0) -> Iterator[None]:
    """Answers with `code` and so many records of the type asked for, and aliases; not the first `deaf` times."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
        monkeypatch.setattr(probes, "_addresses", lambda *_: [(socket.AF_INET, address)])

        def serve() -> None:
            heard = 0
            while True:
                question, client = server.recvfrom(1000)
                if not question:
                    return
                heard += 1
                if heard > deaf:
                    (kind,) = struct.unpack("!H", question[-4:-2])
                    kinds = [kind] * answers.get(kind, 0)
                    kinds += [ALIAS] * answers.get(ALIAS, 0)
                    head = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(kinds), 0, 0)
                    server.sendto(b"junk", client)
                    server.sendto(head + question[12:] + b"".join(map(RECORDS.__getitem__, kinds)), client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", address)
            thread.join()


@pytest.mark.parametrize(
    ("code", "answers", "words"),
    [
        (0, {1: 1}, "an A record"),
        (0, {28: 2}, "an AAAA record"),
        (0, {1: 1, ALIAS: 2}, "an A record"),
        (0, {ALIAS: 1}, "no address"),
        (0, {}, "no address"),
        (3, {}, "no such name"),
        (5, {}, "refused"),
    ],
)
def test_a_name_passes_when_its_server_gives_an_address(
    monkeypatch: pytest.MonkeyPatch, code: int, answers: dict[int, int], words: str
) -> None:
    with name_server(monkeypatch, code, answers):
        found = measured("dns:www.example.org@192.0.2.53")
    assert found.passed == bool({1, 28} & answers.keys()) and words in found.words


def test_a_server_that_is_no_address_keeps_none_of_the_others_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "name_servers", lambda: ["fe80::53%gone7", "192.0.2.53"])
    with name_server(monkeypatch, 0, {1: 1}):
        there = probes._addresses

        def addresses(host: str, port: int, kind: int) -> Iterator[tuple[int, tuple[object, ...]]]:
            if host != "192.0.2.53":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            yield from there(host, port, kind)

        monkeypatch.setattr(probes, "_addresses", addresses)
        assert measured("dns:example.org").passed


def test_a_probe_that_can_not_be_started_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    found: list[Result] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    probes.start(probes.parse("exec:true"), 1.0, lambda probe, result: found.append(result))
    assert found == [Result("exec:true", False, "can't start new thread")]


def test_a_question_that_is_lost_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "AGAIN_S", 0.05)
    with name_server(monkeypatch, 0, {1: 1}, deaf=4):
        assert measured("dns:example.org@192.0.2.53").passed
    with name_server(monkeypatch, 0, {}, deaf=1000):
        assert measured("dns:example.org@192.0.2.53", 0.2).words == "no answer"


def test_the_servers_are_those_of_the_resolvers_file(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.2\nnameserver 2001:db8::53\n")
    assert probes.name_servers(str(path)) == ["192.0.2.2", "2001:db8::53"]
    assert probes.name_servers(str(tmp_path / "none")) == []


# ping


def test_an_echo_comes_back_from_this_host() -> None:
    try:
        probes._icmp_socket(socket.AF_INET, socket.IPPROTO_ICMP).close()
    except PermissionError:
        pytest.skip("this user may not ping with sockets of its own")
    for spec in ("ping:127.0.0.1", "ping:127.0.0.1,size=0", "ping:127.0.0.1,size=1471"):
        assert measured(spec).passed, spec
    assert "too long" in measured("ping:127.0.0.1,size=65000").words or measured("ping:127.0.0.1,size=65000").passed


# route

HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
DEFAULT4 = "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
LAN4 = "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
REJECT4 = "* 00000000 00000000 0201 0 0 0 00000000 0 0 0\n"
ZERO = "0" * 32
DEFAULT6 = f"{ZERO} 00 {ZERO} 00 {'1' * 32} 00000400 00000001 00000000 00000003 eth0\n"
REJECT6 = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200 lo\n"


@pytest.mark.parametrize(
    ("four", "six", "families"),
    [
        (HEAD + LAN4, REJECT6, set()),
        (HEAD + LAN4 + DEFAULT4, REJECT6, {"IPv4"}),
        (HEAD + REJECT4, DEFAULT6, {"IPv6"}),
        (HEAD + DEFAULT4, None, {"IPv4"}),
    ],
)
def test_a_default_route_is_one_that_leads_somewhere(
    tmp_path: Path, four: str, six: str | None, families: set[str]
) -> None:
    (tmp_path / "route").write_text(four)
    if six is not None:
        (tmp_path / "ipv6_route").write_text(six)
    assert probes.default_routes(str(tmp_path)) == families


def test_a_default_route_by_a_device_of_any_name_is_one(tmp_path: Path) -> None:
    line = b"b\xc3\xb6se\xff0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    (tmp_path / "route").write_bytes(b"Iface\tDestination\n" + line)
    assert probes.default_routes(str(tmp_path)) == {"IPv4"}


def test_each_family_that_had_a_default_route_must_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probes.parse("route:default")
    seen = []
    for families in ({"IPv6"}, {"IPv4", "IPv6"}, {"IPv4"}):  # a host with IPv6 alone is asked for no IPv4
        monkeypatch.setattr(probes, "default_routes", lambda families=families: frozenset(families))
        seen.append(probes.measured(probe, 0.0))
    assert [each.passed for each in seen] == [True, True, False]
    assert seen[-1].words == "no default route for IPv6"


# client


@contextlib.contextmanager
def session(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket, Connection]]:
    """(the server's end, the client's end, the connection as the server's host sees it)."""
    with socket.socket(family) as listener:
        try:
            listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            server = listener.accept()[0]
            with server:
                local, remote = server.getsockname(), server.getpeername()
                yield server, client, Connection((local[0], local[1]), (remote[0], remote[1]))


def named(monkeypatch: pytest.MonkeyPatch, connection: Connection) -> None:
    """As sshd says it to its sessions."""
    (here, port), (there, other) = connection
    monkeypatch.setenv("SSH_CONNECTION", f"{there} {other} {here} {port}")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_whose_bytes_are_acknowledged_makes_progress(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    with session(family) as (server, client, connection):
        named(monkeypatch, connection)
        probe = probes.parse("client", lambda: server.sendall(b"\0\0\0"))
        found = probes.measured(probe, time.monotonic() + 5)
        assert found.passed and "3 bytes acknowledged" in found.words
        assert client.recv(10) == b"\0\0\0"


def test_a_connection_that_carries_nothing_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with session() as (_, _, connection):
        named(monkeypatch, connection)
        found = probes.measured(probes.parse("client"), time.monotonic() + 0.2)
        assert not found.passed and "idle" in found.words


def test_a_connection_that_the_other_side_has_closed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with session() as (server, client, connection):
        named(monkeypatch, connection)
        probe = probes.parse("client", lambda: None)
        client.close()
        assert server.recv(1) == b""
        assert "is closed" in probes.measured(probe, time.monotonic() + 5).words


def test_a_session_without_a_connection_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setattr(probes, "_sockets_of", lambda pid: [])
    assert measured("client").words == "this session came by no TCP connection"


def test_a_connection_that_an_ancestor_has_accepted_is_the_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    with session() as (server, _, connection):
        where = str(Path(probes.__file__).parents[1])
        ask = (
            f"import sys; sys.path.insert(0, {where!r}); from snapcore import probes; print(probes.client_connection())"
        )
        between = [sys.executable, "-I", "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
        found = subprocess.run([*between, sys.executable, "-I", "-c", ask], stdout=subprocess.PIPE, text=True)
        assert found.stdout.strip() == str(connection)
        server.close()


def test_addresses_of_the_kernels_tables_are_read_in_both_families(tmp_path: Path) -> None:
    columns = "st tx:rx tr:when retrnsmt uid timeout inode"
    (tmp_path / "tcp").write_text(f"sl local rem {columns}\n 0: 0100007F:0016 0A0200C0:D431 01 0:0 0:0 0 0 0 4711 1\n")
    (tmp_path / "tcp6").write_text(
        f"sl local rem {columns}\n"
        " 0: 0000000000000000FFFF00000A0200C0:0016 0000000000000000FFFF0000140200C0:D431 01 0:0 0:0 0 0 0 4712 1\n"
        " 1: B80D0120000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4713 1\n"
    )
    if sys.byteorder != "little":
        pytest.skip("these tables are of a little-endian machine")
    assert probes.tcp_table(str(tmp_path)) == [
        ("4711", Connection(("127.0.0.1", 22), ("192.0.2.10", 54321)), 1),
        ("4712", Connection(("192.0.2.10", 22), ("192.0.2.20", 54321)), 1),
        ("4713", Connection(("2001:db8::1", 22), ("::", 0)), 10),
    ]

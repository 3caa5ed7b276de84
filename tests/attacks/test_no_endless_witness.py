"""A witness that is slow, silent, endless or somewhere else costs seconds and kilobytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from common.errors import CairnError, InputDataError, UnreachableError, VerificationError
from common.witness.client import WitnessClient
from common.witness.server import CONNECTIONS
from common.witness.wire import MAX_ANSWER_BYTES
from tests.common.witness.conftest import bench, log  # noqa: F401

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@contextmanager
def liar(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of something that takes a request and then does as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                behave(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(10)


def silent(connection: socket.socket) -> None:
    connection.settimeout(10)
    connection.recv(1)


def dripping_head(connection: socket.socket) -> None:
    for number in range(200):
        connection.sendall(b"HTTP/1.1 200 OK\r\n" if number == 0 else b"x: y\r\n")
        time.sleep(0.05)


def dripping_body(connection: socket.socket) -> None:
    connection.sendall(OK + b"Content-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b"%x\r\n" % 65_536 + b"x" * 65_536 + b"\r\n"
    for _ in range(2000):
        connection.sendall(piece)


def endless_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100_000):
        connection.sendall(b"a: " + b"b" * 1000 + b"\r\n")


@pytest.mark.parametrize("behave", [silent, dripping_head, dripping_body, endless, endless_head])
def test_an_answer_is_whole_within_its_time_and_size_or_none(behave):
    client = WitnessClient(answer_s=0.6)
    began = time.monotonic()
    with liar(behave) as url, pytest.raises((UnreachableError, VerificationError)):
        client.add_checkpoint(url, b"old 0\n\n")
    assert time.monotonic() - began < 5


def test_a_compressed_answer_is_not_unpacked():
    import gzip

    bomb = gzip.compress(b"x" * 50_000_000)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with liar(lambda connection: connection.sendall(head + bomb)) as url:
        answer = WitnessClient().add_checkpoint(url, b"old 0\n\n")
    assert answer.body == bomb
    assert len(answer.body) <= MAX_ANSWER_BYTES


def test_a_redirect_leads_nowhere():
    asked = []

    def elsewhere(connection: socket.socket) -> None:
        asked.append(connection)
        connection.sendall(
            b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/add-checkpoint\r\n"
            b"Content-Length: 0\r\n\r\n"
        )

    with liar(elsewhere) as url:
        assert WitnessClient().add_checkpoint(url, b"old 0\n\n").status == 307
    assert len(asked) == 1


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    body = OK + b"Content-Length: 2\r\n\r\nhi"
    with liar(lambda connection: connection.sendall(body)) as url:
        assert WitnessClient().add_checkpoint(url, b"old 0\n\n").body == b"hi"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://169.254.169.254",
        "https://u:p@x.example",
        "https://x.example/?q",
        "gopher://x",
        "https://x.example/a b",
        "http://127.0.0.1.evil.example",
        "",
    ],
)
def test_only_tls_or_this_machine_is_asked(url):
    with pytest.raises(InputDataError):
        WitnessClient().add_checkpoint(url, b"")


def test_idle_connections_do_not_keep_a_witness_from_others(bench, log, monkeypatch):  # noqa: F811
    monkeypatch.setattr("common.witness.server.REQUEST_S", 0.5)
    with bench.served(log) as url:
        port = int(url.rsplit(":", 1)[1])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS + 4)]
        try:
            assert WitnessClient().add_checkpoint(url, log.ask(0)).status == 200
        finally:
            for connection in idle:
                connection.close()


def test_nothing_that_comes_ends_a_witness(bench, log):  # noqa: F811
    bodies = [b"old 0\n\n" + b"\xff" * 99, b"\0" * 4096, b"old 0\n" * 5000, b"old 9" * 9]
    with bench.served(log) as url:
        client = WitnessClient()
        for body in bodies:
            with suppress(CairnError):
                assert client.add_checkpoint(url, body).status == 400
        assert client.add_checkpoint(url, log.ask(0)).status == 200

"""A client and a server of ours over a real socket: bounded, over TLS, and journaled."""

from __future__ import annotations

import contextlib
import socket

import pytest
from cryptography.hazmat.primitives import serialization as pem

from common.crypto.certificates import create_authority, issue_server_certificate
from common.errors import VerificationError
from common.ledger.durable import StorageError
from common.witness.client import WitnessClient, connect
from common.witness.server import Address
from tests.common.witness.conftest import ORIGIN


def test_a_ledger_is_witnessed_over_http_and_its_note_can_be_fetched(bench, log):
    sent = []
    client = WitnessClient(connect=noted(sent.append))
    with bench.served(log) as url:
        assert client.add_checkpoint(url, log.ask(0)).status == 200
        seen = log.size
        answer = client.add_checkpoint(f"{url}/", log.grow(9).ask(seen))
        latest = client.latest(url, ORIGIN)
    assert answer.status == 200
    assert latest.body == log.note + answer.body
    assert [request.method for request in sent] == ["POST", "POST", "GET"]
    assert sent[1].url.path == "/add-checkpoint"
    assert sent[1].read() == log.ask(seen)


def noted(note):
    """Make a client that tells of every request before it is sent."""

    def connect_noting(trust, timeout):
        client = connect(trust, timeout)
        client.event_hooks = {"request": [note]}
        return client

    return connect_noting


def test_a_journal_that_fails_keeps_the_request_here(bench, log):
    def full(_):
        raise StorageError("the disk is full")

    with bench.served(log) as url:
        with pytest.raises(StorageError):
            WitnessClient(connect=noted(full)).add_checkpoint(url, log.ask(0))
        assert WitnessClient().latest(url, ORIGIN).status == 404


def test_tls_needs_an_authority_that_is_known(bench, log, tmp_path):
    key, certificate = create_authority("witness authority")
    server_key, server = issue_server_certificate(key, certificate, ["127.0.0.1"])
    (tmp_path / "ca.crt").write_bytes(certificate.public_bytes(pem.Encoding.PEM))
    (tmp_path / "w.crt").write_bytes(server.public_bytes(pem.Encoding.PEM))
    (tmp_path / "w.key").write_bytes(
        server_key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    )
    address = Address(certificate=tmp_path / "w.crt", key=tmp_path / "w.key")
    with bench.served(log, address=address) as url:
        trusted = WitnessClient(tmp_path / "ca.crt")
        assert trusted.add_checkpoint(url, log.ask(0)).status == 200
        with pytest.raises(VerificationError, match="does not verify"):
            WitnessClient().add_checkpoint(url, log.ask(1))


def test_what_is_no_http_ends_the_connection_and_nothing_else(bench, log):
    with bench.served(log) as url:
        port = int(url.rsplit(":", 1)[1])
        for rubbish in (b"\x16\x03\x01" * 99, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9999, b""):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.settimeout(5)
                with contextlib.suppress(ConnectionError):
                    raw.sendall(rubbish)
                    with contextlib.suppress(OSError):  # it may have hung up already
                        raw.shutdown(socket.SHUT_WR)
                    while raw.recv(4096):
                        pass
        client = WitnessClient()
        assert client.add_checkpoint(url, b"x" * 200_000).status == 413
        assert client.add_checkpoint(url, log.ask(0)).status == 200

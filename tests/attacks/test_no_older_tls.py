"""Nobody speaks TLS 1.2 with a federation: not to its servers, and not in their place."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aggregator.handshake import insist_on_tls_1_3, trusting
from aggregator.rounds.superlink import SuperLink
from common.crypto.certificates import (
    certificate_to_pem,
    create_authority,
    generate_node_key,
    issue_server_certificate,
    write_certificate,
    write_node_key,
    write_tls_key,
)
from common.errors import CairnError, InternalError
from site_client.courier.fleet import Fleet
from site_client.probe import probe
from tests.releases import a_journal

_SERVER = """
import sys
from aggregator.rounds.guarded_superlink import serve

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

key, certificate, port = sys.argv[1:]
serve(app=app, host="127.0.0.1", port=int(port), ssl_keyfile=key, ssl_certfile=certificate,
      log_level="critical", reload=False, workers=1)
"""
OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A folder with an authority's certificate and a server's for loopback."""
    folder = tmp_path_factory.mktemp("pki")
    ca_key, authority = create_authority("Federation")
    key, certificate = issue_server_certificate(ca_key, authority, ["127.0.0.1"])
    write_tls_key(folder / "server.key", key)
    write_certificate(folder / "server.crt", certificate)
    (folder / "ca.crt").write_bytes(certificate_to_pem(authority))
    write_node_key(folder / "node.key", generate_node_key())
    return folder


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return probe_socket.getsockname()[1]


@pytest.fixture(scope="module")
def superlink(pki) -> Iterator[int]:
    """The server as ``guarded_superlink`` starts it, around an app that says hello."""
    port = free_port()
    program = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(pki / "server.key"), str(pki / "server.crt"), str(port)]
    )
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                threading.Event().wait(0.05)
        yield port
    finally:
        program.terminate()
        program.wait(20)


def handshake(port: int, authority: bytes, version: ssl.TLSVersion) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode())
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.version()


def test_the_superlink_shakes_no_hand_with_tls_1_2(superlink, pki):
    authority = (pki / "ca.crt").read_bytes()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(superlink, authority, OLD)
    assert handshake(superlink, authority, NEW) == "TLSv1.3"
    insist_on_tls_1_3("127.0.0.1", superlink, "the SuperLink", "")


@pytest.fixture
def old(pki) -> Iterator[tuple[int, list[str | None]]]:
    """Somebody in the server's place who has its key, and speaks TLS 1.2 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    context.maximum_version = OLD
    spoken: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def answer():
            while True:
                try:
                    plain, _ = listener.accept()
                    with context.wrap_socket(plain, server_side=True) as secure:
                        spoken.append(secure.version())
                except TimeoutError:
                    return
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1], spoken


def test_no_client_of_ours_shakes_hands_with_tls_1_2(old, pki, tmp_path):
    port, spoken = old
    address, authority = f"127.0.0.1:{port}", (pki / "ca.crt").read_bytes()
    courier = Fleet(
        address, authority, (pki / "node.key").read_bytes(), a_journal(tmp_path / "journal")
    )
    with pytest.raises(CairnError):
        courier.activate(None)
    with SuperLink(address, authority) as link, pytest.raises(CairnError):
        link.nodes()
    with pytest.raises(CairnError):
        probe(address, str(pki / "ca.crt"))
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
    ):
        trusting(authority).wrap_socket(plain, server_hostname="127.0.0.1")
    assert spoken == []


def test_an_aggregator_that_would_speak_it_does_not_start(old):
    port, _ = old
    with pytest.raises(InternalError, match=r"TLS 1\.2"):
        insist_on_tls_1_3("127.0.0.1", port, "the SuperLink", "")

"""The authority's certificates satisfy strict TLS clients, and only the right ones."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from common.crypto.certificates import (
    certificate_fingerprint,
    certificate_to_pem,
    create_authority,
    generate_node_key,
    issue_server_certificate,
    node_public_line,
    parse_certificate,
    parse_node_public_key,
    read_certificate,
    read_node_key,
    read_tls_key,
    write_certificate,
    write_node_key,
    write_tls_key,
)
from common.errors import InputDataError

HOSTS = ["localhost", "127.0.0.1", "::1", "cairn.example.org"]


@pytest.fixture(scope="module")
def authority():
    return create_authority("Cairn test federation")


def handshake(tmp_path, authority, trusted, *, name="localhost", version=None, **issued) -> str:
    """Connect over loopback; the negotiated protocol, or an ``ssl.SSLError``."""
    key, certificate = issue_server_certificate(*authority, HOSTS, **issued)
    for path, write, value in (
        (tmp_path / "server.key", write_tls_key, key),
        (tmp_path / "server.pem", write_certificate, certificate),
        (tmp_path / "ca.pem", write_certificate, trusted),
    ):
        write(path, value)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.minimum_version = version or ssl.TLSVersion.TLSv1_2
    client.maximum_version = version or ssl.TLSVersion.TLSv1_3
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname(), timeout=30)
    theirs, _ = listener.accept()
    listener.close()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as tls:
                tls.sendall(tls.recv(5))
        except OSError:  # the client hung up, which is what the test is about
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as tls:
            tls.sendall(b"hello")
            assert tls.recv(5) == b"hello"
            return tls.version() or ""
    finally:
        ours.close()
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.mark.parametrize("name", HOSTS)
def test_a_strict_client_accepts_the_server_under_each_of_its_names(tmp_path, authority, name):
    assert handshake(tmp_path, authority, authority[1], name=name) == "TLSv1.3"


def test_a_client_limited_to_tls_1_2_is_served(tmp_path, authority):
    version = ssl.TLSVersion.TLSv1_2
    assert handshake(tmp_path, authority, authority[1], version=version) == "TLSv1.2"


def test_a_server_of_another_authority_is_refused(tmp_path, authority):
    stranger = create_authority("Cairn test federation")  # the same name, another key
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, stranger, authority[1])


def test_another_host_name_is_refused(tmp_path, authority):
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(tmp_path, authority, authority[1], name="example.org")


def test_an_expired_certificate_is_refused(tmp_path, authority):
    last_year = datetime.now(UTC) - timedelta(days=365)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(tmp_path, authority, authority[1], days=30, now=last_year)


def test_grpc_accepts_the_server_and_refuses_another_authority(authority):
    grpc = pytest.importorskip("grpc")
    key, certificate = issue_server_certificate(*authority, ["localhost", "127.0.0.1"])
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    credentials = grpc.ssl_server_credentials([(pem, certificate_to_pem(certificate))])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        stranger = create_authority("Cairn test federation")
        for trusted, welcome in ((authority[1], True), (stranger[1], False)):
            pinned = grpc.ssl_channel_credentials(certificate_to_pem(trusted))
            with grpc.secure_channel(f"127.0.0.1:{port}", pinned) as channel:
                ready = grpc.channel_ready_future(channel)
                if welcome:
                    ready.result(timeout=30)
                else:
                    with pytest.raises(grpc.FutureTimeoutError):
                        ready.result(timeout=1)
                ready.cancel()
    finally:
        server.stop(None).wait()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here")
def test_openssl_verifies_the_chain_strictly_for_a_server(tmp_path, authority):
    _, certificate = issue_server_certificate(*authority, HOSTS)
    write_certificate(tmp_path / "ca.pem", authority[1])
    write_certificate(tmp_path / "server.pem", certificate)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver"]
    checked = subprocess.run(
        [*command, "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "server.pem")],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert checked.returncode == 0, checked.stderr


def test_the_authority_signs_servers_and_nothing_below_them(authority):
    certificate = authority[1]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature


def test_a_server_certificate_names_its_hosts_and_cannot_sign(authority):
    _, certificate = issue_server_certificate(*authority, HOSTS)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "cairn.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(authority[1])


def test_a_server_certificate_never_outlives_its_authority():
    authority = create_authority("short", days=10)
    _, certificate = issue_server_certificate(*authority, ["localhost"], days=800)
    assert certificate.not_valid_after_utc == authority[1].not_valid_after_utc
    with pytest.raises(InputDataError, match="expired"):
        issue_server_certificate(
            *authority, ["localhost"], now=datetime.now(UTC) + timedelta(days=20)
        )


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "*.example.org",
        "host:443",
        "https://x",
        "10.0.0",
        "a..b",
        "-a",
        "ä.de",
        "a" * 254,
    ],
)
def test_what_is_neither_name_nor_address_is_refused(authority, host):
    with pytest.raises(InputDataError, match="host_names"):
        issue_server_certificate(*authority, ["localhost", host])


def test_nonsense_is_refused(authority):
    with pytest.raises(InputDataError, match="at least one"):
        issue_server_certificate(*authority, [])
    with pytest.raises(InputDataError, match="belong together"):
        issue_server_certificate(ec.generate_private_key(ec.SECP256R1()), authority[1], ["x"])
    with pytest.raises(InputDataError):
        create_authority("")
    with pytest.raises(InputDataError):
        create_authority("x", days=0)


def test_certificates_and_keys_read_back_from_their_files(tmp_path, authority):
    key, certificate = authority
    write_certificate(tmp_path / "ca.pem", certificate)
    write_tls_key(tmp_path / "ca.key", key)
    assert read_certificate(tmp_path / "ca.pem") == certificate
    assert read_tls_key(tmp_path / "ca.key").public_key() == key.public_key()
    assert len(certificate_fingerprint(certificate)) == 64
    with pytest.raises(InputDataError, match="would be overwritten"):
        write_certificate(tmp_path / "ca.pem", certificate)
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(InputDataError, match="chmod 600"):
        read_tls_key(tmp_path / "ca.key")


def test_anything_but_one_certificate_is_refused(tmp_path, authority):
    pem = authority[1].public_bytes(serialization.Encoding.PEM)
    for data in (b"", b"hello", pem * 2, pem[: len(pem) // 2]):
        with pytest.raises(InputDataError, match="one PEM certificate"):
            parse_certificate(data)


def test_node_keys_are_p384_in_the_form_that_flower_loads(tmp_path):
    key = generate_node_key()
    write_node_key(tmp_path / "node", key)
    private = serialization.load_ssh_private_key((tmp_path / "node").read_bytes(), None)
    public = serialization.load_ssh_public_key((tmp_path / "node.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public == key.public_key()
    assert read_node_key(tmp_path / "node").public_key() == key.public_key()
    assert (tmp_path / "node").stat().st_mode & 0o077 == 0


def test_a_node_keys_line_reads_back_with_or_without_a_comment():
    key = generate_node_key()
    line = node_public_line(key)
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert parse_node_public_key(line) == parse_node_public_key(f"{line} site-a\n")
    assert node_public_line(parse_node_public_key(line)) == line


def test_other_keys_are_no_node_keys(tmp_path):
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    for other in (
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*openssh).decode(),
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*openssh).decode(),
        "",
        "ecdsa-sha2-nistp384 AAAA",
        node_public_line(generate_node_key()) + "\n" + node_public_line(generate_node_key()),
    ):
        with pytest.raises(InputDataError, match="node key"):
            parse_node_public_key(other)
    (tmp_path / "node").write_bytes(b"nothing")
    (tmp_path / "node").chmod(0o600)
    with pytest.raises(InputDataError, match="node key"):
        read_node_key(tmp_path / "node")

"""Client certificates: role and name, one key, one authority, an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.crypto.certificates import (
    create_authority,
    days_left,
    generate_node_key,
    issue_server_certificate,
)
from common.crypto.clients import (
    ClientName,
    check_client_certificate,
    client_of,
    create_signing_request,
    generate_client_key,
    issue_client_certificate,
    requested_key,
)
from common.crypto.exchange import OpeningKey, SealingKey, read_opening_key, write_opening_key
from common.errors import InputDataError, VerificationError

CA_KEY, CA = create_authority("test")
KEY = generate_client_key()
NORTH = ClientName("site", "north")


def issue(client: ClientName = NORTH, days: int = 90, now: datetime | None = None):
    return issue_client_certificate(CA_KEY, CA, KEY.public_key(), client, days=days, now=now)


def test_a_certificate_says_role_and_name_and_serves_clients_only():
    certificate = issue()
    assert client_of(certificate) == NORTH
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    check_client_certificate(certificate, CA, KEY.public_key(), NORTH)


def test_a_servers_certificate_names_no_client():
    _, server = issue_server_certificate(CA_KEY, CA, ["127.0.0.1"])
    with pytest.raises(VerificationError, match="not a client certificate"):
        client_of(server)


@pytest.mark.parametrize("name", ["", "North", "a b", "-a", "a" * 33, "../x", "x\n"])
def test_a_name_that_is_no_name_gets_no_certificate(name):
    with pytest.raises(InputDataError, match="not a name"):
        ClientName("site", name)


def test_a_certificate_of_another_authority_key_or_client_is_not_taken():
    certificate = issue()
    with pytest.raises(VerificationError, match="not the federation's"):
        check_client_certificate(certificate, create_authority("test")[1], KEY.public_key(), NORTH)
    with pytest.raises(VerificationError, match="another key"):
        check_client_certificate(certificate, CA, generate_client_key().public_key(), NORTH)
    with pytest.raises(VerificationError, match="urn:cairn:site:north"):
        check_client_certificate(
            certificate, CA, KEY.public_key(), ClientName("coordinator", "north")
        )


def test_a_signing_request_gives_its_key_and_nothing_else():
    asked = requested_key(create_signing_request(KEY, "whatever it asks for"))
    assert asked == KEY.public_key()


def test_a_signing_request_that_was_changed_or_is_of_another_kind_is_refused():
    pem = create_signing_request(KEY, "north")
    lines = pem.decode().splitlines()
    bent = lines[-2][:-6] + ("A" if lines[-2][-6] != "A" else "B") + lines[-2][-5:]
    with pytest.raises((VerificationError, InputDataError)):
        requested_key("\n".join([*lines[:-2], bent, lines[-1]]).encode())
    with pytest.raises(InputDataError, match="another kind"):
        requested_key(create_signing_request(generate_node_key(), "north"))
    with pytest.raises(InputDataError, match="another text"):
        requested_key(b"-----BEGIN NOTHING-----")


def test_days_left_counts_whole_days_down_and_below_zero():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = issue(days=90, now=now)
    assert days_left(certificate, now) == 90
    assert days_left(certificate, now + timedelta(days=89, hours=1)) == 0
    assert days_left(certificate, now + timedelta(days=91, hours=1)) == -2


def test_a_key_that_is_not_the_authoritys_signs_nothing():
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(InputDataError, match="do not belong together"):
        issue_client_certificate(other, CA, KEY.public_key(), NORTH, days=1)


def test_a_sealing_key_reads_back_and_hides_its_secret(tmp_path):
    key = OpeningKey.generate()
    write_opening_key(tmp_path / "k", key)
    assert read_opening_key(tmp_path / "k").public == key.public
    assert SealingKey.parse(key.public.text) == key.public
    assert "secret" not in repr(key)
    assert (tmp_path / "k").stat().st_mode & 0o077 == 0
    for bad in ("", "x25519:", "ed25519:" + key.public.text[7:], key.public.text + "A"):
        with pytest.raises(InputDataError, match="X25519"):
            SealingKey.parse(bad)

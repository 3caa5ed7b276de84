"""A signed request serves one purpose, once, about now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.clients import generate_client_key
from common.crypto.identity import SigningKey
from common.desk import desk_pb2 as pb
from common.desk import signing
from common.desk.signing import (
    LARGEST_SKEW_MS,
    LedgerSigner,
    TlsSigner,
    check_signature,
    sign_request,
    signed_bytes,
)
from common.errors import VerificationError

KEY = SigningKey.from_seed(b"l" * 32)
TLS = generate_client_key()
NOW = 1_800_000_000_000


def request(**changes) -> pb.SignedRequest:
    words = {"federation": "brains", "method": "Renew", "site": "north", "body": b"body"} | changes
    return sign_request(**words, signer=LedgerSigner(KEY), unix_ms=NOW)


def test_the_signed_bytes_are_frozen():
    frozen = pb.SignedRequest(site="north", body=b"body", unix_ms=NOW, nonce=bytes(16))
    assert signed_bytes("brains", "Renew", frozen) == (
        b"cairn desk request v1\n"
        b'{"body_sha256":"230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5",'
        b'"federation":"brains","method":"Renew","nonce":"00000000000000000000000000000000",'
        b'"site":"north","unix_ms":"1800000000000"}'
    )


def test_a_request_holds_for_its_method_and_federation():
    check_signature("brains", "Renew", request(), KEY.public, at_ms=NOW)


@pytest.mark.parametrize(("federation", "method"), [("other", "Renew"), ("brains", "EnrolStatus")])
def test_a_request_holds_for_no_other_method_or_federation(federation, method):
    with pytest.raises(VerificationError, match="does not hold"):
        check_signature(federation, method, request(), KEY.public, at_ms=NOW)


@given(st.sampled_from(["site", "body", "unix_ms", "nonce"]), st.integers(0, 7))
def test_no_field_can_be_changed_under_a_signature(field, bit):
    honest = request()
    value = getattr(honest, field)
    if field == "unix_ms":
        bent = value ^ (1 << bit)
    elif field == "site":
        bent = value + "x"
    else:
        bent = bytes([value[0] ^ (1 << bit)]) + value[1:]
    setattr(honest, field, bent)
    with pytest.raises(VerificationError):
        check_signature("brains", "Renew", honest, KEY.public, at_ms=NOW)


def test_another_key_does_not_do():
    with pytest.raises(VerificationError):
        check_signature("brains", "Renew", request(), SigningKey.generate().public, at_ms=NOW)


@pytest.mark.parametrize(("ahead", "word"), [(+1, "behind"), (-1, "ahead")])
def test_a_clock_that_is_off_is_named_with_its_direction(ahead, word):
    at = NOW + ahead * (LARGEST_SKEW_MS + 1000)
    with pytest.raises(VerificationError, match=f"121 s {word}"):
        check_signature("brains", "Renew", request(), KEY.public, at_ms=at)


def test_a_request_without_a_nonce_is_refused():
    short = request()
    short.nonce = b"1234"
    with pytest.raises(VerificationError, match="nonce"):
        check_signature("brains", "Renew", short, KEY.public, at_ms=NOW)


def test_the_key_of_a_certificate_signs_too():
    signed = sign_request("brains", "Renew", "north", b"", TlsSigner(TLS), unix_ms=NOW)
    check_signature("brains", "Renew", signed, TLS.public_key(), at_ms=NOW)
    with pytest.raises(VerificationError):
        check_signature("brains", "Renew", signed, generate_client_key().public_key(), at_ms=NOW)


def test_two_requests_never_have_the_same_nonce():
    """It is nobody's choice: drawn from what is asked, and when."""
    signer = LedgerSigner(KEY)
    nonces = {
        sign_request("brains", method, site, body, signer, unix_ms=moment).nonce
        for method in ("Renew", "EnrolStatus")
        for site in ("north", "south")
        for body in (b"", b"body")
        for moment in (NOW, NOW + 1)
    }
    assert len(nonces) == 16


def test_equal_requests_of_one_millisecond_are_new_each_time(monkeypatch):
    monkeypatch.setattr(signing, "now_ms", lambda: NOW)
    signer = LedgerSigner(KEY)
    signed = [sign_request("brains", "ListPeers", "north", b"", signer) for _ in range(50)]
    assert len({one.nonce for one in signed}) == 50
    for one in signed:
        check_signature("brains", "ListPeers", one, KEY.public, at_ms=NOW)


def test_a_clock_that_is_put_back_is_followed(monkeypatch):
    clock = iter([NOW, NOW - 10 * LARGEST_SKEW_MS])
    monkeypatch.setattr(signing, "now_ms", lambda: next(clock))
    signer = LedgerSigner(KEY)
    sign_request("brains", "ListPeers", "north", b"", signer)
    later = sign_request("brains", "ListPeers", "north", b"", signer)
    assert later.unix_ms == NOW - 10 * LARGEST_SKEW_MS

"""Sealing: a box opens for one site, under one label, unchanged; or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.exchange import OpeningKey, SealingKey
from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey
from common.crypto.sealing import BOX_BYTES, Label, check_box, open_box, seal, sign_box
from common.errors import InputDataError, VerificationError

VECTOR = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors" / "sealed_key.json").read_text()
)
RECEIVER = OpeningKey(X25519PrivateKey.from_private_bytes(bytes(range(32))))
SENDER = SigningKey.from_seed(bytes(range(32, 64)))
KEY = FederationKey(bytes(range(16)))
LABEL = Label("brains", 3, KEY.key_id, "north", "south", "ab" * 32)
BOX = seal(KEY, RECEIVER.public, LABEL)
SIGNATURE = sign_box(BOX, LABEL, SENDER)
OTHERS = [
    {"federation": "hearts"},
    {"generation": 2},
    {"generation": 4},
    {"key_id": "f" * 16},
    {"from_site": "west"},
    {"for_site": "east"},
    {"for_ledger_key": "cd" * 32},
]


def test_the_frozen_box_opens_and_its_signature_holds():
    label = Label(**VECTOR["label"])
    opening = OpeningKey(X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTOR["opening_key"])))
    sender = SigningKey.from_seed(bytes.fromhex(VECTOR["ledger_seed"]))
    box, signature = bytes.fromhex(VECTOR["box"]), bytes.fromhex(VECTOR["signature"])
    assert open_box(box, opening, label).secret.hex() == VECTOR["federation_key"]
    check_box(box, signature, label, sender.public)
    assert sign_box(box, label, sender) == signature


@given(st.binary(min_size=16, max_size=16))
def test_what_was_sealed_comes_out_and_two_boxes_are_never_the_same(secret):
    key = FederationKey(secret)
    label = replace(LABEL, key_id=key.key_id)
    one, two = (seal(key, RECEIVER.public, label) for _ in range(2))
    assert open_box(one, RECEIVER, label) == open_box(two, RECEIVER, label) == key
    assert one != two
    assert len(one) == BOX_BYTES
    assert secret not in one


@given(st.integers(0, 8 * BOX_BYTES - 1))
def test_a_box_with_any_flipped_bit_is_refused(bit):
    bent = bytearray(BOX)
    bent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(VerificationError):
        open_box(bytes(bent), RECEIVER, LABEL)
    with pytest.raises(VerificationError):
        check_box(bytes(bent), SIGNATURE, LABEL, SENDER.public)


@given(st.integers(0, 8 * 64 - 1))
def test_a_signature_with_any_flipped_bit_is_refused(bit):
    bent = bytearray(SIGNATURE)
    bent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(VerificationError):
        check_box(BOX, bytes(bent), LABEL, SENDER.public)


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: next(iter(other)))
def test_under_another_label_a_box_neither_opens_nor_is_signed(other):
    label = replace(LABEL, **other)
    with pytest.raises(VerificationError):
        open_box(BOX, RECEIVER, label)
    with pytest.raises(VerificationError):
        check_box(BOX, SIGNATURE, label, SENDER.public)


@given(st.binary(max_size=200).filter(lambda data: data != BOX))
def test_other_bytes_are_no_box(data):
    with pytest.raises(VerificationError):
        open_box(data, RECEIVER, LABEL)


def test_another_site_cannot_open_a_box():
    with pytest.raises(VerificationError):
        open_box(BOX, OpeningKey.generate(), LABEL)


def test_another_sites_signature_is_refused():
    with pytest.raises(VerificationError):
        check_box(BOX, sign_box(BOX, LABEL, SigningKey.generate()), LABEL, SENDER.public)


def test_a_key_is_not_sealed_under_the_name_of_another():
    with pytest.raises(VerificationError, match="key_id"):
        seal(FederationKey.generate(), RECEIVER.public, LABEL)


def test_nothing_is_sealed_to_a_point_whose_secret_everybody_knows():
    with pytest.raises(InputDataError, match="sealing_key"):
        SealingKey(bytes(32))


def test_no_repr_shows_a_secret():
    shown = repr((KEY, RECEIVER, LABEL, SENDER))
    secret = KEY.secret
    assert secret.hex() not in shown
    assert repr(secret)[2:-1] not in shown
    assert RECEIVER.secret.private_bytes_raw().hex() not in shown

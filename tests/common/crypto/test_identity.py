"""Signing identities: signatures hold or raise, secrets stay in files that only the owner reads."""

from __future__ import annotations

import base64
import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto.identity import (
    PublicKey,
    SigningKey,
    read_public_key,
    read_signing_key,
    write_public_key,
    write_signing_key,
)
from common.errors import InputDataError, VerificationError

UNTIMED = settings(deadline=None)  # a busy machine is no failure

KEY = SigningKey.from_seed(bytes(range(32)))


def test_the_first_vector_of_rfc_8032_is_reproduced():
    key = SigningKey.from_seed(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert key.public.hex == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


@UNTIMED
@given(st.binary(max_size=200), st.integers(0, 511))
def test_a_signature_holds_for_its_data_and_no_flipped_bit_does(data, bit):
    signature = bytearray(KEY.sign(data))
    KEY.public.verify(bytes(signature), data)
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(VerificationError):
        KEY.public.verify(bytes(signature), data)


def test_a_signature_holds_for_one_key_and_one_message():
    signature = KEY.sign(b"message")
    with pytest.raises(VerificationError):
        KEY.public.verify(signature, b"another")
    with pytest.raises(VerificationError):
        SigningKey.generate().public.verify(signature, b"message")
    with pytest.raises(VerificationError):
        KEY.public.verify(signature[:-1], b"message")


def test_no_secret_shows_in_a_repr_and_none_is_compared():
    seed = bytes(range(32))
    shown = f"{KEY!r} {KEY}"
    assert seed.hex() not in shown
    assert base64.b64encode(seed).decode() not in shown
    assert SigningKey.from_seed(seed) == KEY
    assert SigningKey.generate() != KEY


@UNTIMED
@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_reads_back_from_text_and_hex(raw):
    key = SigningKey.from_seed(raw).public
    assert PublicKey.parse(key.text) == PublicKey.parse(key.hex) == key
    assert PublicKey.parse(f"{key.text}\n") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        "ed25519:!!!!",
        "ed25519:" + base64.b64encode(b"x" * 31).decode(),
        KEY.public.text[:-2] + "9=",  # the same 32 bytes in a second spelling
        KEY.public.hex.upper(),
        "rsa:" + KEY.public.text[8:],
        KEY.public.text + " comment",
    ],
)
def test_a_public_key_has_one_spelling(text):
    with pytest.raises(InputDataError, match="not an Ed25519 public key"):
        PublicKey.parse(text)


def test_keys_read_back_from_their_files(tmp_path):
    write_signing_key(tmp_path / "key.pem", KEY)
    write_public_key(tmp_path / "key.pub", KEY.public)
    assert read_signing_key(tmp_path / "key.pem").sign(b"x") == KEY.sign(b"x")
    assert read_public_key(tmp_path / "key.pub") == KEY.public
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert (tmp_path / "key.pub").read_text().count("\n") == 1


def test_a_private_key_is_for_its_owner_even_under_a_generous_umask(tmp_path):
    before = os.umask(0)
    try:
        write_signing_key(tmp_path / "key.pem", KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_no_key_file_is_overwritten(tmp_path):
    write_signing_key(tmp_path / "key.pem", KEY)
    with pytest.raises(InputDataError, match="would be overwritten"):
        write_signing_key(tmp_path / "key.pem", SigningKey.generate())
    assert read_signing_key(tmp_path / "key.pem") == KEY


def test_a_dangling_link_is_not_followed_when_writing(tmp_path):
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputDataError):
        write_signing_key(tmp_path / "key.pem", KEY)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_private_key_open_to_others_is_refused_with_advice(tmp_path, mode):
    write_signing_key(tmp_path / "key.pem", KEY)
    (tmp_path / "key.pem").chmod(mode)
    with pytest.raises(InputDataError, match="chmod 600"):
        read_signing_key(tmp_path / "key.pem")


def test_what_is_not_a_signing_key_is_refused(tmp_path):
    path = tmp_path / "key.pem"
    with pytest.raises(InputDataError, match="cannot read"):
        read_signing_key(path)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for data in (b"", b"hello", KEY.to_pem()[:60], other, b"x" * 100_000):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(InputDataError):
            read_signing_key(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(InputDataError, match="plain file"):
        read_signing_key(tmp_path / "pipe")


def test_what_is_not_a_public_key_is_refused(tmp_path):
    for data in (b"", b"\xff", b"ed25519:x"):
        (tmp_path / "key.pub").write_bytes(data)
        with pytest.raises(InputDataError):
            read_public_key(tmp_path / "key.pub")
    with pytest.raises(InputDataError):
        SigningKey.from_seed(b"short")

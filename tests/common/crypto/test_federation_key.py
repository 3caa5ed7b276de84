"""The federation key: named without being shown, and split into independent keys."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto.keyed import FederationKey, read_federation_key, write_federation_key
from common.errors import InputDataError

UNTIMED = settings(deadline=None)  # a busy machine is no failure

secrets = st.binary(min_size=16, max_size=16)
labels = st.text(min_size=1, max_size=40)


def test_the_id_and_a_derived_key_never_change():
    key = FederationKey(bytes(range(16)))
    assert key.key_id == "95518342278877e1"
    assert key.derive("experience sketch", 16).hex() == "1d035887356adfd94360185ca53496c7"


def test_derivation_is_hkdf_sha256_with_the_label_in_its_info():
    key = FederationKey(bytes(range(16)))
    info = b"cairn federation key v1 derive rows"
    assert key.derive("rows", 48) == HKDF(SHA256(), 48, None, info).derive(bytes(range(16)))


@UNTIMED
@given(secrets)
def test_no_secret_shows_in_a_repr_or_an_id(secret):
    key = FederationKey(secret)
    assert secret.hex() not in f"{key!r} {key}"
    assert key.key_id != secret.hex()[:16]
    assert len(key.key_id) == 16


@UNTIMED
@given(secrets, labels, labels)
def test_two_labels_give_two_keys_and_none_gives_the_id(secret, one, other):
    key = FederationKey(secret)
    assert (key.derive(one, 16) == key.derive(other, 16)) == (one == other)
    assert key.derive(one, 8).hex() != key.key_id


@UNTIMED
@given(secrets, secrets)
def test_keys_are_equal_exactly_when_their_secrets_are(one, other):
    assert (FederationKey(one) == FederationKey(other)) == (one == other)
    assert (FederationKey(one).key_id == FederationKey(other).key_id) == (one == other)


def test_generated_keys_differ():
    assert FederationKey.generate() != FederationKey.generate()


@pytest.mark.parametrize(("label", "length"), [("", 16), ("x", 0), ("x", 8161)])
def test_an_impossible_derivation_is_refused(label, length):
    with pytest.raises(InputDataError):
        FederationKey.generate().derive(label, length)


def test_a_key_reads_back_from_a_file_that_only_its_owner_reads(tmp_path):
    key, path = FederationKey.generate(), tmp_path / "federation.key"
    write_federation_key(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == key.secret.hex()
    assert read_federation_key(path) == key
    with pytest.raises(InputDataError, match="would be overwritten"):
        write_federation_key(path, FederationKey.generate())
    path.chmod(0o644)
    with pytest.raises(InputDataError, match="chmod 600"):
        read_federation_key(path)


@pytest.mark.parametrize(
    "text", ["", "00" * 15, "00" * 17, "AB" * 16, "zz" * 16, "00" * 16 + "\n\n"]
)
def test_a_file_with_anything_else_is_refused(tmp_path, text):
    path = tmp_path / "federation.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InputDataError) as caught:
        read_federation_key(path)
    assert not text.strip() or text.strip() not in str(caught.value)
    with pytest.raises(InputDataError):
        FederationKey(b"short")

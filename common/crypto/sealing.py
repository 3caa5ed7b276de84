"""The federation key on its way from one site to another: a box that one site can open.

HPKE (X25519, HKDF-SHA256, ChaCha20-Poly1305) seals to the receiver; the sender's
ledger key signs. Both are bound to the same `Label`, so a box serves one
federation, generation, key, sender and receiver, or nobody. Whoever relays it
can neither open it, nor change it, nor pass it off as another.

Source: RFC 9180, base mode.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from common.canonical import canonical_json, sha256_hex
from common.crypto.exchange import OpeningKey, SealingKey
from common.crypto.identity import PublicKey, SigningKey
from common.crypto.keyed import KEY_BYTES, FederationKey
from common.crypto.points import fault_of_x25519
from common.errors import VerificationError

BOX_BYTES = 64
"""32 of the sender's one-time key, 16 of the key, 16 of its tag."""
ONE_TIME_BYTES = 32
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_SEAL_CONTEXT = b"cairn federation key box v1\n"
_SIGN_CONTEXT = b"cairn federation key hand-over v1\n"


@dataclass(frozen=True)
class Label:
    """The words on a box, without which it does not open; none of them is secret.

    Attributes:
        federation: its name.
        generation: of the key, from 1.
        key_id: public id of the key.
        from_site: who sealed it.
        for_site: who may open it.
        for_ledger_key: fingerprint of the receiver's ledger key.
    """

    federation: str
    generation: int
    key_id: str
    from_site: str
    for_site: str
    for_ledger_key: str

    @property
    def canonical(self) -> bytes:
        """One spelling."""
        return canonical_json(asdict(self))


def seal(key: FederationKey, receiver: SealingKey, label: Label) -> bytes:
    """Return a box of 64 bytes; never the same twice.

    Raises:
        VerificationError: the label names another key, or the receiver's key is no key.
    """
    if key.key_id != label.key_id:
        raise _refused("key_id", "the id of the key that is sealed", "another")
    try:
        return _SUITE.encrypt(key.secret, receiver.public, _SEAL_CONTEXT + label.canonical)
    except ValueError as error:  # a point of low order: whoever sent it could read the box
        raise _refused("sealing_key", "an X25519 key", "a point that is none") from error


def open_box(box: bytes, opening: OpeningKey, label: Label) -> FederationKey:
    """Return the key inside.

    Raises:
        VerificationError: sealed to somebody else, under another label, changed on
            its way, or another key than the label says.
    """
    if len(box) != BOX_BYTES:
        raise _refused("box", f"{BOX_BYTES} bytes", f"{len(box)} bytes")
    if fault_of_x25519(box[:ONE_TIME_BYTES]):
        raise _refused("box", "a one-time key that is one", "a point that is none")
    try:
        secret = _SUITE.decrypt(box, opening.secret, _SEAL_CONTEXT + label.canonical)
    except (InvalidTag, ValueError) as error:
        raise _refused("box", "one sealed to this site under this label", "another") from error
    if len(secret) != KEY_BYTES:
        raise _refused("box", f"a key of {KEY_BYTES} bytes", "another length")
    key = FederationKey(secret)
    if key.key_id != label.key_id:
        raise _refused("key_id", "the id of the key inside", "another")
    return key


def sign_box(box: bytes, label: Label, sender: SigningKey) -> bytes:
    """Return the sender's signature over a box and its label, 64 bytes."""
    return sender.sign(_signed(box, label))


def check_box(box: bytes, signature: bytes, label: Label, sender: PublicKey) -> None:
    """Return only if ``sender`` has made this box for this label.

    Raises:
        VerificationError: it has not.
    """
    sender.verify(signature, _signed(box, label))


def _signed(box: bytes, label: Label) -> bytes:
    return _SIGN_CONTEXT + canonical_json({"box_sha256": sha256_hex(box), **asdict(label)})


def _refused(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        "a sealed federation key does not hold", field=field, expected=expected, got=got
    )

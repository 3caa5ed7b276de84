"""Ed25519 signing identities: a site signs its ledger, the aggregator its receipts.

A ``SigningKey`` never shows its secret, not even in a ``repr``. What is signed
must say what it is (a checkpoint begins with its origin, a cosignature with its
version line), so that a signature made for one purpose cannot serve another.

Source: RFC 8032.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.canonical import sha256_hex
from common.crypto.files import read_public, read_secret, write_public, write_secret
from common.crypto.points import fault_of_ed25519
from common.errors import InputDataError, VerificationError

_PREFIX = "ed25519:"
KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class PublicKey:
    """The public half of an identity.

    Attributes:
        raw: 32 bytes, RFC 8032 encoding.

    Raises:
        InputDataError: another length, or a point that is no key.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise InputDataError(
                "not an Ed25519 public key",
                expected=f"{KEY_BYTES} bytes",
                got=f"{len(self.raw)} bytes",
            )
        if fault := fault_of_ed25519(self.raw):
            raise InputDataError(
                "not an Ed25519 public key", expected="a point of full order", got=fault
            )

    def __repr__(self) -> str:
        return f"PublicKey({self.text!r})"

    @property
    def hex(self) -> str:
        """64 hex digits."""
        return self.raw.hex()

    @property
    def text(self) -> str:
        """One line: ``ed25519:`` and base64; what ``parse`` reads."""
        return _line(self.raw)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key, 64 hex digits: what two people compare on the telephone."""
        return sha256_hex(self.raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form, or 64 hex digits.

        Raises:
            InputDataError: neither of the two, or a point that is no key.
        """
        line = text.strip()
        try:
            if line.startswith(_PREFIX):
                raw = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
            else:
                raw = bytes.fromhex(line)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != KEY_BYTES or line not in (_line(raw), raw.hex()):
            raise InputDataError(
                "not an Ed25519 public key",
                expected=f"one line '{_PREFIX}' and 44 base64 characters",
                got=f"{len(line)} other characters",
            )
        return cls(raw)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return only if ``signature`` (64 bytes) was made over ``data`` with this key's secret.

        Raises:
            VerificationError: it was not.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(
                "a signature does not hold",
                expected=f"one made with the key {self.fingerprint[:16]}",
                got="another signature, or other data",
            ) from error


@dataclass(frozen=True)
class SigningKey:
    """A signing identity. Its secret is never shown, compared or copied out."""

    _secret: Ed25519PrivateKey = field(repr=False, compare=False)
    public: PublicKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", PublicKey(self._secret.public_key().public_bytes_raw()))

    @classmethod
    def generate(cls) -> Self:
        """Make a new identity from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the identity of a 32-byte RFC 8032 seed; for frozen vectors and key ceremonies.

        Raises:
            InputDataError: another length.
        """
        if len(seed) != KEY_BYTES:
            raise InputDataError(
                "not an Ed25519 seed", expected=f"{KEY_BYTES} bytes", got=f"{len(seed)} bytes"
            )
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature over ``data``; the same data gives the same signature."""
        return self._secret.sign(data)

    def to_pem(self) -> bytes:
        """PKCS #8 PEM, unencrypted: for ``write_signing_key`` only."""
        return self._secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def write_signing_key(path: Path, key: SigningKey) -> None:
    """Write the secret half: PKCS #8 PEM, mode 0600, never over an existing file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_secret(path, key.to_pem())


def read_signing_key(path: Path) -> SigningKey:
    """Read what ``write_signing_key`` wrote.

    Raises:
        InputDataError: absent, open to group or others, or not an Ed25519 key.
    """
    data = read_secret(path)
    try:
        secret = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path) from error
    if not isinstance(secret, Ed25519PrivateKey):
        raise _not_a_key(path)
    return SigningKey(secret)


def write_public_key(path: Path, key: PublicKey) -> None:
    """Write the public half as one line of text.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_public(path, f"{key.text}\n".encode("ascii"))


def read_public_key(path: Path) -> PublicKey:
    """Read what ``write_public_key`` wrote.

    Raises:
        InputDataError: absent, or not an Ed25519 public key.
    """
    try:
        return PublicKey.parse(read_public(path).decode("ascii"))
    except UnicodeDecodeError as error:
        raise InputDataError(
            "not an Ed25519 public key", field=str(path), expected="one line of text"
        ) from error


def _line(raw: bytes) -> str:
    return _PREFIX + base64.b64encode(raw).decode("ascii")


def _not_a_key(path: Path) -> InputDataError:
    return InputDataError(
        "not a signing key",
        field=str(path),
        expected="an unencrypted Ed25519 key in PKCS #8 PEM",
        got="another file",
    )

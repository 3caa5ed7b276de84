"""ML-DSA-44 keys: a witness's second signature, for a day when Ed25519 no longer stands.

Only cosignatures use them. What is signed names its cosigner and begins with a label
of its own, so that no signature made here can serve another purpose. A secret is never
shown, not even in a ``repr``.

Source: FIPS 204, parameter set ML-DSA-44; hedged signing, empty context.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from common.canonical import sha256_hex
from common.crypto.files import read_secret, write_secret
from common.errors import InputDataError, VerificationError

PUBLIC_BYTES = 1312
SIGNATURE_BYTES = 2420
SEED_BYTES = 32


@dataclass(frozen=True)
class PostQuantumKey:
    """The public half of an ML-DSA-44 key.

    Attributes:
        raw: 1,312 bytes, FIPS 204 encoding.

    Raises:
        InputDataError: another length.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_BYTES:
            raise InputDataError(
                "not an ML-DSA-44 public key",
                expected=f"{PUBLIC_BYTES} bytes",
                got=f"{len(self.raw)} bytes",
            )

    def __repr__(self) -> str:
        return f"PostQuantumKey({self.fingerprint[:16]})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key, 64 hex digits."""
        return sha256_hex(self.raw)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return only if ``signature`` (2,420 bytes) was made over ``data`` with this key's secret.

        Raises:
            VerificationError: it was not.
            InputDataError: the machine's OpenSSL is too old for ML-DSA.
        """
        try:
            MLDSA44PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(
                "a signature does not hold",
                expected=f"one made with the key {self.fingerprint[:16]}",
                got="another signature, or other data",
            ) from error
        except UnsupportedAlgorithm as error:
            raise _too_old() from error


@dataclass(frozen=True)
class PostQuantumSigningKey:
    """The secret half. It is never shown, compared or copied out."""

    _secret: MLDSA44PrivateKey = field(repr=False, compare=False)
    public: PostQuantumKey = field(init=False)

    def __post_init__(self) -> None:
        raw = self._secret.public_key().public_bytes_raw()
        object.__setattr__(self, "public", PostQuantumKey(raw))

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness.

        Raises:
            InputDataError: the machine's OpenSSL is too old for ML-DSA.
        """
        try:
            return cls(MLDSA44PrivateKey.generate())
        except UnsupportedAlgorithm as error:
            raise _too_old() from error

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the key of a 32-byte FIPS 204 seed; for frozen vectors.

        Raises:
            InputDataError: another length.
        """
        if len(seed) != SEED_BYTES:
            raise InputDataError(
                "not an ML-DSA seed", expected=f"{SEED_BYTES} bytes", got=f"{len(seed)} bytes"
            )
        return cls(MLDSA44PrivateKey.from_seed_bytes(seed))

    def sign(self, data: bytes) -> bytes:
        """Return a 2,420-byte signature over ``data``; another one at every call."""
        return self._secret.sign(data)

    def to_pem(self) -> bytes:
        """PKCS #8 PEM, unencrypted: for ``write_postquantum_key`` only."""
        return self._secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def write_postquantum_key(path: Path, key: PostQuantumSigningKey) -> None:
    """Write the secret half: PKCS #8 PEM, mode 0600, never over an existing file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_secret(path, key.to_pem())


def read_postquantum_key(path: Path) -> PostQuantumSigningKey:
    """Read what ``write_postquantum_key`` wrote.

    Raises:
        InputDataError: absent, open to group or others, or not an ML-DSA-44 key.
    """
    data = read_secret(path)
    try:
        secret = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path) from error
    if not isinstance(secret, MLDSA44PrivateKey):
        raise _not_a_key(path)
    return PostQuantumSigningKey(secret)


def _too_old() -> InputDataError:
    return InputDataError(
        "this machine cannot work with ML-DSA keys",
        expected="a `cryptography` built with OpenSSL 3.5 or later",
        got="an older one",
        advice="Install a newer `cryptography`",
    )


def _not_a_key(path: Path) -> InputDataError:
    return InputDataError(
        "not a signing key",
        field=str(path),
        expected="an unencrypted ML-DSA-44 key in PKCS #8 PEM",
        got="another file",
    )

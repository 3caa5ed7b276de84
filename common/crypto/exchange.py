"""A site's X25519 key: what other sites seal the federation key to.

Only the public half leaves the site, in the join request that its ledger key
signs. What is sealed, and how, is not decided here.

Source: RFC 7748.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from common.crypto.files import read_secret, write_secret
from common.crypto.points import fault_of_x25519
from common.errors import InputDataError

_PREFIX = "x25519:"
KEY_BYTES = 32


@dataclass(frozen=True)
class SealingKey:
    """The public half.

    Attributes:
        raw: 32 bytes, RFC 7748 encoding.

    Raises:
        InputDataError: another length, or a point that is no key.
    """

    raw: bytes

    def __post_init__(self) -> None:
        fault = "another length" if len(self.raw) != KEY_BYTES else fault_of_x25519(self.raw)
        if fault:
            raise InputDataError(
                "not an X25519 public key",
                field="sealing_key",
                expected=f"{KEY_BYTES} bytes, a point of full order",
                got=fault,
            )

    @property
    def text(self) -> str:
        """One line: ``x25519:`` and base64; what ``parse`` reads."""
        return _PREFIX + base64.b64encode(self.raw).decode("ascii")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form.

        Raises:
            InputDataError: another text.
        """
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != KEY_BYTES or _PREFIX + base64.b64encode(raw).decode("ascii") != text:
            raise InputDataError(
                "not an X25519 public key",
                field="sealing_key",
                expected=f"one line '{_PREFIX}' and 44 base64 characters",
                got=f"{len(text)} other characters",
            )
        return cls(raw)

    @property
    def public(self) -> X25519PublicKey:
        """For an exchange."""
        return X25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True)
class OpeningKey:
    """The private half. Its secret is never shown or compared."""

    secret: X25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate())

    @property
    def public(self) -> SealingKey:
        """The half that may be told to others."""
        return SealingKey(self.secret.public_key().public_bytes_raw())


def write_opening_key(path: Path, key: OpeningKey) -> None:
    """Write the private half: PKCS #8 PEM, mode 0600, never over an existing file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    pem = key.secret.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(path, pem)


def read_opening_key(path: Path) -> OpeningKey:
    """Read what ``write_opening_key`` wrote.

    Raises:
        InputDataError: absent, open to group or others, or not an X25519 key.
    """
    data = read_secret(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise InputDataError(
            "not a sealing key",
            field=str(path),
            expected="an unencrypted X25519 key in PKCS #8 PEM",
            got="another file",
        )
    return OpeningKey(key)

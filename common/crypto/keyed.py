"""The federation key: 128 bits that every site shares and the aggregator never sees.

It keys the hashing of the sketches, so that a table can be merged without being
queried. Only its ``key_id`` may be told to others. No key derived for one label
says anything about another.

Source: HKDF-SHA256, RFC 5869.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from common.crypto.files import read_secret, write_secret
from common.errors import InputDataError

KEY_BYTES = 16
MAX_DERIVED_BYTES = 255 * 32
_ID_INFO = b"cairn federation key v1 id"
_DERIVE_INFO = b"cairn federation key v1 derive "


@dataclass(frozen=True, eq=False)
class FederationKey:
    """128 secret bits; ``repr`` shows only the public id.

    Args:
        secret: 16 bytes.

    Raises:
        InputDataError: another length.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise InputDataError(
                "not a federation key", expected=f"{KEY_BYTES} bytes", got="another length"
            )

    def __repr__(self) -> str:
        return f"FederationKey(key_id={self.key_id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FederationKey) and hmac.compare_digest(self.secret, other.secret)

    def __hash__(self) -> int:
        return hash(self.key_id)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @cached_property
    def key_id(self) -> str:
        """16 hex digits that name the key and say nothing about it."""
        return self._expand(_ID_INFO, 8).hex()

    def derive(self, label: str, length: int) -> bytes:
        """``length`` bytes for the use that ``label`` names.

        Args:
            label: what the bytes are for, e.g. ``"experience sketch rows"``; not empty.
            length: 1 to 8160 bytes.

        Raises:
            InputDataError: an empty label or an impossible length.
        """
        if not label:
            raise InputDataError("a derived key needs a label", expected="a use", got="nothing")
        if not 1 <= length <= MAX_DERIVED_BYTES:
            raise InputDataError(
                "impossible derived key length",
                expected=f"1 to {MAX_DERIVED_BYTES} bytes",
                got=f"{length}",
            )
        return self._expand(_DERIVE_INFO + label.encode("utf-8"), length)

    @cached_property
    def _extracted(self) -> bytes:
        """HKDF's first step, the same for every label; as secret as the key."""
        return hmac.digest(bytes(32), self.secret, "sha256")

    def _expand(self, info: bytes, length: int) -> bytes:
        """HKDF's second step.

        By the standard library, in two microseconds: a sum of a thousand sites has two
        thousand pads, and every site derives all of them.

        Source: RFC 5869, sections 2.2 and 2.3, without a salt.
        """
        output, block, counter = b"", b"", 0
        while len(output) < length:
            counter += 1
            block = hmac.digest(self._extracted, block + info + bytes([counter]), "sha256")
            output += block
        return output[:length]


def write_federation_key(path: Path, key: FederationKey) -> None:
    """Write 32 hex digits, mode 0600, never over an existing file.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_secret(path, key.secret.hex().encode("ascii") + b"\n")


def read_federation_key(path: Path) -> FederationKey:
    """Read what ``write_federation_key`` wrote.

    Raises:
        InputDataError: absent, open to group or others, or not 32 hex digits.
    """
    text = read_secret(path)
    if not re.fullmatch(rb"[0-9a-f]{32}\n?", text):
        raise InputDataError(
            "not a federation key",
            field=str(path),
            expected="32 lower-case hex digits",
            got="another text",
        )
    return FederationKey(bytes.fromhex(text.decode("ascii")))

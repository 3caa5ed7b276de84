"""The terms that two sketches must share before their tables may be added.

The federation key is held here and nowhere printed: it is absent from the
representation, the header and the comparison; its public name is ``key_id``.
A spec without a key, ``SketchSpec.public``, can hold tables but not query them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.canonical import canonical_json
from common.errors import SketchError

VERSION: Final = 1  # of the hash construction; a change of any hashed bit raises it
KEY_BYTES: Final = 16
MAX_ROWS: Final = 64
MAX_COLUMNS: Final = 2**28
_KEY_ID_INFO: Final = b"cairn/sketch/key-id/v1"
_KEY_ID = re.compile(r"[0-9a-f]{16}")
_DOMAIN = re.compile(r"[\x21-\x7e]{0,200}")


def derive(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 without salt (RFC 5869): ``length`` bytes for the purpose ``info``."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)


def key_id(key: bytes) -> str:
    """Return the public name of a federation key: 16 hex digits that tell nothing about it.

    Raises:
        SketchError: the key is not 16 bytes.
    """
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        raise SketchError("unusable sketch key", field="key", expected="16 bytes", got=got)
    return derive(key, _KEY_ID_INFO, 8).hex()


@dataclass(frozen=True)
class SketchSpec:
    """Dimensions, key and meaning of a count sketch.

    Two specs are equal, and their tables may be added, when rows, columns, key
    id, domain and version are equal; whether a party holds the key itself does
    not matter for that.

    Attributes:
        rows: independent hash rows R, 1 to 64. Estimates are medians over rows;
            an even R takes the mean of the two middle values.
        columns: buckets C per row, 1 to 2**28.
        key: the federation's 16 secret bytes, or None for a party without it.
        key_id: public name of the key; derived when the key is given.
        domain: what the 64-bit keys mean, e.g. a codec's identity. It also
            separates hash functions: two domains under one key hash apart.
        version: of the hash construction.

    Raises:
        SketchError: a value is out of range, or ``key_id`` names another key.
    """

    rows: int
    columns: int
    key: bytes | None = field(default=None, repr=False, compare=False)
    key_id: str = ""
    domain: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        _check_integer("rows", self.rows, 1, MAX_ROWS)
        _check_integer("columns", self.columns, 1, MAX_COLUMNS)
        _check_integer("version", self.version, VERSION, VERSION)
        if self.key is not None:
            derived = key_id(self.key)
            if self.key_id not in ("", derived):
                raise SketchError(
                    "the key is not the one the key id names",
                    field="key_id",
                    expected=derived,
                    got="another key id",
                )
            object.__setattr__(self, "key_id", derived)
        if not isinstance(self.key_id, str) or not _KEY_ID.fullmatch(self.key_id):
            raise SketchError(
                "a sketch needs a key or a key id",
                field="key_id",
                expected="16 lower-case hex digits",
                got="something else",
                advice="Pass key=<16 bytes>, or key_id= to SketchSpec.public",
            )
        if not isinstance(self.domain, str) or not _DOMAIN.fullmatch(self.domain):
            raise SketchError(
                "unusable sketch domain",
                field="domain",
                expected="at most 200 printable ASCII characters without blanks",
                got="something else",
            )

    @classmethod
    def public(cls, rows: int, columns: int, key_id: str, domain: str = "") -> Self:
        """Return the spec of a party that merges tables but cannot query them."""
        return cls(rows=rows, columns=columns, key=None, key_id=key_id, domain=domain)

    def without_key(self) -> Self:
        """Return the same spec for a party without the key."""
        return type(self).public(self.rows, self.columns, self.key_id, self.domain)

    @property
    def can_query(self) -> bool:
        """True if this party holds the key and may update and estimate."""
        return self.key is not None

    @property
    def table_bytes(self) -> int:
        """Size of the table."""
        return 8 * self.rows * self.columns

    def as_dict(self) -> dict[str, int | str]:
        """Return the public fields: everything that must be equal, nothing that is secret."""
        return {
            "columns": self.columns,
            "domain": self.domain,
            "key_id": self.key_id,
            "rows": self.rows,
            "version": self.version,
        }

    def header(self) -> bytes:
        """Canonical JSON of ``as_dict``; never contains the key."""
        return canonical_json(self.as_dict())

    def require_same(self, other: SketchSpec, what: str = "sketch") -> None:
        """Refuse ``other`` unless its tables may be added to ours.

        Raises:
            SketchError: names the first field that differs.
        """
        theirs = other.as_dict()
        for name, ours in self.as_dict().items():
            if theirs[name] != ours:
                raise SketchError(
                    "these sketches cannot be added",
                    field=f"{what}.{name}",
                    expected=repr(ours),
                    got=repr(theirs[name]),
                    advice="Both sides must use the same plan and federation key",
                )


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        got = f"{value}" if type(value) is int else type(value).__name__
        expected = f"an integer from {low} to {high}" if low < high else f"{low}"
        raise SketchError("unusable sketch spec", field=name, expected=expected, got=got)

"""The one construction of bytes that are signed, hashed or compared (RFC 8785 JSON, SHA-256)."""

from __future__ import annotations

import hashlib
import json
from typing import Final

import rfc8785

from common.arrivals.texts import MOST_DEPTH, is_shallow
from common.errors import VerificationError

_LARGEST_INTEGER: Final = 2**53 - 1
_PLAIN: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of ``value`` (dict, list, str, int, float, bool, None).

    Raises:
        VerificationError: the value has no canonical form (NaN, huge integer, odd type).
    """
    try:
        # For what ledgers and orders hold, json says the same bytes, ten times as fast.
        if _is_plain(value):
            return _PLAIN.encode(value).encode("utf-8")
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # its alias is stricter than its code
    except (rfc8785.CanonicalizationError, ValueError, TypeError, RecursionError) as error:
        raise VerificationError(
            "a value has no canonical JSON form", expected="RFC 8785", got=type(error).__name__
        ) from error


def _is_plain(value: object) -> bool:
    """Whether json writes it by RFC 8785: no float, no odd type, no key that sorts otherwise."""
    if value is None or type(value) is bool or type(value) is str:
        return True
    if type(value) is int:
        return -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER
    if type(value) is dict:
        keys = all(type(key) is str and key.isascii() for key in value)
        return keys and all(map(_is_plain, value.values()))
    return (type(value) is list or type(value) is tuple) and all(map(_is_plain, value))


def parse_canonical_json(data: bytes, what: str) -> object:
    """Parse ``data`` and insist that it is the canonical form of what it says.

    Raises:
        VerificationError: not UTF-8 JSON, a repeated key, nested too deep, or not byte for
            byte canonical.
    """
    value = parse_some_json(data, what)
    if canonical_json(value) != data:
        raise VerificationError(
            "unreadable record",
            field=what,
            expected="RFC 8785 canonical JSON",
            got="JSON in another spelling",
        )
    return value


def parse_some_json(data: bytes, what: str) -> object:
    """Parse ``data`` in whatever spelling; only for a caller who compares the bytes himself.

    Raises:
        VerificationError: not UTF-8 JSON, or nested too deep.
    """
    if not is_shallow(data):
        raise VerificationError(
            "unreadable record", field=what, expected=f"{MOST_DEPTH} levels at most", got="more"
        )
    try:
        value: object = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            "unreadable record", field=what, expected="canonical JSON", got="other bytes"
        ) from error
    return value


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()

"""Public keys that are keys: points of full order, in the one spelling that each has.

Under a point of small order anybody can sign, and with one anybody can agree on a secret;
with a second spelling of a point one key would have two names. Both are refused wherever a
public key is made from bytes. What is asked here costs no secret anything.

Source: RFC 8032, section 5.1.3; RFC 7748, sections 5 and 6.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_PRIME: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _PRIME) % _PRIME
_SMALL_Y: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        0x5FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
"""Second coordinates of the eight points of edwards25519 whose order divides eight."""
_SMALL_U: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        int.from_bytes(
            bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            "little",
        ),
        int.from_bytes(
            bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
            "little",
        ),
    }
)
"""Coordinates of curve25519 and its twist with which every agreed secret is zero."""


@lru_cache(maxsize=4096)
def fault_of_ed25519(raw: bytes) -> str:
    """Say what is wrong with an Ed25519 public key of 32 bytes; empty for a key."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _PRIME:
        return "a second spelling of another key"
    if y in _SMALL_Y:
        return "a point of small order, under which anybody can sign"
    if not _is_on_curve(y):
        return "no point of the curve"
    return ""


def fault_of_x25519(raw: bytes) -> str:
    """Say what is wrong with an X25519 public key of 32 bytes; empty for a key."""
    u = int.from_bytes(raw, "little")
    if u >= _PRIME:
        return "a second spelling of another key"
    if u in _SMALL_U:
        return "a point of small order, with which every secret is zero"
    return ""


def _is_on_curve(y: int) -> bool:
    """Tell whether some x has -x^2 + y^2 = 1 + d x^2 y^2."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME
    root = pow(square, (_PRIME + 3) // 8, _PRIME)
    return (root * root - square) % _PRIME == 0 or (root * root + square) % _PRIME == 0

"""Tuples of small numbers as one 64-bit key, and back.

A key is ``sum(digit[i] * product(radices[:i]))``: digit 0 is the least
significant, and dividing a key by the product of the first radices leaves the
key of the remaining digits, which is what recovery by prefixes relies on.
Every tuple has one key and every key below ``size`` one tuple.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError

MAX_DIGITS: Final = 64


class MixedRadix:
    """A bijection between digit tuples and the integers below ``size``.

    Args:
        radices: number of values of each digit, least significant first; 1 is
            allowed (a digit that is always 0).
        names: one different name per digit; they are part of the identity.

    Raises:
        InputDataError: no digits, a radix below 1, names that do not fit, or a
            product beyond 2**64.
    """

    def __init__(self, radices: Sequence[int], names: Sequence[str]) -> None:
        self.radices: Final = tuple(radices)
        self.names: Final = tuple(names)
        _check(self.radices, self.names)
        self.size: Final = math.prod(self.radices)
        self.identity: Final = sha256_hex(
            canonical_json(
                {
                    "kind": "mixed-radix",
                    "names": list(self.names),
                    # Text, because JSON numbers are exact only below 2**53.
                    "radices": [str(radix) for radix in self.radices],
                }
            )
        )
        self._limits = np.array([radix - 1 for radix in self.radices], np.uint64)

    def __repr__(self) -> str:
        digits = ", ".join(f"{n}={r}" for n, r in zip(self.names, self.radices, strict=True))
        return f"MixedRadix({digits})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MixedRadix) and other.identity == self.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def encode(self, digits: ArrayLike) -> NDArray[np.uint64]:
        """Keys of digit tuples, by Horner's rule.

        Args:
            digits: integers[n, d], digit i below ``radices[i]``.

        Returns:
            uint64[n].

        Raises:
            InputDataError: another shape or type, or a digit out of range.
        """
        array = np.asarray(digits)
        if array.ndim != 2 or array.shape[1] != len(self.radices) or array.dtype.kind not in "ui":
            raise InputDataError(
                "digits cannot be encoded",
                field="digits",
                expected=f"integers[n, {len(self.radices)}]",
                got=f"{array.dtype}{list(array.shape)}",
            )
        keys = np.zeros(array.shape[0], np.uint64)
        for i in range(len(self.radices) - 1, -1, -1):
            column = array[:, i]
            if column.size and (column.min() < 0 or int(column.max()) > int(self._limits[i])):
                raise InputDataError(
                    "digits cannot be encoded",
                    field=self.names[i],
                    expected=f"0 to {self._limits[i]}",
                    got="a digit out of range",
                )
            # A radix of 2**64 can only stand alone, where there is nothing to multiply.
            keys *= np.uint64(self.radices[i] % 2**64)
            keys += column.astype(np.uint64)
        return keys

    def decode(self, keys: ArrayLike) -> NDArray[np.uint64]:
        """Digit tuples of keys, uint64[n] -> uint64[n, d].

        Raises:
            InputDataError: another shape or type, or a key that is not below ``size``.
        """
        array = np.asarray(keys)
        if array.ndim != 1 or array.dtype != np.uint64:
            raise InputDataError(
                "keys cannot be decoded",
                field="keys",
                expected="uint64[n]",
                got=f"{array.dtype}{list(array.shape)}",
            )
        if array.size and int(array.max()) >= self.size:
            raise InputDataError(
                "keys cannot be decoded",
                field="keys",
                expected=f"below {self.size}",
                got="a key of another codec",
            )
        digits = np.empty((array.size, len(self.radices)), np.uint64)
        rest = array
        for i, limit in enumerate(self._limits):
            if limit == np.uint64(2**64 - 1):
                digits[:, i], rest = rest, np.zeros_like(rest)
            else:
                rest, digits[:, i] = np.divmod(rest, limit + np.uint64(1))
        return digits


def _check(radices: tuple[int, ...], names: tuple[str, ...]) -> None:
    if not 1 <= len(radices) <= MAX_DIGITS:
        raise InputDataError(
            "no such codec",
            field="radices",
            expected=f"1 to {MAX_DIGITS} digits",
            got=f"{len(radices)} digits",
        )
    for i, radix in enumerate(radices):
        if type(radix) is not int or radix < 1:
            raise InputDataError(
                "no such codec",
                field=f"radices[{i}]",
                expected="an integer of at least 1",
                got=f"{radix}" if type(radix) is int else type(radix).__name__,
            )
    if len(names) != len(radices) or len(set(names)) != len(names) or not all(names):
        raise InputDataError(
            "no such codec",
            field="names",
            expected=f"{len(radices)} different names",
            got=f"{len(set(names))} different of {len(names)}",
        )
    if math.prod(radices) > 2**64:
        raise InputDataError(
            "the codec does not fit into 64 bits",
            field="radices",
            expected="a product of at most 2**64",
            got=f"about 2**{math.log2(math.prod(radices)):.1f}",
            advice=f"Shrink {names[int(np.argmax(radices))]}, the largest, or leave digits out",
        )

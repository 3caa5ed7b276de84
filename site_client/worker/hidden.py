"""Prefix counts in an order that only holders of the federation key know.

Recovery needs exact counts of short prefixes of keys, and exact counts of known
cells would tell the aggregator which kinds of pixel there are. Shuffled by a keyed
permutation they still add up cell by cell, and say no more than how uneven the
counts are: whoever knows a similar tissue well may still guess the largest ones.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import SketchError
from common.sketching import SketchSpec
from common.sketching.spec import derive

_INFO: Final = b"cairn/pixels/prefix-order/v1\0"

I64 = NDArray[np.int64]


def hide(counts: I64, spec: SketchSpec) -> I64:
    """Shuffle ``counts``: what may leave.

    Args:
        counts: int64[prefixes].
        spec: of the full sketch; key and domain decide the order.

    Raises:
        SketchError: no federation key.
    """
    return counts[_order(spec, counts.size)]


def show(hidden: I64, spec: SketchSpec) -> I64:
    """Undo ``hide``.

    Raises:
        SketchError: no federation key.
    """
    counts = np.empty_like(hidden)
    counts[_order(spec, hidden.size)] = hidden
    return counts


def _order(spec: SketchSpec, cells: int) -> I64:
    """Return a permutation of the cells: they are sorted by the words of a keyed stream.

    Source: SHAKE256 (FIPS 202) with a secret prefix is a pseudo-random function.
    """
    if spec.key is None:
        raise SketchError(
            "the order of the prefix counts is hidden",
            field="spec.key",
            expected="the federation key",
            got="a public spec",
        )
    secret = derive(spec.key, _INFO + spec.domain.encode("ascii"), 32)
    words = np.frombuffer(hashlib.shake_256(secret).digest(8 * cells), dtype="<u8")
    return np.argsort(words, kind="stable").astype(np.int64)

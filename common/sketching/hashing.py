"""From the federation key to the hash functions of a sketch.

A 64-bit key ``x`` is first mixed by SipHash-2-4 under the 128-bit federation key,
``m = siphash(x)``. Row r then maps it to one of 2C *cells* by multiply-shift and
Lemire's range reduction:

    cell = (((a_r * m + b_r) mod 2**64) >> 32) * 2C >> 32

``cell >> 1`` is the bucket and ``cell & 1`` the sign (0 adds, 1 subtracts), as in
Thorup & Zhang, SIAM J. Comput. 2012: one hash gives both. The ``a_r`` (odd) and
``b_r`` come from the key by HKDF and depend on nothing but key, domain, version
and row, so every party with the key finds the same cells.

Premixing is what makes the sketch keyed (SipHash is a pseudo-random function,
Aumasson & Bernstein, INDOCRYPT 2012), and what makes multiply-shift safe on
structured keys, on which alone it is biased.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.errors import SketchError
from common.sketching.spec import SketchSpec, derive

_ROWS_INFO = b"cairn/sketch/rows/v1"


@dataclass(frozen=True, eq=False)
class HashFunctions:
    """Everything the kernels need to hash. Secret: derived from the federation key.

    Attributes:
        k0, k1: the SipHash key as two little-endian words.
        a, b: uint64[rows], multiplier (odd) and offset of each row.
        cells: 2C.
    """

    k0: np.uint64 = field(repr=False)
    k1: np.uint64 = field(repr=False)
    a: NDArray[np.uint64] = field(repr=False)
    b: NDArray[np.uint64] = field(repr=False)
    cells: np.uint64


def hash_functions(spec: SketchSpec) -> HashFunctions:
    """Derive the hash functions of ``spec``.

    Raises:
        SketchError: this party holds no key.
    """
    if spec.key is None:
        raise SketchError(
            "the aggregator cannot query",
            field="spec.key",
            expected="the federation key",
            got="a public spec",
            advice="Updating and estimating happen at the sites, which hold the key",
        )
    k0, k1 = np.frombuffer(spec.key, dtype="<u8").astype(np.uint64)
    info = _ROWS_INFO + b"\0" + spec.domain.encode("ascii")
    words = np.frombuffer(derive(spec.key, info, 16 * spec.rows), dtype="<u8").astype(np.uint64)
    return HashFunctions(
        k0=k0,
        k1=k1,
        a=words[0::2] | np.uint64(1),
        b=words[1::2].copy(),
        cells=np.uint64(2 * spec.columns),
    )

"""The inner product behind a tag, mod 2**61 - 1: a compiled kernel, for holders of the key only.

Apart from ``tags``, because whoever only adds tags imports no compiler.
"""

from __future__ import annotations

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from common.sketching.compiling import compiled, inlined
from common.sums.field import PRIME

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U64One = np.uint64


@inlined
def _times(a: U64One, b: U64One) -> U64One:
    """Multiply mod 2**61 - 1 two numbers below 2**61 + 8, by halves of 32 bits; below 2**61 + 8."""
    low, high = uint64(0xFFFFFFFF), uint64(32)
    a0, a1 = a & low, a >> high
    b0, b1 = b & low, b >> high
    least, middle0, middle1, most = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (least >> high) + (middle0 & low) + (middle1 & low)
    bits0 = (least & low) | (middle << high)
    bits1 = most + (middle0 >> high) + (middle1 >> high) + (middle >> high)
    folded = (bits0 & uint64(PRIME)) + ((bits0 >> uint64(61)) | (bits1 << uint64(3)))
    product: U64One = (folded & uint64(PRIME)) + (folded >> uint64(61))
    return product


@compiled
def dot(rho: U64, values: I64) -> U64One:
    """Inner product mod 2**61 - 1; rho below 2**61, values any int64."""
    prime = uint64(PRIME)
    total: U64One = uint64(0)
    for i in range(values.size):
        value = values[i]
        # -(-2**63) wraps to itself, whose bits as uint64 are 2**63: the right magnitude.
        size = uint64(value) if value >= 0 else uint64(-value)
        size = (size & prime) + (size >> uint64(61))
        product = _times(rho[i], size)
        product = (product & prime) + (product >> uint64(61))
        if value < 0:
            product = prime - product if product < prime else uint64(0)
        total = total + product
        total = (total & prime) + (total >> uint64(61))
    result: U64One = total % prime
    return result

"""The sketch in plain numpy, line by line as it is defined; slow and meant to be read.

The kernels must agree with it bit for bit. It is also what an auditor without
numba can recompute a table with. Nothing in production may depend on it for speed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.sketching.hashing import HashFunctions, hash_functions
from common.sketching.spec import SketchSpec

_U = np.uint64


def _rotate(x: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return (x << _U(bits)) | (x >> _U(64 - bits))


def siphash24(keys: NDArray[np.uint64], k0: np.uint64, k1: np.uint64) -> NDArray[np.uint64]:
    """SipHash-2-4 of each key taken as its 8 little-endian bytes. uint64[n] -> uint64[n]."""
    v0 = np.full(keys.shape, _U(0x736F6D6570736575) ^ k0)
    v1 = np.full(keys.shape, _U(0x646F72616E646F6D) ^ k1)
    v2 = np.full(keys.shape, _U(0x6C7967656E657261) ^ k0)
    v3 = np.full(keys.shape, _U(0x7465646279746573) ^ k1)

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0 = v0 + v1
            v1 = _rotate(v1, 13) ^ v0
            v0 = _rotate(v0, 32)
            v2 = v2 + v3
            v3 = _rotate(v3, 16) ^ v2
            v0 = v0 + v3
            v3 = _rotate(v3, 21) ^ v0
            v2 = v2 + v1
            v1 = _rotate(v1, 17) ^ v2
            v2 = _rotate(v2, 32)

    # A message of 8 bytes is the word itself, then a block that holds only its length.
    for block in (keys, np.full(keys.shape, _U(8 << 56))):
        v3 = v3 ^ block
        rounds(2)
        v0 = v0 ^ block
    v2 = v2 ^ _U(0xFF)
    rounds(4)
    return v0 ^ v1 ^ v2 ^ v3


def cells(keys: NDArray[np.uint64], functions: HashFunctions) -> NDArray[np.int64]:
    """Return the cell of every key in every row, int64[rows, n], 0 <= cell < 2C."""
    mixed = siphash24(keys, functions.k0, functions.k1)
    spread = functions.a[:, None] * mixed[None, :] + functions.b[:, None]
    return (((spread >> _U(32)) * functions.cells) >> _U(32)).astype(np.int64)


def table(
    spec: SketchSpec, keys: NDArray[np.uint64], weights: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return the table of a stream, int64[rows, columns]."""
    result = np.zeros((spec.rows, spec.columns), np.int64)
    amounts = np.ones(keys.shape, np.int64) if weights is None else weights
    for row, cell in zip(result, cells(keys, hash_functions(spec)), strict=True):
        np.add.at(row, cell >> 1, np.where(cell & 1, -amounts, amounts))
    return result


def row_estimates(
    spec: SketchSpec, table: NDArray[np.int64], keys: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Each row's unbiased estimate of each key's count, int64[rows, n]."""
    cell = cells(keys, hash_functions(spec))
    return np.where(cell & 1, -1, 1) * np.take_along_axis(table, cell >> 1, axis=1)


def estimate(
    spec: SketchSpec, table: NDArray[np.int64], keys: NDArray[np.uint64]
) -> NDArray[np.float64]:
    """Median over rows; the mean of the two middle values for even R. float64[n]."""
    ordered = np.sort(row_estimates(spec, table, keys), axis=0)
    low, high = ordered[(spec.rows - 1) // 2], ordered[spec.rows // 2]
    middle: NDArray[np.float64] = 0.5 * low.astype(np.float64) + 0.5 * high.astype(np.float64)
    return middle

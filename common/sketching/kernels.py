"""The compiled loops of the count sketch. Callers have checked every shape and type.

One file on purpose: numba notices a change only in the file a cached kernel was
compiled from, so a kernel may not call into another file.

The order of work is what makes them fast. A chunk of keys is premixed once.
Then row by row, so that one row's counters stay in cache, blocks of the chunk
are hashed to cell indices (a loop the compiler vectorises) and the cells are
incremented. A cell's counter is one byte that carries into the int64 table when
it wraps: a row of 20,000 columns is 40 KB, and 16-bit counters, twice that, take
a fifth longer. Sign and bucket share the cell index, so an update is a plain
increment. Slices are passed instead of offsets: index arithmetic with a wraparound
check would stop the vectoriser.

What remains is the machine's: one store per row and key, and the vector units'
rate for SipHash. Mixing the next block's hashing between a block's increments
was tried and gains nothing; so was one signed counter per bucket.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint32
from numpy.typing import NDArray

from common.sketching.compiling import compiled, inlined

U = np.uint64
U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
Low = NDArray[np.uint8]
I64 = NDArray[np.int64]


@inlined
def _siphash(m: np.uint64, k0: np.uint64, k1: np.uint64) -> np.uint64:
    v0 = U(0x736F6D6570736575) ^ k0
    v1 = U(0x646F72616E646F6D) ^ k1
    v2 = U(0x6C7967656E657261) ^ k0
    v3 = U(0x7465646279746573) ^ k1 ^ m
    for step in range(8):  # two rounds for the key, two for its length, four to finish
        if step == 2:
            v0 ^= m
            v3 ^= U(8 << 56)
        if step == 4:
            v0 ^= U(8 << 56)
            v2 ^= U(0xFF)
        v0 += v1
        v1 = ((v1 << U(13)) | (v1 >> U(51))) ^ v0
        v0 = (v0 << U(32)) | (v0 >> U(32))
        v2 += v3
        v3 = ((v3 << U(16)) | (v3 >> U(48))) ^ v2
        v0 += v3
        v3 = ((v3 << U(21)) | (v3 >> U(43))) ^ v0
        v2 += v1
        v1 = ((v1 << U(17)) | (v1 >> U(47))) ^ v2
        v2 = (v2 << U(32)) | (v2 >> U(32))
    return v0 ^ v1 ^ v2 ^ v3


@compiled
def premix(keys: U64, out: U64, k0: np.uint64, k1: np.uint64) -> None:
    """SipHash-2-4 of every key."""
    for j in range(keys.size):
        out[j] = _siphash(keys[j], k0, k1)


@compiled
def _row_cells(mixed: U64, out: U32, a: np.uint64, b: np.uint64, cells: np.uint64) -> None:
    for j in range(mixed.size):
        out[j] = uint32((((a * mixed[j] + b) >> U(32)) * cells) >> U(32))


@compiled
def _increment(low: Low, row: I64, index: U32, count: int) -> None:
    for j in range(count):
        cell = index[j]
        low[cell] += 1
        if low[cell] == 0:
            row[cell >> 1] += 256 - 512 * int64(cell & 1)


@compiled
def _add(low: Low, row: I64, index: U32, weights: I64, count: int) -> None:
    for j in range(count):
        cell = index[j]
        total = int64(low[cell]) + (weights[j] & 255)
        low[cell] = total & 255
        carry = (weights[j] & -256) + (total & 256)
        if carry != 0:
            negate = -int64(cell & 1)
            row[cell >> 1] += (carry ^ negate) - negate


@compiled
def _add_at_once(row: I64, index: U32, weights: I64, count: int) -> None:
    for j in range(count):
        cell = index[j]
        negate = -int64(cell & 1)
        row[cell >> 1] += (weights[j] ^ negate) - negate


@compiled
def count_mixed(
    mixed: U64, low: Low, table: I64, a: U64, b: U64, cells: np.uint64, index: U32
) -> None:
    """Add one for every premixed key, through the low counters."""
    for r in range(table.shape[0]):
        for start in range(0, mixed.size, index.size):
            block = mixed[start : start + index.size]
            _row_cells(block, index, a[r], b[r], cells)
            _increment(low[r], table[r], index, block.size)


@compiled
def count(
    keys: U64,
    low: Low,
    table: I64,
    k0: np.uint64,
    k1: np.uint64,
    a: U64,
    b: U64,
    cells: np.uint64,
    mixed: U64,
    index: U32,
) -> None:
    """Add one for every key. ``fold`` must follow before the table is read.

    Shapes: low uint8[rows, 2C], table int64[rows, C], mixed uint64[chunk],
    index uint32[block].
    """
    for start in range(0, keys.size, mixed.size):
        chunk = keys[start : start + mixed.size]
        premix(chunk, mixed, k0, k1)
        count_mixed(mixed[: chunk.size], low, table, a, b, cells, index)


@compiled
def add(
    keys: U64,
    weights: I64,
    low: Low | None,
    table: I64,
    k0: np.uint64,
    k1: np.uint64,
    a: U64,
    b: U64,
    cells: np.uint64,
    mixed: U64,
    index: U32,
) -> None:
    """Add a signed weight for every key, as ``count`` adds one. ``fold`` must follow.

    Without ``low`` the weights go straight into the table: numba compiles that case
    apart, with no branch left in the loop.
    """
    for start in range(0, keys.size, mixed.size):
        chunk = keys[start : start + mixed.size]
        amounts = weights[start : start + mixed.size]
        premix(chunk, mixed, k0, k1)
        for r in range(table.shape[0]):
            for begin in range(0, chunk.size, index.size):
                block = mixed[begin : min(begin + index.size, chunk.size)]
                _row_cells(block, index, a[r], b[r], cells)
                part = amounts[begin : begin + index.size]
                if low is None:
                    _add_at_once(table[r], index, part, block.size)
                else:
                    _add(low[r], table[r], index, part, block.size)


@compiled
def fold(low: Low, table: I64) -> None:
    """Move the low counters into the table and clear them."""
    for r in range(table.shape[0]):
        counters = low[r]
        row = table[r]
        for bucket in range(row.size):
            row[bucket] += int64(counters[2 * bucket]) - int64(counters[2 * bucket + 1])
        counters[:] = 0


@compiled
def estimate(
    keys: U64,
    table: I64,
    k0: np.uint64,
    k1: np.uint64,
    a: U64,
    b: U64,
    cells: np.uint64,
    mixed: U64,
    out: NDArray[np.float64],
) -> None:
    """Median over rows of the signed bucket; mean of the two middle values for even R."""
    rows = table.shape[0]
    values = np.empty(rows, np.int64)
    for start in range(0, keys.size, mixed.size):
        chunk = keys[start : start + mixed.size]
        premix(chunk, mixed, k0, k1)
        for j in range(chunk.size):
            for r in range(rows):
                cell = (((a[r] * mixed[j] + b[r]) >> U(32)) * cells) >> U(32)
                negate = -int64(cell & U(1))
                value = (table[r, cell >> U(1)] ^ negate) - negate
                row = r
                while row > 0 and values[row - 1] > value:
                    values[row] = values[row - 1]
                    row -= 1
                values[row] = value
            low, high = values[(rows - 1) // 2], values[rows // 2]
            out[start + j] = 0.5 * float(low) + 0.5 * float(high)


@compiled
def select(
    keys: U64,
    threshold: float,
    table: I64,
    k0: np.uint64,
    k1: np.uint64,
    a: U64,
    b: U64,
    cells: np.uint64,
    mixed: U64,
    selected: U64,
    estimates: NDArray[np.float64],
) -> int:
    """Keys whose estimate reaches ``threshold``; gives up on a key once too many rows say no.

    ``selected`` and ``estimates`` have room for every key; returns how many were written.
    """
    rows = table.shape[0]
    spare = rows // 2  # rows that may stay below while the median still reaches
    values = np.empty(rows, np.int64)
    written = 0
    for start in range(0, keys.size, mixed.size):
        chunk = keys[start : start + mixed.size]
        premix(chunk, mixed, k0, k1)
        for j in range(chunk.size):
            below = 0
            for r in range(rows):
                cell = (((a[r] * mixed[j] + b[r]) >> U(32)) * cells) >> U(32)
                negate = -int64(cell & U(1))
                values[r] = (table[r, cell >> U(1)] ^ negate) - negate
                if values[r] < threshold:
                    below += 1
                    if below > spare:
                        break
            if below > spare:
                continue
            values.sort()
            middle = 0.5 * float(values[(rows - 1) // 2]) + 0.5 * float(values[rows // 2])
            if middle >= threshold:
                selected[written] = chunk[j]
                estimates[written] = middle
                written += 1
    return written

"""The compiled loops of a survey: sums of products of bands, exact in whole numbers.

A strip of pixels is turned so that each band lies in one piece, because only long flat
loops are vectorised. Where the products of a strip stay small enough they are added in
32 bits, else in float64, whose sums of whole numbers are exact below 2**53 in whatever
order they are added. Callers have checked every shape and type.
"""

from __future__ import annotations

import numpy as np
from numba import int32, int64, uint16
from numpy.typing import NDArray

from common.keys.pixel_statistics import SUB_BINS
from common.sketching.compiling import compiled, compiled_in_any_order
from site_client.pixels.kernels import Raw, lengths

STRIP = 512  # pixels: 35 bands of them in float64 stay in the second-level cache
PITCH = STRIP + 8  # from band to band: no power of two, which would put all into one place of it
_BELOW = 1023 * SUB_BINS - 1  # what the bits of a whole number say above its bin
SIDE = 3  # bands by bands in one loop: every value that is fetched is used that often

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
U16 = NDArray[np.uint16]


@compiled
def add_products(pixels: Raw, turned: U16, signed: I16, wide: F64, gram: I64) -> None:
    """Add the products of all pairs of bands, the first band not after the second.

    Shapes: pixels[n, bands]; turned uint16[width, PITCH], ``signed``, the same memory as
    int16, and wide float64[width, PITCH] with the bands, padded by bands of zeros to a
    multiple of ``SIDE``; gram int64[width, width].
    """
    bands = pixels.shape[1]
    for start in range(0, pixels.shape[0], STRIP):
        part = pixels[start : start + STRIP]
        n = part.shape[0]
        for i in range(n):
            row = part[i]
            for b in range(row.size):
                turned[b, i] = row[b]
        top = int64(0)
        for b in range(bands):
            top |= _all_bits(turned[b, :n])
        if top * top * n < 2147483648 and top < 32768:
            _add_narrow(signed, n, bands, gram)
        else:
            for b in range(bands):
                _widen(turned[b, :n], wide[b, :n])
            _add_wide(wide, n, gram)


@compiled
def _all_bits(values: U16) -> int:
    """Return a number that has every bit of every value: at least the largest, below twice it."""
    bits = uint16(0)
    for k in range(values.size):
        bits = uint16(bits | values[k])
    whole: int = int64(bits)
    return whole


@compiled
def _widen(values: U16, out: F64) -> None:
    for k in range(values.size):
        out[k] = values[k]


@compiled
def _add_narrow(turned: I16, n: int, bands: int, gram: I64) -> None:
    for one in range(bands):
        for other in range(one, bands):
            gram[one, other] += int64(_product(turned[one, :n], turned[other, :n]))


@compiled
def _product(one: I16, other: I16) -> int:
    """Sum of products below 2**31: one multiply-and-add of the processor for many pixels."""
    total = int32(0)
    for k in range(one.size):
        total = int32(total + int32(one[k]) * int32(other[k]))
    whole: int = int64(total)
    return whole


@compiled_in_any_order
def _add_wide(turned: F64, n: int, gram: I64) -> None:
    for i in range(0, turned.shape[0], SIDE):
        a0, a1, a2 = turned[i, :n], turned[i + 1, :n], turned[i + 2, :n]
        for j in range(i, turned.shape[0], SIDE):
            b0, b1, b2 = turned[j, :n], turned[j + 1, :n], turned[j + 2, :n]
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = 0.0
            for k in range(n):
                x0, x1, x2, y0, y1, y2 = a0[k], a1[k], a2[k], b0[k], b1[k], b2[k]
                s00 += x0 * y0
                s01 += x0 * y1
                s02 += x0 * y2
                s10 += x1 * y0
                s11 += x1 * y1
                s12 += x1 * y2
                s20 += x2 * y0
                s21 += x2 * y1
                s22 += x2 * y2
            gram[i, j] += int64(s00)
            gram[i, j + 1] += int64(s01)
            gram[i, j + 2] += int64(s02)
            gram[i + 1, j] += int64(s10)
            gram[i + 1, j + 1] += int64(s11)
            gram[i + 1, j + 2] += int64(s12)
            gram[i + 2, j] += int64(s20)
            gram[i + 2, j + 1] += int64(s21)
            gram[i + 2, j + 2] += int64(s22)


@compiled
def add_intensities(
    pixels: Raw, squared: NDArray[np.uint64], floats: F64, bits: I64, histogram: I64
) -> None:
    """Count pixels by their squared intensity; bins as ``intensity_bins`` has them.

    Shapes: pixels[n, bands]; squared uint64[n or more]; floats float64[n or more] and
    ``bits``, the same memory as int64; histogram int64[bins].
    """
    lengths(pixels, squared)
    for i in range(pixels.shape[0]):
        floats[i] = float(squared[i])
    for i in range(pixels.shape[0]):
        histogram[max((bits[i] >> 49) - _BELOW, 0)] += 1

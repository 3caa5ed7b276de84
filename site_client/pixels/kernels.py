"""The compiled loops from pixels to keys. Callers have checked every shape and type.

Floats of 32 bits are a filter here and decide nothing by themselves: where one
comes so near to the edge of a bin that rounding could matter, the pixel is done
again in whole numbers and float64, operation by operation as ``common.keys.pixels``
defines it.

Loops are long and flat wherever possible, because only those are vectorised;
that is why digits are weighed in one pass and added up in others.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, int64, uint64
from numpy.typing import NDArray

from common.sketching.compiling import compiled

STRIDE = 128  # pixels between two stages of a loop: everything then stays in the first-level cache

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]
Raw = NDArray[np.uint8 | np.uint16]


@compiled
def lengths(pixels: Raw, squared: U64) -> None:
    """Squared intensities, exact: pixels[n, bands] -> uint64[n]."""
    for i in range(pixels.shape[0]):
        row = pixels[i]
        total = uint64(0)
        for b in range(row.size):
            value = uint64(row[b])
            total += value * value
        squared[i] = total


@compiled
def unit_vectors(
    pixels: Raw,
    floor: np.uint64,
    unit: F32,
    squared: U64,
    origin: NDArray[np.int64],
    foreground: NDArray[np.bool_],
) -> int:
    """Foreground pixels divided by their intensities, one after the other; how many.

    Shapes: pixels[n, bands]; unit float32[n, bands], squared uint64[n] and origin
    int64[n] (which pixel it was) have room for all; foreground bool[n].
    """
    count = 0
    scratch = np.empty(STRIDE, np.uint64)
    for start in range(0, pixels.shape[0], STRIDE):
        part = pixels[start : start + STRIDE]
        lengths(part, scratch)
        for i in range(part.shape[0]):
            total = scratch[i]
            foreground[start + i] = total >= floor
            if total >= floor:
                _divide(part[i], float32(1.0) / np.sqrt(float32(total)), unit[count])
                squared[count] = total
                origin[count] = start + i
                count += 1
    return count


@compiled
def _divide(row: Raw, inverse: np.float32, out: F32) -> None:
    for b in range(row.size):
        out[b] = float32(row[b]) * inverse


@compiled
def weighed_digits(
    places: F32,
    offset: F32,
    margin: F32,
    weight: U64,
    bins: int,
    digits: U64,
    doubt: NDArray[np.uint8],
) -> None:
    """Digits times their weight in the key, and where rounding could have moved one.

    Args:
        places: float32[n], components in bins from -1 on.
        offset: float32[n or more], where bin 0 begins.
        margin: float32[n or more], how near to an edge is in doubt.
        weight: uint64[n or more].
        bins: of every component.
        digits: uint64[n or more], written.
        doubt: uint8[n or more], written: 1 or 0.
    """
    half = float32(0.5)
    top = float32(bins) - half
    for j in range(places.size):
        # Beyond the outermost edges nothing is in doubt: there lies the middle of a bin.
        place = min(max(places[j] - offset[j], half), top)
        digit = np.int32(place)
        part = abs(place - float32(digit) - half)  # 0 in the middle of a bin
        doubt[j] = part + margin[j] >= half
        digits[j] = uint64(digit) * weight[j]


@compiled
def add_pairs(values: U64, out: U64) -> None:
    """Add neighbours: values uint64[2n] -> uint64[n]. May write over its input."""
    for j in range(out.size):
        out[j] = values[2 * j] + values[2 * j + 1]


@compiled
def keys_of(
    places: F32,
    offset: F32,
    margin: F32,
    weight: U64,
    digits: U64,
    doubt: NDArray[np.uint8],
    words: U64,
    keys: U64,
    pixels: Raw,
    squared: U64,
    origin: NDArray[np.int64],
    weights: NDArray[np.int64],
    low: F64,
    step: F64,
    bins: int,
) -> int:
    """Keys of unit vectors from their places; returns how many were in doubt.

    Shapes: places float32[n * width], with a power of two as width; offset, margin,
    weight, digits and doubt have ``STRIDE * width`` entries; ``words`` is ``doubt`` seen as
    uint64[STRIDE, width / 8]; keys uint64[n]; the rest as in ``settle``.
    """
    done = 0
    width = offset.size // STRIDE
    for start in range(0, keys.size, STRIDE):
        n = min(STRIDE, keys.size - start)
        size = n * width
        weighed_digits(
            places[start * width : start * width + size],
            offset,
            margin,
            weight,
            bins,
            digits,
            doubt,
        )
        while size > n:
            size //= 2
            add_pairs(digits[: 2 * size], digits[:size])
        part = keys[start : start + n]
        part[:] = digits[:n]
        where = origin[start : start + n]
        done += settle(part, words, pixels, squared[start:], where, weights, low, step, bins)
    return done


@compiled
def settle(
    keys: U64,
    doubt: U64,
    pixels: Raw,
    squared: U64,
    origin: NDArray[np.int64],
    weights: NDArray[np.int64],
    low: F64,
    step: F64,
    bins: int,
) -> int:
    """Replace keys in doubt by what the definition says; returns how many were.

    Shapes: keys uint64[n], doubt uint64[n, words] (not 0 where in doubt), the others
    as in ``unit_vectors``; weights int64[components, bands], low and step
    float64[components].
    """
    done = 0
    for i in range(keys.size):
        any_doubt = uint64(0)
        for word in range(doubt.shape[1]):
            any_doubt |= doubt[i, word]
        if any_doubt != 0:
            keys[i] = exact_key(pixels[origin[i]], squared[i], weights, low, step, bins)
            done += 1
    return done


@compiled
def exact_key(
    row: Raw, squared: np.uint64, weights: NDArray[np.int64], low: F64, step: F64, bins: int
) -> np.uint64:
    """Return the definition, for one foreground pixel."""
    length = math.sqrt(float(squared)) * 1073741824.0
    key: np.uint64 = uint64(0)
    for c in range(weights.shape[0] - 1, -1, -1):
        digit = exact_digit(row, length, weights[c], low[c], step[c], bins)
        key = key * uint64(bins) + uint64(digit)
    return key


@compiled
def exact_digit(
    row: Raw, length: float, weights: NDArray[np.int64], low: float, step: float, bins: int
) -> int:
    """Return the definition, for one component of a foreground pixel of this length."""
    total = int64(0)
    for b in range(row.size):
        total += weights[b] * int64(row[b])
    place = math.floor((float(total) / length - low) * step)
    digit: int = int64(min(max(place, 0.0), float(bins - 1)))
    return digit


@compiled
def count_places(
    places: F32,
    offset: F32,
    margin: F32,
    one: U64,
    digits: U64,
    doubt: NDArray[np.uint8],
    words: U64,
    pixels: Raw,
    squared: U64,
    origin: NDArray[np.int64],
    weights: NDArray[np.int64],
    low: F64,
    step: F64,
    bins: int,
    histogram: NDArray[np.int64],
) -> None:
    """Count the digit of every component by itself: histogram int64[components, bins].

    Shapes as in ``keys_of``; ``one`` is what a digit weighs. A component is done again by
    itself where rounding could have moved it.
    """
    width = offset.size // STRIDE
    flat = histogram.reshape(-1)
    for start in range(0, places.size, STRIDE * width):
        part = places[start : start + STRIDE * width]
        weighed_digits(part, offset, margin, one, bins, digits, doubt)
        for i in range(part.size // width):
            bin_of = digits[i * width : i * width + weights.shape[0]]
            any_doubt = uint64(0)
            for word in range(words.shape[1]):
                any_doubt |= words[i, word]
            if any_doubt != 0:
                cell = start // width + i
                length = math.sqrt(float(squared[cell])) * 1073741824.0
                for c in range(bin_of.size):
                    if doubt[i * width + c]:
                        row = pixels[origin[cell]]
                        exact = exact_digit(row, length, weights[c], low[c], step[c], bins)
                        bin_of[c] = uint64(exact)
            for c in range(bin_of.size):
                flat[c * bins + int64(bin_of[c])] += 1

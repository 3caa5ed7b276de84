"""Smoothing of bands before pixels become keys: the definition that every site shares.

A pixel as counted holds a few counts, and its key little; smoothed, it also says what
lies around it. Weights are whole numbers, so the weighted sums are exact in float64 in
whatever order they are added: a pixel is smoothed alike on every machine. The way that
does so a few rows at a time is the sites' (``site_client.pixels.smoothing``) and must
equal this bit for bit. No slide is opened here.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError

UNIT: Final = 2**18  # what all weights of an axis add up to: 16 bits twice weighed are 52 bits
REACH: Final = 4  # standard deviations to either side; beyond lies less than 1 in 10,000
PER_PIXEL: Final = 1000  # standard deviations are given in thousandths of a pixel
MOST: Final = 5 * PER_PIXEL

F32 = NDArray[np.float32]


@lru_cache
def weights_of(smoothing: int) -> tuple[int, ...]:
    """Weights of a pixel itself, its neighbours, those after them, and so on outwards.

    Both sides together add up to ``UNIT`` exactly. They are computed in decimals, which
    are rounded alike everywhere; a machine's own ``exp`` need not be.

    Args:
        smoothing: standard deviation of the Gaussian, thousandths of a pixel.

    Raises:
        InputDataError: not 1 to 5000.
    """
    if not check_smoothing(smoothing) >= 1:
        raise _wrong(f"1 to {MOST} thousandths of a pixel")
    with localcontext(Context(prec=40, rounding=ROUND_HALF_EVEN)):
        sigma = Decimal(smoothing) / PER_PIXEL
        heights = [
            (-(Decimal(k) ** 2) / (2 * sigma**2)).exp()
            for k in range(int(REACH * sigma + Decimal("0.5")) + 1)
        ]
        whole = heights[0] + 2 * sum(heights[1:])
        sides = [int((UNIT * height / whole).to_integral_value()) for height in heights[1:]]
    return (UNIT - 2 * sum(sides), *sides)


def check_smoothing(smoothing: object) -> int:
    """Return ``smoothing``, in thousandths of a pixel; 0 is none.

    Raises:
        InputDataError: not a whole number from 0 to 5000.
    """
    if type(smoothing) is not int or not 0 <= smoothing <= MOST:
        raise _wrong(f"a whole number from 0 to {MOST} thousandths of a pixel")
    return smoothing


def smooth(image: NDArray[np.uint8 | np.uint16], smoothing: int) -> F32:
    """Smooth every band of a whole image, which is mirrored at its edges.

    Every pixel takes part, background too, so tissue fades into what surrounds it.

    Args:
        image: uint8 or uint16[rows, columns, bands].
        smoothing: standard deviation, thousandths of a pixel; at least 1.

    Returns:
        float32[rows, columns, bands], in the image's own units.

    Raises:
        InputDataError: another smoothing.
    """
    inner, *outer = weights_of(smoothing)
    sums = image.astype(np.float64)
    for axis in (0, 1):
        reach = [(len(outer), len(outer)) if axis == a else (0, 0) for a in range(3)]
        line = np.moveaxis(np.pad(sums, reach, mode="symmetric"), axis, 0)
        size = sums.shape[axis]
        parts = [inner * line[len(outer) : len(outer) + size]]
        for away, weight in enumerate(outer, start=1):
            before, after = len(outer) - away, len(outer) + away
            parts.append(weight * (line[before : before + size] + line[after : after + size]))
        sums = np.moveaxis(np.sum(parts, axis=0), 0, axis)
    return (sums / UNIT**2).astype(np.float32)


def _wrong(expected: str) -> InputDataError:
    return InputDataError("unusable smoothing", field="smoothing", expected=expected, got="another")

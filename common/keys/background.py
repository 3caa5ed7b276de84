"""The border between background and tissue, found in the merged histogram of intensities.

A histogram of all sites goes in, one number comes out; no pixel is seen here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.pixel_statistics import I64, intensity_edges


def background_floor(histogram: I64, sigmas: float = 3.0) -> int:
    """Squared intensity at which tissue begins: ``exp(mu + sigmas * sigma)``, squared.

    The background is the peak of the histogram of log-intensities above 1; mu is its
    mode and sigma the distance to its half height, on the side where that is nearer
    (a peak that tissue or zero cuts into is then measured on its other side).

    Raises:
        InputDataError: no such peak, or nothing above it.
    """
    low, high = intensity_edges()
    used = (high >= low) & (low > 1)
    ends = 0.5 * np.log([low[used] - 0.5, high[used] + 0.5])
    density = histogram[used] / (ends[1] - ends[0])
    centre = ends.mean(axis=0)
    peak = int(np.argmax(density))
    sides = [
        _half_height(density[peak:], centre[peak:]),
        _half_height(density[peak::-1], centre[peak::-1]),
    ]
    sigma = min(sides)
    floor = math.ceil(math.exp(2 * (centre[peak] + sigmas * sigma))) if sigma < math.inf else 0
    if not floor or not histogram[low >= floor].sum():
        raise InputDataError(
            "no background peak that pixels rise above",
            field="histogram",
            expected="a peak of log-intensities with foreground beyond it",
            got="none",
            advice="Give the intensity of the darkest tissue in the plan instead",
        )
    return floor


def _half_height(density: NDArray[np.float64], centre: NDArray[np.float64]) -> float:
    """Distance from the first entry to where the density falls to half of it."""
    below = np.flatnonzero(density <= density[0] / 2)
    if density[0] == 0 or below.size == 0:
        return math.inf
    i = int(below[0])
    part = (density[i - 1] - density[0] / 2) / (density[i - 1] - density[i])
    return float(abs(centre[i - 1] + part * (centre[i] - centre[i - 1]) - centre[0]))

"""The structure of an image: how unlike its surroundings each pixel is, whatever the greys mean.

Two modalities show the same borders in other greys. Of each pixel is kept how far it lies from
the mean around it, brighter or darker, in units of the spread around it. Stretched, shifted or
inverted greys leave that nearly or exactly as it is; curves that are not monotone keep only part
of it, and those that show two tissues alike lose the border between them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import with_pixels

_SIDE: Final = 9
_QUIET: Final = 4.0
_FARTHEST: Final = 2.5


def structured(cases: Cases) -> Cases:
    """Show every image by its structure, channels of pictures one by one; the rest stays."""
    volumes = (with_pixels(c, structure(c.volume.voxels)) for c in cases.volumes)
    pictures = (
        with_pixels(c, np.stack([structure(channel) for channel in c.picture.channels]))
        for c in cases.pictures
    )
    return replace(cases, volumes=tuple(volumes), pictures=tuple(pictures))


def structure(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show how far each pixel lies from the mean of its surroundings, by their spread.

    The surroundings are 9 pixels wide along every axis; at a border the last pixel goes on.
    A spread far below 4 greys is taken for noise. 0 is a pixel like those around it, 255 one
    that lies 2.5 spreads from them or more. Sums are of whole numbers: the same pixels give the
    same bytes on every machine, and inverted greys (255 - x) too.

    Args:
        pixels: uint8[..., y, x] of two or three dimensions, of one channel.

    Returns:
        uint8 of the same shape.
    """
    greys = pixels.astype(np.int64)
    count = _SIDE**pixels.ndim
    total = _summed_around(greys)
    spread = np.sqrt(count * _summed_around(greys * greys) - total * total)
    away = np.abs(count * greys - total) / (spread + _QUIET * count)
    return np.asarray(np.rint(255 * np.minimum(away / _FARTHEST, 1)).astype(np.uint8))


def _summed_around(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up the surroundings of each pixel, itself included; int64 of the same shape."""
    for axis in range(numbers.ndim):
        numbers = ndimage.correlate1d(numbers, np.ones(_SIDE), axis=axis, mode="nearest")
    return numbers

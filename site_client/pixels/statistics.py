"""The sums over a slide that sites add up before keys exist: exact, in one pass each.

Nothing but these sums is kept. A chunk's Gram matrix is computed by BLAS in
float64, where sums of whole numbers stay exact below 2**53, and added up in int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from common.errors import InputDataError
from common.keys.pixel_projection import PixelProjection, checked_pixels
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    ComponentRanges,
    PixelSurvey,
    intensity_bins,
)
from site_client.pixels.smoothing import smoothed
from site_client.pixels.source import PixelSource

BLOCK: Final = 8192  # pixels in float64 at a time: 2**13 * 2**32 is far below 2**53
_LIMIT: Final = 2**63  # of a sum
Progress = Callable[[int], None]
"""Called with the number of pixels done after every chunk; may raise to stop."""


def survey(
    slide: PixelSource, scale: int = 1, progress: Progress | None = None, smoothing: int = 0
) -> PixelSurvey:
    """Sum how bright pixels are and how bands go together.

    Args:
        slide: of uint8, uint16 or float32.
        scale: integers per unit of intensity for float32 or smoothed slides, 1 for others.
        progress: told about every chunk.
        smoothing: standard deviation by which bands are smoothed first, thousandths of a
            pixel; 0 is none.

    Returns:
        The sums over all pixels, background included.

    Raises:
        InputDataError: floats that do not fit, or more than 2**63 in a sum, which takes
            at least 2**31 pixels.
    """
    bands = len(slide.bands)
    gram = np.zeros((bands, bands), np.int64)
    histogram = np.zeros(INTENSITY_BINS, np.int64)
    done = 0
    for chunk in smoothed(slide, smoothing, scale).chunks():
        integers = checked_pixels(chunk, bands, scale)
        for start in range(0, len(integers), BLOCK):
            block = integers[start : start + BLOCK].astype(np.float64)
            part = (block.T @ block).astype(np.int64)
            if int(gram.max()) + int(part.max()) >= _LIMIT:
                raise InputDataError(
                    "too many pixels for one survey",
                    field="gram",
                    expected="sums below 2**63, e.g. 2**31 pixels of 16 bits",
                    got="more",
                )
            gram += part
            squared = np.einsum("ij,ij->i", block, block)
            histogram += np.bincount(intensity_bins(squared), minlength=INTENSITY_BINS)
        done += len(integers)
        if progress is not None:
            progress(done)
    return PixelSurvey(slide.bands, scale, done, histogram, gram, smoothing)


def component_ranges(
    slide: PixelSource, projection: PixelProjection, progress: Progress | None = None
) -> ComponentRanges:
    """Sum where the components of the slide's foreground lie, divided by intensity.

    Args:
        slide: with the projection's bands.
        projection: common to all sites; it says how bands are smoothed.
        progress: told about every chunk.

    Raises:
        InputDataError: other bands, or floats that do not fit.
    """
    require_bands(slide, projection.bands)
    components = projection.weights.shape[0]
    counts = np.zeros(components * RANGE_BINS, np.int64)
    offsets = np.arange(components) * RANGE_BINS
    foreground = done = 0
    whole = smoothed(slide, projection.smoothing, projection.scale)
    for chunk in whole.chunks():
        for start in range(0, len(chunk), BLOCK):
            values, _ = projection.components(chunk[start : start + BLOCK])
            place = np.floor((values + 1.0) * RANGE_UNITS).astype(np.int64)
            place = np.clip(place, 0, RANGE_BINS - 1) + offsets
            counts += np.bincount(place.ravel(), minlength=counts.size)
            foreground += len(values)
        done += len(chunk)
        if progress is not None:
            progress(done)
    return ComponentRanges(projection.identity, foreground, counts.reshape(components, RANGE_BINS))


def require_bands(slide: PixelSource, bands: tuple[str, ...]) -> None:
    """Refuse a slide that was opened with other bands than ``bands``, or in another order.

    Raises:
        InputDataError: names what was expected.
    """
    if slide.bands != bands:
        raise InputDataError(
            "the slide has other bands than the codec",
            field="bands",
            expected=", ".join(bands),
            got="others, or another order",
        )

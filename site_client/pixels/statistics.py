"""The sums over a slide that sites add up before keys exist: exact, in one pass each.

Nothing but these sums is kept, one set for each thread until they are added. What is summed
are whole numbers, so neither the order nor the number of threads changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import reduce
from operator import add
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.pixel_projection import PixelProjection, checked_pixels
from common.keys.pixel_statistics import INTENSITY_BINS, ComponentRanges, PixelSurvey
from common.sketching.inputs import checked_threads
from site_client.pixels import sum_kernels
from site_client.pixels.encode import RangeCounter
from site_client.pixels.lanes import shared_out
from site_client.pixels.smoothing import smoothed
from site_client.pixels.source import PixelSource

BLOCK: Final = 8192  # pixels between two looks whether a sum grows too large
_LIMIT: Final = 2**63  # of a sum
Progress = Callable[[int], None]
"""Called with the number of pixels done after every chunk; may raise to stop."""


class _Summer:
    """One thread's sums of a survey."""

    def __init__(self, bands: tuple[str, ...], scale: int, smoothing: int) -> None:
        self._bands, self._scale, self._smoothing = bands, scale, smoothing
        padded = -(-len(bands) // sum_kernels.SIDE) * sum_kernels.SIDE
        self._turned = np.zeros((padded, sum_kernels.PITCH), np.uint16)
        self._wide = np.zeros((padded, sum_kernels.PITCH))
        self._squared = np.empty(BLOCK, np.uint64)
        self._floats = np.empty(BLOCK)
        self._gram = np.zeros((len(bands), len(bands)), np.int64)
        self._histogram = np.zeros(INTENSITY_BINS, np.int64)
        self._pixels = 0

    def add(self, chunk: NDArray[np.generic]) -> int:
        """Sum a chunk up; returns its number of pixels."""
        bands = len(self._bands)
        integers = np.ascontiguousarray(checked_pixels(chunk, bands, self._scale))
        for start in range(0, len(integers), BLOCK):
            block = integers[start : start + BLOCK]
            part = np.zeros(2 * self._wide.shape[:1], np.int64)
            turned = self._turned
            sum_kernels.add_products(block, turned, turned.view(np.int16), self._wide, part)
            part = np.triu(part[:bands, :bands])
            if int(self._gram.max()) + int(part.max()) >= _LIMIT:
                raise InputDataError(
                    "too many pixels for one survey",
                    field="gram",
                    expected="sums below 2**63, e.g. 2**31 pixels of 16 bits",
                    got="more",
                )
            self._gram += part + np.triu(part, 1).T
            floats = self._floats
            sum_kernels.add_intensities(
                block, self._squared, floats, floats.view(np.int64), self._histogram
            )
        self._pixels += len(integers)
        return len(integers)

    def survey(self) -> PixelSurvey:
        """Return the sums so far."""
        return PixelSurvey(
            self._bands, self._scale, self._pixels, self._histogram, self._gram, self._smoothing
        )


def survey(
    slide: PixelSource,
    scale: int = 1,
    progress: Progress | None = None,
    smoothing: int = 0,
    threads: int = 1,
) -> PixelSurvey:
    """Sum how bright pixels are and how bands go together.

    Args:
        slide: of uint8, uint16 or float32.
        scale: integers per unit of intensity for float32 or smoothed slides, 1 for others.
        progress: told about every chunk.
        smoothing: standard deviation by which bands are smoothed first, thousandths of a
            pixel; 0 is none.
        threads: 1 to 64 that sum; the sums do not depend on it.

    Returns:
        The sums over all pixels, background included.

    Raises:
        InputDataError: floats that do not fit, or more than 2**63 in a sum, which takes
            at least 2**31 pixels.
        SketchError: an impossible number of threads.
    """
    lanes = [_Summer(slide.bands, scale, smoothing) for _ in range(checked_threads(threads))]
    _pass_over(smoothed(slide, smoothing, scale), [lane.add for lane in lanes], progress)
    return reduce(add, (lane.survey() for lane in lanes))


def component_ranges(
    slide: PixelSource,
    projection: PixelProjection,
    progress: Progress | None = None,
    threads: int = 1,
) -> ComponentRanges:
    """Sum where the components of the slide's foreground lie, divided by intensity.

    Args:
        slide: with the projection's bands.
        projection: common to all sites; it says how bands are smoothed.
        progress: told about every chunk.
        threads: 1 to 64 that count; the counts do not depend on it.

    Raises:
        InputDataError: other bands, or floats that do not fit.
        SketchError: an impossible number of threads.
    """
    require_bands(slide, projection.bands)
    lanes = [RangeCounter(projection) for _ in range(checked_threads(threads))]
    whole = smoothed(slide, projection.smoothing, projection.scale)
    _pass_over(whole, [lane.add for lane in lanes], progress)
    return reduce(
        add,
        (ComponentRanges(projection.identity, lane.foreground, lane.histogram) for lane in lanes),
    )


def _pass_over(
    slide: PixelSource,
    lanes: list[Callable[[NDArray[np.generic]], int]],
    progress: Progress | None,
) -> None:
    done = 0
    with closing(shared_out(slide.chunks(), lanes)) as parts:
        for pixels in parts:
            done += pixels
            if progress is not None:
                progress(done)


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

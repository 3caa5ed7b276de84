"""A slide with its bands smoothed, a few rows at a time: never a whole slide in memory.

Equal to ``common.keys.smoothing.smooth`` of the whole slide in every bit, wherever it is
cut. At most the rows within reach of one row are held, besides those being read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.pixel_statistics import as_integers
from common.keys.smoothing import UNIT, weights_of
from common.sketching.compiling import compiled
from site_client.pixels.source import PixelSource

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Row = NDArray[np.uint8 | np.uint16]


def smoothed(slide: PixelSource, smoothing: int, scale: int) -> PixelSource:
    """Return the slide smoothed; the slide itself where nothing is to be smoothed.

    Args:
        slide: of uint8, uint16 or float32.
        smoothing: standard deviation, thousandths of a pixel; 0 is none.
        scale: integers per unit of intensity, to which float32 slides are rounded first.

    Raises:
        InputDataError: another smoothing.
    """
    return SmoothedSlide(slide, smoothing, scale) if smoothing else slide


class SmoothedSlide:
    """See ``PixelSource``; yields float32 in the slide's own units, mirrored at its edges.

    Args:
        slide: what is smoothed.
        smoothing: standard deviation, thousandths of a pixel; at least 1.
        scale: integers per unit of intensity, to which float32 slides are rounded first.

    Raises:
        InputDataError: another smoothing.
    """

    def __init__(self, slide: PixelSource, smoothing: int, scale: int) -> None:
        self._slide = slide
        self._weights = weights_of(smoothing)
        self._scale = scale
        self._divisor = 1  # of integers; once floats are read, their scale
        self.bands: Final = slide.bands
        self.shape: Final = slide.shape

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.shape[0] * self.shape[1]

    def chunks(self) -> Iterator[F32]:
        """All pixels in reading order; see ``PixelSource``.

        Raises:
            InputDataError: as the slide's, or fewer pixels than its header says.
        """
        height, width, _ = self.shape
        reach = len(self._weights) - 1
        window: deque[Row] = deque()  # rows from number ``first`` on
        first = done = 0
        for rows in self._rows():
            window.extend(rows)
            ready = first + len(window)
            ready = height if ready == height else ready - reach
            if ready <= done:
                continue
            out = np.empty((ready - done, width * len(self.bands)), np.float32)
            for number in range(done, ready):
                self._smooth(window, first, number, out[number - done])
            done = ready
            while first < done - reach:
                window.popleft()
                first += 1
            yield out.reshape(-1, len(self.bands))
        if done != height:
            raise InputDataError(
                "the slide has another size than its header says",
                field="slide",
                expected=f"{height} rows",
                got=f"{first + len(window)}",
            )

    def _rows(self) -> Iterator[Row]:
        """Whole rows, integers[n, columns * bands], however the slide is cut."""
        width, bands = self.shape[1], len(self.bands)
        rest: NDArray[np.generic] | None = None
        for chunk in self._slide.chunks():
            if chunk.dtype == np.float32:
                self._divisor = self._scale
            integers = as_integers(chunk, self._divisor)
            whole = integers if rest is None else np.concatenate([rest, integers])
            full = len(whole) // width * width
            rest = whole[full:] if full < len(whole) else None
            if full:
                yield np.ascontiguousarray(whole[:full]).reshape(-1, width * bands)

    def _smooth(self, window: deque[Row], first: int, number: int, out: F32) -> None:
        """Smooth row ``number``: down its columns, then along it."""
        height, width, _ = self.shape
        bands, reach = len(self.bands), len(self._weights) - 1
        sums = np.zeros(width * bands)
        for away, weight in enumerate(self._weights):
            above = window[_mirrored(number - away, height) - first]
            below = window[_mirrored(number + away, height) - first]
            # The row itself is its own pair.
            _add_pair(sums, above, below, weight if away else weight / 2)
        wide = np.pad(sums.reshape(width, bands), ((reach, reach), (0, 0)), mode="symmetric")
        line = np.ascontiguousarray(wide).reshape(-1)
        sums = np.zeros(width * bands)
        for away, weight in enumerate(self._weights):
            left = line[(reach - away) * bands :][: sums.size]
            right = line[(reach + away) * bands :][: sums.size]
            _add_pair(sums, left, right, weight if away else weight / 2)
        np.divide(sums, UNIT**2, out=sums)
        # A float slide was counted in integers: back to its own units.
        np.divide(sums, self._divisor, out=out, casting="same_kind")


def _mirrored(index: int, size: int) -> int:
    """Index inside, for one beyond the edges, which are mirrors; again and again if need be."""
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@compiled
def _add_pair(
    sums: F64, one: NDArray[np.generic], other: NDArray[np.generic], weight: float
) -> None:
    """Add ``weight`` times both: integers or float64[n] to sums float64[n]."""
    for j in range(sums.size):
        sums[j] += weight * (float(one[j]) + float(other[j]))

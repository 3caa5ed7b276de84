"""Statistics that sites tell of their pixels before any key exists: sums, nothing else.

Both statistics are integer sums over pixels, so those of several sites are
added exactly and in any order, and may pass secure aggregation. No pixel is
read here; how a slide is summed up is in ``site_client.pixels``. A mean of a
few pixels is nearly a pixel: floors on ``pixels`` are the door's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.keys.smoothing import check_smoothing

MAX_BANDS: Final = 256  # keeps the squared intensity of 16-bit bands below 2**40
SUB_BINS: Final = 8  # per doubling of the squared intensity
INTENSITY_BINS: Final = 1 + 40 * SUB_BINS
RANGE_UNITS: Final = 2048  # bins of a normalised component between 0 and 1
RANGE_BINS: Final = 2 * RANGE_UNITS

I64 = NDArray[np.int64]


def as_integers(pixels: NDArray[np.generic], scale: int = 1) -> NDArray[np.uint8 | np.uint16]:
    """Pixels as the integers that are counted: the one place where floats become numbers.

    Args:
        pixels: uint8, uint16 or float32, any shape.
        scale: integers per unit of intensity; 1 unless the pixels are float32.

    Returns:
        The same array, or for float32 ``rint(scale * pixel)`` as uint16. What lies
        below 0 counts as 0, as on a detector.

    Raises:
        InputDataError: another type, a scale for integers, or a float that is not
            finite or beyond 65535 / scale.
    """
    if pixels.dtype in (np.uint8, np.uint16):
        if scale != 1:
            raise InputDataError(
                "integer pixels need no scale", field="scale", expected="1", got=f"{scale}"
            )
        return pixels  # type: ignore[return-value]  # checked above
    if pixels.dtype != np.float32:
        raise InputDataError(
            "unusable pixels",
            field="dtype",
            expected="uint8, uint16 or float32",
            got=str(pixels.dtype),
        )
    # 24 bits times at most 29 are exact in float64: the same integer everywhere.
    scaled = np.rint(pixels.astype(np.float64) * scale)
    if scaled.size and not scaled.max() <= 65535:  # NaN fails, too
        raise InputDataError(
            "float pixels do not fit into 16 bits",
            field="scale",
            expected=f"finite pixels of at most 65535 / {scale}",
            got="a larger one, or NaN",
            advice="Choose a smaller scale in the plan",
        )
    return np.maximum(scaled, 0.0).astype(np.uint16)


def intensity_bins(squared: NDArray[np.float64]) -> I64:
    """Bin of each squared intensity (whole numbers below 2**40): bin 0 holds 0 alone.

    Bins split every doubling into eight of equal width. They are read off the bits
    of the number and never computed, so every machine finds the same.
    """
    bits = np.ascontiguousarray(squared, np.float64).view(np.int64)
    index: I64 = np.maximum((bits >> 49) - (1023 * SUB_BINS) + 1, 0)
    return index


def intensity_edges() -> tuple[I64, I64]:
    """Smallest and largest whole number of every bin, int64[INTENSITY_BINS] each.

    A bin whose smallest exceeds its largest holds no whole number.
    """
    index = np.arange(INTENSITY_BINS)
    octave, part = np.divmod(index, SUB_BINS)
    below = (2.0**octave) * (1 + part / SUB_BINS)  # lower end of bin index + 1
    low = np.concatenate([[0], np.ceil(below[:-1]).astype(np.int64)])
    high = np.concatenate([[0], np.ceil(below[1:]).astype(np.int64) - 1])
    return low, high


@dataclass(frozen=True, eq=False)
class PixelSurvey:
    """Brightness of pixels and how bands go together, over all pixels of a site.

    Attributes:
        bands: names, in the order of the Gram matrix.
        scale: integers per unit of intensity; 1 unless slides are float32.
        pixels: how many.
        histogram: int64[INTENSITY_BINS], pixels per bin of squared intensity, which is
            the sum of squares over all bands.
        gram: int64[B, B], sum over pixels of the outer product of a pixel with itself;
            exact. Any 2**31 pixels of 16 bits fit, and 2**47 of 8 bits.
        smoothing: standard deviation by which the bands were smoothed first, thousandths of
            a pixel; 0 is none.

    Raises:
        InputDataError: a shape or type that does not fit, or counts that contradict.
    """

    bands: tuple[str, ...]
    scale: int
    pixels: int
    histogram: I64
    gram: I64
    smoothing: int = 0

    def __post_init__(self) -> None:
        check_bands(self.bands)
        check_smoothing(self.smoothing)
        b = len(self.bands)
        _check_array("histogram", self.histogram, (INTENSITY_BINS,))
        _check_array("gram", self.gram, (b, b))
        if (
            self.pixels < 0
            or int(self.histogram.sum()) != self.pixels
            or self.histogram.min() < 0
            or self.gram.min() < 0
            or not np.array_equal(self.gram, self.gram.T)
        ):
            raise InputDataError(
                "not a survey of pixels",
                field="pixels",
                expected="the sum of a histogram, and a symmetric Gram matrix, none negative",
                got="numbers that contradict",
            )

    @classmethod
    def empty(cls, bands: tuple[str, ...], scale: int = 1, smoothing: int = 0) -> PixelSurvey:
        """Return the survey of no pixels, which changes nothing when added."""
        b = len(bands)
        histogram, gram = np.zeros(INTENSITY_BINS, np.int64), np.zeros((b, b), np.int64)
        return cls(bands, scale, 0, histogram, gram, smoothing)

    def __add__(self, other: PixelSurvey) -> PixelSurvey:
        """Return the survey of both sites' pixels.

        Raises:
            InputDataError: other bands, scale or smoothing, or sums beyond 63 bits.
        """
        _require_same("bands", self.bands, other.bands)
        _require_same("scale", self.scale, other.scale)
        _require_same("smoothing", self.smoothing, other.smoothing)
        # Every entry is at most the largest on the diagonal (Cauchy-Schwarz).
        diagonals = zip(self.gram.diagonal().tolist(), other.gram.diagonal().tolist(), strict=True)
        if max(ours + theirs for ours, theirs in diagonals) >= 2**63:
            raise InputDataError(
                "too many pixels for one survey",
                field="gram",
                expected="sums below 2**63, e.g. 2**31 pixels of 16 bits",
                got="more",
            )
        return PixelSurvey(
            self.bands,
            self.scale,
            self.pixels + other.pixels,
            self.histogram + other.histogram,
            self.gram + other.gram,
            self.smoothing,
        )


@dataclass(frozen=True, eq=False)
class ComponentRanges:
    """Histograms of the components of foreground pixels, divided by intensity.

    Attributes:
        projection: identity of the projection that made the components.
        pixels: foreground pixels, each counted once per component.
        histogram: int64[components, RANGE_BINS] over -1 to 1.

    Raises:
        InputDataError: a shape or type that does not fit, or counts that contradict.
    """

    projection: str
    pixels: int
    histogram: I64

    def __post_init__(self) -> None:
        components = self.histogram.shape[0] if self.histogram.ndim == 2 else 0
        _check_array("histogram", self.histogram, (components, RANGE_BINS))
        sums = self.histogram.sum(axis=1)
        if not components or self.histogram.min() < 0 or not (sums == self.pixels).all():
            raise InputDataError(
                "not the ranges of components",
                field="histogram",
                expected="every pixel once per component",
                got="numbers that contradict",
            )

    @classmethod
    def empty(cls, projection: str, components: int) -> ComponentRanges:
        """Return the ranges of no pixels."""
        return cls(projection, 0, np.zeros((components, RANGE_BINS), np.int64))

    def __add__(self, other: ComponentRanges) -> ComponentRanges:
        """Return the ranges of both sites' pixels.

        Raises:
            InputDataError: of another projection.
        """
        _require_same("projection", self.projection, other.projection)
        _require_same("components", self.histogram.shape, other.histogram.shape)
        return ComponentRanges(
            self.projection, self.pixels + other.pixels, self.histogram + other.histogram
        )

    def limits(self, tail: float, *, shared: bool) -> tuple[list[int], list[int]]:
        """Lowest and highest end of every component, in units of 1 / RANGE_UNITS.

        Args:
            tail: share of pixels that may lie outside at either end.
            shared: one pair of ends for all components, as the paper's authors do,
                instead of one each.

        Raises:
            InputDataError: no pixels, or a tail that leaves none.
        """
        if not 0 <= tail < 0.5 or self.pixels == 0:
            raise InputDataError(
                "no ranges to freeze",
                field="tail" if self.pixels else "pixels",
                expected="0 to below 0.5" if self.pixels else "foreground pixels",
                got="another number" if self.pixels else "none",
            )
        counts = self.histogram.sum(axis=0, keepdims=True) if shared else self.histogram
        below = np.cumsum(counts, axis=1)
        total = below[:, -1:]
        first = np.argmax(below > tail * total, axis=1)
        last = np.argmax(below >= total - tail * total, axis=1)
        repeat = self.histogram.shape[0] // counts.shape[0]
        low = [int(i) - RANGE_UNITS for i in first] * repeat
        high = [int(i) + 1 - RANGE_UNITS for i in last] * repeat
        return low, high


def check_bands(bands: tuple[str, ...]) -> None:
    """Refuse an empty, too long or repeating list of bands.

    Raises:
        InputDataError: names the band that stands twice.
    """
    if not 1 <= len(bands) <= MAX_BANDS:
        raise InputDataError(
            "unusable bands",
            field="bands",
            expected=f"1 to {MAX_BANDS} names",
            got=f"{len(bands)}",
        )
    for i, band in enumerate(bands):
        if not band or band in bands[:i]:
            raise InputDataError(
                "unusable bands", field="bands", expected="different names", got=f"{band!r} twice"
            )


def _check_array(name: str, array: I64, shape: tuple[int, ...]) -> None:
    if array.dtype != np.int64 or array.shape != shape:
        raise InputDataError(
            "not the statistics of pixels",
            field=name,
            expected=f"int64{list(shape)}",
            got=f"{array.dtype}{list(array.shape)}",
        )


def _require_same(field: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise InputDataError(
            "statistics of different pixels cannot be added",
            field=field,
            expected="the same on both sides",
            got="another",
        )

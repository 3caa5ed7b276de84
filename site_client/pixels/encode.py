"""The fast way from pixels to components, and to keys: equal to their definitions in every bit.

BLAS in float32 for the projection, compiled loops for the rest, block by block. One
thread; the caller may run several encoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.keys.pixel_projection import UNIT, PixelProjection, checked_pixels
from common.keys.pixel_statistics import RANGE_BINS, RANGE_UNITS
from common.keys.pixels import PixelCodec
from site_client.pixels import kernels

BLOCK: Final = (
    8192  # pixels at a time; shorter blocks pay more for every call than caches give back
)
_ROUNDING: Final = 2.0**-24  # of one operation in float32, relative
F32 = NDArray[np.float32]
_Number = TypeVar("_Number", np.float32, np.uint64)
_WORD: Final = 8  # doubts of a pixel are looked at eight at a time


class Places:
    """Where the components of pixels lie, in bins, by float32; and how far that can be trusted.

    Holds buffers, so one thread at a time.

    Args:
        projection: of the components.
        low: lower end of every component, float64[components].
        step: bins per unit of every component, float64[components].
        bins: of every component.
    """

    def __init__(
        self,
        projection: PixelProjection,
        low: NDArray[np.float64],
        step: NDArray[np.float64],
        bins: int,
    ) -> None:
        self.projection: Final = projection
        self.bins: Final = bins
        self.components, bands = projection.weights.shape
        # A fitted codec's lie column by column, one's that was read row by row: two compilations.
        self.weights = np.ascontiguousarray(projection.weights, np.int64)
        self.low, self.step = low, step
        # Components are padded to a power of two, at least a word: their digits weigh nothing.
        self.width = max(_WORD, 1 << (self.components - 1).bit_length())
        self._matrix = np.zeros((bands, self.width), np.float32)
        self._matrix[:, : self.components] = (self.weights / UNIT * step[:, None]).T
        self.offset = _tiled(low * step, self.width, -0.5, np.float32)
        self.margin = _tiled(self._margins(), self.width, 0.0, np.float32)
        self.digits = np.empty(kernels.STRIDE * self.width, np.uint64)
        self.doubt = np.empty(kernels.STRIDE * self.width, np.uint8)
        self.words = self.doubt.view(np.uint64).reshape(kernels.STRIDE, -1)
        self.squared = np.empty(BLOCK, np.uint64)
        self.origin = np.empty(BLOCK, np.int64)
        self._unit = np.empty((BLOCK, bands), np.float32)
        self._places = np.empty((BLOCK, self.width), np.float32)

    def _margins(self) -> NDArray[np.float64]:
        """Bound how near to an edge, in bins, float32 may be on the wrong side of it.

        A sum of B products is off by at most B + 1 roundings of the sum of their
        absolute values (in any order of adding, with or without fused operations),
        which is at most the product of both lengths; dividing by the pixel's length,
        subtracting, and rounding the constants add a few more.
        """
        lengths = np.sqrt(np.square(self.weights / UNIT).sum(axis=1))
        roundings = self.step * (lengths * (len(self._matrix) + 8) + 8) + 4 * self.bins
        margins: NDArray[np.float64] = 1.01 * roundings * _ROUNDING
        return margins

    def weight(self, of_component: list[int]) -> NDArray[np.uint64]:
        """Return what the digit of each component weighs, for every pixel of a stride."""
        return _tiled(np.array(of_component, np.uint64), self.width, 0, np.uint64)

    def blocks(
        self, pixels: NDArray[np.generic]
    ) -> Iterator[tuple[slice, NDArray[np.uint8 | np.uint16], NDArray[np.bool_], F32]]:
        """Places of the foreground, a block of pixels at a time.

        Args:
            pixels: uint8, uint16 or float32[n, bands].

        Yields:
            Which pixels; they as integers; bool[n], which are foreground; and
            float32[foreground * width], to which ``squared`` and ``origin`` belong.

        Raises:
            InputDataError: another shape or type, or floats that do not fit.
        """
        projection = self.projection
        checked = checked_pixels(pixels, len(projection.bands), projection.scale)
        integers = np.ascontiguousarray(checked)
        floor = np.uint64(projection.floor)
        for start in range(0, len(integers), BLOCK):
            block = integers[start : start + BLOCK]
            mask = np.empty(len(block), np.bool_)
            n = kernels.unit_vectors(block, floor, self._unit, self.squared, self.origin, mask)
            np.dot(self._unit[:n], self._matrix, out=self._places[:n])
            yield slice(start, start + len(block)), block, mask, self._places[:n].reshape(-1)


class PixelEncoder:
    """Turns chunks of pixels into keys. Holds buffers, so one thread at a time.

    Args:
        codec: whose keys.

    Attributes:
        codec: the same.
        doubts: pixels so far that float32 could not decide.
    """

    def __init__(self, codec: PixelCodec) -> None:
        self.codec: Final = codec
        self.doubts = 0
        self._at = Places(codec.projection, *codec.bin_steps(), codec.bins)
        self._digit_weight = self._at.weight([codec.bins**i for i in range(self._at.components)])

    def encode(self, pixels: NDArray[np.generic]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Keys of the foreground pixels; see ``PixelCodec.encode``.

        Args:
            pixels: uint8, uint16 or float32[n, bands].

        Returns:
            uint64[foreground] and bool[n], which pixels are foreground.

        Raises:
            InputDataError: another shape or type, or floats that do not fit.
        """
        keys = np.empty(len(pixels), np.uint64)
        foreground = np.empty(len(pixels), np.bool_)
        locator, written = self._at, 0
        for which, block, mask, places in locator.blocks(pixels):
            n = len(places) // locator.width
            self.doubts += kernels.keys_of(
                places,
                locator.offset,
                locator.margin,
                self._digit_weight,
                locator.digits,
                locator.doubt,
                locator.words,
                keys[written : written + n],
                block,
                locator.squared,
                locator.origin,
                locator.weights,
                locator.low,
                locator.step,
                locator.bins,
            )
            foreground[which] = mask
            written += n
        return keys[:written], foreground


class RangeCounter:
    """Counts where components lie; equal to ``PixelProjection.components`` in every bit.

    Args:
        projection: of the components.

    Attributes:
        histogram: int64[components, RANGE_BINS] so far, over -1 to 1.
        foreground: pixels so far that are.
    """

    def __init__(self, projection: PixelProjection) -> None:
        components = projection.weights.shape[0]
        ends, units = np.full(components, -1.0), np.full(components, float(RANGE_UNITS))
        self._at = Places(projection, ends, units, RANGE_BINS)
        self._one = self._at.weight([1] * components)
        self.histogram = np.zeros((components, RANGE_BINS), np.int64)
        self.foreground = 0

    def add(self, pixels: NDArray[np.generic]) -> int:
        """Count pixels; returns how many they are, foreground or not.

        Args:
            pixels: uint8, uint16 or float32[n, bands].

        Raises:
            InputDataError: another shape or type, or floats that do not fit.
        """
        locator = self._at
        for _, block, _, places in locator.blocks(pixels):
            kernels.count_places(
                places,
                locator.offset,
                locator.margin,
                self._one,
                locator.digits,
                locator.doubt,
                locator.words,
                block,
                locator.squared,
                locator.origin,
                locator.weights,
                locator.low,
                locator.step,
                locator.bins,
                self.histogram,
            )
            self.foreground += len(places) // locator.width
        return len(pixels)


def _tiled(
    values: NDArray[np.float64] | NDArray[np.uint64],
    width: int,
    padding: float,
    dtype: type[_Number],
) -> NDArray[_Number]:
    """``values`` padded to ``width`` and repeated for every pixel of a stride."""
    row = np.full(width, padding, dtype)
    row[: len(values)] = values
    return np.tile(row, kernels.STRIDE)

"""The fast way from pixels to keys: equal to ``PixelCodec.encode`` in every bit.

BLAS in float32 for the projection, compiled loops for the rest, block by block. One
thread; the caller may run several encoders.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.keys.pixel_projection import UNIT, checked_pixels
from common.keys.pixels import PixelCodec
from site_client.pixels import kernels

BLOCK: Final = (
    8192  # pixels at a time; shorter blocks pay more for every call than caches give back
)
_ROUNDING: Final = 2.0**-24  # of one operation in float32, relative
_Number = TypeVar("_Number", np.float32, np.uint64)
_WORD: Final = 8  # doubts of a pixel are looked at eight at a time


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
        projection = codec.projection
        components, bands = projection.weights.shape
        # A fitted codec's lie column by column, one's that was read row by row: two compilations.
        self._weights = np.ascontiguousarray(projection.weights, np.int64)
        self._low, self._step = codec.bin_steps()
        # Components are padded to a power of two, at least a word: their digits weigh nothing.
        width = max(_WORD, 1 << (components - 1).bit_length())
        self._matrix = np.zeros((bands, width), np.float32)
        self._matrix[:, :components] = (self._weights / UNIT * self._step[:, None]).T
        weight = [codec.bins**i for i in range(components)]
        self._offset = _tiled(self._low * self._step, width, -0.5, np.float32)
        self._margin = _tiled(self._margins(), width, 0.0, np.float32)
        self._digit_weight = _tiled(np.array(weight, np.uint64), width, 0, np.uint64)
        self._unit = np.empty((BLOCK, bands), np.float32)
        self._places = np.empty((BLOCK, width), np.float32)
        self._digits = np.empty(kernels.STRIDE * width, np.uint64)
        self._doubt = np.empty(kernels.STRIDE * width, np.uint8)
        self._squared = np.empty(BLOCK, np.uint64)
        self._origin = np.empty(BLOCK, np.int64)

    def _margins(self) -> NDArray[np.float64]:
        """Bound how near to an edge, in bins, float32 may be on the wrong side of it.

        A sum of B products is off by at most B + 1 roundings of the sum of their
        absolute values (in any order of adding, with or without fused operations),
        which is at most the product of both lengths; dividing by the pixel's length,
        subtracting, and rounding the constants add a few more.
        """
        lengths = np.sqrt(np.square(self._weights / UNIT).sum(axis=1))
        roundings = self._step * (lengths * (len(self._matrix) + 8) + 8) + 4 * self.codec.bins
        margins: NDArray[np.float64] = 1.01 * roundings * _ROUNDING
        return margins

    def encode(self, pixels: NDArray[np.generic]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Keys of the foreground pixels; see ``PixelCodec.encode``.

        Args:
            pixels: uint8, uint16 or float32[n, bands].

        Returns:
            uint64[foreground] and bool[n], which pixels are foreground.

        Raises:
            InputDataError: another shape or type, or floats that do not fit.
        """
        projection = self.codec.projection
        checked = checked_pixels(pixels, len(projection.bands), projection.scale)
        integers = np.ascontiguousarray(checked)
        keys = np.empty(len(integers), np.uint64)
        foreground = np.empty(len(integers), np.bool_)
        written = 0
        for start in range(0, len(integers), BLOCK):
            block = integers[start : start + BLOCK]
            mask = foreground[start : start + len(block)]
            written += self._block(block, mask, keys[written:])
        return keys[:written], foreground

    def _block(
        self,
        pixels: NDArray[np.uint8 | np.uint16],
        foreground: NDArray[np.bool_],
        keys: NDArray[np.uint64],
    ) -> int:
        """Keys of a block's foreground; returns how many."""
        floor = np.uint64(self.codec.projection.floor)
        n = kernels.unit_vectors(pixels, floor, self._unit, self._squared, self._origin, foreground)
        np.dot(self._unit[:n], self._matrix, out=self._places[:n])
        self.doubts += kernels.keys_of(
            self._places[:n].reshape(-1),
            self._offset,
            self._margin,
            self._digit_weight,
            self._digits,
            self._doubt,
            self._doubt.view(np.uint64).reshape(kernels.STRIDE, -1),
            keys[:n],
            pixels,
            self._squared,
            self._origin,
            self._weights,
            self._low,
            self._step,
            self.codec.bins,
        )
        return n


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

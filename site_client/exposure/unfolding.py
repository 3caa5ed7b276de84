"""Convolutions that copy pixels, undone exactly: where every feature is a pixel or a few.

Honest convolutions mix dozens of pixels into each feature and are left alone here;
crafted ones hand pixels on. Two or three pixels may share a feature if each is
packed below the last bit of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.settings.parameters import light_side

_LAYERS = (("conv1", 1), ("conv2", 2), ("conv3", 4))
"""Convolutions of stride 2 from the picture inwards, and how far apart their inputs lie in it."""
_CUTS = 3
_MOST_TAPS = 3
_NEGLIGIBLE = 1e-6
_GREY_LEVELS = 255
# Pixels share a feature only if each weighs at least this much more than the next.
_PACKED = 250.0
_READ = 0.5


@dataclass(frozen=True)
class _Tap:
    """A pixel that a feature channel copies: its cut, place relative to the cell, and weight."""

    cut: int
    down: int
    right: int
    weight: float


def unfold(
    weights: Mapping[str, NDArray[np.float32]],
    roi: int,
    values: NDArray[np.float64],
    at_rest: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Pictures float32[n, cuts, roi, roi] in grey levels, NaN for cuts that cannot be unfolded.

    Args:
        weights: of the convolutions.
        roi: side of a cut.
        values: float64[n, features].
        at_rest: float64[features], the features of an empty picture.
    """
    side = light_side(roi)
    cells = (values - at_rest).reshape(len(values), -1, side, side)
    pictures = np.full((len(values), _CUTS, roi, roi), np.nan, np.float32)
    for channel, taps in enumerate(_taps_of_channels(weights)):
        _unpack(cells[:, channel], taps, pictures)
    for picture in pictures.reshape(-1, roi, roi):
        finite = np.isfinite(picture)
        if finite.mean() < _READ:
            picture[:] = np.nan
        elif not finite.all():
            picture[~finite] = picture[finite].mean()
    return np.clip(pictures, 0, _GREY_LEVELS)


def _taps_of_channels(weights: Mapping[str, NDArray[np.float32]]) -> list[list[_Tap]]:
    """List what each channel of the last convolution copies, heaviest first; empty if it mixes."""
    traced: list[list[_Tap]] = [[_Tap(cut, 0, 0, 1.0)] for cut in range(_CUTS)]
    for name, apart in _LAYERS:
        kernels = np.asarray(weights[f"{name}.weight"], np.float64)
        traced = [_trace(kernel, apart, traced) for kernel in kernels]
    for taps in traced:
        taps.sort(key=lambda tap: -tap.weight)
    return traced


def _trace(kernel: NDArray[np.float64], apart: int, inner: list[list[_Tap]]) -> list[_Tap]:
    """Return the pixels behind one kernel [channels, k, k], given those behind its inputs."""
    largest = np.abs(kernel).max(initial=0.0)
    used = np.argwhere(np.abs(kernel) > _NEGLIGIBLE * largest) if largest else np.empty((0, 3), int)
    if not 0 < len(used) <= _MOST_TAPS:
        return []
    middle = kernel.shape[-1] // 2
    taps: list[_Tap] = []
    for channel, y, x in used.tolist():
        inner_taps = inner[channel]
        weight = float(kernel[channel, y, x])
        if not inner_taps or weight <= 0:  # a negative copy does not get through the ReLU
            return []
        taps += [
            _Tap(
                tap.cut,
                tap.down + apart * (y - middle),
                tap.right + apart * (x - middle),
                tap.weight * weight,
            )
            for tap in inner_taps
        ]
    return taps if len(taps) <= _MOST_TAPS else []


def _unpack(cells: NDArray[np.float64], taps: list[_Tap], pictures: NDArray[np.float32]) -> None:
    """Write the pixels of one channel's cells [n, side, side] into ``pictures``, in place."""
    ratios = [a.weight / b.weight for a, b in pairwise(taps)]
    if not taps or min(ratios, default=_PACKED) < _PACKED:
        return
    roi, side = pictures.shape[-1], cells.shape[-1]
    rest = cells * _GREY_LEVELS
    for number, tap in enumerate(taps):
        grey = rest / tap.weight
        last = number == len(taps) - 1
        # What is packed below stays below one level; half a unit of it is rounding.
        grey = np.rint(grey) if last else np.floor(grey + 0.5 * taps[-1].weight / tap.weight)
        rest = rest - grey * tap.weight
        down, right = 8 * np.arange(side) + tap.down, 8 * np.arange(side) + tap.right
        ys, xs = (down >= 0) & (down < roi), (right >= 0) & (right < roi)
        seen = grey[:, ys][:, :, xs]
        pictures[:, tap.cut, down[ys][:, None], right[xs]] = seen

"""Cases of two and of three dimensions by one name: their middles, corners and pixels.

Positions are given as a case's landmarks are: LPS mm in volumes, mm from the middle
of the first pixel in pictures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.pyramids import Raster
from site_client.imaging.volumes import Volume

AnyCase = Case | PictureCase


def middle_of(case: AnyCase) -> NDArray[np.float64]:
    """Give float64[d], mm: the middle of an image."""
    return case.picture.extent_mm / 2 if isinstance(case, PictureCase) else case.volume.centre_mm


def first_of(case: AnyCase) -> NDArray[np.float64]:
    """Give float64[d], mm: the first pixel of an image."""
    return np.zeros(2) if isinstance(case, PictureCase) else np.array(case.volume.origin_mm)


def half_of(case: AnyCase) -> NDArray[np.float64]:
    """Give float64[2, d], mm from the middle: corners of half the image along each axis."""
    extent = 2 * (middle_of(case) - first_of(case))
    return np.stack([-extent / 4, extent / 4])


def around_middle(case: AnyCase) -> NDArray[np.float64]:
    """Give float64[2^d, d], mm from the middle: all corners of half the image."""
    corners = half_of(case)
    d = corners.shape[1]
    return np.asarray(corners[np.array(list(np.ndindex(*[2] * d))), np.arange(d)])


def extent_of(case: AnyCase) -> float:
    """Give the longest side of an image, mm."""
    if isinstance(case, Case):
        return float(case.volume.size.max() * case.volume.spacing_mm)
    return float(case.picture.extent_mm.max())


def pixels_of(case: AnyCase) -> NDArray[np.uint8]:
    """Give the pixels of an image, uint8[z, y, x] or uint8[channels, y, x]."""
    return case.volume.voxels if isinstance(case, Case) else case.picture.channels


@overload
def with_pixels(case: Case, pixels: NDArray[np.uint8]) -> Case: ...
@overload
def with_pixels(case: PictureCase, pixels: NDArray[np.uint8]) -> PictureCase: ...
def with_pixels(case: AnyCase, pixels: NDArray[np.uint8]) -> AnyCase:
    """Give the same case with other pixels, of the shape of `pixels_of`."""
    if isinstance(case, PictureCase):
        return replace(case, picture=replace(case.picture, channels=pixels))
    return replace(case, volume=replace(case.volume, voxels=pixels))


def raster(case: AnyCase) -> Raster:
    """Lay an image out as the pyramids take it."""
    if isinstance(case, PictureCase):
        return Raster(case.picture.channels, (case.picture.spacing_mm,) * 2, np.eye(2))
    return raster_of(case.volume)


def raster_of(volume: Volume) -> Raster:
    """Lay a volume out as the pyramids take it."""
    return Raster(volume.voxels[None], (volume.spacing_mm,) * 3, volume.direction)

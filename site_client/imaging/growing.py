"""Regions that grow from a seed through greys like the seed's own.

The grower is SimpleITK's ConnectedThreshold. Regions are on the working grid of an image.
What is written here shows where something lies in a patient: it stays where the person
asked for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from site_client.imaging.cases import AnyCase
from site_client.imaging.datasets2d import PictureCase


class Grower:
    """Grows regions in one image.

    Args:
        pixels: uint8[(z,) y, x].
        spacing_mm: distance of neighbouring pixels.
        tolerance: greys above and below the seed's that still belong to a region.
        smooth_mm: standard deviation of the Gaussian that smooths the image first; 0 for none.
    """

    def __init__(
        self, pixels: NDArray[np.uint8], spacing_mm: float, tolerance: float, smooth_mm: float
    ) -> None:
        image = sitk.GetImageFromArray(pixels.astype(np.float32))
        image.SetSpacing((spacing_mm,) * pixels.ndim)
        # A filter of Gaussian recursion needs four pixels along every axis.
        if smooth_mm > 0 and min(pixels.shape) >= 4:
            image = sitk.SmoothingRecursiveGaussian(image, smooth_mm)
        self._image, self._tolerance = image, tolerance
        self._greys = sitk.GetArrayFromImage(image)

    def region(self, index: NDArray[np.integer]) -> NDArray[np.bool_]:
        """bool[(z,) y, x]: the region of the seed at a pixel int[d] (x, y, z)."""
        seed = tuple(int(k) for k in index)
        grey = float(self._greys[seed[::-1]])
        low, high = grey - self._tolerance, grey + self._tolerance
        grown = sitk.ConnectedThreshold(self._image, [seed], low, high, 1)
        return np.asarray(sitk.GetArrayViewFromImage(grown) > 0)


def innermost(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64[d]: the pixel (x, y, z) of a mask that lies furthest from its border."""
    # One pixel of nothing all around: the border of the image is a border, too.
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(padded), insideIsPositive=True, squaredDistance=True
    )
    values = sitk.GetArrayFromImage(depth)
    deepest = np.unravel_index(int(values.argmax()), values.shape)
    return np.array(deepest[::-1], dtype=np.int64) - 1


def distances_from(mask: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.float32]:
    """float32[(z,) y, x]: distance of every pixel from a mask, mm; 0 in it."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing((spacing_mm,) * mask.ndim)
    away = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return np.asarray(np.maximum(sitk.GetArrayFromImage(away), 0.0), np.float32)


def write_region(path: Path, region: NDArray[np.bool_], case: AnyCase) -> None:
    """Write a region as a label image in the place of its image.

    Args:
        path: the file; its ending says the format.
        region: bool[(z,) y, x] on the grid of the image.
        case: the image.
    """
    image = sitk.GetImageFromArray(region.astype(np.uint8))
    if isinstance(case, PictureCase):
        image.SetSpacing((case.picture.spacing_mm,) * 2)
    else:
        image.SetSpacing((case.volume.spacing_mm,) * 3)
        image.SetOrigin(case.volume.origin_mm)
        image.SetDirection(case.volume.direction.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)

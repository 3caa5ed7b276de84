"""Made-up subjects from a template: warp an image and its landmarks by the same deformation.

For demonstrations and tests. The deformation runs from the subject back to the
template, as resampling wants it; landmarks go the other way through its numerical
inverse, so image and landmarks agree to a thousandth of a millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError, InternalError

_FIELD_SPACING_MM = 8.0
_FIELD_SMOOTHNESS_MM = 28.0
_INVERSE_TOLERANCE_MM = 1e-4


@dataclass(frozen=True, eq=False)
class Grid:
    """The places of an image's voxels.

    Attributes:
        size: voxels along the x, y, z index.
        spacing_mm: along the x, y, z index.
        origin_mm: world position (LPS) of index (0, 0, 0).
        direction: float64[3, 3], columns are the world directions of the index axes.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RawImage:
    """Voxels [z, y, x] as a file holds them, and their grid."""

    voxels: NDArray[np.generic]
    grid: Grid


def read_raw(path: Path) -> RawImage:
    """Read an image without changing it.

    Raises:
        InputDataError: SimpleITK cannot open it.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputDataError("cannot read the image", field=str(path)) from error
    direction = np.array(image.GetDirection()).reshape(3, 3)
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), direction)
    return RawImage(sitk.GetArrayFromImage(image), grid)


def write_raw(path: Path, image: RawImage) -> None:
    """Write an image in the format its suffix names, compressed where that is usual."""
    sitk.WriteImage(_to_sitk(image), str(path), useCompression=path.name.endswith(".gz"))


class Deformation:
    """A smooth invertible map: an affine pose about a centre, plus a random bend.

    Args:
        affine: float64[3, 3], subject axes to template axes.
        centre_mm: template point about which the affine map turns.
        shift_mm: subject position of that point.
        field_mm: float64[z, y, x, 3] displacement on an 8 mm grid around the centre.
    """

    def __init__(
        self,
        affine: NDArray[np.float64],
        centre_mm: NDArray[np.float64],
        shift_mm: NDArray[np.float64],
        field_mm: NDArray[np.float64],
    ) -> None:
        turn = sitk.AffineTransform(3)
        turn.SetMatrix(affine.ravel().tolist())
        turn.SetTranslation((centre_mm - affine @ shift_mm).tolist())
        field = sitk.GetImageFromArray(field_mm, isVector=True)
        field.SetSpacing([_FIELD_SPACING_MM] * 3)
        half = (np.array(field_mm.shape[2::-1]) - 1) * _FIELD_SPACING_MM / 2
        field.SetOrigin((centre_mm - half).tolist())
        bend = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
        # A composite applies its last part first: turn, then bend in template space.
        self._transform = sitk.CompositeTransform([bend, turn])
        self._bend = sitk.Transform(bend)
        self._back = turn.GetInverse()

    def to_template(self, subject_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Subject points float64[n, 3] (LPS mm) to template points."""
        points = [self._transform.TransformPoint(point.tolist()) for point in subject_mm]
        return np.array(points, dtype=np.float64)

    def to_subject(self, template_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template points float64[n, 3] to subject points, by fixed-point iteration.

        Raises:
            InternalError: the bend folds space, so that there is no inverse.
        """
        points = []
        for target in template_mm:
            bent = target.copy()
            for _ in range(200):
                miss = target - np.array(self._bend.TransformPoint(bent.tolist()))
                bent += miss
                if np.abs(miss).max() < _INVERSE_TOLERANCE_MM:
                    break
            else:
                raise InternalError("a deformation cannot be inverted", expected="no folds")
            points.append(self._back.TransformPoint(bent.tolist()))
        return np.array(points, dtype=np.float64)

    def warp(self, template: RawImage, grid: Grid) -> NDArray[np.float32]:
        """float32[z, y, x]: the template as this subject, sampled linearly on a grid; 0 outside."""
        resample = sitk.ResampleImageFilter()
        resample.SetNumberOfThreads(1)
        resample.SetInterpolator(sitk.sitkLinear)
        resample.SetTransform(self._transform)
        resample.SetSize(grid.size)
        resample.SetOutputSpacing(grid.spacing_mm)
        resample.SetOutputOrigin(grid.origin_mm)
        resample.SetOutputDirection(grid.direction.ravel().tolist())
        resample.SetOutputPixelType(sitk.sitkFloat32)
        warped: NDArray[np.float32] = sitk.GetArrayFromImage(resample.Execute(_to_sitk(template)))
        return warped


def random_bend(
    rng: np.random.Generator, extent_mm: float, largest_mm: float
) -> NDArray[np.float64]:
    """float64[z, y, x, 3]: a smooth random displacement field over a cube.

    Args:
        rng: draws the field.
        extent_mm: side of the cube.
        largest_mm: length of the longest displacement; well below the field's
            smoothness of 28 mm, so that it cannot fold.
    """
    side = int(np.ceil(extent_mm / _FIELD_SPACING_MM)) + 1
    noise = sitk.GetImageFromArray(rng.standard_normal((side, side, side, 3)), isVector=True)
    noise.SetSpacing([_FIELD_SPACING_MM] * 3)
    smooth = sitk.SmoothingRecursiveGaussian(noise, _FIELD_SMOOTHNESS_MM)
    field: NDArray[np.float64] = sitk.GetArrayFromImage(smooth).astype(np.float64)
    field *= largest_mm / np.linalg.norm(field, axis=-1).max()
    return field


def _to_sitk(image: RawImage) -> sitk.Image:
    """The same image for SimpleITK."""
    converted = sitk.GetImageFromArray(image.voxels)
    converted.SetSpacing(image.grid.spacing_mm)
    converted.SetOrigin(image.grid.origin_mm)
    converted.SetDirection(image.grid.direction.ravel().tolist())
    return converted

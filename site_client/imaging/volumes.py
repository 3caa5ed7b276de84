"""Opening a 3-D image as a `Volume`: one grid, one orientation, one byte per voxel.

Whatever spacing, origin and direction a file has, a `Volume` is an isotropic
grid along the patient's own axes in LPS millimetres (x to the left, y to the
back, z to the head), so an agent's step means the same at every site. World
coordinates survive: a point in millimetres is the same point before and after.
Voxels may not leave the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.dicom import read_series, without_header
from site_client.imaging.faults import EmptyImageError
from site_client.imaging.wholeness import require_whole

_LARGEST_GRID = 1 << 30
_PERCENTILE_STRIDE = 3


@dataclass(frozen=True, eq=False)
class Volume:
    """A normalised image on an isotropic grid.

    Attributes:
        voxels: uint8[z, y, x], C order; 0 is background and everything outside the field of view.
        spacing_mm: distance of neighbouring voxels, equal along all axes.
        origin_mm: world position (LPS, mm) of the voxel at index (0, 0, 0).
        direction: float64[3, 3], columns are the world directions of the x, y and z index.
    """

    voxels: NDArray[np.uint8]
    spacing_mm: float
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]

    @property
    def size(self) -> NDArray[np.int64]:
        """int64[3]: voxels along x, y, z."""
        return np.array(self.voxels.shape[::-1], dtype=np.int64)

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """float64[3]: world position of the middle of the grid."""
        return self.index_to_world((self.size - 1) / 2)

    def world_to_index(self, world_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """World positions (LPS mm) float64[..., 3] to continuous (x, y, z) indices."""
        index = ((world_mm - np.asarray(self.origin_mm)) @ self.direction) / self.spacing_mm
        return np.asarray(index)

    def index_to_world(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Continuous (x, y, z) indices float64[..., 3] to world positions (LPS mm)."""
        world: NDArray[np.float64] = (index * self.spacing_mm) @ self.direction.T
        return np.asarray(world + np.asarray(self.origin_mm))

    def contains(self, world_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether world positions float64[..., 3] lie within half a voxel of the grid."""
        index = self.world_to_index(world_mm)
        return np.asarray(((index >= -0.5) & (index <= self.size - 0.5)).all(axis=-1))


@dataclass(frozen=True, eq=False)
class Geometry:
    """The places of a file's own voxels, before any resampling.

    Attributes:
        size: int64[3], voxels along the x, y, z index.
        spacing_mm: float64[3].
        origin_mm: float64[3], world position (LPS, mm) of index (0, 0, 0).
        direction: float64[3, 3], columns are the world directions of the index axes.
    """

    size: NDArray[np.int64]
    spacing_mm: NDArray[np.float64]
    origin_mm: NDArray[np.float64]
    direction: NDArray[np.float64]

    def index_to_world(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Continuous (x, y, z) indices float64[..., 3] to world positions (LPS mm)."""
        world: NDArray[np.float64] = (index * self.spacing_mm) @ self.direction.T
        return np.asarray(world + self.origin_mm)

    def world_to_index(self, world_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """World positions (LPS mm) float64[..., 3] to continuous (x, y, z) indices."""
        return np.asarray(((world_mm - self.origin_mm) @ self.direction) / self.spacing_mm)

    def contains(self, world_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether world positions float64[..., 3] lie within half a voxel of the grid."""
        index = self.world_to_index(world_mm)
        return np.asarray(((index >= -0.5) & (index <= self.size - 0.5)).all(axis=-1))


def read_geometry(path: Path) -> Geometry:
    """Read the places of an image's voxels, from its header alone.

    Raises:
        InputDataError: unreadable, or not three-dimensional.
    """
    if not path.exists():
        raise InputDataError("cannot read the image", field=str(path), got="no such file")
    if path.is_dir():
        image: sitk.Image | sitk.ImageFileReader = read_series(path)
    else:
        image = sitk.ImageFileReader()
        image.SetFileName(str(path))
        try:
            image.ReadImageInformation()
        except RuntimeError as error:
            raise InputDataError("cannot read the image", field=str(path)) from error
    size = image.GetSize()
    dimension = len(size)
    if dimension not in (3, 4) or (dimension == 4 and size[3] != 1):
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected="one 3-D volume",
            got=f"{dimension} dimensions",
        )
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)
    return Geometry(
        size=np.array(size[:3], dtype=np.int64),
        spacing_mm=np.array(image.GetSpacing()[:3]),
        origin_mm=np.array(image.GetOrigin()[:3]),
        direction=direction[:3, :3],
    )


def read_volume(path: Path, spacing_mm: float, *, by_foreground: bool = True) -> Volume:
    """Read, reorient, resample and normalise one image.

    Args:
        path: a NIfTI, MetaImage or NRRD file, or a folder holding one DICOM series.
        spacing_mm: the isotropic working spacing.
        by_foreground: what becomes 255 is the 99th percentile of the foreground; otherwise
            of all voxels, as rl-medical has it.

    Raises:
        InputDataError: unreadable, not 3-D, constant, not finite, or absurdly large.
    """
    image = _read(path)
    view = sitk.GetArrayViewFromImage(image)
    low, high = _intensity_range(view, path, by_foreground=by_foreground)
    resampled = _resample(smooth_for(image, spacing_mm), spacing_mm, low, path)
    array = sitk.GetArrayViewFromImage(resampled)
    scaled = np.clip((array - np.float32(low)) * np.float32(255.0 / (high - low)), 0.0, 255.0)
    voxels = np.ascontiguousarray(np.rint(scaled).astype(np.uint8))
    voxels.setflags(write=False)
    x, y, z = resampled.GetOrigin()
    return Volume(voxels, spacing_mm, (x, y, z), np.eye(3))


def _read(path: Path) -> sitk.Image:
    """The image as float32, whatever the file holds."""
    if not path.exists():
        raise InputDataError("cannot read the image", field=str(path), got="no such file")
    require_whole(path)
    try:
        image = read_series(path) if path.is_dir() else without_header(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise InputDataError(
            "cannot read the image",
            field=str(path),
            expected="a NIfTI, MetaImage or NRRD file with orthogonal axes, or a DICOM series",
            got="something SimpleITK does not open",
        ) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected="one 3-D volume with one value per voxel",
            got=f"{image.GetDimension()} dimensions, "
            f"{image.GetNumberOfComponentsPerPixel()} values per voxel",
        )
    if min(image.GetSize()) < 2:
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected="at least 2 voxels along every axis",
            got="a single slice",
        )
    return sitk.Cast(image, sitk.sitkFloat32)


def _intensity_range(
    array: NDArray[np.float32], path: Path, *, by_foreground: bool
) -> tuple[float, float]:
    """Values that become 0 and 255: 10th percentile, and 99th percentile of the foreground.

    Foreground is what lies above the mean, so that a wide empty margin does not
    decide how bright the head is. Every third voxel along each axis is enough.
    """
    s = slice(None, None, _PERCENTILE_STRIDE)
    values = array[s, s, s]
    if not np.isfinite(values).all():
        raise InputDataError(
            "cannot use the image", field=str(path), expected="finite voxels", got="NaN or infinity"
        )
    low = float(np.percentile(values, 10))
    foreground = values[values > values.mean()] if by_foreground else values
    high = float(np.percentile(foreground, 99)) if foreground.size else low
    if not high > low:
        raise EmptyImageError(
            "cannot use the image", field=str(path), expected="contrast", got="a constant image"
        )
    return low, high


def smooth_for(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Blur along axes that will be thinned out, so that fine detail does not alias."""
    sigmas = [
        0.5 * float(np.sqrt(max(spacing_mm**2 - have**2, 0.0))) if spacing_mm > 1.2 * have else 0.0
        for have in image.GetSpacing()
    ]
    for axis, sigma in enumerate(sigmas):
        if sigma > 0 and image.GetSize()[axis] >= 4:
            blur = sitk.RecursiveGaussianImageFilter()
            blur.SetDirection(axis)
            blur.SetSigma(sigma)
            blur.SetNumberOfThreads(1)
            image = blur.Execute(image)
    return image


def _resample(image: sitk.Image, spacing_mm: float, outside: float, path: Path) -> sitk.Image:
    """Linear interpolation onto the smallest LPS-aligned grid that holds every voxel."""
    last = np.array(image.GetSize(), dtype=np.float64) - 1
    corners = np.array(
        [
            image.TransformContinuousIndexToPhysicalPoint((last * np.array(pick)).tolist())
            for pick in np.ndindex(2, 2, 2)
        ]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.maximum(np.floor((high - low) / spacing_mm + 1e-6).astype(np.int64) + 1, 2)
    if not np.isfinite(corners).all() or np.prod(size.astype(np.float64)) > _LARGEST_GRID:
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected=f"at most 2^30 voxels of {spacing_mm} mm",
            got="a larger or undefined extent",
            advice="Check the spacing in the file's header",
        )
    margin = ((high - low) - (size - 1) * spacing_mm) / 2
    resample = sitk.ResampleImageFilter()
    resample.SetNumberOfThreads(1)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetOutputSpacing([spacing_mm] * 3)
    resample.SetOutputOrigin((low + margin).tolist())
    resample.SetOutputDirection(np.eye(3).ravel().tolist())
    resample.SetSize(size.tolist())
    resample.SetDefaultPixelValue(outside)
    return resample.Execute(image)

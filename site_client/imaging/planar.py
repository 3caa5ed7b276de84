"""Opening a two-dimensional image as a `Picture`: one grid, one byte per pixel, millimetres.

An X-ray, an ultrasound frame, a single slice, or several maps of one place as the
channels of one image. Positions in the plane are
millimetres from the middle of the first pixel, x along rows and y down columns;
a DICOM negative (MONOCHROME1) is turned by SimpleITK while it reads. A `Picture`
also knows where its plane lies in the patient, so that a landmark drawn in 3D
Slicer and a pixel of a JPEG are the same point. Files that do not know the size
of their pixels must be told it. Pixels may not leave the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.dicom import DICOM_SUFFIX, pixel_spacing_mm, without_header
from site_client.imaging.faults import EmptyImageError
from site_client.imaging.listfiles import PICTURE_SUFFIXES
from site_client.imaging.volumes import smooth_for
from site_client.imaging.wholeness import require_whole

_LARGEST = 1 << 28
_MOST_CHANNELS = 16
# A landmark this far from the plane belongs to another slice.
_OFF_PLANE_MM = 5.0


@dataclass(frozen=True, eq=False)
class Picture:
    """A normalised image on a grid of square pixels.

    Attributes:
        channels: uint8[channels, y, x], C order; one channel unless the file holds several.
        spacing_mm: distance of neighbouring pixels.
        file_spacing_mm: float64[2], along x and y in the file, for positions given in pixels.
        origin_mm: float64[3], where the first pixel lies in the patient (LPS).
        axes: float64[3, 2], columns are the patient's directions of x and y.
    """

    channels: NDArray[np.uint8]
    spacing_mm: float
    file_spacing_mm: NDArray[np.float64]
    origin_mm: NDArray[np.float64]
    axes: NDArray[np.float64]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8[y, x]: what people are shown, the mean of the channels."""
        if len(self.channels) == 1:
            return np.asarray(self.channels[0])
        return np.asarray(np.rint(self.channels.mean(axis=0)).astype(np.uint8))

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """float64[2]: from the middle of the first to that of the last pixel, along x and y."""
        size = np.array(self.channels.shape[:0:-1], dtype=np.float64)
        return np.asarray((size - 1) * self.spacing_mm)

    def to_world(self, plane_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions in the plane float64[..., 2] to LPS mm float64[..., 3]."""
        return np.asarray(plane_mm @ self.axes.T + self.origin_mm)

    def to_plane(self, world_mm: NDArray[np.float64], where: str) -> NDArray[np.float64]:
        """An LPS position float64[3] to one in the plane float64[2].

        Raises:
            InputDataError: further than 5 mm from the plane; `where` names case and landmark.
        """
        offset = world_mm - self.origin_mm
        inside: NDArray[np.float64] = offset @ self.axes
        if np.linalg.norm(offset - self.axes @ inside) > _OFF_PLANE_MM:
            raise InputDataError(
                "a landmark lies outside the plane of its image",
                field=where,
                expected=f"within {_OFF_PLANE_MM:g} mm",
                advice="It may belong to another slice",
            )
        return inside

    def from_pixels(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Continuous (x, y) indices of the file's pixels to mm in the plane."""
        return np.asarray(index * self.file_spacing_mm)

    def contains(self, plane_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether positions float64[..., 2] lie within half a pixel of the image."""
        reach = np.maximum(self.spacing_mm, self.file_spacing_mm) / 2
        inside = (plane_mm >= -reach) & (plane_mm <= self.extent_mm + self.spacing_mm / 2 + reach)
        return np.asarray(inside.all(axis=-1))


def read_picture(path: Path, spacing_mm: float, pixel_mm: float | None = None) -> Picture:
    """Read, flatten colours to grey, resample to square pixels and normalise one image.

    Args:
        path: PNG, JPEG, BMP, TIFF, DICOM, or a NIfTI, MetaImage or NRRD file of one slice,
            whose components are kept as channels and normalised together.
        spacing_mm: the working spacing.
        pixel_mm: size of the file's pixels, for a file that does not say.

    Raises:
        InputDataError: unreadable, not planar, no pixel size, constant, or absurdly large.
    """
    image, spacing = _read(path, pixel_mm)
    origin, axes = _place(image)
    planes = _planes(image, path)
    low, high = _range(planes, path)
    channels = []
    for plane in planes:
        grey = sitk.GetImageFromArray(plane)
        grey.SetSpacing(spacing.tolist())
        # A view does not keep its image alive: the name does.
        square = _resample(smooth_for(grey, spacing_mm), spacing_mm, path)
        array = sitk.GetArrayViewFromImage(square)
        scaled = np.clip((array - np.float32(low)) * np.float32(255.0 / (high - low)), 0.0, 255.0)
        channels.append(np.rint(scaled).astype(np.uint8))
    pixels = np.stack(channels)
    pixels.setflags(write=False)
    return Picture(pixels, spacing_mm, spacing, origin, axes)


def _read(path: Path, pixel_mm: float | None) -> tuple[sitk.Image, NDArray[np.float64]]:
    """The image as it is, and its pixels' size along x and y."""
    if not path.exists():
        raise InputDataError("cannot read the image", field=str(path), got="no such file")
    require_whole(path)
    try:
        image = without_header(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise InputDataError(
            "cannot read the image",
            field=str(path),
            expected="a PNG, JPEG, BMP, TIFF, DICOM, NIfTI, MetaImage or NRRD file",
            got="something SimpleITK does not open",
        ) from error
    size = image.GetSize()
    if any(count != 1 for count in size[2:]) or min(size[:2]) < 2:
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected="one two-dimensional image",
            got=f"{len(size)} dimensions",
        )
    name = path.name.lower()
    spacing: tuple[float, float] | None = tuple(image.GetSpacing()[:2])
    if name.endswith(PICTURE_SUFFIXES):
        # What such a file says of its density speaks of paper, not of a patient.
        spacing = None
    elif name.endswith(DICOM_SUFFIX):
        spacing = pixel_spacing_mm(path)
    if spacing is None and pixel_mm is not None:
        spacing = (pixel_mm, pixel_mm)
    if spacing is None:
        raise InputDataError(
            "the image does not say how large its pixels are",
            field=str(path),
            expected="data.pixel_mm, or a table with a pixel_mm column",
            got="neither",
        )
    return image, np.array(spacing, dtype=np.float64)


def _place(image: sitk.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Locate the first pixel, and which way x and y go, in LPS."""
    origin, axes, dimension = np.zeros(3), np.eye(3)[:, :2], image.GetDimension()
    origin[: min(dimension, 3)] = image.GetOrigin()[:3]
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)
    if dimension >= 3:
        axes = direction[:3, :2].copy()
    else:
        axes[:2] = direction
    return origin, axes


def _planes(image: sitk.Image, path: Path) -> NDArray[np.float32]:
    """float32[channels, y, x]: components of medical formats; of pictures the mean colour.

    A picture's fourth component is opacity.
    """
    while image.GetDimension() > 2:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0])
    parts = image.GetNumberOfComponentsPerPixel()
    coloured = path.name.lower().endswith((*PICTURE_SUFFIXES, DICOM_SUFFIX))
    if (coloured and (parts == 2 or parts > 4)) or parts > _MOST_CHANNELS:
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected="grey or colour" if coloured else f"at most {_MOST_CHANNELS} channels",
            got=f"{parts} bands",
        )
    array: NDArray[np.float32] = sitk.GetArrayFromImage(image).astype(np.float32)
    if parts == 1:
        return array[None]
    if coloured:
        return np.asarray(array[..., :3].mean(axis=-1, dtype=np.float32)[None])
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def _range(array: NDArray[np.float32], path: Path) -> tuple[float, float]:
    """Values that become 0 and 255: the first and the last percentile."""
    values = array[:, ::3, ::3]
    if not np.isfinite(values).all():
        raise InputDataError(
            "cannot use the image", field=str(path), expected="finite pixels", got="NaN or infinity"
        )
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    if not high > low:
        low, high = float(array.min()), float(array.max())
    if not high > low:
        raise EmptyImageError(
            "cannot use the image", field=str(path), expected="contrast", got="a constant image"
        )
    return low, high


def _resample(image: sitk.Image, spacing_mm: float, path: Path) -> sitk.Image:
    """Linear interpolation onto square pixels; the first pixel stays where it is."""
    extent = (np.array(image.GetSize()) - 1) * np.array(image.GetSpacing())
    size = np.maximum(np.floor(extent / spacing_mm + 1e-6).astype(np.int64) + 1, 2)
    if np.prod(size.astype(np.float64)) > _LARGEST:
        raise InputDataError(
            "cannot use the image",
            field=str(path),
            expected=f"at most 2^28 pixels of {spacing_mm} mm",
            got="a larger extent",
            advice="Check the size of its pixels",
        )
    resample = sitk.ResampleImageFilter()
    resample.SetNumberOfThreads(1)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetOutputSpacing([spacing_mm] * 2)
    resample.SetOutputOrigin([0.0, 0.0])
    resample.SetOutputDirection([1.0, 0.0, 0.0, 1.0])
    resample.SetSize(size.tolist())
    resample.UseNearestNeighborExtrapolatorOn()
    return resample.Execute(image)

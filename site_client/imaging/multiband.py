"""Two-dimensional images with many bands per pixel, and label maps, through SimpleITK.

Rows are read as they are asked for; formats that SimpleITK cannot stream
(compressed ones) are read by it as a whole for every piece, so keep slides
uncompressed. Pixels may not leave the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.wholeness import require_whole

_DTYPES: Final = {
    sitk.sitkUInt8: np.uint8,
    sitk.sitkUInt16: np.uint16,
    sitk.sitkFloat32: np.float32,
    sitk.sitkVectorUInt8: np.uint8,
    sitk.sitkVectorUInt16: np.uint16,
    sitk.sitkVectorFloat32: np.float32,
}
LABEL_SUFFIXES: Final = (".mha", ".nii", ".nii.gz")


@dataclass(frozen=True)
class BandImage:
    """The header of a multi-band image.

    Attributes:
        path: the file.
        shape: rows, columns, bands.
        dtype: uint8, uint16 or float32.
        dimensions: 2, or 3 with a single slice.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    dimensions: int

    def rows(self, start: int, stop: int) -> NDArray[np.generic]:
        """Rows ``start`` to ``stop`` with all bands, dtype[rows, columns, bands].

        Raises:
            InputDataError: the file ends early or cannot be read.
        """
        reader = _reader(self.path)
        tail = [0] * (self.dimensions - 2)
        reader.SetExtractIndex([0, start, *tail])
        reader.SetExtractSize([self.shape[1], stop - start, *tail])
        try:
            array: NDArray[np.generic] = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise _unreadable(self.path) from error
        return array.reshape(stop - start, self.shape[1], self.shape[2])


def open_bands(path: Path) -> BandImage:
    """Read the header of a multi-band image.

    Raises:
        InputDataError: unreadable, cut short, not one slice, or another pixel type.
    """
    require_whole(path)
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path) from error
    size = reader.GetSize()
    if len(size) not in (2, 3) or (len(size) == 3 and size[2] != 1):
        raise InputDataError(
            "cannot use the slide",
            field=str(path),
            expected="one two-dimensional image",
            got=f"{len(size)} dimensions",
        )
    dtype = _DTYPES.get(reader.GetPixelID())
    if dtype is None:
        raise InputDataError(
            "cannot use the slide",
            field=str(path),
            expected="bands of uint8, uint16 or float32",
            got=sitk.GetPixelIDValueAsString(reader.GetPixelID()),
        )
    shape = (size[1], size[0], reader.GetNumberOfComponents())
    return BandImage(path, shape, np.dtype(dtype), len(size))


def write_labels(path: Path, labels: NDArray[np.uint8], spacing_mm: float = 1.0) -> None:
    """Write a label map that SimpleITK, ITK-SNAP and 3D Slicer open.

    Args:
        path: ends in .mha, .nii or .nii.gz.
        labels: uint8[y, x], or several maps of one place as uint8[channels, y, x].
        spacing_mm: distance of neighbouring pixels.

    Raises:
        InputDataError: another suffix, shape or type, or the file cannot be written.
    """
    if not path.name.lower().endswith(LABEL_SUFFIXES):
        raise InputDataError(
            "cannot write the label map",
            field=str(path),
            expected=f"a name that ends in {', '.join(LABEL_SUFFIXES)}",
            got="another suffix",
        )
    if labels.dtype != np.uint8 or labels.ndim not in (2, 3) or labels.size == 0:
        raise InputDataError(
            "cannot write the label map",
            field="labels",
            expected="uint8[y, x] or uint8[channels, y, x]",
            got=f"{labels.dtype}{list(labels.shape)}",
        )
    if labels.ndim == 2:
        image = sitk.GetImageFromArray(labels)
    else:
        image = sitk.GetImageFromArray(np.moveaxis(labels, 0, -1), isVector=True)
    image.SetSpacing([spacing_mm, spacing_mm])
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise InputDataError(
            "cannot write the label map", field=str(path), expected="a writable place", got="none"
        ) from error


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _unreadable(path: Path) -> InputDataError:
    return InputDataError(
        "cannot read the slide",
        field=str(path),
        expected="an image with several bands per pixel",
        got="something SimpleITK does not open" if path.exists() else "no such file",
    )

"""DICOM folders and files: which files make one image, and how large its pixels are.

A DICOM header is a patient record. Only the tags of `READ_TAGS` are ever looked
at, none of them names a person, and no value of any tag is printed or kept: an
error says what is wrong with the folder, in counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.contents import content_of
from site_client.imaging.faults import CutShortError

_POSITION: Final = "0020|0032"  # of the first pixel in the patient
_ORIENTATION: Final = "0020|0037"  # of rows and columns
_PIXEL_SPACING: Final = "0028|0030"
_DETECTOR_SPACING: Final = "0018|1164"  # where an X-ray gives no other
READ_TAGS: Final = (_POSITION, _ORIENTATION, _PIXEL_SPACING, _DETECTOR_SPACING)
DICOM_SUFFIX: Final = ".dcm"

# Scanners round positions to about a hundredth of a millimetre.
_GAP_TOLERANCE_MM = 0.05


def series_files(folder: Path) -> tuple[str, ...]:
    """The files of the one series in a folder, in the order of their positions.

    Raises:
        InputDataError: no series, several, slices that are missing or doubled, or
            slices that are not parallel.
        CutShortError: a file that should be a slice and cannot be read as one.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise InputDataError(
            "cannot use the DICOM folder",
            field=str(folder),
            expected="files of one series",
            got=f"{len(series)} series",
            advice="Put every series into a folder of its own",
        )
    files: tuple[str, ...] = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    lost = unread_slices(folder, files)
    if lost:
        raise CutShortError(
            "files of the DICOM folder cannot be read",
            field=f"{folder}: {', '.join(path.name for path in lost[:5])}"
            + (" …" if len(lost) > 5 else ""),
            expected="every file of the series",
            got=f"{len(files)} of {len(files) + len(lost)} files",
            advice="Export the series again",
        )
    _check_stack(folder, files)
    return files


def unread_slices(folder: Path, files: Sequence[str]) -> list[Path]:
    """Files of a folder that are DICOM by their name or beginning, and not among ``files``.

    A slice whose header was cut off belongs to no series; at an end of the stack no gap
    would tell.
    """
    read = {Path(file).name for file in files}
    others = (p for p in sorted(folder.iterdir()) if p.is_file() and p.name not in read)
    return [
        p for p in others if p.name != "DICOMDIR" and not p.name.startswith(".") and _is_dicom(p)
    ]


def _is_dicom(path: Path) -> bool:
    return path.name.lower().endswith(DICOM_SUFFIX) or content_of(path) == "DICOM"


def read_series(folder: Path) -> sitk.Image:
    """The one series of a DICOM folder as an image without its header."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series_files(folder))
    reader.MetaDataDictionaryArrayUpdateOff()
    return without_header(reader.Execute())


def without_header(image: sitk.Image) -> sitk.Image:
    """The image with every entry of its header forgotten; geometry and pixels stay."""
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    return image


def pixel_spacing_mm(path: Path) -> tuple[float, float] | None:
    """(along x, along y) of a planar DICOM file, or None where it does not say.

    The spacing in the patient is taken before that on the detector.
    """
    header = _header(path)
    for tag in (_PIXEL_SPACING, _DETECTOR_SPACING):
        numbers = _numbers(_tag(header, tag))
        if len(numbers) == 2 and (numbers > 0).all():
            # DICOM writes the distance of rows, which is along y, first.
            return float(numbers[1]), float(numbers[0])
    return None


def _header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.LoadPrivateTagsOff()
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputDataError("cannot read the DICOM file", field=str(path)) from error
    return reader


def _tag(header: sitk.ImageFileReader, tag: str) -> str:
    if tag not in READ_TAGS or not header.HasMetaDataKey(tag):
        return ""
    return str(header.GetMetaData(tag)).strip()


def _numbers(text: str) -> NDArray[np.float64]:
    """The numbers of a tag of several values; empty when it holds something else."""
    try:
        return np.array([float(part) for part in text.split("\\")], dtype=np.float64)
    except ValueError:
        return np.empty(0)


def _check_stack(folder: Path, files: tuple[str, ...]) -> None:
    """Refuse a stack whose slices do not lie at equal distances: a lost file moves anatomy."""
    if len(files) < 3:
        return
    headers = [_header(Path(file)) for file in files]
    positions = [_numbers(_tag(header, _POSITION)) for header in headers]
    directions = [_numbers(_tag(header, _ORIENTATION)) for header in headers]
    if any(len(p) != 3 for p in positions) or any(len(d) != 6 for d in directions):
        raise InputDataError(
            "cannot use the DICOM folder",
            field=str(folder),
            expected="a position and an orientation in every file",
            got=f"{sum(len(p) != 3 for p in positions)} of {len(files)} without a position",
        )
    if np.abs(np.array(directions) - directions[0]).max() > 1e-3:
        raise InputDataError(
            "cannot use the DICOM folder",
            field=str(folder),
            expected="parallel slices",
            got="slices of several orientations",
            advice="Localisers belong into a folder of their own",
        )
    gaps = np.linalg.norm(np.diff(np.array(positions), axis=0), axis=1)
    odd = int((np.abs(gaps - np.median(gaps)) > _GAP_TOLERANCE_MM).sum())
    if odd or np.median(gaps) <= 0:
        raise InputDataError(
            "cannot use the DICOM folder",
            field=str(folder),
            expected="slices at equal distances",
            got=f"{odd} of {len(gaps)} gaps differ from the others",
            advice="Slices are missing or doubled: export the series again",
        )

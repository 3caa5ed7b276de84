"""The settings that say how a site's images are laid out, and how what is known of them is read.

What each means stands in the class and is printed as a comment beside it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from common.arrivals.texts import toml_of
from common.errors import InputDataError
from common.settings import Frozen, Names, check_keys, parse_settings

Text = Annotated[str, Field(max_length=4096)]
_PLACES: Final = ("landmarks", "moving")


class DataSettings(Frozen):
    """The place of images and landmarks, and their split into subjects.

    Attributes:
        images: a BIDS or flat folder, one image, a DICOM folder, or a text file with one
            image path per line; ``--data`` takes its place.
        landmarks: "" looks beside each image (.mrk.json, .fcsv, or .txt with one ``x,y,z``
            voxel line per landmark) and under BIDS derivatives; otherwise a folder of such
            files, a list of them line by line with the images, or a .csv table of all. For
            boxes, label images: "" looks beside each image for <case>_label (_labels, -label,
            _seg, .seg, _dseg, _mask) in any format; otherwise a folder of label images, a list of
            them, or a .csv table "case,label,x0,y0[,z0],x1,y1[,z1]". For centrelines, curves:
            files as of landmarks, or a .csv table "case,curve,x_mm,y_mm[,z_mm]", a row per
            point from the seed on. Not for registration.
        moving: for registration: the moving images, already lying on those of ``images``: a list
            line by line with them, or a folder with the same names; "" moves the image itself.
        validation: images held out, as ``images``; "" splits by subject as below.
        validation_landmarks: as ``landmarks``, for ``validation``.
        validation_moving: as ``moving``, for ``validation``.
        validation_subjects: the subjects to hold out; none draws ``validation_share`` of them.
        validation_share: share of the subjects that is held out; 0 trains on all and has no best
            checkpoint.
        subject: regular expression whose first group, found in a case's name, is the subject;
            "" takes BIDS's sub-..., or else every case for a subject of its own.
        unit: of positions in a table that does not say it: "mm" or "voxel".
        coordinate_system: of positions in mm in a table that does not say it: "LPS" or "RAS".
        names: of the landmarks in files without names, in the order of their lines or columns.
        pixel_mm: size of the pixels of PNG, JPEG, TIFF and BMP files; 0 where all files say it.
    """

    images: Text = ""
    landmarks: Text = ""
    moving: Text = ""
    validation: Text = ""
    validation_landmarks: Text = ""
    validation_moving: Text = ""
    validation_subjects: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    validation_share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    subject: Text = ""
    unit: Literal["", "mm", "voxel"] = ""
    coordinate_system: Literal["", "LPS", "RAS"] = ""
    names: Names = ()
    pixel_mm: Annotated[float, Field(ge=0, le=100)] = 0.0


def read_data_settings(path: Path | None, folder: Path) -> DataSettings:
    """Read how a site's data is to be read; the defaults where it does not say.

    Args:
        path: of the site's ``data.toml``; it need not be there.
        folder: of the images, from which places are looked for.

    Raises:
        InputDataError: unreadable, no TOML, an unknown key or a value that cannot be used.
    """
    if path is None or not path.exists():
        return DataSettings()
    try:
        tables = toml_of(path.read_bytes())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputDataError(
            "cannot read how the data is laid out", field=str(path), got=type(error).__name__
        ) from error
    check_keys(tables, DataSettings, "cairn-site train --print-config shows [data]", path.name)
    data = parse_settings(DataSettings, tables, path.name)
    places = {key: str(folder / getattr(data, key)) for key in _PLACES if getattr(data, key)}
    return data.model_copy(update=places)

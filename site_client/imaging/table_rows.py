"""Rows of CSV tables about images, and what their comment lines say of unit and frame.

A table's first column names the image; a position means nothing without its unit
and, in millimetres of a volume, its frame. What file and reader say must agree.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar

from common.arrivals.files import read_bounded
from common.errors import InputDataError

Unit = Literal["mm", "voxel"]
Frame = Literal["LPS", "RAS"]
_Word = TypeVar("_Word", bound=str)

UNITS: Final[Mapping[str, Unit]] = {
    "mm": "mm",
    "millimeter": "mm",
    "millimetre": "mm",
    "voxel": "voxel",
    "voxels": "voxel",
    "pixel": "voxel",
    "pixels": "voxel",
    "px": "voxel",
}
MOST_BYTES: Final = 64 << 20
FRAMES: Final[Mapping[str, Frame]] = {"LPS": "LPS", "RAS": "RAS"}
CASE_COLUMNS: Final = ("case", "image", "filename", "file", "subject")
_COMMENT = re.compile(r"^#\s*(unit|coordinateSystem)\s*[=:]\s*(\S+)\s*$")


def read_text(path: Path) -> str:
    """A text file of positions.

    Raises:
        InputDataError: unreadable.
    """
    try:
        return read_bounded(path, MOST_BYTES, "the positions").decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(
            "cannot read the positions", field=str(path), got=type(error).__name__
        ) from error


def read_rows(path: Path) -> tuple[dict[str, str], list[list[str]]]:
    """Read the comment lines, and the rows of the table.

    Raises:
        InputDataError: unreadable.
    """
    said: dict[str, str] = {}
    lines: list[str] = []
    for line in read_text(path).splitlines():
        if line.lstrip().startswith("#"):
            match = _COMMENT.match(line.strip())
            if match:
                said[match[1]] = match[2]
        elif line.strip(" ,;\t"):
            lines.append(line)
    return said, [cells_of(line, path) for line in lines]


def cells_of(line: str, path: Path) -> list[str]:
    """Return the cells of one line of a table.

    Raises:
        InputDataError: no such line; names the file.
    """
    try:
        return next(csv.reader([line]), [])
    except csv.Error as error:
        raise InputDataError(
            "a line of the table cannot be read", field=str(path), expected="cells and commas"
        ) from error


def agreed(
    in_file: str | None, stated: _Word | None, where: str, words: Mapping[str, _Word]
) -> _Word | None:
    """One answer of the file and of the reader, None when neither says.

    Raises:
        InputDataError: an unknown word, or they differ.
    """
    if in_file is None:
        return stated
    read = words.get(in_file if in_file in words else in_file.lower())
    if read is None:
        raise InputDataError(
            "an unknown word in the table", field=where, expected=" or ".join(sorted(words))
        )
    if stated is not None and stated != read:
        raise InputDataError(
            "the table says something else than the option", field=where, expected=stated, got=read
        )
    return read


def column_of(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Find the first of some names in a header, whatever its case."""
    lower = [cell.lower() for cell in header]
    return next((lower.index(name) for name in names if name in lower), None)


def case_of(cell: str) -> str:
    """The name of a case from a cell that may hold a file's name."""
    name = cell.strip().replace("\\", "/").rpartition("/")[2]
    return re.sub(
        r"\.(nii\.gz|nii|mha|nrrd|dcm|png|jpe?g|tiff?|bmp)$", "", name, flags=re.IGNORECASE
    )


def check_width(path: Path, header: Sequence[str], row: Sequence[str]) -> None:
    """Refuse a row of another length than the header's.

    Raises:
        InputDataError: names the case.
    """
    if len(row) != len(header):
        raise InputDataError(
            "a row of another length",
            field=f"{path}: {case_of(row[0]) if row else 'an empty row'}",
            expected=f"{len(header)} cells",
            got=str(len(row)),
        )

"""Landmarks in plain text: lines of voxel indices, and tables with a row per landmark or image.

A position means nothing without its unit and, in millimetres of a volume, its
frame. Both are said by the file (column names such as ``x_mm``, or comment
lines ``# unit = mm`` and ``# coordinateSystem = RAS``) or by whoever reads it;
a table that leaves them open is refused, for a guess would move a patient.
Errors name file, case and landmark, never a position.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.landmarks import read_absent
from site_client.imaging.listfiles import LIST_SUFFIX, CaseFiles
from site_client.imaging.table_rows import (
    CASE_COLUMNS,
    FRAMES,
    UNITS,
    Frame,
    Unit,
    agreed,
    case_of,
    check_width,
    column_of,
    read_rows,
    read_text,
)

Positions = dict[str, NDArray[np.float64]]

_LANDMARK_COLUMNS: Final = ("landmark", "label", "name")
_PIXEL_COLUMNS: Final = ("pixel_mm", "px_mm", "pixel_size_mm")
_ABSENT: Final = "absent"
_AXIS = re.compile(r"^([xyz])(?:_(\w+))?$")
_WIDE = re.compile(r"^(.+)_([xyz])$")


@dataclass(frozen=True)
class LandmarkTable:
    """The landmarks of many images, as one file states them.

    Attributes:
        path: the file.
        unit: of every position.
        frame: of positions in mm of a volume; None when the file does not say.
        cases: case name to landmark name to float64[2 or 3].
        pixel_mm: case name to the size of its pixels, where the table has such a column.
        absent: case name to the landmarks that the table says are outside of its image.
    """

    path: Path
    unit: Unit
    frame: Frame | None
    cases: dict[str, Positions]
    pixel_mm: dict[str, float] = field(default_factory=dict)
    absent: dict[str, frozenset[str]] = field(default_factory=dict)

    def of(self, case: str) -> Positions:
        """The landmarks of one image.

        Raises:
            InputDataError: the table does not have it.
        """
        positions = self.cases.get(case)
        if positions is None:
            raise InputDataError(
                "an image is not in the table of landmarks",
                field=f"{self.path}: {case}",
                expected="a row of that name",
                got=f"{len(self.cases)} other images",
            )
        return positions


def marked_absent(case: CaseFiles, table: LandmarkTable | None) -> frozenset[str]:
    """Names of the landmarks that a table, or a case's own file, says are outside of its image.

    Raises:
        InputDataError: the case's own file cannot be read.
    """
    if table is not None:
        return table.absent.get(case.name, frozenset())
    if case.landmarks is None or case.landmarks.name.lower().endswith(LIST_SUFFIX):
        return frozenset()
    return read_absent(case.landmarks)


def read_voxel_lines(path: Path, names: Sequence[str] = ()) -> Positions:
    """Landmarks of one image, one ``x,y[,z]`` line of voxel indices each, as rl-medical has them.

    Args:
        path: the text file.
        names: of the lines in their order; ``"0"``, ``"1"``, … when none are given. A line
            of ``nan`` values, or names without a line, is a landmark that is not there.

    Returns:
        name to float64[2 or 3]: continuous indices (x, y, z) of the file's own grid.

    Raises:
        InputDataError: unreadable, a malformed line, or more lines than names.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if names and len(lines) > len(names):
        raise InputDataError(
            "more landmarks than names",
            field=str(path),
            expected=f"at most {len(names)} lines",
            got=str(len(lines)),
        )
    landmarks: Positions = {}
    for number, line in enumerate(lines):
        name = names[number] if names else str(number)
        position = _position(line.split(","), f"{path}: landmark {name}, line {number + 1}")
        if np.isfinite(position).all():
            landmarks[name] = position
    return landmarks


def read_landmark_table(
    path: Path,
    *,
    unit: Unit | None = None,
    frame: Frame | None = None,
    names: Sequence[str] = (),
) -> LandmarkTable:
    """A CSV file with the landmarks of many images.

    Three layouts are understood: a row per landmark (``case,landmark,x_mm,y_mm,z_mm``);
    a row per image with a header (``filename,left_x,left_y,right_x,right_y``, perhaps with
    ``pixel_mm``); and a row per image without one (``001,83.5,99.6,…``, two-dimensional,
    as cephalograms are annotated). A landmark of which all cells say ``absent`` is known
    to be outside of the image; one whose cells are empty is not known at all.

    Args:
        path: the file.
        unit: of the positions, where the file does not say.
        frame: of positions in mm, where the file does not say.
        names: of the landmarks of a table without header; ``"1"``, ``"2"``, … otherwise.

    Raises:
        InputDataError: unreadable, no unit, a repeated or malformed row; names case and landmark.
    """
    said, rows = read_rows(path)
    unit = agreed(said.get("unit"), unit, f"{path}: unit", UNITS)
    frame = agreed(said.get("coordinateSystem"), frame, f"{path}: coordinateSystem", FRAMES)
    if not rows:
        raise InputDataError("no landmarks in the table", field=str(path), got="an empty file")
    header = [cell.strip() for cell in rows[0]]
    pixels: dict[str, float] = {}
    if column_of(header, CASE_COLUMNS) is None:
        cases = _bare(path, rows, names)
    elif column_of(header, _LANDMARK_COLUMNS) is None:
        cases, pixels = _wide(path, header, rows[1:])
    else:
        cases, column_unit = _long(path, header, rows[1:])
        unit = agreed(column_unit, unit, f"{path}: unit", UNITS)
    if unit is None:
        raise InputDataError(
            "the table does not say its unit",
            field=str(path),
            expected="columns such as x_mm, a line '# unit = mm', or the option",
            got="neither",
        )
    absent = {
        case: frozenset(name for name, at in points.items() if np.isinf(at).any())
        for case, points in cases.items()
    }
    there = {
        case: {name: at for name, at in points.items() if name not in absent[case]}
        for case, points in cases.items()
    }
    return LandmarkTable(path, unit, frame, there, pixels, absent)


def _long(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[dict[str, Positions], str | None]:
    """A row per landmark; also the unit that the names of the columns say."""
    case_at, name_at = column_of(header, CASE_COLUMNS), column_of(header, _LANDMARK_COLUMNS)
    axes = {m[1]: (k, m[2]) for k, h in enumerate(header) if (m := _AXIS.match(h.lower()))}
    units = {unit for _, unit in axes.values()}
    if case_at is None or name_at is None or not {"x", "y"} <= set(axes) or len(units) != 1:
        raise InputDataError(
            "the table's columns are not understood",
            field=str(path),
            expected="case,landmark,x,y[,z], the axes with one unit such as x_mm or x_voxel",
            got=f"{len(header)} columns",
        )
    columns = [axes[axis][0] for axis in "xyz" if axis in axes]
    cases: dict[str, Positions] = {}
    for row in rows:
        check_width(path, header, row)
        case, name = case_of(row[case_at]), row[name_at].strip()
        where = f"{path}: case {case}, landmark {name}"
        landmarks = cases.setdefault(case, {})
        if name in landmarks:
            raise InputDataError("a landmark stands twice in the table", field=where)
        position = _position([row[k] for k in columns], where)
        if not np.isnan(position).any():
            landmarks[name] = position
    return cases, units.pop()


def _wide(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[dict[str, Positions], dict[str, float]]:
    """A row per image, columns ``name_x``, ``name_y``; also the pixel size of each image."""
    case_at, pixel_at = column_of(header, CASE_COLUMNS) or 0, column_of(header, _PIXEL_COLUMNS)
    columns: dict[str, dict[str, int]] = {}
    for k, cell in enumerate(header):
        match = _WIDE.match(cell)
        if match:
            columns.setdefault(match[1], {})[match[2]] = k
    dimension = {frozenset(axes) for axes in columns.values()}
    if dimension not in ({frozenset("xy")}, {frozenset("xyz")}):
        raise InputDataError(
            "the table's columns are not understood",
            field=str(path),
            expected="<landmark>_x, <landmark>_y[, <landmark>_z] for every landmark",
            got=f"{len(header)} columns",
        )
    cases: dict[str, Positions] = {}
    pixels: dict[str, float] = {}
    for row in rows:
        check_width(path, header, row)
        case = _new_case(path, cases, row[case_at])
        for name, axes in columns.items():
            where = f"{path}: case {case}, landmark {name}"
            position = _position([row[axes[axis]] for axis in sorted(axes)], where)
            if not np.isnan(position).any():
                cases[case][name] = position
        if pixel_at is not None:
            size = _position([row[pixel_at]] * 2, f"{path}: case {case}, pixel size")[0]
            if not (np.isfinite(size) and size > 0):
                raise InputDataError("no pixel size", field=f"{path}: case {case}", expected="mm")
            pixels[case] = float(size)
    return cases, pixels


def _bare(path: Path, rows: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, Positions]:
    """A row per image and no header: its name, then x and y of every landmark."""
    width = len(rows[0])
    if width < 3 or width % 2 == 0 or (names and len(names) != width // 2):
        raise InputDataError(
            "the table's columns are not understood",
            field=str(path),
            expected="a header with 'case', or a name and x, y of "
            + (f"{len(names)} landmarks" if names else "every landmark"),
            got=f"{width} columns",
        )
    names = names or [str(k + 1) for k in range(width // 2)]
    cases: dict[str, Positions] = {}
    for row in rows:
        check_width(path, rows[0], row)
        case = _new_case(path, cases, row[0])
        for k, name in enumerate(names):
            where = f"{path}: case {case}, landmark {name}"
            position = _position(row[1 + 2 * k : 3 + 2 * k], where)
            if not np.isnan(position).any():
                cases[case][name] = position
    return cases


def _new_case(path: Path, cases: dict[str, Positions], cell: str) -> str:
    case = case_of(cell)
    if not case or case in cases:
        raise InputDataError(
            "an image stands twice in the table" if case else "a row without a name",
            field=f"{path}: {case}" if case else str(path),
        )
    cases[case] = {}
    return case


def _position(cells: Sequence[str], where: str) -> NDArray[np.float64]:
    """Two or three numbers; empty cells and ``nan`` say together that nobody marked the landmark.

    The word ``absent`` in each of them says that the image does not show it: infinity.
    """
    if len(cells) in (2, 3) and all(cell.strip().lower() == _ABSENT for cell in cells):
        return np.full(len(cells), np.inf)
    try:
        numbers = np.array([float(cell.strip() or "nan") for cell in cells], dtype=np.float64)
    except ValueError:
        numbers = np.empty(0)
    missing = np.isnan(numbers)
    if len(numbers) not in (2, 3) or np.isinf(numbers).any() or missing.any() != missing.all():
        raise InputDataError(
            "a landmark has no position", field=where, expected="two or three numbers"
        )
    return numbers

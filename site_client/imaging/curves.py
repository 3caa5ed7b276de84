"""Centrelines: ordered points along vessels, from the seed to the end.

Beside an image stands a 3D Slicer curve (``.mrk.json``; a line or a list of points is one,
too), an older ``.fcsv``, or a ``.txt`` with a voxel index per line; or one table has the
curves of all images, a row per point: ``case,curve,x_mm,y_mm,z_mm``. Between its points a
curve is straight. Nothing here opens an image. Errors name file and curve, never a position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.landmark_tables import read_voxel_lines
from site_client.imaging.landmarks import landmarks_from_frame, read_landmarks, read_markups
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
)
from site_client.imaging.volumes import Volume, read_geometry

NAME: Final = "centreline"
"""Of a curve that its file does not name."""

Points = NDArray[np.float64]
Curves = Mapping[str, Points]
"""Name to float64[points, d], in the order along the vessel."""

_OPEN: Final = ("Curve", "Line", "Fiducial", "")
_CURVE_COLUMNS: Final = ("curve", "centreline", "centerline", "vessel", "name")
_AXIS = re.compile(r"^([xyz])_(\w+)$")


@dataclass(frozen=True)
class CurveTable:
    """The curves of many images, as one file states them.

    Attributes:
        path: the file.
        unit: of every position.
        frame: of positions in mm of a volume; None when the file does not say.
        cases: case name to its curves.
    """

    path: Path
    unit: Unit
    frame: Frame | None
    cases: dict[str, dict[str, Points]]


def read_curve_table(
    path: Path, *, unit: Unit | None = None, frame: Frame | None = None
) -> CurveTable:
    """Read a table of curves, a row per point, in the order along each vessel.

    Args:
        path: the file.
        unit: of the positions, where the file does not say.
        frame: of positions in mm, where the file does not say.

    Raises:
        InputDataError: unreadable, no unit, or a malformed row; names case and curve.
    """
    said, rows = read_rows(path)
    header = [cell.strip() for cell in rows[0]] if rows else []
    case_at, name_at = column_of(header, CASE_COLUMNS), column_of(header, _CURVE_COLUMNS)
    axes = {m[1]: (k, m[2]) for k, h in enumerate(header) if (m := _AXIS.match(h.lower()))}
    units = {word for _, word in axes.values()}
    if case_at is None or name_at is None or not {"x", "y"} <= set(axes) or len(units) != 1:
        raise InputDataError(
            "the table's columns are not understood",
            field=str(path),
            expected="case,curve,x_mm,y_mm[,z_mm] or the same with _voxel",
            got=f"{len(header)} columns",
        )
    stated = agreed(said.get("unit"), unit, f"{path}: unit", UNITS)
    unit = agreed(units.pop(), stated, f"{path}: unit", UNITS)
    frame = agreed(said.get("coordinateSystem"), frame, f"{path}: coordinateSystem", FRAMES)
    columns = [axes[axis][0] for axis in "xyz" if axis in axes]
    points: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows[1:]:
        check_width(path, header, row)
        case, name = case_of(row[case_at]), row[name_at].strip() or NAME
        try:
            position = [float(row[k]) for k in columns]
        except ValueError:
            position = [np.nan]
        if not np.isfinite(position).all():
            raise InputDataError(
                "a point has no position",
                field=f"{path}: case {case}, {name}",
                expected=f"{len(columns)} numbers",
            )
        points.setdefault(case, {}).setdefault(name, []).append(position)
    if not points or unit is None:
        raise InputDataError("no curves in the table", field=str(path), got="no rows")
    cases = {c: {n: np.array(p) for n, p in of.items()} for c, of in points.items()}
    return CurveTable(path, unit, frame, cases)


def curves_in(files: CaseFiles, table: CurveTable | None) -> Curves:
    """Give the curves of one volume, LPS mm.

    Raises:
        InputDataError: unreadable, or in a frame or unit that is not said.
    """
    if table is None:
        return _beside(files, dim=3)
    curves = table.cases.get(files.name, {})
    if any(points.shape[1] != 3 for points in curves.values()):
        raise InputDataError(
            "a curve in a volume needs three numbers a point", field=f"{table.path}: {files.name}"
        )
    if table.unit == "mm":
        return landmarks_from_frame(curves, table.frame, table.path)
    return {name: _of_voxels(files, points) for name, points in curves.items()}


def flat_curves_in(files: CaseFiles, table: CurveTable | None) -> tuple[Curves, str]:
    """Give the curves of one picture, and what their positions are.

    Returns:
        the curves, and "mm" in the plane, "voxel" indices, or "world" LPS mm.

    Raises:
        InputDataError: unreadable, or in a frame that is not said.
    """
    if table is not None:
        flat = {n: p[:, :2] for n, p in table.cases.get(files.name, {}).items()}
        return flat, table.unit
    marked = files.landmarks
    as_lines = marked is not None and marked.name.lower().endswith(LIST_SUFFIX)
    return _beside(files, dim=2), "voxel" if as_lines else "world"


def checked(curves: Curves, case: str, inside: Volume | None = None) -> Curves:
    """Refuse curves that nothing can be traced along.

    Args:
        curves: of one case, as its landmarks are given.
        case: its name, for errors.
        inside: the volume that they must lie in, if it is one.

    Raises:
        InputDataError: fewer than two points, no length, or outside the image.
    """
    for name, points in curves.items():
        if len(points) < 2 or not (np.linalg.norm(np.diff(points, axis=0), axis=1) > 0).any():
            raise InputDataError(
                "a curve has no direction",
                field=f"{case}: {name}",
                expected="two points or more: the seed, and a way to go",
                got=f"{len(points)} points" if len(points) < 2 else "points on one place",
            )
        if inside is not None and not inside.contains(points).all():
            raise InputDataError(
                "a curve leaves the image",
                field=f"{case}: {name}",
                expected="points within the field of view",
                advice="Check the coordinate system (LPS or RAS) the file names",
            )
    return curves


def _beside(files: CaseFiles, dim: int) -> dict[str, Points]:
    """Curves of the file beside an image: LPS mm, or voxel indices of a picture's ``.txt``."""
    path = files.landmarks
    if path is None:
        return {}
    if path.name.lower().endswith(LIST_SUFFIX):
        lines = np.array([point[:dim] for point in read_voxel_lines(path).values()])
        return {NAME: lines if dim == 2 else _of_voxels(files, lines)}
    if not path.name.endswith(".mrk.json"):
        return {NAME: np.array(list(read_landmarks(path).values())).reshape(-1, 3)}
    markups = read_markups(path)
    strange = [markup.kind for markup in markups if markup.kind not in _OPEN]
    if strange:
        raise InputDataError(
            "not the course of a vessel",
            field=str(path),
            expected="an open Curve, a Line or a list of points",
            got=strange[0],
        )
    curves: dict[str, Points] = {}
    for number, markup in enumerate(markups):
        name = markup.name or (NAME if len(markups) == 1 else f"{NAME} {number + 1}")
        if name in curves:
            raise InputDataError("a curve stands twice in the file", field=f"{path}: {name}")
        curves[name] = np.array([position for _, position in markup.points]).reshape(-1, 3)
    return curves


def _of_voxels(files: CaseFiles, indices: Sequence[Points] | Points) -> Points:
    """Voxel indices of a volume's own grid as LPS mm.

    Raises:
        InputDataError: the header cannot be read, or not three numbers a point.
    """
    points = np.asarray(indices, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputDataError(
            "a curve in a volume needs three numbers a point", field=f"{files.name}: {NAME}"
        )
    return read_geometry(files.image).index_to_world(points)

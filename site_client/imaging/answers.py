"""Found things as files of other programs: 3D Slicer Markups, ITK transforms, tables.

Positions are LPS mm. What is written says where things lie in a patient: it stays
where the person asked for it.
Formats: https://github.com/Slicer/Slicer, Modules/Loadable/Markups/Resources/Schema;
ITK's text transform (.tfm).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its own documentation calls it so
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.files import write_atomically
from site_client.imaging.landmarks import MARKUPS_SCHEMA


def write_box_markups(path: Path, boxes: Sequence[tuple[str, NDArray[np.float64]]]) -> None:
    """Write boxes, each a name and its corners float64[2, 3] in LPS mm, as ROI markups."""
    _write(
        path,
        [
            {
                "type": "ROI",
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "roiType": "Box",
                "center": corners.mean(axis=0).tolist(),
                "orientation": np.eye(3).ravel().tolist(),
                "size": (corners[1] - corners[0]).tolist(),
                "insideOut": False,
                "controlPoints": [_point(1, name, corners.mean(axis=0))],
            }
            for name, corners in boxes
        ],
    )


def write_plane_markups(
    path: Path,
    name: str,
    point_mm: NDArray[np.float64],
    normal: NDArray[np.float64],
    side_mm: float,
) -> None:
    """Write a plane as a plane markup that shows a square of it.

    Args:
        path: the file.
        name: of the plane.
        point_mm: float64[3], LPS mm, the square's middle.
        normal: float64[3], of length 1.
        side_mm: of the square.
    """
    across = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(normal, across), normal], axis=1)
    _write(
        path,
        [
            {
                "type": "Plane",
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "planeType": "pointNormal",
                "sizeMode": "absolute",
                "center": point_mm.tolist(),
                "normal": normal.tolist(),
                "orientation": axes.ravel().tolist(),
                "size": [side_mm, side_mm],
                "controlPoints": [_point(1, name, point_mm)],
            }
        ],
    )


def write_curve_markups(path: Path, curves: Sequence[tuple[str, NDArray[np.float64]]]) -> None:
    """Write curves, each a name and its points float64[n, 3] in LPS mm, as curve markups."""
    _write(
        path,
        [
            {
                "type": "Curve",
                "name": name,
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "controlPoints": [
                    _point(k + 1, f"{name}-{k + 1}", point) for k, point in enumerate(points)
                ],
            }
            for name, points in curves
        ],
    )


def write_rigid_transform(
    path: Path,
    rotation: NDArray[np.float64],
    translation_mm: NDArray[np.float64],
    centre_mm: NDArray[np.float64],
) -> None:
    """Write ``x -> rotation (x - centre) + centre + translation`` as an ITK transform.

    Args:
        path: ends in ``.tfm``.
        rotation: float64[d, d], d of 2 or 3.
        translation_mm: float64[d].
        centre_mm: float64[d].

    Raises:
        InputDataError: the file cannot be written.
    """
    transform = sitk.VersorRigid3DTransform() if len(rotation) == 3 else sitk.Euler2DTransform()
    transform.SetCenter(centre_mm.tolist())
    # Rounding in what computed it must not make it look like no rotation.
    transform.SetMatrix(np.asarray(rotation, dtype=np.float64).ravel().tolist(), 1e-6)
    transform.SetTranslation(translation_mm.tolist())
    try:
        sitk.WriteTransform(transform, str(path))
    except RuntimeError as error:
        raise InputDataError("cannot write the transform", field=str(path)) from error


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write positions in LPS mm as CSV that `read_box_table` and `read_landmark_table` read back.

    Args:
        path: the file.
        columns: their names.
        rows: texts, and numbers in mm; None is N/A.
    """
    text = io.StringIO()
    text.write("# unit = mm\n# coordinateSystem = LPS\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    write_atomically(path, text.getvalue().encode())


def _cell(value: object) -> str:
    if value is None:
        return "N/A"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _point(number: int, label: str, position: NDArray[np.float64]) -> dict[str, object]:
    return {
        "id": str(number),
        "label": label,
        "position": position.tolist(),
        "positionStatus": "defined",
    }


def _write(path: Path, markups: Sequence[Mapping[str, object]]) -> None:
    text = json.dumps({"@schema": MARKUPS_SCHEMA, "markups": markups}, indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())

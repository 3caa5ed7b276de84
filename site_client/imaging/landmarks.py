"""Landmark files: 3D Slicer Markups (``.mrk.json``, read and written) and ``.fcsv`` (read).

In memory every landmark is a world position in LPS millimetres. A file says in
which frame it is written; a file that does not say so is refused, for a guess
would mirror a patient. Errors name the file and the landmark, never a position.
Format: https://github.com/Slicer/Slicer, Modules/Loadable/Markups/Resources/Schema.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.arrivals.files import read_bounded
from common.arrivals.texts import json_of
from common.errors import InputDataError
from site_client.imaging.table_rows import cells_of

if TYPE_CHECKING:  # whoever only reads landmarks needs no reader of images
    from site_client.imaging.volumes import Volume

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#"
)
_TO_LPS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}
# What Slicer wrote before it wrote names.
_FCSV_NUMBERS = {"0": "RAS", "1": "LPS"}
_MOST_BYTES = 16 << 20
"""Of one scan's file: tens of thousands of points. Its JSON, read, takes twenty times as much."""
_NAMED = 6
"""Names that an error lists of a file that has others than were wanted."""


@dataclass(frozen=True, eq=False)
class Markup:
    """One markup of a file.

    Attributes:
        kind: as 3D Slicer calls it: Fiducial, Curve, Line, …; "" where the file does not say.
        name: "" where the file does not say.
        points: label and position (float64[3], LPS mm) of its defined control points.
        missing: labels of those that a person marked as missing from the image.
    """

    kind: str
    name: str
    points: tuple[tuple[str, NDArray[np.float64]], ...]
    missing: frozenset[str] = frozenset()


def read_landmarks(path: Path) -> dict[str, NDArray[np.float64]]:
    """All defined landmarks of a file, by name.

    Returns:
        name to float64[3], LPS mm; points a person marked as missing are left out.

    Raises:
        InputDataError: unreadable, unknown frame or unit, a repeated or malformed landmark.
    """
    text = _text_of(path)
    if path.name.endswith(".fcsv"):
        points = _parse_fcsv(text, path)
    else:
        points = [point for markup in _parse_markups(text, path) for point in markup.points]
    landmarks: dict[str, NDArray[np.float64]] = {}
    for name, position in points:
        if name in landmarks:
            raise InputDataError(
                "a landmark stands twice in the file", field=f"{path}: {name}", expected="unique"
            )
        if not np.isfinite(position).all():
            raise InputDataError(
                "a landmark has no position", field=f"{path}: {name}", expected="finite numbers"
            )
        landmarks[name] = position
    return landmarks


def read_markups(path: Path) -> list[Markup]:
    """All markups of a ``.mrk.json``: lists of points, curves, lines, in the order of the file.

    Raises:
        InputDataError: unreadable, unknown frame or unit, or a malformed point.
    """
    return _parse_markups(_text_of(path), path)


def read_absent(path: Path) -> frozenset[str]:
    """Names of the landmarks that a person marked as missing from the image.

    Only Markups can say it (a point's ``positionStatus``); an ``.fcsv`` has none.

    Raises:
        InputDataError: as `read_markups`.
    """
    if path.name.endswith(".fcsv"):
        return frozenset()
    return frozenset().union(*(markup.missing for markup in read_markups(path)))


def _text_of(path: Path) -> str:
    """Read a landmark file.

    Raises:
        InputDataError: unreadable.
    """
    try:
        return read_bounded(path, _MOST_BYTES, "the landmarks").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(
            "cannot read the landmarks", field=str(path), got=type(error).__name__
        ) from error


def write_landmarks(
    path: Path,
    landmarks: Mapping[str, NDArray[np.float64]],
    coordinate_system: str = "LPS",
    *,
    absent: Collection[str] = (),
) -> None:
    """Write landmarks (LPS mm) as Slicer Markups, in the named frame.

    Args:
        path: to write.
        landmarks: name to float64[3], LPS mm.
        coordinate_system: LPS or RAS.
        absent: names of those that are marked as missing from the image.

    Raises:
        InputDataError: unknown frame.
    """
    sign = np.array(_frame(coordinate_system, path))
    points = [
        {
            "id": str(number),
            "label": name,
            "position": [float(value) for value in np.asarray(position) * sign],
            "positionStatus": "missing" if name in absent else "defined",
        }
        for number, (name, position) in enumerate(landmarks.items(), start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": coordinate_system,
        "coordinateUnits": "mm",
        "controlPoints": points,
    }
    text = json.dumps(
        {"@schema": MARKUPS_SCHEMA, "markups": [markup]}, indent=2, ensure_ascii=False
    )
    path.write_text(text + "\n", encoding="utf-8")


def write_marks(folder: Path, places: Sequence[tuple[str, str, NDArray[np.float64]]]) -> list[Path]:
    """Write one Markups file a case, of places with the case, a label and float64[3] LPS mm."""
    written = []
    for case in dict.fromkeys(case for case, _, _ in places):
        written.append(folder / f"{case}.mrk.json")
        write_landmarks(
            written[-1], {label: place for name, label, place in places if name == case}
        )
    return written


def place_landmarks(
    landmarks: Mapping[str, NDArray[np.float64]],
    names: Sequence[str],
    volume: Volume,
    case: str,
    *,
    missing_ok: bool = False,
) -> NDArray[np.float64]:
    """The wanted landmarks in the wanted order, checked against the image.

    Args:
        landmarks: name to float64[3], LPS mm.
        names: the wanted ones.
        volume: the image.
        case: its name, for errors.
        missing_ok: a landmark that is not there becomes NaN; at least one must be there.

    Returns:
        float64[len(names), 3], LPS mm.

    Raises:
        InputDataError: names the case and the landmark that is missing, outside the image,
            or in another unit.
    """
    missing = [name for name in names if name not in landmarks]
    if missing and (not missing_ok or len(missing) == len(names)):
        raise InputDataError(
            "a landmark is missing" if not missing_ok else "none of the landmarks is there",
            field=f"{case}: {', '.join(missing)}",
            expected="in the landmark file",
            got=_others(sorted(set(landmarks) - set(names))) if landmarks else "an empty file",
            advice="Names must be spelt as in the plan"
            if not missing_ok
            else "Names must be spelt as in task.landmarks",
        )
    nowhere = np.full(3, np.nan)
    placed = np.array([landmarks.get(name, nowhere) for name in names], dtype=np.float64)
    there = np.isfinite(placed).all(axis=1)
    inside = volume.contains(placed) | ~there
    outside = [name for name, ok in zip(names, inside, strict=True) if not ok]
    if outside:
        raise InputDataError(
            "a landmark lies outside the image",
            field=f"{case}: {', '.join(outside)}",
            expected="within the field of view",
            advice=_advice(placed[~inside], volume),
        )
    _check_scale(placed[there], volume, case)
    return placed


def _others(names: Sequence[str]) -> str:
    """Name what a file has instead, a few of it."""
    if not names:
        return "no other name"
    more = len(names) - _NAMED
    said = ", ".join(f"'{name}'" for name in names[:_NAMED])
    return f"{said} and {more} more" if more > 0 else said


def _advice(outside: NDArray[np.float64], volume: Volume) -> str:
    """Say what else positions outside the image could have meant."""
    if volume.contains(outside * np.array(_TO_LPS["RAS"])).all():
        return (
            "With the signs of x and y reversed they lie inside: "
            "check the coordinate system (LPS or RAS) the file names"
        )
    if ((outside >= 0) & (outside <= volume.size)).all():
        return "They look like voxel indices: positions in this file must be mm in LPS or RAS"
    return "Check the coordinate system (LPS or RAS) the file names"


def _check_scale(placed: NDArray[np.float64], volume: Volume, case: str) -> None:
    """Refuse landmarks so close together that they must be in centimetres or metres."""
    if len(placed) < 3:
        return
    spread = float(np.ptp(placed, axis=0).max())
    if spread < 0.02 * float(volume.size.max()) * volume.spacing_mm:
        raise InputDataError(
            "the landmarks of a case lie implausibly close together",
            field=case,
            expected="positions in mm",
            got="all within a fiftieth of the image",
            advice="Are they in centimetres or metres?",
        )


def landmarks_from_frame(
    landmarks: Mapping[str, NDArray[np.float64]], frame: str | None, path: Path
) -> dict[str, NDArray[np.float64]]:
    """Positions in mm of a named frame, as LPS mm.

    Raises:
        InputDataError: no frame, or an unknown one.
    """
    sign = np.array(_frame(frame, path))
    return {name: position * sign for name, position in landmarks.items()}


def _frame(name: object, path: Path) -> tuple[float, float, float]:
    """The signs that turn a frame into LPS."""
    if not isinstance(name, str) or name not in _TO_LPS:
        raise InputDataError(
            "unknown coordinate system",
            field=str(path),
            expected="LPS or RAS",
            got="nothing" if name is None else "another one",
        )
    return _TO_LPS[name]


def _parse_markups(text: str, path: Path) -> list[Markup]:
    """Control points of everything in a Markups file."""
    malformed = InputDataError(
        "not a Markups file",
        field=str(path),
        expected='{"markups": [{"coordinateSystem": …, "controlPoints": […]}]}',
        got="another structure",
    )
    try:
        data = json_of(text.encode("utf-8"), _MOST_BYTES)
    except ValueError as error:
        raise malformed from error
    markups = data.get("markups") if isinstance(data, dict) else None
    if not isinstance(markups, list):
        raise malformed
    found: list[Markup] = []
    for markup in markups:
        if not isinstance(markup, dict) or not isinstance(markup.get("controlPoints"), list):
            raise malformed
        sign = np.array(_frame(markup.get("coordinateSystem"), path))
        if markup.get("coordinateUnits", "mm") not in ("mm", ["mm", "UCUM", "millimeter"]):
            raise InputDataError("unknown unit of length", field=str(path), expected="mm")
        points: list[tuple[str, NDArray[np.float64]]] = []
        missing: set[str] = set()
        for point in markup["controlPoints"]:
            if not isinstance(point, dict) or not isinstance(point.get("label"), str):
                raise malformed
            name, status = point["label"].strip(), point.get("positionStatus", "defined")
            if status == "missing":
                missing.add(name)
            if status == "defined":
                points.append((name, _position(point.get("position"), path, name) * sign))
        kind, name = (
            value if isinstance(value := markup.get(key), str) else "" for key in ("type", "name")
        )
        found.append(Markup(kind, name.strip(), tuple(points), frozenset(missing)))
    return found


def _parse_fcsv(text: str, path: Path) -> list[tuple[str, NDArray[np.float64]]]:
    """Rows of Slicer's older comma-separated fiducial file."""
    columns = ["id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label"]
    frame: str | None = None
    points: list[tuple[str, NDArray[np.float64]]] = []
    for line in text.splitlines():
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            if key.strip() == "CoordinateSystem":
                frame = _FCSV_NUMBERS.get(value.strip(), value.strip())
            elif key.strip() == "columns":
                columns = [column.strip() for column in value.split(",")]
        elif line.strip():
            row = dict(zip(columns, cells_of(line, path), strict=False))
            name = row.get("label", "").strip()
            sign = np.array(_frame(frame, path))
            points.append((name, _position([row.get(k) for k in "xyz"], path, name) * sign))
    if frame is None:
        _frame(None, path)
    return points


def _position(value: object, path: Path, name: str) -> NDArray[np.float64]:
    """Three numbers, or an error that names the landmark."""
    if isinstance(value, list) and len(value) == 3:
        try:
            if not any(isinstance(entry, bool) or entry is None for entry in value):
                return np.array([float(entry) for entry in value], dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            pass
    raise InputDataError(
        "a landmark has no position", field=f"{path}: {name}", expected="three numbers in mm"
    )

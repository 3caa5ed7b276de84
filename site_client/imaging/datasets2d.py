"""Two-dimensional cases: pictures with the landmarks that somebody marked in their plane.

A landmark may be missing in a case (NaN): nobody marks everything in every
image. What is marked must lie inside the image; what does not is refused by the
names of case and landmark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.imaging.landmark_tables import (
    LandmarkTable,
    Positions,
    marked_absent,
    read_voxel_lines,
)
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.listfiles import LIST_SUFFIX, CaseFiles
from site_client.imaging.planar import Picture, read_picture

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PictureCase:
    """One picture and its landmarks.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        subject: whose picture it is.
        picture: the image.
        landmarks_mm: float64[landmarks, 2], mm in the plane; NaN where nobody marked one.
        absent: names of landmarks that somebody said are outside of the image.
    """

    name: str
    subject: str
    picture: Picture
    landmarks_mm: NDArray[np.float64]
    absent: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return (
            f"PictureCase(shape={self.picture.channels.shape}, landmarks={len(self.landmarks_mm)})"
        )


def load_pictures(
    files: Sequence[CaseFiles],
    names: Sequence[str],
    spacing_mm: float,
    *,
    pixel_mm: float | None = None,
    table: LandmarkTable | None = None,
    line_names: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[PictureCase]:
    """Read pictures and place their landmarks.

    Args:
        files: which files.
        names: the wanted landmarks, in order; none are looked for when it is empty.
        spacing_mm: the working spacing.
        pixel_mm: size of pixels where neither a file nor the table says it.
        table: landmarks of all pictures; otherwise each case's own file is read.
        line_names: of the lines of text files without names.
        progress: called with (read, in all) after each.

    Raises:
        InputDataError: the first thing that cannot be used, by case and landmark.
    """
    cases: list[PictureCase] = []
    for case in files:
        size = table.pixel_mm.get(case.name, pixel_mm) if table is not None else pixel_mm
        picture = read_picture(case.image, spacing_mm, size)
        marked = _positions(case, picture, table, line_names) if names else {}
        placed = place_in_plane(marked, names, picture, case.name)
        absent = marked_absent(case, table) if names else frozenset()
        cases.append(PictureCase(case.name, case.subject, picture, placed, absent))
        if progress is not None:
            progress(len(cases), len(files))
    return cases


def place_in_plane(
    landmarks: Positions, names: Sequence[str], picture: Picture, case: str
) -> NDArray[np.float64]:
    """The wanted landmarks in the wanted order, float64[len(names), 2] mm; NaN where missing.

    Raises:
        InputDataError: none of them is there, or one lies outside the image.
    """
    placed = np.full((len(names), 2), np.nan)
    for k, name in enumerate(names):
        if name in landmarks:
            placed[k] = landmarks[name]
    marked = np.isfinite(placed).all(axis=1)
    if len(names) and not marked.any():
        raise InputDataError(
            "none of the landmarks is marked",
            field=case,
            expected=f"at least one of {', '.join(names[:8])}",
            got=f"{len(landmarks)} other landmarks",
            advice="Names must be spelt as in task.landmarks",
        )
    outside = [
        n for n, p in zip(names, placed, strict=True) if n in landmarks and not picture.contains(p)
    ]
    if outside:
        raise InputDataError(
            "a landmark lies outside the image",
            field=f"{case}: {', '.join(outside)}",
            expected="within the image",
            advice=_advice(picture, np.array([landmarks[name] for name in outside])),
        )
    return placed


def _advice(picture: Picture, outside: NDArray[np.float64]) -> str:
    """Say what else the positions could have meant."""
    if picture.contains(picture.from_pixels(outside)).all():
        return "Taken as pixels they lie inside: is the unit 'voxel'?"
    if picture.contains(-outside).all():
        return "With the opposite signs they lie inside: check LPS or RAS"
    return "Check the unit, the size of the pixels, and that the landmarks are of this image"


def _positions(
    case: CaseFiles, picture: Picture, table: LandmarkTable | None, line_names: Sequence[str]
) -> Positions:
    """All landmarks of a case as float64[2], mm in the plane."""
    if table is not None:
        points = table.of(case.name)
        if table.unit == "mm":
            return {name: point[:2] for name, point in points.items()}
        return {name: picture.from_pixels(point[:2]) for name, point in points.items()}
    path: Path | None = case.landmarks
    if path is None:
        raise InputDataError("an image without landmarks", field=case.name)
    if path.name.lower().endswith(LIST_SUFFIX):
        lines = read_voxel_lines(path, line_names)
        return {name: picture.from_pixels(point[:2]) for name, point in lines.items()}
    return {
        name: picture.to_plane(point, f"{case.name}: {name}")
        for name, point in read_landmarks(path).items()
    }

"""The cases of a site's data folder, read: images with their landmarks.

Which files they are, ``folders`` says. Nothing is ever written here, and a `Case` with
its name stays in the worker's memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.cli import counted
from common.errors import InputDataError
from common.settings import TaskSettings
from site_client.imaging.faults import UnusableCasesError
from site_client.imaging.folders import list_folder, usable_cases
from site_client.imaging.landmark_tables import (
    LandmarkTable,
    Positions,
    marked_absent,
    read_voxel_lines,
)
from site_client.imaging.landmarks import (
    landmarks_from_frame,
    place_landmarks,
    read_absent,
    read_landmarks,
)
from site_client.imaging.listfiles import LIST_SUFFIX, CaseFiles
from site_client.imaging.volumes import Volume, read_geometry, read_volume

Progress = Callable[[int, int], None]
LOG = logging.getLogger("cairn.imaging")


@dataclass(frozen=True, eq=False)
class Case:
    """One image and its landmarks.

    Attributes:
        name: file stem, kept out of `repr` and of everything that leaves the site.
        volume: the image.
        landmarks_mm: float64[landmarks, 3], LPS mm, in the order of the task; NaN is missing.
        absent: names of landmarks that somebody said are outside of the image.
    """

    name: str
    volume: Volume
    landmarks_mm: NDArray[np.float64]
    absent: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Case(size={self.volume.size.tolist()}, landmarks={len(self.landmarks_mm)})"


def load_cases(
    folder: Path, task: TaskSettings, progress: Progress | None = None, *, least: int = 1
) -> list[Case]:
    """Read every labelled case of a folder, ordered by name.

    Images that nobody labelled are left out, and how many they are is logged: a file
    without landmarks teaches nothing. A labelled one that cannot be used is refused:
    leaving it out would hide that something is wrong. So is one that lacks a landmark,
    unless the task allows that some are missing; those are NaN.

    Args:
        folder: the site's data folder.
        task: names the landmarks and the working spacing.
        progress: called with (cases read, cases in all) after each.
        least: cases that must be left where unlabelled images were left out.

    Raises:
        InputDataError: what cannot be used, by file and landmark name.
        UnusableCasesError: the same of several.
    """
    listing = list_folder(folder)
    usable = usable_cases(listing, least)
    unlabelled = [name for name, _ in listing.unlabelled]
    cases: list[Case] = []
    unusable: list[InputDataError] = []
    for number, (name, image, landmark_file) in enumerate(usable, start=1):
        try:
            case = _load(name, image, landmark_file, task)
        except InputDataError as error:
            unusable.append(error)
            cases.clear()  # nothing will be trained on: only the rest's faults are looked for
        else:
            if case is None:
                unlabelled.append(name)
            elif not unusable:
                cases.append(case)
        if progress is not None:
            progress(number, len(usable))
    if unusable:
        raise unusable[0] if len(unusable) == 1 else UnusableCasesError(folder, unusable)
    _tell_left_out(folder, unlabelled, len(cases), least)
    return cases


def _load(name: str, image: Path, landmark_file: Path, task: TaskSettings) -> Case | None:
    """One case; None where nobody marked anything in it."""
    landmarks = read_landmarks(landmark_file)
    if not landmarks:
        return None
    volume = read_volume(image, task.spacing_mm)
    missing_ok = task.missing == "allow"
    placed = place_landmarks(landmarks, task.landmarks, volume, name, missing_ok=missing_ok)
    return Case(name, volume, placed, read_absent(landmark_file))


def _tell_left_out(folder: Path, unlabelled: Sequence[str], used: int, least: int) -> None:
    """Log how many images are left out; refuse where too few remain.

    Raises:
        InputDataError: fewer than ``least``.
    """
    if not unlabelled:
        return
    if used < max(1, least):
        raise InputDataError(
            "too few images have landmarks",
            field=str(folder),
            expected=f"at least {max(1, least)}",
            got=f"{used}, and {len(unlabelled)} without any",
            advice="Mark more of them: cairn-site check --data lists them",
        )
    without, rest = counted(len(unlabelled), "image"), counted(used, "image")
    LOG.warning("%s without landmarks left out; %s used", without, rest)


def read_cases(
    files: Sequence[CaseFiles],
    names: Sequence[str],
    spacing_mm: float,
    *,
    table: LandmarkTable | None = None,
    line_names: Sequence[str] = (),
    by_foreground: bool = True,
    progress: Progress | None = None,
) -> list[Case]:
    """Read given volumes and place their landmarks; those that nobody marked are NaN.

    Args:
        files: which files.
        names: the wanted landmarks, in order; none are looked for when it is empty.
        spacing_mm: the isotropic working spacing.
        table: landmarks of all volumes; otherwise each case's own file is read.
        line_names: of the lines of text files without names.
        by_foreground: see `read_volume`.
        progress: called with (read, in all) after each.

    Raises:
        InputDataError: the first thing that cannot be used, by case and landmark.
    """
    cases: list[Case] = []
    for case in files:
        volume = read_volume(case.image, spacing_mm, by_foreground=by_foreground)
        placed = np.empty((0, 3))
        if names:
            marked = world_landmarks(case, table, line_names)
            placed = place_landmarks(marked, names, volume, case.name, missing_ok=True)
        absent = marked_absent(case, table) if names else frozenset()
        cases.append(Case(case.name, volume, placed, absent))
        if progress is not None:
            progress(len(cases), len(files))
    return cases


def world_landmarks(
    case: CaseFiles, table: LandmarkTable | None = None, line_names: Sequence[str] = ()
) -> Positions:
    """All landmarks of a volume in LPS mm, wherever and however they are written.

    Raises:
        InputDataError: none are there, or the table does not say its frame.
    """
    if table is not None:
        points = table.of(case.name)
        flat = [name for name, point in points.items() if len(point) != 3]
        if flat:
            raise InputDataError(
                "a landmark of a volume needs three numbers", field=f"{case.name}: {flat[0]}"
            )
        if table.unit == "mm":
            return landmarks_from_frame(points, table.frame, table.path)
    elif case.landmarks is None:
        raise InputDataError("an image without landmarks", field=case.name)
    elif not case.landmarks.name.lower().endswith(LIST_SUFFIX):
        return read_landmarks(case.landmarks)
    else:
        points = read_voxel_lines(case.landmarks, line_names)
    if not points:
        return {}
    geometry = read_geometry(case.image)
    world: Positions = {}
    for name, point in points.items():
        if len(point) != 3 or not ((point >= -0.5) & (point <= geometry.size - 0.5)).all():
            raise InputDataError(
                "a landmark lies outside the image",
                field=f"{case.name}: {name}",
                expected="a voxel index x, y, z of the file's own grid",
                advice="Check that the positions are voxels, and of this image",
            )
        world[name] = geometry.index_to_world(point)
    return world

"""From a configuration to cases: find, split by subject, read, and check that they are the same.

A split never tears a subject apart. The digest of the cases is kept with a
checkpoint, so that a run goes on with exactly the images it began with; it and
everything here stays at the site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent_app.config import Config, DataSettings
from site_client.imaging.dataset import Case, read_cases
from site_client.imaging.datasets2d import PictureCase, load_pictures
from site_client.imaging.landmark_tables import (
    LandmarkTable,
    read_landmark_table,
    read_voxel_lines,
)
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.listfiles import (
    LIST_SUFFIX,
    TABLE_SUFFIX,
    CaseFiles,
    find_files,
    require_landmarks,
)

Progress = Callable[[str, int, int], None]
AnyCase = Case | PictureCase


@dataclass(frozen=True)
class Source:
    """Found files, not opened yet.

    Attributes:
        files: of each case.
        table: the landmarks of all of them, where one file has them.
        line_names: of landmarks in files without names.
        pixel_mm: of files that do not say it; None when none was given.
    """

    files: tuple[CaseFiles, ...]
    table: LandmarkTable | None
    line_names: tuple[str, ...]
    pixel_mm: float | None

    def only(self, subjects: set[str]) -> Source:
        """The cases of some subjects."""
        return replace(self, files=tuple(f for f in self.files if f.subject in subjects))


@dataclass(frozen=True, eq=False)
class Cases:
    """Cases in memory.

    Attributes:
        landmarks: the heads, by name.
        volumes: cases of three dimensions; empty for a planar task.
        pictures: cases of two dimensions; empty otherwise.
    """

    landmarks: tuple[str, ...]
    volumes: tuple[Case, ...] = ()
    pictures: tuple[PictureCase, ...] = ()

    def __len__(self) -> int:
        return len(self.volumes) + len(self.pictures)

    @property
    def each(self) -> tuple[AnyCase, ...]:
        """The cases, whatever they are."""
        return self.volumes or self.pictures

    def digest(self) -> str:
        """SHA-256 over names, landmarks and pixels: the same cases have the same."""
        sha = hashlib.sha256()
        for case in self.each:
            pixels = case.volume.voxels if isinstance(case, Case) else case.picture.pixels
            for part in (case.name.encode(), case.landmarks_mm.tobytes(), pixels.tobytes()):
                sha.update(len(part).to_bytes(8, "big") + part)
        return sha.hexdigest()


def find_source(
    images: Sequence[Path],
    landmarks: str,
    data: DataSettings,
    *,
    need_landmarks: bool = True,
) -> Source:
    """The cases of some images, with the configuration's way of reading landmarks.

    Raises:
        InputDataError: nothing there, no landmarks, or a table that cannot be read.
    """
    place = Path(landmarks) if landmarks else None
    if place is not None and not place.exists():
        raise InputDataError("no such landmarks", field=str(place), got="nothing there")
    table = None
    if place is not None and place.name.lower().endswith(TABLE_SUFFIX):
        table = read_landmark_table(
            place,
            unit=data.unit or None,
            frame=data.coordinate_system or None,
            names=data.names,
        )
    files = find_files(images, place, subject=data.subject)
    if need_landmarks and table is None:
        require_landmarks(files)
    return Source(tuple(files), table, data.names, data.pixel_mm or None)


def training_sources(config: Config) -> tuple[Source, Source | None]:
    """Training and validation cases; None where nothing is held out.

    Raises:
        InputDataError: no data, a subject that does not exist, or too few to hold one out.
    """
    data = config.data
    if not data.images:
        raise InputDataError(
            "no images to train on", field="data.images", expected="a folder, or --data"
        )
    source = find_source([Path(data.images)], data.landmarks, data)
    if data.validation:
        held = find_source([Path(data.validation)], data.validation_landmarks, data)
        both = {f.subject for f in source.files} & {f.subject for f in held.files}
        if both:
            raise InputDataError(
                "subjects are both trained on and held out",
                field="data.validation",
                expected="other subjects",
                got=f"{len(both)} of both",
            )
        return source, held
    held_out = _held_out(source, data, config.run.seed)
    if not held_out:
        return source, None
    return source.only({f.subject for f in source.files} - held_out), source.only(held_out)


def _held_out(source: Source, data: DataSettings, seed: int) -> set[str]:
    subjects = sorted({f.subject for f in source.files})
    if data.validation_subjects:
        unknown = sorted(set(data.validation_subjects) - set(subjects))
        if unknown or len(set(data.validation_subjects)) == len(subjects):
            raise InputDataError(
                "cannot hold these subjects out",
                field="data.validation_subjects",
                expected=f"some of the {len(subjects)} subjects",
                got=f"unknown: {', '.join(unknown)}" if unknown else "all of them",
            )
        return set(data.validation_subjects)
    if data.validation_share == 0:
        return set()
    if len(subjects) < 2:
        raise InputDataError(
            "cannot hold a subject out",
            field="data.validation_share",
            expected="0 with a single subject",
            got=str(data.validation_share),
            advice="Set it to 0, or name other images in data.validation",
        )
    count = min(max(1, round(data.validation_share * len(subjects))), len(subjects) - 1)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(subjects))
    return {subjects[k] for k in order[:count]}


def landmark_names(source: Source) -> tuple[str, ...]:
    """Every landmark that some case has, in the order in which they are met.

    Raises:
        InputDataError: a landmark file cannot be read, or there are none at all.
    """
    names: dict[str, None] = {}
    for files in source.files:
        names.update(dict.fromkeys(_names_of(files, source)))
    if not names:
        raise InputDataError("no landmarks in any file", field="data.landmarks")
    return tuple(names)


def _names_of(files: CaseFiles, source: Source) -> list[str]:
    if source.table is not None:
        return list(source.table.of(files.name))
    if files.landmarks is None:
        return []
    if files.landmarks.name.lower().endswith(LIST_SUFFIX):
        return list(read_voxel_lines(files.landmarks, source.line_names))
    return list(read_landmarks(files.landmarks))


def load(
    source: Source,
    landmarks: Sequence[str],
    config: Config,
    progress: Progress,
    what: str = "reading images",
) -> Cases:
    """Read images and place their landmarks; a landmark that a case lacks is NaN.

    Raises:
        InputDataError: the first thing that cannot be used, by case and landmark.
    """
    planar, spacing = config.task.kind == "landmark-2d", config.task.spacing_mm

    def show(done: int, total: int) -> None:
        progress(what, done, total)

    if planar:
        pictures = load_pictures(
            source.files,
            landmarks,
            spacing,
            pixel_mm=source.pixel_mm,
            table=source.table,
            line_names=source.line_names,
            progress=show,
        )
        return Cases(tuple(landmarks), pictures=tuple(pictures))
    volumes = read_cases(
        source.files,
        landmarks,
        spacing,
        table=source.table,
        line_names=source.line_names,
        by_foreground=config.task.world == "cairn",
        progress=show,
    )
    return Cases(tuple(landmarks), volumes=tuple(volumes))


def without_truth(
    source: Source, landmarks: Sequence[str], config: Config, progress: Progress
) -> Cases:
    """Read images of which nothing is known; the middle of each stands for every landmark.

    Errors against these landmarks mean nothing and must not be shown.
    """
    bare = load(source, (), config, progress)
    shape = len(landmarks)
    return Cases(
        tuple(landmarks),
        tuple(
            Case(c.name, c.volume, np.tile(c.volume.centre_mm, (shape, 1))) for c in bare.volumes
        ),
        tuple(
            replace(c, landmarks_mm=np.tile(c.picture.extent_mm / 2, (shape, 1)))
            for c in bare.pictures
        ),
    )


def known_landmarks(cases: Cases) -> NDArray[np.bool_]:
    """bool[cases, landmarks]: which truths there are."""
    return np.stack([np.isfinite(case.landmarks_mm).all(axis=1) for case in cases.each])

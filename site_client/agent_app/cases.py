"""Cases in memory: images, what is known of them, and a digest that says they are the same.

The digest of the cases is kept with a checkpoint, so that a run goes on with exactly
the images it began with; it and everything here stays at the site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from site_client.agent_app.config import Config
from site_client.agent_app.kinds import BOXES, PLANAR, REGISTRATIONS
from site_client.agent_app.sources import Source
from site_client.imaging.boxes import Boxes, boxes_of_picture, boxes_of_volume
from site_client.imaging.dataset import Case, read_cases
from site_client.imaging.datasets2d import PictureCase, load_pictures
from site_client.imaging.listfiles import CaseFiles

Progress = Callable[[str, int, int], None]
AnyCase = Case | PictureCase


@dataclass(frozen=True, eq=False)
class Cases:
    """Cases in memory.

    Attributes:
        landmarks: names of the landmarks, or of the labels of boxes.
        volumes: cases of three dimensions; empty for a planar task.
        pictures: cases of two dimensions; empty otherwise.
        boxes: of each case, for a search for boxes.
        moving: the image that belongs to each case, for a registration of two images.
    """

    landmarks: tuple[str, ...]
    volumes: tuple[Case, ...] = ()
    pictures: tuple[PictureCase, ...] = ()
    boxes: tuple[Boxes, ...] = ()
    moving: tuple[AnyCase, ...] = ()

    def __len__(self) -> int:
        return len(self.volumes) + len(self.pictures)

    @property
    def each(self) -> tuple[AnyCase, ...]:
        """The cases, whatever they are."""
        return self.volumes or self.pictures

    def digest(self) -> str:
        """SHA-256 over names, what is known, and pixels: the same cases have the same."""
        sha = hashlib.sha256()
        for case in (*self.each, *self.moving):
            pixels = case.volume.voxels if isinstance(case, Case) else case.picture.channels
            for part in (case.name.encode(), case.landmarks_mm.tobytes(), pixels.tobytes()):
                sha.update(len(part).to_bytes(8, "big") + part)
        for boxes in self.boxes:
            for part in ("\n".join(boxes.labels).encode(), boxes.corners_mm.tobytes()):
                sha.update(len(part).to_bytes(8, "big") + part)
        return sha.hexdigest()


def load(
    source: Source,
    names: Sequence[str],
    config: Config,
    progress: Progress,
    what: str = "reading images",
) -> Cases:
    """Read images and what is known of them; a landmark that a case lacks is NaN.

    Args:
        source: the files.
        names: of landmarks, or of labels; see `site_client.agent_app.sources.names_of`.
        config: says kind, spacing and how to read.
        progress: called with (what, images read, images in all).
        what: is being done, in words.

    Raises:
        InputDataError: the first thing that cannot be used, by case and landmark or label.
    """
    kind = config.task.kind
    if kind in BOXES:
        bare = _images(source, source.files, (), config, progress, what)
        found = _boxes(source, bare.each, config) if source.boxes or source.partners else ()
        return replace(bare, landmarks=tuple(names), boxes=found)
    cases = _images(source, source.files, names, config, progress, what)
    if kind in REGISTRATIONS and source.partners:
        files = [replace(f, image=source.partners[f.name]) for f in source.files]
        moving = _images(source, files, (), config, progress, "reading moving images")
        return replace(cases, moving=moving.each)
    return cases


def _boxes(source: Source, images: Sequence[AnyCase], config: Config) -> tuple[Boxes, ...]:
    least = config.box.least_voxels
    found: list[Boxes] = []
    for files, case in zip(source.files, images, strict=True):
        truth = source.boxes or source.partners[files.name]
        if isinstance(case, PictureCase):
            found.append(boxes_of_picture(files, truth, case.picture, least))
        else:
            found.append(boxes_of_volume(files, truth, case.volume, least))
    return tuple(found)


def _images(
    source: Source,
    files: Sequence[CaseFiles],
    names: Sequence[str],
    config: Config,
    progress: Progress,
    what: str,
) -> Cases:
    """Images with their landmarks, if there are any names."""
    spacing = config.task.spacing_mm

    def show(done: int, total: int) -> None:
        progress(what, done, total)

    if config.task.kind in PLANAR:
        pictures = load_pictures(
            files,
            names,
            spacing,
            pixel_mm=source.pixel_mm,
            table=source.table,
            line_names=source.line_names,
            progress=show,
        )
        return Cases(tuple(names), pictures=tuple(pictures))
    volumes = read_cases(
        files,
        names,
        spacing,
        table=source.table,
        line_names=source.line_names,
        by_foreground=config.task.world == "cairn",
        progress=show,
    )
    return Cases(tuple(names), volumes=tuple(volumes))


def without_truth(
    source: Source, landmarks: Sequence[str], config: Config, progress: Progress
) -> Cases:
    """Read images of which nothing is known; the middle of each stands for every landmark.

    Errors against these landmarks mean nothing and must not be shown.
    """
    bare = _images(source, source.files, (), config, progress, "reading images")
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

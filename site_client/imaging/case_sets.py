"""Cases in memory: images, what is known of them, and a digest that says they are the same.

The digest of the cases is kept with a checkpoint, so that a run goes on with exactly
the images it began with; it and everything here stays at the site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import KINDS, AgentSettings
from site_client.imaging.boxes import Boxes, TurnedBoxes
from site_client.imaging.cases import AnyCase, pixels_of
from site_client.imaging.curves import Curves
from site_client.imaging.dataset import Case, read_cases
from site_client.imaging.datasets2d import PictureCase, load_pictures
from site_client.imaging.listfiles import CaseFiles
from site_client.imaging.sources import Source

T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Cases:
    """Cases in memory.

    Attributes:
        landmarks: names of the landmarks, or of the labels of boxes.
        volumes: cases of three dimensions; empty for a planar task.
        pictures: cases of two dimensions; empty otherwise.
        boxes: of each case, for a search for boxes.
        moving: the image that belongs to each case, for a registration of two images.
        turned: turned boxes of each case.
        masks: of each case, by label, on the grid of its image.
        curves: of each case, for tracing; positions as its landmarks are given.
    """

    landmarks: tuple[str, ...]
    volumes: tuple[Case, ...] = ()
    pictures: tuple[PictureCase, ...] = ()
    boxes: tuple[Boxes, ...] = ()
    moving: tuple[AnyCase, ...] = ()
    curves: tuple[Curves, ...] = ()
    turned: tuple[TurnedBoxes, ...] = ()
    masks: tuple[Mapping[str, NDArray[np.bool_]], ...] = ()

    def __len__(self) -> int:
        return len(self.volumes) + len(self.pictures)

    @property
    def each(self) -> tuple[AnyCase, ...]:
        """The cases, whatever they are."""
        return self.volumes or self.pictures

    def part(self, numbers: Sequence[int]) -> Cases:
        """Give some of the cases, by number, in that order."""

        def some(things: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(things[number] for number in numbers) if things else ()

        return Cases(
            self.landmarks,
            some(self.volumes),
            some(self.pictures),
            some(self.boxes),
            some(self.moving),
            some(self.curves),
            some(self.turned),
            some(self.masks),
        )

    def digest(self) -> str:
        """Compute SHA-256 over names, what is known, and pixels: the same cases have the same."""
        sha = hashlib.sha256()
        for case in (*self.each, *self.moving):
            pixels = pixels_of(case).tobytes()
            for part in (case.name.encode(), case.landmarks_mm.tobytes(), pixels):
                sha.update(len(part).to_bytes(8, "big") + part)
        numbers: list[tuple[tuple[str, ...], NDArray[np.generic]]]
        numbers = [(boxes.labels, boxes.corners_mm) for boxes in self.boxes]
        numbers += [(boxes.labels, boxes.rectangles_mm) for boxes in self.turned]
        each = [list(masks.items()) for masks in self.masks]
        numbers += [((label,), mask) for of_case in each for label, mask in of_case]
        for labels, values in numbers:
            for part in ("\n".join(labels).encode(), values.tobytes()):
                sha.update(len(part).to_bytes(8, "big") + part)
        for curves in self.curves:
            for name, points in curves.items():
                for part in (name.encode(), points.tobytes()):
                    sha.update(len(part).to_bytes(8, "big") + part)
        return sha.hexdigest()


def read_images(
    source: Source,
    files: Sequence[CaseFiles],
    names: Sequence[str],
    config: AgentSettings,
    progress: Progress,
    what: str = "reading images",
) -> Cases:
    """Read images with their landmarks, if there are any names; one that a case lacks is NaN.

    Args:
        source: says how positions are read.
        files: of each case.
        names: of landmarks.
        config: says kind, spacing and how to read.
        progress: called with (what, images read, images in all).
        what: is being done, in words.

    Raises:
        InputDataError: the first thing that cannot be used, by case and landmark.
    """
    spacing = config.task.spacing_mm

    def show(done: int, total: int) -> None:
        progress(what, done, total)

    if KINDS[config.task.kind].dim == 2:
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
    source: Source, landmarks: Sequence[str], config: AgentSettings, progress: Progress
) -> Cases:
    """Read images of which nothing is known; the middle of each stands for every landmark.

    Errors against these landmarks mean nothing and must not be shown.
    """
    bare = read_images(source, source.files, (), config, progress)
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


def require_all(cases: Cases) -> None:
    """Refuse cases that lack a landmark; each head would then rest on other sites' share of it.

    Raises:
        InputDataError: names the first such case and what it lacks.
    """
    for case in cases.each:
        there: NDArray[np.bool_] = np.asarray(np.isfinite(case.landmarks_mm).all(axis=1))
        lacking = [name for name, has in zip(cases.landmarks, there, strict=True) if not has]
        if lacking:
            raise InputDataError(
                "a landmark is missing",
                field=f"{case.name}: {', '.join(lacking)}",
                expected="every landmark of the plan in every labelled image",
                got=f"{int(there.sum())} of {len(there)}",
                advice="Names must be spelt as in the plan; task.missing decides if some may lack",
            )

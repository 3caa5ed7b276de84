"""Landmarks in 2-D images: one agent for many images, landmarks, body regions and modalities.

X-rays, ultrasound, slices, or maps of several channels: whatever has pixels with a
spacing. A case need not have every landmark, so that images of different body
regions can share one network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import PoseSettings
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.views import Views
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Pyramids, Raster, build_pyramids
from site_client.imaging.sampling import sample_2d


@dataclass(frozen=True, eq=False)
class Case2D:
    """One image and its landmarks.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        image: uint8[channels, y, x].
        spacing_mm: distance of neighbouring pixels along x and y.
        landmarks_mm: float64[heads, 2], (x, y) from the middle of the first pixel along
            the image's rows and columns; NaN where a landmark is missing.
        group: body region or modality.
    """

    name: str
    image: NDArray[np.uint8]
    spacing_mm: tuple[float, float]
    landmarks_mm: NDArray[np.float64]
    group: str = ""

    def __repr__(self) -> str:
        present = int(np.isfinite(self.landmarks_mm).all(axis=1).sum())
        return f"Case2D(shape={self.image.shape}, landmarks={present})"


@dataclass(frozen=True, eq=False)
class Cases2D:
    """Cases ready to be sampled: build them once, search them in as many tasks as needed.

    Attributes:
        images: their pyramids.
        landmarks_mm: float64[cases, heads, 2], mm from the middle of the image.
        middles_mm: float64[cases, 2], the image's middle from the first pixel.
        groups, names: of each case.
    """

    images: Pyramids
    landmarks_mm: NDArray[np.float64]
    middles_mm: NDArray[np.float64]
    groups: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Cases2D(images={self.images!r}, heads={self.landmarks_mm.shape[1]})"

    def subset(self, cases: Sequence[int] | NDArray[np.int64]) -> Cases2D:
        """Some of the cases, e.g. a fold; the pixels are shared, not copied."""
        chosen = np.asarray(cases, dtype=np.int64)
        return Cases2D(
            self.images.subset(chosen),
            self.landmarks_mm[chosen],
            self.middles_mm[chosen],
            tuple(self.groups[c] for c in chosen),
            tuple(self.names[c] for c in chosen),
        )


def build_cases_2d(
    cases: Iterable[Case2D],
    finest_mm: float = 0.0,
    limit_mib: int = DEFAULT_LIMIT_MIB,
    *,
    may_lack: bool = False,
) -> Cases2D:
    """Lay images out for searching.

    Args:
        cases: consumed one by one, so that a generator may read each file as it is needed.
        finest_mm: the smallest stride they will be seen at (``min`` of the ladder's strides
            times ``min`` of the zooms); finer detail is pooled away and costs no memory.
        limit_mib: ceiling of the pixels in memory.
        may_lack: landmarks may lie outside of their images, which are cropped copies.

    Raises:
        InputDataError: no images, images that do not fit together or into the limit, or
            a landmark outside its image that may not lie there.
    """
    usable: list[tuple[NDArray[np.float64], NDArray[np.float64], str, str]] = []

    def rasters() -> Iterator[Raster]:
        for case in cases:
            raster = Raster(case.image, case.spacing_mm, np.eye(2))
            last = (np.array(case.image.shape[:0:-1]) - 1.0) * np.array(case.spacing_mm)
            _check_landmarks(case, last, usable[0][0].shape if usable else None, may_lack)
            usable.append((case.landmarks_mm - last / 2, last / 2, case.group, case.name))
            yield raster

    images = build_pyramids(rasters(), finest_mm, limit_mib)
    landmarks, middles, groups, names = zip(*usable, strict=True)
    return Cases2D(images, np.stack(landmarks), np.stack(middles), groups, names)


class Landmark2D(PointSearch):
    """Landmark search in 2-D images.

    An observation has channels x zooms x frames channels: frames oldest first, in each
    the zooms in their order, in each the image's channels.

    Args:
        cases: the images.
        ladder: strides and steps, coarse to fine.
        views: what is seen at a position.
        poses: extent of the random pose.
        interchangeable: couples of landmarks whose names are a convention.
        reach_mm: one per level, where the action is a displacement.
        may_lack: see `PointSearch`.

    Raises:
        InputDataError: nothing to look for, or couples that are none.
    """

    def __init__(
        self,
        cases: Cases2D,
        ladder: Ladder,
        views: Views | None = None,
        poses: PoseSettings | None = None,
        interchangeable: Sequence[tuple[int, int]] = (),
        reach_mm: Sequence[float] = (),
        *,
        may_lack: bool = False,
    ) -> None:
        super().__init__(
            cases.images,
            cases.landmarks_mm,
            cases.groups,
            ladder,
            views := views or Views.multiscale(),
            poses or PoseSettings(),
            interchangeable,
            reach_mm,
            may_lack=may_lack,
        )
        self.cases = cases
        seen = cases.images.channels * len(views.zooms) * views.frames
        self.shape = (seen, views.roi, views.roi)

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, channels x zooms x frames, roi, roi]."""
        case, middles, axes, gamma = self._requests(situations)
        cut = sample_2d(self.images, case, middles, axes, gamma, self.views.roi)
        return cut.reshape(len(situations), -1, *self.shape[1:])

    def positions_mm(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2]: where each situation is, as landmarks of a `Case2D` are given."""
        return np.asarray(self.native(situations) + self.cases.middles_mm[situations["case"]])


def _check_landmarks(
    case: Case2D,
    last_mm: NDArray[np.float64],
    heads: tuple[int, ...] | None,
    may_lack: bool,
) -> None:
    landmarks = case.landmarks_mm
    if landmarks.ndim != 2 or landmarks.shape[1] != 2 or (heads and landmarks.shape != heads):
        raise InputDataError(
            "landmarks do not fit the task",
            field=case.name,
            expected=f"float64{list(heads or ('heads', 2))}, NaN where one is missing",
            got=f"shape {list(landmarks.shape)}",
        )
    if may_lack:
        return
    # A clinician may click on the rim of the last pixel.
    slack = np.array(case.spacing_mm)
    outside = ((landmarks < -slack) | (landmarks > last_mm + slack)).any(axis=1)
    if outside.any():
        raise InputDataError(
            "a landmark lies outside the image",
            field=f"{case.name}: landmark {int(np.flatnonzero(outside)[0])}",
            expected="millimetres from the first pixel, within the image",
            advice="Check spacing and order of x and y",
        )

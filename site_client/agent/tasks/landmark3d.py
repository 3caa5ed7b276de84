"""Landmarks in volumes, seen in a true cube: the field's 45 x 45 x 45, or any other side.

The tri-planar search sees less and learns faster; this one sees everything around
a point, and, with a history of four frames, what rl-medical's agents see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.settings import PoseSettings
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.views import Views
from site_client.imaging.cases import raster_of
from site_client.imaging.dataset import Case
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Pyramids, build_pyramids
from site_client.imaging.sampling import sample_3d


@dataclass(frozen=True, eq=False)
class Cases3D:
    """Volumes ready to be sampled: build them once, search them in as many tasks as needed.

    Attributes:
        images: their pyramids.
        landmarks_mm: float64[cases, heads, 3], mm from the middle of the volume along LPS
            axes; NaN where a landmark is missing.
        middles_mm: float64[cases, 3], the volume's middle in the world (LPS mm).
        names: of each case.
    """

    images: Pyramids
    landmarks_mm: NDArray[np.float64]
    middles_mm: NDArray[np.float64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Cases3D(images={self.images!r}, heads={self.landmarks_mm.shape[1]})"

    def subset(self, cases: Sequence[int] | NDArray[np.int64]) -> Cases3D:
        """Some of the cases, e.g. a fold; the voxels are shared, not copied."""
        chosen = np.asarray(cases, dtype=np.int64)
        return Cases3D(
            self.images.subset(chosen),
            self.landmarks_mm[chosen],
            self.middles_mm[chosen],
            tuple(self.names[c] for c in chosen),
        )


def build_cases_3d(
    cases: Sequence[Case], finest_mm: float = 0.0, limit_mib: int = DEFAULT_LIMIT_MIB
) -> Cases3D:
    """Lay volumes out for searching.

    Args:
        cases: volumes with their landmarks in LPS mm, NaN for a missing one.
        finest_mm: the smallest stride they will be seen at; finer detail is pooled away.
        limit_mib: ceiling of the voxels in memory.

    Raises:
        InputDataError: no volumes, or more than fit into the limit.
    """
    images = build_pyramids((raster_of(case.volume) for case in cases), finest_mm, limit_mib)
    middles = np.stack([case.volume.centre_mm for case in cases])
    landmarks = np.stack([case.landmarks_mm for case in cases]) - middles[:, None]
    return Cases3D(images, landmarks, middles, tuple(case.name for case in cases))


class Landmark3D(PointSearch):
    """Landmark search in volumes with a cubic region of interest.

    An observation has zooms x frames channels: frames oldest first, in each the zooms.

    Args:
        cases: the volumes.
        ladder: strides and steps, coarse to fine.
        views: what is seen at a position; ``Views.history()`` is rl-medical's.
        poses: extent of the random pose.
        nearest: take the nearest voxel: three times faster than interpolating, and what
            rl-medical does.
        interchangeable: couples of landmarks whose names are a convention.
        reach_mm: one per level, where the action is a displacement.
        may_lack: see `PointSearch`.

    Raises:
        InputDataError: nothing to look for, or couples that are none.
    """

    def __init__(
        self,
        cases: Cases3D,
        ladder: Ladder,
        views: Views | None = None,
        poses: PoseSettings | None = None,
        *,
        nearest: bool = False,
        interchangeable: Sequence[tuple[int, int]] = (),
        reach_mm: Sequence[float] = (),
        may_lack: bool = False,
    ) -> None:
        super().__init__(
            cases.images,
            cases.landmarks_mm,
            [""] * len(cases),
            ladder,
            views := views or Views(),
            poses or PoseSettings(),
            interchangeable,
            reach_mm,
            may_lack=may_lack,
        )
        self.cases = cases
        self.nearest = nearest
        seen = cases.images.channels * len(views.zooms) * views.frames
        self.shape = (seen, views.roi, views.roi, views.roi)

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, zooms x frames, roi, roi, roi], axes z, y, x."""
        case, middles, axes, gamma = self._requests(situations)
        cube = (self.views.roi, self.views.roi)
        cut = sample_3d(self.images, case, middles, axes, gamma, cube, nearest=self.nearest)
        return cut.reshape(len(situations), *self.shape)

    def positions_mm(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: where each situation is in the world, LPS mm."""
        return np.asarray(self.native(situations) + self.cases.middles_mm[situations["case"]])

"""Boxes as numbers: those that are true in each case, and how well two boxes agree.

Corners and centres are millimetres from the middle of the image. Nothing here
searches or looks at an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.tasks.poses import Poses
from site_client.imaging.pyramids import Raster


@dataclass(frozen=True, eq=False)
class BoxCase:
    """One image and the boxes in it.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        raster: the image.
        boxes_mm: float64[boxes, 2, d], lower and upper corner along the patient's axes (2-D:
            the image's), mm from the middle of the image.
        heads: which kind of thing each box holds; all of kind 0 if omitted.
        turns: float64[boxes], radians by which each is turned about its middle, from x to y;
            none is if omitted. Only pictures have turned boxes.
    """

    name: str
    raster: Raster
    boxes_mm: NDArray[np.float64]
    heads: tuple[int, ...] | None = None
    turns: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        return f"BoxCase(shape={self.raster.pixels.shape}, boxes={len(self.boxes_mm)})"


@dataclass(frozen=True, eq=False)
class TrueBoxes:
    """The boxes of all cases, padded with NaN.

    Attributes:
        centre, half: float64[cases, most, d], middle and half size.
        head: int64[cases, most], their kind; -1 pads.
    """

    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    head: NDArray[np.int64] = field(repr=False)

    @staticmethod
    def of(cases: Sequence[BoxCase], d: int) -> TrueBoxes:
        """Collect them.

        Raises:
            InputDataError: a box without a size, or a kind that is none.
        """
        most = max((len(case.boxes_mm) for case in cases), default=0)
        centre = np.full((len(cases), max(most, 1), d), np.nan)
        half = np.full_like(centre, np.nan)
        head = np.full(centre.shape[:2], -1, dtype=np.int64)
        for row, case in enumerate(cases):
            boxes = np.asarray(case.boxes_mm, dtype=np.float64).reshape(-1, 2, d)
            heads = case.heads if case.heads is not None else (0,) * len(boxes)
            sound = np.isfinite(boxes).all() and (boxes[:, 0] < boxes[:, 1]).all()
            if not sound or len(heads) != len(boxes) or min(heads, default=0) < 0:
                raise InputDataError(
                    "a box is none",
                    field=case.name,
                    expected="a lower and an upper corner, and a kind of 0 or more",
                )
            k = len(boxes)
            centre[row, :k], half[row, :k] = boxes.mean(axis=1), (boxes[:, 1] - boxes[:, 0]) / 2
            head[row, :k] = heads
        return TrueBoxes(centre, half, head)

    def posed(
        self, case: NDArray[np.integer], head: NDArray[np.integer], pose: Poses
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(centres, half sizes) float64[n, most, d] under poses; NaN where there is none.

        A turned box becomes the one around it that it would have as an ellipsoid.
        """
        of_kind = self.head[case] == head[:, None]
        centre = np.where(of_kind[:, :, None], self.centre[case], np.nan)
        square = np.einsum("nij,nmj->nmi", pose.rotation**2, self.half[case] ** 2)
        return pose.posed(centre), np.sqrt(square) * pose.scale[:, None, None]

    def corners(self, case: int, head: int) -> NDArray[np.float64]:
        """float64[boxes, 2, d]: lower and upper corners of a case's boxes of a kind."""
        of_kind = self.head[case] == head
        centre, half = self.centre[case, of_kind], self.half[case, of_kind]
        return np.stack([centre - half, centre + half], axis=1)


def overlaps(
    centre: NDArray[np.float64],
    half: NDArray[np.float64],
    other_centre: NDArray[np.float64],
    other_half: NDArray[np.float64],
) -> NDArray[np.float64]:
    """float64[...]: intersection over union of boxes by middle and half size, [..., d] each."""
    low = np.maximum(centre - half, other_centre - other_half)
    high = np.minimum(centre + half, other_centre + other_half)
    inner = np.clip(high - low, 0, None).prod(axis=-1)
    d = centre.shape[-1]
    return np.asarray(inner / (half.prod(axis=-1) * 2**d + other_half.prod(axis=-1) * 2**d - inner))


def overlaps_of_corners(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n, m]: intersection over union of boxes float64[n, 2, d] and float64[m, 2, d]."""
    mine, theirs = a[:, None], b[None]
    return overlaps(
        mine.mean(axis=2),
        (mine[:, :, 1] - mine[:, :, 0]) / 2,
        theirs.mean(axis=2),
        (theirs[:, :, 1] - theirs[:, :, 0]) / 2,
    )

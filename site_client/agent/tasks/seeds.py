"""Seeds for a region grower: a point is good if what grows from it is what was meant.

A search for a point as any other, but for its reward: by how much the region that grows
from the seed gains in overlap (Dice) with the label. Over wide stretches no step changes
that: a reward that is seen at once says nothing there, and only what is learned of the
steps after it does. Regions are grown once per pixel and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.settings import GrowingSettings, PoseSettings
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import ORTHOGONAL_CUTS, Ladder
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.poses import Poses
from site_client.agent.tasks.views import Views
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Raster, build_pyramids
from site_client.imaging.sampling import sample_2d, sample_3d

Grow = Callable[[NDArray[np.integer]], NDArray[np.bool_]]
"""A pixel int[d] (x, y, z) to the region bool[(z,) y, x] that grows from it."""


@dataclass(frozen=True, eq=False)
class SeedCase:
    """One image, what is to be found in it, and what grows there.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        raster: the image, its pixels as far apart along every axis.
        masks: bool[(z,) y, x] of each head; None where the case lacks it.
        inner: int64[d] (x, y, z) of each head: the innermost pixel, where training starts
            lie around; the middle of the image stands in for an unknown one.
        grow: grows a region; not asked where nothing is known.
    """

    name: str
    raster: Raster
    masks: tuple[NDArray[np.bool_] | None, ...]
    inner: tuple[NDArray[np.int64] | None, ...]
    grow: Grow

    def __repr__(self) -> str:
        return f"SeedCase(shape={self.raster.pixels.shape}, heads={len(self.masks)})"


class SeedSearch(PointSearch):
    """Search for seeds.

    An observation has contexts x channels channels; in volumes the three orthogonal cuts of
    each context.

    Args:
        cases: images with their labels.
        settings: steps, views, and what is rewarded.
        poses: extent of the random pose.
        roi: samples along each side of a view.
        limit_mib: ceiling of the pixels in memory.

    Raises:
        InputDataError: nothing to look for.
    """

    unit = "1 - Dice"
    # Between two good seeds there may be a bad one.
    picks_one = True

    def __init__(
        self,
        cases: Sequence[SeedCase],
        settings: GrowingSettings | None = None,
        poses: PoseSettings | None = None,
        limit_mib: int = DEFAULT_LIMIT_MIB,
        *,
        roi: int = 25,
    ) -> None:
        self.settings = settings or GrowingSettings()
        images = build_pyramids((case.raster for case in cases), 0.0, limit_mib)
        self._cases = tuple(cases)
        heads = max((len(case.inner) for case in cases), default=0)
        targets = np.full((len(cases), heads, images.dim), np.nan)
        for row, case in enumerate(cases):
            for head, inner in enumerate(case.inner):
                if inner is not None:
                    targets[row, head] = self._native(case, inner[None])[0]
        super().__init__(
            images,
            targets,
            [""] * len(cases),
            Ladder(self.settings.strides_mm, self.settings.steps_mm),
            Views(roi, self.settings.contexts),
            poses or PoseSettings(),
        )
        cuts = 1 if self.dim == 2 else 3
        self.shape = (images.channels * cuts * len(self.settings.contexts), roi, roi)
        # NaN is not grown yet.
        self._dice = {
            (row, head): np.full(mask.shape, np.nan, np.float32)
            for row, case in enumerate(cases)
            for head, mask in enumerate(case.masks)
            if mask is not None
        }

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, channels, roi, roi]."""
        case, middles, axes, gamma = self._requests(situations)
        if self.dim == 2:
            cut = sample_2d(self.images, case, middles, axes, gamma, self.views.roi)
        else:
            axes = axes[:, :, ORTHOGONAL_CUTS].reshape(len(situations), -1, 3, 3)
            middles = np.repeat(middles, 3, axis=1)
            cut = sample_3d(self.images, case, middles, axes, gamma, (1, self.views.roi))
        return cut.reshape(len(situations), *self.shape)

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: 1 - Dice of the region that grows there with the label."""
        return 1.0 - self._overlaps(situations, situations["position"][:, None])[:, 0]

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Overlap of the region with the label, and whether the seed lies in it."""
        seeds = self.pixels(situations)
        inside = np.zeros(len(situations))
        for k, (seed, situation) in enumerate(zip(seeds, situations, strict=True)):
            mask = self._cases[situation["case"]].masks[situation["head"]]
            inside[k] = mask is not None and mask[tuple(seed[::-1])]
        return {"dice": 1.0 - self.errors(situations), "inside": inside}

    def pixels(self, situations: Situations) -> NDArray[np.int64]:
        """int64[n, d]: the pixels (x, y, z) that situations lie in."""
        return self._pixels(situations, situations["position"][:, None])[:, 0]

    def region(self, situations: Situations) -> NDArray[np.bool_]:
        """bool[(z,) y, x]: the region that grows from situations[0]."""
        case = self._cases[int(situations["case"][0])]
        return case.grow(self.pixels(situations)[0])

    def _after(
        self, situations: Situations, moves: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """As of any point, but for the reward where it is of the overlap."""
        there, outside, rewards = super()._after(situations, moves)
        if self.settings.reward == "dice":
            here = self._overlaps(situations, situations["position"][:, None])
            gain = self._overlaps(situations, there) - here
            rewards = np.where(outside, -1.0, gain).astype(np.float32)
        return there, outside, rewards

    def _overlaps(
        self, situations: Situations, positions: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """float64[n, m]: Dice of what grows at positions [n, m, d]; 0 of an unknown label."""
        pixels = self._pixels(situations, positions)
        dice = np.zeros(positions.shape[:2])
        for k, situation in enumerate(situations):
            pair = int(situation["case"]), int(situation["head"])
            if (dice_map := self._dice.get(pair)) is None:
                continue
            places = tuple(pixels[k].T[::-1])
            for m in np.flatnonzero(np.isnan(dice_map[places])):
                place = tuple(axis[m] for axis in places)
                if np.isnan(dice_map[place]):
                    dice_map[place] = self._grown(pair, pixels[k, m])
            dice[k] = dice_map[places]
        return dice

    def _grown(self, pair: tuple[int, int], pixel: NDArray[np.int64]) -> float:
        """Dice of the region of a pixel with the label of a case and head."""
        case = self._cases[pair[0]]
        mask, region = case.masks[pair[1]], case.grow(pixel)
        if mask is None:
            return 0.0
        return 2.0 * float((mask & region).sum()) / float(mask.sum() + region.sum())

    def _pixels(self, situations: Situations, positions: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[n, m, d]: the pixels of posed positions [n, m, d]."""
        native = Poses.of(situations["pose"]).native(positions)
        pixels = np.empty(native.shape, np.int64)
        for k, situation in enumerate(situations["case"]):
            raster = self._cases[situation].raster
            last = np.array(raster.pixels.shape[:0:-1]) - 1
            along = native[k] @ raster.direction / np.array(raster.spacing_mm)
            pixels[k] = np.clip(np.rint(along + last / 2), 0, last)
        return pixels

    @staticmethod
    def _native(case: SeedCase, pixels: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[n, d]: pixels as mm from the middle of the image."""
        raster = case.raster
        last = np.array(raster.pixels.shape[:0:-1]) - 1
        along = (pixels - last / 2) * np.array(raster.spacing_mm)
        return np.asarray(along @ raster.direction.T)

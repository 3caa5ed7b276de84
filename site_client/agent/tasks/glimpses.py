"""Large images read by glimpses: where to look next, and at which magnification.

Every observation is one small view. Steps go by half of it, two actions change the
magnification, the last one declares that what is looked for is here; each glimpse costs.
What was read is counted beside what reading all of the image at the finest magnification
would take. The magnification is the level of a situation; a search that oscillates looks
closer, as all searches do.

The pixels of an image are in memory: what is counted is what the agent was shown, not
what a program read from a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.settings import GlimpseSettings, PoseSettings
from site_client.agent.task import Outcome, Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.poses import Poses
from site_client.agent.tasks.views import Views
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Raster, build_pyramids
from site_client.imaging.sampling import sample_2d

CLOSER: Final = 4
"""The action that looks at a higher magnification; the next one at a lower."""

_STEPS = 4
_UNKNOWN_MM = 1e6
_NEAR = 0.75  # steps


@dataclass(frozen=True, eq=False)
class GlimpseCase:
    """One large image and what is looked for in it.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        raster: the image, its pixels as far apart along both axes.
        away_mm: float32[y, x] of each head: how far every pixel is from what is looked for;
            None where nothing is known.
        inner: float64[d] of each head, x and y of its innermost pixel: training starts lie
            around it. None where the case lacks it.
    """

    name: str
    raster: Raster
    away_mm: tuple[NDArray[np.float32] | None, ...]
    inner: tuple[NDArray[np.int64] | None, ...]

    def __repr__(self) -> str:
        return f"GlimpseCase(shape={self.raster.pixels.shape}, heads={len(self.inner)})"


class GlimpseSearch(PointSearch):
    """Search of large images by glimpses.

    An observation is a view of the image's channels at the present magnification.

    Args:
        cases: images with what is looked for.
        settings: magnifications and rewards.
        poses: extent of the random pose.
        roi: samples along each side of a view.
        spacing_mm: of the working pixels.
        limit_mib: ceiling of the pixels in memory.

    Raises:
        InputDataError: nothing to look for.
    """

    # A mean of two places where it was found may be a place where it is not.
    picks_one = True

    def __init__(
        self,
        cases: Sequence[GlimpseCase],
        settings: GlimpseSettings | None = None,
        poses: PoseSettings | None = None,
        limit_mib: int = DEFAULT_LIMIT_MIB,
        *,
        roi: int = 25,
        spacing_mm: float = 1.0,
    ) -> None:
        self.settings = settings or GlimpseSettings()
        self._cases = tuple(cases)
        images = build_pyramids((case.raster for case in cases), 0.0, limit_mib)
        heads = max((len(case.inner) for case in cases), default=0)
        targets = np.full((len(cases), heads, 2), np.nan)
        for row, case in enumerate(cases):
            last = np.array(case.raster.pixels.shape[:0:-1]) - 1
            for head, inner in enumerate(case.inner):
                if inner is not None:
                    targets[row, head] = (inner - last / 2) * case.raster.spacing_mm
        strides = tuple(scale * spacing_mm for scale in self.settings.scales)
        ladder = Ladder(strides, tuple(stride * roi / 2 for stride in strides))
        views = Views(roi)
        super().__init__(images, targets, [""] * len(cases), ladder, views, poses or PoseSettings())
        self.actions = _STEPS + 3
        self.shape = (images.channels, roi, roi)
        self.situation = np.dtype([*self.situation.descr, ("glimpses", "<u2")])
        self._within_mm = self.settings.within * spacing_mm
        # Of reading everything at the finest magnification.
        sizes = np.array([np.prod(case.raster.pixels.shape[1:]) for case in cases])
        self._exhaustive = sizes / self.settings.scales[-1] ** 2

    @property
    def declare(self) -> int:
        """The action that says: here it is."""
        return self.actions - 1

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts at any magnification; at higher ones not far from the innermost."""
        situations = super().draw(rng, n)
        situations["glimpses"] = 1
        return situations

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Evaluation starts: one glimpse at the lowest magnification."""
        situations = super().starts(rng, repeats, posed=posed)
        situations["glimpses"] = 1
        return situations

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, channels, roi, roi]."""
        case, middles, axes, gamma = self._requests(situations)
        cut = sample_2d(self.images, case, middles, axes, gamma, self.views.roi)
        return cut.reshape(len(situations), *self.shape)

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; a declaration ends the search."""
        places, levels, rewards = self._looked(situations, situations["action"][:, None])
        reached = situations.copy()
        reached["position"], reached["level"] = places[:, 0], levels[:, 0]
        ended = situations["action"] == self.declare
        reached["glimpses"] = _counted(situations["glimpses"], ~ended)
        return Outcome(reached, rewards[:, 0], ended)

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]."""
        every = np.broadcast_to(np.arange(self.actions), (len(situations), self.actions))
        return self._looked(situations, every)[2]

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 3]: position (posed mm) and magnification, 0 for the lowest."""
        level = situations["level"][:, None].astype(np.float32)
        return np.concatenate([situations["position"], level], axis=1)

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put situations elsewhere, in place; it takes one more glimpse."""
        situations["position"] = parameters[:, :2]
        situations["level"] = np.clip(np.rint(parameters[:, 2]), 0, self.levels - 1)
        situations["glimpses"] = _counted(situations["glimpses"], True)

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: the innermost place, at the highest magnification."""
        place = self.places(situations)
        finest = np.full((len(situations), 1), self.levels - 1.0)
        return np.concatenate([place, finest], axis=1)

    def draw_positions(self, rng: np.random.Generator, situations: Situations) -> None:
        """Put training starts at random places, in place; at higher magnifications nearer."""
        n = len(situations)
        self._place(situations, rng.uniform(0.05, 0.95, (n, 2)))
        reach = rng.uniform(0, 2, n) * self._steps[situations["level"]]
        near = self.places(situations) + rng.uniform(-1, 1, (n, 2)) * reach[:, None]
        # Also where there is nothing: who never saw plain ground there would declare it.
        around = (situations["level"] > 0) & (rng.random(n) < 0.75)
        situations["position"][around] = near[around]
        self.pull_inside(situations)

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: mm of the posed frame from what is looked for; 0 in it."""
        return self._away(situations, situations["position"][:, None])[:, 0]

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: way from the innermost place in steps, and magnifications still to go.

        Far away, where nothing that is looked for is known.
        """
        place = self.places(situations)
        way = (situations["position"] - place) / self._steps[situations["level"]][:, None]
        levels_left = situations["level"].astype(np.float64) - (self.levels - 1)
        finite = np.where(np.isfinite(way), way, _UNKNOWN_MM)
        return np.concatenate([finite, levels_left[:, None]], axis=1)

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Share of right places, glimpses, and pixels read in percent of all."""
        scale = Poses.of(situations["pose"]).scale
        read = situations["glimpses"] * float(self.views.roi**2)
        return {
            "hit": (self.errors(situations) <= self._within_mm * scale).astype(np.float64),
            "glimpses": situations["glimpses"].astype(np.float64),
            "read_percent": 100 * read / self._exhaustive[situations["case"]],
        }

    def _looked(
        self, situations: Situations, actions: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """(positions [n, m, 2], levels [n, m], rewards [n, m]) of actions [n, m]."""
        pose, case = Poses.of(situations["pose"]), situations["case"].astype(np.int64)
        level = np.broadcast_to(situations["level"][:, None].astype(np.int64), actions.shape)
        step = self._steps[situations["level"]][:, None]
        here = situations["position"][:, None]
        moves = np.concatenate([self._moves, np.zeros((3, 2), np.float32)])
        there = here + moves[actions] * step[:, :, None]
        levels = level + (actions == CLOSER) - (actions == CLOSER + 1)
        within = self.images.fractions(pose.native(there), case)
        refused = ((within < 0) | (within > 1)).any(axis=2) | (levels < 0) | (levels >= self.levels)
        refused &= actions != self.declare
        there = np.where(refused[:, :, None], here, there).astype(np.float32)
        levels = np.where(refused, level, levels)
        away = self._away(situations, here)
        if self.settings.reward == "found":
            rewards = np.zeros(actions.shape)
        else:
            gain = np.clip((away - self._away(situations, there)) / step, -1, 1)
            # Closer is right where no step leads nearer, wider where it is out of a wider sight.
            closer = np.where(away <= _NEAR * step, 1.0, -1.0)
            sight = self._steps[np.maximum(level - 1, 0)]
            wider = np.where(away > sight, 1.0, -1.0)
            rewards = np.select([actions == CLOSER, actions == CLOSER + 1], [closer, wider], gain)
        verdict = np.where(away <= self._within_mm * pose.scale[:, None], 1.0, -1.0)
        rewards = np.clip(rewards - self.settings.cost, -1, 1)
        rewards = np.where(actions == self.declare, verdict, np.where(refused, -1.0, rewards))
        return there, levels, rewards.astype(np.float32)

    def _away(self, situations: Situations, positions: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[n, m]: posed mm from what is looked for; far away where nothing is known."""
        pose = Poses.of(situations["pose"])
        native = pose.native(positions)
        away = np.full(positions.shape[:2], _UNKNOWN_MM)
        for k, situation in enumerate(situations):
            case = self._cases[situation["case"]]
            if (distances := case.away_mm[situation["head"]]) is None:
                continue
            last = np.array(distances.shape[::-1]) - 1
            place = np.rint(native[k] / case.raster.spacing_mm + last / 2).astype(np.int64)
            x, y = np.clip(place, 0, last).T
            away[k] = distances[y, x] * pose.scale[k]
        return away


def _counted(glimpses: NDArray[np.integer], more: NDArray[np.bool_] | bool) -> NDArray[np.uint16]:
    """uint16[n]: one more glimpse, and never back to none."""
    return np.minimum(glimpses.astype(np.int64) + more, np.iinfo(np.uint16).max).astype(np.uint16)

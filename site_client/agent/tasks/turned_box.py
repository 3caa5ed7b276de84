"""Boxes that lie any way in an image: moved and resized along their own sides, and turned.

Beside middle and size a box has an angle; a step turns it by as many radians as it would
resize it. The view lies as the box does, so that what it holds looks the same however the
image is turned. Rewards and the trigger are those of boxes along the image's axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.settings import BoxSettings, PoseSettings
from site_client.agent.task import Situations
from site_client.agent.tasks.box import CLOSENESS, FAR_MM, REACH, BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.geometry import steps_of_actions
from site_client.agent.tasks.poses import Poses
from site_client.agent.tasks.rectangles import canonical, directions, overlaps
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB

_STRAIGHT = 5  # numbers of a rectangle
# Share of the training starts whose angle is near the true one's.
_TURNED_NEAR = 0.6


class TurnedBoxSearch(BoxSearch):
    """Search for turned boxes in images.

    The parameters are the middle (posed mm), the logarithms of the longer and the shorter side
    (mm), and cosine and sine of twice the longer one's angle: those of equal boxes are equal,
    and a mean of them is a box.

    Args:
        cases: images with their boxes, sides along x and y before they are turned.
        settings: steps and views.
        poses: extent of the random pose.
        limit_mib: ceiling of the pixels in memory.
        roi: samples along each side of a view.
        heads: labels that are looked for, where the cases need not have all of them.

    Raises:
        InputDataError: no boxes, boxes that are none, or images that do not fit together.
    """

    def __init__(
        self,
        cases: Sequence[BoxCase],
        settings: BoxSettings | None = None,
        poses: PoseSettings | None = None,
        limit_mib: int = DEFAULT_LIMIT_MIB,
        *,
        roi: int = 33,
        heads: int = 0,
    ) -> None:
        super().__init__(cases, settings, poses, limit_mib, roi=roi, heads=heads)
        self.actions += 2
        self.situation = np.dtype([*self.situation.descr, ("turn", "<f4")])
        self._moves = np.concatenate(
            [steps_of_actions(_STRAIGHT), np.zeros((1, _STRAIGHT), np.float32)]
        )
        self._turns = np.full(self._truth.head.shape, np.nan)
        for row, case in enumerate(cases):
            count = len(case.boxes_mm)
            self._turns[row, :count] = 0.0 if case.turns is None else case.turns

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts: as of straight boxes, most of them turned nearly right."""
        situations = super().draw(rng, n)
        level = np.maximum(situations["level"], 1) - 1
        miss = rng.uniform(-1, 1, n) * REACH * self._steps[level]
        near = self._best(situations)[1][:, 4] + miss
        anyhow = rng.uniform(0, np.pi, n)
        situations["turn"] = np.where(rng.random(n) < _TURNED_NEAR, near, anyhow)
        return situations

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Evaluation starts, turned any way."""
        situations = super().starts(rng, repeats, posed=posed)
        situations["turn"] = rng.uniform(0, np.pi, len(situations))
        return situations

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 6]: middle, log sides, cosine and sine of twice the angle."""
        return _told(rectangles_of(situations)).astype(np.float32)

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put boxes elsewhere, in place."""
        angle = np.arctan2(parameters[:, 5], parameters[:, 4]) / 2
        self._put(situations, np.concatenate([parameters[:, :4], angle[:, None]], axis=1))

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 6]: parameters of the largest true box of the kind."""
        truth = self._true(situations)
        area = np.where(np.isnan(truth[:, :, 2]), -np.inf, truth[:, :, 2] + truth[:, :, 3])
        return _told(truth[np.arange(len(situations)), area.argmax(axis=1)])

    def overlaps(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: intersection over union with the best fitting box of the kind."""
        return self._qualities(situations, rectangles_of(situations)[:, None])[0][:, 0]

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 5]: way from the best true box, in steps of the level.

        Of the middle along its own sides, in shares of them; of the log sides; of the angle.
        """
        mine, truth = rectangles_of(situations).astype(np.float64), self._best(situations)[1]
        along = np.einsum("nij,nj->ni", directions(mine[:, 4]), mine[:, :2] - truth[:, :2])
        turn = (mine[:, 4:] - truth[:, 4:] + np.pi / 2) % np.pi - np.pi / 2
        # Turned by more than half a right angle, its other side is the like one.
        across = np.abs(turn) > np.pi / 4
        sides = np.where(across, truth[:, [3, 2]], truth[:, 2:4])
        turn = np.where(across, turn - np.sign(turn) * np.pi / 2, turn)
        way = [along / np.exp(mine[:, 2:4]), mine[:, 2:4] - sides, turn]
        steps = self._steps[situations["level"]].astype(np.float64)
        return np.asarray(np.concatenate(way, axis=1) / steps[:, None])

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Overlap, whether it suffices, distance of the middles, angle to the best true box."""
        mine, best = canonical(rectangles_of(situations)), self._best(situations)[1]
        apart = np.abs(mine[:, 4] - canonical(best)[:, 4])
        angle = np.rad2deg(np.minimum(apart, np.pi - apart))
        return super().report(situations) | {"angle_deg": angle}

    def native_rectangles(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 5]: middle, sides (mm) and angle of boxes as acquired, from the middle."""
        rectangles = canonical(rectangles_of(situations))
        rectangles[:, 2:4] = np.exp(rectangles[:, 2:4])
        return rectangles

    def _frames(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2, 2]: rows are the directions of the sides."""
        return directions(situations["turn"])

    def _targets(self, situations: Situations) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(middles, half sizes along their own sides) float64[n, most, 2], posed."""
        truth = self._true(situations)
        return truth[:, :, :2], np.exp(truth[:, :, 2:4]) / 2

    def _true(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, most, 5]: the true rectangles of the kind, posed; NaN where there is none."""
        case, pose = situations["case"], Poses.of(situations["pose"])
        of_kind = self._truth.head[case] == situations["head"][:, None]
        middle = pose.posed(self._truth.centre[case])
        sides = np.log(2 * self._truth.half[case] * pose.scale[:, None, None])
        turned = np.arctan2(pose.rotation[:, 1, 0], pose.rotation[:, 0, 0])
        angle = self._turns[case] + turned[:, None]
        whole = np.concatenate([middle, sides, angle[:, :, None]], axis=2)
        return np.where(of_kind[:, :, None], whole, np.nan)

    def _best(self, situations: Situations) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qualities [n], rectangles [n, 5]) of the true boxes that fit best, posed."""
        truth = self._true(situations)
        quality = _quality(rectangles_of(situations)[:, None], truth)[1]
        quality = np.where(np.isnan(quality), -np.inf, quality)
        rows, best = np.arange(len(situations)), quality.argmax(axis=1)
        return quality[rows, best], truth[rows, best]

    def _qualities(
        self, situations: Situations, boxes: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(overlap, overlap and closeness) float64[n, m] of rectangles [n, m, 5]."""
        overlap, quality = _quality(boxes[:, :, None], self._true(situations)[:, None])
        none = np.isnan(quality)
        return (
            np.asarray(np.where(none, 0.0, overlap).max(axis=2)),
            np.asarray(np.where(none, -1.0, quality).max(axis=2)),
        )

    def _boxes(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 5]: see `rectangles`."""
        return rectangles_of(situations)

    def _put(self, situations: Situations, boxes: NDArray[np.floating]) -> None:
        """Put situations at rectangles [n, 5], in place."""
        situations["box"], situations["turn"] = boxes[:, :4], boxes[:, 4]

    def _moved(self, here: NDArray[np.float32], step: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, m, 5]: steps are along the box's own sides."""
        along = step[:, :, None, :2] * np.exp(here[:, :, None, 2:4])
        step[:, :, :2] = (along @ directions(here[:, :, 4]))[:, :, 0]
        return here + step


def rectangles_of(situations: Situations) -> NDArray[np.float32]:
    """float32[n, 5]: where situations are; see `rectangles`."""
    turn = situations["turn"][:, None]
    return np.concatenate([situations["box"], turn], axis=1)


def _quality(
    mine: NDArray[np.floating], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(overlap, overlap and closeness) of rectangles [..., 5] each."""
    mine = mine.astype(np.float64)  # gains of a hair decide rewards
    overlap = overlaps(mine, truth)
    gap = np.linalg.norm(mine[..., :2] - truth[..., :2], axis=-1)
    return overlap, overlap - CLOSENESS * gap / (gap + FAR_MM)


def _told(rectangles: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[n, 6]: parameters of rectangles [n, 5]."""
    of = canonical(rectangles)
    twice = 2 * of[:, 4:]
    return np.concatenate([of[:, :4], np.cos(twice), np.sin(twice)], axis=1)

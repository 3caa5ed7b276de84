"""Boxes around lesions or organs, in images and volumes: move, resize, and say when it fits.

The parameters are the centre (posed mm) and the logarithm of the size (mm) along
each axis. The view is stretched to the box, so that the box always fills its
middle. A reward is the sign of the change in overlap (intersection over union)
with the best fitting lesion; where a move does not change the overlap (far away, or
around a lesion that is well inside), of the approach of the centres.
The last action is a trigger: on a coarse level it descends, on the finest it ends
the search, and it earns +1 if the overlap suffices and -1 if not.
Source of actions and rewards: Caicedo & Lazebnik, ICCV 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import BoxSettings, PoseSettings
from site_client.agent.task import Outcome, Situations
from site_client.agent.tasks.boxes import BoxCase, TrueBoxes, overlaps
from site_client.agent.tasks.geometry import ORTHOGONAL_CUTS, steps_of_actions
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses, pose_length
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Pyramids, build_pyramids
from site_client.imaging.sampling import sample_2d, sample_3d

SAME = 1e-7
# At this distance from every lesion, closeness is half of what it can be.
FAR_MM = 100.0
# Closeness only breaks ties: a box that just contains a lesion off its middle could
# neither shrink nor move without it.
CLOSENESS = 0.01
# A level's training starts miss the truth by up to this many steps of the level before.
REACH = 3.0
# Shares of the training starts that are around a box. On finer levels, too, some must
# not be: a trigger that never met plain background would fire there.
_AROUND_COARSE, _AROUND_FINE = 0.5, 0.75


class BoxSearch:
    """Search for boxes.

    Args:
        cases: images with their boxes; those without any are never drawn, but can be
            searched with `detect`.
        settings: steps and views.
        roi: samples along each side of a view.
        heads: labels that are looked for, where the cases need not have all of them.
        poses: extent of the random pose. A turned lesion gets the box around it that it
            would have as an ellipsoid.
        limit_mib: ceiling of the pixels in memory.

    Raises:
        InputDataError: no boxes, boxes that are none, or images that do not fit together.
    """

    agents = 1
    unit = "1 - IoU"

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
        self.settings, self.roi = settings or BoxSettings(), roi
        self.poses = poses or PoseSettings(rotation_deg=10.0)
        self.images: Pyramids = build_pyramids((case.raster for case in cases), 0.0, limit_mib)
        self.dim = self.images.dim
        self._truth = TrueBoxes.of(cases, self.dim)
        self.heads = max(heads, int(self._truth.head.max(initial=-1)) + 1)
        self.levels = len(self.settings.steps)
        self.actions = 4 * self.dim + 1
        cuts = len(self.settings.contexts) * (1 if self.dim == 2 else 3)
        self.shape: tuple[int, ...] = (
            cuts * self.images.channels,
            self.roi,
            self.roi,
        )
        self.situation: np.dtype[np.void] = np.dtype(
            [
                ("case", "<u2"),
                ("head", "u1"),
                ("level", "u1"),
                ("action", "u1"),
                ("pose", "<f2", pose_length(self.dim)),
                ("box", "<f4", 2 * self.dim),
            ]
        )
        pairs = {(c, int(h)) for c, row in enumerate(self._truth.head) for h in row if h >= 0}
        self._pairs = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        if not len(self._pairs) or len(cases) > 65_535 or self.heads > 255:
            raise InputDataError(
                "nothing to search", expected="1 to 65535 cases, at least one of them with a box"
            )
        self._steps = np.array(self.settings.steps, dtype=np.float32)
        last = self.images.bounds[:, 1] - self.images.bounds[:, 0]
        self._largest = np.log((last + 1) * self.images.spacing_mm).max(axis=1)
        self._moves = np.concatenate(
            [steps_of_actions(2 * self.dim), np.zeros((1, 2 * self.dim), np.float32)]
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def trigger(self) -> int:
        """The action that says: it fits."""
        return self.actions - 1

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts: some anywhere, the others around a box."""
        situations = np.zeros(n, self.situation)
        situations["case"], situations["head"] = self._pairs[rng.integers(0, len(self._pairs), n)].T
        situations["level"] = rng.integers(0, self.levels, n)
        situations["pose"] = draw_poses(rng, self.poses, n, self.dim)
        self._put_anywhere(rng, situations)
        centre, half = self._targets(situations)
        # One of the case's boxes of this kind: the largest of random numbers.
        lot = np.where(np.isfinite(centre[:, :, 0]), rng.random(centre.shape[:2]), -1)
        chosen = lot.argmax(axis=1)
        rows = np.arange(n)
        size = 2 * half[rows, chosen]
        reach = (REACH * self._steps[np.maximum(situations["level"], 1) - 1] * rng.random(n))[
            :, None
        ]
        miss = rng.uniform(-1, 1, (2, n, self.dim)) * reach
        near = np.concatenate(
            [centre[rows, chosen] + miss[0] * size, np.log(size) + miss[1]], axis=1
        )
        around = rng.random(n) < np.where(situations["level"] > 0, _AROUND_FINE, _AROUND_COARSE)
        situations["box"][around] = near[around]
        self._pull_inside(situations)
        return situations

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Every kind of box that a case has, `repeats` times, adjacent, level 0."""
        n = len(self._pairs)
        poses = draw_poses(rng, self.poses, n, self.dim) if posed else native_poses(n, self.dim)
        situations = np.zeros(n * repeats, self.situation)
        situations["case"], situations["head"] = np.repeat(self._pairs, repeats, axis=0).T
        situations["pose"] = np.repeat(poses, repeats, axis=0)
        self._put_anywhere(rng, situations)
        self._pull_inside(situations)
        return situations

    def grid(self, case: int, head: int, per_axis: int, sizes_mm: Sequence[float]) -> Situations:
        """Native starts all over one case: per_axis^d centres in each of the sizes, level 0."""
        steps = (np.arange(per_axis) + 0.5) / per_axis
        fractions = np.stack(np.meshgrid(*[steps] * self.dim, indexing="ij"), axis=-1)
        fractions = fractions.reshape(-1, self.dim)
        situations = np.zeros(len(fractions) * len(sizes_mm), self.situation)
        situations["case"], situations["head"] = case, head
        situations["pose"] = native_poses(len(situations), self.dim)
        centres = self.images.at_fractions(fractions, np.full(len(fractions), case))
        situations["box"][:, : self.dim] = np.tile(centres, (len(sizes_mm), 1))
        situations["box"][:, self.dim :] = np.repeat(np.log(sizes_mm), len(fractions))[:, None]
        self._pull_inside(situations)
        return situations

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, channels, roi, roi]: contexts; in volumes, the three cuts of each."""
        case, pose = situations["case"].astype(np.int64), Poses.of(situations["pose"])
        d, settings = self.dim, self.settings
        centre = situations["box"][:, None, :d].astype(np.float64)
        strides = np.exp(situations["box"][:, d:].astype(np.float64)) / self.roi
        axes = strides[:, None, :, None] * self._frames(situations)[:, None]
        axes = axes * np.array(settings.contexts)[:, None, None]
        axes = self.images.index_steps(pose.native_vectors(axes), case)
        if d == 3:
            axes = axes[:, :, ORTHOGONAL_CUTS].reshape(len(situations), -1, 3, 3)
        middles = self.images.index(pose.native(centre), case)
        middles = np.broadcast_to(middles, (len(situations), axes.shape[1], d))
        if d == 2:
            cut = sample_2d(self.images, case, middles, axes, pose.gamma, self.roi)
        else:
            cut = sample_3d(self.images, case, middles, axes, pose.gamma, (1, self.roi))
        return cut.reshape(len(situations), *self.shape)

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; what is not possible is not done and earns -1."""
        boxes, rewards = self._after(situations, situations["action"][:, None])
        reached = situations.copy()
        self._put(reached, boxes[:, 0])
        pulled = situations["action"] == self.trigger
        ended = pulled & (situations["level"] == self.levels - 1)
        reached["level"][pulled & ~ended] += 1
        return Outcome(reached, rewards[:, 0], ended)

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]."""
        return self._after(situations, np.tile(np.arange(self.actions), (len(situations), 1)))[1]

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 2d]: centre (posed mm) and log size (mm)."""
        return np.array(situations["box"])

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put boxes elsewhere, in place."""
        situations["box"] = parameters

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2d]: parameters of the largest true box of the kind."""
        centre, half = self._targets(situations)
        largest = np.where(np.isnan(half), 0.0, half).prod(axis=2).argmax(axis=1)
        rows = np.arange(len(situations))
        size = np.log(2 * half[rows, largest])
        return np.concatenate([centre[rows, largest], size], axis=1)

    def overlaps(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: intersection over union with the best fitting box of the kind."""
        return self._qualities(situations, situations["box"][:, None])[0][:, 0]

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: 1 - intersection over union; without a unit."""
        return 1.0 - self.overlaps(situations)

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: the centre; the third is 0 in an image of two dimensions."""
        native = Poses.of(situations["pose"]).native(situations["box"][:, : self.dim])
        place = np.zeros((len(situations), 3))
        within = self.images.fractions(native, situations["case"].astype(np.int64))
        place[:, : self.dim] = np.clip(within, 0, 1)
        return place

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2d]: way from the nearest true box of the kind, in steps of the level.

        Of the centre in shares of the box's own size, as its steps are; then of the log size.
        """
        centre, half = self._targets(situations)
        here, size = np.split(situations["box"].astype(np.float64), 2, axis=1)
        gap = here[:, None] - centre
        # NaN, where there is no such box, is further away than any.
        far = np.where(np.isnan(gap[:, :, 0]), np.inf, np.square(gap).sum(axis=2))
        rows, nearest = np.arange(len(here)), far.argmin(axis=1)
        way = gap[rows, nearest] / np.exp(size)
        larger = size - np.log(2 * half[rows, nearest])
        steps = self._steps[situations["level"]].astype(np.float64)
        return np.asarray(np.concatenate([way, larger], axis=1) / steps[:, None])

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Overlap, whether it suffices, and the distance of the centres."""
        centre, _ = self._targets(situations)
        gap = np.linalg.norm(situations["box"][:, None, : self.dim] - centre, axis=2)
        overlap = self.overlaps(situations)
        return {
            "iou": overlap,
            "hit": (overlap >= self.settings.overlap).astype(np.float64),
            "centre_mm": np.nanmin(gap, axis=1) / Poses.of(situations["pose"]).scale,
        }

    def native_boxes(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2, d]: corners of native situations, mm from the middle of the image."""
        centre = situations["box"][:, : self.dim].astype(np.float64)
        half = np.exp(situations["box"][:, self.dim :].astype(np.float64)) / 2
        return np.stack([centre - half, centre + half], axis=1)

    def true_boxes(self, case: int, head: int) -> NDArray[np.float64]:
        """float64[boxes, 2, d]: corners of a case's boxes of a kind, mm from the middle."""
        return self._truth.corners(case, head)

    def _boxes(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, numbers]: where situations are."""
        return np.asarray(situations["box"])

    def _put(self, situations: Situations, boxes: NDArray[np.floating]) -> None:
        """Put situations at boxes [n, numbers], in place."""
        situations["box"] = boxes

    def _moved(self, here: NDArray[np.float32], step: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, m, numbers]: boxes after steps [n, m, numbers], shares of their sizes."""
        d = self.dim
        step[:, :, :d] *= np.exp(here[:, :, d:])
        return here + step

    def _frames(self, situations: Situations) -> NDArray[np.float64]:
        """float64[1 or n, d, d]: rows are the directions of the sides of boxes, posed."""
        del situations
        return np.eye(self.dim)[None]

    def _targets(self, situations: Situations) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(centres, half sizes) float64[n, most, d] in the posed frame; NaN where there is none."""
        return self._truth.posed(
            situations["case"], situations["head"], Poses.of(situations["pose"])
        )

    def _qualities(
        self, situations: Situations, boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(overlap, overlap and closeness) float64[n, m] of boxes float32[n, m, 2d].

        Each is that of the box's best true one.
        """
        d = self.dim
        centre, half = (part[:, None] for part in self._targets(situations))
        mine = boxes[:, :, None, :d].astype(np.float64)
        size = np.exp(boxes[:, :, None, d:].astype(np.float64)) / 2
        overlap = overlaps(mine, size, centre, half)
        gap = np.linalg.norm(mine - centre, axis=3)
        quality = overlap - CLOSENESS * gap / (gap + FAR_MM)
        none = np.isnan(quality)
        return (
            np.asarray(np.where(none, 0.0, overlap).max(axis=2)),
            np.asarray(np.where(none, -1.0, quality).max(axis=2)),
        )

    def _after(
        self, situations: Situations, actions: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(boxes [n, m, 2d], rewards [n, m]) of actions [n, m]."""
        d, case = self.dim, situations["case"].astype(np.int64)
        here = self._boxes(situations)[:, None]
        step = self._moves[actions] * self._steps[situations["level"]][:, None, None]
        there = self._moved(here, step)
        native = Poses.of(situations["pose"]).native(there[:, :, :d])
        within = self.images.fractions(native, case)
        low, high = np.log(self.settings.smallest_mm), self._largest[case][:, None, None]
        refused = ((within < 0) | (within > 1)).any(axis=2)
        refused |= ((there[:, :, d : 2 * d] < low) | (there[:, :, d : 2 * d] > high)).any(axis=2)
        # Nobody is kept from triggering, wherever they are.
        refused &= actions != self.trigger
        there = np.where(refused[:, :, None], here, there)
        overlap, before = self._qualities(situations, here)
        gain = self._qualities(situations, there)[1] - before
        rewards = np.where(np.abs(gain) > SAME, np.sign(gain), 0.0)
        verdict = np.where(overlap >= self.settings.overlap, 1.0, -1.0)
        rewards = np.where(actions == self.trigger, verdict, np.where(refused, -1.0, rewards))
        return there, rewards.astype(np.float32)

    def _put_anywhere(self, rng: np.random.Generator, situations: Situations) -> None:
        """Centres in the middle of the image, sizes between a tenth and all of it."""
        case, n = situations["case"].astype(np.int64), len(situations)
        native = self.images.at_fractions(rng.uniform(0.1, 0.9, (n, self.dim)), case)
        situations["box"][:, : self.dim] = Poses.of(situations["pose"]).posed(native)
        situations["box"][:, self.dim :] = (self._largest[case] + np.log(rng.uniform(0.1, 1.0, n)))[
            :, None
        ]

    def _pull_inside(self, situations: Situations) -> None:
        """Centres into the image, sizes between the smallest and the largest."""
        case, pose, d = situations["case"].astype(np.int64), Poses.of(situations["pose"]), self.dim
        within = self.images.fractions(pose.native(situations["box"][:, :d]), case)
        outside = ((within < 0) | (within > 1)).any(axis=1)
        inner = pose.posed(self.images.at_fractions(np.clip(within, 0.002, 0.998), case))
        situations["box"][outside, :d] = inner[outside]
        # Slightly between, so that rounding cannot put them out again.
        low, high = np.log(self.settings.smallest_mm) + 1e-4, self._largest[case][:, None] - 1e-4
        situations["box"][:, d:] = np.clip(situations["box"][:, d:], low, high)

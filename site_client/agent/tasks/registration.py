"""Rigid registration of two images of one patient, of equal or of different contrast.

The moving image is displaced by a random rigid motion that is drawn per episode
and stored with the situation: the truth costs no annotation. The parameters are
the motion that the agent thinks it was: translation (mm), then rotation (degrees),
of the scene's posed frame. It sees the fixed image, and the moving image as it lies
once that motion is undone; when both look alike it is right.
Source of the actions: Liao et al., AAAI 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import PoseSettings, RegistrationSettings
from site_client.agent.task import MM, Outcome, Situations
from site_client.agent.tasks.contrasts import contrast_curves
from site_client.agent.tasks.geometry import ORTHOGONAL_CUTS, steps_of_actions
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses, pose_length, rotations
from site_client.imaging.pyramids import DEFAULT_LIMIT_MIB, Pyramids, Raster, build_pyramids
from site_client.imaging.sampling import sample_2d, sample_3d

# Share of the training scenes that show the moving image as it is.
_AS_IT_IS = 0.25


@dataclass(frozen=True, eq=False)
class PairCase:
    """Two images of one patient that are known to lie on each other.

    Attributes:
        name: kept out of `repr` and of everything that leaves the site.
        fixed, moving: the images; their sizes and spacings may differ.
        moving_middle_mm: float64[d], where the middle of the moving image is, from the
            middle of the fixed one along the patient's (2-D: the image's) axes.
        points_mm: float64[points, d], from the middle of the fixed image: where the
            target registration error is measured. NaN pads.
    """

    name: str
    fixed: Raster
    moving: Raster
    moving_middle_mm: NDArray[np.float64]
    points_mm: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"PairCase(fixed={self.fixed.pixels.shape}, moving={self.moving.pixels.shape})"


class Registration:
    """Registration of pairs of images or of volumes.

    An observation has the fixed image's view, then the moving one's; in volumes the
    three orthogonal cuts of the fixed one, then those of the moving one.

    Args:
        cases: pairs.
        settings: steps and views.
        roi: samples along each side of a view.
        poses: extent of the random pose of the whole scene; the contrast curve of the
            moving image is drawn apart from the fixed one's.
        limit_mib: ceiling of the pixels in memory.

    Raises:
        InputDataError: no pairs, or images that do not fit together.
    """

    heads = 1
    agents = 1
    unit = MM

    def __init__(
        self,
        cases: Sequence[PairCase],
        settings: RegistrationSettings | None = None,
        poses: PoseSettings | None = None,
        limit_mib: int = DEFAULT_LIMIT_MIB,
        *,
        roi: int = 45,
    ) -> None:
        if not 0 < len(cases) <= 65_535:
            raise InputDataError("nothing to register", expected="1 to 65535 pairs of images")
        self.settings, self.roi = settings or RegistrationSettings(), roi
        self.poses = poses or PoseSettings()
        # Pair i is images 2i (fixed) and 2i + 1 (moving).
        both = (raster for case in cases for raster in (case.fixed, case.moving))
        self.images: Pyramids = build_pyramids(both, 0.0, limit_mib)
        self.dim = d = self.images.dim
        self._middles = np.stack([np.asarray(c.moving_middle_mm, np.float64) for c in cases])
        self._points = _padded([np.asarray(c.points_mm, np.float64) for c in cases], d)
        turns = 1 if d == 2 else 3
        self.size = d + turns
        self.actions = 2 * self.size
        s = self.settings
        self.levels = len(s.strides_mm)
        views = self.images.channels * (2 if d == 2 else 6)
        self.shape: tuple[int, ...] = (views, roi, roi)
        # Which curve shows the moving image: remembered only where there are any.
        curve = [("curve", "u1")] if s.contrasts else []
        self.situation: np.dtype[np.void] = np.dtype(
            [
                ("case", "<u2"),
                ("head", "u1"),
                ("level", "u1"),
                ("action", "u1"),
                ("pose", "<f2", pose_length(d)),
                ("moving_gamma", "<f2"),
                ("truth", "<f2", self.size),
                ("motion", "<f4", self.size),
                *curve,
            ]
        )
        self._curves = contrast_curves(s.contrasts)
        self._moves = steps_of_actions(self.size)
        parts = [np.array(s.translations_mm)] * d + [np.array(s.rotations_deg)] * turns
        self._steps = np.stack(parts, axis=1)
        self._extent = np.array([s.motion_mm] * d + [s.motion_deg] * turns)
        self._reach = np.array([s.reach_mm] * d + [s.reach_deg] * turns)
        # Makes millimetres of the parameters.
        self._weights = np.array([1.0] * d + [np.deg2rad(1) * s.lever_mm] * turns)
        self._strides = np.array(s.strides_mm)

    def __len__(self) -> int:
        return len(self.images) // 2

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts: anywhere within reach, or on finer levels around the truth."""
        situations = np.zeros(n, self.situation)
        situations["case"] = rng.integers(0, len(self), n)
        situations["level"] = rng.integers(0, self.levels, n)
        self._draw_scene(rng, situations, posed=True)
        situations["motion"] = rng.uniform(-1, 1, (n, self.size)) * self._extent
        reach = 2 * self._steps[np.maximum(situations["level"], 1) - 1]
        near = situations["truth"] + reach * rng.uniform(-1, 1, (n, self.size))
        fine = situations["level"] > 0
        situations["motion"][fine] = np.clip(near, -self._reach, self._reach)[fine]
        if self.settings.contrasts:
            other = rng.integers(1, len(self._curves), n)
            situations["curve"] = np.where(rng.random(n) < _AS_IT_IS, 0, other)
        return situations

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Every pair under one motion, `repeats` times, adjacent, level 0, as good as unmoved.

        The first guess of each is off by up to two finest steps, so that repeats differ.
        """
        n = len(self)
        scene = np.zeros(n, self.situation)
        scene["case"] = np.arange(n)
        self._draw_scene(rng, scene, posed=posed)
        situations: Situations = np.repeat(scene, repeats)
        jitter = rng.uniform(-2, 2, (len(situations), self.size))
        situations["motion"] = np.clip(jitter * self._steps[-1], -self._reach, self._reach)
        return situations

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, 2 or 6 (times channels), roi, roi]."""
        return self.look(situations, self._strides[situations["level"]], self.roi)

    def look(
        self, situations: Situations, strides_mm: NDArray[np.float64], roi: int
    ) -> NDArray[np.uint8]:
        """As `observe`, at other strides float64[n] and of another size, for people to look at."""
        pose, case, d, n = (
            Poses.of(situations["pose"]),
            situations["case"].astype(np.int64),
            self.dim,
            len(situations),
        )
        axes = np.broadcast_to(np.eye(d), (n, d, d)) * strides_mm[:, None, None]
        # The view is around the middle of the fixed image, wherever the pose has put it.
        middle = pose.shift[:, None]
        turn, translation = self._motion(situations["motion"])
        true_turn, true_translation = self._motion(situations["truth"])
        # What lies at x once the guessed motion is undone lies at turn x + translation in
        # the displaced image, and came there by the true motion from where it is in the file.
        origin = np.einsum("nji,nj->ni", true_turn, translation - true_translation)[:, None]
        slanted = np.einsum("nji,njk,nlk->nli", true_turn, turn, axes)
        fixed = self._cut(2 * case, pose, middle, axes, pose.gamma, np.zeros((n, d)), roi)
        moving = self._cut(
            2 * case + 1,
            pose,
            middle + origin,
            slanted,
            situations["moving_gamma"].astype(np.float64),
            self._middles[case],
            roi,
        )
        if self.settings.contrasts:
            moving = self._curves[situations["curve"][:, None, None, None], moving]
        return np.concatenate([fixed, moving], axis=1)

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; a move beyond the reach is not made and earns -1."""
        motions, rewards = self._after(situations, self._moves[situations["action"]][:, None])
        reached = situations.copy()
        reached["motion"] = motions[:, 0]
        return Outcome(reached, rewards[:, 0], np.zeros(len(situations), dtype=bool))

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]."""
        return self._after(
            situations, np.broadcast_to(self._moves, (len(situations), *self._moves.shape))
        )[1]

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 3 or 6]: translation (mm), rotation (degrees)."""
        return np.array(situations["motion"])

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put the guessed motions elsewhere, in place."""
        situations["motion"] = parameters

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3 or 6]: the true motions."""
        return np.asarray(situations["truth"].astype(np.float64))

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: mm between the parameters, angles weighed by the lever."""
        return np.asarray(
            np.linalg.norm((situations["motion"] - situations["truth"]) * self._weights, axis=1)
        )

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: the first three parameters within their reach."""
        within = (situations["motion"] / self._reach + 1) / 2
        return np.asarray(np.clip(within[:, :3], 0.0, 1.0))

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3 or 6]: way from the true motion in steps of the level."""
        gap = situations["motion"] - self.targets(situations)
        return np.asarray(gap / self._steps[situations["level"]])

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Target registration error (mean over the points), and the rotation between."""
        pose = Poses.of(situations["pose"])
        points = pose.posed(self._points[situations["case"]]) - pose.shift[:, None]
        turn, translation = self._motion(situations["motion"])
        true_turn, true_translation = self._motion(situations["truth"])
        moved = np.einsum("nij,nkj->nki", turn, points) + translation[:, None]
        true = np.einsum("nij,nkj->nki", true_turn, points) + true_translation[:, None]
        gap = np.linalg.norm(moved - true, axis=2) / pose.scale[:, None]
        seen = np.isfinite(gap)
        mean = np.where(seen, gap, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        # More exact at small angles than the arc cosine; Frobenius' norm of the difference
        # is sqrt(8) sin(angle / 2) in three dimensions and in two.
        apart = np.linalg.norm(turn - true_turn, axis=(1, 2)) / np.sqrt(8)
        return {
            "tre_mm": np.where(seen.any(axis=1), mean, np.nan),
            "rotation_deg": np.rad2deg(2 * np.arcsin(np.clip(apart, 0, 1))),
        }

    def _draw_scene(self, rng: np.random.Generator, situations: Situations, *, posed: bool) -> None:
        """Pose, contrasts and true motion, in place."""
        n, d = len(situations), self.dim
        situations["pose"] = draw_poses(rng, self.poses, n, d) if posed else native_poses(n, d)
        situations["moving_gamma"] = draw_poses(rng, self.poses, n, d)[:, -1] if posed else 1
        situations["truth"] = rng.uniform(-1, 1, (n, self.size)) * self._extent

    def _motion(
        self, parameters: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rotation [n, d, d], translation [n, d])."""
        return rotations(parameters[:, self.dim :]), parameters[:, : self.dim].astype(np.float64)

    def _cut(
        self,
        image: NDArray[np.int64],
        pose: Poses,
        middle: NDArray[np.float64],
        axes: NDArray[np.float64],
        gamma: NDArray[np.float64],
        middle_mm: NDArray[np.float64],
        roi: int,
    ) -> NDArray[np.uint8]:
        """Views around posed middles [n, 1, d] along posed axes [n, d, d]."""
        native = pose.native(middle) - middle_mm[:, None]
        origin = self.images.index(native, image)
        steps = self.images.index_steps(pose.native_vectors(axes), image)
        if self.dim == 2:
            cut = sample_2d(self.images, image, origin, steps[:, None], gamma, roi)
        else:
            origin = np.repeat(origin, 3, axis=1)
            cut = sample_3d(self.images, image, origin, steps[:, ORTHOGONAL_CUTS], gamma, (1, roi))
        return cut.reshape(len(image), -1, roi, roi)

    def _after(
        self, situations: Situations, moves: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(motions [n, m, size], rewards [n, m]) of moves [n, m, size]."""
        here, truth = situations["motion"][:, None], situations["truth"][:, None].astype(np.float64)
        there = (here + moves * self._steps[situations["level"]][:, None]).astype(np.float32)
        # A millionth further than the reach is a rounding error, no step.
        beyond = np.asarray((np.abs(there) > self._reach * (1 + 1e-6)).any(axis=2))
        there = np.where(beyond[:, :, None], here, there)
        before = np.linalg.norm((here - truth) * self._weights, axis=2)
        after = np.linalg.norm((there - truth) * self._weights, axis=2)
        length = np.abs(moves * (self._steps * self._weights)[situations["level"]][:, None]).sum(
            axis=2
        )
        rewards = np.where(beyond, -1.0, np.clip((before - after) / length, -1, 1))
        return there, rewards.astype(np.float32)


def _padded(points: Sequence[NDArray[np.float64]], d: int) -> NDArray[np.float64]:
    most = max((len(of_case) for of_case in points), default=0)
    padded = np.full((len(points), max(most, 1), d), np.nan)
    for row, of_case in enumerate(points):
        padded[row, : len(of_case)] = of_case.reshape(-1, d)
    return padded

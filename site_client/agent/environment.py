"""The landmark search as an environment: many searches stepped in lockstep.

A search is a `SITUATION`: which case, which landmark, which level of the
ladder, under which random pose, at which position. That is all there is to
remember; observations are cut from the volumes whenever they are needed, so
there is no stack of frames that could straddle two episodes.

Positions are float32 millimetres from the middle of the volume along the LPS
axes *after* the pose: ``posed = shift + scale · R · native``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.plan import Agent, FederationPlan
from site_client.imaging.crops import triplanar_crops
from site_client.imaging.dataset import Case

# One search at one moment, and the action taken there: 33 bytes.
SITUATION = np.dtype(
    [
        ("case", "<u2"),
        ("landmark", "u1"),
        ("level", "u1"),
        ("action", "u1"),
        ("pose", "<f2", 8),
        ("position", "<f4", 3),
    ]
)
Situations = NDArray[np.void]

ACTIONS = 6
# Action 2i moves forward along axis i, action 2i + 1 backward.
MOVES = np.concatenate([[axis, -axis] for axis in np.eye(3)]).astype(np.float32)
_ROTATION, _SCALE, _SHIFT, _GAMMA = slice(0, 3), 3, slice(4, 7), 7


def native_poses(n: int) -> NDArray[np.float16]:
    """float16[n, 8] poses that change nothing: rotation (degrees), scale, shift (mm), gamma."""
    poses = np.zeros((n, 8), np.float16)
    poses[:, [_SCALE, _GAMMA]] = 1
    return poses


def draw_poses(rng: np.random.Generator, agent: Agent, n: int) -> NDArray[np.float16]:
    """float16[n, 8] random poses within the plan's extents.

    Rounded to half precision before use, so that what is stored is what was seen.
    """
    poses = native_poses(n).astype(np.float64)
    poses[:, _ROTATION] = rng.uniform(-1, 1, (n, 3)) * agent.rotation_deg
    poses[:, _SCALE] += rng.uniform(-1, 1, n) * agent.scale_fraction
    poses[:, _SHIFT] = rng.uniform(-1, 1, (n, 3)) * agent.shift_mm
    # Symmetric in the logarithm: darkening is as likely as brightening.
    poses[:, _GAMMA] = np.exp(rng.uniform(-1, 1, n) * np.log1p(agent.gamma_contrast))
    return poses.astype(np.float16)


def rotation_matrices(poses: NDArray[np.float16]) -> NDArray[np.float64]:
    """float64[n, 3, 3]: rotation about x, then y, then z, from poses float16[n, 8]."""
    angles = np.deg2rad(poses[:, _ROTATION].astype(np.float64))
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    rotation = np.empty((len(poses), 3, 3))
    # Nine assignments cost less than stacking: this is called for every crop and every step.
    rotation[:, 0, 0], rotation[:, 1, 0], rotation[:, 2, 0] = cy * cz, cy * sz, -sy
    rotation[:, 0, 1], rotation[:, 0, 2] = sx * sy * cz - cx * sz, cx * sy * cz + sx * sz
    rotation[:, 1, 1], rotation[:, 1, 2] = sx * sy * sz + cx * cz, cx * sy * sz - sx * cz
    rotation[:, 2, 1], rotation[:, 2, 2] = sx * cy, cx * cy
    return rotation


class Scans:
    """The cases of a site, laid out for sampling: what can be seen, and where the landmarks are.

    Raises:
        InputDataError: no cases, or more than a situation can number.
    """

    def __init__(self, cases: Sequence[Case], plan: FederationPlan) -> None:
        if not 0 < len(cases) <= 65_535:
            raise InputDataError(
                "cannot search", field="cases", expected="1 to 65535", got=str(len(cases))
            )
        self.landmarks = len(plan.task.landmarks)
        self.roi = plan.model.roi
        self.strides = np.array(plan.agent.scales)
        self.steps_mm = np.array(plan.agent.steps_mm)
        self.spacing_mm = plan.task.working_spacing_mm
        volumes = [case.volume for case in cases]
        self.voxels = np.concatenate([volume.voxels.ravel() for volume in volumes])
        counts = np.array([volume.voxels.size for volume in volumes], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        self.sizes = np.stack([volume.size for volume in volumes])
        self.directions = np.stack([volume.direction for volume in volumes])
        self.offsets = landmark_offsets(cases)

    def __len__(self) -> int:
        return len(self.sizes)

    def _index(self, native: NDArray[np.float64], case: NDArray[np.int64]) -> NDArray[np.float64]:
        """Continuous voxel indices of native offsets (mm)."""
        along = np.einsum("nji,nj->ni", self.directions[case], native)
        return np.asarray(along / self.spacing_mm + (self.sizes[case] - 1) / 2)

    def index(self, at: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: continuous (x, y, z) voxel index of each situation."""
        return self._index(to_native(at["position"], at["pose"]), at["case"].astype(np.int64))

    def observe(self, at: Situations) -> NDArray[np.uint8]:
        """uint8[n, 3, roi, roi]: what the agent sees in each situation."""
        case = at["case"].astype(np.int64)
        rotation = rotation_matrices(at["pose"])
        zoom = self.strides[at["level"]] / at["pose"][:, _SCALE].astype(np.float64)
        axes = np.einsum("nkj,njl->nkl", rotation, self.directions[case]) * zoom[:, None, None]
        gamma = at["pose"][:, _GAMMA].astype(np.float64)
        return triplanar_crops(
            self.voxels, self.starts, self.sizes, case, self.index(at), axes, gamma, self.roi
        )

    def targets(self, at: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: posed position (mm) of the landmark each situation looks for."""
        return to_posed(self.offsets[at["case"], at["landmark"]], at["pose"])

    def distances(self, at: Situations) -> NDArray[np.float64]:
        """float64[n]: distance to the landmark, mm of the posed frame."""
        return np.asarray(np.linalg.norm(at["position"] - self.targets(at), axis=1))

    def fractions(self, at: Situations) -> NDArray[np.float64]:
        """float64[n, 3] in 0..1: where in its image each situation is."""
        last = self.sizes[at["case"]] - 1
        return np.asarray(np.clip(self.index(at) / last, 0.0, 1.0))

    def step(self, at: Situations) -> tuple[Situations, NDArray[np.float32]]:
        """Take each situation's action.

        Returns:
            the situations reached, and float32[n] rewards: decrease of the distance in
            steps, within -1..1. A move out of the image is not made and earns -1.
        """
        reached = at.copy()
        step = self.steps_mm[at["level"]].astype(np.float32)
        reached["position"] += MOVES[at["action"]] * step[:, None]
        index = self.index(reached)
        outside = ((index < 0) | (index > self.sizes[at["case"]] - 1)).any(axis=1)
        reached["position"][outside] = at["position"][outside]
        gain = (self.distances(at) - self.distances(reached)) / step
        return reached, np.where(outside, -1.0, np.clip(gain, -1, 1)).astype(np.float32)

    def rewards_of_all(self, at: Situations) -> NDArray[np.float32]:
        """float32[n, actions]: the reward each action would earn."""
        every = np.repeat(at, ACTIONS)
        every["action"] = np.tile(np.arange(ACTIONS), len(at))
        return self.step(every)[1].reshape(len(at), ACTIONS)

    def place(self, at: Situations, fractions: NDArray[np.float64]) -> None:
        """Put situations at fractions float64[n, 3] of their images."""
        case = at["case"].astype(np.int64)
        along = (fractions - 0.5) * (self.sizes[case] - 1) * self.spacing_mm
        native = np.einsum("nij,nj->ni", self.directions[case], along)
        at["position"] = to_posed(native, at["pose"])

    def pull_inside(self, at: Situations) -> None:
        """Move situations that lie outside their image onto its border."""
        fractions = self.index(at) / (self.sizes[at["case"]] - 1)
        outside = ((fractions < 0) | (fractions > 1)).any(axis=1)
        if outside.any():
            inner = at[outside]
            # Slightly inside, so that rounding cannot put it out again.
            self.place(inner, np.clip(fractions[outside], 0.005, 0.995))
            at[outside] = inner


def landmark_offsets(cases: Sequence[Case]) -> NDArray[np.float64]:
    """float64[cases, landmarks, 3]: landmarks in mm from the middle of their volumes."""
    return np.stack([case.landmarks_mm - case.volume.centre_mm for case in cases])


def to_posed(native: NDArray[np.float64], poses: NDArray[np.float16]) -> NDArray[np.float64]:
    """Native offsets (mm) float64[n, 3] to posed ones."""
    pose = poses.astype(np.float64)
    turned = np.einsum("nij,nj->ni", rotation_matrices(poses), native)
    return np.asarray(pose[:, _SHIFT] + pose[:, _SCALE, None] * turned)


def to_native(posed: NDArray[np.floating], poses: NDArray[np.float16]) -> NDArray[np.float64]:
    """Posed offsets (mm) [n, 3] to native ones; the inverse of `to_posed`."""
    pose = poses.astype(np.float64)
    centred = (posed - pose[:, _SHIFT]) / pose[:, _SCALE, None]
    return np.asarray(np.einsum("nji,nj->ni", rotation_matrices(poses), centred))


class Searches:
    """N searches in lockstep with a reset-anywhere curriculum.

    A new episode draws case, landmark, level and pose at random. The coarsest
    level starts anywhere in the middle of the image; finer ones start within two
    steps of the next coarser level from the landmark, where a search would hand
    over. Episodes end by truncation only: no transition is ever terminal.
    """

    def __init__(self, scans: Scans, agent: Agent, rng: np.random.Generator) -> None:
        self._scans = scans
        self._agent = agent
        self._rng = rng
        self.at: Situations = np.zeros(agent.searches, SITUATION)
        # Ages differ from the start, so that episodes do not end all at once.
        self.age = rng.integers(0, agent.episode_steps, agent.searches)
        self._reset(np.ones(agent.searches, dtype=bool))

    def advance(self, actions: NDArray[np.integer]) -> tuple[Situations, Situations]:
        """Act everywhere: (situations with their actions, situations reached).

        Searches that timed out start anew, after their last step was taken.
        """
        self.at["action"] = actions
        taken = self.at.copy()
        reached, _ = self._scans.step(taken)
        self.at = reached.copy()
        self.age += 1
        done = self.age >= self._agent.episode_steps
        if done.any():
            self._reset(done)
            self.age[done] = 0
        return taken, reached

    def _reset(self, which: NDArray[np.bool_]) -> None:
        rng, scans = self._rng, self._scans
        n = int(which.sum())
        fresh = np.zeros(n, SITUATION)
        fresh["case"] = rng.integers(0, len(scans), n)
        fresh["landmark"] = rng.integers(0, scans.landmarks, n)
        fresh["level"] = rng.integers(0, len(scans.steps_mm), n)
        fresh["pose"] = draw_poses(rng, self._agent, n)
        scans.place(fresh, rng.uniform(0.2, 0.8, (n, 3)))
        reach = 2 * scans.steps_mm[np.maximum(fresh["level"], 1) - 1]
        near = scans.targets(fresh) + rng.uniform(-1, 1, (n, 3)) * reach[:, None]
        fine = fresh["level"] > 0
        fresh["position"][fine] = near[fine]
        scans.pull_inside(fresh)
        self.at[which] = fresh

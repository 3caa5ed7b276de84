"""A landmark in a volume, seen in three orthogonal cuts: the federation's task.

A situation is 33 bytes: case, landmark (the head), level, pose, position and
action. Positions are float32 millimetres in the posed frame (`poses`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import LadderSettings, PoseSettings
from site_client.agent.task import MM, Outcome, Situations
from site_client.agent.tasks.geometry import draw_levels, misses, reaches, steps_of_actions
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses, pose_length
from site_client.imaging.crops import triplanar_crops
from site_client.imaging.dataset import Case

# One search at one moment, and the action taken there: 33 bytes.
SITUATION = np.dtype(
    [
        ("case", "<u2"),
        ("head", "u1"),
        ("level", "u1"),
        ("action", "u1"),
        ("pose", "<f2", pose_length(3)),
        ("position", "<f4", 3),
    ]
)
MOVES = steps_of_actions(3)
ACTIONS = len(MOVES)


class TriplanarLandmark:
    """The cases of a site, laid out for sampling: what can be seen, and where the landmarks are.

    Args:
        cases: their voxels are copied into one buffer. A landmark at NaN is missing in
            its case: it is not looked for there.
        ladder: scales and steps.
        pose: extent of the random poses.
        roi: side of each cut, samples.
        spacing_mm: of the isotropic grid that all the volumes are on.
        reach_mm: one per level, where the action is a displacement.
        may_lack: a landmark may lie outside of its image: it is then trained towards, and no
            search for it is evaluated.

    Attributes:
        absence: axes of a place where landmarks may lie outside of their images, otherwise 0.

    Raises:
        InputDataError: no cases, more than a situation can number, or no landmark at all.
    """

    situation = SITUATION
    agents = 1
    unit = MM

    def __init__(
        self,
        cases: Sequence[Case],
        ladder: LadderSettings,
        pose: PoseSettings,
        *,
        roi: int,
        spacing_mm: float,
        reach_mm: Sequence[float] = (),
        may_lack: bool = False,
    ) -> None:
        if not 0 < len(cases) <= 65_535:
            raise InputDataError(
                "cannot search", field="cases", expected="1 to 65535", got=str(len(cases))
            )
        self.shape: tuple[int, ...] = (3, roi, roi)
        self.strides = np.array(ladder.scales)
        self.steps_mm = np.array(ladder.steps_mm)
        self.levels = len(self.steps_mm)
        self.reach_mm = reaches(reach_mm, self.levels)
        self.actions = ACTIONS if self.reach_mm is None else 3
        self.spacing_mm = spacing_mm
        self._pose = pose
        volumes = [case.volume for case in cases]
        self.voxels = np.concatenate([volume.voxels.ravel() for volume in volumes])
        counts = np.array([volume.voxels.size for volume in volumes], dtype=np.int64)
        self.begins = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        self.sizes = np.stack([volume.size for volume in volumes])
        self.directions = np.stack([volume.direction for volume in volumes])
        self.offsets = landmark_offsets(cases)
        self.heads = self.offsets.shape[1]
        self.absence = 3 if may_lack else 0
        marked = np.isfinite(self.offsets).all(axis=2)
        # (case, head) of every landmark that is marked, and of those that are searched for.
        self._present = np.argwhere(marked)
        inside = np.stack([case.volume.contains(case.landmarks_mm) for case in cases])
        self._inside = np.argwhere(marked & inside) if may_lack else self._present
        if not len(self._present):
            raise InputDataError(
                "cannot search", field="landmarks", expected="one in some case", got="none"
            )

    def __len__(self) -> int:
        return len(self.sizes)

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts; see ``Task``.

        The coarsest level starts anywhere in the middle of the image; finer ones within
        two steps of the next coarser level from the landmark, where a search would hand over.
        """
        fresh = np.zeros(n, SITUATION)
        if len(self._present) == len(self) * self.heads:
            fresh["case"] = rng.integers(0, len(self), n)
            fresh["head"] = rng.integers(0, self.heads, n)
        else:
            fresh["case"], fresh["head"] = self._present[rng.integers(0, len(self._present), n)].T
        fresh["level"] = draw_levels(rng, n, self.levels, finer=self.reach_mm is not None)
        fresh["pose"] = draw_poses(rng, self._pose, n, 3)
        self.place(fresh, rng.uniform(0.2, 0.8, (n, 3)))
        reach = 2 * self.steps_mm[np.maximum(fresh["level"], 1) - 1]
        near = self.targets(fresh) + misses(rng, reach, 3, closer=self.reach_mm is not None)
        fine = fresh["level"] > 0
        fresh["position"][fine] = near[fine]
        self.pull_inside(fresh)
        return fresh

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Evaluation starts in the middle half of the image; see ``Task``.

        All landmarks of a case share its pose.
        """
        n = len(self)
        poses = draw_poses(rng, self._pose, n, 3) if posed else native_poses(n, 3)
        pairs = np.repeat(self._inside, repeats, axis=0)
        situations = np.zeros(len(pairs), SITUATION)
        situations["case"], situations["head"] = pairs.T
        situations["pose"] = poses[pairs[:, 0]]
        self.place(situations, rng.uniform(0.25, 0.75, (len(situations), 3)))
        return situations

    def index(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: continuous (x, y, z) voxel index of each situation."""
        case = situations["case"].astype(np.int64)
        native = Poses.of(situations["pose"]).native(situations["position"])
        along = np.einsum("nji,nj->ni", self.directions[case], native)
        return np.asarray(along / self.spacing_mm + (self.sizes[case] - 1) / 2)

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, 3, roi, roi]: what the agent sees in each situation."""
        case, pose = situations["case"].astype(np.int64), Poses.of(situations["pose"])
        zoom = self.strides[situations["level"]] / pose.scale
        axes = np.einsum("nkj,njl->nkl", pose.rotation, self.directions[case])
        axes *= zoom[:, None, None]
        return triplanar_crops(
            self.voxels,
            self.begins,
            self.sizes,
            case,
            self.index(situations),
            axes,
            pose.gamma,
            self.shape[1],
        )

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: posed position (mm) of the landmark each situation looks for."""
        return Poses.of(situations["pose"]).posed(
            self.offsets[situations["case"], situations["head"]]
        )

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: distance to the landmark, mm of the posed frame."""
        return np.asarray(np.linalg.norm(situations["position"] - self.targets(situations), axis=1))

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3] in 0..1: where in its image each situation is, along x, y, z."""
        last = self.sizes[situations["case"]] - 1
        return np.asarray(np.clip(self.index(situations) / last, 0.0, 1.0))

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: way from the landmark, posed, in steps of the level."""
        return np.asarray(
            (situations["position"] - self.targets(situations))
            / self.steps_mm[situations["level"]][:, None]
        )

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; see ``Task``.

        The reward is the decrease of the distance in steps, within -1..1. A move out of
        the image is not made and earns -1. Nothing is terminal.
        """
        reached = situations.copy()
        step = self.steps_mm[situations["level"]].astype(np.float32)
        reached["position"] += MOVES[situations["action"]] * step[:, None]
        index = self.index(reached)
        outside = ((index < 0) | (index > self.sizes[situations["case"]] - 1)).any(axis=1)
        reached["position"][outside] = situations["position"][outside]
        gain = (self.errors(situations) - self.errors(reached)) / step
        rewards = np.where(outside, -1.0, np.clip(gain, -1, 1)).astype(np.float32)
        return Outcome(reached, rewards, np.zeros(len(situations), dtype=bool))

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]: the reward each action would earn."""
        every = np.repeat(situations, ACTIONS)
        every["action"] = np.tile(np.arange(ACTIONS), len(situations))
        return self.step(every).rewards.reshape(len(situations), ACTIONS)

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 3]: positions, mm of the posed frame."""
        return np.asarray(situations["position"])

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put situations at positions (mm of the posed frame), in place."""
        situations["position"] = parameters

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Nothing beyond the distance."""
        del situations
        return {}

    def world_mm(
        self, situations: Situations, centres_mm: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """float64[n, 3]: where in its image each situation is, LPS mm.

        Args:
            situations: situations.
            centres_mm: float64[cases, 3], the middle of each volume.
        """
        offsets = Poses.of(situations["pose"]).native(situations["position"])
        return np.asarray(centres_mm[situations["case"].astype(np.int64)] + offsets)

    def place(self, situations: Situations, fractions: NDArray[np.float64]) -> None:
        """Put situations at fractions float64[n, 3] of their images."""
        case = situations["case"].astype(np.int64)
        along = (fractions - 0.5) * (self.sizes[case] - 1) * self.spacing_mm
        native = np.einsum("nij,nj->ni", self.directions[case], along)
        situations["position"] = Poses.of(situations["pose"]).posed(native)

    def pull_inside(self, situations: Situations) -> None:
        """Move situations that lie outside their image onto its border."""
        fractions = self.index(situations) / (self.sizes[situations["case"]] - 1)
        outside = ((fractions < 0) | (fractions > 1)).any(axis=1)
        if outside.any():
            inner = situations[outside]
            # Slightly inside, so that rounding cannot put it out again.
            self.place(inner, np.clip(fractions[outside], 0.005, 0.995))
            situations[outside] = inner


def landmark_offsets(cases: Sequence[Case]) -> NDArray[np.float64]:
    """float64[cases, landmarks, 3]: landmarks in mm from the middle of their volumes."""
    return np.stack([case.landmarks_mm - case.volume.centre_mm for case in cases])

"""Names of transitions where experience is counted; needs no torch.

The name is a key of common's experience codec: what is looked for, on which
level, roughly where, what was done, what it earned, and roughly where it led.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.keys import ExperienceCodec
from common.plan import FederationPlan
from site_client.agent.task import Outcome, Situations, Task


class Sizes(Protocol):
    """Sizes of a task or of a plan's space that a codec needs."""

    @property
    def heads(self) -> int:
        """Number of different things that are looked for."""

    @property
    def levels(self) -> int:
        """Rungs of the ladder."""

    @property
    def actions(self) -> int:
        """Size of the action set."""


def experience_codec(plan: FederationPlan) -> ExperienceCodec:
    """Build the quantiser of a plan's transitions; equal at every site of it."""
    return codec_of(plan.space, plan.experience.position_bins, plan.experience.reward_bins)


def codec_of(task: Sizes, position_bins: int = 24, reward_bins: int = 5) -> ExperienceCodec:
    """Build the quantiser of any task's transitions."""
    return ExperienceCodec(
        landmarks=task.heads,
        levels=task.levels,
        actions=task.actions,
        position_bins=position_bins,
        reward_bins=reward_bins,
    )


class ExperienceKeys:
    """Names transitions of a task.

    Args:
        task: says where in the image a situation is.
        codec: of the plan, or `codec_of` the task.
    """

    def __init__(self, task: Task, codec: ExperienceCodec) -> None:
        self._task = task
        self._codec = codec

    def __call__(self, situations: Situations, outcome: Outcome) -> NDArray[np.uint64]:
        """uint64[n]: keys of situations with their actions, and where these led.

        Of several agents that search together, the first one's action and the mean
        reward stand for all.
        """
        action, rewards = situations["action"].astype(np.int64), outcome.rewards.astype(np.float64)
        if self._task.agents > 1:
            action, rewards = action[:, 0], rewards.mean(axis=1)
        keys: NDArray[np.uint64] = self._codec.encode(
            situations["head"].astype(np.int64),
            situations["level"].astype(np.int64),
            # The codec names its digits z, y, x, as arrays are indexed.
            self._task.fractions(situations)[:, ::-1],
            action,
            rewards,
            self._task.fractions(outcome.reached)[:, ::-1],
        )
        return keys


class LocalCounts:
    """Exact counts of each experience met here; grows with what is met, never shrinks."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Count keys uint64[n]."""
        counts = self._counts
        for key in keys.tolist():
            counts[key] = counts.get(key, 0) + 1

    def of(self, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64[n]: how often each key was counted."""
        counts = self._counts
        return np.array([counts.get(key, 0) for key in keys.tolist()], dtype=np.float64)

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Keys and counts as arrays."""
        size = len(self._counts)
        return {
            "keys": np.fromiter(self._counts.keys(), np.uint64, size),
            "counts": np.fromiter(self._counts.values(), np.int64, size),
        }

    def load_state(self, keys: NDArray[np.generic], counts: NDArray[np.generic]) -> None:
        """Go on from `state_dict`'s arrays."""
        self._counts = dict(zip(keys.tolist(), counts.tolist(), strict=True))

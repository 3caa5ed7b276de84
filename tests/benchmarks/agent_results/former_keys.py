"""The key that experience once had: an absolute place, the step from it, and what it earned.

Kept for the studies that show what it costs; no plan can ask for it any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.keys import MixedRadix
from site_client.agent.experience import Keys, Lookup, NewExperience
from site_client.agent.task import Situations, Task

PLACES, REWARDS = 24, 5


def place_and_next(task: Task) -> Keys:
    """Name (landmark, level, place, action, reward, next place), 24 places along each axis."""
    fields = [REWARDS, task.actions, *(PLACES for _ in range(6)), task.levels, task.heads]
    digits = MixedRadix(fields, [str(k) for k in range(len(fields))])

    def keys(situations: Situations) -> NDArray[np.uint64]:
        outcome = task.step(situations)
        columns = [
            _bins((outcome.rewards.astype(np.float64) + 1) / 2, REWARDS)[:, None],
            situations["action"].astype(np.int64)[:, None],
            _bins(task.fractions(outcome.reached)[:, ::-1], PLACES),
            _bins(task.fractions(situations)[:, ::-1], PLACES),
            situations["level"].astype(np.int64)[:, None],
            situations["head"].astype(np.int64)[:, None],
        ]
        return digits.encode(np.concatenate(columns, axis=1))

    return keys


class MergedCounts:
    """Counts of every site's experiences, as a merged sketch without collisions would say."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)

    def keys(self, task: Task) -> Keys:
        return place_and_next(task)

    def known(self) -> Lookup | None:
        return self._count if len(self._keys) else None

    def add(self, told: Sequence[NewExperience]) -> None:
        together = np.concatenate([self._keys, *(experience.keys for experience in told)])
        weight = np.ones(len(together), np.int64)
        weight[: len(self._keys)] = self._counts
        self._keys, place = np.unique(together, return_inverse=True)
        self._counts = np.bincount(place, weight, len(self._keys)).astype(np.int64)

    def _count(self, wanted: NDArray[np.uint64]) -> NDArray[np.float64]:
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._counts[at], 0).astype(np.float64)


def _bins(shares: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.minimum((shares * bins).astype(np.int64), bins - 1)

"""Moves along all axes at once, made of a task's own steps along one axis each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from site_client.agent.task import Situations, Task


class Moved(NamedTuple):
    """The outcome of a move along all axes.

    Attributes:
        reached: the situations after it.
        rewards: float32[n[, agents], axes], each axis's own.
        ended: bool[n]: true terminal states.
    """

    reached: Situations
    rewards: NDArray[np.float32]
    ended: NDArray[np.bool_]


def move_all_axes(task: Task, situations: Situations, against: NDArray[np.bool_]) -> Moved:
    """Take a step along or against every axis, one axis after the other.

    Args:
        task: whose actions 2i and 2i + 1 are steps along and against axis i.
        situations: where; not changed.
        against: bool[n[, agents], axes].
    """
    here, rewards = situations.copy(), np.zeros(against.shape, np.float32)
    over = np.zeros(len(situations), dtype=bool)
    for axis in range(against.shape[-1]):
        here["action"] = 2 * axis + against[..., axis]
        reached, earned, ended = task.step(here)
        goes_on = ~over
        rewards[goes_on, ..., axis] = earned[goes_on]
        here[goes_on] = reached[goes_on]
        over |= ended
    return Moved(here, rewards, over)

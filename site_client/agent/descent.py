"""Search by displacements: a few steps on each level, each as long as the network says.

A search goes where it is told, is told again from there, and the mean of its last places on
a level is where the next level begins, or the search ends. Nothing oscillates: the number
of steps is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from site_client.agent.task import ContinuousTask, Situations

Displacements = Callable[[Situations], NDArray[np.float32]]
"""Situations to float32[n[, agents], d]: the way from there, in units of the level's reach."""

# Of the coarsest level, on which a search may begin far away, and of each other.
_FIRST_STEPS: Final = 4
_STEPS: Final = 3
# A network that was never shown such a place is not believed further than this, in reaches.
_LONGEST: Final = 1.5


def descend(
    task: ContinuousTask,
    displacements: Displacements,
    start: Situations,
    most_steps: int,
    visited: list[Situations] | None = None,
) -> Situations:
    """Run searches to their ends.

    Args:
        task: what is searched for.
        displacements: of a network, or of anything else that knows them.
        start: where the searches begin; not changed.
        most_steps: steps after which all searches end wherever they are.
        visited: collects the situations after every step.

    Returns:
        the situations in which the searches ended, in the order of ``start``.
    """
    situations, steps_left = start.copy(), most_steps
    for level in range(int(start["level"].min(initial=0)), task.levels):
        rows = situations["level"] == level
        if not rows.any() or steps_left == 0:
            continue
        here, last = situations[rows], []
        for step in range(min(_FIRST_STEPS if level == 0 else _STEPS, steps_left)):
            move(task, here, displacements(here))
            steps_left -= 1
            situations[rows] = here
            # The first step of a level comes from where the level before was coarser.
            if step:
                last.append(task.parameters(here).astype(np.float64))
            if visited is not None:
                visited.append(situations.copy())
        if last:
            task.move_to(here, np.mean(last, axis=0).astype(np.float32))
            task.pull_inside(here)
        if level < task.levels - 1 and steps_left:
            here["level"] = level + 1
        situations[rows] = here
    return situations


def move(task: ContinuousTask, situations: Situations, way: NDArray[np.float32]) -> None:
    """Move situations by ways float32[n[, agents], d] in units of their reach, in place."""
    reach = task.reach_mm[situations["level"]].reshape(-1, *(1,) * (way.ndim - 1))
    gone = np.clip(way, -_LONGEST, _LONGEST) * reach
    task.move_to(situations, (task.parameters(situations) + gone).astype(np.float32))
    task.pull_inside(situations)


def along_actions(
    task: ContinuousTask, situations: Situations, way: NDArray[np.float32]
) -> NDArray[np.float32]:
    """float32[n[, agents], 2d]: mm that the way leads along, and against, each axis."""
    reach = task.reach_mm[situations["level"]].reshape(-1, *(1,) * (way.ndim - 1))
    mm = np.clip(way, -_LONGEST, _LONGEST) * reach
    return np.stack([mm, -mm], axis=-1).reshape(*way.shape[:-1], -1).astype(np.float32)

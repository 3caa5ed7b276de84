"""Many searches stepped in lockstep, each begun anew wherever its task draws it.

An episode ends at a true terminal state or by age. Being too old is a time-out:
the last step is an ordinary transition, and no transition ever leads from one
episode into the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.settings import LearnerSettings
from site_client.agent.task import Outcome, Situations, Task


class Moves(NamedTuple):
    """One lockstep: the situations with the actions taken there, and where they led."""

    taken: Situations
    outcome: Outcome


class Searches:
    """N searches in lockstep with a reset-anywhere curriculum.

    Args:
        task: draws starts and takes steps.
        settings: how many searches, and after how many steps one is cut off.
        rng: draws the starts.
    """

    def __init__(self, task: Task, settings: LearnerSettings, rng: np.random.Generator) -> None:
        self._task = task
        self._rng = rng
        self._episode_steps = settings.episode_steps
        # Ages differ from the start, so that episodes do not end all at once.
        self.age = rng.integers(0, settings.episode_steps, settings.searches)
        self.at: Situations = task.draw(rng, settings.searches)

    def advance(self, actions: NDArray[np.integer]) -> Moves:
        """Act everywhere: int[n[, agents]].

        Searches that ended or timed out start anew, after their last step was taken.
        """
        self.at["action"] = actions
        transitions = self.at
        outcome = self._task.step(transitions)
        self.at = outcome.reached.copy()
        self.age += 1
        done = outcome.ended | (self.age >= self._episode_steps)
        if done.any():
            self.at[done] = self._task.draw(self._rng, int(done.sum()))
            self.age[done] = 0
        return Moves(transitions, outcome)

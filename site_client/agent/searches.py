"""Many searches stepped in lockstep, each begun anew wherever its task draws it.

An episode ends at a true terminal state or by age. Being too old is a time-out:
the last step is an ordinary transition, and no transition ever leads from one
episode into the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError
from common.settings import LearnerSettings
from site_client.agent.states import State
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
        self.arrive(outcome.reached, outcome.ended)
        return Moves(transitions, outcome)

    def arrive(self, reached: Situations, ended: NDArray[np.bool_]) -> None:
        """Go on from where a move led; what ended or is too old starts anew.

        Args:
            reached: situations[n].
            ended: bool[n].
        """
        self.at = reached.copy()
        self.age += 1
        done = ended | (self.age >= self._episode_steps)
        if done.any():
            self.at[done] = self._task.draw(self._rng, int(done.sum()))
            self.age[done] = 0

    def state_dict(self) -> State:
        """Where the searches are and how old, as plain arrays."""
        at = np.frombuffer(self.at.tobytes(), np.uint8).copy()
        return {"searches/at": at, "searches/age": self.age.copy()}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`.

        Raises:
            InternalError: other searches, or over other cases.
        """
        raw = np.asarray(state["searches/at"], np.uint8)
        dtype, searches = self._task.situation, len(self.at)
        count, rest = divmod(raw.size, dtype.itemsize)
        situations: Situations = np.frombuffer(raw.tobytes(), np.uint8)[
            : count * dtype.itemsize
        ].view(dtype)
        if rest or count != searches or int(situations["case"].max()) >= len(self._task):
            raise InternalError(
                "the saved state does not fit",
                expected=f"{searches} searches over {len(self._task)} cases",
                got=f"{count} searches",
            )
        self.at = situations.copy()
        self.age = np.array(state["searches/age"], dtype=np.int64)

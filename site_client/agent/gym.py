"""Any search as a gymnasium environment, for learners that are not ours.

Thin: one search is an `Env`, many in lockstep are a `VectorEnv`, and both only
call the task. An episode that is too old is *truncated*; *terminated* is only what
the task says has ended (a trigger was pulled). Observations are pixels of the
site's images: learners that see them stay at the site like our own.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.task import Situations, Task, by_displacement

Observation = dict[str, Any]
Info = dict[str, Any]


def observation_space(task: Task) -> spaces.Dict:
    """Image, and which level and head it belongs to; several agents have an axis in front."""
    shape = task.shape if task.agents == 1 else (task.agents, *task.shape)
    return spaces.Dict(
        {
            "image": spaces.Box(0, 255, shape, np.uint8),
            "level": spaces.Discrete(task.levels),
            "head": spaces.Discrete(task.heads),
        }
    )


def action_space(task: Task) -> spaces.Space[Any]:
    """One of the task's actions, or one per agent.

    Raises:
        InputDataError: the task has no actions to choose from: it goes by displacements.
    """
    if by_displacement(task):
        raise InputDataError(
            "an environment chooses among steps",
            field="reach_mm",
            expected="none: a task whose search goes by steps",
            got="displacements",
        )
    if task.agents == 1:
        return spaces.Discrete(task.actions)
    return spaces.MultiDiscrete([task.actions] * task.agents)


def _observe(task: Task, situations: Situations) -> Observation:
    return {
        "image": task.observe(situations),
        "level": situations["level"].astype(np.int64),
        "head": situations["head"].astype(np.int64),
    }


def _over_agents(task: Task, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[n]: the mean over agents, where there are several."""
    wide = values.astype(np.float64)
    return wide if task.agents == 1 else wide.mean(axis=1)


def _check_steps(episode_steps: int) -> None:
    if episode_steps < 1:
        raise InputDataError(
            "an episode has steps", field="episode_steps", expected="1 or more", got="fewer"
        )


class SearchEnv(gymnasium.Env[Observation, Any]):
    """One search, begun wherever the task draws it.

    The reward of several agents is their mean. ``info["error"]`` is the distance to the
    truth, in the task's unit.

    Args:
        task: what is searched for.
        episode_steps: steps after which a search is truncated.

    Raises:
        InputDataError: an episode without steps, or a search by displacements.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium's own declaration

    def __init__(self, task: Task, episode_steps: int = 20) -> None:
        _check_steps(episode_steps)
        self.task = task
        self.observation_space = observation_space(task)
        self.action_space = action_space(task)
        self._episode_steps = episode_steps
        self._age = 0
        self._at: Situations | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """A new episode; equal seeds begin equally.

        Args:
            seed: restarts this environment's own generator.
            options: none are known.
        """
        super().reset(seed=seed, options=options)
        self._age = 0
        self._at = self.task.draw(self.np_random, 1)
        return self._seen(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Info]:  # noqa: ANN401
        """Take an action: an integer, or one per agent.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        situations = self._situation()
        situations["action"] = action
        reached, rewards, ended = self.task.step(situations)
        self._at = reached
        self._age += 1
        terminated = bool(ended[0])
        truncated = not terminated and self._age >= self._episode_steps
        reward = float(_over_agents(self.task, rewards)[0])
        return self._seen(), reward, terminated, truncated, self._info()

    def _situation(self) -> Situations:
        if self._at is None:
            raise gymnasium.error.ResetNeeded("reset the environment before the first step")
        return self._at

    def _seen(self) -> Observation:
        return {name: part[0] for name, part in _observe(self.task, self._situation()).items()}

    def _info(self) -> Info:
        return {"error": float(_over_agents(self.task, self.task.errors(self._situation()))[0])}


class SearchVectorEnv(VectorEnv[Observation, Any, NDArray[Any]]):
    """Many searches in lockstep.

    A search that is over begins anew in the same step, and what it saw last is in
    ``info["final_obs"]``: no step is wasted, and none leads from one episode into the next.

    Args:
        task: what is searched for.
        num_envs: how many searches.
        episode_steps: steps after which a search is truncated.

    Raises:
        InputDataError: no searches, an episode without steps, or a search by displacements.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # gymnasium's own declaration
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, task: Task, num_envs: int, episode_steps: int = 20) -> None:
        _check_steps(episode_steps)
        if num_envs < 1:
            raise InputDataError("nothing to step", field="num_envs", expected="1 or more")
        self.task = task
        self.num_envs = num_envs
        self.single_observation_space = observation_space(task)
        self.single_action_space = action_space(task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episode_steps = episode_steps
        self._age = np.zeros(num_envs, dtype=np.int64)
        self._at: Situations | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """New episodes everywhere.

        Args:
            seed: restarts the one generator that all searches draw from; no list.
            options: none are known.

        Raises:
            InputDataError: a seed per search was given.
        """
        if isinstance(seed, list):
            raise InputDataError(
                "the searches share one generator", field="seed", expected="one", got="a list"
            )
        super().reset(seed=seed, options=options)
        self._age[:] = 0
        self._at = self.task.draw(self.np_random, self.num_envs)
        return _observe(self.task, self._at), self._info(self._at)

    def step(
        self,
        actions: Any,  # noqa: ANN401
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        """Act everywhere: int[num_envs[, agents]].

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._at is None:
            raise gymnasium.error.ResetNeeded("reset the environment before the first step")
        self._at["action"] = actions
        reached, rewards, ended = self.task.step(self._at)
        self._age += 1
        truncated = ~ended & (self._age >= self._episode_steps)
        info = self._info(reached)
        self._at = reached.copy()
        done = ended | truncated
        if done.any():
            info |= self._final(reached, done)
            self._at[done] = self.task.draw(self.np_random, int(done.sum()))
            self._age[done] = 0
        seen = _observe(self.task, self._at)
        return seen, _over_agents(self.task, rewards), ended.copy(), truncated, info

    def _info(self, situations: Situations) -> Info:
        return {
            "error": _over_agents(self.task, self.task.errors(situations)),
            "_error": np.ones(self.num_envs, dtype=bool),
        }

    def _final(self, reached: Situations, done: NDArray[np.bool_]) -> Info:
        """Collect what the searches that are over saw last, as gymnasium's own vectors say it."""
        last = _observe(self.task, reached[done])
        final = np.full(self.num_envs, None, dtype=object)
        for row, index in enumerate(np.flatnonzero(done)):
            final[index] = {name: part[row] for name, part in last.items()}
        return {"final_obs": final, "_final_obs": done.copy()}

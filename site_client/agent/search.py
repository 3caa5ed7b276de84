"""Greedy search: always the action that promises most, down the ladder, until it oscillates.

All searches run in lockstep, whatever the task. A search that comes to a place for
the third time within the last steps of a level oscillates (one whose termination is active
also turns where even the best action promises a loss): it goes to the one of
its last places whose best action promises least (nothing is left to gain there) and
continues on the next finer level; on the finest it ends. It also ends where the
task says so (a trigger was pulled). Agents that search together go down together,
once each of them has oscillated. Source: Alansary et al., Medical Image Analysis 2019.
Where a network's values are a policy per axis, every step goes along all axes, and a
level ends in the middle of the last places.
Where the action is a displacement, `descent` says where a search goes and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.settings import EvaluationSettings
from site_client.agent.axes import move_all_axes
from site_client.agent.descent import along_actions, descend
from site_client.agent.network import network_values
from site_client.agent.networks.base import QNetwork
from site_client.agent.task import Situations, Task, by_displacement, in_waves

Values = Callable[[Situations], NDArray[np.float32]]
"""Situations to float32[n[, agents], actions]: what each action promises, or displacements."""

_MEMORY = 20
_CANDIDATES = 4
_SAME_PLACE = 1e-3


def action_values(
    task: Task, policy: nn.Module | Values, situations: Situations
) -> NDArray[np.float32]:
    """Give float32[n[, agents], actions] of a network, or of anything else that knows them."""
    return (
        network_values(task, policy, situations)
        if isinstance(policy, nn.Module)
        else policy(situations)
    )


def greedy_search(
    task: Task,
    policy: nn.Module | Values,
    start: Situations,
    settings: EvaluationSettings | None = None,
    visited: list[Situations] | None = None,
) -> Situations:
    """Run searches to their ends.

    Args:
        task: what is searched for.
        policy: a Q-network, or a function with its values (a perfect one, in tests).
        start: where the searches begin; not changed.
        settings: steps and visits.
        visited: collects, for every step, the situations of the searches still on.

    Returns:
        the situations in which the searches ended, in the order of ``start``.
    """
    settings = settings or EvaluationSettings()
    if by_displacement(task):
        most = settings.most_steps
        return descend(task, partial(action_values, task, policy), start, most, visited)
    all_axes = isinstance(policy, QNetwork) and policy.moves_all_axes
    situations = start.copy()
    memory = _Memory.of(task, situations)
    alive = np.arange(len(situations))
    for step in range(settings.most_steps):
        if not alive.size:
            break
        here = situations[alive]
        values = action_values(task, policy, here)
        memory.keep_candidates(step, alive, values.max(axis=-1), task.parameters(here))
        if all_axes:
            against = values.reshape(*values.shape[:-1], -1, 2).argmax(axis=-1) == 1
            reached, _, ended = move_all_axes(task, here, against)
        else:
            here["action"] = values.argmax(axis=-1)
            reached, _, ended = task.step(here)
        situations[alive] = reached
        oscillates = memory.visit(step, alive, task.parameters(reached), settings.visits)
        if settings.active_termination:
            promise = values.max(axis=-1).reshape(len(here), -1)
            oscillates |= memory.promises_loss(alive, promise < 0)
        turning = alive[oscillates & ~ended]
        if turning.size:
            back = situations[turning]
            task.move_to(
                back, memory.middle(turning) if all_axes else memory.least_promising(turning)
            )
            last = back["level"] == task.levels - 1
            back["level"][~last] += 1
            situations[turning] = back
            memory.forget(turning)
            ended = ended.copy()
            ended[np.searchsorted(alive, turning[last])] = True
        alive = alive[~ended]
        if visited is not None:
            visited.append(situations[alive].copy())
    return situations


def search_in_groups(
    task: Task,
    policy: nn.Module | Values,
    start: Situations,
    repeats: int,
    settings: EvaluationSettings,
) -> tuple[Situations, Situations]:
    """Run searches to their ends, and say what those of a group agree on.

    Args:
        task: what is searched for.
        policy: a Q-network, or a function with its values.
        start: groups of ``repeats`` rows that differ in nothing but their parameters.
        repeats: searches in a group.
        settings: steps and visits, and which searches are outliers.

    Returns:
        situations [groups, repeats] in which the searches ended, and situations [groups], moved
        to what their searches agree on: their mean, or, of a task that ``picks_one`` because a
        mean of its answers is no answer, the end nearest to it. A task that has ``waves`` is
        searched wave by wave, and says by ``hand_over`` where each begins.
    """
    if not in_waves(task):
        return _search_groups(task, policy, start, repeats, settings)
    # One after the other: some searches begin where those before them ended.
    groups = start.reshape(-1, repeats).copy()
    ended, agreed = groups.copy(), groups[:, 0].copy()
    for wave in task.waves(agreed):
        groups[wave] = task.hand_over(groups[wave], agreed)
        answers = _search_groups(task, policy, groups[wave].reshape(-1), repeats, settings)
        ended[wave], agreed[wave] = answers
    return ended, agreed


def _search_groups(
    task: Task,
    policy: nn.Module | Values,
    start: Situations,
    repeats: int,
    settings: EvaluationSettings,
) -> tuple[Situations, Situations]:
    """Search groups at once; see `search_in_groups`."""
    ended = greedy_search(task, policy, start, settings)
    places = task.parameters(ended)
    # The starts' axis goes next to the last, also when agents stand between.
    stacked = np.moveaxis(places.reshape(-1, repeats, *places.shape[1:]), 1, -2)
    agreed = ended[::repeats].copy()
    middle: NDArray[np.floating] = consensus(stacked, settings.outlier_mads)
    if getattr(task, "picks_one", False):
        nearest = np.linalg.norm(stacked - middle[..., None, :], axis=-1).argmin(axis=-1)
        middle = np.take_along_axis(stacked, nearest[..., None, None], axis=-2)[..., 0, :]
    task.move_to(agreed, middle.astype(np.float32))
    return ended.reshape(-1, repeats), agreed


@dataclass(frozen=True, eq=False)
class Followed:
    """One search, or that of one team, step by step.

    Attributes:
        steps: situations[t], the last is where it ended.
        values: float32[t[, agents], actions], what each action promised; where the action is a
            displacement, mm of it along and against each axis.
    """

    steps: Situations
    values: NDArray[np.float32]


def follow(
    task: Task, policy: nn.Module | Values, start: Situations, settings: EvaluationSettings
) -> Followed:
    """Follow the search that begins at one situation, to its end."""
    visited: list[Situations] = [start.copy()]
    ended = greedy_search(task, policy, start, settings, visited)
    steps: Situations = np.concatenate([*visited, ended])
    values = action_values(task, policy, steps)
    if by_displacement(task):
        values = along_actions(task, steps, values)
    return Followed(steps, values)


@dataclass
class _Memory:
    """The latest positions of each search on its level; axes n, agents, slots, parameters."""

    history: NDArray[np.float32]
    candidates: NDArray[np.float32]
    promise: NDArray[np.float32]
    turned: NDArray[np.bool_]
    agents: int

    @classmethod
    def of(cls, task: Task, situations: Situations) -> _Memory:
        size = task.parameters(situations).shape[-1]
        shape = (len(situations), task.agents)
        return cls(
            history=np.full((*shape, _MEMORY, size), np.inf, np.float32),
            candidates=np.zeros((*shape, _CANDIDATES, size), np.float32),
            promise=np.full((*shape, _CANDIDATES), np.inf, np.float32),
            turned=np.zeros(shape, dtype=bool),
            agents=task.agents,
        )

    def keep_candidates(
        self,
        step: int,
        rows: NDArray[np.int64],
        promise: NDArray[np.float32],
        parameters: NDArray[np.float32],
    ) -> None:
        """Remember what the best action promised where."""
        shape = (len(rows), self.agents)
        self.promise[rows, :, step % _CANDIDATES] = promise.reshape(shape)
        self.candidates[rows, :, step % _CANDIDATES] = parameters.reshape(*shape, -1)

    def visit(
        self, step: int, rows: NDArray[np.int64], parameters: NDArray[np.float32], visits: int
    ) -> NDArray[np.bool_]:
        """bool[rows]: which searches, all agents of them, have come back often enough."""
        here = parameters.reshape(len(rows), self.agents, 1, -1)
        seen = (np.abs(self.history[rows] - here) < _SAME_PLACE).all(axis=3).sum(axis=2)
        self.history[rows, :, step % _MEMORY] = here[:, :, 0]
        self.turned[rows] |= seen >= visits - 1
        return np.asarray(self.turned[rows].all(axis=1))

    def promises_loss(self, rows: NDArray[np.int64], loss: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[rows]: which searches, all agents of them, have nothing left to gain.

        Args:
            rows: the searches.
            loss: bool[rows, agents], whether even the best action promises less than nothing.
        """
        self.turned[rows] |= loss
        return np.asarray(self.turned[rows].all(axis=1))

    def least_promising(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[rows[, agents], d]: of each one's last places, where least is left to gain."""
        slot = self.promise[rows].argmin(axis=2)[:, :, None, None]
        places = np.take_along_axis(self.candidates[rows], slot, axis=2)[:, :, 0]
        return np.asarray(places if self.agents > 1 else places[:, 0])

    def middle(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[rows[, agents], d]: the mean of each one's last places."""
        known = np.isfinite(self.promise[rows])[..., None]
        places = np.where(known, self.candidates[rows], 0).sum(axis=2) / known.sum(axis=2)
        return np.asarray(places if self.agents > 1 else places[:, 0], np.float32)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """A new level begins."""
        self.history[rows], self.promise[rows], self.turned[rows] = np.inf, np.inf, False


def consensus(parameters: NDArray[np.floating], outlier_mads: float) -> NDArray[np.float64]:
    """Average several searches for the same thing, outliers rejected.

    Args:
        parameters: float[..., k, d], the parameters where k searches ended.
        outlier_mads: searches further from the coordinate-wise median than this many
            times the median of these distances are outliers.

    Returns:
        float64[..., d]; at least half of the searches take part.
    """
    middle = np.median(parameters, axis=-2, keepdims=True)
    distance = np.linalg.norm(parameters - middle, axis=-1)
    scale = np.median(distance, axis=-1, keepdims=True)
    agreeing = distance <= np.maximum(outlier_mads, 1.0) * scale + _SAME_PLACE
    total = np.where(agreeing[..., None], parameters, 0.0).sum(axis=-2, dtype=np.float64)
    return np.asarray(total / agreeing.sum(axis=-1, keepdims=True))

"""Common to every search: a parameter vector moved step by step towards a truth.

A point in a volume or an X-ray, a box around a lesion, a view plane, a rigid
registration: they differ in what the parameters mean, in what is seen at them
and in how far they are from the truth. Learner, replay, greedy search, evaluation
and the gymnasium wrappers know this interface and nothing else.

A *situation* is a row of a structured array: which case, which head of the
network, which level of the ladder, under which pose, at which parameters, and
the action taken there. It is all there is to remember, a few dozen bytes;
observations are cut from the images whenever they are needed, so no stack of
frames can straddle two episodes. Situations never leave the site.

Arrays have one row per search. Tasks of several agents (``agents`` > 1) have a
second axis for them wherever ``[, agents]`` is written; others do not.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

Situations = NDArray[np.void]
"""Structured rows; every task's dtype has at least the fields case, head, level, action."""


MM: Final = "mm"
"""The unit of tasks whose errors are millimetres."""


class Outcome(NamedTuple):
    """The outcome of one lockstep of the searches.

    Attributes:
        reached: the situations after the action; the action field is meaningless there.
        rewards: float32[n[, agents]], within -1..1.
        ended: bool[n]: true terminal states (a trigger was pulled); never a time-out.
    """

    reached: Situations
    rewards: NDArray[np.float32]
    ended: NDArray[np.bool_]


class Task(Protocol):
    """A parametric search over a set of cases.

    Attributes:
        situation: dtype of one row.
        shape: (channels, *roi) of one agent's observation.
        actions: size of the action set; action 2i / 2i+1 is a step along / against axis i. Of a
            `ContinuousTask` the axes.
        heads: how many different things are looked for (landmarks, organs, planes).
        levels: rungs of the ladder, coarse to fine.
        agents: how many agents search together.
        unit: what errors are in: `MM`, or the task's own words.
    """

    situation: np.dtype[np.void]
    shape: tuple[int, ...]
    actions: int
    heads: int
    levels: int
    agents: int
    unit: str

    def __len__(self) -> int:
        """Number of cases."""

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts: random case, head, level and pose; finer levels near the truth."""

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Evaluation starts: every case and head it has, `repeats` times, adjacent, level 0.

        Args:
            rng: where in the image (and, if posed, under which pose).
            repeats: starts per case and head; they share one pose.
            posed: under a random pose; otherwise as acquired.
        """

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n[, agents], *shape]: what is seen in each situation."""

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action."""

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n[, agents], actions]: the reward each action would earn."""

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n[, agents], d]: where each search is; two equal rows are the same place."""

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put situations at float32[n[, agents], d] of `parameters`, in place."""

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n[, agents], d]: the parameters each situation should have."""

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n[, agents]]: how far from the truth, in the task's unit; 0 is perfect."""

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3] in 0..1: coarse place in the image, for experience by place."""

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, actions // 2]: way from the target in steps of the level, for experience.

        Along the axes of the actions. Of a team, its first agent's.
        """

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Further figures of found situations by name with its unit, float64[n]; e.g. iou."""


class ContinuousTask(Task, Protocol):
    """A search for points whose action is a displacement, not one of a few steps.

    Attributes:
        reach_mm: float64[levels]: the unit of a level's displacements.
    """

    reach_mm: NDArray[np.float64]

    def pull_inside(self, situations: Situations) -> None:
        """Move what lies outside its image onto the border, in place."""


def by_displacement(task: Task) -> TypeGuard[ContinuousTask]:
    """Tell whether a task's action is a displacement."""
    return getattr(task, "reach_mm", None) is not None


class SequentialTask(Task, Protocol):
    """A search some of whose cases begin where those before them ended."""

    def waves(self, groups: Situations) -> list[NDArray[np.int64]]:
        """List the groups that are searched together, one wave after the other."""

    def hand_over(self, wave: Situations, agreed: Situations) -> Situations:
        """Put the starts [groups, repeats] of a wave where the waves before it ended."""


def in_waves(task: Task) -> TypeGuard[SequentialTask]:
    """Tell whether some cases of a task begin where others ended."""
    return hasattr(task, "waves")

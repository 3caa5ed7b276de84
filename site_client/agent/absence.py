"""Is a landmark in the image at all? Signs that searches give, and what they add up to.

A search always ends somewhere. Where the landmark is outside of the image, the values
where it ended are not those of a landmark (there, every action leads away), the
starts disagree, and the other landmarks point to a place beyond the border. These
signs are weighed by a logistic regression that is worked out on images cropped so that
landmarks are cut off, which is how it is known that they are absent.

The shape model is robust and small: each other landmark votes for a place by its mean
distance from it, and the median of the votes is taken, so that landmarks that are absent
themselves, or found wrongly, do not lead it astray while they are fewer than half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.settings import ABSENCE_SIGNS
from site_client.agent.search import action_values
from site_client.agent.task import Situations, Task, by_displacement

_RIDGE: Final = 1.0
_STEPS: Final = 50
_FURTHEST: Final = 4.0
"""Margins beyond this many coarsest steps say nothing more."""
ABSENT_FROM: Final = 0.5
"""Score above which a landmark is reported as absent."""


@dataclass(frozen=True, eq=False)
class AbsenceRule:
    """What decides whether landmarks are absent.

    Attributes:
        places_mm: float64[heads, d], mean positions from the middle of an image.
        shares: float64[heads], how often each was outside of the images worked out on.
        weights: float64[signs + 1], the last added.
    """

    places_mm: NDArray[np.float64]
    shares: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def fitted(self) -> bool:
        """Tell whether it was worked out at all."""
        return bool(self.weights.any())


def signs_of(
    task: Task,
    policy: nn.Module,
    ended: Situations,
    agreed: Situations,
    halves_mm: NDArray[np.float64],
    places_mm: NDArray[np.float64],
    steps_mm: tuple[float, ...],
) -> NDArray[np.float64]:
    """Collect the signs of searches of images as acquired, all landmarks of each.

    Args:
        task: of one agent, in millimetres.
        policy: the network that searched.
        ended: situations[groups, starts], where the searches ended.
        agreed: situations[groups], moved to what their starts agree on.
        halves_mm: float64[cases, d], half the extent of every image.
        places_mm: float64[heads, d], mean positions from the middle of an image.
        steps_mm: of the ladder, coarse to fine.

    Returns:
        float64[groups, signs] (values are minus the way that is left where the action is a
        displacement): the mean value over actions, over all levels and on the finest;
        the largest on the finest; the spread of the starts and the distance from where the
        other landmarks point, as logarithms of finest steps; the distance of that place, and of
        where the search ended, from the nearest border in coarsest steps.
    """
    case, head = agreed["case"].astype(np.int64), agreed["head"].astype(np.int64)
    position = task.parameters(agreed).astype(np.float64)
    means, largest = [], np.zeros(len(agreed))
    for level in range(task.levels):
        here = agreed.copy()
        here["level"] = level
        values = action_values(task, policy, here)
        if by_displacement(task):
            # The further the way still seems, the less it looks like the landmark.
            values = -np.linalg.norm(values, axis=1, keepdims=True)
        means.append(values.mean(axis=1))
        largest = values.max(axis=1)
    starts = task.parameters(ended.reshape(-1)).reshape(*ended.shape, -1)
    spread = np.linalg.norm(starts - position[:, None], axis=2).mean(axis=1)
    pointed = _pointed(case, head, position, places_mm)
    gap = np.linalg.norm(pointed - position, axis=1)
    margin = (halves_mm[case] - np.abs(pointed)).min(axis=1) / steps_mm[0]
    margin_here = (halves_mm[case] - np.abs(position)).min(axis=1) / steps_mm[0]
    signs = np.stack(
        [
            np.mean(means, axis=0),
            means[-1],
            largest,
            np.log1p(spread / steps_mm[-1]),
            np.log1p(gap / steps_mm[-1]),
            np.clip(margin, -_FURTHEST, _FURTHEST),
            np.clip(margin_here, 0.0, _FURTHEST),
        ],
        axis=1,
    )
    return np.asarray(signs, np.float64)


def _pointed(
    case: NDArray[np.int64],
    head: NDArray[np.int64],
    positions: NDArray[np.float64],
    places: NDArray[np.float64],
) -> NDArray[np.float64]:
    """float64[groups, d]: where the others of each image point; itself where there are none."""
    pointed = positions.copy()
    for one in np.unique(case):
        rows = np.flatnonzero(case == one)
        if len(rows) < 2:
            continue
        offsets = positions[rows] - places[head[rows]]
        for k, row in enumerate(rows):
            pointed[row] = np.median(np.delete(offsets, k, axis=0), axis=0) + places[head[row]]
    return pointed


def weigh(signs: NDArray[np.float64], absent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Work out the weights of a logistic regression, both outcomes counting equally.

    Args:
        signs: float64[n, signs].
        absent: bool[n].

    Returns:
        float64[signs + 1]; zeros where one of the outcomes does not occur.
    """
    if absent.all() or not absent.any():
        return np.zeros(ABSENCE_SIGNS + 1)
    mean, scale = signs.mean(axis=0), signs.std(axis=0) + 1e-6
    rows = np.column_stack([(signs - mean) / scale, np.ones(len(signs))])
    share = np.where(absent, 0.5 / absent.sum(), 0.5 / (~absent).sum()) * len(signs)
    ridge = np.diag([_RIDGE] * signs.shape[1] + [0.0])
    weights = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        chance = _logistic(rows @ weights)
        gradient = rows.T @ (share * (chance - absent)) + ridge @ weights
        curve = (rows * (share * chance * (1 - chance))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    plain = weights[:-1] / scale
    return np.append(plain, weights[-1] - plain @ mean)


def scores_of(signs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n] in 0..1: how sure it is that each landmark is absent."""
    return _logistic(signs @ weights[:-1] + weights[-1])


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def receiver_curve(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[m, 2]: shares of false and of true alarms, from the strictest threshold on.

    Equal scores are one point, so that a score that says nothing gives the diagonal.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true = np.cumsum(positive[order])[last] / max(1, positive.sum())
    false = np.cumsum(~positive[order])[last] / max(1, (~positive).sum())
    curve = np.concatenate([[[0.0, 0.0]], np.stack([false, true], axis=1)])
    after, before = np.diff(curve, axis=0)[1:], np.diff(curve, axis=0)[:-1]
    # A point on the line between its neighbours says nothing.
    turns = after[:, 0] * before[:, 1] != after[:, 1] * before[:, 0]
    return np.asarray(curve[np.concatenate([[True], turns, [True]])])


def area_under(curve: NDArray[np.float64]) -> float:
    """Give the area under a receiver curve: the chance that a positive scores above a negative."""
    false, true = curve.T
    return float(((false[1:] - false[:-1]) * (true[1:] + true[:-1]) / 2).sum())

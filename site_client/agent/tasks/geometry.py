"""Ladders, steps and cuts: the geometry that all searches share, in two and three dimensions.

Knows no image and no pose (`poses` does).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError

# Of each cut, the axes along its columns, its rows, and through it: across x, y and z.
ORTHOGONAL_CUTS = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])


@dataclass(frozen=True)
class Ladder:
    """The levels of a search, coarse to fine.

    Attributes:
        strides_mm: distance of neighbouring samples of the region of interest.
        steps_mm: length of one step.
    """

    strides_mm: tuple[float, ...]
    steps_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps_mm or len(self.strides_mm) != len(self.steps_mm):
            raise InputDataError(
                "every level has a stride and a step",
                field="ladder",
                expected="as many strides as steps",
                got=f"{len(self.strides_mm)} strides and {len(self.steps_mm)} steps",
            )
        check_falling("ladder.steps_mm", self.steps_mm)
        if not all(0 < stride < np.inf for stride in self.strides_mm):
            raise InputDataError(
                "no such stride", field="ladder.strides_mm", expected="positive numbers"
            )

    def __len__(self) -> int:
        return len(self.steps_mm)


def check_falling(field: str, steps: tuple[float, ...]) -> None:
    """Refuse steps that are not positive or do not become finer from level to level.

    Raises:
        InputDataError: they are not.
    """
    if not steps or not all(0 < step < np.inf for step in steps):
        raise InputDataError("no such step", field=field, expected="positive numbers")
    if any(fine > coarse for coarse, fine in itertools.pairwise(steps)):
        raise InputDataError("levels go from coarse to fine", field=field, expected="falling steps")


def steps_of_actions(dim: int) -> NDArray[np.float32]:
    """float32[2 * dim, dim]: action 2i is a step forward along axis i, 2i + 1 one back."""
    axes = np.eye(dim, dtype=np.float32)
    return np.stack([axes, -axes], axis=1).reshape(2 * dim, dim)


def reaches(reach_mm: Sequence[float], levels: int) -> NDArray[np.float64] | None:
    """Give float64[levels], the unit of each level's displacements; None where there are none.

    Raises:
        InputDataError: not one positive number per level.
    """
    if not len(reach_mm):
        return None
    if len(reach_mm) != levels or not all(0 < each < np.inf for each in reach_mm):
        raise InputDataError(
            "no such reach",
            field="reach_mm",
            expected=f"{levels} positive numbers, one per level",
            got=f"{len(reach_mm)}",
        )
    return np.array(reach_mm, dtype=np.float64)


def draw_levels(rng: np.random.Generator, n: int, levels: int, *, finer: bool) -> NDArray[np.int64]:
    """Draw the levels of training starts.

    Args:
        rng: of the draw.
        n: how many.
        levels: of the ladder.
        finer: each level as often as it counts from the coarsest on: 1, 2, 3, ... For
            displacements, of which a crop of the coarsest level teaches every head and one of
            the finest few.

    Returns:
        int64[n]
    """
    if not finer:
        return rng.integers(0, levels, n)
    shares = np.cumsum(np.arange(1, levels + 1))
    drawn: NDArray[np.int64] = np.searchsorted(shares, rng.random(n) * shares[-1], side="right")
    return drawn


def misses(
    rng: np.random.Generator, reach: NDArray[np.floating], dim: int, *, closer: bool
) -> NDArray[np.float64]:
    """Draw by how much training starts miss what they look for.

    Args:
        rng: of the draw.
        reach: float[n], the most that each may miss by along an axis.
        dim: axes.
        closer: most of them miss by little, as where displacements are regressed: a search takes
            its last steps there, and no way of its own brings the learner near.

    Returns:
        float64[n, dim]
    """
    n = len(reach)
    most = reach * rng.random(n) if closer else reach
    return rng.uniform(-1, 1, (n, dim)) * most[:, None]

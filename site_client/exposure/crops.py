"""The crops that a rehearsal really trained on, cut anew from the images whenever looked at.

A round meets thousands of crops; kept are their situations, some 33 bytes each. They
are the truth that attacks are scored against, and no attack is given them to work with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from site_client.agent.task import Situations, Task


class Crops(Protocol):
    """Crops by number; an array uint8[n, cuts, roi, roi] is one, too."""

    def __len__(self) -> int:
        """Count the crops."""

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        """uint8[n, cuts, roi, roi]: some of them."""


class Trainable(Protocol):
    """Cases, and the plan's search over them."""

    def __len__(self) -> int:
        """Count the cases."""

    @property
    def task(self) -> Task:
        """The search."""

    def part(self, numbers: Sequence[int], /) -> Self:
        """Give some of the cases, by number, in that order."""


class TrainedCrops:
    """The different crops of a round's gradient steps, in a fixed order.

    Args:
        task: sees what a situation shows; over the cases trained on.
        watched: the transitions of each gradient step.
    """

    def __init__(self, task: Task, watched: Sequence[Situations]) -> None:
        self._task = task
        met = np.concatenate([np.empty(0, task.situation), *watched])
        # Neither what was looked for nor what was done there changes what is seen.
        met["head"], met["action"] = 0, 0
        raw = np.ascontiguousarray(met).view(np.uint8).reshape(len(met), task.situation.itemsize)
        _, first = np.unique(raw, axis=0, return_index=True)
        self._at: Situations = met[np.sort(first)]

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        return self._task.observe(self._at[rows])

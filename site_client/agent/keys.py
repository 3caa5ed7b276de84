"""Names of situations where experience is counted; needs no torch.

The name is a key of common's codecs: what is looked for, on which level, and how far from
it in steps with the action taken there, or where in the image.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.keys import OffsetCodec, PlaceCodec, SituationCodec
from common.plan import FederationPlan
from common.plan.experience import Experience
from site_client.agent.task import Situations, Task


class Sizes(Protocol):
    """Sizes of a task or of a plan's space that a codec needs."""

    @property
    def heads(self) -> int:
        """Number of different things that are looked for."""

    @property
    def levels(self) -> int:
        """Rungs of the ladder."""

    @property
    def actions(self) -> int:
        """Size of the action set; two for each axis, and perhaps one to stop."""


def experience_codec(plan: FederationPlan) -> SituationCodec:
    """Build the quantiser of a plan's situations; equal at every site of it."""
    return codec_of(plan.space, plan.experience)


def codec_of(task: Sizes, experience: Experience | None = None) -> SituationCodec:
    """Build the quantiser of any task's situations.

    Raises:
        InputDataError: more situations than 64 bits can name.
    """
    cells = experience or Experience()
    if cells.key == "place":
        return PlaceCodec(task.heads, task.levels, cells.position_bins)
    return OffsetCodec(
        task.heads, task.levels, task.actions, max(1, task.actions // 2), cells.reach_steps
    )


class ExperienceKeys:
    """Names situations of a task, with the actions taken there.

    Args:
        task: says how far from its target, or where in the image, a situation is.
        codec: of the plan, or `codec_of` the task.
    """

    def __init__(self, task: Task, codec: SituationCodec) -> None:
        self._task = task
        self._codec = codec

    def __call__(self, situations: Situations) -> NDArray[np.uint64]:
        """uint64[n]: of several agents that search together, the first one stands for all."""
        head = situations["head"].astype(np.int64)
        level = situations["level"].astype(np.int64)
        if isinstance(self._codec, PlaceCodec):
            # The codec names its digits z, y, x, as arrays are indexed.
            return self._codec.encode(head, level, self._task.fractions(situations)[:, ::-1])
        action = situations["action"].astype(np.int64)
        if self._task.agents > 1:
            action = action[:, 0]
        return self._codec.encode(head, level, self._task.steps_away(situations), action)

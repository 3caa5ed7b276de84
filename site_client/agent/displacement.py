"""Learning the way to a landmark: where it lies from a place is regressed, and stepped.

A crop is cut at a random place, and every head says how far its landmark is from there,
in units of the level's reach; all heads whose landmark lies within it learn from the one
crop. Nothing is remembered and nothing explored: there is no replay, no experience and no
target. A search then goes where it is told a few times on each level, and ends at the mean
of the last places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from common.errors import InternalError
from common.settings import LearnerSettings
from site_client.agent.experience import Lookup, NewExperience
from site_client.agent.method import Watch, parts_of
from site_client.agent.network import device_of, to_tensors
from site_client.agent.networks.base import QNetwork
from site_client.agent.states import State
from site_client.agent.task import ContinuousTask, Situations

# Errors below this share of the reach are squared, larger ones count as they are.
_SQUARED_BELOW: Final = 0.05


class Displacement:
    """Regression of displacements, see `Method`.

    Args:
        task: what is searched for, on which cases.
        network: gives displacements; trained in place by whoever asks.
        settings: batch and loss.
        rng: of the places.
        watch: shown a copy of the situations of every gradient step.
    """

    held: Final = 0

    def __init__(
        self,
        task: ContinuousTask,
        network: QNetwork,
        settings: LearnerSettings,
        rng: np.random.Generator,
        watch: Watch | None,
    ) -> None:
        self._task, self._network, self._settings = task, network, settings
        self._rng, self._watch = rng, watch
        self._drawn: Situations = np.zeros(0, task.situation)

    def epsilon(self, progress: float) -> float:
        """See `Method`: nothing is explored."""
        del progress
        return 0.0

    def begin(self) -> int:
        """See `Method`: nothing is needed."""
        return 0

    def gather(self, progress: float) -> int:
        """Draw the places of one gradient step."""
        del progress
        self._drawn = self._task.draw(self._rng, self._settings.batch)
        return len(self._drawn)

    def backward(self, updates: int, progress: float) -> float:
        """See `Method`: the mean over crops, each of which counts alike."""
        del updates, progress
        if self._watch is not None:
            self._watch(self._drawn.copy())
        total = 0.0
        for part in parts_of(len(self._drawn), self._network, self._task):
            losses = regression_losses(
                self._task, self._network, self._drawn[part], self._settings.loss
            )
            loss = losses.sum() / len(self._drawn)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def step_made(self, updates: int) -> None:
        """See `Method`: nothing follows the network."""

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """See `Method`: there is nothing beside the network."""

    def ask(self, lookup: Lookup | None, *, looked_up: bool) -> None:
        """See `Method`: nothing is remembered that could be rare."""

    def new_experience(self) -> NewExperience:
        """See `Method`: no experience is counted."""
        return NewExperience(np.empty(0, np.uint64), np.empty(0, np.int64))

    def state_dict(self) -> State:
        """See `Method`: between two updates nothing is held but how many cases there are."""
        return {"cases": np.asarray(len(self._task))}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See `Method`."""
        if "cases" not in state or int(np.asarray(state["cases"])) != len(self._task):
            raise InternalError(
                "the saved state does not fit",
                expected=f"displacements over {len(self._task)} cases",
                got="another learner's, or other cases",
            )


def regression_losses(
    task: ContinuousTask,
    network: QNetwork,
    situations: Situations,
    loss: Literal["huber", "squared"],
) -> Tensor:
    """float32[n] with a gradient: the mean over what a crop has within reach, agents averaged.

    A mean and no sum: on the coarsest level every head of a case has its landmark within reach,
    on the finest often one, and the coarse would drown the fine.
    """
    wanted, counts = displacements(task, situations)
    pixels, level, _ = to_tensors(task.observe(situations), situations, device_of(network))
    told = network.of_all_heads(pixels, level)
    chosen = torch.from_numpy(counts).to(told.device)
    # What does not count may be no number: it must not come near a gradient.
    targets = torch.from_numpy(np.where(counts[..., None], wanted, 0)).to(told.device)
    if loss == "huber":
        each = functional.smooth_l1_loss(told, targets, reduction="none", beta=_SQUARED_BELOW)
    else:
        each = functional.mse_loss(told, targets, reduction="none")
    # Heads come before agents: each agent's crop is one by itself.
    total, number = (each.mean(dim=-1) * chosen).sum(dim=1), chosen.sum(dim=1).clamp(min=1)
    return (total / number).reshape(len(situations), -1).mean(dim=1)


def displacements(
    task: ContinuousTask, situations: Situations
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Give the way from each place to what every head looks for, and which of them count.

    Returns:
        float32[n, heads[, agents], d] in units of the level's reach, and bool[n, heads[, agents]]:
        within reach, or on the coarsest level, where a search may begin anywhere. What a case
        lacks does not count.
    """
    n, heads = len(situations), task.heads
    every = np.repeat(situations, heads)
    every["head"] = np.tile(np.arange(heads, dtype=np.uint8), n)
    gap = task.targets(every) - task.parameters(every)
    reach = task.reach_mm[every["level"]].reshape(-1, *(1,) * (gap.ndim - 1))
    units = gap / reach
    coarsest = (every["level"] == 0).reshape(-1, *(1,) * (gap.ndim - 2))
    near = (np.abs(units) <= 1).all(axis=-1) | coarsest
    counts = np.isfinite(units).all(axis=-1) & near
    shape = (n, heads, *gap.shape[1:])
    return units.astype(np.float32).reshape(shape), counts.reshape(shape[:-1])

"""Ways of learning behind one interface: what is gathered, and which way a gradient goes.

`Learner` makes the gradient steps of any of them, and keeps their state with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from site_client.agent.experience import Lookup, NewExperience
from site_client.agent.networks.base import QNetwork
from site_client.agent.states import State
from site_client.agent.task import Situations, Task

Watch = Callable[[Situations], None]


class Method(Protocol):
    """A way of learning; draws from the learner's generator and changes its network's gradients."""

    @property
    def held(self) -> int:
        """Transitions kept for later."""

    def epsilon(self, progress: float) -> float:
        """Share of random actions after ``progress`` (0..1) of the planned updates."""

    def ask(self, lookup: Lookup | None, *, looked_up: bool) -> None:
        """Ask the federation what it knows of experience from now on; see `Knowledge.begin`."""

    def begin(self) -> int:
        """Gather what must be there before the first gradient; how many transitions."""

    def gather(self, progress: float) -> int:
        """Gather for one gradient step; how many transitions."""

    def backward(self, updates: int, progress: float) -> float:
        """Add the gradients of the mean loss over a batch, after so many updates; the loss."""

    def step_made(self, updates: int) -> None:
        """Take note that the network moved; ``updates`` counts this step."""

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Go on from the weights that the network was given."""

    def new_experience(self) -> NewExperience:
        """Return what was met, or replayed, since the last call; see `NewExperience`."""

    def state_dict(self) -> State:
        """Everything needed to go on exactly, beside network, optimiser and generator."""

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`.

        Raises:
            InternalError: the state belongs to another task or other settings.
        """


def parts_of(batch: int, network: nn.Module, task: Task) -> list[slice]:
    """Split a batch where the network remembers too much of each row for all at once.

    The gradients of the parts add up to that of the whole.
    """
    at_once = batch
    if isinstance(network, QNetwork) and network.gradient_rows is not None:
        at_once = max(1, network.gradient_rows // task.agents)
    return [slice(begin, begin + at_once) for begin in range(0, batch, at_once)]

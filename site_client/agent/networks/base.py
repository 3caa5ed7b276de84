"""Common to every Q-network: one forward signature, how it is run, where it starts from.

Initial values come from a generator that is passed in and from nothing else. A
network knows neither images nor tasks, only the sizes of what it is shown and
asked. Its inputs and outputs are float32, however it computes in between.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from common.errors import InputDataError
from site_client.agent.networks.absence import Absence
from site_client.agent.networks.execution import PLAIN, Execution

# A published 3D network needs 25 MB for each row it looks at.
_ELEMENTS_AT_ONCE = 2**21


class Spaces(Protocol):
    """The sizes that decide a network's shape; every task has them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *roi) of one agent's observation."""

    @property
    def actions(self) -> int:
        """Size of the action set."""

    @property
    def heads(self) -> int:
        """Number of different things that are looked for."""

    @property
    def levels(self) -> int:
        """Rungs of the ladder."""

    @property
    def agents(self) -> int:
        """Number of agents that search together."""


class QNetwork(nn.Module, ABC):
    """Action values of searches; subclasses say how to see and how to decide.

    Every agent under every head has a *branch* of its own, numbered head * agents + agent.

    Attributes:
        absence: what decides whether a landmark is absent; None where all are there.
        moves_all_axes: its values are read as a policy per axis, and a search moves along all
            axes at once; else the best action is taken.
        gradient_rows: observations (of single agents) that a gradient is taken of at once;
            a larger batch is taken in parts. None for networks that remember little of each.
    """

    gradient_rows: int | None = None

    def __init__(self, space: Spaces, *, dueling: bool) -> None:
        super().__init__()
        self.agents = space.agents
        self.actions = space.actions
        self.branches = space.heads * space.agents
        self.dueling = dueling
        self.absence: Absence | None = None
        self.moves_all_axes = False
        self.execution: Execution = PLAIN

    def forward(self, observations: Tensor, level: Tensor, head: Tensor) -> Tensor:
        """Values of all actions.

        Args:
            observations: float32[n[, agents], channels, *roi] in 0..1.
            level: int64[n], the rung of the ladder.
            head: int64[n], which thing is looked for.

        Returns:
            float32[n[, agents], actions]; the agents' axis is there if there are several.
        """
        with self._precision(observations.device.type):
            values = self.values(self._seen(observations), level, head).float()
        return values[:, 0] if self.agents == 1 else values

    def of_all_heads(self, observations: Tensor, level: Tensor) -> Tensor:
        """Values of all actions under every head: what is seen is looked at once.

        Args:
            observations: as of `forward`.
            level: as of `forward`.

        Returns:
            float32[n, heads[, agents], actions].
        """
        with self._precision(observations.device.type):
            values = self.values_of_all(self._seen(observations), level).float()
        return values[:, :, 0] if self.agents == 1 else values

    def _seen(self, observations: Tensor) -> Tensor:
        """[n, agents, features] of observations."""
        rows = observations if self.agents == 1 else observations.flatten(0, 1)
        if self.execution.channels_last:
            layout = torch.channels_last if rows.ndim == 4 else torch.channels_last_3d
            rows = rows.contiguous(memory_format=layout)
        return self._looked_at(rows).view(observations.shape[0], self.agents, -1)

    def _looked_at(self, rows: Tensor) -> Tensor:
        """`features`, a part at a time where nothing has to be kept for gradients."""
        part = max(2, _ELEMENTS_AT_ONCE // rows[0].numel()) if len(rows) else 1
        if torch.is_grad_enabled() or len(rows) <= part:
            return self.features(rows)
        return torch.cat([self.features(chunk) for chunk in torch.split(rows, part)])

    @abstractmethod
    def features(self, rows: Tensor) -> Tensor:
        """[rows, features] of observations [rows, channels, *roi]."""

    @abstractmethod
    def values(self, seen: Tensor, level: Tensor, head: Tensor) -> Tensor:
        """[n, agents, actions] of features [n, agents, features]."""

    def values_of_all(self, seen: Tensor, level: Tensor) -> Tensor:
        """[n, heads, agents, actions] of features [n, agents, features]."""
        n, heads = len(seen), self.branches // self.agents
        every = torch.arange(heads, device=seen.device).repeat(n)
        rows, rungs = seen.repeat_interleave(heads, 0), level.repeat_interleave(heads)
        return self.values(rows, rungs, every).view(n, heads, self.agents, -1)

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters; equal generators give equal networks."""

    def branch_of(self, head: Tensor) -> Tensor:
        """int64[n, agents]: each agent's branch under heads int64[n]."""
        return head[:, None] * self.agents + torch.arange(self.agents, device=head.device)

    @contextmanager
    def _precision(self, device: str) -> Iterator[None]:
        if self.execution.bfloat16:
            with torch.autocast(device, dtype=torch.bfloat16):
                yield
        else:
            yield


def duel(advantage: Tensor, state: Tensor) -> Tensor:
    """Values from advantages [..., actions] and the state's value [..., 1].

    Source: Wang et al., Dueling Network Architectures, ICML 2016, equation 9.
    """
    return state + advantage - advantage.mean(dim=-1, keepdim=True)


@torch.no_grad()
def draw_uniform(weight: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with values within ±bound."""
    weight.uniform_(-bound, bound, generator=generator)


def he_bound(fan_in: int) -> float:
    """Bound that keeps the variance through ReLUs. Source: He et al., ICCV 2015."""
    return math.sqrt(6 / fan_in)


def xavier_bound(fan_in: int, fan_out: int) -> float:
    """Bound of the published networks' first weights. Source: Glorot & Bengio, AISTATS 2010."""
    return math.sqrt(6 / (fan_in + fan_out))


def check_observation(space: Spaces, architecture: str, dims: int, least: int) -> None:
    """Refuse observations that an architecture cannot look at.

    Args:
        space: the task's sizes.
        architecture: for the message.
        dims: axes of the ROI it takes.
        least: shortest side that leaves something after its last convolution.

    Raises:
        InputDataError: another number of axes, or too small.
    """
    roi = space.shape[1:]
    if len(roi) != dims or min(roi) < least:
        raise InputDataError(
            "the task does not fit the network",
            field=f"network.architecture {architecture}",
            expected=f"used with observations of {dims} axes, each {least} or longer",
            got=f"[{', '.join(map(str, space.shape))}] (channels first)",
            advice="Choose another architecture or another task.",
        )

"""One output layer for all branches: how the 2D and the light networks decide.

One small layer that answers for every branch, of which each row takes its own, is
cheaper than fetching each row's own weights.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from site_client.agent.networks.base import QNetwork, draw_uniform, duel, he_bound


class SharedOutputs(QNetwork):
    """A network whose branches differ in their outputs alone.

    Attributes:
        heads: the actions' values, or advantages, of all branches.
        state: the states' values, None without dueling.
    """

    heads: nn.Linear
    state: nn.Linear | None

    def add_outputs(self, size: int) -> None:
        """Add the last layer, after all others: initial values are drawn in their order.

        Args:
            size: features that the last dense layer gives.
        """
        self.heads = nn.Linear(size, self.branches * self.actions)
        self.state = nn.Linear(size, self.branches) if self.dueling else None

    @abstractmethod
    def deciding(self, seen: Tensor, level: Tensor) -> Tensor:
        """[n, agents, size]: what all branches decide by, of features [n, agents, features]."""

    def values(self, seen: Tensor, level: Tensor, head: Tensor) -> Tensor:
        """[n, agents, actions] of features [n, agents, features]."""
        return self.decide(self.deciding(seen, level), head)

    def values_of_all(self, seen: Tensor, level: Tensor) -> Tensor:
        """[n, heads, agents, actions] of features [n, agents, features]: one product for all."""
        x = self.deciding(seen, level)
        values = self.heads(x).view(x.shape[0], self.agents, -1, self.agents, self.actions)
        if self.state is not None:
            state = self.state(x).view(x.shape[0], self.agents, -1, self.agents, 1)
            values = duel(values, state)
        # Each agent decides by what it sees itself.
        own: Tensor = values.diagonal(dim1=1, dim2=3).permute(0, 1, 3, 2)
        return own

    def decide(self, x: Tensor, head: Tensor) -> Tensor:
        """[n, agents, actions] of the last dense layer's features [n, agents, size]."""
        values = self.heads(x).view(-1, self.branches, self.actions)
        branch = self.branch_of(head).flatten()
        rows = torch.arange(values.shape[0], device=values.device)
        chosen: Tensor = values[rows, branch]
        if self.state is not None:
            chosen = duel(chosen, self.state(x).view(-1, self.branches)[rows, branch][:, None])
        return chosen.view(-1, self.agents, self.actions)

    def initialise(self, generator: torch.Generator) -> None:
        """He-uniform weights, zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            else:
                draw_uniform(parameter, he_bound(parameter[0].numel()), generator)

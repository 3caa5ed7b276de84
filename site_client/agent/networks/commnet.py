"""Agents that hear each other: every dense layer also gets what all agents felt.

Source: Leroy, Rueckert & Alansary, Communicative Reinforcement Learning Agents for
Landmark Detection in Brain Images, MLCN 2020; sizes as in rl-medical's CommNet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from site_client.agent.networks.base import Spaces
from site_client.agent.networks.volume import Network3D


class CommNet(Network3D):
    """`Network3D` with [own, message] before each dense layer.

    The message is the mean over the agents or, with attention, a learned mixture of
    them that each agent has for itself at each layer (softmax of `attend{layer}`,
    float32[agents, agents], listener first).
    """

    def __init__(
        self, space: Spaces, hidden: tuple[int, ...], *, dueling: bool, attention: bool
    ) -> None:
        super().__init__(space, hidden, dueling=dueling, architecture="commnet", hears=2)
        self.attention = attention
        if attention:
            for i in range(self.depth + 1):
                scores = nn.Parameter(torch.empty(self.agents, self.agents))
                self.register_parameter(f"attend{i}", scores)

    def shared(self, x: Tensor, layer: int) -> Tensor:
        """[n, agents, 2 * features]: each agent's own and what it hears."""
        if self.attention:
            mixture = torch.softmax(self.get_parameter(f"attend{layer}"), dim=1)
            messages = torch.einsum("ls,nsf->nlf", mixture, x).to(x.dtype)
        else:
            messages = x.mean(dim=1, keepdim=True).expand_as(x)
        return torch.cat([x, messages], dim=2)

    def initialise(self, generator: torch.Generator) -> None:
        """As `Network3D`; normally distributed attention."""
        super().initialise(generator)
        if self.attention:
            with torch.no_grad():
                for i in range(self.depth + 1):
                    self.get_parameter(f"attend{i}").normal_(generator=generator)

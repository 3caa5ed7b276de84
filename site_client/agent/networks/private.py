"""Dense layers of which every branch (an agent under a head) has its own.

All branches' parameters lie in one tensor, so that a batch of any mixture of
branches is one multiplication and one gather, never a loop over agents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from site_client.agent.networks.base import draw_uniform, xavier_bound


class PrivateLinear(nn.Module):
    """A linear layer per branch.

    Attributes:
        weight: float32[branches, out, in].
        bias: float32[branches, out].
    """

    def __init__(self, agents: int, branches: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.agents = agents
        self.weight = nn.Parameter(torch.empty(branches, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(branches, outputs))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """[n, agents, out] from x [n, agents, in] and branch int64[n, agents]."""
        _, outputs, inputs = self.weight.shape
        if len(self.weight) == self.agents:
            return torch.einsum("nai,aoi->nao", x, self.weight) + self.bias
        # All heads of a dense layer cost less than one convolution, and less than
        # fetching each row's own matrix would.
        weight = self.weight.view(-1, self.agents, outputs, inputs)
        everyone = torch.einsum("nai,haoi->nhao", x, weight)
        head = branch[:, 0] // self.agents
        return everyone[torch.arange(x.shape[0], device=x.device), head] + self.bias[branch]

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform weights as the published networks', zero biases."""
        _, outputs, inputs = self.weight.shape
        draw_uniform(self.weight, xavier_bound(inputs, outputs), generator)
        nn.init.zeros_(self.bias)


class PrivatePReLU(nn.Module):
    """A leaky ReLU whose slope every branch learns for itself.

    Attributes:
        weight: float32[branches], the slopes below zero.
    """

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(branches))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """The same shape as x [n, agents, features]."""
        slope = self.weight[branch][..., None].to(x.dtype)
        return x.clamp(min=0) + slope * x.clamp(max=0)

    def initialise(self) -> None:
        """Torch's usual slope."""
        nn.init.constant_(self.weight, 0.25)

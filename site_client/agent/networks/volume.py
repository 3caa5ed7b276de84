"""The field's 3D network: four convolutions shared by all agents, private dense layers.

Sizes and order as in rl-medical's Network3D (convolution, PReLU, pooling), whose
weights `site_client.agent.import_weights` can read; one agent with six actions on
four frames has 550,860 parameters. The level is not shown to it, as it is not there.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from site_client.agent.networks.base import (
    QNetwork,
    Spaces,
    check_observation,
    draw_uniform,
    duel,
    xavier_bound,
)
from site_client.agent.networks.private import PrivateLinear, PrivatePReLU

# (kernel, channels, padding) of each convolution; the last is not pooled.
_LAYERS = ((5, 32, 1), (5, 32, 1), (4, 64, 1), (3, 64, 0))
_LEAST_SIDE = 34


class VolumeTrunk(nn.Module):
    """Convolutions on observations [rows, channels, x, y, z]; 512 features of a 45³ ROI."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *roi = shape
        for i, (kernel, out, padding) in enumerate(_LAYERS):
            self.add_module(f"conv{i}", nn.Conv3d(channels, out, kernel, padding=padding))
            self.add_module(f"prelu{i}", nn.PReLU())
            shrink = 1 if i == len(_LAYERS) - 1 else 2
            roi = [(side + 2 * padding - kernel + 1) // shrink for side in roi]
            channels = out
        self.size = channels * roi[0] * roi[1] * roi[2]

    def forward(self, rows: Tensor) -> Tensor:
        """[rows, features]."""
        for i in range(len(_LAYERS)):
            # The slopes may be negative, so that pooling first would not be the same.
            rows = self.get_submodule(f"prelu{i}")(self.get_submodule(f"conv{i}")(rows))
            if i < len(_LAYERS) - 1:
                rows = functional.max_pool3d(rows, 2)
        return rows.flatten(1)

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier-uniform weights, zero biases, slopes of 0.25."""
        for i, (kernel, _, _) in enumerate(_LAYERS):
            conv, prelu = self.get_submodule(f"conv{i}"), self.get_submodule(f"prelu{i}")
            weight = conv.get_parameter("weight")
            field = kernel**3
            bound = xavier_bound(weight.shape[1] * field, weight.shape[0] * field)
            draw_uniform(weight, bound, generator)
            nn.init.zeros_(conv.get_parameter("bias"))
            nn.init.constant_(prelu.get_parameter("weight"), 0.25)


class Network3D(QNetwork):
    """Shared convolutions; each branch has dense layers and PReLU slopes of its own.

    Args:
        space: the task's sizes; the ROI must be a volume.
        hidden: sizes of the private dense layers; (256, 128) are the published ones.
        dueling: values and advantages apart.
        architecture: for the message when they do not fit.
        hears: how often each dense layer gets its input's width, for networks that
            append what other agents say.

    Raises:
        InputDataError: the ROI is no volume, or too small.
    """

    # Some 80 MB are in use for each until its gradient is taken, what is freed on the way included.
    gradient_rows = 8

    def __init__(
        self,
        space: Spaces,
        hidden: tuple[int, ...],
        *,
        dueling: bool,
        architecture: str = "network3d",
        hears: int = 1,
    ) -> None:
        super().__init__(space, dueling=dueling)
        check_observation(space, architecture, dims=3, least=_LEAST_SIDE)
        self.trunk = VolumeTrunk(space.shape)
        sizes = [self.trunk.size, *hidden]
        self.depth = len(hidden)
        self.fc = nn.ModuleList(
            PrivateLinear(self.agents, self.branches, hears * i, o) for i, o in pairwise(sizes)
        )
        self.prelu = nn.ModuleList(PrivatePReLU(self.branches) for _ in hidden)
        last = hears * sizes[-1]
        self.heads = PrivateLinear(self.agents, self.branches, last, self.actions)
        self.state = PrivateLinear(self.agents, self.branches, last, 1) if dueling else None

    def features(self, rows: Tensor) -> Tensor:
        """[rows, features] of observations [rows, channels, x, y, z]."""
        seen: Tensor = self.trunk(rows)
        return seen

    def values(self, seen: Tensor, level: Tensor, head: Tensor) -> Tensor:  # noqa: ARG002
        """[n, agents, actions] of features [n, agents, features]; the level is not looked at."""
        branch = self.branch_of(head)
        for i in range(self.depth):
            seen = self.prelu[i](self.fc[i](self.shared(seen, i), branch), branch)
        last = self.shared(seen, self.depth)
        values: Tensor = self.heads(last, branch)
        return values if self.state is None else duel(values, self.state(last, branch))

    def shared(self, x: Tensor, layer: int) -> Tensor:  # noqa: ARG002
        """Return the input of the dense layer number `layer`: here each agent's own features."""
        return x

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier-uniform weights, zero biases, slopes of 0.25."""
        self.trunk.initialise(generator)
        layers = [*self.fc, self.heads, *([] if self.state is None else [self.state])]
        for layer in layers:
            if isinstance(layer, PrivateLinear):
                layer.initialise(generator)
        for slopes in self.prelu:
            if isinstance(slopes, PrivatePReLU):
                slopes.initialise()

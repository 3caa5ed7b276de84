"""The Q-network: three orthogonal cuts in, one value per action out.

A light strided convolutional trunk is shared by all landmarks and levels; the
level enters as a one-hot vector, and every landmark has a head of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.model import Weights, check_weights, weight_shapes
from common.plan import FederationPlan
from site_client.agent.environment import ACTIONS, Situations


class TriplanarQ(nn.Module):
    """Action values of one landmark search per row.

    Built with torch's own initial values; call `set_weights` before use.
    """

    def __init__(self, plan: FederationPlan) -> None:
        super().__init__()
        shapes = weight_shapes(plan)
        self.levels = len(plan.agent.scales)
        self.landmarks = len(plan.task.landmarks)
        out1, out2, out3 = (shapes[f"conv{i}.weight"][0] for i in (1, 2, 3))
        self.conv1 = nn.Conv2d(3, out1, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(out1, out2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(out2, out3, 3, stride=2, padding=1)
        dense = {name: shapes[f"{name}.weight"] for name in ("fc1", "fc2", "heads")}
        self.fc1, self.fc2, self.heads = (nn.Linear(i, o) for o, i in dense.values())

    def forward(self, crops: Tensor, level: Tensor, landmark: Tensor) -> Tensor:
        """float32[n, actions] from crops float32[n, 3, roi, roi], level and landmark int64[n]."""
        x = functional.relu(self.conv1(crops))
        x = functional.relu(self.conv2(x))
        x = functional.relu(self.conv3(x)).flatten(1)
        ladder = functional.one_hot(level, self.levels).to(x.dtype)
        x = functional.leaky_relu(self.fc1(torch.cat([x, ladder], dim=1)))
        x = functional.leaky_relu(self.fc2(x))
        values: Tensor = self.heads(x).view(-1, self.landmarks, ACTIONS)
        return values[torch.arange(len(values)), landmark]


def to_tensors(crops: NDArray[np.uint8], at: Situations) -> tuple[Tensor, Tensor, Tensor]:
    """Crops uint8[n, 3, roi, roi] and their situations as the network's inputs."""
    pixels = torch.from_numpy(crops).to(torch.float32).mul_(1 / 255)
    level = torch.from_numpy(at["level"].astype(np.int64))
    return pixels, level, torch.from_numpy(at["landmark"].astype(np.int64))


def get_weights(network: nn.Module) -> Weights:
    """A copy of all parameters as numpy arrays."""
    return {name: value.detach().numpy().copy() for name, value in network.named_parameters()}


@torch.no_grad()
def set_weights(
    network: nn.Module, weights: Mapping[str, NDArray[np.float32]], plan: FederationPlan
) -> None:
    """Overwrite all parameters.

    Raises:
        InputDataError: the weights are not this plan's.
    """
    check_weights(weights, plan)
    for name, parameter in network.named_parameters():
        parameter.copy_(torch.from_numpy(np.array(weights[name])))


def network_with(weights: Mapping[str, NDArray[np.float32]], plan: FederationPlan) -> TriplanarQ:
    """A network for acting, with the given weights."""
    network = TriplanarQ(plan)
    set_weights(network, weights, plan)
    network.requires_grad_(requires_grad=False)
    return network

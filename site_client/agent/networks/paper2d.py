"""The 2D multitask network of the field's paper on one agent for several modalities.

Four convolutions, each with max-pooling and ReLU, and four dense layers with leaky
ReLU, on four frames of 45×45. Source: Parekh et al., Multitask radiological modality
invariant landmark localization using deep reinforcement learning, MIDL 2020; kernels
and channels, which it leaves open, are those of the field's 3D network.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from site_client.agent.networks.base import Spaces, check_observation
from site_client.agent.networks.outputs import SharedOutputs

# (kernel, channels, padding) of each convolution.
_LAYERS = ((5, 32, 2), (5, 32, 2), (4, 64, 1), (3, 64, 1))
_FIRST_DENSE = 512
_LEAST_SIDE = 20


class Paper2D(SharedOutputs):
    """Pooled 2D convolutions, dense layers 512 and `hidden`, one output layer for all branches.

    The level is not shown to it, as it is not in the paper.
    """

    def __init__(self, space: Spaces, hidden: tuple[int, ...], *, dueling: bool) -> None:
        super().__init__(space, dueling=dueling)
        check_observation(space, "paper2d", dims=2, least=_LEAST_SIDE)
        channels, *roi = space.shape
        self.convs = nn.ModuleList()
        for kernel, out, padding in _LAYERS:
            self.convs.append(nn.Conv2d(channels, out, kernel, padding=padding))
            channels, roi = out, [(side + 2 * padding - kernel + 1) // 2 for side in roi]
        sizes = [channels * math.prod(roi), _FIRST_DENSE, *hidden]
        self.dense = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.add_outputs(sizes[-1])

    def features(self, rows: Tensor) -> Tensor:
        """[rows, features] of observations [rows, channels, y, x]."""
        for conv in self.convs:
            rows = functional.relu(functional.max_pool2d(conv(rows), 2))
        return rows.flatten(1)

    def deciding(self, seen: Tensor, level: Tensor) -> Tensor:  # noqa: ARG002
        """[n, agents, size] of features [n, agents, features]: the dense layers."""
        for layer in self.dense:
            seen = functional.leaky_relu(layer(seen))
        return seen

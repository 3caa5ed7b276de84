"""Light strided networks: the default in 2D, for three orthogonal cuts and in 3D.

Strides instead of pooling leave an eighth of the work in the first layer of a
volume. The trunk is shared by all branches and levels; the level enters as a
one-hot vector, and every branch has outputs of its own.

For a federation's three cuts, names and shapes are those of
`common.model.weight_shapes`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from site_client.agent.networks.base import Spaces, check_observation
from site_client.agent.networks.outputs import SharedOutputs

# Channels of each convolution in multiples of the width, by the ROI's number of axes.
# A volume takes a fourth: its features, and with them the dense weights, shrink eightfold.
_WIDTHS = {2: (1, 2, 2), 3: (1, 2, 4, 4)}


class LightQ(SharedOutputs):
    """Strided convolutions, dense layers, one output layer for all branches.

    Args:
        space: the task's sizes; the ROI's axes decide between 2D and 3D.
        width: channels of the first convolution.
        hidden: sizes of the dense layers.
        dueling: values and advantages apart.
        architecture: for the message when they do not fit.
        dims: axes of the ROI.

    Raises:
        InputDataError: the ROI has other axes.
    """

    def __init__(
        self,
        space: Spaces,
        width: int,
        hidden: tuple[int, ...],
        *,
        dueling: bool,
        architecture: str,
        dims: int,
    ) -> None:
        super().__init__(space, dueling=dueling)
        check_observation(space, architecture, dims, least=2)
        self.levels = space.levels
        channels, *roi = space.shape
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self._convs: list[str] = []
        for i, multiple in enumerate(_WIDTHS[dims], start=1):
            kernel = 5 if i == 1 else 3
            layer = convolution(channels, multiple * width, kernel, stride=2, padding=kernel // 2)
            self._convs.append(f"conv{i}")
            self.add_module(self._convs[-1], layer)
            channels, roi = multiple * width, [(side + 1) // 2 for side in roi]
        size = channels * math.prod(roi) + self.levels
        self._dense = [f"fc{i}" for i in range(1, len(hidden) + 1)]
        for name, outputs in zip(self._dense, hidden, strict=True):
            self.add_module(name, nn.Linear(size, outputs))
            size = outputs
        self.add_outputs(size)

    def features(self, rows: Tensor) -> Tensor:
        """[rows, features] of observations [rows, channels, *roi]."""
        for name in self._convs:
            rows = functional.relu(self.get_submodule(name)(rows))
        return rows.flatten(1)

    def deciding(self, seen: Tensor, level: Tensor) -> Tensor:
        """[n, agents, size] of features [n, agents, features]: the dense layers."""
        rung = functional.one_hot(level, self.levels).to(seen.dtype)
        x = torch.cat([seen, rung[:, None].expand(-1, self.agents, -1)], dim=2)
        for name in self._dense:
            x = functional.leaky_relu(self.get_submodule(name)(x))
        return x

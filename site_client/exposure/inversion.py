"""Features back to pictures by descent through the known convolutions, whatever they are.

A picture is sought whose features point where the given ones point and are as large,
and that is smooth where they leave it open. Bounded work: fewer pictures are sought
where a network is large, always with the same number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from site_client.agent.network import use_deterministic_torch

STEPS: Final = 200
MOST_PICTURES: Final = 48
_LARGEST_WORK = 3e10
"""Multiplications of all forward passes together; a few seconds of one core."""
_LAYERS = ("conv1", "conv2", "conv3")
_RATE = 0.3
_SIZE = 0.05
# How much smoothness weighs at first and at last: shapes come first, then what is in them.
_SMOOTH = (0.1, 0.004)
_TINY = 1e-12


def affordable(weights: Mapping[str, NDArray[np.float32]], roi: int) -> int:
    """Count the pictures that `invert` may seek within its bound on work; at least one."""
    each, side = 0, roi
    for name in _LAYERS:
        side = (side + 1) // 2
        each += math.prod(weights[f"{name}.weight"].shape) * side * side
    return int(min(MOST_PICTURES, max(1, _LARGEST_WORK // (each * STEPS))))


def features_of(
    weights: Mapping[str, NDArray[np.float32]], pictures: NDArray[np.float32]
) -> NDArray[np.float64]:
    """float64[n, features] of pictures float32[n, cuts, roi, roi] in grey levels."""
    use_deterministic_torch()
    with torch.no_grad():
        seen = _look(_convolutions(weights), torch.from_numpy(pictures) / 255)
    return np.asarray(seen.numpy(), np.float64)


def invert(
    weights: Mapping[str, NDArray[np.float32]],
    roi: int,
    values: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float32]:
    """Pictures float32[n, cuts, roi, roi], in grey levels, whose features these might be.

    Args:
        weights: of the convolutions.
        roi: side of a cut.
        values: float64[n, features], n at most `affordable`.
        seed: of the pictures begun with.
    """
    use_deterministic_torch()
    layers = _convolutions(weights)
    cuts = layers[0][0].shape[1]
    targets = torch.from_numpy(np.maximum(values, 0.0).astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    start = 0.1 * torch.randn((len(values), cuts, roi, roi), generator=generator)
    logits = start.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=_RATE)
    for smooth in np.geomspace(*_SMOOTH, STEPS).tolist():
        optimizer.zero_grad()
        pictures = torch.sigmoid(logits)
        # Each picture has a loss of its own; their sum keeps them apart.
        losses = _apart(_look(layers, pictures), targets) + smooth * _roughness(pictures)
        losses.sum().backward()
        optimizer.step()
    return np.asarray(255 * torch.sigmoid(logits).detach().numpy())


def _convolutions(weights: Mapping[str, NDArray[np.float32]]) -> list[tuple[Tensor, Tensor]]:
    """Kernels and biases, copied: the weights belong to somebody else."""
    return [
        (
            torch.from_numpy(np.array(weights[f"{name}.weight"])),
            torch.from_numpy(np.array(weights[f"{name}.bias"])),
        )
        for name in _LAYERS
    ]


def _look(layers: list[tuple[Tensor, Tensor]], pictures: Tensor) -> Tensor:
    """[n, features] of pictures [n, cuts, roi, roi] in 0..1, as `LightQ.features` sees them."""
    x = pictures
    for kernel, bias in layers:
        padding = kernel.shape[-1] // 2
        x = functional.relu(functional.conv2d(x, kernel, bias, stride=2, padding=padding))
    return x.flatten(1)


def _apart(features: Tensor, targets: Tensor) -> Tensor:
    """float32[n]: how far features are from the wanted ones, in direction and in size."""
    size, aim = features.norm(dim=1) + _TINY, targets.norm(dim=1) + _TINY
    direction = 1 - (features * targets).sum(dim=1) / (size * aim)
    apart: Tensor = direction + _SIZE * (size.log() - aim.log()).square()
    return apart


def _roughness(pictures: Tensor) -> Tensor:
    """float32[n]: mean absolute step between neighbouring pixels."""
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().flatten(1).mean(dim=1)
    right = (pictures[..., 1:] - pictures[..., :-1]).abs().flatten(1).mean(dim=1)
    return down + right

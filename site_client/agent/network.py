"""Common operations on any Q-network: weights in, weights out, values of situations.

The networks themselves are in ``networks``; nothing here knows their insides.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.model import Weights, check_shapes
from site_client.agent.task import Situations, Task

_CHUNK = 256


def use_deterministic_torch(threads: int = 1) -> None:
    """Few threads and deterministic kernels: sums in another order give other weights.

    One thread unless told: two that contend for cores spend more than twice the time.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    # Nothing here reads memory before it wrote it; filling it first costs a twentieth.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def device_of(network: nn.Module) -> torch.device:
    """Say where a network computes."""
    return next(network.parameters()).device


def to_tensors(
    crops: NDArray[np.uint8], situations: Situations, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Observations uint8[n[, agents], *shape] and their situations as a network's inputs."""
    pixels = torch.from_numpy(crops).to(device).to(torch.float32).mul_(1 / 255)
    level = torch.from_numpy(situations["level"].astype(np.int64)).to(device)
    return pixels, level, torch.from_numpy(situations["head"].astype(np.int64)).to(device)


@torch.no_grad()
def network_values(task: Task, network: nn.Module, situations: Situations) -> NDArray[np.float32]:
    """float32[n[, agents], actions] of situations, in chunks that fit the processor's cache."""
    parts = [situations[i : i + _CHUNK] for i in range(0, len(situations), _CHUNK)]
    device = device_of(network)
    values = [network(*to_tensors(task.observe(part), part, device)) for part in parts]
    return np.concatenate([each.cpu().numpy() for each in values])


def get_weights(network: nn.Module) -> Weights:
    """A copy of all parameters and buffers as numpy arrays."""
    return {
        name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()
    }


@torch.no_grad()
def set_weights(network: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Overwrite all parameters and buffers.

    Raises:
        InputDataError: missing or extra names, another shape or type, a value not finite.
    """
    state = network.state_dict()
    check_shapes(weights, {k: tuple(v.shape) for k, v in state.items()}, "the network")
    for name, parameter in state.items():
        parameter.copy_(torch.from_numpy(np.array(weights[name])))


def set_some_weights(network: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Overwrite some parameters, by name.

    Raises:
        InputDataError: as `set_weights`.
    """
    if weights:
        set_weights(network, {**get_weights(network), **weights})

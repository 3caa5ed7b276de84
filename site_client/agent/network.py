"""The federation's Q-network, and what is done with any network: weights in, weights out.

Three orthogonal cuts in, one value per action out. A light strided convolutional
trunk is shared by all landmarks and levels; the level enters as a one-hot vector,
and every landmark has a head of its own. Other architectures: ``networks``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.errors import InputDataError
from common.model import Weights, weight_shapes
from common.plan import FederationPlan
from site_client.agent.task import Situations, Task

_CHUNK = 256


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
        values: Tensor = self.heads(x).view(len(x), self.landmarks, -1)
        return values[torch.arange(len(values)), landmark]


def use_deterministic_torch(threads: int = 1) -> None:
    """Few threads and deterministic kernels: sums in another order give other weights.

    One thread unless told: two that contend for cores spend more than twice the time.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)


def to_tensors(crops: NDArray[np.uint8], at: Situations) -> tuple[Tensor, Tensor, Tensor]:
    """Observations uint8[n[, agents], *shape] and their situations as a network's inputs."""
    pixels = torch.from_numpy(crops).to(torch.float32).mul_(1 / 255)
    level = torch.from_numpy(at["level"].astype(np.int64))
    return pixels, level, torch.from_numpy(at["head"].astype(np.int64))


@torch.no_grad()
def network_values(task: Task, network: nn.Module, at: Situations) -> NDArray[np.float32]:
    """float32[n[, agents], actions] of situations, in chunks that fit the processor's cache."""
    parts = [at[i : i + _CHUNK] for i in range(0, len(at), _CHUNK)]
    return np.concatenate([network(*to_tensors(task.observe(p), p)).numpy() for p in parts])


def get_weights(network: nn.Module) -> Weights:
    """A copy of all parameters and buffers as numpy arrays."""
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


@torch.no_grad()
def set_weights(network: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Overwrite all parameters and buffers.

    Raises:
        InputDataError: missing or extra names, another shape or type, a value not finite.
    """
    wanted = network.state_dict()
    if set(weights) != set(wanted):
        raise InputDataError(
            "weights of another network",
            field="weights",
            expected=f"the network's {len(wanted)} names",
            got=f"{len(set(wanted) - set(weights))} missing, "
            f"{len(set(weights) - set(wanted))} unknown",
        )
    for name, parameter in wanted.items():
        value, shape = weights[name], tuple(parameter.shape)
        finite = value.dtype == np.float32 and bool(np.isfinite(value).all())
        if value.shape != shape or not finite:
            raise InputDataError(
                "weights of another network",
                field=f"weights/{name}",
                expected=f"finite float32{list(shape)}",
                got=f"{value.dtype}{list(value.shape)}" + ("" if finite else ", not finite"),
            )
    for name, parameter in wanted.items():
        parameter.copy_(torch.from_numpy(np.array(weights[name])))

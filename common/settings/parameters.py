"""Parameters of every architecture: name, shape and first value, without torch.

Whoever adds up, measures or verifies models knows their sizes from here; the networks
themselves are the agent's. A test holds each architecture against torch's own
``state_dict``, names and order included. Sources of the sizes and of the first values
stand with the networks in ``site_client.agent.networks``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from common.settings.agent import NetworkSettings
from common.settings.misfit import MisfitError
from common.settings.spaces import Space

# Channels of each convolution in multiples of the width, by the view's number of axes.
_LIGHT: Final = {2: (1, 2, 2), 3: (1, 2, 4, 4)}
_LIGHT_DIMS: Final = {"triplanar": 2, "planar": 2, "volume-light": 3}
# (kernel, channels, padding) of each convolution; pooled, but for the last in volumes.
_PAPER: Final = ((5, 32, 2), (5, 32, 2), (4, 64, 1), (3, 64, 1))
_VOLUME: Final = ((5, 32, 1), (5, 32, 1), (4, 64, 1), (3, 64, 0))
_FIRST_DENSE: Final = 512
_LEAST_SIDE: Final = {"paper2d": 20, "network3d": 34, "commnet": 34, "collab": 34}
_SLOPE: Final = 0.25
ABSENCE_SIGNS: Final = 7
"""Signs that a search gives of a landmark's absence; see `site_client.agent.absence`."""


@dataclass(frozen=True)
class Parameter:
    """One array of a network.

    Attributes:
        shape: of it.
        first: ``constant``: every value is ``scale``; ``uniform``: within ± ``scale``;
            ``normal``: of standard deviation ``scale``.
        scale: see there.
        branch_rows: rows of the first axis that belong to each branch, an agent under a head,
            those of a branch adjacent; 0 where all branches share the array.
    """

    shape: tuple[int, ...]
    first: Literal["constant", "uniform", "normal"]
    scale: float
    branch_rows: int = 0


Named = Iterator[tuple[str, Parameter]]


def parameters_of(network: NetworkSettings, space: Space) -> dict[str, Parameter]:
    """Name to parameter, in the network's order.

    Raises:
        MisfitError: the view is not one that the architecture can look at.
    """
    name = network.architecture
    dims = _LIGHT_DIMS.get(name, 2 if name == "paper2d" else 3)
    least = _LEAST_SIDE.get(name, 2)
    if len(space.shape) != dims + 1 or min(space.shape[1:]) < least:
        raise MisfitError(
            "task.roi",
            f"{least} or more for {name}, in views of {dims} axes",
            " x ".join(map(str, space.shape[1:])),
        )
    if name in _LIGHT_DIMS:
        searches = _light(network, space, dims)
    else:
        searches = _paper(network, space) if name == "paper2d" else _volume(network, space)
    return {**dict(searches), **dict(_absence(space))}


def light_side(roi: int, convolutions: int = 3) -> int:
    """Side of a light network's last feature map: strides of 2, padded to keep the edges."""
    for _ in range(convolutions):
        roi = _halved(roi)
    return roi


def _halved(side: int) -> int:
    return (side + 1) // 2


def _light(network: NetworkSettings, space: Space, dims: int) -> Named:
    channels, *roi = space.shape
    for i, multiple in enumerate(_LIGHT[dims], start=1):
        outputs = multiple * network.width
        yield from _he(f"conv{i}", (outputs, channels, *(5 if i == 1 else 3,) * dims))
        channels, roi = outputs, [_halved(side) for side in roi]
    sizes = [channels * math.prod(roi) + space.levels, *network.hidden]
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        yield from _he(f"fc{i}", (outputs, inputs))
    yield from _shared_outputs(network, space, sizes[-1])


def _paper(network: NetworkSettings, space: Space) -> Named:
    channels, *roi = space.shape
    for i, (kernel, outputs, padding) in enumerate(_PAPER):
        yield from _he(f"convs.{i}", (outputs, channels, kernel, kernel))
        channels, roi = outputs, [(side + 2 * padding - kernel + 1) // 2 for side in roi]
    sizes = [channels * math.prod(roi), _FIRST_DENSE, *network.hidden]
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        yield from _he(f"dense.{i}", (outputs, inputs))
    yield from _shared_outputs(network, space, sizes[-1])


def _volume(network: NetworkSettings, space: Space) -> Named:
    name, branches, agents = network.architecture, len(space.labels), space.agents
    hidden = (_FIRST_DENSE, *network.hidden) if name == "collab" else network.hidden
    if network.attention:
        for i in range(len(hidden) + 1):
            yield f"attend{i}", Parameter((agents, agents), "normal", 1.0)
    channels, *roi = space.shape
    for i, (kernel, outputs, padding) in enumerate(_VOLUME):
        yield from _xavier(f"trunk.conv{i}", (outputs, channels, *(kernel,) * 3))
        yield f"trunk.prelu{i}.weight", Parameter((1,), "constant", _SLOPE)
        shrink = 1 if i == len(_VOLUME) - 1 else 2
        channels, roi = outputs, [(side + 2 * padding - kernel + 1) // shrink for side in roi]
    hears = 2 if name == "commnet" else 1
    sizes = [channels * math.prod(roi), *hidden]
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        yield from _private(f"fc.{i}", branches, outputs, hears * inputs)
    for i in range(len(hidden)):
        yield f"prelu.{i}.weight", Parameter((branches,), "constant", _SLOPE, 1)
    yield from _private("heads", branches, space.actions, hears * sizes[-1])
    if network.dueling:
        yield from _private("state", branches, 1, hears * sizes[-1])


def _absence(space: Space) -> Named:
    """Name what decides whether a landmark is absent; no gradient moves it."""
    if not space.absence:
        return
    branches = len(space.labels)
    yield "absence.places", Parameter((branches, space.absence), "constant", 0.0, 1)
    yield "absence.shares", Parameter((branches,), "constant", 0.0, 1)
    yield "absence.weights", Parameter((ABSENCE_SIGNS + 1,), "constant", 0.0)


def _shared_outputs(network: NetworkSettings, space: Space, inputs: int) -> Named:
    """One layer for all branches, and one for the states' values where there are any."""
    branches = len(space.labels)
    yield from _he("heads", (branches * space.actions, inputs), space.actions)
    if network.dueling:
        yield from _he("state", (branches, inputs), 1)


def _he(name: str, shape: tuple[int, ...], rows: int = 0) -> Named:
    """Name a layer whose first weights keep the variance through ReLUs."""
    bound = math.sqrt(6 / math.prod(shape[1:]))
    yield f"{name}.weight", Parameter(shape, "uniform", bound, rows)
    yield f"{name}.bias", Parameter(shape[:1], "constant", 0.0, rows)


def _xavier(name: str, shape: tuple[int, ...]) -> Named:
    """Name a convolution as the published networks draw it."""
    field = math.prod(shape[2:])
    bound = math.sqrt(6 / (shape[1] * field + shape[0] * field))
    yield f"{name}.weight", Parameter(shape, "uniform", bound)
    yield f"{name}.bias", Parameter(shape[:1], "constant", 0.0)


def _private(name: str, branches: int, outputs: int, inputs: int) -> Named:
    """Name a dense layer of which every branch has its own."""
    bound = math.sqrt(6 / (inputs + outputs))
    yield f"{name}.weight", Parameter((branches, outputs, inputs), "uniform", bound, 1)
    yield f"{name}.bias", Parameter((branches, outputs), "constant", 0.0, 1)

"""Q-networks by the name of their architecture, all with one forward signature.

Light strided networks of our own and re-expressions of the field's published
ones. Nothing here knows a task, an image or an optimiser, and nothing draws from
a global generator.
"""

from __future__ import annotations

import torch

from common.errors import InputDataError
from common.settings import NetworkSettings
from site_client.agent.networks.absence import Absence
from site_client.agent.networks.base import QNetwork, Spaces
from site_client.agent.networks.collab import CollabQ
from site_client.agent.networks.commnet import CommNet
from site_client.agent.networks.execution import (
    PLAIN,
    Execution,
    fastest,
    keep_freed_memory,
)
from site_client.agent.networks.light import LightQ
from site_client.agent.networks.paper2d import Paper2D
from site_client.agent.networks.volume import Network3D

__all__ = [
    "PLAIN",
    "Execution",
    "QNetwork",
    "Spaces",
    "build_network",
    "fastest",
    "keep_freed_memory",
]

_LIGHT_DIMS = {"triplanar": 2, "planar": 2, "volume-light": 3}


def build_network(
    settings: NetworkSettings,
    task: Spaces,
    generator: torch.Generator,
    execution: Execution = PLAIN,
    device: torch.device | None = None,
) -> QNetwork:
    """A network for a task, with initial values from the generator alone.

    Args:
        settings: which architecture, how wide, with what.
        task: its sizes decide inputs and outputs; a `site_client.agent.task.Task` has them.
        generator: the only source of the initial values.
        execution: precision and memory layout; may be changed later by assignment.
        device: where it computes; the processor when None. Initial values are drawn there
            on the processor in any case, so that they are equal everywhere.

    Raises:
        InputDataError: the task's observations or the settings do not fit the architecture.
    """
    # On the meta device nothing is drawn and nothing is computed.
    with torch.device("meta"):
        network = _undrawn(settings, task)
    network.to_empty(device="cpu")
    network.initialise(generator)
    if network.absence is not None:
        network.absence.initialise()
    network.execution = execution
    return network if device is None else network.to(device)


def _undrawn(settings: NetworkSettings, task: Spaces) -> QNetwork:
    network = _architecture(settings, task)
    # Most tasks take everything to be there, and say nothing of it.
    if axes := getattr(task, "absence", 0):
        network.absence = Absence(network.branches, axes)
    return network


def _architecture(settings: NetworkSettings, task: Spaces) -> QNetwork:
    name, hidden, dueling = settings.architecture, settings.hidden, settings.dueling
    if settings.attention and name != "commnet":
        raise InputDataError(
            "the settings are not valid",
            field="network.attention",
            expected="false unless the architecture is commnet",
            got=f"true with {name}",
        )
    if name == "triplanar" and task.shape[0] != 3:
        raise InputDataError(
            "the task does not fit the network",
            field="network.architecture triplanar",
            expected="used with observations of 3 cuts",
            got=f"{task.shape[0]} channels",
        )
    if name in _LIGHT_DIMS:
        dims, width = _LIGHT_DIMS[name], settings.width
        return LightQ(task, width, hidden, dueling=dueling, architecture=name, dims=dims)
    if name == "paper2d":
        return Paper2D(task, hidden, dueling=dueling)
    if name == "network3d":
        return Network3D(task, hidden, dueling=dueling)
    if name == "commnet":
        return CommNet(task, hidden, dueling=dueling, attention=settings.attention)
    return CollabQ(task, hidden, dueling=dueling)

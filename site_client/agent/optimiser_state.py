"""Adam's state as plain arrays, and back; copied like the others of `states`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from site_client.agent.states import State

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def optimizer_state(optimizer: torch.optim.Adam, network: nn.Module) -> State:
    """Adam's moments and step of every parameter, as ``adam/<moment>/<parameter>``."""
    state: State = {}
    for name, parameter in network.named_parameters():
        moments = optimizer.state.get(parameter, {})
        for moment in _MOMENTS:
            if moment in moments:
                state[f"adam/{moment}/{name}"] = moments[moment].cpu().numpy().copy()
    return state


def load_optimizer(
    optimizer: torch.optim.Adam, network: nn.Module, state: Mapping[str, NDArray[np.generic]]
) -> None:
    """Put Adam back to `optimizer_state`."""
    optimizer.state.clear()
    for name, parameter in network.named_parameters():
        moments = {
            moment: torch.from_numpy(np.array(state[f"adam/{moment}/{name}"])).to(parameter.device)
            for moment in _MOMENTS
            if f"adam/{moment}/{name}" in state
        }
        if moments:
            optimizer.state[parameter] = moments

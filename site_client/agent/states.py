"""The live state of a training as plain arrays, and back: optimiser and random generator.

Everything is copied; nothing that is saved changes when training goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

State = dict[str, NDArray[np.generic]]

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


def under(prefix: str, state: Mapping[str, NDArray[np.generic]]) -> State:
    """Select from a state what has names under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def rng_words(rng: np.random.Generator) -> NDArray[np.uint64]:
    """uint64[6]: the state of a PCG64 generator."""
    outer = rng.bit_generator.state
    inner, low = outer["state"], (1 << 64) - 1
    words = [inner["state"] >> 64, inner["state"] & low, inner["inc"] >> 64, inner["inc"] & low]
    return np.array([*words, outer["has_uint32"], outer["uinteger"]], dtype=np.uint64)


def set_rng_words(rng: np.random.Generator, words: NDArray[np.uint64]) -> None:
    """Put a PCG64 generator back to `rng_words`."""
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = (int(w) for w in words)
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high << 64 | state_low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }

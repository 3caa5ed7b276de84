"""The live state of a training as plain arrays, by name; and a random generator's, and back.

Everything is copied; nothing that is saved changes when training goes on. Without torch:
a worker that has nothing to do keeps an eye on states, too (`optimiser_state` has Adam's).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[np.generic]]


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

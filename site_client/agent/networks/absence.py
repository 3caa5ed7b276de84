"""Numbers that decide whether a landmark is absent; they travel with a network's weights.

No gradient moves them. They are worked out from the searches of a trained network
(`site_client.agent.absence`), and a federation averages them like all other weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.settings import ABSENCE_SIGNS

# What is kept is divided by this: an update of a federation is judged by its length, and
# these numbers must not count in it beside what was learned. Its unit, 2^-24, still tells
# a place to a hundredth of a millimetre.
_PARTS: Final = {"places": 100_000.0, "shares": 1000.0, "weights": 1000.0}


class Absence(nn.Module):
    """What a network knows of places and of signs.

    Args:
        branches: landmarks.
        axes: of a place.

    Attributes:
        places: float32[branches, axes], mean positions from the middle of an image, 100 m.
        shares: float32[branches], how often each was outside of the images it was worked out
            on, thousands.
        weights: float32[signs + 1] of a logistic regression, the last added, thousands; 0
            before it is worked out.
    """

    def __init__(self, branches: int, axes: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.empty(branches, axes), requires_grad=False)
        self.shares = nn.Parameter(torch.empty(branches), requires_grad=False)
        self.weights = nn.Parameter(torch.empty(ABSENCE_SIGNS + 1), requires_grad=False)

    def initialise(self) -> None:
        """Nothing is known yet."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @property
    def known(self) -> dict[str, NDArray[np.float64]]:
        """The three arrays by name: places in mm, shares, weights."""
        return {
            name: getattr(self, name).detach().cpu().numpy().astype(np.float64) * parts
            for name, parts in _PARTS.items()
        }


def parameters_of(knowledge: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    """Turn places in mm, shares and weights into the parameters of a network, by full name."""
    return {
        f"absence.{name}": (knowledge[name] / parts).astype(np.float32)
        for name, parts in _PARTS.items()
    }

"""Numbers that decide whether a landmark is absent; they travel with a network's weights.

No gradient moves them. They are worked out from the searches of a trained network
(`site_client.agent.absence`), and a federation averages them like all other weights.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from common.settings import ABSENCE_SIGNS

METRE_MM: Final = 1000.0


class Absence(nn.Module):
    """What a network knows of places and of signs.

    Args:
        branches: landmarks.
        axes: of a place.

    Attributes:
        places: float32[branches, axes], metres from the middle of an image: mean positions.
        shares: float32[branches], how often each was outside of the images it was worked out on.
        weights: float32[signs + 1] of a logistic regression, the last added; 0 before it is
            worked out.
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

"""How familiar a federation is with where something was found; needs no truth and no torch.

A map says how often all sites' searches stood where, on the levels that begin near what is
looked for: where landmarks lie, over all images that nobody has seen together. What is found
where few searches have been is either rare or wrong.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.task import Situations, Task

PLACES_FILE: Final = "places.safetensors"
"""The map beside a model's weights."""
FEW: Final = 0.02
"""Share of all experience below which a place counts as one where few have been."""
_NAME: Final = "places"


@dataclass(frozen=True, eq=False)
class Familiar:
    """The map of a model.

    Attributes:
        places: int64[heads, z, y, x], how often a search for each thing stood in each part of
            the image; one part along z for pictures.
    """

    places: NDArray[np.int64]

    def shares(self, task: Task, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: share of all experience of the same thing in places no more familiar.

        A place is as familiar as the most familiar part that is half a part away or less. NaN
        of what was never met at all.
        """
        sizes = np.array(self.places.shape[1:])
        within = task.fractions(situations)[:, ::-1] * sizes - 0.5
        low = np.floor(within).astype(np.int64)
        head = situations["head"].astype(np.int64)
        met = np.zeros(len(situations), np.int64)
        for corner in itertools.product((0, 1), repeat=3):
            z, y, x = np.clip(low + np.array(corner), 0, sizes - 1).T
            met = np.maximum(met, self.places[head, z, y, x])
        shares = np.full(len(situations), np.nan)
        for row, (k, here) in enumerate(zip(head.tolist(), met.tolist(), strict=True)):
            if total := self.places[k].sum():
                shares[row] = self.places[k][self.places[k] <= here].sum() / total
        return shares

    def to_bytes(self) -> bytes:
        """Write the map as safetensors."""
        return safetensors.numpy.save({_NAME: np.ascontiguousarray(self.places)})

    @classmethod
    def from_bytes(cls, data: bytes, heads: int) -> Familiar:
        """Read what `to_bytes` wrote.

        Raises:
            InputDataError: not the map of a model with so many heads.
        """
        try:
            places = safetensors.numpy.load(data)[_NAME]
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise _damaged("safetensors with the array places", type(error).__name__) from error
        if places.dtype != np.int64 or places.ndim != 4 or len(places) != heads:
            raise _damaged(f"int64[{heads}, z, y, x]", f"{places.dtype}{list(places.shape)}")
        if places.size and places.min() < 0:
            raise _damaged("counts of 0 or more", "negative ones")
        return cls(places)


def _damaged(expected: str, got: str) -> InputDataError:
    return InputDataError(
        "a model's map of familiar places cannot be used",
        field=PLACES_FILE,
        expected=expected,
        got=got,
        advice="Remove the file to play without it, or take the model's folder from the run anew",
    )

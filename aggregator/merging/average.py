"""Federated averaging of model deltas.

Source: McMahan et al., Communication-Efficient Learning of Deep Networks from
Decentralized Data, AISTATS 2017, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError
from common.wire.envelope import Array

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Contribution:
    """One site's delta and the number of samples behind it."""

    site: str
    delta: Mapping[str, Array]
    samples: int


def average(weights: Mapping[str, Array], contributions: Sequence[Contribution]) -> Weights:
    """``weights`` plus the mean of the deltas, each weighted by its samples.

    Args:
        weights: float32 arrays the deltas start from.
        contributions: at least one; every delta has the names and shapes of ``weights``.

    Returns:
        float32 arrays; sums are taken in float64, in order of the sites' names.

    Raises:
        InternalError: nothing to average, or no samples: intake should have refused.
    """
    ordered = sorted(contributions, key=lambda contribution: contribution.site)
    total = sum(contribution.samples for contribution in ordered)
    if total <= 0:
        raise InternalError("nothing to average", expected="samples", got=f"{total}")
    averaged: Weights = {}
    for name, start in weights.items():
        mean = np.zeros(start.shape, np.float64)
        for contribution in ordered:
            mean += (contribution.samples / total) * contribution.delta[name].astype(np.float64)
        averaged[name] = (start.astype(np.float64) + mean).astype(np.float32)
    return averaged

"""Federated averaging of model deltas, with or without momentum.

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
Deltas = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Contribution:
    """One site's delta and the number of samples behind it."""

    site: str
    delta: Mapping[str, Array]
    samples: int


def mean_delta(contributions: Sequence[Contribution]) -> Deltas:
    """The mean of the deltas, each weighted by its samples.

    Args:
        contributions: at least one; all have the same names and shapes.

    Returns:
        float64 arrays; summed in order of the sites' names.

    Raises:
        InternalError: nothing to average, or no samples: intake should have refused.
    """
    ordered = sorted(contributions, key=lambda contribution: contribution.site)
    total = sum(contribution.samples for contribution in ordered)
    if total <= 0:
        raise InternalError("nothing to average", expected="samples", got=f"{total}")
    mean: Deltas = {}
    for name, first in ordered[0].delta.items():
        mean[name] = np.zeros(first.shape, np.float64)
        for contribution in ordered:
            share = contribution.samples / total
            mean[name] += share * contribution.delta[name].astype(np.float64)
    return mean


def moved(weights: Mapping[str, Array], step: Deltas) -> Weights:
    """``weights`` plus a step of the same names and shapes, float32."""
    return {
        name: (start.astype(np.float64) + step[name]).astype(np.float32)
        for name, start in weights.items()
    }


def with_momentum(
    mean: Deltas, velocity: Mapping[str, Array], momentum: float
) -> tuple[Deltas, Weights]:
    """The step of a round that goes on in the direction of those before it.

    Args:
        mean: of the round's deltas.
        velocity: that the last round came to; empty before the first.
        momentum: share of it that is kept, 0 to below 1.

    Returns:
        The step in Nesterov's form, ``mean + momentum * new``, and the new velocity
        ``momentum * velocity + mean``, float32: what a run is resumed from.

    Source: Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification, 2019; Sutskever et al., ICML 2013.
    """
    step: Deltas = {}
    kept: Weights = {}
    for name, delta in mean.items():
        before = velocity[name] if name in velocity else np.zeros(delta.shape, np.float32)
        kept[name] = (momentum * before.astype(np.float64) + delta).astype(np.float32)
        step[name] = delta + momentum * kept[name].astype(np.float64)
    return step, kept

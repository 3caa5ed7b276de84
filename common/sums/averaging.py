"""Federated averaging from a sum of whole numbers, with or without momentum.

Whole numbers are added exactly; then comes one path of float64 operations, each rounded
as IEEE 754 says, so that every party comes to the same bits.

Source: McMahan et al., Communication-Efficient Learning of Deep Networks from
Decentralized Data, AISTATS 2017, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.sums.fixed_point import UNIT
from common.sums.summand import Summand
from common.wire.envelope import Array

Weights = dict[str, NDArray[np.float32]]
Deltas = dict[str, NDArray[np.float64]]


def mean_delta(total: Summand) -> Deltas:
    """Return the mean of the sites' deltas, each weighted by its samples.

    Args:
        total: sum of ``ModelUpdate`` records.

    Returns:
        float64 arrays.

    Raises:
        RefusedError: no samples are behind it.
    """
    samples = total.counts["samples"]
    if samples <= 0:
        raise RefusedError("nothing to average", field="samples", expected="1 or more", got="none")
    return {
        name: array.astype(np.float64) / (UNIT * samples) for name, array in total.arrays.items()
    }


def moved(weights: Mapping[str, Array], step: Deltas) -> Weights:
    """``weights`` plus a step of the same names and shapes, float32."""
    return {
        name: (start.astype(np.float64) + step[name]).astype(np.float32)
        for name, start in weights.items()
    }


def with_momentum(
    mean: Deltas, velocity: Mapping[str, Array], momentum: float
) -> tuple[Deltas, Weights]:
    """Return the step of a round that goes on in the direction of those before it.

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
    velocity_t: Weights = {}
    for name, delta in mean.items():
        before = velocity[name] if name in velocity else np.zeros(delta.shape, np.float32)
        velocity_t[name] = (momentum * before.astype(np.float64) + delta).astype(np.float32)
        step[name] = delta + momentum * velocity_t[name].astype(np.float64)
    return step, velocity_t

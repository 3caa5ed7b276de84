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

from common.errors import InternalError, RefusedError
from common.sums.fixed_point import UNIT
from common.sums.summand import Summand
from common.wire.envelope import Array

Weights = dict[str, NDArray[np.float32]]
Deltas = dict[str, NDArray[np.float64]]
Still = Mapping[str, NDArray[np.bool_]]
"""By array, bool[rows]: which rows of the first axis nobody trained in a round."""


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


def mean_by_label(
    total: Summand, behind: NDArray[np.int64], branch_rows: Mapping[str, int]
) -> tuple[Deltas, Still]:
    """Return the mean of the deltas, what belongs to one label over the sites that have it.

    A row of a label is divided by that label's samples instead of all of them. With all
    labels at all sites every division is that of ``mean_delta``, bit for bit.

    Args:
        total: sum of ``ModelUpdate`` records, weights alone.
        behind: int64[labels], the samples behind each label.
        branch_rows: by array, the rows of each label; arrays that are not in it are shared.

    Returns:
        float64 arrays, and the rows of labels that no site had: their mean is 0.

    Raises:
        RefusedError: no samples are behind it, more behind a label than there are, or a
            change of a label that nobody had.
    """
    samples = total.counts["samples"]
    mean = mean_delta(total)
    if not bool(((behind >= 0) & (behind <= samples)).all()):
        raise _bad_labels("samples of the sites that have them", "more, or fewer than none")
    still: dict[str, NDArray[np.bool_]] = {}
    for name, rows in branch_rows.items():
        array = total.arrays[name]
        if len(array) != rows * len(behind):
            raise InternalError("rows do not fit the labels", field=name, got=str(len(array)))
        samples_of_row = np.repeat(behind, rows)
        still[name] = samples_of_row == 0
        if array[still[name]].any():
            raise _bad_labels("no change of labels that no site has", "one")
        divisor = UNIT * np.maximum(samples_of_row, 1).astype(np.float64)
        mean[name] = array.astype(np.float64) / divisor.reshape(-1, *[1] * (array.ndim - 1))
    return mean, still


def _bad_labels(expected: str, got: str) -> RefusedError:
    return RefusedError("a sum's labels do not hold", field="labels", expected=expected, got=got)


def moved(weights: Mapping[str, Array], step: Deltas) -> Weights:
    """``weights`` plus a step of the same names and shapes, float32."""
    return {
        name: (start.astype(np.float64) + step[name]).astype(np.float32)
        for name, start in weights.items()
    }


def with_momentum(
    mean: Deltas, velocity: Mapping[str, Array], momentum: float, still: Still | None = None
) -> tuple[Deltas, Weights]:
    """Return the step of a round that goes on in the direction of those before it.

    Args:
        mean: of the round's deltas.
        velocity: that the last round came to; empty before the first.
        momentum: share of it that is kept, 0 to below 1.
        still: rows that nobody trained: they do not move, and their velocity waits for the
            next round that trains them.

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
        if still is not None and name in still:
            step[name][still[name]] = 0.0
            velocity_t[name][still[name]] = before[still[name]]
    return step, velocity_t

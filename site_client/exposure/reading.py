"""The attacks that read pictures: ``slices`` and ``imprint``, each a function of a release.

Both take the first dense layer's gradients for features of crops, and features back to
cuts. The attacker has the weights trained from, what training changed, and the plan;
the crops are there to compare with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.model import check_weights
from common.plan import FederationPlan
from site_client.exposure.crops import Crops
from site_client.exposure.findings import ABOVE_DB, GAIN_DB, Pair, ReadingFinding
from site_client.exposure.gradients import (
    Gradients,
    estimated_gradients,
    features_of_neighbours,
    features_of_neurons,
)
from site_client.exposure.inversion import affordable, features_of, invert
from site_client.exposure.scoring import Scores, Scoring
from site_client.exposure.unfolding import unfold

Weights = Mapping[str, NDArray[np.float32]]
_Pick = Callable[[Gradients], NDArray[np.float64]]


def slices(
    before: Weights, delta: Weights, plan: FederationPlan, trained: Crops, seed: int = 0
) -> ReadingFinding:
    """Take every neuron of the first dense layer for the picture of one crop.

    Args:
        before: the weights that were trained from.
        delta: weights after less weights before; all that the attacker is sent.
        plan: of the run.
        trained: the crops that gradients were taken of, to compare with.
        seed: of the inversion's first pictures.

    Raises:
        InputDataError: the weights are not the plan's.
    """
    check_weights(dict(before), plan)
    inputs = _features(plan, before)
    scoring, began = Scoring(trained), time.monotonic()
    _try_all(
        before, delta, plan, scoring, seed, lambda gradients: features_of_neurons(gradients, inputs)
    )
    return _finding("slices", trained, scoring.scores(), time.monotonic() - began)


def imprint(
    before: Weights, delta: Weights, plan: FederationPlan, trained: Crops, seed: int = 0
) -> ReadingFinding:
    """Take what neurons differ in that are neighbours by bias; otherwise as `slices`.

    Source: Fowl et al., Robbing the Fed, ICLR 2022.
    """
    check_weights(dict(before), plan)
    inputs, thresholds = _features(plan, before), np.asarray(before["fc1.bias"])
    scoring, began = Scoring(trained), time.monotonic()
    _try_all(
        before,
        delta,
        plan,
        scoring,
        seed,
        lambda gradients: features_of_neighbours(gradients, thresholds, inputs),
    )
    return _finding("imprint", trained, scoring.scores(), time.monotonic() - began)


def _features(plan: FederationPlan, before: Weights) -> int:
    """Count the inputs of the first dense layer that are features; the others say the level."""
    return int(before["fc1.weight"].shape[1]) - plan.space.levels


def _try_all(
    before: Weights,
    delta: Weights,
    plan: FederationPlan,
    scoring: Scoring,
    seed: int,
    pick: _Pick,
) -> None:
    """Unfold and invert the features that every estimate of the gradients gives."""
    roi = plan.task.roi
    at_rest = features_of(before, np.zeros((1, 3, roi, roi), np.float32))[0]
    picked = [pick(gradients) for gradients in estimated_gradients(delta, plan)]
    picked = [values for values in picked if len(values)]
    for values in picked:
        scoring.add(unfold(before, roi, values, at_rest))
    for values in picked:
        candidates = values[: max(1, affordable(before, roi) // len(picked))]
        scoring.add(invert(before, roi, candidates, seed))


def _finding(
    attack: Literal["slices", "imprint"], trained: Crops, scores: Scores, seconds: float
) -> ReadingFinding:
    read = scores.found_db >= scores.unseen_db + GAIN_DB
    above = [int((read & (scores.found_db > least)).any(axis=1).sum()) for least in ABOVE_DB]
    unseen = [int((scores.unseen_db > least).any(axis=1).sum()) for least in ABOVE_DB]
    row, cut = scores.best
    best = None
    if scores.picture is not None:
        best = Pair(scores.picture, trained[row : row + 1][0], cut)
    return ReadingFinding(
        attack=attack,
        crops=len(trained),
        attempts=scores.attempts,
        best_db=None if best is None else float(scores.found_db[row, cut]),
        unseen_db=float(scores.unseen_db[row, cut] if best else scores.unseen_db.max(initial=0.0)),
        above_20_db=above[0],
        above_30_db=above[1],
        unseen_above_20_db=unseen[0],
        unseen_above_30_db=unseen[1],
        seconds=seconds,
        best=best,
    )

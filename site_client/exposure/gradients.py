"""From the difference of weights back to gradients of the first dense layer, and to features.

A dense neuron's gradient is the sum over crops of its slope times what it was shown;
its bias has the slopes alone. Where a single crop moved a neuron, the one divided by the
other is that crop's features, whatever the slope was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.plan import FederationPlan

ADAM_EPSILON: Final = 1e-8
"""What Adam adds to a gradient's size: gradients near it are not lost in their sign."""
_SATURATED = 1 - 2**-24


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of the first dense layer, up to a common factor.

    Attributes:
        weights: float64[neurons, features + levels].
        biases: float64[neurons].
    """

    weights: NDArray[np.float64]
    biases: NDArray[np.float64]


def estimated_gradients(
    delta: Mapping[str, NDArray[np.float32]], plan: FederationPlan
) -> list[Gradients]:
    """Every way to take a difference of weights for a gradient.

    Of one step of Adam from rest, the gradient itself: its step is
    -rate * g / (|g| + epsilon), which can be solved for g. Of more steps, the same of
    their mean. And the difference as it is, as if of plain gradient descent.

    Args:
        delta: weights after less weights before.
        plan: knows rate and number of steps.
    """
    weights = np.asarray(delta["fc1.weight"], np.float64)
    biases = np.asarray(delta["fc1.bias"], np.float64)
    if not (weights.any() or biases.any()):
        return []
    way = plan.learner.learning_rate * plan.updates_in(1)
    undone = Gradients(_before_adam(weights / way), _before_adam(biases / way))
    return [undone, Gradients(-weights, -biases)]


def _before_adam(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradients whose first steps of Adam were these, in units of the rate."""
    size = np.minimum(np.abs(step), _SATURATED)
    return np.asarray(-np.sign(step) * ADAM_EPSILON * size / (1 - size))


def features_of_neurons(gradients: Gradients, inputs: int) -> NDArray[np.float64]:
    """float64[n, inputs]: each neuron taken for the picture of one crop, the likeliest first.

    Args:
        gradients: of the first dense layer.
        inputs: how many of a neuron's inputs are features; the others say the level.
    """
    return _quotients(gradients.weights, gradients.biases, inputs)


def features_of_neighbours(
    gradients: Gradients, thresholds: NDArray[np.float32], inputs: int
) -> NDArray[np.float64]:
    """float64[n, inputs]: what neurons were shown that their neighbours by bias were not.

    Args:
        gradients: of the first dense layer.
        thresholds: float32[neurons], the biases that were trained from.
        inputs: as for `features_of_neurons`.
    """
    order = np.argsort(-thresholds, kind="stable")
    weights = -np.diff(gradients.weights[order], axis=0)
    return _quotients(weights, -np.diff(gradients.biases[order]), inputs)


def _quotients(
    weights: NDArray[np.float64], biases: NDArray[np.float64], inputs: int
) -> NDArray[np.float64]:
    """float64[n, inputs]: features, the rows that look most like a single crop's first.

    The inputs that say the level are 1 at one rung and 0 elsewhere, for one crop; for a
    mixture they are something between. An attacker can see that, and so it is used.
    """
    there = np.abs(biases) > 1e-7 * np.abs(biases).max(initial=0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        quotients = weights[there] / biases[there, None]
    sound = np.isfinite(quotients).all(axis=1) & (np.abs(quotients) < 1e6).all(axis=1)
    quotients, slopes = quotients[sound], np.abs(biases[there][sound])
    levels = quotients[:, inputs:]
    nearest = np.eye(levels.shape[1])[levels.argmax(axis=1)] if len(levels) else levels
    mixed = np.round(np.abs(levels - nearest).sum(axis=1), 3)
    # Of equally pure ones, the slope next to epsilon went best through Adam and back.
    spoilt = np.abs(np.log(slopes / ADAM_EPSILON))
    return np.asarray(quotients[np.lexsort((spoilt, mixed)), :inputs])

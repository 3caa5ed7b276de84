"""Weights as plain numpy: their names and shapes, the common starting point, their digest.

Every site derives the first weights from the plan alone and sends their digest;
a site with another version of the code is noticed before anything is averaged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.plan import FederationPlan

Weights = dict[str, NDArray[np.float32]]

ACTIONS: Final = 6
"""Moves of an agent in a volume: along three axes, both ways."""

_HIDDEN = (256, 128)
_INIT_STREAM = 0x77656967687473  # "weights": apart from other uses of the plan's seed


def feature_side(roi: int) -> int:
    """Side of the last feature map: three convolutions of stride 2, padded to keep the edges."""
    for _ in range(3):
        roi = (roi + 1) // 2
    return roi


def weight_shapes(plan: FederationPlan) -> dict[str, tuple[int, ...]]:
    """Name to shape of every parameter, in the network's order."""
    width, levels = plan.model.width, len(plan.agent.scales)
    features = 2 * width * feature_side(plan.model.roi) ** 2
    layers: dict[str, tuple[int, ...]] = {
        "conv1": (width, 3, 5, 5),
        "conv2": (2 * width, width, 3, 3),
        "conv3": (2 * width, 2 * width, 3, 3),
        "fc1": (_HIDDEN[0], features + levels),
        "fc2": (_HIDDEN[1], _HIDDEN[0]),
        "heads": (ACTIONS * len(plan.task.landmarks), _HIDDEN[1]),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    return shapes


def initial_weights(plan: FederationPlan) -> Weights:
    """Return the weights before round 1, from ``plan.seed`` alone.

    Drawn with numpy's PCG64, whose stream does not depend on the processor's
    vector width as torch's may: He-uniform weights, zero biases.
    """
    rng = np.random.Generator(np.random.PCG64([_INIT_STREAM, plan.seed]))
    weights: Weights = {}
    for name, shape in weight_shapes(plan).items():
        if name.endswith(".bias"):
            weights[name] = np.zeros(shape, np.float32)
        else:
            bound = math.sqrt(6 / math.prod(shape[1:]))
            weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights


def weights_digest(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 over names, shapes and little-endian values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], dtype="<f4")
        header = f"{name}{list(values.shape)}".encode()
        digest.update(len(header).to_bytes(4, "little"))
        digest.update(header)
        digest.update(values.tobytes())
    return digest.hexdigest()


def check_weights(weights: Mapping[str, NDArray[np.float32]], plan: FederationPlan) -> None:
    """Refuse weights that are not this plan's.

    Raises:
        InputDataError: missing or extra names, another shape or type, a value not finite.
    """
    check_shapes(weights, weight_shapes(plan), "the plan")


def check_shapes(
    weights: Mapping[str, NDArray[np.float32]], shapes: Mapping[str, tuple[int, ...]], owner: str
) -> None:
    """Refuse weights that do not have exactly these names and shapes.

    Args:
        weights: to look at.
        shapes: name to shape.
        owner: whose names and shapes they are, for the message.

    Raises:
        InputDataError: missing or extra names, another shape or type, a value not finite.
    """
    if set(weights) != set(shapes):
        raise InputDataError(
            "weights of another network",
            field="weights",
            expected=f"{owner}'s {len(shapes)} names",
            got=f"{len(set(shapes) - set(weights))} missing, "
            f"{len(set(weights) - set(shapes))} unknown",
        )
    for name, shape in shapes.items():
        value = weights[name]
        finite = value.dtype == np.float32 and bool(np.isfinite(value).all())
        if value.shape != shape or not finite:
            raise InputDataError(
                "weights of another network",
                field=f"weights/{name}",
                expected=f"finite float32{list(shape)}",
                got=f"{value.dtype}{list(value.shape)}" + ("" if finite else ", not finite"),
            )

"""Weights as plain numpy: their names and shapes, the common starting point, their digest.

What the sites of a run add up is the *shared* part: all weights, unless the plan keeps
heads private, which are then each site's *own* part and never leave it.

Every site derives the first weights from the plan alone and sends their digest;
a site with another version of the code is noticed before anything is averaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.plan import FederationPlan
from common.settings import AgentSettings, Parameter, parameters_of

Weights = dict[str, NDArray[np.float32]]

_INIT_STREAM = 0x77656967687473  # "weights": apart from other uses of the plan's seed


def weight_shapes(settings: AgentSettings) -> dict[str, tuple[int, ...]]:
    """Name to shape of every parameter, in the network's order."""
    parameters = parameters_of(settings.network, settings.space)
    return {name: parameter.shape for name, parameter in parameters.items()}


def initial_weights(plan: FederationPlan) -> Weights:
    """Return the weights before round 1, from ``plan.seed`` alone.

    Drawn with numpy's PCG64, whose stream does not depend on the processor's
    vector width as torch's may; each architecture's as its authors drew them.
    """
    rng = np.random.Generator(np.random.PCG64([_INIT_STREAM, plan.seed]))
    parameters = parameters_of(plan.network, plan.space)
    return {name: _drawn(parameter, rng) for name, parameter in parameters.items()}


def shared_parameters(plan: AgentSettings) -> dict[str, Parameter]:
    """Name to parameter of what the sites of a run add up, in the network's order."""
    parameters = parameters_of(plan.network, plan.space)
    private = plan.network.private_heads
    return {name: p for name, p in parameters.items() if not (private and p.branch_rows)}


def shared_shapes(plan: AgentSettings) -> dict[str, tuple[int, ...]]:
    """Name to shape of the shared part, in the network's order."""
    return {name: parameter.shape for name, parameter in shared_parameters(plan).items()}


def shared_part(weights: Mapping[str, NDArray[np.float32]], plan: AgentSettings) -> Weights:
    """Take what the sites of a run add up."""
    return {name: weights[name] for name in shared_parameters(plan)}


def own_part(weights: Mapping[str, NDArray[np.float32]], plan: AgentSettings) -> Weights:
    """Take what stays at the site; nothing where the plan keeps no heads private."""
    shared = shared_parameters(plan)
    return {name: array for name, array in weights.items() if name not in shared}


def _drawn(parameter: Parameter, rng: np.random.Generator) -> NDArray[np.float32]:
    match parameter.first:
        case "constant":
            return np.full(parameter.shape, parameter.scale, np.float32)
        case "uniform":
            drawn = rng.uniform(-parameter.scale, parameter.scale, parameter.shape)
        case "normal":
            drawn = rng.normal(0.0, parameter.scale, parameter.shape)
    return drawn.astype(np.float32)


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


def check_shared(weights: Mapping[str, NDArray[np.float32]], plan: FederationPlan) -> None:
    """Refuse weights that are not the shared part of this plan's.

    Raises:
        InputDataError: as ``check_weights``.
    """
    check_shapes(weights, shared_shapes(plan), "the plan")


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

"""The state of a run of training after a round: weights, velocity, merged experience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.model import Weights, shared_shapes, weights_digest
from common.plan import FederationPlan
from common.sums.addition import LARGEST, Sum, magnitude
from common.sums.averaging import Deltas, Still, mean_by_label, mean_delta, moved, with_momentum
from common.sums.summand import Summand
from common.wire.labels import LABELS, branch_rows
from common.wire.records import ErrorTables, ModelUpdate, SketchTable


@dataclass(frozen=True, eq=False)
class ModelState:
    """The state that the next round starts from.

    Attributes:
        weights: of the model, float32 by name; of a plan that keeps heads private, the rest.
        velocity: of server momentum, float32 by name; empty without, and before round 1.
        table: merged experience int64[rows, columns]; None before round 1, and where the
            plan has none.
        total: keys behind it.
        errors: merged errors int64[rows, columns] of experience replayed; None likewise.
        error: sum of all of them.
    """

    weights: Weights
    velocity: Weights = field(default_factory=dict)
    table: NDArray[np.int64] | None = None
    total: int = 0
    errors: NDArray[np.int64] | None = None
    error: int = 0

    @property
    def digest(self) -> str:
        """Names the weights."""
        return weights_digest(self.weights)


def advance(state: ModelState, plan: FederationPlan, total: Sum) -> ModelState:
    """Return the state after a round of training.

    Args:
        state: before it.
        plan: of the run; its rule of averaging.
        total: what the sites sent together.

    Raises:
        RefusedError: another shape than the plan's, or cells that would overflow.
    """
    update = total.group(ModelUpdate.__name__).summand
    (mean, still), velocity = _mean(update, plan), state.velocity
    if momentum := plan.rounds.server_momentum:
        mean, velocity = with_momentum(mean, velocity, momentum, still)
    after = replace(state, weights=moved(state.weights, mean), velocity=velocity)
    return after if plan.counts is None else _with_experience(after, plan, total)


def _with_experience(state: ModelState, plan: FederationPlan, total: Sum) -> ModelState:
    """Add what was met to what is known; of what was replayed, the past counts half.

    What the network was wrong about some rounds ago says little of what it is wrong about.
    """
    shape = (plan.experience.rows, plan.experience.columns)
    if plan.counts == "experience":
        met = total.group(SketchTable.__name__).summand
        _require_shapes(met.arrays, {"table": shape})
        table = _added(state.table, met.arrays["table"])
        return replace(state, table=table, total=state.total + met.counts["total"])
    replayed = total.group(ErrorTables.__name__).summand
    _require_shapes(replayed.arrays, {"replays": shape, "errors": shape})
    return replace(
        state,
        table=_added(_halved(state.table), replayed.arrays["replays"]),
        total=state.total // 2 + replayed.counts["total"],
        errors=_added(_halved(state.errors), replayed.arrays["errors"]),
        error=state.error // 2 + replayed.counts["errors"],
    )


def _halved(table: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Half of every cell, towards 0: the same whole numbers everywhere."""
    return None if table is None else np.asarray(np.sign(table) * (np.abs(table) // 2))


def _mean(update: Summand, plan: FederationPlan) -> tuple[Deltas, Still]:
    """Return the mean of a round's deltas by the plan's rule, and the rows that nobody trained."""
    shapes = shared_shapes(plan)
    if not plan.tells_labels:
        _require_shapes(update.arrays, shapes)
        return mean_delta(update), {}
    _require_shapes(update.arrays, {**shapes, LABELS: (len(plan.space.labels),)})
    weights = {name: array for name, array in update.arrays.items() if name != LABELS}
    summand = Summand(update.counts, weights)
    return mean_by_label(summand, update.arrays[LABELS], branch_rows(plan))


def _added(merged: NDArray[np.int64] | None, table: NDArray[np.int64]) -> NDArray[np.int64]:
    if merged is None:
        return table
    if magnitude(merged) + magnitude(table) >= LARGEST:
        raise RefusedError("a merged sketch would overflow", expected="sums below 2^62")
    return merged + table


def _require_shapes(
    arrays: Mapping[str, NDArray[np.int64]], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    got = {name: array.shape for name, array in arrays.items()}
    if got != dict(shapes):
        raise RefusedError(
            "a sum is not of the plan's form",
            field="arrays",
            expected=f"the plan's {len(shapes)} names and shapes",
            got="others",
        )

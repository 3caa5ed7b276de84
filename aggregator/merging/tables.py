"""Sketch tables of different sites added into one, without being able to query it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.plan import FederationPlan
from common.sketching import CountSketch, SketchSpec


def public_spec(plan: FederationPlan, key_id: str, codec: str) -> SketchSpec:
    """The specification of the plan's experience sketch as one without the key sees it."""
    return SketchSpec.public(
        plan.experience.rows, plan.experience.columns, key_id=key_id, domain=codec
    )


def add_tables(
    spec: SketchSpec, merged: NDArray[np.int64] | None, tables: Iterable[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The sum of a merged table (None before the first) and the given ones.

    Args:
        spec: public: what all tables are of.
        merged: int64[rows, columns].
        tables: of the sites.

    Raises:
        RefusedError: a sum would leave the range of int64.
    """
    total = CountSketch(spec)
    largest = 0
    for table in ([] if merged is None else [merged]) + list(tables):
        largest += int(max(table.max(), -table.min()))
        if largest >= 2**62:
            raise RefusedError("a merged sketch would overflow", expected="sums below 2^62")
        total.merge(CountSketch.from_table(spec, table))
    return total.table

"""Errors of landmarks: what single searches, their consensus and a constant are away from a truth.

Errors stand beside those of a predictor that always answers the mean training position,
for scans that lie alike make any memory look like skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from site_client.agent.evaluation import FAR_MM, Searched
from site_client.agent.task import MM
from site_client.kinds.tables import Column, Table, errors_table
from site_client.kinds.values import Built

SUCCESS_MM: Final = (2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class LandmarkRow:
    """Errors of one landmark (of one agent after it), mm.

    Attributes:
        landmark: its name.
        searches: how many; every start counts by itself.
        mean_mm, std_mm, median_mm: over searches.
        success: share of searches that ended within each of `SUCCESS_MM`.
        over_10mm: share that ended more than 10 mm away.
        consensus_mm: mean error of what the starts of a case agree on.
        prior_mm, prior_success: the same of the constant predictor; None where it is not known.
    """

    landmark: str
    searches: int
    mean_mm: float
    std_mm: float
    median_mm: float
    success: Sequence[float]
    over_10mm: float
    consensus_mm: float
    prior_mm: float | None
    prior_success: Sequence[float] | None

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        shares = {name: getattr(self, name) for name in ("success", "prior_success")}
        return asdict(self) | {name: value and _keyed(value) for name, value in shares.items()}


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of one landmark behind its row, for drawings.

    Attributes:
        row: the summary.
        searches: float64[n], mm.
        prior: float64[m], mm; empty where it is not known.
    """

    row: LandmarkRow
    searches: NDArray[np.float64]
    prior: NDArray[np.float64]


def errors_of(built: Built[Any], searched: Searched) -> list[Errors]:
    """Collect the errors of every landmark that was searched for, in the order of the heads."""
    heads = searched.agreed["head"].astype(np.int64)
    groups, starts = searched.found.shape
    single = searched.errors.reshape(groups, starts, -1)
    agreed = searched.agreed_errors.reshape(groups, -1)
    prior = None if searched.prior_errors is None else searched.prior_errors.reshape(groups, -1)
    errors: list[Errors] = []
    for k, label in enumerate(built.labels):
        head, agent = divmod(k, built.teams.shape[1])
        of = heads == head
        if not of.any():
            continue
        constant = np.empty(0) if prior is None else prior[of, agent]
        constant = constant[np.isfinite(constant)]
        ends = single[of, :, agent].ravel()
        errors.append(Errors(_row(label, ends, agreed[of, agent], constant), ends, constant))
    return errors


def rows_of(errors: Sequence[Errors]) -> list[LandmarkRow]:
    """List the rows of all landmarks, and then their mean."""
    rows = [each.row for each in errors]
    return [*rows, mean_row(rows)]


def mean_row(rows: Sequence[LandmarkRow]) -> LandmarkRow:
    """Average all landmarks, each counting equally; of a figure those that have it."""
    means: dict[str, Any] = {}
    for name in (field.name for field in fields(LandmarkRow)[2:]):
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        means[name] = np.mean(values, axis=0).tolist() if values else None
    return LandmarkRow("mean", sum(row.searches for row in rows), **means)


def table_of(rows: Sequence[LandmarkRow]) -> Table:
    """Lay rows out as a table; the last is their mean."""
    further = (
        *(Column(f"≤{limit:g}", f"≤ {limit:g} mm", ".0%", ".1%") for limit in SUCCESS_MM),
        Column(f">{FAR_MM:g}", f"> {FAR_MM:g} mm", ".0%", ".1%"),
        Column("agreed", "consensus", ".2f", ".2f"),
        Column("", "searches", "d", "d"),
    )
    laid = [
        (
            row.landmark,
            (row.prior_mm, row.mean_mm, row.std_mm, row.median_mm),
            (*row.success, row.over_10mm, row.consensus_mm, row.searches),
        )
        for row in rows
    ]
    return replace(errors_table("landmark", MM, laid, further), summed=True)


def _row(
    label: str,
    single: NDArray[np.float64],
    agreed: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> LandmarkRow:
    return LandmarkRow(
        landmark=label,
        searches=single.size,
        mean_mm=float(single.mean()),
        std_mm=float(single.std()),
        median_mm=float(np.median(single)),
        success=_within(single),
        over_10mm=float((single > FAR_MM).mean()),
        consensus_mm=float(agreed.mean()),
        prior_mm=float(prior.mean()) if prior.size else None,
        prior_success=_within(prior) if prior.size else None,
    )


def _within(errors: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float((errors <= limit).mean()) for limit in SUCCESS_MM)


def _keyed(shares: Sequence[float]) -> dict[str, float]:
    return {f"{limit:g}mm": share for limit, share in zip(SUCCESS_MM, shares, strict=True)}

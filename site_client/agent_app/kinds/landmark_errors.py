"""Errors of landmarks: what single searches, their consensus and a constant are away from a truth.

Errors stand beside those of a predictor that always answers the mean training position,
for scans that lie alike make any memory look like skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from site_client.agent.evaluation import FAR_MM, Searched
from site_client.agent.task import MM
from site_client.agent_app.kinds.kind import Built
from site_client.agent_app.tables import Column, Table, errors_table

SUCCESS_MM: Final = (2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class LandmarkRow:
    """Errors of one landmark (of one agent after it), mm.

    Attributes:
        landmark: its name.
        searches: how many; every start counts by itself.
        mean_mm, std_mm, median_mm: over searches.
        within: share of searches that ended within each of `SUCCESS_MM`.
        far: share that ended more than 10 mm away.
        consensus_mm: mean error of what the starts of a case agree on.
        prior_mm: mean error of the constant predictor; None where it is not known.
        prior_within: its share within each of `SUCCESS_MM`.
    """

    landmark: str
    searches: int
    mean_mm: float
    std_mm: float
    median_mm: float
    within: tuple[float, ...]
    far: float
    consensus_mm: float
    prior_mm: float | None
    prior_within: tuple[float, ...] | None

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "landmark": self.landmark,
            "searches": self.searches,
            "mean_mm": self.mean_mm,
            "std_mm": self.std_mm,
            "median_mm": self.median_mm,
            "success": _keyed(self.within),
            "over_10mm": self.far,
            "consensus_mm": self.consensus_mm,
            "prior_mm": self.prior_mm,
            "prior_success": None if self.prior_within is None else _keyed(self.prior_within),
        }


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
        errors.append(_errors(label, single[of, :, agent].ravel(), agreed[of, agent], constant))
    return errors


def mean_row(rows: Sequence[LandmarkRow]) -> LandmarkRow:
    """Average all landmarks, each counting equally."""
    priors = [row.prior_mm for row in rows if row.prior_mm is not None]
    shares = [row.prior_within for row in rows if row.prior_within is not None]
    return LandmarkRow(
        landmark="mean",
        searches=sum(row.searches for row in rows),
        mean_mm=float(np.mean([row.mean_mm for row in rows])),
        std_mm=float(np.mean([row.std_mm for row in rows])),
        median_mm=float(np.mean([row.median_mm for row in rows])),
        within=_mean([row.within for row in rows]),
        far=float(np.mean([row.far for row in rows])),
        consensus_mm=float(np.mean([row.consensus_mm for row in rows])),
        prior_mm=float(np.mean(priors)) if priors else None,
        prior_within=_mean(shares) if shares else None,
    )


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
            (*row.within, row.far, row.consensus_mm, row.searches),
        )
        for row in rows
    ]
    return replace(errors_table("landmark", MM, laid, further), summed=True)


def _errors(
    label: str,
    single: NDArray[np.float64],
    agreed: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> Errors:
    row = LandmarkRow(
        landmark=label,
        searches=single.size,
        mean_mm=float(single.mean()),
        std_mm=float(single.std()),
        median_mm=float(np.median(single)),
        within=_within(single),
        far=float((single > FAR_MM).mean()),
        consensus_mm=float(agreed.mean()),
        prior_mm=float(prior.mean()) if prior.size else None,
        prior_within=_within(prior) if prior.size else None,
    )
    return Errors(row, single, prior)


def _within(errors: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float((errors <= limit).mean()) for limit in SUCCESS_MM)


def _mean(shares: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.mean(shares, axis=0))


def _keyed(shares: Sequence[float]) -> dict[str, float]:
    return {f"{limit:g}mm": share for limit, share in zip(SUCCESS_MM, shares, strict=True)}

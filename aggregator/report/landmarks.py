"""Errors per landmark: start, end, prior, and the sites alone. No formatting here."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from aggregator.report.extras import HeldOut, ReportExtras
from aggregator.report.run import RunState, landmarks_of, mean_mm, prior_mm, sites_with


@dataclass(frozen=True)
class ErrorRow:
    """Errors of one landmark, or of all, mm."""

    landmark: str
    start: float | None
    final: float | None
    prior: float | None
    best: float | None = None
    worst: float | None = None


@dataclass(frozen=True)
class ErrorTable:
    """One row per landmark and their mean.

    Attributes:
        where: on which subjects, in words.
        local: whether ``best`` and ``worst`` of the sites alone are known.
        far: who, and the share of searches that ended more than 10 mm away.
    """

    where: str
    rows: tuple[ErrorRow, ...]
    mean: ErrorRow
    local: bool
    far: tuple[tuple[str, float], ...] = ()


def landmark_table(state: RunState, extras: ReportExtras) -> ErrorTable | None:
    """Held-out errors when there are any, otherwise the sites' own evaluations."""
    if extras.held_out is not None:
        return _held_out_table(extras.held_out)
    rounds = state.evaluated()
    if not rounds:
        return None
    first, last = rounds[0].errors, rounds[-1].errors

    def row(name: str, landmark: str | None) -> ErrorRow:
        return ErrorRow(
            name, mean_mm(first, landmark), mean_mm(last, landmark), prior_mm(last, landmark)
        )

    rows = tuple(row(name, name) for name in landmarks_of(state))
    where = "each site’s own evaluation, weighted by searches"
    for name, sites in sites_with(state).items():
        where += f"; {name} at {', '.join(sites)} only"
    return ErrorTable(where, rows, row("mean", None), local=False)


def _held_out_table(held_out: HeldOut) -> ErrorTable:
    first, last = held_out.federated[0][1], held_out.federated[-1][1]
    local = list(held_out.local_final.values())
    rows = tuple(
        ErrorRow(
            name,
            first[name],
            last[name],
            prior,
            min((errors[name] for errors in local), default=None),
            max((errors[name] for errors in local), default=None),
        )
        for name, prior in held_out.prior_mm.items()
    )
    means = list(held_out.local.values())
    mean = ErrorRow(
        "mean",
        fmean(first.values()),
        fmean(last.values()),
        held_out.prior,
        min(means, default=None),
        max(means, default=None),
    )
    where = f"on {held_out.subjects} held-out subjects that no site trained on"
    return ErrorTable(where, rows, mean, bool(local), tuple(held_out.over_10mm.items()))

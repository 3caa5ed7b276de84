"""Errors per landmark: start, end, prior, and the sites alone. No formatting here."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from aggregator.report.extras import HeldOut, ReportExtras
from aggregator.report.run import PART_WORDS, RunState, landmarks_of, mean_mm, prior_mm, sites_with
from common.wire.records import Part


@dataclass(frozen=True)
class ErrorRow:
    """Errors of one thing that was looked for, or of all, in the run's unit."""

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
        part: of the cases: held out, or trained on.
        where: on which subjects, in words.
        local: whether ``best`` and ``worst`` of the sites alone are known.
        far: who, and the share of searches that ended more than 10 mm away.
    """

    part: Part
    where: str
    rows: tuple[ErrorRow, ...]
    mean: ErrorRow
    local: bool
    far: tuple[tuple[str, float], ...] = ()


def landmark_tables(state: RunState, extras: ReportExtras) -> tuple[ErrorTable, ...]:
    """Return every table there is, the headline first: held-out errors where there are any."""
    apart = () if extras.held_out is None else (_held_out_table(extras.held_out),)
    return apart + tuple(_own_table(state, part) for part in state.parts)


def _own_table(state: RunState, part: Part) -> ErrorTable:
    """Return the sites' own evaluations of one part of their cases."""
    rounds = state.evaluated(part)
    first, last = rounds[0].errors, rounds[-1].errors

    def row(name: str, landmark: str | None) -> ErrorRow:
        return ErrorRow(
            name,
            mean_mm(first, part, landmark),
            mean_mm(last, part, landmark),
            prior_mm(last, part, landmark),
        )

    rows = tuple(row(name, name) for name in landmarks_of(state))
    words = {
        "held-out": "on the cases that each site keeps out of training, weighted by searches",
        "training": "on the cases that each site trains on, weighted by searches",
    }
    where = f"{PART_WORDS[part]}: {words[part]}"
    for name, sites in sites_with(state).items():
        where += f"; {name} at {', '.join(sites)} only"
    return ErrorTable(part, where, rows, row("mean", None), local=False)


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
    where = f"held out: on {held_out.subjects} subjects that no site trained on"
    return ErrorTable("held-out", where, rows, mean, bool(local), tuple(held_out.over_10mm.items()))

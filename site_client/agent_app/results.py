"""What an evaluation says of each landmark, and the files it is written to.

Errors stand beside those of a predictor that always answers the mean training
position, for scans that lie alike make any memory look like skill. Files name
cases and positions: they stay where the person asked for them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from site_client.agent.evaluation import FAR_MM, Searched
from site_client.agent.task import MM
from site_client.agent_app.tasks import Built
from site_client.files import write_atomically
from site_client.imaging.landmarks import write_landmarks

SUCCESS_MM: Final = (2.0, 2.5, 3.0, 4.0)
# From this overlap on, a box that was found is right, whatever the agent was trained for.
ENOUGH_IOU: Final = 0.5


@dataclass(frozen=True)
class Row:
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
        """For JSON."""
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
    """The errors of one landmark behind its `Row`, for drawings.

    Attributes:
        row: the summary.
        searches: float64[n], mm.
        prior: float64[m], mm; empty where it is not known.
    """

    row: Row
    searches: NDArray[np.float64]
    prior: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Where a landmark was found in a case as acquired.

    Attributes:
        case: number of the case.
        name: the case's name.
        landmark: its name.
        position: float64[d], as the case's landmarks are given.
        world_mm: float64[3], LPS mm.
        spread_mm: mean distance of the single searches from what they agree on.
        error_mm: distance to the truth, of interchangeable landmarks in the better of their
            two orders; None where there is none.
    """

    case: int
    name: str
    landmark: str
    position: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    spread_mm: float
    error_mm: float | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "case": self.name,
            "landmark": self.landmark,
            "position_lps_mm": [round(float(value), 4) for value in self.world_mm],
            "spread_mm": round(self.spread_mm, 4),
            "error_mm": None if self.error_mm is None else round(self.error_mm, 4),
        }


def errors_of(built: Built, searched: Searched) -> list[Errors]:
    """The errors of every landmark that was searched for, in the order of the heads."""
    heads = searched.agreed["head"].astype(np.int64)
    groups, starts = searched.found.shape
    single = searched.errors.reshape(groups, starts, -1)
    agreed = searched.agreed_errors.reshape(groups, -1)
    prior = None if searched.prior_errors is None else searched.prior_errors.reshape(groups, -1)
    found: list[Errors] = []
    for k, label in enumerate(built.labels):
        head, agent = divmod(k, built.teams.shape[1])
        of = heads == head
        if not of.any():
            continue
        constant = np.empty(0) if prior is None else prior[of, agent]
        constant = constant[np.isfinite(constant)]
        found.append(_errors(label, single[of, :, agent].ravel(), agreed[of, agent], constant))
    return found


def mean_row(rows: Sequence[Row]) -> Row:
    """All landmarks together, each counting equally."""
    priors = [row.prior_mm for row in rows if row.prior_mm is not None]
    shares = [row.prior_within for row in rows if row.prior_within is not None]
    return Row(
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


def predictions(
    built: Built, searched: Searched, outlier_mads: float, *, truth: bool
) -> list[Prediction]:
    """What searches of the cases as acquired agree on, by case and landmark.

    Args:
        built: the task.
        searched: its searches, without poses.
        outlier_mads: see `site_client.agent.search.consensus`.
        truth: whether the cases' landmarks are true; otherwise errors are None.
    """
    found = searched.found
    votes: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for group in range(len(found)):
        head, case = int(found[group, 0]["head"]), int(found[group, 0]["case"])
        for agent, landmark in enumerate(built.teams[head]):
            places = built.plane_mm(found[group])[:, agent]
            votes.setdefault((case, int(landmark)), []).append(places)
    answers = built.answers(found, outlier_mads)
    every: list[Prediction] = []
    for (case, landmark), position in sorted(answers.items(), key=lambda item: item[0]):
        each = built.cases.each[case]
        other = built.partner(case, landmark)
        cloud = np.concatenate(votes[case, landmark])
        # In the better of a couple's two orders.
        ends = np.stack([position, answers[case, other]])
        marks = each.landmarks_mm[[landmark, other]]
        straight, crossed = (np.linalg.norm(ends - m, axis=1) for m in (marks, marks[::-1]))
        gap = float(min(straight, crossed, key=lambda gaps: gaps.sum())[0])
        every.append(
            Prediction(
                case=case,
                name=each.name,
                landmark=built.cases.landmarks[landmark],
                position=position,
                world_mm=built.world_mm(case, position),
                spread_mm=float(np.linalg.norm(cloud - position, axis=1).mean()),
                error_mm=gap if truth else None,
            )
        )
    return every


def write_predictions(folder: Path, found: Sequence[Prediction]) -> list[Path]:
    """One ``.mrk.json`` per case (LPS, for 3D Slicer), and ``predictions.csv`` of all.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name in dict.fromkeys(entry.name for entry in found):
        path = folder / f"{name}.mrk.json"
        write_landmarks(path, {e.landmark: e.world_mm for e in found if e.name == name})
        written.append(path)
    text = io.StringIO()
    text.write("# unit = mm\n# coordinateSystem = LPS\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "landmark", "x_mm", "y_mm", "z_mm", "spread_mm", "error_mm"])
    for entry in found:
        error = "N/A" if entry.error_mm is None else f"{entry.error_mm:.4f}"
        numbers = [f"{value:.4f}" for value in (*entry.world_mm, entry.spread_mm)]
        writer.writerow([entry.name, entry.landmark, *numbers, error])
    write_atomically(folder / "predictions.csv", text.getvalue().encode())
    return [*written, folder / "predictions.csv"]


def write_json(path: Path, value: object) -> None:
    """Write a result; JSON has no NaN, a figure that is not known is null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def plain(value: object) -> object:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _errors(
    label: str,
    single: NDArray[np.float64],
    agreed: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> Errors:
    row = Row(
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


def error_text(unit: str, value: float | None) -> str:
    """An error as a person reads it."""
    if value is None:
        return "unknown"
    return f"{value:.2f}" if unit == MM else f"{value:.3f}"

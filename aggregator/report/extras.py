"""Additions to a report besides the journal. All optional; nothing is guessed when absent.

The values are made by whoever holds the material: an evaluation on held-out
public subjects, ledgers that a site handed over, a note on overhead. No pixel
of a site may be put in here: ``DrawnSearch`` is for public demo images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from aggregator.report.run import Curve
from common.errors import InputDataError


@dataclass(frozen=True)
class HeldOut:
    """Errors on subjects that no site trained on, mm; every landmark weighs the same.

    Attributes:
        subjects: how many.
        federated: (training rounds, mean error per landmark), ascending.
        prior_mm: the constant mean-position predictor's, per landmark.
        local_rounds: per site training alone: (training rounds, mean error).
        local_final: per site training alone: the last model's error per landmark.
        over_10mm: share (0 to 1) of searches that ended more than 10 mm away, by who
            searched: ``federated`` or a site's name.
    """

    subjects: int
    federated: tuple[tuple[int, Mapping[str, float]], ...]
    prior_mm: Mapping[str, float]
    local_rounds: Mapping[str, Curve] = field(default_factory=dict)
    local_final: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    over_10mm: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.federated or not self.prior_mm:
            raise InputDataError(
                "a held-out evaluation is empty",
                field="held_out.federated and held_out.prior_mm",
                expected="at least one round and one landmark",
                got="none",
            )
        landmarks = set(self.prior_mm)
        tables = [*(errors for _, errors in self.federated), *self.local_final.values()]
        if any(set(errors) != landmarks for errors in tables):
            raise InputDataError(
                "a held-out evaluation is not over the same landmarks throughout",
                field="held_out",
                expected="the landmarks of prior_mm in every round and for every site",
                got="other names",
            )

    @property
    def curve(self) -> Curve:
        """The federated model's mean error by training rounds."""
        return tuple((n, fmean(errors.values())) for n, errors in self.federated)

    @property
    def prior(self) -> float:
        """The constant predictor's mean error."""
        return fmean(self.prior_mm.values())

    @property
    def local(self) -> dict[str, float]:
        """Mean error of every site's own last model."""
        last = {site: points[-1][1] for site, points in self.local_rounds.items() if points}
        return last | {site: fmean(errors.values()) for site, errors in self.local_final.items()}


@dataclass(frozen=True)
class LedgerVerdict:
    """The words of an offline verification of one site's ledger.

    Attributes:
        verdict: ``intact``, or what does not hold.
        bytes_out: released bytes according to the ledger, all its records together.
        receipts: checkpoints that a witness counter-signed.
        fingerprint: of the key that signed the checkpoints.
    """

    site: str
    records: int
    verdict: str
    bytes_out: int = 0
    rounds: int = 0
    receipts: int = 0
    fingerprint: str = ""

    @property
    def intact(self) -> bool:
        """True if everything held; any other wording counts as trouble."""
        return self.verdict == "intact"


@dataclass(frozen=True, eq=False)
class DrawnSearch:
    """One search on a public held-out image, drawn over one slice of it.

    Attributes:
        image: uint8[rows, columns]; row 0 is at the top of the picture.
        extent_mm: left, right, bottom, top edge of the image, in the path's coordinates.
        path: (horizontal mm, vertical mm, level) per step; level 0 is the coarsest.
        truth_mm: the landmark's true position in the slice, horizontal and vertical.
        error_mm: distance of the end point from it, in three dimensions.
        source: where the public image comes from.
    """

    image: NDArray[np.uint8]
    extent_mm: tuple[float, float, float, float]
    path: tuple[tuple[float, float, int], ...]
    truth_mm: tuple[float, float]
    landmark: str
    error_mm: float
    source: str = ""

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 2 or self.image.size == 0:
            raise InputDataError(
                "a trajectory's slice cannot be drawn",
                field="trajectory.image",
                expected="uint8[rows, columns], not empty",
                got=f"{self.image.dtype}{list(self.image.shape)}",
            )
        if not self.path:
            raise InputDataError(
                "a trajectory has no steps",
                field="trajectory.path",
                expected="at least the starting point",
                got="none",
            )


@dataclass(frozen=True)
class ReportExtras:
    """Everything optional, in one value.

    Attributes:
        sketch_shape: rows and columns of the experience sketch.
        overhead: a sentence on what federation cost.
        machine, seeds, command: where the figures come from and how to get them again.
        software: name to version; this installation's when empty.
    """

    held_out: HeldOut | None = None
    ledgers: tuple[LedgerVerdict, ...] = ()
    trajectory: DrawnSearch | None = None
    sketch_shape: tuple[int, int] | None = None
    overhead: str = ""
    machine: str = ""
    seeds: str = ""
    command: str = ""
    software: Mapping[str, str] = field(default_factory=dict)

"""Everything a record is measured against, and the few sentences that every rule is made of.

Pure: no file, no socket, no clock. None of what is expected comes from the record.
A broken rule raises ``RefusedError`` naming the field and what was expected, never
a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.plan import FederationPlan
from common.schedule import Phase
from common.wire.envelope import Array


@dataclass(frozen=True)
class RecordFloors:
    """Least that must stand behind a record."""

    images: int
    transitions: int
    sketch_fill: float
    slides: int = 1
    pixels: int = 1
    group_pixels: int = 1

    @classmethod
    def of(cls, plan: FederationPlan) -> RecordFloors:
        """Return the plan's own floors."""
        limits = plan.limits
        common = (limits.min_images, limits.min_transitions, limits.min_sketch_fill)
        if plan.kind == "pixels":
            return cls(*common, plan.pixels.min_slides, plan.pixels.min_pixels)
        if plan.kind == "embed":
            section = plan.embed
            return cls(*common, section.min_slides, section.min_pixels, section.group_pixels)
        return cls(*common)


class Origin(TypedDict):
    """The words that every record of an answer begins with."""

    plan_fingerprint: str
    site: str
    run: str
    round: int


@dataclass(frozen=True)
class Expected:
    """Everything a record is measured against; none of it comes from the record.

    Attributes:
        site, run, round, phase, plan: of the order that is answered.
        shapes: name to shape of every weight that the sites of the plan add up.
        key_id, codec: of the sites' sketches; None where they are not known yet.
        samples: most samples that the site may count as.
    """

    site: str
    run: str
    round: int
    phase: Phase
    plan: FederationPlan
    shapes: Mapping[str, tuple[int, ...]]
    floors: RecordFloors
    key_id: str | None = None
    codec: str | None = None
    samples: int = 1_000_000

    @property
    def origin(self) -> Origin:
        """The words that every record of the answer must begin with."""
        return Origin(
            plan_fingerprint=self.plan.fingerprint, site=self.site, run=self.run, round=self.round
        )


def require(holds: bool, field: str, expected: str, got: str) -> None:
    """Refuse unless the rule holds."""
    if not holds:
        raise RefusedError("a record breaks a rule", field=field, expected=expected, got=got)


def require_array(array: Array, field: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Refuse an array of another type or shape."""
    right = array.dtype.name == dtype and array.shape == shape
    got = f"{array.dtype.name}{list(array.shape)}"
    require(right, field, f"{dtype}{list(shape)}", got)


def require_names(arrays: Mapping[str, Array], *names: str) -> None:
    """Refuse arrays of other names than these."""
    allowed = f"exactly: {', '.join(names)}" if names else "none"
    require(set(arrays) == set(names), "arrays", allowed, f"{len(arrays)} arrays")


def require_within(value: int, field: str, least: int, most: int) -> None:
    """Refuse a count that is too small or too large."""
    require(value >= least, field, f"at least {least}", "fewer")
    require(value <= most, field, f"at most {most}", "more")


def require_table(table: NDArray[np.int64], field: str, shape: tuple[int, int], total: int) -> None:
    """Refuse what cannot be the count sketch of ``total`` keys."""
    require_array(table, field, "int64", shape)
    # By comparison, for numpy's abs(-2**63) is negative.
    inside = bool(((table <= total) & (table >= -total)).all())
    require(inside, field, "within plus or minus total in every cell", "a larger cell")
    mass = _largest_row_sum(table)
    require(mass <= total, field, "of absolute row sum at most total", "a larger sum")


def require_filled(
    table: NDArray[np.int64], field: str, total: int, fill: float, cells: float
) -> None:
    """Refuse a table so sparse, or so large for its keys, that it is nearly a list of them."""
    filled = np.count_nonzero(table) / table.size
    require(bool(filled >= fill), field, f"filled to at least {fill:g}", "a sparser table")
    require(table.size <= cells * total, field, f"at most {cells:g} cells per key counted", "more")


def l2_norm(arrays: Mapping[str, Array]) -> float:
    """Euclidean norm of all values together, in double precision."""
    squares = (np.square(array, dtype=np.float64).sum() for array in arrays.values())
    return float(np.sqrt(sum(squares)))


def exact_sum(values: NDArray[np.int64]) -> int:
    """Sum of non-negative numbers; in two halves, so that nothing overflows."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def _largest_row_sum(table: NDArray[np.int64]) -> int:
    """Largest sum of absolute values of a row."""
    return max(exact_sum(row) for row in np.abs(table))

"""What a record must satisfy under a plan: checked at the door and again at intake.

Pure: no file, no socket, no clock. A broken rule raises ``RefusedError`` naming
the field and what was expected, never a value. The site's door adds its own
policy to these rules; the aggregator's intake adds the proof and the other sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.plan import FederationPlan
from common.wire.codes import ReplyCode
from common.wire.envelope import Array, Envelope
from common.wire.records import LandmarkError, ModelUpdate, Record, RoundReport, SketchTable

Phase = Literal["begin", "train", "evaluate"]

ANSWERS: Final[Mapping[Phase, tuple[type[Record], ...]]] = {
    "begin": (RoundReport,),
    "train": (ModelUpdate, SketchTable, RoundReport),
    "evaluate": (RoundReport,),
}
"""What may answer which order. A type that is not here cannot cross."""

MAX_IMAGES: Final = 1_000_000
MAX_TRANSITIONS: Final = 10**9
MAX_LOSS_MILLI: Final = 10**9
MAX_TRAIN_MS: Final = 7 * 86_400_000
_FAILURE_FIELDS: Final = frozenset({"plan_fingerprint", "site", "run", "round", "code"})


@dataclass(frozen=True)
class Floors:
    """Least that must stand behind a record."""

    images: int
    transitions: int
    sketch_fill: float

    @classmethod
    def of(cls, plan: FederationPlan) -> Floors:
        """The plan's own floors."""
        limits = plan.limits
        return cls(limits.min_images, limits.min_transitions, limits.min_sketch_fill)


@dataclass(frozen=True)
class Expected:
    """What a record is measured against; none of it comes from the record.

    Attributes:
        site, run, round, phase, plan: of the order that is answered.
        shapes: name to shape of every weight of the plan's model.
        key_id, codec: of the sites' sketches; None where they are not known yet.
    """

    site: str
    run: str
    round: int
    phase: Phase
    plan: FederationPlan
    shapes: Mapping[str, tuple[int, ...]]
    floors: Floors
    key_id: str | None = None
    codec: str | None = None


def check_record(envelope: Envelope, expected: Expected) -> None:
    """Every rule that holds at any site.

    Raises:
        RefusedError: names the field that does not hold.
    """
    record = envelope.record
    check_origin(record, expected)
    if isinstance(record, ModelUpdate):
        _check_update(record, envelope.arrays, expected)
    elif isinstance(record, SketchTable):
        _check_sketch(record, envelope.arrays, expected)
    else:
        _check_report(record, envelope.arrays, expected)


def check_origin(record: Record, expected: Expected) -> None:
    """The right type of record, about this order and no other."""
    allowed = [kind.__name__ for kind in ANSWERS[expected.phase]]
    require(record.record_type in allowed, "record_type", " or ".join(allowed), record.record_type)
    values: dict[str, object] = {
        "plan_fingerprint": expected.plan.fingerprint,
        "site": expected.site,
        "run": expected.run,
        "round": expected.round,
    }
    for field, value in values.items():
        require(getattr(record, field) == value, field, "the order's", "another")


def _check_update(record: ModelUpdate, arrays: Mapping[str, Array], expected: Expected) -> None:
    shapes = expected.shapes
    require(
        set(arrays) == set(shapes),
        "weights",
        f"the {len(shapes)} names of the plan's model",
        f"{len(arrays)} arrays, {len(set(arrays) - set(shapes))} of them unknown",
    )
    for name, shape in shapes.items():
        array = arrays[name]
        require_array(array, f"weights/{name}", "float32", shape)
        bad = array.size - int(np.isfinite(array).sum())
        require(bad == 0, f"weights/{name}", "finite", f"{bad} values that are not")
    limit = expected.plan.limits.update_l2
    require(l2_norm(arrays) <= limit, "weights", f"of L2 norm at most {limit:g}", "a larger norm")
    _check_counts(record, expected)
    floor = expected.floors.transitions
    require(record.transitions >= floor, "transitions", f"at least {floor}", "fewer")
    require(
        record.transitions <= MAX_TRANSITIONS, "transitions", f"at most {MAX_TRANSITIONS}", "more"
    )


def _check_sketch(record: SketchTable, arrays: Mapping[str, Array], expected: Expected) -> None:
    plan, floors = expected.plan, expected.floors
    rows, columns = plan.experience.rows, plan.experience.columns
    require((record.rows, record.columns) == (rows, columns), "rows, columns", "the plan's", "not")
    _check_identity(record, expected)
    require(set(arrays) == {"table"}, "arrays", "exactly: table", f"{len(arrays)} arrays")
    table: NDArray[np.int64] = np.asarray(arrays["table"])
    require_array(table, "table", "int64", (rows, columns))
    total = record.total
    # By comparison, for numpy's abs(-2**63) is negative.
    inside = bool(((table <= total) & (table >= -total)).all())
    require(inside, "table", "within plus or minus total in every cell", "a larger cell")
    mass = _largest_row_sum(table)
    require(mass <= total, "table", "of absolute row sum at most total", "a larger sum")
    require(total >= floors.transitions, "total", f"at least {floors.transitions}", "fewer")
    fill = np.count_nonzero(table) / table.size
    least = floors.sketch_fill
    require(bool(fill >= least), "table", f"filled to at least {least:g}", "a sparser table")
    cells = plan.limits.max_cells_per_input
    require(
        table.size <= cells * total, "table", f"at most {cells:g} cells per key counted", "more"
    )


def _check_report(record: RoundReport, arrays: Mapping[str, Array], expected: Expected) -> None:
    require(not arrays, "arrays", "none", f"{len(arrays)}")
    if record.code is not ReplyCode.OK:
        said = record.model_dump(exclude_defaults=True).keys() - _FAILURE_FIELDS
        require(not said, "report", "a failure's number and nothing else", f"{len(said)} more")
        return
    _check_identity(record, expected)
    _check_counts(record, expected)
    bounds = {
        "transitions": MAX_TRANSITIONS,
        "loss_milli": MAX_LOSS_MILLI,
        "epsilon_milli": 1000,
        "train_ms": MAX_TRAIN_MS,
    }
    for field, limit in bounds.items():
        require(getattr(record, field) <= limit, field, f"at most {limit}", "more")
    names = [error.landmark for error in record.errors]
    known = set(names) <= set(expected.plan.task.landmarks) and len(set(names)) == len(names)
    require(known, "errors.landmark", "landmarks of the plan, each once", "others")
    for error in record.errors:
        _check_error(error, record.images, expected.plan)


def _check_identity(record: SketchTable | RoundReport, expected: Expected) -> None:
    """Sketches of another key or quantiser cannot be added to the others."""
    if record.key_id is not None and expected.key_id is not None:
        require(record.key_id == expected.key_id, "key_id", "that of the federation", "another")
    if record.codec is not None and expected.codec is not None:
        require(record.codec == expected.codec, "codec", "that of the plan", "another")


def _check_error(error: LandmarkError, images: int, plan: FederationPlan) -> None:
    """An error is a mean over enough images, and over no more searches than were asked for."""
    limit = images * plan.agent.evaluation_starts
    require(1 <= error.searches <= limit, "errors.searches", f"1 to {limit}", "another count")
    require(error.over_10mm <= error.searches, "errors.over_10mm", "at most searches", "more")


def _check_counts(record: ModelUpdate | RoundReport, expected: Expected) -> None:
    floor = expected.floors.images
    require(record.images >= floor, "images", f"at least {floor}", "fewer")
    require(record.images <= MAX_IMAGES, "images", f"at most {MAX_IMAGES}", "more")
    planned = expected.plan.agent.updates
    require(record.updates <= planned, "updates", f"at most the plan's {planned}", "more")


def require_array(array: Array, field: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Refuse an array of another type or shape."""
    right = array.dtype.name == dtype and array.shape == shape
    got = f"{array.dtype.name}{list(array.shape)}"
    require(right, field, f"{dtype}{list(shape)}", got)


def l2_norm(arrays: Mapping[str, Array]) -> float:
    """Euclidean norm of all values together, in double precision."""
    squares = (np.square(array, dtype=np.float64).sum() for array in arrays.values())
    return float(np.sqrt(sum(squares)))


def _largest_row_sum(table: NDArray[np.int64]) -> int:
    """Largest sum of absolute values of a row; in two halves, so that nothing overflows."""
    size = np.abs(table)
    high, low = (size >> 32).sum(axis=1), (size & 0xFFFFFFFF).sum(axis=1)
    return max((int(upper) << 32) + int(lower) for upper, lower in zip(high, low, strict=True))


def require(holds: bool, field: str, expected: str, got: str) -> None:
    """Refuse unless the rule holds."""
    if not holds:
        raise RefusedError("a record breaks a rule", field=field, expected=expected, got=got)

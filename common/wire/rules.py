"""Rules of every record under a plan: checked at the door and again at intake.

Pure: no file, no socket, no clock. A broken rule raises ``RefusedError`` naming
the field and what was expected, never a value. The site's door adds its own
policy to these rules; the aggregator's intake adds the proof and the other sites.
The rules for records about pixels are in ``pixel_rules``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.plan import FederationPlan
from common.plan.experience import MOST_ERROR, Subject
from common.schedule import Phase
from common.settings import KINDS, MM
from common.wire.bounds import (
    MAX_IMAGES,
    most_replays,
    most_searches,
    most_transitions,
    most_updates,
    samples_of,
)
from common.wire.codes import ReplyCode
from common.wire.envelope import Array, Envelope
from common.wire.expected import (
    Expected,
    l2_norm,
    require,
    require_array,
    require_filled,
    require_names,
    require_table,
    require_within,
)
from common.wire.labels import check_labels, without_labels
from common.wire.pixel_rules import check_groups, check_hitters, check_sketches, check_statistics
from common.wire.records import (
    ErrorTables,
    GroupCounts,
    HeavyHitters,
    ModelUpdate,
    PixelSketches,
    PixelStatistics,
    Record,
    RoundReport,
    SketchTable,
    TaskError,
)

ANSWERS: Final[Mapping[Phase, tuple[type[Record], ...]]] = {
    "begin": (RoundReport,),
    "train": (ModelUpdate, SketchTable, ErrorTables, RoundReport),
    "evaluate": (RoundReport,),
    "survey": (PixelStatistics, RoundReport),
    "range": (PixelStatistics, RoundReport),
    "sketch": (PixelSketches, RoundReport),
    "recover": (HeavyHitters, RoundReport),
    "embed": (GroupCounts, RoundReport),
}
"""What may answer which order. A type that is not here cannot cross; see ``answers_of``."""

FIXED_POINT: Final = 2.0**24
"""Units of a model update per unit of its weights."""
SUMMED: Final[Mapping[Phase, tuple[type[Record], ...]]] = {
    "train": (ModelUpdate, SketchTable, ErrorTables),
    "survey": (PixelStatistics,),
    "range": (PixelStatistics,),
    "sketch": (PixelSketches,),
}
"""What of an answer is added to the other sites'; the rest is read and kept."""

_COUNTS: Final[Mapping[type[Record], Subject]] = {
    SketchTable: "experience",
    ErrorTables: "errors",
}
"""What the tables of experience count."""
MAX_LOSS_MILLI: Final = 10**9
MAX_TRAIN_MS: Final = 7 * 86_400_000
_FAILURE_FIELDS: Final = frozenset({"plan_fingerprint", "site", "run", "round", "code"})


def answers_of(plan: FederationPlan, phase: Phase) -> tuple[type[Record], ...]:
    """List what must answer an order of a plan, and nothing else may.

    A table of experience that nobody reads stays at the site.
    """
    return _read(plan, ANSWERS[phase])


def summed_of(plan: FederationPlan, phase: Phase) -> tuple[type[Record], ...]:
    """List what of an answer to an order of a plan is added to the other sites'."""
    return _read(plan, SUMMED.get(phase, ()))


def _read(plan: FederationPlan, kinds: tuple[type[Record], ...]) -> tuple[type[Record], ...]:
    return tuple(kind for kind in kinds if _COUNTS.get(kind, plan.counts) == plan.counts)


def check_record(envelope: Envelope, expected: Expected) -> None:
    """Every rule that holds at any site.

    Raises:
        RefusedError: names the field that does not hold.
    """
    record, arrays = envelope.record, envelope.arrays
    check_origin(record, expected)
    match record:
        case ModelUpdate():
            _check_update(record, arrays, expected)
        case SketchTable():
            _check_sketch(record, arrays, expected)
        case ErrorTables():
            _check_errors(record, arrays, expected)
        case RoundReport():
            _check_report(record, arrays, expected)
        case PixelStatistics():
            check_statistics(record, arrays, expected)
        case PixelSketches():
            check_sketches(record, arrays, expected)
        case HeavyHitters():
            check_hitters(record, arrays, expected)
        case GroupCounts():
            check_groups(record, arrays, expected)


def check_origin(record: Record, expected: Expected) -> None:
    """Require the right type of record, about this order and no other."""
    allowed = [kind.__name__ for kind in answers_of(expected.plan, expected.phase)]
    require(record.record_type in allowed, "record_type", " or ".join(allowed), record.record_type)
    for field, value in expected.origin.items():
        require(getattr(record, field) == value, field, "the order's", "another")


def _check_update(record: ModelUpdate, arrays: Mapping[str, Array], expected: Expected) -> None:
    shapes, plan = expected.shapes, expected.plan
    weights = without_labels(arrays) if plan.tells_labels else arrays
    require(
        set(weights) == set(shapes),
        "weights",
        f"the {len(shapes)} names of the plan's model",
        f"{len(weights)} arrays, {len(set(weights) - set(shapes))} of them unknown",
    )
    for name, shape in shapes.items():
        array = weights[name]
        require_array(array, f"weights/{name}", "int32", shape)
    if plan.tells_labels:
        check_labels(arrays, plan)
    limit = plan.limits.update_l2
    norm = l2_norm(weights) / FIXED_POINT
    require(norm <= limit, "weights", f"of L2 norm at most {limit:g}", "a larger norm")
    _check_counts(record, expected)
    most = samples_of(plan, record.images, record.updates, expected.samples)
    require_within(record.samples, "samples", 1, most)
    floor = expected.floors.transitions
    require(record.transitions >= floor, "transitions", f"at least {floor}", "fewer")


def _check_sketch(record: SketchTable, arrays: Mapping[str, Array], expected: Expected) -> None:
    most = most_transitions(expected.plan, expected.phase)
    require_names(arrays, "table")
    _check_counts_of_keys(record, np.asarray(arrays["table"]), "table", most, expected)


def _check_errors(record: ErrorTables, arrays: Mapping[str, Array], expected: Expected) -> None:
    plan = expected.plan
    require_names(arrays, "replays", "errors")
    replays: NDArray[np.int64] = np.asarray(arrays["replays"])
    _check_counts_of_keys(record, replays, "replays", most_replays(plan, expected.phase), expected)
    most = MOST_ERROR * record.total
    require(record.errors <= most, "errors", f"at most {MOST_ERROR} a replay", "more")
    shape = (plan.experience.rows, plan.experience.columns)
    require_table(np.asarray(arrays["errors"]), "errors", shape, record.errors)


def _check_counts_of_keys(
    record: SketchTable | ErrorTables,
    table: NDArray[np.int64],
    name: str,
    most: int,
    expected: Expected,
) -> None:
    """Require the plan's form, no more keys than it lets a site count, and enough of them."""
    plan, floors = expected.plan, expected.floors
    shape = (plan.experience.rows, plan.experience.columns)
    require((record.rows, record.columns) == shape, "rows, columns", "the plan's", "not")
    _check_identity(record, expected)
    total = record.total
    # Before the cells: their bound is the total, and the total's is the plan.
    require(total <= most, "total", f"at most the plan's {most}", "more")
    require_table(table, name, shape, total)
    require(total >= floors.transitions, "total", f"at least {floors.transitions}", "fewer")
    require_filled(table, name, total, floors.sketch_fill, plan.limits.max_cells_per_input)


def _check_report(record: RoundReport, arrays: Mapping[str, Array], expected: Expected) -> None:
    require_names(arrays)
    if record.code is not ReplyCode.OK:
        said = record.model_dump(exclude_defaults=True).keys() - _FAILURE_FIELDS
        require(not said, "report", "a failure's number and nothing else", f"{len(said)} more")
        return
    _check_identity(record, expected)
    _check_counts(record, expected)
    bounds = {
        "loss_milli": MAX_LOSS_MILLI,
        "epsilon_milli": 1000,
        "train_ms": MAX_TRAIN_MS,
    }
    for field, limit in bounds.items():
        require(getattr(record, field) <= limit, field, f"at most {limit}", "more")
    told = [(error.label, error.part) for error in record.errors]
    planned = expected.plan.space.labels if expected.plan.trains else ()
    in_plan = {name for name, _ in told} <= set(planned)
    once = len(set(told)) == len(told)
    each = "labels of the plan, each once in a part"
    require(in_plan and once, "errors.label", each, "others")
    if record.held_out:  # what is told of them rests on no less than what is trained on
        require_within(record.held_out, "held_out", expected.floors.images, MAX_IMAGES)
    images = {"held-out": record.held_out, "training": record.images}
    for error in record.errors:
        _check_error(error, images[error.part], expected.plan)


def _check_identity(record: SketchTable | ErrorTables | RoundReport, expected: Expected) -> None:
    """Sketches of another key or quantiser cannot be added to the others."""
    if record.key_id is not None and expected.key_id is not None:
        require(record.key_id == expected.key_id, "key_id", "that of the federation", "another")
    if record.codec is not None and expected.codec is not None:
        require(record.codec == expected.codec, "codec", "that of the plan", "another")


def _check_error(error: TaskError, images: int, plan: FederationPlan) -> None:
    """Require a mean over enough images, and over no more searches than were asked for."""
    limit = most_searches(plan, images)
    require(1 <= error.searches <= limit, "errors.searches", f"1 to {limit}", "another count")
    far, in_mm = error.over_10mm, KINDS[plan.task.kind].unit == MM
    require((far is not None) == in_mm, "errors.over_10mm", "there for errors in mm", "not so")
    require((far or 0) <= error.searches, "errors.over_10mm", "at most searches", "more")


def _check_counts(record: ModelUpdate | RoundReport, expected: Expected) -> None:
    floor = expected.floors.slides if expected.plan.about_slides else expected.floors.images
    require_within(record.images, "images", floor, MAX_IMAGES)
    for field, most in (
        ("transitions", most_transitions(expected.plan, expected.phase)),
        ("updates", most_updates(expected.plan, expected.phase)),
    ):
        require(getattr(record, field) <= most, field, f"at most the plan's {most}", "more")

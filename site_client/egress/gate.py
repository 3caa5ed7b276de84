"""Every rule of the door. Pure: no file, no socket, no clock, no randomness.

To audit, read ``ALLOWED``, ``Context`` and ``check`` and stop. ``release`` has every
envelope of an answer checked before it records or writes the first.
Any exception in here means that nothing leaves. A refusal names the field and
what was expected; it never quotes a value. The rules in words: deploy/EGRESS.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import RefusedError
from common.plan import FederationPlan
from common.wire.codes import ReplyCode
from common.wire.envelope import Array, Envelope, decode
from common.wire.records import LandmarkError, ModelUpdate, Record, RoundReport, SketchTable
from site_client.egress.policy import Policy

Phase = Literal["begin", "train", "evaluate"]

ALLOWED: Final[Mapping[Phase, tuple[type[Record], ...]]] = {
    "begin": (RoundReport,),
    "train": (ModelUpdate, SketchTable, RoundReport),
    "evaluate": (RoundReport,),
}
"""What may answer which order. A type that is not here cannot leave."""

MAX_IMAGES: Final = 1_000_000
MAX_TRANSITIONS: Final = 10**9
MAX_LOSS_MILLI: Final = 10**9
MAX_POSES: Final = 4
MAX_TRAIN_MS: Final = 7 * 86_400_000
_FAILURE_FIELDS: Final = frozenset({"plan_fingerprint", "site", "run", "round", "code"})


@dataclass(frozen=True)
class Context:
    """What a release is measured against; none of it comes from the release.

    Attributes:
        site, run, round, phase, plan: of the order that is answered.
        policy: the site's own.
        shapes: name to shape of every weight of the plan's model.
        key_id, codec: of the site's sketches.
        public_key_id: id of the sketch key that everybody knows (tier 0).
        round_bytes, run_bytes: envelope bytes that have left already.
    """

    site: str
    run: str
    round: int
    phase: Phase
    plan: FederationPlan
    policy: Policy
    shapes: Mapping[str, tuple[int, ...]]
    key_id: str
    codec: str
    public_key_id: str
    round_bytes: int = 0
    run_bytes: int = 0


def check_answer(answer: Sequence[bytes], context: Context) -> list[Envelope]:
    """Return the decoded envelopes of one answer if and only if all of them may leave together.

    Raises:
        RefusedError, VerificationError: as ``check``; also for no envelope at all, or
            two of one type.
    """
    _require(bool(answer), "answer", "at least one envelope", "none")
    envelopes: list[Envelope] = []
    for data in answer:
        envelopes.append(check(data, context))
        context = replace(
            context,
            round_bytes=context.round_bytes + len(data),
            run_bytes=context.run_bytes + len(data),
        )
    types = {envelope.record.record_type for envelope in envelopes}
    _require(len(types) == len(envelopes), "answer", "one envelope of a type", "two")
    return envelopes


def check(data: bytes, context: Context) -> Envelope:
    """Return the decoded envelope if and only if it may leave.

    ``decode`` refuses unknown types and fields, and encodes what it read again:
    bytes that the record does not account for make the two differ.

    Raises:
        RefusedError: names the field that may not leave as it is.
        VerificationError: metadata that is not canonical JSON.
    """
    _check_size(len(data), context)
    envelope = decode(data)
    record = envelope.record
    _check_origin(record, context)
    if isinstance(record, ModelUpdate):
        _check_update(record, envelope.arrays, context)
    elif isinstance(record, SketchTable):
        _check_sketch(record, envelope.arrays, context)
    else:
        _check_report(record, envelope.arrays, context)
    return envelope


def _check_size(size: int, context: Context) -> None:
    caps = context.policy.bytes
    limit = context.plan.limits.max_envelope_bytes
    _require(size <= limit, "envelope", f"at most {limit} bytes", f"{size} bytes")
    in_round, in_run = context.round_bytes + size, context.run_bytes + size
    _require(
        in_round <= caps.per_round, "round", f"at most {caps.per_round} bytes", f"{in_round} bytes"
    )
    _require(in_run <= caps.per_run, "run", f"at most {caps.per_run} bytes", f"{in_run} bytes")


def _check_origin(record: Record, context: Context) -> None:
    """The right type of record, about this order and no other."""
    allowed = [
        kind.__name__
        for kind in ALLOWED[context.phase]
        if kind.__name__ in context.policy.records.allowed
    ]
    _require(
        record.record_type in allowed,
        "record_type",
        " or ".join(allowed) or "none",
        record.record_type,
    )
    expected: dict[str, object] = {
        "plan_fingerprint": context.plan.fingerprint,
        "site": context.site,
        "run": context.run,
        "round": context.round,
    }
    for field, value in expected.items():
        _require(getattr(record, field) == value, field, "the order's", "another")


def _check_update(record: ModelUpdate, arrays: Mapping[str, Array], context: Context) -> None:
    _require(
        set(arrays) == set(context.shapes),
        "weights",
        f"the {len(context.shapes)} names of the plan's model",
        f"{len(arrays)} arrays, {len(set(arrays) - set(context.shapes))} of them unknown",
    )
    for name, shape in context.shapes.items():
        array = arrays[name]
        _require_array(array, f"weights/{name}", "float32", shape)
        bad = array.size - int(np.isfinite(array).sum())
        _require(bad == 0, f"weights/{name}", "finite", f"{bad} values that are not")
    norm, limit = _l2(arrays), context.plan.limits.update_l2
    _require(norm <= limit, "weights", f"of L2 norm at most {limit:g}", "a larger norm")
    _check_counts(record, context)
    floor = max(context.policy.floors.transitions, context.plan.limits.min_transitions)
    _require(record.transitions >= floor, "transitions", f"at least {floor}", "fewer")


def _check_sketch(record: SketchTable, arrays: Mapping[str, Array], context: Context) -> None:
    plan, floors = context.plan, context.policy.floors
    rows, columns = plan.experience.rows, plan.experience.columns
    _require((record.rows, record.columns) == (rows, columns), "rows, columns", "the plan's", "not")
    _require(record.key_id == context.key_id, "key_id", "that of the site's key", "another")
    _require(record.codec == context.codec, "codec", "that of the plan", "another")
    tier = max(plan.limits.privacy_tier, context.policy.privacy.least_tier)
    _require(
        tier == 0 or record.key_id != context.public_key_id,
        "key_id",
        f"a secret key, for tier {tier} is asked",
        "the public one",
    )
    _require(set(arrays) == {"table"}, "arrays", "exactly: table", f"{len(arrays)} arrays")
    table: NDArray[np.int64] = np.asarray(arrays["table"])
    _require_array(table, "table", "int64", (rows, columns))
    total = record.total
    # By comparison, for numpy's abs(-2**63) is negative.
    inside = bool(((table <= total) & (table >= -total)).all())
    _require(inside, "table", "within plus or minus total in every cell", "a larger cell")
    mass = _largest_row_sum(table)
    _require(mass <= total, "table", "of absolute row sum at most total", "a larger sum")
    floor = max(floors.transitions, plan.limits.min_transitions)
    _require(total >= floor, "total", f"at least {floor}", "fewer")
    least = max(floors.sketch_fill, plan.limits.min_sketch_fill)
    fill = float(np.count_nonzero(table) / table.size)
    _require(fill >= least, "table", f"filled to at least {least:g}", "a sparser table")
    cells = plan.limits.max_cells_per_input
    _require(
        bool(table.size <= cells * total),
        "table",
        f"at most {cells:g} cells per key counted",
        "more",
    )


def _check_report(record: RoundReport, arrays: Mapping[str, Array], context: Context) -> None:
    _require(not arrays, "arrays", "none", f"{len(arrays)}")
    if record.code is not ReplyCode.OK:
        said = record.model_dump(exclude_defaults=True).keys() - _FAILURE_FIELDS
        _require(not said, "report", "a failure's number and nothing else", f"{len(said)} more")
        return
    _require(record.key_id in (None, context.key_id), "key_id", "that of the site's key", "another")
    _require(record.codec in (None, context.codec), "codec", "that of the plan", "another")
    _check_counts(record, context)
    bounds = {
        "transitions": MAX_TRANSITIONS,
        "loss_milli": MAX_LOSS_MILLI,
        "epsilon_milli": 1000,
        "train_ms": MAX_TRAIN_MS,
    }
    for field, limit in bounds.items():
        _require(getattr(record, field) <= limit, field, f"at most {limit}", "more")
    names = [error.landmark for error in record.errors]
    known = set(names) <= set(context.plan.task.landmarks) and len(set(names)) == len(names)
    _require(known, "errors.landmark", "landmarks of the plan, each once", "others")
    for error in record.errors:
        _check_error(error, record.images, context.plan)


def _check_error(error: LandmarkError, images: int, plan: FederationPlan) -> None:
    """An error is a mean over enough images, and over no more searches than were asked for."""
    limit = images * plan.agent.evaluation_starts * MAX_POSES
    _require(1 <= error.searches <= limit, "errors.searches", f"1 to {limit}", "another count")
    _require(error.over_10mm <= error.searches, "errors.over_10mm", "at most searches", "more")


def _check_counts(record: ModelUpdate | RoundReport, context: Context) -> None:
    floor = max(context.policy.floors.images, context.plan.limits.min_images)
    _require(record.images >= floor, "images", f"at least {floor}", "fewer")
    _require(record.images <= MAX_IMAGES, "images", f"at most {MAX_IMAGES}", "more")
    planned = context.plan.agent.updates
    _require(record.updates <= planned, "updates", f"at most the plan's {planned}", "more")


def _require_array(array: Array, field: str, dtype: str, shape: tuple[int, ...]) -> None:
    right = array.dtype.name == dtype and array.shape == shape
    got = f"{array.dtype.name}{list(array.shape)}"
    _require(right, field, f"{dtype}{list(shape)}", got)


def _l2(arrays: Mapping[str, Array]) -> float:
    """Euclidean norm of all values together, in double precision."""
    squares = (np.square(array, dtype=np.float64).sum() for array in arrays.values())
    return float(np.sqrt(sum(squares)))


def _largest_row_sum(table: NDArray[np.int64]) -> int:
    """Largest sum of absolute values of a row; in two halves, so that nothing overflows."""
    size = np.abs(table)
    high, low = (size >> 32).sum(axis=1), (size & 0xFFFFFFFF).sum(axis=1)
    return max((int(upper) << 32) + int(lower) for upper, lower in zip(high, low, strict=True))


def _require(holds: bool, field: str, expected: str, got: str) -> None:
    if not holds:
        raise RefusedError(
            "refused at the door; nothing was sent", field=field, expected=expected, got=got
        )

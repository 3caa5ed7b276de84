"""Rules of an answer's records among each other: checked at the door and again at intake.

Pure: no file, no socket, no clock. Each record was held against the plan before, by
``rules``; here they are held against each other, so that no count can be large where
it weighs and small where it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from common.errors import RefusedError
from common.wire.envelope import Envelope
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
)

Facts = Iterator[tuple[str, int | str | None]]


def check_together(envelopes: Iterable[Envelope]) -> None:
    """Return only if all records of an answer say the same of what more than one of them says.

    Args:
        envelopes: of one site for one order; which types there must be is not decided here.

    Raises:
        RefusedError: names both records and the field, never a value.
    """
    said: dict[str, tuple[int | str, str]] = {}
    for envelope in envelopes:
        record = envelope.record
        for field, value in _said(record):
            if value is None:
                continue
            first, by = said.setdefault(field, (value, record.record_type))
            if value != first:
                raise RefusedError(
                    "an answer contradicts itself",
                    field=f"{record.record_type}: {field}",
                    expected=f"what its {by} says",
                    got="another",
                )


def _said(record: Record) -> Facts:
    """List what a record says that others may say too, under one name for all."""
    yield "plan_fingerprint", record.plan_fingerprint
    yield "site", record.site
    yield "run", record.run
    yield "round", record.round
    match record:
        case ModelUpdate() | RoundReport():
            yield "images", record.images
            yield "transitions", record.transitions
            yield "updates", record.updates
        case SketchTable():
            yield "transitions", record.total
        case PixelStatistics() | PixelSketches() | GroupCounts():
            # A slide is the image of these plans.
            yield "images", record.slides
            yield "pixels", record.pixels
        case HeavyHitters() | ErrorTables():
            # Replays are of some transitions several times and of others never.
            pass
    match record:
        case SketchTable() | ErrorTables() | PixelSketches() | HeavyHitters() | RoundReport():
            yield "key_id", record.key_id
            yield "codec", record.codec
        case PixelStatistics() | GroupCounts():
            yield "codec", record.codec
        case ModelUpdate():
            pass

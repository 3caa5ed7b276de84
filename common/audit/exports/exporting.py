"""One look at a ledger, and what of it goes out.

A ledger that does not verify, or no longer continues what was exported from it, goes out
as one alert and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from common.audit.exports.cursor import Cursor
from common.audit.exports.event import Alarm, AuditEvent, Keys, alert, events_of
from common.audit.exports.outlets import Outlet
from common.audit.load import Audited
from common.audit.period import Period
from common.ledger.records import SITE_PATTERN, LedgerRecord

BATCH: Final = 500
"""Events in one connection or one write; what is lost by a failure is sent again."""


@dataclass(frozen=True)
class Wish:
    """The part of a ledger that is wanted.

    Attributes:
        period: only records of it.
        only_witnessed: leave what the witness has not cosigned for a later look.
    """

    period: Period = field(default_factory=Period)
    only_witnessed: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What a look came to.

    Attributes:
        events: how many went out.
        alarm: why nothing but an alert may go out; None for a sound ledger.
        waiting: records that are left for a later look.
    """

    events: int
    alarm: Alarm | None = None
    waiting: int = 0


def export(
    audited: Audited, outlet: Outlet, wish: Wish, now: datetime, state: Path | None = None
) -> ExportResult:
    """Export what is wanted of a ledger that was just audited.

    Args:
        audited: the ledger after its audit.
        outlet: where it goes.
        wish: which part.
        now: aware; the time of an alert.
        state: file of the cursor; without it everything wanted goes out.

    Raises:
        UnreachableError: the server took less than everything; the state says how far.
        UsageError: the state belongs to another export.
    """
    keys = Keys(
        site=audited.key.public.fingerprint,
        receiver=audited.witness.public.fingerprint if audited.witness else None,
    )
    cursor = _cursor(audited, keys, outlet, state)
    if audited.verdict.broken is not None:
        return _alarm("broken", audited.verdict.broken.seq, cursor, keys, outlet, now, state)
    records = audited.records
    if not cursor.is_continued_by(records):
        restored = _restored_to(records, cursor)
        if restored is None:
            return _alarm("rewritten", cursor.size, cursor, keys, outlet, now, state)
        cursor = cursor.after(records[:restored], cursor.written)
    return _records(audited, keys, cursor, outlet, wish, state)


def _records(
    audited: Audited, keys: Keys, cursor: Cursor, outlet: Outlet, wish: Wish, state: Path | None
) -> ExportResult:
    witnessed = audited.verdict.witnessed_size
    events = list(events_of(audited.records, keys, witnessed))
    end = max(cursor.size, witnessed) if wish.only_witnessed else len(events)
    sent = 0
    step = BATCH if state is not None else max(1, end)
    for start in range(cursor.size, end, step) if state is not None else (0,):
        stop = min(start + step, end)
        batch = [
            event
            for event, record in zip(events, audited.records, strict=True)
            if start <= record.seq < stop and wish.period.holds(record)
        ]
        written = outlet.put(batch, cursor.written)
        sent += len(batch)
        if state is not None:
            cursor = cursor.after(audited.records[:stop], written)
            cursor.write(state)
    return ExportResult(sent, waiting=len(events) - end)


def _cursor(audited: Audited, keys: Keys, outlet: Outlet, state: Path | None) -> Cursor:
    site = audited.verdict.site
    if not site:  # not even the checkpoint could be read
        site = audited.folder.name if re.fullmatch(SITE_PATTERN, audited.folder.name) else "unknown"
    if state is None:
        return Cursor(site=site, site_key=keys.site, into=outlet.name)
    return Cursor.read(state, audited.verdict.site or None, site, keys.site, outlet.name)


def _alarm(
    alarm: Alarm,
    at: int | None,
    cursor: Cursor,
    keys: Keys,
    outlet: Outlet,
    now: datetime,
    state: Path | None,
) -> ExportResult:
    """Send one alert; a standing one is not sent again."""
    event: AuditEvent = alert(alarm, cursor.site, keys, at, now)
    if cursor.alert == event.id:
        return ExportResult(0, alarm)
    written = outlet.put([event], cursor.written)
    if state is not None:
        cursor.model_copy(update={"alert": event.id, "written": written}).write(state)
    return ExportResult(1, alarm)


def _restored_to(records: Sequence[LedgerRecord], cursor: Cursor) -> int | None:
    """Return the size that a recorded restore went back to, if it explains what is missing."""
    for record in records[: cursor.size]:
        lost = record.lost_size if record.event == "RESTORE" else None
        if lost is not None and record.seq < cursor.size <= lost:
            return record.seq
    return None

"""Tidying the archive: payloads past the policy's time, and what nobody released.

A payload is deleted only after the record that says so is committed; an auditor takes a
payload that is gone without one for a breach. Files of a release that a crash cut short
before its first record were never released; they are removed, so that what is left in the
archive always belongs to a record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from common.arrivals.texts import json_of
from common.ledger.log import Ledger
from common.ledger.records import parse_timestamp
from common.policy import Policy, read_policy
from site_client.egress.question import MOST_INTENT_BYTES

LOG = logging.getLogger("cairn.egress")


class Housekeeping:
    """Tidies the archive when the worker starts, and once a day.

    Args:
        ledger: of the site, open.
        answers: folder of the door's notes of intent.
        clock: current time, aware.
    """

    def __init__(
        self,
        ledger: Ledger,
        answers: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger, self._answers, self._clock = ledger, answers, clock
        self._last: date | None = None

    def turn(self, policy_file: Path) -> None:
        """Delete what is to be deleted, if this day has not been looked at yet.

        Raises:
            InputDataError: the site's policy cannot be read.
            StorageError: the ledger could not record; nothing was deleted unrecorded.
        """
        now = self._clock()
        if self._last == now.date():
            return
        removed = remove_unreleased(self._ledger, self._answers)
        expired = expire_payloads(self._ledger, read_policy(policy_file), now)
        if removed or expired:
            LOG.info("archive: %d payloads expired, %d never released", expired, removed)
        self._last = now.date()


def expire_payloads(ledger: Ledger, policy: Policy, now: datetime) -> int:
    """Record and delete every payload whose last release is past the policy's time.

    Returns:
        How many were recorded; what an earlier crash left recorded and on file is deleted, too.

    Raises:
        StorageError: the ledger could not record.
    """
    released: dict[str, tuple[datetime, int]] = {}
    expired: set[str] = set()
    for record in ledger.records():
        digest = record.payload_sha256 or ""
        if record.event == "SEND":
            released[digest] = (parse_timestamp(record.ts), record.bytes or 0)
            expired.discard(digest)
        elif record.event == "EXPIRE":
            expired.add(digest)
    for digest in expired & ledger.archived():
        ledger.forget(digest)
    days = policy.retention.payload_days
    due = [
        (digest, size)
        for digest, (moment, size) in released.items()
        if days and digest not in expired and moment + timedelta(days=days) <= now
    ]
    for digest, size in due:
        ledger.spool(policy.canonical())
        ledger.append("EXPIRE", payload_sha256=digest, bytes=size, policy_sha256=policy.sha256)
        ledger.forget(digest)
    return len(due)


def remove_unreleased(ledger: Ledger, answers: Path) -> int:
    """Delete archived files that no record names and no answer in hand still needs."""
    stray = ledger.archived() - ledger.named()
    stray -= _still_to_record(ledger, answers) if stray else set()
    for digest in stray:
        ledger.forget(digest)
    return len(stray)


def _still_to_record(ledger: Ledger, answers: Path) -> set[str]:
    """Payloads of answers of which the first record is committed and others are not yet."""
    digests: set[str] = set()
    for path in answers.glob("*.json"):
        try:
            note = json_of(path.read_bytes(), MOST_INTENT_BYTES)
        except (OSError, ValueError):
            continue  # the door says so when it needs it
        said = note.get("payloads") if isinstance(note, dict) else None
        payloads = said if isinstance(said, list) else []
        if not all(isinstance(digest, str) for digest in payloads):
            continue
        if payloads and ledger.find(payloads[0]) is not None:
            digests.update(payloads)
    return digests

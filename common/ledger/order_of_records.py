"""Rules of records among each other: number, site, federation, time. Pure.

Times are the site's own clock. It may stand still and never goes back, for the writer
keeps to that. Where a witness says when it saw a record, the two agree to a day; if they
do not, a clock was wrong or a date was chosen, and no date of that ledger is vouched for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from common.errors import VerificationError
from common.ledger.records import LedgerRecord, format_timestamp, parse_timestamp

CLOCKS_AGREE_WITHIN: Final = timedelta(days=1)


class RecordOrder:
    """Follows the records of one ledger, oldest first."""

    def __init__(self) -> None:
        self._federation = ""
        self._latest = ""

    @staticmethod
    def require_place(record: LedgerRecord, seq: int) -> None:
        """Require the number of its place.

        Raises:
            VerificationError: it has another.
        """
        _require(record.seq == seq, "seq", f"#{seq}", f"#{record.seq}: moved, removed or inserted")

    def follow(self, record: LedgerRecord, site: str) -> None:
        """Take the next record.

        Raises:
            VerificationError: it cannot stand there.
        """
        _require(record.site == site, "site", site, "another site's record")
        genesis = (record.event == "GENESIS") == (record.seq == 0)
        _require(genesis, "event", "GENESIS as the first record and no other", record.event)
        _require(bool(record.federation), "federation", "a name", "none")
        _require(bool(record.receiver), "receiver", "an address", "none")
        self._federation = self._federation or record.federation or ""
        same = record.federation == self._federation
        _require(same, "federation", "that of GENESIS", "another federation's record")
        back = f"{record.ts} after {self._latest}: the clock went back"
        _require(record.ts >= self._latest, "ts", "not before the last record's", back)
        self._latest = record.ts

    def differs(self, seen: datetime) -> str | None:
        """Say how the last record is dated otherwise than a witness who had seen it; or None."""
        if parse_timestamp(self._latest) <= seen + CLOCKS_AGREE_WITHIN:
            return None
        return f"dated {self._latest}, and a witness had seen it {format_timestamp(seen)}"


def dated_before(record: LedgerRecord, seen: datetime) -> str | None:
    """Say how the record of a receipt is dated before the receipt was signed; or None."""
    if parse_timestamp(record.ts) >= seen - CLOCKS_AGREE_WITHIN:
        return None
    return f"dated {record.ts}, and records what a witness signed {format_timestamp(seen)}"


def _require(holds: bool, field: str, expected: str, got: str) -> None:
    if not holds:
        raise VerificationError("it cannot stand here", field=field, expected=expected, got=got)

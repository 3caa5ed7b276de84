"""Rules of records among each other: number, site, federation, time. Pure.

Times are the site's own clock. It may stand still and never goes back, for the writer
keeps to that; and where the witness says when it saw a record, the two agree to a day.
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

    def require_before(self, seen: datetime) -> None:
        """Require that the last record is not from after a witness had seen it.

        Raises:
            VerificationError: it is dated more than a day later.
        """
        latest = parse_timestamp(self._latest)
        when = f"until {format_timestamp(seen)}, when the witness had seen it"
        _require(latest <= seen + CLOCKS_AGREE_WITHIN, "ts", when, self._latest)

    def require_after(self, written: datetime, seen: datetime) -> None:
        """Require that the record of a receipt is not from before the receipt.

        Raises:
            VerificationError: it is dated more than a day earlier.
        """
        when = f"from {format_timestamp(seen)} on, when the witness signed it"
        early = seen - CLOCKS_AGREE_WITHIN
        _require(written >= early, "ts", when, format_timestamp(written))


def _require(holds: bool, field: str, expected: str, got: str) -> None:
    if not holds:
        raise VerificationError("it cannot stand here", field=field, expected=expected, got=got)

"""An audit's verdict: totals, warnings, and the first thing that is wrong.

Values only; nothing here reads a file or checks a signature.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from common.ledger.records import LedgerRecord


@dataclass(frozen=True)
class Breakage:
    """The first thing that is wrong.

    Attributes:
        seq: the record, or ``None`` when no single record can be named.
        reason: one clause.
    """

    seq: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.seq is None else f"record #{self.seq}: {self.reason}"


@dataclass
class Totals:
    """Totals of a ledger, over the records before any breakage.

    Attributes:
        events: records by event.
        bytes_out: bytes declared by SEND records.
        bytes_by_round: the same by (run, round), for what belongs to one.
        bytes_by_type: the same by record type.
        payloads_present, payloads_expired: of the payloads declared by SEND, how
            many lie in the archive and hash to their name, and how many do not lie there.
        plan_fingerprints, policy_digests: everything that was in force.
    """

    events: Counter[str] = field(default_factory=Counter)
    bytes_out: int = 0
    bytes_by_round: Counter[tuple[str, int]] = field(default_factory=Counter)
    bytes_by_type: Counter[str] = field(default_factory=Counter)
    payloads_present: int = 0
    payloads_expired: int = 0
    plan_fingerprints: set[str] = field(default_factory=set)
    policy_digests: set[str] = field(default_factory=set)

    @property
    def records(self) -> int:
        """Number of records."""
        return self.events.total()

    @property
    def rounds(self) -> int:
        """Number of rounds in which something was sent."""
        return len(self.bytes_by_round)

    def add(self, record: LedgerRecord) -> None:
        """Count one record."""
        self.events[record.event] += 1
        if record.plan_fingerprint:
            self.plan_fingerprints.add(record.plan_fingerprint)
        if record.policy_sha256:
            self.policy_digests.add(record.policy_sha256)
        if record.event == "SEND":
            size = record.bytes or 0
            self.bytes_out += size
            if record.run is not None and record.round is not None:
                self.bytes_by_round[record.run, record.round] += size
            self.bytes_by_type[record.record_type or ""] += size


@dataclass(frozen=True)
class Verdict:
    """The result of an audit.

    Attributes:
        site: whose ledger; empty when not even the checkpoint could be read.
        broken: what is wrong first, or ``None``.
        totals: counts over the records before any breakage.
        receipts: witness receipts that were checked.
        witnessed_size: records covered by the newest of them.
        warnings: what is odd and no proof of tampering.
    """

    site: str
    broken: Breakage | None
    totals: Totals
    receipts: int
    witnessed_size: int
    warnings: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """True if the chain holds; the balance is a question of its own."""
        return self.broken is None

"""An audit's verdict: one of three, with totals, doubts and the first thing that is wrong.

*witnessed*: nothing was altered, and somebody else vouches for all of it up to its end.
*not witnessed*: nothing contradicts it, and nobody else vouches for all of it.
*broken*: something that was signed, or that a rule asks for, does not hold.

Values only; nothing here reads a file or checks a signature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import ExitCode
from common.ledger.gaps import LostRecords
from common.ledger.records import LedgerRecord
from common.ledger.witnessed import Tail


class Finding(StrEnum):
    """The three verdicts; each ends a command with its own exit code."""

    WITNESSED = "witnessed"
    NOT_WITNESSED = "not witnessed"
    BROKEN = "broken"

    @property
    def exit_code(self) -> ExitCode:
        """Stable; scripts at the sites rely on it."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Finding.WITNESSED: ExitCode.OK,
    Finding.NOT_WITNESSED: ExitCode.NOT_WITNESSED,
    Finding.BROKEN: ExitCode.VERIFICATION_FAILED,
}


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

    @classmethod
    def of(cls, records: Iterable[LedgerRecord], present: int, expired: int) -> Totals:
        """Count records, of whose payloads so many are on file and so many deleted by rule."""
        totals = cls(payloads_present=present, payloads_expired=expired)
        for record in records:
            totals.add(record)
        return totals

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
        witnessed_size: records covered by the newest of them, or by a note from elsewhere.
        warnings: what is odd and no proof of tampering.
        tail: what vouches for the end of the log from outside of it.
        doubts: what else keeps the ledger from being vouched for, a clause each.
        balanced: whether the courier's journal holds, and everything in it was declared; None
            where none was given.
        gaps: records that were lost and restored over, by the ledger's own word.
    """

    site: str
    broken: Breakage | None
    totals: Totals
    receipts: int
    witnessed_size: int
    warnings: tuple[str, ...]
    tail: Tail = Tail()  # noqa: RUF009 - frozen, and without doubts it still vouches for nothing
    doubts: tuple[str, ...] = ()
    balanced: bool | None = None
    gaps: tuple[LostRecords, ...] = ()

    @property
    def intact(self) -> bool:
        """True if the chain holds; completeness and witnesses are questions of their own."""
        return self.broken is None

    @property
    def finding(self) -> Finding:
        """One of the three verdicts; something undeclared breaks a ledger, too."""
        if self.broken is not None or self.balanced is False:
            return Finding.BROKEN
        return Finding.NOT_WITNESSED if self.all_doubts else Finding.WITNESSED

    @property
    def all_doubts(self) -> tuple[str, ...]:
        """Everything that keeps an intact ledger from being vouched for, the tail's first."""
        unsaid = () if self.tail.holds or self.tail.doubts else ("nobody was asked about its end",)
        return (*self.tail.doubts, *unsaid, *self.doubts)

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of a command that rests on this ledger alone."""
        return self.finding.exit_code

    @property
    def passed(self) -> bool:
        """Intact and witnessed, and nothing undeclared in the journal if one was given."""
        return self.finding is Finding.WITNESSED

"""A balance of the wire: bytes by cause, and what does not hold. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.journal.causes import UNEXPLAINED


@dataclass(frozen=True)
class Balance:
    """The wire, by cause.

    Attributes:
        lines: of the journal that hold.
        wire: bytes that left, as the sockets counted, or the counters where given.
        counted_by: who counted.
        causes: bytes by cause; they add up to ``wire``, ``UNEXPLAINED`` included.
        findings: what does not hold, one sentence each.
        notes: what an auditor should know beside.
        refusals: what the second door held back.
        unsent: digests that the ledger declares and the journal does not have.
        room: bytes that declared control traffic could have had beyond what it used.
        received: bytes that came in.
    """

    lines: int
    wire: int
    counted_by: str
    causes: Mapping[str, int]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    refusals: int
    unsent: tuple[str, ...]
    room: int
    received: int

    @property
    def holds(self) -> bool:
        """True if the journal holds, everything sent was declared, and the wire is explained."""
        return not self.findings

    @property
    def unexplained(self) -> int:
        """Bytes without a cause."""
        return self.causes.get(UNEXPLAINED, 0)

    @property
    def share(self) -> float:
        """Share of the wire without a cause."""
        return self.unexplained / self.wire if self.wire else 0.0

    def text_lines(self) -> list[str]:
        """Write the balance for people: a row per cause, then what does not hold."""
        rows = [
            f"  {name:<44}{size:>15,} B {100 * size / max(self.wire, 1):>7.2f} %"
            for name, size in self.causes.items()
        ]
        total = f"  {'left, by ' + self.counted_by:<44}{self.wire:>15,} B  100.00 %"
        return [
            f"balance of the wire, {self.lines} lines of the courier's journal:",
            *rows,
            total,
            *self.remarks(),
        ]

    def remarks(self) -> list[str]:
        """Write what does not hold, and what else must be known, a line each."""
        return [
            *(f"does not hold: {each}" for each in self.findings),
            *(f"note: {each}" for each in self.notes),
        ]

    def as_dict(self) -> dict[str, object]:
        """Return the same for ``--json``."""
        return {
            "holds": self.holds,
            "lines": self.lines,
            "wire_bytes": self.wire,
            "counted_by": self.counted_by,
            "received_bytes": self.received,
            "causes": dict(self.causes),
            "unexplained_bytes": self.unexplained,
            "unexplained_percent": round(100 * self.share, 3),
            "findings": list(self.findings),
            "notes": list(self.notes),
            "refusals": self.refusals,
            "declared_unsent": list(self.unsent),
            "control_room_bytes": self.room,
        }

"""Gaps of a restored ledger: what is lost, who signed it, and which old checkpoints it explains.

A site whose folder was put back from a backup has lost records. It says so by a RESTORE
record with the newest checkpoint of what is lost, which the witness cosigned. A checkpoint
from elsewhere that the log does not hold is explained by a gap, and by nothing else: it
lies behind the newest receipt that the backup held, and not beyond what the gap names. An
explained gap is still one: no audit of such a log ends without naming it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import VerificationError
from common.ledger.layout import MAX_LOG_BYTES, Layout
from common.ledger.lines import LogLines
from common.ledger.notes import MAX_NOTE_BYTES, Checkpoint, ledger_origin
from common.ledger.reading import read_if_there
from common.ledger.records import LedgerRecord, parse_record

_MARK = b'"event":"RESTORE"'


@dataclass(frozen=True)
class LostRecords:
    """One gap.

    Attributes:
        seq: position of the RESTORE record.
        kept: records that are surely those of before: the newest receipt before it covers them.
        size: records that the lost checkpoint covers.
        root: hex of its root.
        person: who says that a backup was put back.
        ts: when.
    """

    seq: int
    kept: int
    size: int
    root: str
    person: str
    ts: str

    @property
    def says(self) -> str:
        """Say it in a clause."""
        return (
            f"restored from a backup at record #{self.seq} ({self.person}, {self.ts}): of "
            f"{self.size} records that both had signed, those after the first {self.kept} are "
            "not vouched for, and some are lost"
        )

    def explains(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a checkpoint that the log does not hold can be of what is lost."""
        if checkpoint.size == self.size:
            return checkpoint.root.hex() == self.root
        return self.kept < checkpoint.size < self.size

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "seq": self.seq,
            "kept": self.kept,
            "lost_size": self.size,
            "lost_root": self.root,
            "person": self.person,
            "ts": self.ts,
        }


def find_gaps(log: Path, signed: int, receipts: Iterable[int]) -> tuple[LostRecords, ...]:
    """Read the RESTORE records of a log; nothing is verified yet.

    Args:
        log: the file.
        signed: how many of its records the site has signed.
        receipts: sizes of the checkpoints that it holds receipts of.
    """
    sizes = sorted(receipts)
    gaps = []
    with LogLines.open(log, MAX_LOG_BYTES) as lines:
        for seq in range(signed):
            line = lines.read()
            if line is None:
                break
            if _MARK not in line:
                continue
            record = parse_record(line, "record")
            if record.event == "RESTORE" and record.seq == seq:
                kept = max((size for size in sizes if size <= seq), default=0)
                gaps.append(_gap(record, kept))
    return tuple(gaps)


def check_restore(
    layout: Layout, record: LedgerRecord, open_lost: Callable[[bytes, str], Checkpoint]
) -> None:
    """Hold a RESTORE record to the checkpoint that it names.

    Args:
        layout: of the ledger.
        record: any; others are passed over.
        open_lost: opens that checkpoint, by its bytes and the ledger's name, if both signed it.

    Raises:
        VerificationError: it is missing, unsigned, or says something else.
    """
    if record.event != "RESTORE":
        return
    path = layout.payload(record.payload_sha256 or "")
    note = read_if_there(path, "lost checkpoint", MAX_NOTE_BYTES)
    if note is None:
        raise VerificationError("the checkpoint of what is lost is missing")
    lost = open_lost(note, ledger_origin(record.site))
    if (lost.size, lost.root.hex()) != (record.lost_size, record.lost_root):
        raise VerificationError("the checkpoint of what is lost is another one")


def _gap(record: LedgerRecord, kept: int) -> LostRecords:
    return LostRecords(
        seq=record.seq,
        kept=kept,
        size=record.lost_size or 0,
        root=record.lost_root or "",
        person=record.person or "",
        ts=record.ts,
    )

"""The files of a ledger's folder, and how its text files are read.

::

    log.jsonl             one canonical record per line, only ever appended to
    checkpoint            the site's signed note over the whole log: the commit point
    receipts/<size>.note  checkpoints the aggregator cosigned
    witnessed/<size>.note checkpoints that third witnesses cosigned; only the newest stay
    payloads/<sha256>     what was released, until it expires, and what was asked: orders, the
                          plans and the policies in force
    rotations/<seq>.rotation  exchanges of the witness's key, each signed by both keys
    ledger.pub, witness.pub
    lock

Nothing else belongs there. Of the site's earlier signatures only those under receipts are
kept: a signature for every size would let anybody cut the log to any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_LOG_BYTES: Final = 1 << 36
MAX_PAYLOAD_BYTES: Final = 1 << 31
MAX_KEY_BYTES: Final = 1 << 12
FILES: Final = frozenset({"log.jsonl", "checkpoint", "ledger.pub", "witness.pub", "lock"})
FOLDERS: Final = frozenset({"receipts", "witnessed", "payloads", "rotations"})
"""Every name of a ledger's folder."""


@dataclass(frozen=True)
class Layout:
    """The paths of one ledger."""

    folder: Path

    @property
    def log(self) -> Path:
        """The records."""
        return self.folder / "log.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The newest signed note."""
        return self.folder / "checkpoint"

    @property
    def receipts(self) -> Path:
        """Folder of cosigned notes."""
        return self.folder / "receipts"

    @property
    def witnessed(self) -> Path:
        """Folder of notes that third witnesses cosigned."""
        return self.folder / "witnessed"

    @property
    def payloads(self) -> Path:
        """Folder of released bytes."""
        return self.folder / "payloads"

    @property
    def rotations(self) -> Path:
        """Folder of the exchanges of the witness's key."""
        return self.folder / "rotations"

    def rotation(self, seq: int) -> Path:
        """Return the path of the exchange that a record tells of; names sort by record."""
        return self.rotations / f"{seq:016d}.rotation"

    @property
    def lock(self) -> Path:
        """File whose lock says that a writer is at work."""
        return self.folder / "lock"

    @property
    def ledger_key(self) -> Path:
        """The site's public key."""
        return self.folder / "ledger.pub"

    @property
    def witness_key(self) -> Path:
        """The witness's public key."""
        return self.folder / "witness.pub"

    def payload(self, digest: str) -> Path:
        """Return the path of the payload with this SHA-256."""
        return self.payloads / digest

    def receipt(self, size: int) -> Path:
        """Return the path of the cosigned checkpoint of this size; names sort by size."""
        return self.receipts / f"{size:016d}.note"

    def receipt_files(self) -> list[Path]:
        """All receipts, smallest tree first."""
        return sorted(self.receipts.glob("*.note")) if self.receipts.is_dir() else []

    def witnessed_note(self, size: int) -> Path:
        """Return the path of the checkpoint of this size that third witnesses cosigned."""
        return self.witnessed / f"{size:016d}.note"

    def witnessed_files(self) -> list[Path]:
        """All notes that third witnesses cosigned, smallest tree first."""
        return sorted(self.witnessed.glob("*.note")) if self.witnessed.is_dir() else []

"""A ledger's tree, read from its files without opening the ledger, and what it says of others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.ledger.layout import Layout
from common.ledger.merkle import leaf_hash, tree_root
from common.ledger.notes import Checkpoint, parse_note
from common.ledger.records import LedgerRecord, parse_record


@dataclass(frozen=True)
class Tree:
    """The records that a ledger has signed.

    Attributes:
        lines: the oldest first.
    """

    lines: tuple[bytes, ...]

    @classmethod
    def read(cls, folder: Path) -> Tree:
        """Read a ledger's folder; nothing is verified.

        A machine that failed in the middle of its first record has signed nothing yet.
        """
        layout = Layout(folder)
        if not layout.checkpoint.exists():
            return cls(())
        size = parse_note(layout.checkpoint.read_bytes()).checkpoint.size
        return cls(tuple(layout.log.read_bytes().splitlines()[:size]))

    @cached_property
    def records(self) -> list[LedgerRecord]:
        """The records."""
        return [parse_record(line) for line in self.lines]

    @cached_property
    def _hashes(self) -> list[bytes]:
        return [leaf_hash(line) for line in self.lines]

    def first(self, size: int) -> Tree:
        """The tree as it was when it had so many records."""
        return Tree(self.lines[:size])

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the tree goes on from a checkpoint."""
        if checkpoint.size > len(self.lines):
            return False
        return tree_root(self._hashes[: checkpoint.size]) == checkpoint.root

    def names(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a RESTORE record says that exactly this checkpoint is lost."""
        lost = (checkpoint.size, checkpoint.root.hex())
        return any((each.lost_size, each.lost_root) == lost for each in self.restores)

    @property
    def restores(self) -> list[LedgerRecord]:
        """The RESTORE records."""
        return [each for each in self.records if each.event == "RESTORE"]


def checkpoint_of(note: bytes) -> Checkpoint:
    """Return the checkpoint of a note."""
    return parse_note(note).checkpoint


def lost_in(record: LedgerRecord, origin: str) -> Checkpoint:
    """Return the checkpoint that a RESTORE record names."""
    return Checkpoint(origin, record.lost_size or 0, bytes.fromhex(record.lost_root or ""))

"""A ledger's tree, read from its files without opening the ledger, and what it says of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common.ledger.layout import Layout
from common.ledger.merkle import leaf_hash, tree_root
from common.ledger.notes import Checkpoint, parse_note
from common.ledger.records import LedgerRecord, parse_record


@dataclass
class _Log:
    """All lines of a ledger; what is computed of them is computed once."""

    lines: tuple[bytes, ...]
    roots: dict[int, bytes] = field(default_factory=dict)

    @cached_property
    def records(self) -> list[LedgerRecord]:
        return [parse_record(line) for line in self.lines]

    @cached_property
    def restores(self) -> list[LedgerRecord]:
        return [each for each in self.records if each.event == "RESTORE"]

    @cached_property
    def hashes(self) -> list[bytes]:
        return [leaf_hash(line) for line in self.lines]

    def root(self, size: int) -> bytes:
        if size not in self.roots:
            self.roots[size] = tree_root(self.hashes[:size])
        return self.roots[size]


@dataclass(frozen=True)
class Tree:
    """The first records of a ledger, of those that it has signed.

    Attributes:
        size: how many.
    """

    _log: _Log
    size: int

    @classmethod
    def read(cls, folder: Path) -> Tree:
        """Read a ledger's folder; nothing is verified.

        A machine that failed in the middle of its first record has signed nothing yet.
        """
        layout = Layout(folder)
        if not layout.checkpoint.exists():
            return cls(_Log(()), 0)
        size = parse_note(layout.checkpoint.read_bytes()).checkpoint.size
        lines = tuple(layout.log.read_bytes().splitlines()[:size])
        return cls(_Log(lines), len(lines))

    @property
    def lines(self) -> tuple[bytes, ...]:
        """The records as they stand in the log, the oldest first."""
        return self._log.lines[: self.size]

    @property
    def records(self) -> list[LedgerRecord]:
        """The records."""
        return self._log.records[: self.size]

    def first(self, size: int) -> Tree:
        """The tree as it was when it had so many records."""
        return Tree(self._log, min(size, self.size))

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the tree goes on from a checkpoint."""
        return checkpoint.size <= self.size and self._log.root(checkpoint.size) == checkpoint.root

    def names(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a RESTORE record says that exactly this checkpoint is lost."""
        lost = (checkpoint.size, checkpoint.root.hex())
        return any((each.lost_size, each.lost_root) == lost for each in self.restores)

    @property
    def restores(self) -> list[LedgerRecord]:
        """The RESTORE records."""
        return [each for each in self._log.restores if each.seq < self.size]


def checkpoint_of(note: bytes) -> Checkpoint:
    """Return the checkpoint of a note."""
    return parse_note(note).checkpoint


def lost_in(record: LedgerRecord, origin: str) -> Checkpoint:
    """Return the checkpoint that a RESTORE record names."""
    return Checkpoint(origin, record.lost_size or 0, bytes.fromhex(record.lost_root or ""))

"""The second verdict: did anything leave that the ledger does not declare?

The chain shows that nothing was altered; it cannot show that nothing was left
out. The courier's own journal, one line for every message that its socket took,
is held against the SEND records. An unreadable line counts as undeclared: what
cannot be read cannot be cleared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.ledger.reading import read_regular

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Completeness:
    """A journal of sent messages held against a ledger.

    Attributes:
        sent: messages in the journal.
        sent_bytes: their bytes.
        undeclared: what the ledger does not declare, one sentence each.
        declared_unsent: digests recorded as SEND that the journal does not have.
    """

    sent: int
    sent_bytes: int
    undeclared: tuple[str, ...]
    declared_unsent: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if everything sent was declared."""
        return not self.undeclared


def compare_with_journal(declared: Mapping[str, int], journal: Path) -> Completeness:
    """Hold a courier's ``sent.jsonl`` against the payloads a ledger declares.

    Args:
        declared: number of bytes by payload digest, from the SEND records.
        journal: lines of JSON objects with ``sha256`` and ``bytes``; other keys are let pass.

    Raises:
        InputDataError: the journal cannot be read.
    """
    data = read_regular(journal, "journal of sent messages", 1 << 32)
    undeclared: list[str] = []
    seen: set[str] = set()
    sent = sent_bytes = 0
    for number, line in enumerate(data.splitlines(), start=1):
        sent += 1
        entry = _entry(line)
        if entry is None:
            undeclared.append(f"line {number} of the journal is unreadable")
            continue
        digest, size = entry
        sent_bytes += size
        seen.add(digest)
        if digest not in declared:
            undeclared.append(f"line {number}: {size} bytes with SHA-256 {digest} have no record")
        elif declared[digest] != size:
            undeclared.append(
                f"line {number}: {size} bytes were sent under SHA-256 {digest}, "
                f"the record says {declared[digest]}"
            )
    return Completeness(sent, sent_bytes, tuple(undeclared), tuple(sorted(set(declared) - seen)))


def _entry(line: bytes) -> tuple[str, int] | None:
    try:
        value = json.loads(line)
        digest, size = value["sha256"], value["bytes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
        return None
    if type(size) is not int or size < 0:
        return None
    return digest, size

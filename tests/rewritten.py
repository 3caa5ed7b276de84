"""Ledgers as somebody would forge them: records chained anew, and signed again with a key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.canonical import canonical_json
from common.crypto.identity import SigningKey
from common.ledger.merkle import Frontier, leaf_hash
from common.ledger.notes import Checkpoint, sign_checkpoint


def chained(records: Iterable[dict]) -> bytes:
    """The log of these records, numbered and linked as a writer would have."""
    lines, before = [], None
    for seq, record in enumerate(records):
        words = {n: v for n, v in record.items() if n != "prev"} | {"seq": seq}
        line = canonical_json(words if before is None else words | {"prev": before.hex()})
        before = leaf_hash(line)
        lines.append(line + b"\n")
    return b"".join(lines)


def sign_again(folder: Path, log: bytes, key: SigningKey, origin: str = "site-a/ledger") -> bytes:
    """Put a forged log into a ledger's folder under a fresh checkpoint, which is returned."""
    frontier = Frontier()
    for line in log.split(b"\n")[:-1]:
        frontier.add(leaf_hash(line))
    note = sign_checkpoint(Checkpoint(origin, frontier.size, frontier.root()), key)
    (folder / "log.jsonl").write_bytes(log)
    (folder / "checkpoint").write_bytes(note)
    return note

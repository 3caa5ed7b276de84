"""The rules by which a ledger is opened again after a crash. No I/O.

The signed checkpoint is the commit point.

1. As many records as it signs must be there, and have the root it signs.
2. Every receipt must be a prefix of them.
3. One unfinished record after them is what an interrupted append leaves; it was
   never released and is cut.
4. More than that means that somebody put an older checkpoint in place: refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.crypto.identity import PublicKey
from common.errors import VerificationError
from common.ledger.merkle import Frontier, leaf_hash
from common.ledger.notes import Checkpoint, ledger_key, open_note


class LostTailError(VerificationError):
    """Both signed a checkpoint of this ledger that it does not hold: its folder is an older one.

    Attributes:
        note: that checkpoint, which both signed: the proof of what is lost.
    """

    def __init__(self, note: bytes, size: int, have: int) -> None:
        super().__init__(
            "the ledger lacks records that the aggregator has seen",
            field="log.jsonl",
            expected=f"the {size} records that both signed",
            got=f"{have} records" if have < size else "other records",
            advice="If this folder was put back from a backup: cairn-site restore",
        )
        self.note = note


def committed_lines(
    log: bytes, note: bytes, receipts: Mapping[str, bytes], origin: str, key: PublicKey
) -> list[bytes]:
    """Return the records that count, without line ends; what follows them in ``log`` is to be cut.

    Args:
        log: all bytes of the log.
        note: the signed checkpoint.
        receipts: cosigned notes by name; the site's own signature under each is checked.
        origin: name of this ledger.
        key: the site's public key.

    Raises:
        VerificationError: a rule above does not hold.
    """
    required = [ledger_key(origin, key)]
    signed = open_note(note, required).checkpoint
    witnessed = {name: open_note(each, required).checkpoint for name, each in receipts.items()}
    lines = log.split(b"\n")[:-1][: signed.size]
    if len(lines) < signed.size:
        raise VerificationError(
            "the ledger is shorter than its own signed checkpoint",
            field="log.jsonl",
            expected=f"{signed.size} records",
            got=f"{len(lines)}",
            advice="Records were lost. Restore the whole folder, or call the auditor",
        )
    roots = _roots_at(lines, {signed.size, *(each.size for each in witnessed.values())})
    insist_on_root(signed, roots.get(signed.size), "its own signed checkpoint")
    for name, checkpoint in witnessed.items():
        insist_on_root(checkpoint, roots.get(checkpoint.size), f"receipt {name}")
    tail = log[sum(len(line) + 1 for line in lines) :]
    if b"\n" in tail[:-1]:
        raise VerificationError(
            "the ledger goes on past its signed checkpoint",
            field="checkpoint",
            expected="at most one unfinished record after it",
            got="several",
            advice="The checkpoint was replaced by an older one; call the auditor",
        )
    return lines


def insist_on_root(signed: Checkpoint, root: bytes | None, what: str) -> None:
    """Return only if ``root`` is what was signed.

    Args:
        signed: a checkpoint whose signatures hold.
        root: the root of our log at its size; ``None`` when the log is shorter.
        what: who says so, for the message.

    Raises:
        VerificationError: it is not.
    """
    if root != signed.root:
        raise VerificationError(
            f"the ledger does not match {what}",
            field="log.jsonl",
            expected=f"the {signed.size} records that were signed",
            got="a shorter log" if root is None else "other records",
            advice="The log was altered or rolled back; call the auditor",
        )


def _roots_at(lines: list[bytes], sizes: set[int]) -> dict[int, bytes]:
    frontier = Frontier()
    roots = {0: frontier.root()}
    for line in lines:
        frontier.add(leaf_hash(line))
        if frontier.size in sizes:
            roots[frontier.size] = frontier.root()
    return roots

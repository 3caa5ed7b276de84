"""The offline audit: is this ledger what the site signed and the witness saw?

Needs the folder and public keys, no network and no secret. It reads everything
again from the bytes and trusts nothing the writer computed. The verdict is
either intact, or names the first record that is not and why. Without the
witness's key it says nothing about a history that the key's own holder rewrote,
and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import CairnError, VerificationError
from common.ledger.layout import (
    Layout,
    Snapshot,
    parse_history,
    read_bytes,
    read_snapshot,
    was_signed,
)
from common.ledger.merkle import Frontier, leaf_hash
from common.ledger.notes import (
    Checkpoint,
    NoteKey,
    ledger_key,
    open_note,
    parse_note,
    site_of,
    witness_key,
)
from common.ledger.records import LedgerRecord, parse_record
from common.ledger.verdict import Breakage, Totals, Verdict

_MAX_REASON = 500


class _BrokenError(Exception):
    """Ends the audit at the first breakage."""

    def __init__(self, breakage: Breakage) -> None:
        super().__init__(str(breakage))
        self.breakage = breakage


@dataclass(frozen=True)
class _Anchor:
    """A root that the log must have had at some size, and who says so.

    ``unchecked`` is the signature of a history line: it is looked at only when
    the root disagrees, because only then does the line say anything.
    """

    checkpoint: Checkpoint
    witness: str
    unchecked: bytes | None = None

    def counts(self, site_key: PublicKey) -> bool:
        """Tell whether the site really signed it."""
        return self.unchecked is None or was_signed(self.checkpoint, self.unchecked, site_key)


def verify_ledger(
    directory: Path,
    site_public_key: PublicKey,
    witness_public_key: PublicKey | None,
    known_checkpoints: Iterable[bytes] = (),
    *,
    expected_origin: str | None = None,
) -> Verdict:
    """Audit the ledger in ``directory``.

    Args:
        directory: the ledger's folder, or a copy of it.
        site_public_key: the key the site was admitted with.
        witness_public_key: the aggregator's witness key; without it receipts are
            held only to the site's own signature, with a warning.
        known_checkpoints: notes kept elsewhere, e.g. by the aggregator: what exposes
            a site that rewrote its history and deleted its receipts.
        expected_origin: ``<site>/ledger``, when known from elsewhere.

    Raises:
        InputDataError: a file cannot be read at all. Everything else is in the verdict.
    """
    audit = _Audit(Layout(directory), site_public_key, witness_public_key)
    broken: Breakage | None = None
    try:
        audit.run(tuple(known_checkpoints), expected_origin)
    except _BrokenError as error:
        broken = error.breakage
    return Verdict(
        site=audit.site,
        broken=broken,
        totals=audit.totals,
        receipts=audit.receipts,
        witnessed_size=audit.witnessed_size,
        warnings=tuple(audit.warnings),
    )


class _Audit:
    """One pass over a ledger; holds what has been established so far."""

    def __init__(self, layout: Layout, site_key: PublicKey, witness: PublicKey | None) -> None:
        self.layout = layout
        self.site_key = site_key
        self.witness = witness
        self.site = ""
        self.totals = Totals()
        self.declared: dict[str, int] = {}
        self.receipts = 0
        self.witnessed_size = 0
        self.warnings: list[str] = []
        self._anchors: dict[int, list[_Anchor]] = {}
        self._receipt_digests: set[str] = set()
        self._hashed: set[str] = set()
        self._asked: set[str] = set()
        self._agreed = 0  # up to this size the log matches something signed
        self._last_ts = ""

    def run(self, checkpoints: tuple[bytes, ...], expected_origin: str | None) -> None:
        """Check everything, each step resting on the ones before."""
        snapshot = read_snapshot(self.layout)
        signed = self._open_checkpoint(snapshot.checkpoint, expected_origin)
        self._collect_anchors(signed, snapshot, checkpoints)
        lines = snapshot.log.split(b"\n")
        frontier = Frontier()
        self._check_anchors(frontier)
        for seq, line in enumerate(lines[:-1][: signed.size]):
            record = self._read_record(seq, line)
            frontier.add(leaf_hash(line))
            self._check_anchors(frontier)
            self._check_payload(seq, record)
            self._check_asked(seq, record)
            self.totals.add(record)
        self._check_end(frontier.size, signed.size, lines)
        self._look_for_oddities()

    def _open_checkpoint(self, note: bytes | None, expected_origin: str | None) -> Checkpoint:
        if note is None:
            raise _broken(None, "the signed checkpoint is missing")
        try:
            origin = parse_note(note).checkpoint.origin
            signed = open_note(note, [ledger_key(origin, self.site_key)]).checkpoint
        except CairnError as error:
            raise _broken(None, f"the checkpoint does not hold ({error})") from error
        self.site = site_of(origin)
        if expected_origin not in (None, origin):
            raise _broken(None, f"this is the ledger {origin}, not {expected_origin}")
        self._anchor(_Anchor(signed, "the site's checkpoint"))
        return signed

    def _collect_anchors(
        self, signed: Checkpoint, snapshot: Snapshot, checkpoints: tuple[bytes, ...]
    ) -> None:
        required: list[NoteKey] = [ledger_key(signed.origin, self.site_key)]
        if self.witness is None:
            self.warnings.append(
                "no witness key: a history rewritten by the site itself would not show"
            )
        else:
            required.append(witness_key(self.witness))
        notes = {
            f"known checkpoint {number}": note for number, note in enumerate(checkpoints, start=1)
        }
        received = {f"receipt {name}": note for name, note in snapshot.receipts.items()}
        for name, note in (received | notes).items():
            try:
                checkpoint = open_note(note, required).checkpoint
            except CairnError as error:
                raise _broken(None, f"{name} does not hold ({error})") from error
            if checkpoint.origin != signed.origin:
                raise _broken(None, f"{name} is about the ledger {checkpoint.origin}")
            self._anchor(_Anchor(checkpoint, name))
            if self.witness is not None:
                self.witnessed_size = max(self.witnessed_size, checkpoint.size)
        self.receipts = len(received)
        self._receipt_digests = {sha256_hex(note) for note in received.values()}
        for checkpoint, signature in parse_history(snapshot.history, signed.origin):
            self._anchor(_Anchor(checkpoint, "the root the site signed for it", signature))

    def _anchor(self, anchor: _Anchor) -> None:
        self._anchors.setdefault(anchor.checkpoint.size, []).append(anchor)

    def _check_anchors(self, frontier: Frontier) -> None:
        """Compare the root at this size with everything that was ever signed about it."""
        anchors = self._anchors.get(frontier.size)
        if not anchors:
            return
        agreed = False
        root = frontier.root()
        for anchor in anchors:
            if anchor.checkpoint.root == root:
                agreed = True
                continue
            if not anchor.counts(self.site_key):
                continue
            last = frontier.size - 1
            if last > self._agreed:  # nothing signed in between tells which of them it is
                reason = f"this or a later record up to #{last} does not match {anchor.witness}"
                raise _broken(self._agreed, reason)
            raise _broken(max(last, 0), f"does not match {anchor.witness}")
        if agreed:
            self._agreed = frontier.size

    def _check_end(self, size: int, signed_size: int, lines: list[bytes]) -> None:
        """Check that the log reaches as far as anything signed, at most one torn record further."""
        for longer in sorted(larger for larger in self._anchors if larger > size):
            for anchor in self._anchors[longer]:
                if anchor.counts(self.site_key):
                    raise _broken(size, f"is missing: {anchor.witness} covers {longer} records")
        tail = b"\n".join(lines[signed_size:])
        if b"\n" in tail[:-1]:
            raise _broken(signed_size, f"goes past the checkpoint of {signed_size} records")
        if tail:
            self.warnings.append("one unfinished record after the checkpoint, never released")

    def _read_record(self, seq: int, line: bytes) -> LedgerRecord:
        try:
            record = parse_record(line, "record")
        except VerificationError as error:
            raise _broken(seq, str(error)) from error
        if record.seq != seq:
            raise _broken(seq, f"calls itself #{record.seq}: moved, removed or inserted")
        if record.site != self.site:
            raise _broken(seq, f"belongs to the site {record.site}")
        if (record.event == "GENESIS") != (seq == 0):
            raise _broken(seq, "GENESIS must be the first record and no other")
        if record.ts < self._last_ts:
            self.warnings.append(f"record #{seq}: the clock went back")
        self._last_ts = record.ts
        return record

    def _check_payload(self, seq: int, record: LedgerRecord) -> None:
        digest = record.payload_sha256
        if record.event == "RECEIPT" and digest not in self._receipt_digests:
            raise _broken(seq, "the receipt it records is missing or altered")
        if record.event != "SEND" or digest is None:
            return
        size = record.bytes or 0
        if self.declared.setdefault(digest, size) != size:
            raise _broken(seq, "declares another size for a payload declared before")
        if digest in self._hashed:
            return
        self._hashed.add(digest)
        path = self.layout.payload(digest)
        if not path.exists():
            self.totals.payloads_expired += 1
            return
        payload = read_bytes(path, "payload")
        if sha256_hex(payload) != digest or len(payload) != size:
            raise _broken(seq, f"its payload {digest[:16]} was altered")
        self.totals.payloads_present += 1

    def _check_asked(self, seq: int, record: LedgerRecord) -> None:
        """Check the archived orders beside what was answered; they may expire like it."""
        for what, digest in (("plan", record.plan_fingerprint), ("order", record.order_sha256)):
            if digest is None or digest in self._asked:
                continue
            self._asked.add(digest)
            path = self.layout.payload(digest)
            if path.exists() and sha256_hex(read_bytes(path, what)) != digest:
                raise _broken(seq, f"the {what} {digest[:16]} that it names was altered")

    def _look_for_oddities(self) -> None:
        if not self.layout.payloads.is_dir():
            return
        names = {path.name for path in self.layout.payloads.iterdir()}
        orphans = len(names - set(self.declared) - self._asked)
        if orphans:
            self.warnings.append(f"{orphans} archived payloads have no record (never released)")


def _broken(seq: int | None, reason: str) -> _BrokenError:
    # A tampered line may carry a key name made of terminal escapes: never hand them on.
    printable = "".join(c if c.isprintable() else "?" for c in reason[:_MAX_REASON])
    return _BrokenError(Breakage(seq, printable))

"""The proof that travels with every release, and what the aggregator makes of it.

The aggregator accepts bytes only when the site has recorded them for good:
the record is in a tree the site signed, it names exactly these bytes, and the
tree continues the last one the aggregator saw. Then it cosigns, and the note
that travels back is the site's receipt.

A proof that was made before we saw the newest checkpoint proves nothing against the site:
it is stale. Its sender is asked again, with the newest receipt, and proves the same record
in a tree that links to what we saw. Only what contradicts what we saw is a fork, and only
a site that cannot prove anew has rolled back.

A site whose folder was put back from a backup has lost records that we have seen. It says
so: its log names the newest checkpoint of what is lost (RESTORE), its proof starts from the
newest receipt that it still has, and the gap in between is what its every audit shows.

A witness that was put back from a backup has forgotten what it cosigned. It shows an older
checkpoint; the site proves from there, and reminds it of the newest one it holds.

Nothing here keeps state. Whoever calls must store the checkpoint durably as
"last seen" before the cosignature leaves.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import PublicKey, SigningKey
from common.errors import VerificationError
from common.ledger.merkle import HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from common.ledger.notes import (
    Checkpoint,
    NoteKey,
    cosign_note,
    ledger_key,
    open_note,
    site_of,
    witness_key,
)
from common.ledger.records import LedgerRecord, parse_record
from common.settings import Frozen, describe_validation

MAX_PROOF_BYTES = 2 * 2**20
_MAX_PATH = 128

_Hashes = Annotated[tuple[str, ...], Field(max_length=_MAX_PATH, strict=False)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class StaleProofError(VerificationError):
    """A proof from before the checkpoint that was seen last; neither fork nor consent.

    Raised only for a note that the site signed and a record that is in its tree.
    """


class _GapForm(Frozen):
    """The JSON of a gap."""

    record: str
    seq: _Count
    inclusion: _Hashes
    receipt: str


class _ReminderForm(Frozen):
    """The JSON of a reminder."""

    receipt: str
    consistency: _Hashes


class _ProofForm(Frozen):
    """The JSON of a proof: record and note as text, hashes in base64."""

    v: Literal[1]
    record: str
    seq: _Count
    inclusion: _Hashes
    checkpoint: str
    since: _Count
    consistency: _Hashes
    gap: _GapForm | None = None
    reminder: _ReminderForm | None = None


@dataclass(frozen=True)
class Gap:
    """What a restored site shows in place of the records that it has lost.

    Attributes:
        record: canonical line of its RESTORE record.
        seq: position of that.
        inclusion: 32-byte hashes from it to the root.
        receipt: the newest receipt that is older; empty if there is none.
    """

    record: bytes
    seq: int
    inclusion: tuple[bytes, ...]
    receipt: bytes

    def as_json(self) -> dict[str, object]:
        """As part of a proof."""
        return {
            "record": self.record.decode("utf-8"),
            "seq": self.seq,
            "inclusion": _texts(self.inclusion),
            "receipt": self.receipt.decode("utf-8"),
        }


@dataclass(frozen=True)
class Reminder:
    """A checkpoint that the witness cosigned after the one that it shows.

    Attributes:
        receipt: that note.
        consistency: 32-byte hashes that show it to be a prefix, too.
    """

    receipt: bytes
    consistency: tuple[bytes, ...]

    def as_json(self) -> dict[str, object]:
        """As part of a proof."""
        return {"receipt": self.receipt.decode("utf-8"), "consistency": _texts(self.consistency)}


@dataclass(frozen=True)
class Proof:
    """A record, the signed tree it is in, and that tree's link to an earlier one.

    Attributes:
        record: canonical line of the record.
        seq: its position.
        inclusion: 32-byte hashes from the record to the root.
        checkpoint: signed note over the tree.
        since: size of the earlier tree.
        consistency: 32-byte hashes that show the earlier tree to be a prefix.
        gap: of a restored log, until the witness has cosigned it again.
        reminder: for a witness that shows an older checkpoint than it cosigned.
    """

    record: bytes
    seq: int
    inclusion: tuple[bytes, ...]
    checkpoint: bytes
    since: int
    consistency: tuple[bytes, ...]
    gap: Gap | None = None
    reminder: Reminder | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "v": 1,
                "record": self.record.decode("utf-8"),
                "seq": self.seq,
                "inclusion": _texts(self.inclusion),
                "checkpoint": self.checkpoint.decode("utf-8"),
                "since": self.since,
                "consistency": _texts(self.consistency),
                **({} if self.gap is None else {"gap": self.gap.as_json()}),
                **({} if self.reminder is None else {"reminder": self.reminder.as_json()}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the one spelling of a proof; nothing in it is verified yet.

        Raises:
            VerificationError: malformed.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise VerificationError(
                "unreadable ledger proof", expected=f"at most {MAX_PROOF_BYTES} bytes", got="more"
            )
        value = parse_canonical_json(data, "ledger proof")
        try:
            form = _ProofForm.model_validate(value)
        except ValidationError as error:
            field, expected, got = describe_validation(error)
            raise VerificationError(
                "unreadable ledger proof", field=field, expected=expected, got=got
            ) from error
        return cls(
            record=form.record.encode("utf-8"),
            seq=form.seq,
            inclusion=tuple(_hash(text) for text in form.inclusion),
            checkpoint=form.checkpoint.encode("utf-8"),
            since=form.since,
            consistency=tuple(_hash(text) for text in form.consistency),
            gap=None
            if form.gap is None
            else Gap(
                record=form.gap.record.encode("utf-8"),
                seq=form.gap.seq,
                inclusion=tuple(_hash(text) for text in form.gap.inclusion),
                receipt=form.gap.receipt.encode("utf-8"),
            ),
            reminder=None
            if form.reminder is None
            else Reminder(
                receipt=form.reminder.receipt.encode("utf-8"),
                consistency=tuple(_hash(text) for text in form.reminder.consistency),
            ),
        )


@dataclass(frozen=True)
class VerifiedRecord:
    """A record that is in the site's signed log.

    Attributes:
        record: the record.
        checkpoint: the tree it is in; becomes the caller's "last seen".
        note: that checkpoint, signed by the site: what to cosign.
        restored: the RESTORE record, where the tree goes on after a gap.
        forgotten: the checkpoint that we cosigned and no longer remember.
    """

    record: LedgerRecord
    checkpoint: Checkpoint
    note: bytes
    restored: LedgerRecord | None = None
    forgotten: Checkpoint | None = None


def verify_proof(
    proof: Proof,
    payload_sha256: str,
    site_origin: str,
    site_public_key: PublicKey,
    last_seen: Checkpoint | None,
    witness: PublicKey | None = None,
) -> VerifiedRecord:
    """Accept a release only as a recorded one.

    Args:
        proof: what came with the payload.
        payload_sha256: of the payload as it arrived.
        site_origin: ``<site>/ledger`` of the sender.
        site_public_key: the key it was admitted with.
        last_seen: the newest checkpoint of this site that was accepted; ``None``
            only for a site that never sent one.
        witness: the key that cosigns; without it no restored log is taken.

    Raises:
        VerificationError: a signature, digest or proof does not hold, the record
            is of another site or not a SEND, or the log was forked.
        StaleProofError: the proof is older than ``last_seen``, or links to something
            older: it may be asked for again. A site that cannot give another has rolled
            its log back.
    """
    checkpoint = open_note(proof.checkpoint, [ledger_key(site_origin, site_public_key)]).checkpoint
    verify_inclusion(
        leaf_hash(proof.record), proof.seq, checkpoint.size, proof.inclusion, checkpoint.root
    )
    record = parse_record(proof.record, "proven record")
    for field, expected, got in (
        ("seq", str(proof.seq), str(record.seq)),
        ("site", site_of(site_origin), record.site),
        ("event", "SEND", record.event),
        ("payload_sha256", payload_sha256, record.payload_sha256 or "nothing"),
    ):
        if expected != got:
            raise VerificationError(
                "the ledger record is about something else",
                field=field,
                expected=expected,
                got=got,
            )
    restored = forgotten = None
    remembered = 0 if last_seen is None else last_seen.size
    keys: tuple[NoteKey, ...] = (ledger_key(site_origin, site_public_key),)
    if witness is not None:
        keys = (*keys, witness_key(witness))
    if _names(proof.gap, last_seen) and proof.gap and witness and checkpoint != last_seen:
        restored = _verify_gap(proof, proof.gap, checkpoint, keys)
        remembered = restored.seq  # what was cosigned beyond it, was so after the gap
    else:
        _verify_continuation(proof, checkpoint, last_seen)
    if proof.reminder is not None and witness is not None:
        forgotten = _verify_reminder(proof.reminder, checkpoint, remembered, keys)
    return VerifiedRecord(record, checkpoint, proof.checkpoint, restored, forgotten)


def cosign(checkpoint_note: bytes, witness_key: SigningKey, now: datetime) -> bytes:
    """Return the witness's receipt: the note of a ``VerifiedRecord`` with our cosignature.

    Cosign only what ``verify_proof`` returned, and store its checkpoint as last
    seen first: a cosignature says "I saw this, and nothing that contradicts it".

    Raises:
        VerificationError: the note is malformed or cosigned already.
    """
    return cosign_note(checkpoint_note, witness_key, now)


def _names(gap: Gap | None, last_seen: Checkpoint | None) -> bool:
    """Tell whether a gap is about what we saw last; any other proves nothing to us."""
    if gap is None or last_seen is None:
        return False
    record = parse_record(gap.record, "restore record")
    named = (record.event, record.seq, record.lost_size, record.lost_root)
    return named == ("RESTORE", gap.seq, last_seen.size, last_seen.root.hex())


def _verify_gap(proof: Proof, gap: Gap, now: Checkpoint, keys: tuple[NoteKey, ...]) -> LedgerRecord:
    """Return the RESTORE record, if it is in a tree that goes on from a receipt of ours.

    Raises:
        VerificationError: it is not.
    """
    record = parse_record(gap.record, "restore record")
    verify_inclusion(leaf_hash(gap.record), gap.seq, now.size, gap.inclusion, now.root)
    if record.site != site_of(now.origin):
        raise VerificationError("the restore record is of another site", got=record.site)
    if not gap.receipt:
        if proof.since or proof.consistency:
            raise VerificationError("the proof is malformed", field="gap", got="no receipt")
        return record
    kept = open_note(gap.receipt, keys).checkpoint
    if not kept.size == proof.since <= gap.seq:
        raise VerificationError(
            "the proof does not link to the receipt that the backup holds",
            field="since",
            expected=str(kept.size),
            got=str(proof.since),
        )
    verify_consistency(kept.size, now.size, kept.root, now.root, proof.consistency)
    return record


def _verify_reminder(
    reminder: Reminder, now: Checkpoint, remembered: int, keys: tuple[NoteKey, ...]
) -> Checkpoint | None:
    """Return the checkpoint of a reminder, if we have cosigned it and do not remember it.

    Raises:
        VerificationError: both did not sign it, or the tree does not continue it.
    """
    cosigned = open_note(reminder.receipt, keys).checkpoint
    verify_consistency(cosigned.size, now.size, cosigned.root, now.root, reminder.consistency)
    return cosigned if cosigned.size > remembered else None


def _texts(hashes: tuple[bytes, ...]) -> list[str]:
    return [base64.b64encode(each).decode("ascii") for each in hashes]


def _verify_continuation(proof: Proof, now: Checkpoint, last_seen: Checkpoint | None) -> None:
    size, root = (last_seen.size, last_seen.root) if last_seen else (0, None)
    if last_seen and last_seen.origin != now.origin:
        raise VerificationError(
            "the last seen checkpoint is of another ledger",
            field="origin",
            expected=now.origin,
            got=last_seen.origin,
        )
    if now.size < size:
        raise StaleProofError(
            "the proof is older than the site's newest checkpoint",
            field="tree size",
            expected=f"at least {size}",
            got=str(now.size),
            advice="Send the site its last receipt; it proves from there. If it cannot, its "
            "ledger was rolled back",
        )
    if now.size == size:  # the same tree again: a repeated message
        if root != now.root:
            raise VerificationError(
                "the site's ledger was forked",
                field="tree root",
                expected=f"the root seen at size {size}",
                got="another root",
            )
        return
    if proof.since != size:
        error = StaleProofError if proof.since < size else VerificationError
        raise error(
            "the proof does not link to the last checkpoint seen",
            field="since",
            expected=str(size),
            got=str(proof.since),
            advice="Send the site its last receipt; it proves from there",
        )
    if root is None:
        if proof.consistency:
            raise VerificationError(
                "the proof is malformed", field="consistency", expected="empty", got="hashes"
            )
        return
    verify_consistency(size, now.size, root, now.root, proof.consistency)


def _hash(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) != HASH_BYTES or base64.b64encode(data).decode("ascii") != text:
        raise VerificationError(
            "unreadable ledger proof", field="hash", expected="base64 of 32 bytes", got="other text"
        )
    return data

"""The proof that travels with every release, and what the aggregator makes of it.

The aggregator accepts bytes only when the site has recorded them for good:
the record is in a tree the site signed, it names exactly these bytes, and the
tree continues the last one the aggregator saw. Then it cosigns, and the note
that travels back is the site's receipt.

A proof that was made before we saw the newest checkpoint proves nothing against the site:
it is stale. Its sender is asked again, with the newest receipt, and proves the same record
in a tree that links to what we saw. Only what contradicts what we saw is a fork, and only
a site that cannot prove anew has rolled back.

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
from common.ledger.notes import Checkpoint, cosign_note, ledger_key, open_note, site_of
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


class _ProofForm(Frozen):
    """The JSON of a proof: record and note as text, hashes in base64."""

    v: Literal[1]
    record: str
    seq: _Count
    inclusion: _Hashes
    checkpoint: str
    since: _Count
    consistency: _Hashes


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
    """

    record: bytes
    seq: int
    inclusion: tuple[bytes, ...]
    checkpoint: bytes
    since: int
    consistency: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "v": 1,
                "record": self.record.decode("utf-8"),
                "seq": self.seq,
                "inclusion": [base64.b64encode(h).decode("ascii") for h in self.inclusion],
                "checkpoint": self.checkpoint.decode("utf-8"),
                "since": self.since,
                "consistency": [base64.b64encode(h).decode("ascii") for h in self.consistency],
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
        )


@dataclass(frozen=True)
class VerifiedRecord:
    """A record that is in the site's signed log.

    Attributes:
        record: the record.
        checkpoint: the tree it is in; becomes the caller's "last seen".
        note: that checkpoint, signed by the site: what to cosign.
    """

    record: LedgerRecord
    checkpoint: Checkpoint
    note: bytes


def verify_proof(
    proof: Proof,
    payload_sha256: str,
    site_origin: str,
    site_public_key: PublicKey,
    last_seen: Checkpoint | None,
) -> VerifiedRecord:
    """Accept a release only as a recorded one.

    Args:
        proof: what came with the payload.
        payload_sha256: of the payload as it arrived.
        site_origin: ``<site>/ledger`` of the sender.
        site_public_key: the key it was admitted with.
        last_seen: the newest checkpoint of this site that was accepted; ``None``
            only for a site that never sent one.

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
    _verify_continuation(proof, checkpoint, last_seen)
    return VerifiedRecord(record, checkpoint, proof.checkpoint)


def cosign(checkpoint_note: bytes, witness_key: SigningKey, now: datetime) -> bytes:
    """Return the witness's receipt: the note of a ``VerifiedRecord`` with our cosignature.

    Cosign only what ``verify_proof`` returned, and store its checkpoint as last
    seen first: a cosignature says "I saw this, and nothing that contradicts it".

    Raises:
        VerificationError: the note is malformed or cosigned already.
    """
    return cosign_note(checkpoint_note, witness_key, now)


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

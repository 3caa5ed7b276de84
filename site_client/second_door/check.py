"""The check of the second door: bytes in, and either what they are or a refusal. No I/O.

To audit, read ``SecondDoor.check_reply`` and stop. Nothing here repairs: what is not
exactly what the first door makes is refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import RefusedError, VerificationError
from common.journal.entries import Part
from common.ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from common.ledger.notes import Checkpoint, ledger_key, ledger_origin, open_note
from common.ledger.proof import Proof
from common.ledger.records import ArrayRecord, LedgerRecord, parse_record
from common.schedule import Phase
from common.wire.envelope import ArrayDescription, decode, describe_arrays
from common.wire.parcel import unwrap, wrap
from common.wire.records import RECORD_TYPES, Record
from common.wire.sealed_keys import SealedParcel, decode_sealed
from common.wire.transport import ENVELOPE_SUFFIX, PROOF_SUFFIX

ARRAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "SketchTable": {"table": "int64"},
    "ErrorTables": {"replays": "int64", "errors": "int64"},
    "RoundReport": {},
    "PixelStatistics": {"histogram": "int64", "gram": "int64"},
    "PixelSketches": {
        "full": "int64",
        "prefix": "int64",
        "presence": "int64",
        "prefix_counts": "int64",
    },
    "HeavyHitters": {"keys": "int64", "counts": "int64"},
    "GroupCounts": {"counts": "int64"},
}
"""Arrays that a record may have, by type. Those of a ModelUpdate bear the plan's own names."""
_WEIGHT = re.compile(r"[a-z][a-z0-9_]{0,31}([./][a-z0-9_]{1,32}){0,7}")
_KINDS: Final = tuple(kind.__name__ for kind in RECORD_TYPES)
_SEALED: Final = "SealedKeys"
_NOTE_LINES: Final = 5
"""Of a checkpoint with one signature: origin, size, root, an empty line, the signature."""
_UNUSED: Final = ("detail", "dp", "masked", "person", "peer", "peer_key")
"""Fields of a ledger record that no release of a run has; some of them hold texts."""


@dataclass(frozen=True)
class Asked:
    """The order that a reply answers.

    Attributes:
        order_sha256: of the order's own bytes.
        signature: the aggregator's over them, in hex; None where it has not its length.
    """

    order_sha256: str
    signature: str | None


@dataclass(frozen=True)
class Passed:
    """A release that passed, for the journal.

    Attributes:
        data: the bytes that were checked, and that alone may be sent.
        parts: the records inside.
        checkpoint: of the ledger, that all proofs rest on.
        policy_sha256: as the ledger says.
        sealed: what was decoded of sealed keys; None of a reply.
    """

    data: bytes
    parts: tuple[Part, ...]
    checkpoint: Checkpoint
    policy_sha256: str
    sealed: SealedParcel | None = None


@dataclass
class SecondDoor:
    """The courier's own knowledge, against which everything is held.

    Attributes:
        site: ours.
        federation: ours.
        public: the ledger's public key.
        app_sha256: of the pinned Flower app.
        roots: of checkpoints that were seen, by size; a proof may start from one of them.
    """

    site: str
    federation: str
    public: PublicKey
    app_sha256: str
    roots: dict[int, bytes] = field(default_factory=dict)

    def check_reply(self, data: bytes, question: Asked) -> Passed:
        """Return what a reply is, if and only if the first door made it for this order.

        Raises:
            RefusedError, VerificationError: names what it is not.
        """
        parts = unwrap(data)
        kinds = _kinds(parts)
        if wrap(parts) != data:
            raise _refused("manifest", "the parcel's own spelling", "another")
        checked = [
            self._check(kind, parts[kind + ENVELOPE_SUFFIX], parts[kind + PROOF_SUFFIX], question)
            for kind in kinds
        ]
        records = [record for record, _ in checked]
        checkpoints = {checkpoint for _, checkpoint in checked}
        if len({(r.run, r.round, r.plan_fingerprint, r.policy_sha256) for r in records}) != 1:
            raise _refused("records", "of one run, round, plan and policy", "of several")
        if len(checkpoints) != 1 or len({record.seq for record in records}) != len(records):
            raise _refused("proofs", "of one checkpoint, each of its own record", "others")
        (checkpoint,) = checkpoints
        described = tuple(_part(kind, parts[kind + ENVELOPE_SUFFIX]) for kind in kinds)
        return Passed(data, described, checkpoint, records[0].policy_sha256 or "")

    def check_keys(self, data: bytes) -> Passed:
        """Return what sealed keys are, if and only if the first door released them.

        Raises:
            RefusedError, VerificationError: names what they are not.
        """
        parts = unwrap(data)
        names = (_SEALED + ENVELOPE_SUFFIX, _SEALED + PROOF_SUFFIX)
        if tuple(parts) != names or wrap(parts) != data:
            raise _refused("parts", " and ".join(names), "others")
        envelope, proof = (parts[name] for name in names)
        sealed = decode_sealed(envelope)
        if (sealed.header.federation, sealed.header.site) != (self.federation, self.site):
            raise _refused("site", "ours", "another")
        record, checkpoint = self._prove(proof, envelope, _SEALED, sealed.arrays)
        named = (record.key_id, record.generation)
        if named != (sealed.header.key_id, sealed.header.generation):
            raise _refused("key_id", "the record's", "another")
        return Passed(
            envelope,
            (_part(_SEALED, envelope),),
            checkpoint,
            record.policy_sha256 or "",
            sealed,
        )

    def learn(self, note: bytes) -> None:
        """Remember a checkpoint that the aggregator cosigned; one that is not ours is passed over.

        Args:
            note: the receipt that came beside an order. The site's own signature is what
                counts here.
        """
        try:
            seen = open_note(note, [ledger_key(ledger_origin(self.site), self.public)]).checkpoint
        except VerificationError:
            return
        self.roots.setdefault(seen.size, seen.root)

    def _check(
        self, kind: str, envelope: bytes, proof: bytes, question: Asked
    ) -> tuple[LedgerRecord, Checkpoint]:
        """Hold one record against its proof, and both against the order."""
        decoded = decode(envelope)
        said = decoded.record
        if said.record_type != kind or said.site != self.site:
            raise _refused(kind, "a record of its name, and of this site", "another")
        arrays = describe_arrays(decoded.arrays)
        _require_arrays(kind, arrays)
        record, checkpoint = self._prove(proof, envelope, kind, arrays)
        for name, expected, got in (
            ("run", said.run, record.run),
            ("round", said.round, record.round),
            ("plan_fingerprint", said.plan_fingerprint, record.plan_fingerprint),
            ("order_sha256", question.order_sha256, record.order_sha256),
            ("order_signature", question.signature, record.order_signature),
            ("code", _code(said), record.code),
        ):
            if expected != got:
                raise _refused(f"{kind}, {name}", "as the record's proof says", "another")
        if record.phase not in get_args(Phase):
            raise _refused(f"{kind}, phase", "a phase", "another word")
        if record.key_id is not None or record.generation is not None:
            raise _refused(f"{kind}, key_id", "absent", "present")
        return record, checkpoint

    def _prove(
        self,
        proof_bytes: bytes,
        payload: bytes,
        kind: str,
        arrays: tuple[ArrayDescription, ...],
    ) -> tuple[LedgerRecord, Checkpoint]:
        """Return the record and the tree of a proof that holds for exactly these bytes."""
        proof = Proof.from_bytes(proof_bytes)
        if proof.to_bytes() != proof_bytes:
            raise _refused(f"{kind}, proof", "its own spelling", "another")
        origin = ledger_origin(self.site)
        signed = open_note(proof.checkpoint, [ledger_key(origin, self.public)])
        checkpoint = signed.checkpoint
        # A second signature line would be a place for anything.
        if proof.checkpoint.count(b"\n") != _NOTE_LINES:
            raise _refused(f"{kind}, checkpoint", "one signature, the site's", "more")
        verify_inclusion(
            leaf_hash(proof.record), proof.seq, checkpoint.size, proof.inclusion, checkpoint.root
        )
        self._check_since(proof, checkpoint)
        record = parse_record(proof.record, "proven record")
        expected = {
            "seq": proof.seq,
            "site": self.site,
            "event": "SEND",
            "record_type": kind,
            "payload_sha256": sha256_hex(payload),
            "bytes": len(payload),
            "arrays": tuple(
                ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
                for a in arrays
            ),
            "app_sha256": self.app_sha256,
        }
        for name, value in expected.items():
            if getattr(record, name) != value:
                raise _refused(f"{kind}, {name}", "what the ledger recorded", "another")
        for name in _UNUSED:
            if getattr(record, name) is not None:
                raise _refused(f"{kind}, {name}", "absent", "present")
        return record, checkpoint

    def _check_since(self, proof: Proof, checkpoint: Checkpoint) -> None:
        """Have the proof start where its hashes can be checked, so that none is free."""
        if proof.since == checkpoint.size or proof.since == 0:
            if proof.consistency:
                raise _refused("proof, consistency", "empty", "hashes")
            if proof.since == 0 or self.roots.get(proof.since) == checkpoint.root:
                return
        root = self.roots.get(proof.since)
        if root is None:
            raise _refused("proof, since", "0 or a checkpoint that left before", "another")
        verify_consistency(proof.since, checkpoint.size, root, checkpoint.root, proof.consistency)


def _kinds(parts: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the record types of a parcel whose parts have exactly the names they may have."""
    kinds = tuple(name.removesuffix(ENVELOPE_SUFFIX) for name in list(parts)[::2])
    expected = tuple(f"{kind}{end}" for kind in kinds for end in (ENVELOPE_SUFFIX, PROOF_SUFFIX))
    # In one order, so that there is nothing to say with it: the report comes last.
    in_order = tuple(sorted((k for k in _KINDS if k in kinds), key="RoundReport".__eq__))
    if not kinds or tuple(parts) != expected or in_order != kinds:
        raise _refused(
            "parts", "an envelope and a proof of each record, and nothing else", "others"
        )
    return kinds


def _require_arrays(kind: str, arrays: tuple[ArrayDescription, ...]) -> None:
    if kind == "ModelUpdate":
        holds = all(a.dtype == "int32" and _WEIGHT.fullmatch(a.name) for a in arrays)
    else:
        holds = all(ARRAYS[kind].get(a.name) == a.dtype for a in arrays)
    if not holds:
        raise _refused(f"{kind}, arrays", "those of its type", "others")


def _code(record: Record) -> int | None:
    """Return the number of a failure, as the ledger has it."""
    code = getattr(record, "code", None)
    return None if not code else int(code)


def _part(kind: str, envelope: bytes) -> Part:
    return Part(record_type=kind, sha256=sha256_hex(envelope), bytes=len(envelope))


def _refused(field_: str, expected: str, got: str) -> RefusedError:
    return RefusedError(
        "refused at the second door; nothing was sent", field=field_, expected=expected, got=got
    )

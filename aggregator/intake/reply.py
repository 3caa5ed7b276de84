"""One site's reply to an order: opened, verified against its ledger, checked by the rules.

Whole as the site sent it, or the head of it that a relay passed on. Bounded before it is
taken apart, proved by the site's ledger key before it is decoded. Pure apart from the
clockless cryptography: what was last seen of a site comes in as a value, and the caller
stores what is to be seen next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import RefusedError, VerificationError
from common.ledger.notes import Checkpoint, ledger_origin
from common.ledger.proof import MAX_PROOF_BYTES, Proof, VerifiedRecord, verify_proof
from common.plan import FederationPlan
from common.wire.codes import ReplyCode
from common.wire.envelope import ArrayDescription, Envelope, decode, describe_arrays
from common.wire.expected import Expected, l2_norm
from common.wire.labels import check_labels_told, without_labels
from common.wire.parcel import MAX_MANIFEST_BYTES, MAX_PARCEL_BYTES, unwrap
from common.wire.records import ModelUpdate, Record, RoundReport
from common.wire.rules import ANSWERS, answers_of, check_origin, check_record, summed_of
from common.wire.together import check_together
from common.wire.transport import ENVELOPE_SUFFIX, PROOF_SUFFIX

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True)
class Sender:
    """The aggregator's knowledge of a site before it reads a word of its reply.

    Attributes:
        ledger_key: that it was admitted with.
        last_seen: its newest checkpoint that was cosigned.
        witness: our own key, by which a restored site proves what it still has.
    """

    ledger_key: PublicKey
    last_seen: Checkpoint | None
    witness: PublicKey | None = None


@dataclass(frozen=True)
class Reply:
    """A reply whose every byte is accounted for.

    Attributes:
        report: always present.
        envelopes: by record type, the report among them.
        parts: the parcel's parts, for the archive.
        proven: the site's newest checkpoint, to be cosigned.
    """

    site: str
    report: RoundReport
    envelopes: Mapping[str, Envelope]
    parts: Mapping[str, bytes]
    proven: VerifiedRecord

    @property
    def length(self) -> float | None:
        """L2 norm of the site's update, in its own fixed-point units; None where there is none."""
        update = self.envelopes.get(ModelUpdate.__name__)
        return None if update is None else l2_norm(without_labels(update.arrays))

    @property
    def envelope_bytes(self) -> dict[str, int]:
        """Size of each envelope by record type."""
        return {
            name.removesuffix(ENVELOPE_SUFFIX): len(data)
            for name, data in self.parts.items()
            if name.endswith(ENVELOPE_SUFFIX)
        }


def open_reply(parcel: bytes, sender: Sender, expected: Expected) -> Reply:
    """Verify and check everything a site sent for one order.

    Args:
        parcel: as it arrived.
        sender: the site that was asked.
        expected: what its records are measured against.

    Raises:
        RefusedError: another site's, unknown or missing record, a broken rule, or records that
            contradict each other.
        VerificationError: a proof, signature or digest does not hold.
    """
    return _open(parcel, sender, expected, answers_of(expected.plan, expected.phase))


def open_head(parcel: bytes, sender: Sender, expected: Expected) -> Reply:
    """Verify and check what a relay passed on of a site's reply: all that is not added.

    The same proofs and rules, by the same ledger; of the records that the relay keeps nothing
    is known here.

    Raises:
        RefusedError, VerificationError: as ``open_reply``.
    """
    summed = summed_of(expected.plan, expected.phase)
    passed = [kind for kind in answers_of(expected.plan, expected.phase) if kind not in summed]
    return _open(parcel, sender, expected, passed)


def _open(
    parcel: bytes, sender: Sender, expected: Expected, whole: Sequence[type[Record]]
) -> Reply:
    parts = unwrap(parcel, most_bytes(expected.plan))
    envelopes: dict[str, Envelope] = {}
    proven: list[VerifiedRecord] = []
    for name in _names(parts, expected):
        proven.append(_verify(name, parts, expected, sender))
        envelopes[name] = _decode(name, parts, expected, proven[-1])
    if len({record.checkpoint for record in proven}) != 1:
        raise VerificationError(
            "a reply's proofs speak of different ledgers", expected="one checkpoint", got="several"
        )
    report = _only(envelopes, RoundReport)
    if report is None:
        raise RefusedError("a reply without a report", field="RoundReport", got="nothing")
    _check_completeness(set(envelopes), report.code, whole)
    check_together(envelopes.values())
    check_labels_told(envelopes.values(), expected.plan)
    return Reply(
        expected.site,
        report,
        MappingProxyType(envelopes),
        MappingProxyType(parts),
        proven[0],
    )


def most_bytes(plan: FederationPlan) -> int:
    """Return the most bytes that a reply to any order of a plan has."""
    kinds = max(len(answer) for answer in ANSWERS.values())
    whole = kinds * (plan.limits.max_envelope_bytes + MAX_PROOF_BYTES) + MAX_MANIFEST_BYTES
    return min(whole, MAX_PARCEL_BYTES)


def _names(parts: Mapping[str, bytes], expected: Expected) -> list[str]:
    """Name the records of a reply, which is envelopes with their proofs and nothing else."""
    names = [name.removesuffix(ENVELOPE_SUFFIX) for name in parts if name.endswith(ENVELOPE_SUFFIX)]
    expected_parts = {name + suffix for name in names for suffix in (ENVELOPE_SUFFIX, PROOF_SUFFIX)}
    if not names or set(parts) != expected_parts:
        raise RefusedError(
            "a reply must be envelopes with their proofs", got=f"{len(parts)} other parts"
        )
    most = expected.plan.limits.max_envelope_bytes
    for name in names:
        if len(parts[name + ENVELOPE_SUFFIX]) > most:
            raise RefusedError(
                "an envelope is too large", field=name, expected=f"at most {most} bytes", got="more"
            )
    return names


def _verify(
    name: str, parts: Mapping[str, bytes], expected: Expected, sender: Sender
) -> VerifiedRecord:
    """Return the site's own record of these bytes; they are not decoded yet."""
    proof = Proof.from_bytes(parts[name + PROOF_SUFFIX])
    return verify_proof(
        proof,
        sha256_hex(parts[name + ENVELOPE_SUFFIX]),
        ledger_origin(expected.site),
        sender.ledger_key,
        sender.last_seen,
        sender.witness,
    )


def _decode(
    name: str, parts: Mapping[str, bytes], expected: Expected, verified: VerifiedRecord
) -> Envelope:
    """Return an envelope that is the site's, as its ledger records it, and keeps every rule."""
    envelope = decode(parts[name + ENVELOPE_SUFFIX])
    if envelope.record.record_type != name:
        raise RefusedError(
            "an envelope lies under another name",
            field=name,
            expected=name,
            got=envelope.record.record_type,
        )
    check_origin(envelope.record, expected)
    recorded = verified.record
    for field, must, got in (
        ("run", expected.run, recorded.run),
        ("round", expected.round, recorded.round),
        ("record_type", name, recorded.record_type),
        ("plan_fingerprint", expected.plan.fingerprint, recorded.plan_fingerprint),
        ("bytes", len(parts[name + ENVELOPE_SUFFIX]), recorded.bytes),
        ("arrays", describe_arrays(envelope.arrays), _recorded_arrays(verified)),
    ):
        if must != got:
            raise VerificationError(
                "the site's ledger records something else than it sent",
                field=f"{name}: {field}",
                expected="what the envelope says",
                got="another value",
            )
    check_record(envelope, expected)
    return envelope


def _recorded_arrays(verified: VerifiedRecord) -> tuple[ArrayDescription, ...]:
    """Return the ledger's description of the arrays, in the envelope's terms."""
    return tuple(
        ArrayDescription(array.name, array.dtype, tuple(array.shape), array.sha256)
        for array in verified.record.arrays or ()
    )


def _only(envelopes: Mapping[str, Envelope], kind: type[RecordT]) -> RecordT | None:
    envelope = envelopes.get(kind.__name__)
    record = envelope.record if envelope else None
    return record if isinstance(record, kind) else None


def _check_completeness(names: set[str], code: ReplyCode, whole: Sequence[type[Record]]) -> None:
    """All records that a whole answer has, or the number of a failure alone."""
    required = {kind.__name__ for kind in whole} if code is ReplyCode.OK else {RoundReport.__name__}
    if names != required:
        raise RefusedError(
            "a reply is not complete",
            expected=", ".join(sorted(required)),
            got=", ".join(sorted(names)),
        )

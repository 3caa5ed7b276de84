"""Every rule of the door. Pure: no file, no socket, no clock, no randomness.

To audit, read ``check`` here, then ``ANSWERS`` and ``check_record`` in
``common.wire.rules``, which intake applies again, and stop. ``release`` has every
envelope of an answer checked before it records or writes the first.
Any exception in here means that nothing leaves. A refusal names the field and
what was expected; it never quotes a value. The rules in words: deploy/EGRESS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from common.errors import RefusedError
from common.policy import Policy, stricter_floors
from common.wire.envelope import Envelope, decode
from common.wire.expected import Expected, RecordFloors
from common.wire.labels import check_labels_told
from common.wire.records import (
    ErrorTables,
    HeavyHitters,
    PixelSketches,
    RoundReport,
    SketchTable,
)
from common.wire.rules import check_record
from common.wire.together import check_together


@dataclass(frozen=True)
class SiteExpected(Expected):
    """Everything that a release is measured against: every site's rules, and this one's own.

    None of it comes from the release.

    Attributes:
        floors: the stricter of the plan's and this site's.
        key_id, codec: of the site's sketches; here always known.
        policy: the site's own.
        public_key_id: id of the sketch key that everybody knows (tier 0).
        round_bytes, run_bytes: envelope bytes that have left already.
    """

    floors: RecordFloors = field(init=False)
    key_id: str = field(kw_only=True)
    codec: str = field(kw_only=True)
    policy: Policy = field(kw_only=True)
    public_key_id: str = field(kw_only=True)
    round_bytes: int = field(default=0, kw_only=True)
    run_bytes: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        stricter = stricter_floors(self.plan, self.policy)
        object.__setattr__(self, "floors", stricter)  # frozen: nobody may hand in laxer ones


def check_answer(answer: Sequence[bytes], expected: SiteExpected) -> list[Envelope]:
    """Return the decoded envelopes of one answer if and only if all of them may leave together.

    Raises:
        RefusedError, VerificationError: as ``check``; also for no envelope at all, or
            two of one type.
    """
    _require(bool(answer), "answer", "at least one envelope", "none")
    envelopes: list[Envelope] = []
    for data in answer:
        envelopes.append(check(data, expected))
        expected = replace(
            expected,
            round_bytes=expected.round_bytes + len(data),
            run_bytes=expected.run_bytes + len(data),
        )
    types = {envelope.record.record_type for envelope in envelopes}
    _require(len(types) == len(envelopes), "answer", "one envelope of a type", "two")
    check_together(envelopes)
    check_labels_told(envelopes, expected.plan)
    return envelopes


def check(data: bytes, expected: SiteExpected) -> Envelope:
    """Return the decoded envelope if and only if it may leave.

    Raises:
        RefusedError: names the field that may not leave as it is.
        VerificationError: metadata that is not canonical JSON.
    """
    _check_size(len(data), expected)
    # Refuses unknown types and fields, then encodes what it read again: bytes that
    # the record does not account for make the two differ.
    envelope = decode(data)
    _check_policy(envelope, expected)
    try:
        check_record(envelope, expected)
    except RefusedError as error:
        raise _refusal(error.field, error.expected, error.got) from error
    return envelope


def _check_size(size: int, expected: SiteExpected) -> None:
    caps = expected.policy.bytes
    limit = expected.plan.limits.max_envelope_bytes
    _require(size <= limit, "envelope", f"at most {limit} bytes", f"{size} bytes")
    in_round, in_run = expected.round_bytes + size, expected.run_bytes + size
    _require(
        in_round <= caps.per_round, "round", f"at most {caps.per_round} bytes", f"{in_round} bytes"
    )
    _require(in_run <= caps.per_run, "run", f"at most {caps.per_run} bytes", f"{in_run} bytes")


def _check_policy(envelope: Envelope, expected: SiteExpected) -> None:
    """Check what this site asks for beyond the rules of every site."""
    record, allowed = envelope.record, expected.policy.records.allowed
    _require(record.record_type in allowed, "record_type", " or ".join(allowed), record.record_type)
    tier = max(expected.plan.limits.privacy_tier, expected.policy.privacy.least_tier)
    keyed = SketchTable | ErrorTables | RoundReport | PixelSketches | HeavyHitters
    if isinstance(record, keyed):
        _require(
            tier == 0 or record.key_id != expected.public_key_id,
            "key_id",
            f"a secret key, for tier {tier} is asked",
            "the public one",
        )


def _require(holds: bool, field: str, expected: str, got: str) -> None:
    if not holds:
        raise _refusal(field, expected, got)


def _refusal(field: str, expected: str, got: str) -> RefusedError:
    return RefusedError(
        "refused at the door; nothing was sent", field=field, expected=expected, got=got
    )

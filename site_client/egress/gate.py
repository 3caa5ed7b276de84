"""Every rule of the door. Pure: no file, no socket, no clock, no randomness.

To audit, read ``check`` here, then ``ANSWERS`` and ``check_record`` in
``common.wire.rules``, which intake applies again, and stop. ``release`` has every
envelope of an answer checked before it records or writes the first.
Any exception in here means that nothing leaves. A refusal names the field and
what was expected; it never quotes a value. The rules in words: deploy/EGRESS.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from common.errors import RefusedError
from common.plan import FederationPlan
from common.schedule import Phase
from common.wire.envelope import Envelope, decode
from common.wire.expected import Expected, RecordFloors
from common.wire.labels import check_labels_told
from common.wire.records import HeavyHitters, PixelSketches, RoundReport, SketchTable
from common.wire.rules import check_record
from common.wire.together import check_together
from site_client.egress.policy import Policy


@dataclass(frozen=True)
class Context:
    """Everything that a release is measured against; none of it comes from the release.

    Attributes:
        site, run, round, phase, plan: of the order that is answered.
        policy: the site's own.
        shapes: name to shape of every weight that the sites of the plan add up.
        key_id, codec: of the site's sketches.
        public_key_id: id of the sketch key that everybody knows (tier 0).
        samples: most that this site may count as in an average.
        round_bytes, run_bytes: envelope bytes that have left already.
    """

    site: str
    run: str
    round: int
    phase: Phase
    plan: FederationPlan
    policy: Policy
    shapes: Mapping[str, tuple[int, ...]]
    key_id: str
    codec: str
    public_key_id: str
    round_bytes: int = 0
    run_bytes: int = 0
    samples: int = 1_000_000

    def expected(self) -> Expected:
        """Unite the rules of every site with the stricter of the plan's and this site's floors."""
        plan, floors, pixels = RecordFloors.of(self.plan), self.policy.floors, self.policy.pixels
        return Expected(
            site=self.site,
            run=self.run,
            round=self.round,
            phase=self.phase,
            plan=self.plan,
            shapes=self.shapes,
            floors=RecordFloors(
                images=max(plan.images, floors.images),
                transitions=max(plan.transitions, floors.transitions),
                sketch_fill=max(plan.sketch_fill, floors.sketch_fill),
                slides=max(plan.slides, pixels.slides if pixels else 1),
                pixels=max(plan.pixels, pixels.pixels if pixels else 1),
                group_pixels=max(plan.group_pixels, pixels.group_pixels if pixels else 1),
            ),
            key_id=self.key_id,
            codec=self.codec,
            samples=self.samples,
        )


def check_answer(answer: Sequence[bytes], context: Context) -> list[Envelope]:
    """Return the decoded envelopes of one answer if and only if all of them may leave together.

    Raises:
        RefusedError, VerificationError: as ``check``; also for no envelope at all, or
            two of one type.
    """
    _require(bool(answer), "answer", "at least one envelope", "none")
    envelopes: list[Envelope] = []
    for data in answer:
        envelopes.append(check(data, context))
        context = replace(
            context,
            round_bytes=context.round_bytes + len(data),
            run_bytes=context.run_bytes + len(data),
        )
    types = {envelope.record.record_type for envelope in envelopes}
    _require(len(types) == len(envelopes), "answer", "one envelope of a type", "two")
    check_together(envelopes)
    check_labels_told(envelopes, context.plan)
    return envelopes


def check(data: bytes, context: Context) -> Envelope:
    """Return the decoded envelope if and only if it may leave.

    Raises:
        RefusedError: names the field that may not leave as it is.
        VerificationError: metadata that is not canonical JSON.
    """
    _check_size(len(data), context)
    # Refuses unknown types and fields, then encodes what it read again: bytes that
    # the record does not account for make the two differ.
    envelope = decode(data)
    _check_policy(envelope, context)
    try:
        check_record(envelope, context.expected())
    except RefusedError as error:
        raise _refusal(error.field, error.expected, error.got) from error
    return envelope


def _check_size(size: int, context: Context) -> None:
    caps = context.policy.bytes
    limit = context.plan.limits.max_envelope_bytes
    _require(size <= limit, "envelope", f"at most {limit} bytes", f"{size} bytes")
    in_round, in_run = context.round_bytes + size, context.run_bytes + size
    _require(
        in_round <= caps.per_round, "round", f"at most {caps.per_round} bytes", f"{in_round} bytes"
    )
    _require(in_run <= caps.per_run, "run", f"at most {caps.per_run} bytes", f"{in_run} bytes")


def _check_policy(envelope: Envelope, context: Context) -> None:
    """Check what this site asks for beyond the rules of every site."""
    record, allowed = envelope.record, context.policy.records.allowed
    _require(record.record_type in allowed, "record_type", " or ".join(allowed), record.record_type)
    tier = max(context.plan.limits.privacy_tier, context.policy.privacy.least_tier)
    if isinstance(record, SketchTable | RoundReport | PixelSketches | HeavyHitters):
        _require(
            tier == 0 or record.key_id != context.public_key_id,
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

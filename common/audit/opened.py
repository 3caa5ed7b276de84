"""Opening what left: every release decoded, and held against record, order, plan and policy.

A digest says that bytes are the same, not that they were allowed. So an auditor repeats
the door's rules from the archive alone: strict decoding, the rules of ``common.wire``
that every site keeps to, the stricter floors of plan and policy, the policy's bounds on
the plan, its byte caps, and a person's approval where it asks for one. What the door
knew from its own secrets (the sketch key) is not asked again. Sizes are compared before
anything is read, so that memory is bounded by plan and policy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from common.canonical import parse_canonical_json
from common.crypto.identity import PublicKey
from common.errors import RefusedError, VerificationError
from common.ledger.archive import Archive
from common.ledger.layout import Layout
from common.ledger.records import KEYS_RECORD, ArrayRecord, LedgerRecord, parse_timestamp
from common.ledger.rotation import WitnessKeys
from common.model import shared_shapes
from common.plan import FederationPlan, parse_plan
from common.policy import Policy, check_phase, check_plan, parse_policy, stricter_floors
from common.wire.codes import ReplyCode
from common.wire.envelope import ArrayDescription, Envelope, decode, describe_arrays
from common.wire.expected import Expected
from common.wire.labels import LABELS, check_labels_told
from common.wire.orders import SIGNATURE_CONTEXT, Order, check_order, decode_order
from common.wire.records import RoundReport
from common.wire.rules import check_record
from common.wire.sealed_keys import decode_sealed
from common.wire.together import check_together
from common.wire.turn import open_turn

_BYTES_PER_WEIGHT: Final = 4


@dataclass
class _RoundAnswer:
    """One round's answer as far as it was opened: one envelope of a type, without its arrays."""

    order: str
    envelopes: dict[str, Envelope] = field(default_factory=dict)


@dataclass
class _Past:
    """The records so far, as far as they speak of releases and of people."""

    answers: dict[tuple[str, int], _RoundAnswer] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    plans: dict[str, str] = field(default_factory=dict)
    round_bytes: Counter[tuple[str, int]] = field(default_factory=Counter)
    run_bytes: Counter[str] = field(default_factory=Counter)
    released: dict[str, datetime] = field(default_factory=dict)
    approved: set[str] = field(default_factory=set)
    confirmed: dict[str, str] = field(default_factory=dict)


class ReleaseOpener:
    """Opens the releases of one ledger, oldest first; see ``common.ledger.archive.Opener``.

    Args:
        folder: of the ledger.
        witness: the key that must have signed the orders; None to leave that open.
    """

    def __init__(self, folder: Path, witness: PublicKey | None) -> None:
        self._archive = Archive(Layout(folder))
        self._layout, self._witness = Layout(folder), witness
        self._past = _Past()
        # Many records name the same few documents.
        self._plan = cache(self._read_plan)
        self._policy = cache(self._read_policy)
        self._order = cache(self._read_order)

    @cached_property
    def _keys(self) -> WitnessKeys | None:
        """The aggregator's keys, each as long as it counted."""
        return None if self._witness is None else WitnessKeys.of(self._layout, self._witness)

    def expect(self, record: LedgerRecord) -> None:
        """Read what a record names, and hold it against what it says; no payload yet.

        Raises:
            CairnError: a text is missing, is none, or does not allow the record.
        """
        match record.event:
            case "APPROVE":
                self._past.approved.add(record.plan_fingerprint or "")
            case "CONFIRM":
                self._past.confirmed[record.peer or ""] = record.peer_key or ""
            case "FORGET":
                self._past.confirmed.pop(record.peer or "", None)
            case "REFUSE":
                self._documents(record)
            case "EXPIRE":
                self._expect_expiry(record)
            case "STOP":
                self._expect_stop(record)
            case "SEND" if record.record_type == KEYS_RECORD:
                policy = self._policy(record.policy_sha256 or "")
                _require(policy.sharing.share != "never", "keys.share", "not never", "never")
            case "SEND":
                self._expect_release(record)
            case _:
                pass
        if record.event == "SEND":
            self._past.released[record.payload_sha256 or ""] = parse_timestamp(record.ts)

    def open(self, record: LedgerRecord, payload: bytes) -> None:
        """Decode a payload strictly, and hold it against its record, plan and policy.

        Raises:
            CairnError: it is not what its record says, or may not leave.
        """
        if record.record_type == KEYS_RECORD:
            self._open_keys(record, payload)
            return
        envelope = decode(payload)
        said = envelope.record
        for name in ("record_type", "site", "run", "round", "plan_fingerprint"):
            _same(name, getattr(said, name), getattr(record, name))
        _same("arrays", _arrays(describe_arrays(envelope.arrays)), record.arrays)
        failed = isinstance(said, RoundReport) and said.code is not ReplyCode.OK
        code = int(said.code) if failed and isinstance(said, RoundReport) else None
        _same("code", code, record.code)
        order = self._order(record.order_sha256 or "")
        plan, policy = order.plan, self._policy(record.policy_sha256 or "")
        check_record(envelope, _expected(record, order, policy))
        if not failed:
            self._hold_together(record, envelope, plan)

    def _expect_expiry(self, record: LedgerRecord) -> None:
        """Require that the policy in force has a payload deleted after so long."""
        days = self._policy(record.policy_sha256 or "").retention.payload_days
        last = self._past.released.get(record.payload_sha256 or "")
        _require(days > 0, "retention.payload_days", "a number of days", "0: nothing expires")
        _require(last is not None, "payload_sha256", "released before", "never released")
        due = last is not None and parse_timestamp(record.ts) >= last + timedelta(days=days)
        _require(due, "ts", f"{days} days or more after the last release", "earlier")

    def _documents(self, record: LedgerRecord) -> None:
        """Require the texts that a record names."""
        if record.policy_sha256 is not None:
            self._policy(record.policy_sha256)
        if record.plan_fingerprint is not None:
            self._plan(record.plan_fingerprint)
        if record.order_sha256 is not None:
            self._order(record.order_sha256)

    def _expect_release(self, record: LedgerRecord) -> None:
        self._documents(record)
        order = self._order(record.order_sha256 or "")
        plan, policy = order.plan, self._policy(record.policy_sha256 or "")
        header = order.header
        _same("run", header.run, record.run)
        _same("round", header.round, record.round)
        _same("phase", header.phase, record.phase)
        _same("plan", plan.fingerprint, record.plan_fingerprint)
        self._expect_size(record, plan, policy)
        allowed = policy.records.allowed
        _require(record.record_type in allowed, "record_type", " or ".join(allowed), "another")
        if record.code is None:
            self._expect_answer(record, order, policy)

    def _expect_size(self, record: LedgerRecord, plan: FederationPlan, policy: Policy) -> None:
        """Hold the bytes that a record says against every cap, before they are read."""
        size, run, past = record.bytes or 0, record.run or "", self._past
        most = plan.limits.max_envelope_bytes
        _require(size <= most, "bytes", f"at most the plan's {most}", str(size))
        place = (run, record.round or 0)
        past.round_bytes[place] += size
        past.run_bytes[run] += size
        caps = policy.bytes
        in_round, in_run = past.round_bytes[place], past.run_bytes[run]
        _require(in_round <= caps.per_round, "bytes.per_round", str(caps.per_round), str(in_round))
        _require(in_run <= caps.per_run, "bytes.per_run", str(caps.per_run), str(in_run))

    def _expect_answer(self, record: LedgerRecord, order: Order, policy: Policy) -> None:
        """Hold an answer, which a failure's number is not, against what may be answered at all."""
        plan, past = order.plan, self._past
        run, place = record.run or "", (record.run or "", record.round or 0)
        check_order(order)
        self._check_signature(record)
        check_plan(policy, plan, weights_bytes=_weights_bytes(plan))
        check_phase(policy, plan, order.header.phase)
        decided = policy.plans.approval == "bounded" or plan.fingerprint in past.approved
        _require(decided, "plan", "approved by a person before", "nobody's approval")
        _same("plan of the run", past.plans.setdefault(run, plan.fingerprint), plan.fingerprint)
        answer = past.answers.setdefault(place, _RoundAnswer(record.order_sha256 or ""))
        _same("order of the round", answer.order, record.order_sha256)
        forwards = place[1] >= past.latest.get(run, 0)
        _require(forwards, "round", "not before one that was answered", "an earlier one")
        past.latest[run] = place[1]
        new = (record.record_type or "") not in answer.envelopes
        _require(new, "record_type", "once in a round", "a second one")

    def _check_signature(self, record: LedgerRecord) -> None:
        if self._keys is None:
            return
        _require(record.order_signature is not None, "order_signature", "there", "none")
        data = self._archive.document(record.order_sha256 or "", "order") or b""
        signature = bytes.fromhex(record.order_signature or "")
        self._keys.of_record(record.seq).verify(signature, SIGNATURE_CONTEXT + data)

    def _expect_stop(self, record: LedgerRecord) -> None:
        """Require the aggregator's signed word that the run is over."""
        data = self._archive.document(record.payload_sha256 or "", "stop")
        _require(data is not None, "payload_sha256", "the aggregator's word", "no file")
        if self._keys is None or data is None:
            return
        note = open_turn(data, record.run or "", self._keys.of_record(record.seq))
        _require(note.stop, "stop", "the end of the run", "a turn")

    def _hold_together(
        self, record: LedgerRecord, envelope: Envelope, plan: FederationPlan
    ) -> None:
        """Hold the records of one answer against each other, as the door did."""
        answer = self._past.answers[record.run or "", record.round or 0]
        labels = {n: array for n, array in envelope.arrays.items() if n == LABELS}
        answer.envelopes[record.record_type or ""] = Envelope(envelope.record, labels)
        check_together(answer.envelopes.values())
        check_labels_told(answer.envelopes.values(), plan)

    def _open_keys(self, record: LedgerRecord, payload: bytes) -> None:
        parcel = decode_sealed(payload)
        header, policy = parcel.header, self._policy(record.policy_sha256 or "")
        for name in ("site", "federation", "record_type", "key_id", "generation"):
            _same(name, getattr(header, name), getattr(record, name))
        _same("arrays", _arrays(parcel.arrays), record.arrays)
        for box in parcel.boxes:
            label, confirmed = box.label, self._past.confirmed
            allowed = label.for_site == record.site or policy.sharing.allows(
                label.for_site, label.for_ledger_key, confirmed
            )
            _require(allowed, "receiver", "one that policy or a person allows", label.for_site)

    def _text(self, digest: str, what: str) -> bytes:
        data = self._archive.document(digest, what)
        if data is None:
            raise VerificationError(
                f"the text of its {what} is missing",
                field=digest[:16],
                expected="a file in payloads/",
                got="none",
            )
        return data

    def _read_plan(self, digest: str) -> FederationPlan:
        data = self._text(digest, "plan")
        plan = parse_plan(parse_canonical_json(data, "plan"))
        _same("plan", plan.fingerprint, digest)
        return plan

    def _read_policy(self, digest: str) -> Policy:
        return parse_policy(self._text(digest, "policy"))

    def _read_order(self, digest: str) -> Order:
        return decode_order(self._text(digest, "order"))


def _expected(record: LedgerRecord, order: Order, policy: Policy) -> Expected:
    """Collect what a record is measured against; the sketch key only the site knows."""
    plan = order.plan
    return Expected(
        site=record.site,
        run=order.header.run,
        round=order.header.round,
        phase=order.header.phase,
        plan=plan,
        shapes=shared_shapes(plan) if plan.trains else {},
        floors=stricter_floors(plan, policy),
        samples=order.samples_of(record.site),
    )


def _weights_bytes(plan: FederationPlan) -> int:
    """Size of the weights that a site sends; 0 for a plan without a model."""
    if not plan.trains:
        return 0
    cells = 0
    for shape in shared_shapes(plan).values():
        product = 1
        for extent in shape:
            product *= extent
        cells += product
    return _BYTES_PER_WEIGHT * cells


def _arrays(described: tuple[ArrayDescription, ...]) -> tuple[ArrayRecord, ...]:
    return tuple(
        ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256) for a in described
    )


def _same(what: str, opened: object, recorded: object) -> None:
    if opened != recorded:
        raise VerificationError(
            "what was released is not what its record says",
            field=what,
            expected="the same in both",
            got="another",
        )


def _require(holds: bool, field_: str, expected: str, got: str) -> None:
    if not holds:
        raise RefusedError(
            "plan or policy did not allow it", field=field_, expected=expected, got=got
        )

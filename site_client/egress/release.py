"""Check, record, hand over: in this order, or nothing leaves.

1. The gate passes every envelope of the answer, together.
2. Their bytes go into the ledger's archive, and a note of intent beside it.
3. One SEND record each; the signed checkpoint after the last is the commit point.
4. The proofs are kept, so that a repeated order gets the same bytes again.
5. Only now one parcel goes into the outbox.

A crash before the first record leaves an order unanswered; a crash after it is
completed from the archive. What is refused leaves a REFUSE record, and a
RoundReport with a number and nothing else, through the same door.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from common.canonical import canonical_json, sha256_hex
from common.errors import CairnError, RefusedError, VerificationError
from common.ledger.log import Ledger
from common.ledger.records import ArrayRecord, LedgerRecord, RefusalDetail
from common.plan import Frozen
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode, describe_arrays, encode
from common.wire.records import Digest, RoundReport
from site_client.egress.gate import Context, check_answer
from site_client.egress.outbox import put_reply
from site_client.files import write_atomically
from site_client.spool import Spool

LOG = logging.getLogger("cairn.egress")
ONCE_A_ROUND = (
    "ModelUpdate",
    "SketchTable",
    "PixelStatistics",
    "PixelSketches",
    "HeavyHitters",
    "GroupCounts",
)
"""Types of which a site never releases two different ones for a round."""


class SilencedError(RefusedError):
    """There is nothing that may leave, not even the report of a failure."""


@dataclass(frozen=True)
class Question:
    """Which order is being answered.

    Attributes:
        order_sha256: of the order's own bytes. It names the answer: the same order that
            comes again in another parcel, with a newer receipt, gets the same answer.
        parcel_sha256: of the parcel it came in; names the reply in the outbox.
    """

    order_sha256: str
    parcel_sha256: str

    @property
    def of_parcel(self) -> Question:
        """For a failure, which answers the parcel that brought the order, not the order for ever.

        The same order comes again when a run is resumed: in another parcel, for the failure's
        receipt comes with it. Nor can the refusal of a forged copy answer the genuine order.
        """
        return replace(self, order_sha256=self.parcel_sha256)


class _Answer(Frozen):
    """What was decided to leave; ``proofs`` once every record is committed."""

    v: Literal[1] = 1
    payloads: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=8, strict=False)]
    plan_fingerprint: Digest
    policy_sha256: Digest
    proofs: Annotated[tuple[str, ...], Field(max_length=8, strict=False)] = ()


class Door:
    """The gate, the ledger and the outbox as one.

    Args:
        ledger: of this site, open.
        answers: folder of the notes of intent; only the worker can see it.
        spool: where the courier looks.
        app_sha256: digest of the pinned Flower app, for the records.
    """

    def __init__(
        self, ledger: Ledger, answers: Path, spool: Spool, app_sha256: str | None = None
    ) -> None:
        self._ledger = ledger
        self._answers = answers
        self._spool = spool
        self._app_sha256 = app_sha256
        self._round_bytes: Counter[tuple[str, int]] = Counter()
        self._run_bytes: Counter[str] = Counter()
        self._once: dict[tuple[str, int, str], str] = {}
        answers.mkdir(parents=True, exist_ok=True)
        spool.prepare()
        for record in ledger.records():
            self._count(record)

    def replay(self, question: Question) -> bool:
        """Answer an order that was answered before, with the same bytes and no new record.

        Also completes what a crash interrupted between ledger and outbox.

        Returns:
            False when nothing was recorded for this order yet; it has to be worked on.

        Raises:
            SilencedError: the archive no longer holds what was sent.
            VerificationError: what it holds was altered.
        """
        path = self._answer_path(question)
        try:
            answer = _Answer.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise VerificationError(
                "a note of intent is damaged",
                field=path.name,
                expected="what the door wrote",
                got="something else",
                advice="Remove the file; the order is then worked on anew",
            ) from error
        if self._ledger.find(answer.payloads[0]) is None:
            return False  # the crash came before the commit point: nothing had been decided
        self._complete(question, answer)
        return True

    def require_unanswered(self, context: Context) -> None:
        """Refuse, before it is worked on, a second and different order for a round.

        Raises:
            RefusedError: this run and round have more than a report already.
        """
        for kind in ONCE_A_ROUND:
            if (context.run, context.round, kind) in self._once:
                raise _second(kind)

    def release(
        self, question: Question, envelopes: Sequence[Envelope], context: Context
    ) -> ReplyCode:
        """Let an answer out, or the number of its refusal.

        Args:
            question: the order that is answered.
            envelopes: the answer; all of them leave, or none.
            context: what the gate measures against.

        Returns:
            ``OK``, or ``REFUSED_AT_DOOR``.

        Raises:
            StorageError: the ledger could not record; nothing was handed over.
            SilencedError: not even the number of the refusal may leave.
        """
        if self.replay(question):
            return ReplyCode.OK
        try:
            payloads = [encode(envelope) for envelope in envelopes]
            checked = check_answer(payloads, self._with_what_left(context))
            self._refuse_a_second(payloads, checked, context)
        except CairnError as error:
            LOG.error("%s, round %d: %s", context.run, context.round, error)  # noqa: TRY400
            self.fail(question.of_parcel, ReplyCode.REFUSED_AT_DOOR, context, error)
            return ReplyCode.REFUSED_AT_DOOR
        self._commit(question, payloads, context)
        return ReplyCode.OK

    def fail(
        self,
        question: Question,
        code: ReplyCode,
        context: Context,
        refusal: CairnError | None = None,
    ) -> None:
        """Record that an order was refused or failed, and let its number out.

        Args:
            question: the order that is answered.
            code: the number.
            context: names run, round and plan; the report passes the same gate.
            refusal: of the gate or the policy, whose texts describe and never quote.
                None for everything else: its text may hold a path or a name.

        Raises:
            SilencedError: not even the number may leave. The refusal is recorded.
            StorageError: the ledger could not record; nothing was handed over.
        """
        if self.replay(question):
            return
        self._count(
            self._ledger.append(
                "REFUSE",
                run=context.run,
                round=context.round,
                code=int(code),
                detail=None if refusal is None else RefusalDetail.of(refusal),
                plan_fingerprint=context.plan.fingerprint,
                policy_sha256=context.policy.sha256,
                app_sha256=self._app_sha256,
            ).record
        )
        report = RoundReport(
            plan_fingerprint=context.plan.fingerprint,
            site=context.site,
            run=context.run,
            round=context.round,
            code=code,
        )
        payload = encode(Envelope(report, {}))
        try:
            check_answer([payload], self._with_what_left(context))
        except RefusedError as error:
            raise SilencedError(
                "not even a failure's number may leave",
                field=error.field,
                expected=error.expected,
                got=error.got,
                advice="The refusal stands in the ledger",
            ) from error
        self._commit(question, [payload], context)

    def refuse_unreadable(self) -> None:
        """Record an order that names no run: there is nobody to whom its number could be told.

        Raises:
            StorageError: the ledger could not record.
        """
        self._ledger.append("REFUSE", code=int(ReplyCode.BAD_ORDER), app_sha256=self._app_sha256)

    def _with_what_left(self, context: Context) -> Context:
        return replace(
            context,
            round_bytes=self._round_bytes[context.run, context.round],
            run_bytes=self._run_bytes[context.run],
        )

    def _refuse_a_second(
        self, payloads: Sequence[bytes], checked: Sequence[Envelope], context: Context
    ) -> None:
        for payload, envelope in zip(payloads, checked, strict=True):
            kind = envelope.record.record_type
            sent = self._once.get((context.run, context.round, kind))
            if sent not in (None, sha256_hex(payload)):
                raise _second(kind)

    def _commit(self, question: Question, payloads: Sequence[bytes], context: Context) -> None:
        """Archive and note the intent of what the gate has passed; then record and hand over."""
        answer = _Answer(
            payloads=tuple(self._ledger.spool(payload) for payload in payloads),
            plan_fingerprint=context.plan.fingerprint,
            policy_sha256=context.policy.sha256,
        )
        self._write(question, answer)
        self._complete(question, answer)

    def _complete(self, question: Question, answer: _Answer) -> None:
        """Whatever of steps 3 to 5 is missing."""
        payloads = [self._payload(digest) for digest in answer.payloads]
        envelopes = [decode(payload) for payload in payloads]
        if not answer.proofs:
            answer = self._record(answer, payloads, envelopes)
            self._write(question, answer)
        parts: dict[str, bytes] = {}
        for envelope, payload, proof in zip(envelopes, payloads, answer.proofs, strict=True):
            kind = envelope.record.record_type
            parts[f"{kind}.envelope"] = payload
            parts[f"{kind}.proof"] = proof.encode("utf-8")
        put_reply(self._spool, question.parcel_sha256, parcel.wrap(parts))

    def _record(
        self, answer: _Answer, payloads: Sequence[bytes], envelopes: Sequence[Envelope]
    ) -> _Answer:
        """One SEND record for every payload that has none, and the proofs of all."""
        places: list[int] = []
        for digest, payload, envelope in zip(answer.payloads, payloads, envelopes, strict=True):
            found = self._ledger.find(digest)
            if found is None:
                found = self._ledger.append(
                    "SEND",
                    run=envelope.record.run,
                    round=envelope.record.round,
                    record_type=envelope.record.record_type,
                    payload_sha256=digest,
                    bytes=len(payload),
                    arrays=tuple(
                        ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
                        for a in describe_arrays(envelope.arrays)
                    ),
                    plan_fingerprint=answer.plan_fingerprint,
                    policy_sha256=answer.policy_sha256,
                    app_sha256=self._app_sha256,
                ).record
                self._count(found)
            places.append(found.seq)
        since = self._ledger.witnessed_size
        proofs = (self._ledger.proof(seq, since).to_bytes().decode("utf-8") for seq in places)
        return answer.model_copy(update={"proofs": tuple(proofs)})

    def _payload(self, digest: str) -> bytes:
        payload = self._ledger.payload(digest)
        if payload is None:
            raise SilencedError(
                "the archive no longer holds what was sent",
                field=digest,
                expected="the released bytes",
                got="no file",
                advice="Payloads expire; start a new run",
            )
        return payload

    def _count(self, record: LedgerRecord) -> None:
        """Keep the sums that the caps need, and what may be sent only once."""
        if record.event != "SEND" or record.run is None or record.round is None:
            return
        self._round_bytes[record.run, record.round] += record.bytes or 0
        self._run_bytes[record.run] += record.bytes or 0
        if record.record_type in ONCE_A_ROUND:
            self._once[record.run, record.round, record.record_type] = record.payload_sha256 or ""

    def _answer_path(self, question: Question) -> Path:
        return self._answers / f"{question.order_sha256}.json"

    def _write(self, question: Question, answer: _Answer) -> None:
        data = canonical_json(answer.model_dump(mode="json"))
        write_atomically(self._answer_path(question), data)


def _second(kind: str) -> RefusedError:
    return RefusedError(
        "refused at the door; nothing was sent",
        field=kind,
        expected="the only one of its run and round",
        got="a second, different one",
    )

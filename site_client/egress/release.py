"""Check, record, hand over: in this order, or nothing leaves.

1. The gate passes every envelope of the answer, together, and the history finds the
   order to be a new one, within the budget over all runs, and earlier answers receipted.
2. Their bytes go into the ledger's archive, and a note of intent beside it; so do the
   order's own bytes, its plan and the site's policy, which every record names by digest.
3. One SEND record each; the signed checkpoint after the last is the commit point.
4. The proofs are kept, so that a repeated order gets the same bytes again.
5. Only now one parcel goes into the outbox.

A crash before the first record leaves an order unanswered; a crash after it is
completed from the archive. What is refused leaves a REFUSE record, and a
RoundReport with a number and nothing else, through the same door.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from common.arrivals.texts import json_of
from common.canonical import canonical_json
from common.errors import CairnError, RefusedError, VerificationError
from common.ledger.log import Ledger
from common.ledger.proof import Proof
from common.ledger.records import ArrayRecord, LedgerRecord, RefusalDetail
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode, describe_arrays, encode
from common.wire.records import Record, RoundReport
from site_client.egress.gate import SiteExpected, check_answer
from site_client.egress.history import History, HistoryError
from site_client.egress.outbox import put_reply
from site_client.egress.question import (
    MOST_INTENT_BYTES,
    Intent,
    OrderFields,
    Question,
    order_fields,
)
from site_client.files import write_atomically
from site_client.spool import Spool

LOG = logging.getLogger("cairn.egress")

__all__ = ["Door", "Question", "SilencedError"]


class SilencedError(RefusedError):
    """There is nothing that may leave, not even the report of a failure."""


class Door:
    """The gate, the ledger and the outbox as one.

    Args:
        ledger: of this site, open.
        answers: folder of the notes of intent; only the worker can see it.
        spool: where the courier looks.
        app_sha256: digest of the pinned Flower app, for the records.
        clock: current time, aware; the budget's window ends there.
    """

    def __init__(
        self,
        ledger: Ledger,
        answers: Path,
        spool: Spool,
        app_sha256: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._answers = answers
        self._spool = spool
        self._app_sha256 = app_sha256
        self._clock = clock
        self._history = History()
        self._round_bytes: Counter[tuple[str, int]] = Counter()
        self._run_bytes: Counter[str] = Counter()
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
            answer = Intent.model_validate(json_of(path.read_bytes(), MOST_INTENT_BYTES))
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
        record = self._ledger.find(answer.payloads[0])
        if record is None or (not answer.proofs and record.order_sha256 != answer.order_sha256):
            # The crash came before the commit point: nothing had been decided. The same bytes
            # may have answered another order since; this one is then judged like any other.
            return False
        if answer.proofs and self._starts_elsewhere(answer.proofs[0]):
            # The aggregator has seen more of the ledger since, or was put back from a backup
            # and knows less: a proof that starts elsewhere says nothing to it.
            answer = answer.model_copy(update={"proofs": ()})
        self._complete(question, answer)
        return True

    def require_new(self, expected: SiteExpected) -> None:
        """Refuse, before it is worked on, what the history or the budget rules out.

        An order that was answered before is no new one: ask ``replay`` first.

        Raises:
            ChangedPlanError: the run was answered under another plan.
            BackwardsError: this round of the run, or a later one, was answered.
            BudgetError: what the site answers over all runs is spent for now.
            ReceiptsDueError: too many answers left without a receipt of the aggregator's.
        """
        self._require_new(expected)

    def release(
        self, question: Question, envelopes: Sequence[Envelope], expected: SiteExpected
    ) -> ReplyCode:
        """Let an answer out, or the number of its refusal.

        Args:
            question: the order that is answered.
            envelopes: the answer; all of them leave, or none.
            expected: what the gate measures against.

        Returns:
            ``OK``, or the number of the refusal, which has been told.

        Raises:
            StorageError: the ledger could not record; nothing was handed over.
            SilencedError: not even the number of the refusal may leave.
        """
        if self.replay(question):
            return ReplyCode.OK
        try:
            payloads = [encode(envelope) for envelope in envelopes]
            check_answer(payloads, self._with_what_left(expected))
            self._require_new(expected, sum(map(len, payloads)))
        except CairnError as error:
            LOG.error("%s, round %d: %s", expected.run, expected.round, error)  # noqa: TRY400
            code = error.code if isinstance(error, HistoryError) else ReplyCode.REFUSED_AT_DOOR
            self.fail(question.of_parcel, code, expected, error)
            return code
        self._commit(question, payloads, expected)
        return ReplyCode.OK

    def fail(
        self,
        question: Question,
        code: ReplyCode,
        expected: SiteExpected,
        refusal: CairnError | None = None,
    ) -> None:
        """Record that an order was refused or failed, and let its number out.

        Args:
            question: the order that is answered.
            code: the number.
            expected: names run, round and plan; the report passes the same gate.
            refusal: of the gate or the policy, whose texts describe and never quote.
                None for everything else: its text may hold a path or a name.

        Raises:
            SilencedError: not even the number may leave. The refusal is recorded.
            StorageError: the ledger could not record; nothing was handed over.
        """
        if self.replay(question):
            return
        self._archive_what_was_asked(question, expected)
        self._count(
            self._ledger.append(
                "REFUSE",
                run=expected.run,
                round=expected.round,
                code=int(code),
                detail=None if refusal is None else RefusalDetail.of(refusal),
                app_sha256=self._app_sha256,
                **order_fields(question, expected),
            ).record
        )
        report = RoundReport(**expected.origin, code=code)
        payload = encode(Envelope(report, {}))
        try:
            check_answer([payload], self._with_what_left(expected))
        except RefusedError as error:
            raise SilencedError(
                "not even a failure's number may leave",
                field=error.field,
                expected=error.expected,
                got=error.got,
                advice="The refusal stands in the ledger",
            ) from error
        self._commit(question, [payload], expected)

    def is_stopped(self, run: str) -> bool:
        """Tell whether the ledger has recorded that a run is over for good."""
        return run in self._history.stopped

    def record_stop(self, run: str, note: bytes) -> None:
        """Record, once, that the aggregator stopped a run; its signed note goes to the archive.

        Raises:
            StorageError: the ledger could not record.
        """
        if self.is_stopped(run):
            return
        digest = self._ledger.spool(note)
        stop = self._ledger.append("STOP", run=run, payload_sha256=digest, bytes=len(note))
        self._count(stop.record)

    def heed(self, record: LedgerRecord) -> None:
        """Count a record that a person's word brought into the ledger while the door was open."""
        self._count(record)

    def refuse_arrival(self, error: CairnError) -> None:
        """Record something that names no run: there is nobody to whom its number could be told.

        Args:
            error: why; what it expected and found are words of this release, and describe.

        Raises:
            StorageError: the ledger could not record.
        """
        self._ledger.append(
            "REFUSE",
            code=int(ReplyCode.BAD_ORDER),
            detail=RefusalDetail.of(error),
            app_sha256=self._app_sha256,
        )

    def _starts_elsewhere(self, proof: str) -> bool:
        """Tell whether a kept proof links to another checkpoint than the newest, or than shown.

        Also where it shows another gap, or none: it was made before a restore.
        """
        kept = Proof.from_bytes(proof.encode("utf-8"))
        gap, since = self._ledger.gap_after(kept.since), kept.since
        if (None if gap is None else gap.seq) != (None if kept.gap is None else kept.gap.seq):
            return True
        return since != self._ledger.shown_size or since < self._ledger.witnessed_size

    def _with_what_left(self, expected: SiteExpected) -> SiteExpected:
        return replace(
            expected,
            round_bytes=self._round_bytes[expected.run, expected.round],
            run_bytes=self._run_bytes[expected.run],
        )

    def _require_new(self, expected: SiteExpected, size: int = 1) -> None:
        """As ``require_new``, for an answer of so many bytes."""
        run, phase, budget = expected.run, expected.phase, expected.policy.budget
        self._history.require_new(run, expected.round, expected.plan.fingerprint)
        self._history.require_budget(budget, run, phase, self._clock(), size=size)
        due = expected.policy.receipts.due_within
        self._history.require_receipts(due, self._ledger.witnessed_size)

    def _archive_what_was_asked(self, question: Question, expected: SiteExpected) -> None:
        """Keep order, plan and policy under the digests that records are about to name."""
        question.require_own_bytes()
        if question.order:
            self._ledger.spool(question.order)
        self._ledger.spool(expected.plan.canonical())
        self._ledger.spool(expected.policy.canonical())

    def _commit(
        self, question: Question, payloads: Sequence[bytes], expected: SiteExpected
    ) -> None:
        """Archive and note the intent of what the gate has passed; then record and hand over."""
        self._archive_what_was_asked(question, expected)
        spooled = tuple(self._ledger.spool(payload) for payload in payloads)
        answer = Intent.to_send(spooled, order_fields(question, expected))
        self._write(question, answer)
        self._complete(question, answer)

    def _complete(self, question: Question, answer: Intent) -> None:
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
        self, answer: Intent, payloads: Sequence[bytes], envelopes: Sequence[Envelope]
    ) -> Intent:
        """One SEND record for every payload that has none, and the proofs of all."""
        places: list[int] = []
        for digest, payload, envelope in zip(answer.payloads, payloads, envelopes, strict=True):
            record = self._ledger.find(digest)
            # The same number may answer two orders of a round; each has its own record.
            if record is None or record.order_sha256 != answer.order_sha256:
                record = self._append(digest, payload, envelope, answer.order_fields)
            places.append(record.seq)
        since = self._ledger.shown_size
        proofs = (self._ledger.proof(seq, since).to_bytes().decode("utf-8") for seq in places)
        return answer.model_copy(update={"proofs": tuple(proofs)})

    def _append(
        self, digest: str, payload: bytes, envelope: Envelope, words: OrderFields
    ) -> LedgerRecord:
        record = envelope.record
        arrays = tuple(
            ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
            for a in describe_arrays(envelope.arrays)
        )
        sent = self._ledger.append(
            "SEND",
            run=record.run,
            round=record.round,
            record_type=record.record_type,
            payload_sha256=digest,
            bytes=len(payload),
            arrays=arrays,
            code=_failure(record),
            app_sha256=self._app_sha256,
            **words,
        ).record
        self._count(sent)
        return sent

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
        """Keep the sums that the caps need, and what was answered."""
        self._history.count(record)
        if record.event != "SEND" or record.run is None or record.round is None:
            return
        self._round_bytes[record.run, record.round] += record.bytes or 0
        self._run_bytes[record.run] += record.bytes or 0

    def _answer_path(self, question: Question) -> Path:
        return self._answers / f"{question.name}.json"

    def _write(self, question: Question, answer: Intent) -> None:
        data = canonical_json(answer.model_dump(mode="json"))
        write_atomically(self._answer_path(question), data)


def _failure(record: Record) -> int | None:
    """Return the number of a failure, so that its report is not taken for an answer."""
    if isinstance(record, RoundReport) and record.code is not ReplyCode.OK:
        return int(record.code)
    return None

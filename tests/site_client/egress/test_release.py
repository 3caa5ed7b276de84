"""Nothing unrecorded leaves, nothing leaves twice in two versions, a crash changes nothing."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.errors import InternalError, RefusedError, VerificationError
from common.ledger.log import Ledger
from common.ledger.notes import Checkpoint, ledger_origin, parse_note, sign_checkpoint
from common.ledger.proof import Proof, cosign, verify_proof
from common.ledger.verify import verify_ledger
from common.policy import Budget
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from site_client.egress import release
from site_client.egress.history import BackwardsError, BudgetError, ChangedPlanError
from site_client.egress.release import Door, Question
from site_client.spool import Spool

ORIGIN = ledger_origin("north")
ORDER, SIGNATURE = b'{"message":"Order"}', bytes(range(64))
QUESTION = Question(sha256_hex(ORDER), "2" * 64, ORDER, SIGNATURE)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Site:
    """A site's ledger, spool and door, which can be closed and opened like after a crash."""

    def __init__(self, root):
        self.root = root
        self.key = SigningKey.from_seed(bytes(32))
        self.witness = SigningKey.from_seed(bytes(31) + b"w")
        self.spool = Spool(root / "spool")
        self.ledger = None
        self.restart()

    def restart(self):
        if self.ledger is not None:
            self.ledger.close()
        self.ledger = Ledger.open(self.root / "ledger", ORIGIN, self.key, lambda: NOW)
        self.door = Door(
            self.ledger, self.root / "answers", self.spool, "a" * 64, clock=lambda: NOW
        )

    def events(self):
        return [record.event for record in self.ledger.records()]

    def reply(self, question=QUESTION):
        data = self.spool.read_reply(question.parcel_sha256)
        return None if data is None else parcel.unwrap(data)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.ledger.close()


def break_at(monkeypatch, name):
    def crash(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(release, name, crash)


def test_what_leaves_is_recorded_proven_and_one_parcel(site, answer):
    assert site.door.release(QUESTION, answer.envelopes(), answer.context) is ReplyCode.OK
    assert site.events() == ["GENESIS", "SEND", "SEND", "SEND"]
    reply = site.reply()
    assert sorted(reply) == sorted(
        f"{kind}.{part}"
        for kind in ("ModelUpdate", "SketchTable", "RoundReport")
        for part in ("envelope", "proof")
    )
    for kind in ("ModelUpdate", "SketchTable", "RoundReport"):
        payload = reply[f"{kind}.envelope"]
        proof = Proof.from_bytes(reply[f"{kind}.proof"])
        verified = verify_proof(proof, sha256_hex(payload), ORIGIN, site.key.public, None)
        record = verified.record
        assert verified.checkpoint.size == 4
        assert (record.record_type, record.bytes) == (kind, len(payload))
        assert record.policy_sha256 == answer.context.policy.sha256
        assert record.app_sha256 == "a" * 64
        assert len(record.arrays) == len(decode(payload).arrays)


def test_proofs_continue_from_the_last_receipt(site, answer):
    note = cosign(site.ledger.checkpoint, site.witness, datetime(2026, 1, 2, tzinfo=UTC))
    assert site.ledger.add_receipt(note, site.witness.public)
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    proof = Proof.from_bytes(site.reply()["ModelUpdate.proof"])
    assert proof.since == 1


def test_an_answer_from_before_a_restore_is_proved_anew_with_the_gap(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    longer = sign_checkpoint(Checkpoint(ORIGIN, 9, b"\1" * 32), site.key)
    lost = cosign(longer, site.witness, NOW)
    site.ledger.restore(lost, site.witness.public, "Ada Byron")
    assert not site.ledger.add_receipt(lost, site.witness.public)
    assert site.door.replay(QUESTION)
    proof = Proof.from_bytes(site.reply()["ModelUpdate.proof"])
    last = parse_note(lost).checkpoint
    payload = sha256_hex(site.reply()["ModelUpdate.envelope"])
    site_key, witness = site.key.public, site.witness.public
    verified = verify_proof(proof, payload, ORIGIN, site_key, last, witness)
    assert verified.restored is not None
    assert verified.restored.seq == 4
    assert site.events() == ["GENESIS", "SEND", "SEND", "SEND", "RESTORE"]


def test_one_refused_envelope_holds_the_whole_answer_back(site, answer):
    answer.weights["fc.bias"][1] = 2**31 - 1
    code = site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert code is ReplyCode.REFUSED_AT_DOOR
    assert site.events() == ["GENESIS", "REFUSE", "SEND"]
    refusal = list(site.ledger.records())[1]
    assert refusal.code == ReplyCode.REFUSED_AT_DOOR
    assert refusal.detail.field == "weights"
    reply = site.reply()
    assert set(reply) == {"RoundReport.envelope", "RoundReport.proof"}
    report = decode(reply["RoundReport.envelope"]).record
    assert report.code is ReplyCode.REFUSED_AT_DOOR
    assert (report.images, report.errors, report.weights_sha256) == (0, (), None)


def test_what_the_gate_refused_is_judged_anew_when_the_order_comes_in_another_parcel(site, answer):
    spoilt, answer.weights["fc.bias"][1] = answer.weights["fc.bias"][1], 2**31 - 1
    refused = site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert refused is ReplyCode.REFUSED_AT_DOOR
    assert site.door.replay(QUESTION.of_parcel), "the same parcel is quoted its refusal"
    answer.weights["fc.bias"][1] = spoilt
    resumed = Question(QUESTION.order_sha256, "3" * 64)
    assert not site.door.replay(resumed)
    assert site.door.release(resumed, answer.envelopes(), answer.context) is ReplyCode.OK
    assert site.events() == ["GENESIS", "REFUSE", "SEND", "SEND", "SEND", "SEND"]
    assert "ModelUpdate.envelope" in site.reply(resumed)


def test_an_order_that_was_answered_gets_the_same_bytes_and_no_new_record(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    first, events = site.spool.read_reply(QUESTION.parcel_sha256), site.events()
    site.spool.finish_reply(QUESTION.parcel_sha256)
    site.restart()
    answer.weights["fc.bias"][0] = 3  # whatever the worker would say now
    assert site.door.release(QUESTION, answer.envelopes(), answer.context) is ReplyCode.OK
    again = Question(QUESTION.order_sha256, "3" * 64)
    assert site.door.replay(again)
    assert site.spool.read_reply(QUESTION.parcel_sha256) == first
    assert site.spool.read_reply(again.parcel_sha256) == first
    assert site.events() == events


def test_an_answer_is_the_same_bytes_also_after_the_ledger_has_grown(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    first = site.spool.read_reply(QUESTION.parcel_sha256)
    other = Question("4" * 64, "5" * 64)
    site.door.fail(other, ReplyCode.BEHIND, answer.context)
    again = Question(QUESTION.order_sha256, "3" * 64)
    assert site.door.replay(again)
    assert site.spool.read_reply(again.parcel_sha256) == first


def test_a_second_different_update_for_a_round_is_refused_with_a_number(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    answer.weights["fc.bias"][0] = 3
    second = Question("4" * 64, "5" * 64)
    with pytest.raises(BackwardsError, match="answered before"):
        site.door.require_new(answer.context)
    code = site.door.release(second, answer.envelopes(), answer.context)
    assert code is ReplyCode.BACKWARDS
    assert set(site.reply(second)) == {"RoundReport.envelope", "RoundReport.proof"}
    updates = [r for r in site.ledger.records() if r.record_type == "ModelUpdate"]
    assert len(updates) == 1


def test_after_a_crash_between_ledger_and_outbox_the_same_reply_is_rebuilt(
    site, answer, monkeypatch
):
    break_at(monkeypatch, "put_reply")
    with pytest.raises(KeyboardInterrupt):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert site.reply() is None
    recorded = [r.payload_sha256 for r in site.ledger.records() if r.event == "SEND"]
    monkeypatch.undo()
    site.restart()
    assert site.door.replay(QUESTION)
    reply = site.reply()
    kinds = ("ModelUpdate", "SketchTable", "RoundReport")
    assert [sha256_hex(reply[f"{kind}.envelope"]) for kind in kinds] == recorded
    assert len(site.events()) == 4


def test_a_crash_between_two_records_of_an_answer_is_completed(site, answer, monkeypatch):
    append, calls = site.ledger.append, []

    def crash_at_the_second(event, **fields):
        calls.append(event)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return append(event, **fields)

    monkeypatch.setattr(site.ledger, "append", crash_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert site.reply() is None
    site.restart()
    assert site.events() == ["GENESIS", "SEND"]
    assert site.door.replay(QUESTION)
    assert site.events() == ["GENESIS", "SEND", "SEND", "SEND"]
    assert len(site.reply()) == 6


def test_a_crash_before_the_first_record_leaves_the_order_unanswered(site, answer, monkeypatch):
    monkeypatch.setattr(site.ledger, "append", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    site.restart()
    assert not site.door.replay(QUESTION)
    assert site.events() == ["GENESIS"]
    assert site.door.release(QUESTION, answer.envelopes(), answer.context) is ReplyCode.OK


def test_an_exception_in_a_rule_lets_nothing_out(site, answer, monkeypatch):
    def run_out(*_):
        raise MemoryError

    monkeypatch.setattr(release, "check_answer", run_out)
    with pytest.raises(MemoryError):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert site.reply() is None
    assert site.events() == ["GENESIS"]


def test_when_not_even_a_number_may_leave_the_refusal_is_recorded_all_the_same(site, build):
    answer = build(policy={"records": {"allowed": ["ModelUpdate"]}})
    with pytest.raises(RefusedError):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert site.events() == ["GENESIS", "REFUSE"]
    assert site.reply() is None


def test_the_caps_count_what_left_before_a_restart(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    left = sum(r.bytes for r in site.ledger.records() if r.event == "SEND")
    site.restart()
    bytes_ = answer.context.policy.bytes.model_copy(update={"per_round": left + 100})
    tight = answer.within(policy=answer.context.policy.model_copy(update={"bytes": bytes_}))
    with pytest.raises(RefusedError, match="round must be at most"):
        site.door.fail(Question("6" * 64, "7" * 64), ReplyCode.INTERNAL, tight)


def test_a_failure_is_recorded_without_the_text_of_its_cause(site, answer):
    site.door.fail(QUESTION, ReplyCode.BAD_DATA, answer.context)
    refusal = list(site.ledger.records())[1]
    assert (refusal.event, refusal.code, refusal.detail) == ("REFUSE", ReplyCode.BAD_DATA, None)
    assert decode(site.reply()["RoundReport.envelope"]).record.code is ReplyCode.BAD_DATA


def test_a_payload_that_was_altered_in_the_archive_is_not_sent_again(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    digest = list(site.ledger.records())[1].payload_sha256
    path = next(site.root.glob(f"ledger/**/{digest}"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    site.spool.finish_reply(QUESTION.parcel_sha256)
    with pytest.raises(VerificationError, match="altered"):
        site.door.replay(QUESTION)
    assert site.reply() is None


def test_a_damaged_note_of_intent_is_an_error_and_not_a_new_answer(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    (note,) = (site.root / "answers").iterdir()
    note.write_bytes(b"{}")
    with pytest.raises(VerificationError, match="note of intent"):
        site.door.replay(QUESTION)


# What was asked.


def test_every_record_about_an_order_names_it_and_its_bytes_and_plan_lie_in_the_archive(
    site, answer
):
    failed = replace(QUESTION, parcel_sha256="3" * 64)
    site.door.fail(failed.of_parcel, ReplyCode.BEHIND, answer.context)
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    records = list(site.ledger.records())[1:]
    assert [record.event for record in records] == ["REFUSE", "SEND", "SEND", "SEND", "SEND"]
    for record in records:
        assert record.phase == "train"
        assert record.order_sha256 == sha256_hex(ORDER)
        assert record.order_signature == SIGNATURE.hex()
        assert record.plan_fingerprint == answer.context.plan.fingerprint
    assert [record.code for record in records] == [14, 14, None, None, None]
    assert site.ledger.payload(sha256_hex(ORDER)) == ORDER
    plan = answer.context.plan
    assert site.ledger.payload(plan.fingerprint) == plan.canonical()
    verdict = verify_ledger(site.root / "ledger", site.key.public, site.witness.public)
    assert verdict.intact
    assert verdict.warnings == (), "what was asked is no stray payload"


@pytest.mark.parametrize("what", ["order", "plan", "policy"])
def test_an_audit_notices_that_what_was_asked_was_altered_in_the_archive(site, answer, what):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    digest = {
        "order": sha256_hex(ORDER),
        "plan": answer.context.plan.fingerprint,
        "policy": answer.context.policy.sha256,
    }[what]
    path = next(site.root.glob(f"ledger/**/{digest}"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b" ")
    verdict = verify_ledger(site.root / "ledger", site.key.public, None)
    assert f"the {what} that it names was altered: {digest[:16]}" in str(verdict.broken)


def test_nothing_is_recorded_about_an_order_whose_bytes_are_anothers(site, answer):
    forged = replace(QUESTION, order=b"another order")
    with pytest.raises(InternalError, match="order's bytes"):
        site.door.release(forged, answer.envelopes(), answer.context)
    assert site.events() == ["GENESIS"]
    assert site.ledger.payload(sha256_hex(b"another order")) is None


def test_what_a_crash_cut_short_is_completed_with_the_words_of_the_order(site, answer, monkeypatch):
    append, calls = site.ledger.append, []

    def crash_at_the_second(event, **fields):
        calls.append(event)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return append(event, **fields)

    monkeypatch.setattr(site.ledger, "append", crash_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    site.restart()
    # Whoever repeats the order need not bring its bytes again.
    assert site.door.replay(Question(QUESTION.order_sha256, "9" * 64))
    words = {
        (r.phase, r.order_sha256, r.order_signature, r.plan_fingerprint, r.policy_sha256)
        for r in site.ledger.records()
        if r.event == "SEND"
    }
    assert len(words) == 1
    assert len(site.events()) == 4


def test_a_signature_that_is_none_does_not_stand_in_the_ledger(site, answer):
    site.door.fail(replace(QUESTION, signature=b"short"), ReplyCode.BAD_ORDER, answer.context)
    assert {r.order_signature for r in site.ledger.records()} == {None}


def test_the_same_number_for_two_orders_of_a_round_is_recorded_for_each(site, answer):
    other = Question(sha256_hex(b"other"), "4" * 64, b"other", SIGNATURE)
    for question in (QUESTION, other):
        site.door.fail(question.of_parcel, ReplyCode.BEHIND, answer.context)
    sends = [record for record in site.ledger.records() if record.event == "SEND"]
    assert [record.order_sha256 for record in sends] == [QUESTION.order_sha256, other.order_sha256]
    assert len({record.payload_sha256 for record in sends}) == 1


def test_a_plan_that_waits_is_answered_once_however_often_it_is_asked(site, answer):
    first = QUESTION.while_waiting
    site.door.fail(first, ReplyCode.PLAN_WAITS, answer.context)
    events = site.events()
    note = cosign(site.ledger.checkpoint, site.witness, NOW)
    site.ledger.add_receipt(note, site.witness.public)
    for number in range(3):
        again = replace(QUESTION, parcel_sha256=f"{number}" * 64)
        assert not site.door.replay(again), "the order itself is still open"
        assert not site.door.replay(again.of_parcel)
        site.door.fail(again.while_waiting, ReplyCode.PLAN_WAITS, answer.context)
        proof = Proof.from_bytes(site.reply(again)["RoundReport.proof"])
        assert proof.since == 3, "it continues from what the aggregator has seen"
    assert site.events() == [*events, "RECEIPT"]
    assert site.door.release(QUESTION, answer.envelopes(), answer.context) is ReplyCode.OK
    assert "ModelUpdate.envelope" in site.reply()


# What was answered before, and how much.


def test_a_restarted_site_still_knows_what_it_answered(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    site.restart()
    for round_ in (1, 3):
        with pytest.raises(BackwardsError):
            site.door.require_new(answer.within(round=round_))
    site.door.require_new(answer.within(round=4))


def test_a_round_that_failed_may_be_asked_again_and_is_answered_once(site, answer):
    for number, code in enumerate((ReplyCode.BEHIND, ReplyCode.FORGED_SUM, ReplyCode.INTERNAL)):
        order = b"order %d" % number
        failed = Question(sha256_hex(order), f"{number}" * 64, order)
        site.door.fail(failed.of_parcel, code, answer.context)
        site.restart()
        site.door.require_new(answer.context)
    assert site.door.release(QUESTION, answer.envelopes(), answer.context) is ReplyCode.OK
    with pytest.raises(BackwardsError):
        site.door.require_new(answer.context)


def test_a_run_does_not_change_its_plan(site, answer, build):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    changed = build(plan={"seed": 8}, round=4)
    with pytest.raises(ChangedPlanError):
        site.door.require_new(changed.context)
    site.door.require_new(replace(changed.context, run="run-2"))


def test_a_budget_that_is_spent_refuses_before_work_and_at_the_door_with_its_number(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    policy = answer.context.policy.model_copy(update={"budget": Budget(rounds=1)})
    later = answer.within(run="run-2", round=1, policy=policy)
    with pytest.raises(BudgetError, match=r"budget\.rounds must be at most 1 in 30 d") as caught:
        site.door.require_new(later)
    error = caught.value
    question = Question("6" * 64, "7" * 64)
    site.door.fail(question.of_parcel, error.code, later, error)
    refusal = list(site.ledger.records())[-2]
    assert (refusal.event, refusal.code) == ("REFUSE", ReplyCode.BUDGET_SPENT)
    assert refusal.detail.got == "1; room from 2026-02-01T00:00:00Z on"
    assert decode(site.reply(question)["RoundReport.envelope"]).record.code == 18


def test_an_answer_larger_than_what_is_left_of_the_bytes_does_not_leave(site, answer):
    policy = answer.context.policy.model_copy(update={"budget": Budget(bytes=1000)})
    tight = answer.within(policy=policy)
    site.door.require_new(tight)
    code = site.door.release(QUESTION, answer.envelopes(), tight)
    assert code is ReplyCode.BUDGET_SPENT
    assert site.events() == ["GENESIS", "REFUSE", "SEND"]
    assert set(site.reply()) == {"RoundReport.envelope", "RoundReport.proof"}


def test_an_intent_that_never_left_is_judged_anew_when_another_order_was_answered(
    site, answer, monkeypatch
):
    monkeypatch.setattr(site.ledger, "append", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.door.release(QUESTION, answer.envelopes(), answer.context)
    monkeypatch.undo()
    site.restart()
    other = Question(sha256_hex(b"other"), "4" * 64, b"other", SIGNATURE)
    assert site.door.release(other, answer.envelopes(), answer.context) is ReplyCode.OK
    assert not site.door.replay(QUESTION), "the same bytes, but another order's"
    with pytest.raises(BackwardsError):
        site.door.require_new(answer.context)

"""Nothing unrecorded leaves, nothing leaves twice in two versions, a crash changes nothing."""

from datetime import UTC, datetime

import numpy as np
import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.errors import RefusedError, VerificationError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.proof import Proof, cosign, verify_proof
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from site_client.egress import release
from site_client.egress.release import Door, Question
from site_client.spool import Spool

ORIGIN = ledger_origin("north")
QUESTION = Question(order_sha256="1" * 64, parcel_sha256="2" * 64)


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
        self.ledger = Ledger.open(
            self.root / "ledger", ORIGIN, self.key, lambda: datetime(2026, 1, 2, tzinfo=UTC)
        )
        self.door = Door(self.ledger, self.root / "answers", self.spool, "a" * 64)

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


def test_one_refused_envelope_holds_the_whole_answer_back(site, answer):
    answer.weights["fc.bias"][1] = np.nan
    code = site.door.release(QUESTION, answer.envelopes(), answer.context)
    assert code is ReplyCode.REFUSED_AT_DOOR
    assert site.events() == ["GENESIS", "REFUSE", "SEND"]
    refusal = list(site.ledger.records())[1]
    assert refusal.code == ReplyCode.REFUSED_AT_DOOR
    assert refusal.detail.field == "weights/fc.bias"
    reply = site.reply()
    assert set(reply) == {"RoundReport.envelope", "RoundReport.proof"}
    report = decode(reply["RoundReport.envelope"]).record
    assert report.code is ReplyCode.REFUSED_AT_DOOR
    assert (report.images, report.errors, report.weights_sha256) == (0, (), None)


def test_what_the_gate_refused_is_judged_anew_when_the_order_comes_in_another_parcel(site, answer):
    spoilt, answer.weights["fc.bias"][1] = answer.weights["fc.bias"][1], np.nan
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
    answer.weights["fc.bias"][0] = 3.0  # whatever the worker would say now
    assert site.door.release(QUESTION, answer.envelopes(), answer.context) is ReplyCode.OK
    again = Question(QUESTION.order_sha256, "3" * 64)
    assert site.door.replay(again)
    assert site.spool.read_reply(QUESTION.parcel_sha256) == first
    assert site.spool.read_reply(again.parcel_sha256) == first
    assert site.events() == events


def test_a_second_different_update_for_a_round_is_refused_with_a_number(site, answer):
    site.door.release(QUESTION, answer.envelopes(), answer.context)
    answer.weights["fc.bias"][0] = 3.0
    second = Question("4" * 64, "5" * 64)
    with pytest.raises(RefusedError, match="second, different one"):
        site.door.require_unanswered(answer.context)
    code = site.door.release(second, answer.envelopes(), answer.context)
    assert code is ReplyCode.REFUSED_AT_DOOR
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

"""Payloads are deleted by rule and by record; what was never released is tidied away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from common.audit.load import audit
from common.crypto.identity import write_public_key
from common.ledger.verdict import Finding
from site_client.egress.retention import Housekeeping, expire_payloads, remove_unreleased
from tests.ledgers import NO_OP, Written, policy_of, report, update


@pytest.fixture
def written(tmp_path):
    policy = policy_of(plans={"approval": "bounded"}, retention={"payload_days": 30})
    written = Written(tmp_path / "ledger", policy=policy)
    written.release([report(NO_OP, 1), update(NO_OP, 1)])
    yield written
    written.ledger.close()


def broken(written):
    """The reason why an auditor would call it broken, or None."""
    written.ledger.close()
    key = written.folder.parent / "site.pub"
    if not key.exists():
        write_public_key(key, written.signing.public)
    return audit(written.folder, key_file=key, witness_file=None).verdict.broken


def test_a_payload_past_its_time_is_recorded_and_then_gone(written):
    ledger = written.ledger
    soon, late = (written.moment + timedelta(days=days) for days in (29, 31))
    assert expire_payloads(ledger, written.policy, soon) == 0
    written.moment = late
    assert expire_payloads(ledger, written.policy, late) == 2
    assert expire_payloads(ledger, written.policy, late) == 0, "once"
    events = [record.event for record in ledger.records()]
    assert events == ["GENESIS", "SEND", "SEND", "EXPIRE", "EXPIRE"]
    digests = [r.payload_sha256 or "" for r in ledger.records() if r.event == "SEND"]
    assert [ledger.payload(digest) for digest in digests] == [None, None]
    assert broken(written) is None


def test_plans_policies_and_orders_are_kept(written):
    late = written.moment = written.moment + timedelta(days=4000)
    expire_payloads(written.ledger, written.policy, late)
    assert len(written.ledger.archived()) == 3


def test_a_policy_that_keeps_for_ever_deletes_nothing(written):
    policy = policy_of(retention={"payload_days": 0})
    assert expire_payloads(written.ledger, policy, written.moment + timedelta(days=4000)) == 0


def test_a_crash_between_record_and_deletion_is_made_good(written, monkeypatch):
    late = written.moment = written.moment + timedelta(days=31)
    monkeypatch.setattr(type(written.ledger), "forget", lambda *_: None)
    expire_payloads(written.ledger, written.policy, late)
    monkeypatch.undo()
    assert len(written.ledger.archived()) == 5
    assert expire_payloads(written.ledger, written.policy, late) == 0
    assert len(written.ledger.archived()) == 3


@pytest.mark.parametrize("days", [1, 29])
def test_a_payload_deleted_before_its_time_breaks_the_ledger_although_recorded(written, days):
    (first, *_) = (r for r in written.ledger.records() if r.event == "SEND")
    written.moment += timedelta(days=days)
    written.ledger.append(
        "EXPIRE",
        payload_sha256=first.payload_sha256,
        bytes=first.bytes,
        policy_sha256=written.policy.sha256,
    )
    written.ledger.forget(first.payload_sha256 or "")
    assert "30 days or more after the last release" in str(broken(written))


def test_what_no_record_names_is_removed_and_an_answer_in_hand_is_not(written, tmp_path):
    answers = tmp_path / "answers"
    answers.mkdir()
    ledger = written.ledger
    first = next(r.payload_sha256 for r in ledger.records() if r.event == "SEND")
    needed, stray, never = (ledger.spool(data) for data in (b"needed", b"stray", b"never"))
    (answers / "in-hand.json").write_text(f'{{"payloads": ["{first}", "{needed}"]}}')
    (answers / "undecided.json").write_text(f'{{"payloads": ["{never}"]}}')
    (answers / "damaged.json").write_text("{")
    (answers / "empty.json").write_text('{"payloads": []}')
    assert remove_unreleased(ledger, answers) == 2
    assert needed in ledger.archived()
    assert not {stray, never} & ledger.archived()


def test_the_house_is_kept_once_a_day(written, tmp_path):
    policy_file = tmp_path / "policy.toml"
    from site_client.egress.policy import default_policy_text

    policy_file.write_text(default_policy_text())
    now = written.moment
    house = Housekeeping(written.ledger, tmp_path / "answers", lambda: now)
    written.ledger.spool(b"one")
    house.turn(policy_file)
    assert len(written.ledger.archived()) == 5
    written.ledger.spool(b"two")
    house.turn(policy_file)
    assert len(written.ledger.archived()) == 6, "not again on this day"
    now += timedelta(days=1)
    house.turn(policy_file)
    assert len(written.ledger.archived()) == 5


def test_an_untouched_ledger_is_called_intact(written):
    assert broken(written) is None
    assert Finding.BROKEN.exit_code == 4

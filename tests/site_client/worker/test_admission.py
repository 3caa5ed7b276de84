"""Beside whom, and for which plans, a site works at all: people of the site have said so before."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import read_signing_key
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.orders import RosterEntry
from site_client.decisions.making import Decision, decide
from site_client.plans.waiting import waiting_plans
from site_client.worker import answering, loop
from site_client.worker.loop import Worker
from tests.aggregated import OTHERS, ledger_key_of
from tests.conftest import loosen
from tests.site_client.worker.asking import UPDATE, ask, ledger_of, refusals, refused, report

PERSON = "Ada Lovelace"


def confirmed(site, *names, key_of=ledger_key_of):
    decisions = [
        Decision.made(
            event="CONFIRM", person=PERSON, peer=name, peer_key=key_of(name).public.fingerprint
        )
        for name in names
    ]
    decide(site.folder, decisions)


def decided(site, event, worker=None):
    """A person decides about the plan; whoever holds the ledger records it."""
    decision = Decision.made(event=event, person=PERSON, plan_fingerprint=site.plan.fingerprint)
    if worker is None:
        decide(site.folder, [decision])
    else:
        decide(site.folder, [decision], sleep=lambda _: worker.turn())


def in_the_next_parcel(site, *order, **changes):
    """The same order once more, with the receipt of what the aggregator has seen since."""
    with Worker(site.folder, threading.Event()) as worker:
        note = worker._ledger.checkpoint
    return site.order(*order, receipt=site.receipt(note), **changes)


def digest_of(data):
    return sha256_hex(parcel.unwrap(data)["order"])


# Beside whom.


@pytest.fixture
def strict(quick):
    """A site whose staff keep to the default: two confirmed others in a run, one in a sum."""
    loosen(quick.folder, least_known="2", least_in_sum="1")
    return quick


@pytest.mark.parametrize("known", [(), ("east",)])
def test_too_few_confirmed_sites_are_refused_with_a_record(strict, worked, known):
    if known:
        confirmed(strict, *known)
    for order in (strict.order(), strict.order(1, "train"), strict.order(5, "evaluate")):
        refusal = refused(strict, order, ReplyCode.UNKNOWN_PEERS, worked, field="roster")
        assert refusal.detail.got == f"{len(known)} of 2"


def test_once_a_person_confirmed_the_others_the_same_order_is_answered(strict, worked):
    order = strict.order()
    refused(strict, order, ReplyCode.UNKNOWN_PEERS, worked)
    confirmed(strict, *OTHERS)
    again = in_the_next_parcel(strict)
    assert digest_of(again) == digest_of(order)
    assert report(ask(strict, again)).code is ReplyCode.OK
    assert UPDATE in ask(strict, strict.order(1, "train"))


def test_a_worker_that_runs_takes_a_confirmation_at_its_next_turn(strict):
    digest = strict.put(strict.order())
    with Worker(strict.folder, threading.Event()) as worker:
        assert worker.turn()
        assert report(strict.reply(digest)).code is ReplyCode.UNKNOWN_PEERS
        decisions = [
            Decision.made(
                event="CONFIRM",
                person=PERSON,
                peer=name,
                peer_key=ledger_key_of(name).public.fingerprint,
            )
            for name in OTHERS
        ]
        decide(strict.folder, decisions, sleep=lambda _: worker.turn())
        digest = strict.put(strict.order(receipt=strict.receipt(worker._ledger.checkpoint)))
        assert worker.turn()
    assert report(strict.reply(digest)).code is ReplyCode.OK


def test_a_confirmed_name_under_another_key_is_refused_however_many_others_are_known(quick, worked):
    """Even where the policy asks for nobody: the name was confirmed, and this is not it."""
    confirmed(quick, "east", "west")
    stranger = ledger_key_of("mallory").public.fingerprint
    roster = [
        entry.model_copy(update={"ledger_key": stranger}) if entry.site == "west" else entry
        for entry in quick.roster
    ]
    order = quick.order(roster=roster)
    refused(quick, order, ReplyCode.UNKNOWN_PEERS, worked, field="roster, west")
    assert report(ask(quick, quick.order())).code is ReplyCode.OK


@pytest.mark.parametrize("own", ["missing", "another key"])
def test_a_run_that_does_not_name_this_site_as_it_is_is_refused(quick, worked, own):
    roster = [entry for entry in quick.roster if entry.site != "north"]
    if own == "another key":
        entry = RosterEntry(site="north", ledger_key=ledger_key_of("mallory").public.fingerprint)
        roster = sorted([*roster, entry], key=lambda e: e.site)
    order = quick.order(roster=roster)
    refusal = refused(quick, order, ReplyCode.UNKNOWN_PEERS, worked, field="roster, north")
    assert refusal.detail.got == ("no such site" if own == "missing" else "another key")


def test_one_site_under_two_names_is_refused(quick, worked):
    key = read_signing_key(quick.folder.ledger_key).public.fingerprint
    roster = sorted([*quick.roster, RosterEntry(site="south", ledger_key=key)], key=str)
    roster = sorted(roster, key=lambda entry: entry.site)
    refused(quick, quick.order(roster=roster), ReplyCode.UNKNOWN_PEERS, worked)


def test_a_sum_of_sites_that_nobody_here_knows_is_refused_and_a_known_ones_taken(quick, worked):
    loosen(quick.folder, least_in_sum="1")
    ask(quick, quick.order(1, "train"))
    order = quick.order(2, "train")
    refused(quick, order, ReplyCode.UNKNOWN_PEERS, worked, field="sum")
    confirmed(quick, "east")
    again = in_the_next_parcel(quick, 2, "train")
    assert digest_of(again) == digest_of(order)
    assert UPDATE in ask(quick, again)


# For which plans.


@pytest.fixture
def asking(quick):
    """A site where a person says yes to every plan; nobody has yet."""
    loosen(quick.folder, approval='"each"')
    return quick


def test_a_plan_that_nobody_approved_waits_and_can_be_read(asking, worked):
    order = asking.order(1, "train")
    refused(asking, order, ReplyCode.PLAN_WAITS, worked, field="plan")
    (waiting,) = waiting_plans(asking.folder)
    assert (waiting.plan, waiting.run) == (asking.plan, "run-1")
    assert waiting.order_sha256 == digest_of(order)
    (note,) = (asking.folder.worker / "plans").iterdir()
    assert note.stem == asking.plan.fingerprint


def test_asked_five_times_a_waiting_plan_has_one_refusal_one_number_and_the_same_bytes(
    asking, worked
):
    order, replies = asking.order(), []
    for _ in range(5):
        digest = asking.put(order)
        with Worker(asking.folder, threading.Event()) as worker:
            assert worker.turn()
        replies.append(asking.spool.read_reply(digest))
        asking.spool.finish_reply(digest)
    assert len(set(replies)) == 1
    assert [record.event for record in ledger_of(asking)] == ["GENESIS", "REFUSE", "SEND"]
    assert worked == []


def test_asked_with_newer_receipts_a_waiting_plan_gives_the_same_envelope_and_no_record(asking):
    said = []
    for _ in range(5):
        order = in_the_next_parcel(asking)
        digest = asking.put(order)
        with Worker(asking.folder, threading.Event()) as worker:
            assert worker.turn()
        said.append(parcel.unwrap(asking.spool.read_reply(digest))["RoundReport.envelope"])
    assert len(set(said)) == 1
    events = [record.event for record in ledger_of(asking) if record.event != "RECEIPT"]
    assert events == ["GENESIS", "REFUSE", "SEND"]


def test_approved_while_the_worker_runs_the_same_order_is_answered(asking):
    order = asking.order()
    with Worker(asking.folder, threading.Event()) as worker:
        digest = asking.put(order)
        assert worker.turn()
        assert report(asking.reply(digest)).code is ReplyCode.PLAN_WAITS
        decided(asking, "APPROVE", worker)
        assert asking.put(order) == digest
        assert worker.turn()
        assert report(asking.reply(digest)).code is ReplyCode.OK
    approval = next(record for record in ledger_of(asking) if record.event == "APPROVE")
    assert (approval.person, approval.plan_fingerprint) == (PERSON, asking.plan.fingerprint)


def test_a_declined_plan_is_refused_until_a_person_thinks_better_of_it(asking, worked):
    decided(asking, "DECLINE")
    refused(asking, asking.order(), ReplyCode.PLAN_DECLINED, worked, field="plan")
    loosen(asking.folder)
    train = asking.order(1, "train")
    refused(asking, train, ReplyCode.PLAN_DECLINED, worked, field="plan")
    decided(asking, "APPROVE")
    again = in_the_next_parcel(asking, 1, "train")
    assert digest_of(again) == digest_of(train)
    assert UPDATE in ask(asking, again)


def test_a_plan_that_is_declined_in_mid_run_trains_no_further_round(asking, worked):
    decided(asking, "APPROVE")
    assert UPDATE in ask(asking, asking.order(1, "train"))
    decided(asking, "DECLINE")
    refused(asking, asking.order(2, "train"), ReplyCode.PLAN_DECLINED, worked)


def test_an_order_that_was_held_overnight_completes(asking, worked, monkeypatch):
    """Asked in the evening, again through the night, approved in the morning."""
    evening = asking.order(1, "train")
    refused(asking, evening, ReplyCode.PLAN_WAITS, worked)
    since = waiting_plans(asking.folder)[0].since

    class Later(datetime):
        hours = 0

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=cls.hours)

    for room in (loop, answering):
        monkeypatch.setattr(room, "datetime", Later)
    for hours in (3, 9, 14):
        Later.hours = hours
        night = in_the_next_parcel(asking, 1, "train")
        assert report(ask(asking, night)).code is ReplyCode.PLAN_WAITS
    assert waiting_plans(asking.folder)[0].since == since
    assert len(refusals(asking)) == 1
    decided(asking, "APPROVE")
    morning = in_the_next_parcel(asking, 1, "train")
    assert digest_of(morning) == digest_of(evening)
    reply = ask(asking, morning)
    assert UPDATE in reply
    sent = [r for r in ledger_of(asking) if r.event == "SEND" and r.record_type == UPDATE]
    assert sent[0].order_sha256 == digest_of(evening)
    assert sent[0].ts > since


def test_approval_lifts_no_bound(asking, worked):
    asking.plan = asking.with_plan(kind="no-op", task={"landmarks": ["A", "B"], "roi": 129})
    decided(asking, "APPROVE")
    refused(asking, asking.order(), ReplyCode.REFUSED_BY_POLICY, worked, field="task.roi")

"""Whole runs: what the coordinator gets when sites are well, and when one is not."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

from aggregator.rounds.events import RoundFinished, SiteLate, SiteRejected, SiteReplied
from aggregator.rounds.queue import LOCK_S
from common.canonical import sha256_hex
from common.crypto.identity import SigningKey, read_public_key, write_signing_key
from common.crypto.keyed import FederationKey
from common.ledger.verify import verify_ledger
from common.model import initial_weights, weights_digest
from common.sums.fixed_point import to_fixed_point
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode, encode
from common.wire.parcel import unwrap, wrap
from common.wire.records import SketchTable
from site_client.restoring import read_lost
from site_client.worker.loop import Worker
from site_client.worker.noop import NoOpStudy


def rejected(federation, store) -> dict[str, str]:
    events = federation.events(store)
    return {e.site: e.reason for e in events if isinstance(e, SiteRejected)}


def test_three_sites_complete_a_run_and_their_sketches_add_up(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    finished = three.conduct(store, transport)
    assert (finished.verdict, finished.reason, finished.exit_code) == ("COMPLETED", "", 0)
    assert finished.rounds == 2
    assert finished.model_sha256 == weights_digest(initial_weights(no_op_plan))
    tables = [
        decode(part)
        for replies in transport.sent.values()
        for reply in replies
        for name, part in unwrap(reply).items()
        if name == "SketchTable.envelope"
    ]
    state = store.load(3)
    expected = sum(np.asarray(envelope.arrays["table"]) for envelope in tables)
    np.testing.assert_array_equal(state.arrays["experience/table"], expected)
    assert state.facts["sketch_total"] == sum(
        e.record.total for e in tables if isinstance(e.record, SketchTable)
    )


def test_every_byte_that_arrived_stands_in_the_senders_ledger(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    three.conduct(store, transport)
    for node, site in transport.sites.items():
        sent = {
            sha256_hex(part)
            for reply in transport.sent[node]
            for name, part in unwrap(reply).items()
            if name.endswith(".envelope")
        }
        verdict = verify_ledger(
            site.ledger,
            read_public_key(site.ledger / "ledger.pub"),
            read_public_key(site.witness_key),
        )
        assert verdict.intact
        assert verdict.totals.events["SEND"] == len(sent) == 1 + 2 * 3 + 1
        assert verdict.receipts >= 3, "each order after the first brings the last one's receipt"


def test_a_site_with_another_federation_key_is_left_out_and_the_others_go_on(
    federation, no_op_plan
):
    federation.add_site("site-a")
    federation.add_site("site-b")
    federation.add_site("site-c", key=FederationKey.generate())
    store = federation.create_run(no_op_plan)
    finished = federation.conduct(store, federation.transport())
    assert finished.verdict == "DEGRADED"
    assert "another key or quantiser" in rejected(federation, store)["site-c"]
    last = [e for e in federation.events(store) if isinstance(e, RoundFinished)][-1]
    assert last.sites == ("site-a", "site-b")


def test_no_majority_for_one_key_ends_the_run(federation, no_op_plan):
    for name in ("site-a", "site-b"):
        federation.add_site(name, key=FederationKey.generate())
    finished = federation.conduct(federation.create_run(no_op_plan), federation.transport())
    assert (finished.verdict, finished.exit_code) == ("FAILED", 3)


def flip_a_weight(reply: bytes) -> bytes:
    parts = unwrap(reply)
    for name in ("ModelUpdate.envelope", "RoundReport.envelope"):
        if name in parts:
            changed = bytearray(parts[name])
            changed[-1] ^= 1
            parts[name] = bytes(changed)
            break
    return wrap(parts)


def test_a_changed_bit_on_the_way_costs_the_site_that_round(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    transport.tamper[101] = lambda reply: (
        flip_a_weight(reply) if "ModelUpdate.envelope" in unwrap(reply) else reply
    )
    finished = three.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert "ledger record is about something else" in rejected(three, store)["site-b"]
    rounds = {e.round: e.sites for e in three.events(store) if isinstance(e, RoundFinished)}
    assert rounds[1] == ("site-a", "site-c")
    assert rounds[3] == ("site-a", "site-b", "site-c"), "the evaluation was not tampered with"


def test_an_old_reply_played_again_is_refused(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    transport.tamper[100] = lambda reply: (
        transport.sent[100][1:2][0] if len(transport.sent[100]) == 3 else reply
    )
    finished = three.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert set(rejected(three, store)) == {"site-a"}


def test_one_site_cannot_speak_for_another(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    transport.tamper[101] = lambda reply: (
        transport.sent[100][-1] if len(transport.sent[101]) == 2 else reply
    )
    three.conduct(store, transport)
    assert "site-b/ledger must be signed with the key" in rejected(three, store)["site-b"]


def nan_released(delta):
    """As a study does that trained until nothing was finite."""
    return to_fixed_point({name: np.full_like(a, np.nan, np.float32) for name, a in delta.items()})


def nan_as_it_is(delta):
    return {name: np.full_like(a, np.nan, np.float32) for name, a in delta.items()}


def far_beyond_the_plan(delta):
    return {name: np.full_like(a, 100 * 2**24) for name, a in delta.items()}


@pytest.mark.parametrize("spoil", [nan_released, nan_as_it_is, far_beyond_the_plan])
def test_an_update_that_ran_away_stops_at_the_door_and_leaves_as_a_number(
    three, no_op_plan, monkeypatch, spoil
):
    honest = NoOpStudy.answer

    def poisoned(study, order):
        envelopes = honest(study, order)
        if study._subject.site == "site-b" and order.header.phase == "train":
            first = envelopes[0]
            envelopes[0] = Envelope(first.record, spoil(first.arrays))
        return envelopes

    monkeypatch.setattr(NoOpStudy, "answer", poisoned)
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    finished = three.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    replies = [e for e in three.events(store) if isinstance(e, SiteReplied) and e.site == "site-b"]
    assert [e.code for e in replies] == [
        ReplyCode.OK,
        ReplyCode.REFUSED_AT_DOOR,
        ReplyCode.REFUSED_AT_DOOR,
        ReplyCode.OK,
    ]
    site = three.sites["site-b"]
    verdict = verify_ledger(site.ledger, read_public_key(site.ledger / "ledger.pub"), None)
    assert verdict.intact
    assert verdict.totals.events["REFUSE"] == 2


def test_an_absent_site_is_late_and_rejoins_in_the_next_round(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    transport.tamper[102] = lambda reply: transport.down.add(102) or reply
    honest_send = transport.send

    def send(parcels, deadline_s):
        honest_send(parcels, deadline_s)
        if 102 not in parcels:
            transport.down.discard(102)
            transport.tamper.pop(102, None)

    transport.send = send
    finished = three.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    late = [(e.round, e.site) for e in three.events(store) if isinstance(e, SiteLate)]
    assert late == [(1, "site-c")]
    rounds = {e.round: e.sites for e in three.events(store) if isinstance(e, RoundFinished)}
    assert rounds[2] == ("site-a", "site-b", "site-c")


def test_a_round_below_its_quorum_fails_and_the_run_can_be_resumed(three, no_op_plan):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    honest_send = transport.send

    def send(parcels, deadline_s):
        honest_send(parcels, deadline_s)
        if len(transport.sent[100]) == 2:
            transport.silent.update({101, 102})

    transport.send = send
    failed = three.conduct(store, transport)
    assert (failed.verdict, failed.exit_code, failed.rounds) == ("FAILED", 5, 1)
    assert "quorum" in failed.reason
    transport.send = honest_send
    transport.silent.clear()
    resumed = three.conduct(store, transport)
    assert resumed.rounds == 2
    assert store.finished_rounds() == [0, 1, 2, 3]


def test_a_run_whose_former_conductor_is_slow_to_notice_waits_for_it(three, no_op_plan):
    store = three.create_run(no_op_plan, min_sites=3)
    held, noticed = threading.Event(), threading.Event()

    def linger() -> None:
        with store.conducting():
            held.set()
            noticed.wait(2 * LOCK_S)

    former = threading.Thread(target=linger)
    former.start()
    held.wait()
    try:
        assert three.conduct(store, three.transport()).verdict == "COMPLETED"
    finally:
        noticed.set()
        former.join()


def test_a_run_that_lost_only_its_end_is_resumed_and_names_its_model(three, no_op_plan):
    store = three.create_run(no_op_plan, min_sites=3)
    finished = three.conduct(store, three.transport())
    lines = store.journal.read_bytes().splitlines(keepends=True)
    assert b"run_finished" in lines[-1]
    store.journal.write_bytes(b"".join(lines[:-1]))
    resumed = three.conduct(store, three.transport())
    assert (resumed.verdict, resumed.model_sha256) == ("COMPLETED", finished.model_sha256)


def test_a_site_that_was_never_admitted_is_not_even_asked(three, no_op_plan):
    three.add_site("site-d", admitted=False)
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    finished = three.conduct(store, transport)
    assert finished.verdict == "COMPLETED"
    assert transport.sent[103] == []


def test_a_checkpoint_signed_by_a_key_that_was_not_admitted_is_rejected(three, no_op_plan):
    site = three.sites["site-b"]
    shutil.rmtree(site.ledger, ignore_errors=True)
    site.ledger_key.unlink()
    write_signing_key(site.ledger_key, SigningKey.generate())
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    finished = three.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert "signature" in rejected(three, store)["site-b"]


def test_a_ledger_set_back_to_an_older_copy_signs_nothing_until_a_person_speaks(three, no_op_plan):
    site = three.sites["site-a"]
    copy = three.root / "copy"
    first = three.create_run(no_op_plan, "run-1", min_sites=3)
    transport = three.transport()
    with Worker(site, threading.Event()):
        shutil.copytree(site.worker, copy)
    three.conduct(first, transport)
    shutil.rmtree(site.worker)
    copy.rename(site.worker)
    second = three.create_run(no_op_plan, "run-2", min_sites=3)
    finished = three.conduct(second, three.transport())
    assert finished.verdict == "DEGRADED"
    lost = read_lost(site)
    assert lost is not None
    assert lost.size > lost.records
    told = [e.code for e in three.events(second) if getattr(e, "site", "") == "site-a"]
    assert set(told) == {ReplyCode.NO_ANSWER}


def test_the_same_seed_gives_the_same_model_and_sketch(tmp_path, federation, no_op_plan):
    for name in ("site-a", "site-b"):
        federation.add_site(name)
    outcomes = []
    for run in ("run-1", "run-2"):
        store = federation.create_run(no_op_plan, run, min_sites=2)
        finished = federation.conduct(store, federation.transport())
        table = store.load(3).arrays["experience/table"]
        outcomes.append((finished.model_sha256, table.tobytes()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("field", ["round", "run"])
def test_an_envelope_moved_to_another_round_or_run_is_refused(three, no_op_plan, field):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()

    def move(reply: bytes) -> bytes:
        parts = unwrap(reply)
        envelope = decode(parts["RoundReport.envelope"])
        other = {"round": envelope.record.round + 1, "run": "another-run"}[field]
        record = envelope.record.model_copy(update={field: other})
        parts["RoundReport.envelope"] = encode(Envelope(record, {}))
        return wrap(parts)

    transport.tamper[100] = move
    three.conduct(store, transport)
    assert set(rejected(three, store)) == {"site-a"}

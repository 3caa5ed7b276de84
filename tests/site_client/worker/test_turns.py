"""One run at a time at a site: whose turn it is, what is left for a later one, what is stopped."""

from __future__ import annotations

import json
import threading

import pytest

from common.crypto.identity import SigningKey
from common.errors import VerificationError
from common.wire.codes import ReplyCode
from common.wire.turn import TurnNote, open_turn, sign_turn
from site_client.worker.loop import Worker
from site_client.worker.noop import NoOpStudy
from site_client.worker.turns import TurnOverError, Turns
from tests.site_client.worker.conftest import code


@pytest.fixture
def site(quick):
    """A site whose plan opens no image."""
    return quick


def turn(site, run: str, number: int, *, stop: bool = False, key: SigningKey | None = None):
    """What lies beside an order."""
    note = TurnNote(run=run, turn=number, stop=stop)
    return {"beside": {"turn": sign_turn(note, key or site.witness)}}


def answers(site, *orders: bytes):
    """What a worker says to orders that wait for it together."""
    digests = [site.put(order) for order in orders]
    with Worker(site.folder, threading.Event()) as worker:
        while worker.turn():
            continue
        events = [record.event for record in worker._ledger.records()]
    return [site.reply(digest) for digest in digests], events


def test_of_two_runs_that_wait_the_one_with_the_later_turn_is_answered(site):
    (first, second), _ = answers(
        site, site.order(run="a", **turn(site, "a", 5)), site.order(run="b", **turn(site, "b", 6))
    )
    assert code(first) is ReplyCode.RUN_OVER
    assert code(second) is ReplyCode.OK


def test_a_turn_is_remembered_and_a_damaged_memory_stops_nobody(site):
    answers(site, site.order(run="b", **turn(site, "b", 6)))
    (late,), _ = answers(site, site.order(run="a", **turn(site, "a", 5)))
    assert code(late) is ReplyCode.RUN_OVER
    (unsaid,), _ = answers(site, site.order(run="c"))
    assert code(unsaid) is ReplyCode.RUN_OVER, "no turn is the earliest turn"
    kept = site.folder.worker / "turn.json"
    assert json.loads(kept.read_bytes()) == {"run": "b", "turn": 6}
    kept.write_bytes(b"{")
    (again,), _ = answers(site, site.order(run="d", **turn(site, "d", 4)))
    assert code(again) is ReplyCode.OK


@pytest.mark.parametrize("forged", ["by another key", "of another run", "bent", "too long"])
def test_a_turn_that_the_aggregator_did_not_sign_for_this_run_counts_for_nothing(site, forged):
    word = {
        "by another key": turn(site, "a", 9, key=SigningKey.generate()),
        "of another run": turn(site, "b", 9),
        "bent": {"beside": {"turn": turn(site, "a", 9)["beside"]["turn"] + b" "}},
        "too long": {"beside": {"turn": bytes(100_000)}},
    }[forged]
    (reply,), _ = answers(site, site.order(run="a", **word))
    assert code(reply) is ReplyCode.BAD_ORDER
    assert not (site.folder.worker / "turn.json").exists()


def test_a_stop_is_recorded_once_and_everything_after_it_is_declined(site):
    order = {"run": "a"}
    stop = site.order(**order, **turn(site, "a", 5, stop=True))
    (stopped,), events = answers(site, stop)
    assert code(stopped) is ReplyCode.RUN_STOPPED
    assert events.count("STOP") == 1
    (again,), _ = answers(site, stop)
    (later,), events = answers(site, site.order(**order, **turn(site, "a", 7)))
    assert [code(reply) for reply in (again, later)] == [
        ReplyCode.RUN_STOPPED,
        ReplyCode.RUN_OVER,
    ]
    assert events.count("STOP") == 1
    (other,), _ = answers(site, site.order(run="b", **turn(site, "b", 8)))
    assert code(other) is ReplyCode.OK


@pytest.mark.parametrize("what", ["a stop", "a later run"])
def test_work_that_nobody_wants_any_more_is_left(site, monkeypatch, what):
    """The order comes while the study is at it; the study tells of its progress."""
    work = site.order(run="a", **turn(site, "a", 5))
    came = {
        "a stop": site.order(run="a", **turn(site, "a", 5, stop=True)),
        "a later run": site.order(run="b", **turn(site, "b", 6)),
    }[what]
    with Worker(site.folder, threading.Event()) as worker:
        honest, done = NoOpStudy.answer, []

        def answer(study, asked):
            if asked.header.run == "a":
                site.put(came)
                worker._answering.turns._next_look = 0.0
                worker._report_progress("training", 1, 100)
                done.append(asked.header.run)
            return honest(study, asked)

        monkeypatch.setattr(NoOpStudy, "answer", answer)
        digest = site.put(work)
        while worker.turn():
            continue
        assert done == [], "what was in hand was left"
        assert site.spool.orders() == []
        left = site.reply(digest)
        if left is not None:
            assert code(left) is ReplyCode.RUN_OVER


def test_turns_are_heard_in_any_order_and_only_the_latest_counts(tmp_path):
    turns = Turns(tmp_path / "turn.json", lambda run: run == "stopped")
    for number in (3, 9, 1, 9, 4):
        turns.hear(TurnNote(run=f"run-{number}", turn=number))
    turns.require(TurnNote(run="run-9", turn=9))
    for note in (TurnNote(run="run-4", turn=4), TurnNote(run="stopped", turn=99)):
        with pytest.raises(TurnOverError):
            turns.require(note)


def test_a_turn_is_read_back_as_it_was_signed_and_in_no_other_form():
    key = SigningKey.generate()
    note = TurnNote(run="run-1", turn=7, stop=True)
    data = sign_turn(note, key)
    assert open_turn(data, "run-1", key.public) == note
    for position in range(len(data)):
        bent = bytearray(data)
        bent[position] ^= 1
        with pytest.raises(VerificationError):
            open_turn(bytes(bent), "run-1", key.public)

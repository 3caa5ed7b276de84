"""Nothing in a worker's inbox ends it, makes it forget a genuine order, or is decoded unsigned.

Whoever can write there, a courier that was taken over at the most, puts what it likes. A
lying aggregator signs what it likes.
"""

from __future__ import annotations

import json
import os
import resource
import threading

import pytest

from common.arrivals.boundary import UnforeseenError
from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.orders import SIGNATURE_CONTEXT
from site_client.keys.keeper import KeyKeeper
from site_client.spool import Spool
from site_client.worker import order as order_module
from site_client.worker.answering import Answering
from site_client.worker.loop import Worker
from tests.attacks.conftest import plan_of

DEEP = b"[" * 985 + b"]" * 985
HALF = b'{"run":"\\ud800"}'
BODIES = {
    "deep": DEEP,
    "deep object": b'{"a":' * 985 + b"1" + b"}" * 985,
    "half a pair": HALF,
    "digits": b'{"round":' + b"9" * 100_000 + b"}",
    "not a number": b'{"round":NaN}',
    "not text": b"\xff\xfe\0\xed\xa0\x80",
    "nothing": b"",
    "large": b" " * (1 << 21),
}


def turns(site) -> None:
    """The worker starts, does all there is to do, and ends by itself."""
    with Worker(site, threading.Event()) as worker:
        while worker.turn():
            continue


def refusals(liar) -> list[dict[str, object]]:
    return [record for record in liar.records() if record["event"] == "REFUSE"]


def ordered(liar, body: bytes, key: SigningKey | None = None) -> bytes:
    signer = liar.witness if key is None else key
    return parcel.wrap({"order": body, "signature": signer.sign(SIGNATURE_CONTEXT + body)})


@pytest.fixture
def undecoded(monkeypatch) -> list[bytes]:
    """What was decoded as an order."""
    seen, honest = [], order_module.decode_order

    def noted(data):
        seen.append(data)
        return honest(data)

    monkeypatch.setattr(order_module, "decode_order", noted)
    return seen


def test_unsigned_rubbish_is_refused_undecoded_and_a_genuine_order_behind_it_is_answered(
    trusting, undecoded
):
    spool, stranger = Spool(trusting.site.spool), SigningKey.generate()
    for body in BODIES.values():
        spool.put_order(ordered(trusting, body, stranger))
        spool.put_order(body)
        spool.put_order(parcel.wrap({"order": body, "signature": b"short"}))
    assert trusting.ask(plan_of()).code is ReplyCode.OK
    assert len(undecoded) <= 2, "the genuine one, looked at and answered"
    assert all(b'"run":"run-1"' in body for body in undecoded)
    assert spool.orders() == []
    assert {record["code"] for record in refusals(trusting)} == {int(ReplyCode.BAD_ORDER)}
    assert len(refusals(trusting)) >= len(BODIES)
    assert all(record["run"] is None for record in refusals(trusting))


@pytest.mark.parametrize("name", BODIES)
def test_an_aggregator_that_signs_rubbish_stops_nobody(trusting, name):
    Spool(trusting.site.spool).put_order(ordered(trusting, BODIES[name]))
    turns(trusting.site)
    assert trusting.ask(plan_of()).code is ReplyCode.OK
    assert len(refusals(trusting)) == 1


def test_what_is_no_file_holds_nobody_up(trusting, tmp_path):
    inbox = Spool(trusting.site.spool).inbox
    inbox.mkdir(parents=True, exist_ok=True)
    os.mkfifo(inbox / f"{'a' * 64}.order")
    (inbox / f"{'b' * 64}.order").mkdir()
    ((inbox / f"{'b' * 64}.order") / "inside").write_text("x")
    secret = tmp_path / "secret"
    secret.write_text("a patient's name")
    (inbox / f"{'c' * 64}.order").symlink_to(secret)
    (inbox / f"{'d' * 64}.order").symlink_to("/dev/zero")
    with (inbox / f"{'e' * 64}.order").open("wb") as file:
        file.truncate(1 << 40)
    (inbox / "\udcff\n.order").write_bytes(b"x")
    os.mkfifo(inbox / "federation-key.news")
    assert trusting.ask(plan_of()).code is ReplyCode.OK
    assert Spool(trusting.site.spool).orders() == []
    assert secret.read_text() == "a patient's name"


def test_what_was_refused_is_put_aside_with_its_reason_and_never_fills_the_disk(trusting):
    spool = Spool(trusting.site.spool)
    rubbish = [b"rubbish %d" % number for number in range(80)]
    for one in rubbish:
        spool.put_order(one)
    turns(trusting.site)
    things = list(trusting.site.quarantine.glob("*.bin"))
    assert len(things) == 64
    note = json.loads(things[0].with_suffix(".json").read_text())
    assert note["culprit"] == "spool/inbox"
    assert note["sha256"] == things[0].stem
    assert note["error"] == "VerificationError"
    assert things[0].read_bytes() in rubbish


def test_four_hundred_megabytes_that_nobody_signed_cost_little_more_than_themselves(trusting):
    spool = Spool(trusting.site.spool)
    spool.prepare()
    body = bytes(400 << 20)
    digest = sha256_hex(body)
    (spool.inbox / f"{digest}.order").write_bytes(body)
    size = len(body) // 1024
    del body
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    turns(trusting.site)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.3 * size
    assert spool.orders() == []


@pytest.mark.parametrize(
    "error", [RecursionError, MemoryError, ZeroDivisionError, UnicodeEncodeError]
)
def test_what_nobody_foresaw_costs_one_order(trusting, monkeypatch, error):
    """An order that makes some line of ours fail, wherever it is; the next is answered."""
    words = ("utf-8", "\ud800", 0, 1, "no") if error is UnicodeEncodeError else ()
    honest, failed = Answering.respond, []

    def fail_once(answering, opened):
        if not failed:
            failed.append(opened)
            raise error(*words)
        return honest(answering, opened)

    monkeypatch.setattr(Answering, "respond", fail_once)
    assert trusting.ask(plan_of(seed=9)).code is None
    assert trusting.ask(plan_of()).code is ReplyCode.OK
    detail = refusals(trusting)[0]["detail"]
    assert str(detail["got"]).startswith(error.__name__), "a code that two people can speak of"


def test_news_of_the_key_that_nobody_foresaw_end_nothing(trusting, monkeypatch):
    def fail(keeper):
        raise RecursionError

    monkeypatch.setattr(KeyKeeper, "turn", fail)
    assert trusting.ask(plan_of()).code is ReplyCode.OK


def test_a_code_is_the_same_for_the_same_place_and_says_nothing_of_what_arrived():
    from common.arrivals.boundary import contained

    def fails(text: str) -> None:
        json.loads(text)

    codes = set()
    for text in ("{a patient's name", "[" * 3):
        with pytest.raises(UnforeseenError) as caught, contained("a test"):
            fails(text)
        codes.add(caught.value.code)
        assert "patient" not in str(caught.value)
    assert len(codes) == 1

"""The courier's loop against a Fleet in memory: what it carries, remembers, and says by itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message

from common.canonical import sha256_hex
from common.errors import RefusedError, UnreachableError, VerificationError
from common.wire.codes import ReplyCode
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD
from site_client.courier import courier as courier_module
from site_client.courier.courier import Courier, run_courier
from site_client.courier.ear import Ear
from site_client.courier.fleet import (
    Incoming,
    RunOverError,
    UnknownKeyError,
    explain,
    message_from_stub,
    message_stub,
)
from site_client.courier.newcomer import Newcomer
from site_client.courier.pace import SLOT_S, Slots
from site_client.files import write_atomically
from site_client.site import SiteSettings
from site_client.spool import Spool
from tests.releases import APP, FirstDoor, a_journal, an_order

ORDER = an_order()


@dataclass
class MemoryFleet:
    """Stands in for the connection; ``inbox`` waits to be pulled, ``pushed`` was sent."""

    inbox: list[Incoming] = field(default_factory=list)
    pushed: list[tuple[RecordDict, Message]] = field(default_factory=list)
    app: str = APP
    error: Exception | None = None
    over: Exception | None = None
    known: list[int | None] = field(default_factory=list)

    def activate(self, known_node_id):
        self.known.append(known_node_id)
        return 77

    def heartbeat(self):
        return True

    def pull(self):
        return self.inbox.pop(0) if self.inbox else None

    def app_digest(self, run_id):
        if self.over is not None:
            raise self.over
        return self.app

    def push(self, content, reply_to):
        if self.error is not None:
            raise self.error
        self.pushed.append((content, reply_to))


def arriving(content: RecordDict, seconds: float) -> Message:
    metadata = Metadata(
        run_id=9,
        message_id="",
        src_node_id=1,
        dst_node_id=77,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=seconds,
        message_type=MESSAGE_TYPE,
    )
    message = make_message(metadata, content)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def incoming(parcel: bytes, seconds: float = 60.0) -> Incoming:
    return Incoming(arriving(RecordDict({}), seconds), 9, time.time() + seconds, parcel)


@pytest.fixture
def fleet() -> MemoryFleet:
    return MemoryFleet()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


@pytest.fixture
def first(tmp_path: Path) -> FirstDoor:
    """The site's ledger, and what its door releases."""
    return FirstDoor(tmp_path / "ledger")


@pytest.fixture
def make(tmp_path: Path, fleet: MemoryFleet, spool: Spool, first: FirstDoor):
    settings = SiteSettings(
        federation="f", site="site-a", address="127.0.0.1:1", data="d", app_sha256=APP
    )

    def build() -> Courier:
        folder = tmp_path / "courier"
        folder.mkdir(exist_ok=True)
        journal = a_journal(folder / "journal.jsonl")
        door = first.second(journal.roots())
        courier = Courier(folder, settings, spool, fleet, door, journal)
        courier.go_online()
        return courier

    return build


def lines(folder: Path) -> list[dict]:
    """The journal's lines."""
    path = folder / "courier" / "journal.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def release(spool: Spool, order: bytes, reply: bytes) -> None:
    write_atomically(spool.reply_path(sha256_hex(order)), reply)


def test_an_order_goes_to_the_inbox_and_the_released_reply_goes_out_byte_for_byte(
    make, fleet, spool, first
):
    courier, order = make(), ORDER
    fleet.inbox.append(incoming(order))
    courier.turn()
    assert spool.read_order(sha256_hex(order)) == order
    assert fleet.pushed == []
    reply = first.reply()
    release(spool, order, reply)
    courier.turn()
    content, reply_to = fleet.pushed[0]
    assert content.array_records[RECORD][PARCEL].numpy().tobytes() == reply
    assert reply_to.metadata.message_id
    assert spool.read_reply(sha256_hex(order)) is None, "taken out of the outbox once it is sent"


@pytest.mark.parametrize("app", [APP, "0" * 64])
def test_the_superlink_forgets_an_order_once_the_worker_has_it_or_nobody_will(
    make, fleet, spool, app
):
    fleet.app = app
    waited: list[bool] = []

    def forget() -> None:
        waited.append(bool(spool.orders()))

    fleet.inbox.append(replace(incoming(ORDER), forget=forget))
    make().turn()
    assert waited == [app == APP]


def test_what_leaves_stands_in_the_journal_before_it_is_pushed(make, fleet, spool, tmp_path, first):
    courier = make()
    fleet.inbox.append(incoming(ORDER))
    courier.turn()
    reply = first.reply()
    release(spool, ORDER, reply)
    pushed, events = fleet.push, []

    def push(content, reply_to):
        events.extend(line["event"] for line in lines(tmp_path))
        pushed(content, reply_to)

    fleet.push = push
    courier.turn()
    assert events[-1] == "RELEASE"
    [line] = [line for line in lines(tmp_path) if line["event"] == "RELEASE"]
    assert (line["sha256"], line["bytes"]) == (sha256_hex(reply), len(reply))
    assert line["order"] == sha256_hex(ORDER)
    assert [part["record_type"] for part in line["parts"]] == ["ModelUpdate", "RoundReport"]
    assert line["size"] == 3


def test_an_order_in_flight_survives_a_crash_of_the_courier(make, fleet, spool, first):
    order = ORDER
    fleet.inbox.append(incoming(order))
    make().turn()
    release(spool, order, first.reply())
    again = make()
    again.turn()
    assert len(fleet.pushed) == 1
    assert fleet.known == [None, 77], "goes on under the node id that it remembers"
    make().turn()
    assert len(fleet.pushed) == 1, "answered once"


def test_without_an_answer_in_time_only_a_number_leaves(make, fleet):
    courier = make()
    fleet.inbox.append(incoming(ORDER, seconds=0.01))
    courier.turn()
    time.sleep(0.02)
    courier.turn()
    content, _ = fleet.pushed[0]
    assert dict(content.config_records[RECORD]) == {CODE: int(ReplyCode.NO_ANSWER)}
    assert not content.array_records


def test_a_run_with_another_app_gets_a_number_and_its_order_is_not_taken_in(make, fleet, spool):
    fleet.app = "b" * 64
    fleet.inbox.append(incoming(ORDER))
    make().turn()
    content, _ = fleet.pushed[0]
    assert dict(content.config_records[RECORD]) == {CODE: int(ReplyCode.UNAPPROVED_APP)}
    assert spool.orders() == []


def test_a_message_that_is_no_parcel_is_answered_by_a_number(make, fleet, spool):
    message = arriving(RecordDict({}), 60.0)
    fault = RefusedError("not an order")
    fleet.inbox.append(Incoming(message, 9, time.time() + 60, fault=fault))
    make().turn()
    assert dict(fleet.pushed[0][0].config_records[RECORD]) == {CODE: int(ReplyCode.BAD_ORDER)}
    assert spool.orders() == []


def test_an_unreachable_aggregator_keeps_the_reply_for_the_next_try(make, fleet, spool, first):
    courier, order = make(), ORDER
    fleet.inbox.append(incoming(order))
    courier.turn()
    release(spool, order, first.reply())
    fleet.error = UnreachableError("down")
    with pytest.raises(UnreachableError):
        courier.turn()
    fleet.error = None
    courier.turn()
    assert len(fleet.pushed) == 1


def test_a_reply_nobody_waits_for_is_dropped_from_the_outbox(make, fleet, spool, first):
    courier, order = make(), ORDER
    fleet.inbox.append(incoming(order))
    courier.turn()
    release(spool, order, first.reply())
    fleet.error = VerificationError("the run is over")
    courier.turn()
    fleet.error = None
    courier.turn()
    assert fleet.pushed == []
    assert list(spool.outbox.iterdir()) == []


def test_an_order_of_a_run_that_is_over_does_not_end_the_courier(make, fleet, spool):
    courier = make()
    fleet.over = RunOverError("the run is no longer running")
    fleet.inbox.append(incoming(ORDER))
    courier.turn()
    assert spool.orders() == []
    fleet.over = None
    fleet.inbox.append(incoming(an_order(b"another order")))
    courier._pace._asked = -1
    courier.turn()
    assert len(spool.orders()) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnknownKeyError),
        (403, RunOverError),
        (412, VerificationError),
        (500, UnreachableError),
        (503, UnreachableError),
    ],
)
def test_an_answer_of_the_aggregator_is_sorted_by_what_helps(status, kind):
    request = httpx.Request("POST", "https://127.0.0.1/v1/fleet/get-run")
    response = httpx.Response(status, request=request)
    error = httpx.HTTPStatusError("", request=request, response=response)
    assert type(explain(error)) is kind


def test_a_stub_holds_no_content_and_can_still_be_answered():
    message = incoming(b"secret" * 100).message
    stub = message_stub(message)
    assert b"secret" not in stub
    back = message_from_stub(stub)
    assert back.metadata.message_id == message.metadata.message_id
    assert back.metadata.run_id == message.metadata.run_id


# A key that the aggregator does not know.


class StrangersFleet(MemoryFleet):
    """Refuses the key so many times, then takes it; after ``revoked`` never again."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals
        self.tries = 0
        self.revoked = False

    def activate(self, known_node_id):
        self.tries += 1
        if self.revoked or self.tries <= self.refusals:
            raise explain(refused_with(401))
        return super().activate(known_node_id)

    def heartbeat(self):
        return not self.revoked

    def close(self):
        pass


class StillEar(Ear):
    """Hears nothing; time passes as ``wait`` has it."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def wait(self, seconds, stop=None):
        self._wait(seconds)
        return False


def refused_with(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://fed/v1/fleet/activate-node")
    answer = httpx.Response(status, request=request)
    return httpx.HTTPStatusError("no", request=request, response=answer)


@pytest.fixture
def run(make_site, monkeypatch, caplog):
    """Runs a joined site's courier against a fleet; time passes only while it waits."""
    folder = make_site(images=1).folder
    now = [100.0]

    def carry(fleet: StrangersFleet, turns: int = 3) -> None:
        """At most so many turns after it came online; ``fleet.lasted`` says for how long."""
        stop, began = threading.Event(), now[0]
        left = [turns]

        def wait(seconds: float) -> None:
            now[0] += seconds
            if fleet.known:
                left[0] -= 1
                if left[0] <= 0:
                    stop.set()

        monkeypatch.setattr(stop, "wait", wait)
        monkeypatch.setattr(courier_module, "Fleet", lambda *_: fleet)
        monkeypatch.setattr(
            courier_module, "Newcomer", lambda path: Newcomer(path, clock=lambda: now[0])
        )
        caplog.clear()
        with caplog.at_level("INFO", "cairn.courier"):
            try:
                run_courier(folder, stop, StillEar(wait))
            finally:
                fleet.lasted = now[0] - began

    return carry


def test_a_site_admitted_a_moment_ago_is_tried_again_and_comes_online(run, caplog):
    fleet = StrangersFleet(refusals=3)
    run(fleet)
    assert fleet.tries == 4
    assert caplog.text.count("does not know this site's key yet") == 1
    assert "online as north" in caplog.text


def test_a_stranger_is_refused_for_good_within_seconds(run, caplog):
    fleet = StrangersFleet(refusals=10**6)
    with pytest.raises(UnknownKeyError, match="not admitted, or was revoked"):
        run(fleet)
    assert 4.0 <= fleet.lasted < 5.0
    assert caplog.text.count("does not know this site's key yet") == 1


def test_a_site_that_was_accepted_once_and_is_revoked_ends_at_once(run, caplog):
    run(StrangersFleet(refusals=0))
    revoked = StrangersFleet(refusals=10**6)
    with pytest.raises(UnknownKeyError):
        run(revoked)
    assert revoked.tries == 1
    assert revoked.lasted == 0
    assert "yet" not in caplog.text


def test_a_site_revoked_while_it_is_online_ends_at_its_next_heartbeat(run, monkeypatch):
    monkeypatch.setattr(courier_module, "BEAT_EVERY_S", 0.0)
    fleet = StrangersFleet(refusals=0)
    honest = fleet.pull

    def pull():
        fleet.revoked = True
        return honest()

    fleet.pull = pull
    with pytest.raises(UnknownKeyError):
        run(fleet, turns=10)
    assert fleet.tries == 2
    assert fleet.lasted < 1.0


def test_an_order_that_comes_again_is_answered_to_the_message_that_came_last(
    make, fleet, spool, first
):
    order = ORDER
    make_first, reply = make(), first.reply()
    fleet.inbox.append(incoming(order, seconds=50))
    make_first.turn()
    courier = make()  # after a stop: the first message is dropped at the aggregator
    again = incoming(order, seconds=40)
    fleet.inbox.append(again)
    courier._pace._asked = -1
    courier.turn()
    release(spool, order, reply)
    courier.turn()
    [(_, answered)] = fleet.pushed
    assert answered is again.message


def test_while_its_worker_has_an_order_a_courier_asks_seldom_and_at_once_when_it_has_answered(
    make, fleet, spool, first, monkeypatch
):
    now = [100.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(courier_module, "time", clocks)
    asked = []
    honest = fleet.pull
    monkeypatch.setattr(fleet, "pull", lambda: (asked.append(now[0]), honest())[1])
    courier = make()
    courier._pace = Slots(clock=lambda: now[0])

    def turns(seconds):
        asked.clear()
        until = now[0] + seconds
        while now[0] < until:
            courier.turn()
            now[0] += SLOT_S
        return len(asked)

    idle = turns(2)
    parcel = ORDER
    fleet.inbox.append(incoming(parcel, seconds=1e6))
    assert turns(10) >= 5, "the order was taken in"
    assert turns(10) == 5, "every eighth slot"
    release(spool, parcel, first.reply())
    assert turns(2) >= idle - 1 > 2, "every slot"
    assert len(fleet.pushed) == 1

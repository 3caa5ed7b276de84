"""What a courier hears makes it ask; who tells wrongly makes it neither spin nor stand still."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from site_client.courier import courier as courier_module
from site_client.courier.courier import Courier
from site_client.courier.ear import DISTRUST_S, IN_VAIN, Ear
from site_client.courier.fleet import BEAT_EVERY_S
from site_client.courier.pace import TOLD_SLOTS, Slots
from site_client.site import SiteSettings
from site_client.spool import Spool
from tests.releases import APP, FirstDoor, a_journal, an_order
from tests.site_client.courier.test_courier import MemoryFleet, incoming, release

ORDER = an_order()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ear(clock) -> Ear:
    return Ear(clock=clock)


def test_a_word_is_heeded_once(ear):
    assert not ear.is_due()
    ear.told()
    ear.told()
    assert ear.is_due()
    assert not ear.is_due()


def test_a_liar_who_tells_all_the_time_is_heeded_once_a_second(ear, clock):
    asked = 0
    for _ in range(100_000):
        ear.told()
        asked += ear.is_due()
        clock.now += 0.001
    assert asked <= IN_VAIN.at_once + 100.0 / IN_VAIN.every_s + 1
    assert asked >= 100, "and he does not stop honest words either"


def test_a_liar_who_tells_all_the_time_wakes_a_sleeper_once_a_word(ear):
    for _ in range(1000):
        ear.told()
    assert ear.wait(0.0)
    for _ in range(1000):
        ear.told()
    assert not ear.wait(0.0), "the word waits already"


def test_words_that_lead_to_orders_are_heeded_without_a_limit(ear):
    for _ in range(1000):
        ear.told()
        assert ear.is_due()
        ear.found(notified=True)


def test_a_desk_that_stands_and_never_tells_is_not_trusted_for_a_while(ear, clock):
    ear.stand(stands=True)
    assert ear.trusts
    ear.found(notified=False)
    assert not ear.trusts
    clock.now += DISTRUST_S
    assert ear.trusts


def test_an_order_found_while_its_word_waits_is_no_lie(ear):
    ear.stand(stands=True)
    ear.told()
    ear.found(notified=False)
    assert ear.trusts


def test_nobody_who_does_not_stand_is_trusted(ear):
    assert not ear.trusts
    ear.stand(stands=True)
    ear.stand(stands=False)
    assert not ear.trusts


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


class CountingFleet(MemoryFleet):
    asked = 0

    def pull(self):
        self.asked += 1
        return super().pull()


@pytest.fixture
def fleet() -> CountingFleet:
    return CountingFleet()


@pytest.fixture
def courier(tmp_path, spool, fleet, clock, monkeypatch) -> Courier:
    """One whose desk tells; time stands still unless a test moves it."""
    monkeypatch.setattr(courier_module, "time", clock)
    settings = SiteSettings(
        federation="f", site="site-a", address="127.0.0.1:1", data="d", app_sha256=APP
    )
    journal = a_journal(tmp_path / "journal.jsonl")
    first = FirstDoor(tmp_path / "ledger")
    ear = Ear(spool.outbox, clock=clock)
    door = first.second(journal.roots())
    made = Courier(tmp_path, settings, spool, fleet, door, journal, Slots(clock), ear)
    made.first = first
    made.go_online()
    return made


def rest(courier: Courier) -> None:
    """As the loop does, without sleeping to a slot."""
    stop = threading.Event()
    stop.wait = lambda _: None  # type: ignore[method-assign, assignment]
    courier.rest(stop)


def test_a_told_courier_takes_an_order_in_without_waiting_for_its_next_question(
    courier, fleet, spool
):
    courier._ear.stand(stands=True)
    courier.turn()
    fleet.inbox.append(incoming(ORDER))
    courier._ear.told()
    rest(courier)
    assert len(spool.orders()) == 1


def test_a_told_courier_asks_by_itself_every_half_minute_and_no_more(courier, fleet, clock):
    courier._ear.stand(stands=True)
    for _ in range(int(10 * TOLD_SLOTS)):
        courier.turn()
        clock.now += 0.25
    assert fleet.asked == 10


def test_a_courier_whose_desk_never_tells_finds_its_order_and_asks_often_from_then_on(
    courier, fleet, clock, spool
):
    courier._ear.stand(stands=True)
    courier.turn()
    fleet.inbox.append(incoming(ORDER, seconds=1e6))
    clock.now += 30.0
    courier.turn()
    assert len(spool.orders()) == 1
    before = fleet.asked
    for _ in range(80):
        clock.now += 0.25
        courier.turn()
    assert fleet.asked - before >= 8


def test_a_lie_costs_a_question_and_a_courier_that_is_lied_to_still_answers(
    courier, fleet, spool, clock
):
    fleet.inbox.append(incoming(ORDER, seconds=1e6))
    courier.turn()
    for _ in range(50):
        courier._ear.told()
        rest(courier)
        clock.now += 0.01
    assert fleet.asked <= IN_VAIN.at_once + 3
    release(spool, ORDER, courier.first.reply())
    rest(courier)
    courier.turn()
    assert len(fleet.pushed) == 1


def test_the_sleep_of_a_told_courier_ends_before_its_heartbeat_is_late(courier, clock):
    courier._ear.stand(stands=True)
    courier.turn()
    assert 0 < courier.until_next <= BEAT_EVERY_S


def test_the_sleep_of_a_courier_that_nobody_tells_is_a_slot(courier):
    courier.turn()
    assert 0 < courier.until_next <= 0.25

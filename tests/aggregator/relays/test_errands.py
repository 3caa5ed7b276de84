"""The errands of a relay: one at a time, and a newer one ends the one that is being done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from aggregator.relays.errands import BUSY_S, LOOK_S, QUIET_S, SOON_S, Errands
from aggregator.relays.relay import Relay
from aggregator.rounds.above import Errand
from common.crypto.identity import SigningKey
from common.errors import CairnError, UnreachableError


class Way:
    """The way up, by a list; ``gone``: answers are not taken."""

    def __init__(self, *errands: bytes) -> None:
        self.waiting = [Errand(SimpleNamespace(number=n), e) for n, e in enumerate(errands)]
        self.answers: list[tuple[int, bytes]] = []
        self.gone = False

    def next(self) -> Errand | None:
        return self.waiting.pop(0) if self.waiting else None

    def answer(self, errand: Errand, parcel: bytes) -> None:
        if self.gone:
            raise UnreachableError("an errand's answer was not taken")
        self.answers.append((errand.message.number, parcel))


class Silent:
    """A relay whose sites answer an errand called ``slow`` only after so many seconds."""

    def __init__(self, now: list[float], seconds: float) -> None:
        self.now, self.seconds, self.wait = now, seconds, None

    def answer(self, errand: bytes) -> bytes:
        until = self.now[0] + (self.seconds if errand == b"slow" else 0)
        try:
            while self.now[0] < until:
                self.wait(0.5)
        except CairnError as error:
            return b"refused: " + error.problem.encode()
        return b"did " + errand


@pytest.fixture
def now() -> list[float]:
    return [100.0]


def errands(way: Way, relay, now: list[float], slept: list[float] | None = None) -> Errands:
    def hear(seconds: float) -> None:
        now[0] += seconds

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if slept is not None:
            slept.append(seconds)

    return Errands(way, relay, clock=lambda: now[0], hear=hear, sleep=sleep)


def test_errands_are_done_one_after_the_other_and_each_is_answered(now):
    way = Way(b"one", b"two")
    doing = errands(way, Silent(now, 0), now)
    assert [doing.turn(), doing.turn(), doing.turn()] == [True, True, False]
    assert way.answers == [(0, b"did one"), (1, b"did two")]


def test_a_newer_errand_ends_the_one_that_is_being_done_which_is_answered_no_more(now):
    way = Way(b"slow", b"stop")
    doing = errands(way, Silent(now, 3600), now)
    began = now[0]
    assert doing.turn()
    assert now[0] - began <= 2 * LOOK_S, "it was noticed within a second or two"
    assert doing.turn()
    assert way.answers == [(1, b"did stop")]


def test_without_a_newer_errand_sites_have_as_long_as_they_take(now):
    way = Way(b"slow")
    doing = errands(way, Silent(now, 300), now)
    assert doing.turn()
    assert way.answers == [(0, b"did slow")]


def test_an_answer_that_nobody_takes_ends_nothing(now, caplog):
    way = Way(b"one", b"two")
    way.gone = True
    doing = errands(way, Silent(now, 0), now)
    assert doing.turn()
    way.gone = False
    assert doing.turn()
    assert way.answers == [(1, b"did two")]
    assert "was not taken" in caplog.text


def test_the_aggregator_is_asked_often_after_an_errand_and_seldom_later(now):
    way, slept = Way(b"one"), []
    doing = errands(way, Silent(now, 0), now, slept)
    while now[0] < 100 + SOON_S + 5:
        doing.turn()
    assert (slept[0], slept[-1]) == (BUSY_S, QUIET_S)
    assert slept == sorted(slept)


def test_what_is_no_errand_is_answered_with_why(now, tmp_path: Path):
    way = Way(b"", b"\x00" * 64)
    relay = Relay("east", SigningKey.generate().public, tmp_path, transport=None)
    doing = errands(way, relay, now)
    assert [doing.turn(), doing.turn()] == [True, True]
    assert [b"refusal" in answer for _, answer in way.answers] == [True, True]

"""Listening at the desk: told at once; and when it is old, gone, silent or a liar, soon polling."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from common.desk import desk_pb2 as pb
from common.errors import InternalError, UnreachableError
from site_client.courier.ear import Ear
from site_client.listening import LONGEST_S, PATIENCE, SILENCE_S, keep_listening, pause


class Call:
    """One call of the desk's: says its words when it begins, and ends as it is told to."""

    def __init__(self, hear, words=(True,), ends=None, silent_s=0.0) -> None:
        self.silent_s = silent_s
        self._ends = ends
        for ask in words:
            hear(pb.OrderWaits(ask=ask))

    def wait(self, seconds: float) -> bool:
        if isinstance(self._ends, Exception):
            raise self._ends
        return bool(self._ends)


class Stop(threading.Event):
    """Set after so many waits; what was waited for is kept."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._after = after

    def wait(self, timeout=None):
        self.waits.append(timeout)
        if len(self.waits) >= self._after:
            self.set()
        return self.is_set()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def listen(ear):
    """Listens so many times to a desk that behaves like ``begin``; the waits in between."""

    def run(begin, times: int = 1) -> list[float]:
        stop = Stop(times)
        keep_listening(contextmanager(begin), ear, stop, np.random.default_rng(1), lambda: 0.0)
        return stop.waits

    return run


def test_a_word_reaches_the_courier_and_trust_ends_with_the_call(listen, ear):
    trusted = []

    def begin(hear) -> Iterator[Call]:
        call = Call(hear, words=(True,), ends=True)
        trusted.append(ear.trusts)
        yield call

    listen(begin)
    assert trusted == [True]
    assert ear.is_due()
    assert not ear.trusts


def test_a_word_that_only_says_hello_asks_for_nothing(listen, ear):
    def begin(hear) -> Iterator[Call]:
        yield Call(hear, words=(False, False), ends=True)

    listen(begin)
    assert not ear.is_due()


def test_a_word_after_the_end_is_not_heard(listen, ear):
    heard = []

    def begin(hear) -> Iterator[Call]:
        heard.append(hear)
        yield Call(hear, words=(), ends=True)

    listen(begin)
    heard[0](pb.OrderWaits(ask=True))
    assert not ear.trusts
    assert not ear.is_due()


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("the aggregator's desk does not answer"),
        InternalError("the desk answered with an error", got="UNIMPLEMENTED"),
        OSError(28, "No space left on device"),
        RuntimeError("nobody foresaw this"),
    ],
)
def test_a_desk_that_fails_is_called_again_ever_later_and_said_once(listen, ear, error, caplog):
    def begin(hear) -> Iterator[Call]:
        raise error
        yield

    waits = listen(begin, times=12)
    assert waits[0] < 2.0
    assert waits[-1] > 200.0
    assert max(waits) <= 1.25 * LONGEST_S
    assert not ear.trusts
    assert sum("so we ask" in record.message for record in caplog.records) == 1
    assert len(waits) > PATIENCE


def test_a_stream_that_breaks_ends_the_trust(listen, ear):
    def begin(hear) -> Iterator[Call]:
        yield Call(hear, ends=UnreachableError("the connection broke"))

    listen(begin)
    assert not ear.trusts


def test_a_desk_that_falls_silent_is_left(listen, ear):
    def begin(hear) -> Iterator[Call]:
        yield Call(hear, silent_s=SILENCE_S + 1)

    assert listen(begin)
    assert not ear.trusts


def test_a_liar_who_ends_every_call_at_once_is_called_ever_later(listen):
    def begin(hear) -> Iterator[Call]:
        yield Call(hear, ends=True)

    waits = listen(begin, times=12)
    assert waits[-1] > 200.0


def test_sites_come_back_at_different_times_and_each_at_its_own():
    def waits(seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        return [pause(n, rng) for n in range(1, 10)]

    assert waits(1) == waits(1)
    assert waits(1) != waits(2)

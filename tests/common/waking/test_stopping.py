"""A stop ends every sleep at once, also where a signal's handler set it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from common.waking import STOP_SIGNALS, Alarm, Stop, stop_on_signals

LONG_S = 20.0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def alarm_clock():
    """Calls something in a signal's handler of this thread, soon."""
    before = signal.getsignal(signal.SIGALRM)

    def set_for(call):
        signal.signal(signal.SIGALRM, lambda *_: call())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    yield set_for
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_handler_ends_the_sleep_that_it_interrupted(alarm_clock):
    stop = Stop()
    alarm_clock(stop.set)
    assert stop.wait(LONG_S)


def test_a_handler_ends_the_sleep_of_an_alarm(alarm_clock, tmp_path):
    stop, began = Stop(), time.monotonic()
    alarm_clock(stop.set)
    with Alarm(tmp_path) as alarm:
        assert not alarm.wait(LONG_S, stop), "nobody rang"
    assert time.monotonic() - began < LONG_S


def test_a_handler_may_run_wherever_the_main_thread_is(alarm_clock):
    """An ordinary event hangs here once in a while: its lock may be held by the same thread."""
    stop, calls = Stop(), 0

    def again():
        nonlocal calls
        calls += 1
        stop.set()

    signal.signal(signal.SIGALRM, lambda *_: again())
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    while calls < 500:
        stop.wait(0.0)
        stop.set()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert stop.is_set()


def test_all_sleepers_are_woken_by_one_word():
    stop, woken = Stop(), []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(LONG_S))) for _ in range(8)]
    for thread in threads:
        thread.start()
    stop.set()
    for thread in threads:
        thread.join(LONG_S)
    assert woken == [True] * 8


def test_one_that_nobody_sets_lets_time_pass():
    stop = Stop()
    assert not stop.wait(0.01)
    with Alarm() as alarm:
        assert not alarm.wait(0.01, stop)
        alarm.ring()
        assert alarm.wait(LONG_S, stop)


def test_a_million_words_hold_up_nobody():
    stop = Stop()
    for _ in range(100_000):
        stop.set()
    assert stop.wait()


def test_no_descriptor_is_left_behind():
    before = descriptors()
    for _ in range(50):
        Stop().set()
    assert descriptors() == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_signals_that_end_a_program_set_it(number):
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    try:
        stop = stop_on_signals()
        os.kill(os.getpid(), number)
        assert stop.wait(LONG_S)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

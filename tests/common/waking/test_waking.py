"""Who sleeps is woken by a rename or a ring; who is never woken looks by time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.waking import POLL_VARIABLE, Alarm, Bucket, Lookout, Rate

LONG_S = 60.0
"""Far longer than any of these tests: what ends sooner was woken."""


def put(folder: Path, name: str = "news") -> None:
    (folder / ".half").write_text("whole")
    (folder / ".half").replace(folder / name)


def test_a_rename_into_a_watched_folder_wakes(tmp_path):
    with Alarm(tmp_path) as alarm:
        assert alarm.watches
        put(tmp_path)
        assert alarm.wait(LONG_S)
        assert not alarm.wait(0.0), "once"


def test_a_file_that_is_still_being_written_wakes_nobody(tmp_path):
    with Alarm(tmp_path) as alarm:
        (tmp_path / ".half").write_text("not yet")
        assert not alarm.wait(0.0)


def test_each_of_several_folders_wakes(tmp_path):
    folders = [tmp_path / "inbox", tmp_path / "decisions"]
    for folder in folders:
        folder.mkdir()
    with Alarm(*folders) as alarm:
        for folder in folders:
            put(folder)
            assert alarm.wait(LONG_S)


def test_a_ring_of_another_thread_wakes_and_twice_is_once():
    with Alarm() as alarm:
        threading.Thread(target=alarm.ring).start()
        assert alarm.wait(LONG_S)
        alarm.ring()
        alarm.ring()
        assert alarm.wait(0.0)
        assert not alarm.wait(0.0)


def test_a_million_rings_hold_up_nobody():
    with Alarm() as alarm:
        for _ in range(100_000):
            alarm.ring()
        assert alarm.wait(0.0)


def test_a_ring_after_the_end_is_no_error(tmp_path):
    alarm = Alarm(tmp_path)
    alarm.close()
    alarm.close()
    alarm.ring()


def test_a_sleeper_that_is_to_stop_stops():
    stop = threading.Event()
    with Alarm() as alarm:
        threading.Timer(0.05, stop.set).start()
        assert not alarm.wait(LONG_S, stop)


def test_a_folder_that_goes_away_is_watched_no_longer(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    with Alarm(folder) as alarm:
        folder.rename(tmp_path / "elsewhere")
        assert alarm.wait(LONG_S), "whoever sleeps looks what has happened"
        assert not alarm.watches


def test_a_folder_that_cannot_be_watched_is_told_apart(tmp_path):
    with Alarm(tmp_path / "nowhere") as alarm:
        assert not alarm.watches
        assert not alarm.wait(0.0)
        alarm.ring()
        assert alarm.wait(0.0), "a ring wakes all the same"


def test_nothing_is_watched_where_everybody_is_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv(POLL_VARIABLE, "1")
    with Alarm(tmp_path) as alarm:
        put(tmp_path)
        assert not alarm.watches
        assert not alarm.wait(0.0)


def test_who_finds_something_untold_looks_often_until_told_again():
    lookout = Lookout(0.1, 2.0, notified=True)
    assert lookout.seconds == 2.0
    lookout.found(notified=False)
    assert lookout.seconds == 0.1
    lookout.found(notified=True)
    assert lookout.seconds == 2.0


def test_who_cannot_be_told_always_looks_often():
    lookout = Lookout(0.1, 2.0, notified=False)
    lookout.found(notified=True)
    assert lookout.seconds == 0.1


@given(st.lists(st.floats(0.0, 5.0), max_size=200), st.integers(1, 20), st.floats(0.1, 10.0))
def test_a_bucket_gives_no_more_than_its_rate(waits, at_once, every_s):
    now, taken = 0.0, 0
    bucket = Bucket(Rate(at_once, every_s), now)
    for wait in waits:
        now += wait
        taken += bucket.take(now)
        assert taken <= at_once + now / every_s + 1e-6


@pytest.mark.parametrize("every_s", [0.5, 3.0])
def test_who_waits_as_long_as_a_bucket_says_gets_a_call(every_s):
    bucket = Bucket(Rate(1, every_s), 0.0)
    assert bucket.wait(0.0) == 0.0
    assert bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(every_s)
    assert bucket.take(bucket.wait(0.0))


def test_a_call_that_was_well_used_comes_back():
    bucket = Bucket(Rate(2, 10.0), 0.0)
    for _ in range(100):
        assert bucket.take(0.0)
        bucket.give_back()
    bucket.give_back()
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]

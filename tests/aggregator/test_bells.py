"""Bells between processes: rung once they are heard, by whoever listens for that name."""

from __future__ import annotations

import threading

import pytest

from aggregator.bells import Bells, make_folder, ring
from common.waking import POLL_VARIABLE

LONG_S = 60.0


@pytest.fixture(params=["told by the kernel", "looking"])
def bells(request, tmp_path, monkeypatch):
    if request.param == "looking":
        monkeypatch.setenv(POLL_VARIABLE, "1")
    hears = Bells(make_folder(tmp_path / "bells" / "orders"))
    hears.start()
    yield hears
    hears.stop()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bells" / "orders"


def test_a_bell_is_heard_by_who_listens_for_its_name_and_by_nobody_else(bells, folder):
    ring(folder, ["site-a"])
    assert bells.wait("site-a", 0, LONG_S) == 1
    assert bells.times("site-b") == 0


def test_a_bell_that_rings_again_is_heard_again(bells, folder):
    for times in range(1, 6):
        ring(folder, ["site-a"])
        assert bells.wait("site-a", times - 1, LONG_S) == times


def test_all_bells_of_one_ring_are_heard(bells, folder):
    ring(folder, ["site-a", "site-b", "site-c"])
    for name in ("site-a", "site-b", "site-c"):
        assert bells.wait(name, 0, LONG_S) == 1


def test_what_rang_before_anybody_listened_is_over(tmp_path):
    ring(tmp_path / "bells", ["site-a"])
    hears = Bells(make_folder(tmp_path / "bells"))
    hears.start()
    assert hears.wait("site-a", 0, 0.0) == 0
    hears.stop()


def test_who_listens_when_nobody_hears_any_longer_goes_on(tmp_path):
    hears = Bells(make_folder(tmp_path / "bells"))
    hears.start()
    threading.Timer(0.05, hears.stop).start()
    assert hears.wait("site-a", 0, LONG_S) == 0
    assert hears.over


def test_a_bell_that_cannot_be_rung_is_no_error(tmp_path, caplog):
    (tmp_path / "bells").write_text("a file where the folder should be")
    ring(tmp_path / "bells", ["site-a"])
    assert "could not be rung" in caplog.text

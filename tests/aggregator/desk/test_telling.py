"""Told over real gRPC and TLS: at once, only the site meant, only while it is admitted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from aggregator.admin.enrol import revoke
from aggregator.bells import Bells, make_folder, ring
from aggregator.desk import telling as telling_module
from aggregator.desk.server import DeskServer
from aggregator.desk.telling import Telling
from common.errors import RefusedError, UnreachableError
from common.journal.causes import DESK_CALL_BYTES
from common.journal.entries import Settle
from common.journal.reader import read_journal
from site_client.courier.ear import Ear
from site_client.enrol import list_peers
from site_client.journal import open_journal
from site_client.listening import calls, keep_listening

LONG_S = 60.0


def until(condition, what: str) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@contextmanager
def listening(site) -> Iterator[Ear]:
    """A site that listens in a thread, as its courier has it."""
    ear, stop = Ear(), threading.Event()
    thread = threading.Thread(
        target=keep_listening, args=(calls(site), ear, stop, np.random.default_rng(0))
    )
    thread.start()
    try:
        yield ear
    finally:
        stop.set()
        thread.join()


def greeted(ear: Ear) -> None:
    """Until the stream stands; its first word has been heeded."""
    until(lambda: ear.trusts, "the stream")
    until(ear.is_due, "the first word")
    ear.found(notified=True)


def test_a_site_is_told_when_an_order_waits_for_it_and_no_other_site_is(served):
    north, south = served.enrolled("north"), served.enrolled("south")
    with listening(north) as hears, listening(south) as other:
        greeted(hears)
        greeted(other)
        for _ in range(3):
            ring(served.folder.order_bells, ["north"])
            until(hears.is_due, "the word")
            hears.found(notified=True)
        assert not other.is_due()


def test_a_revoked_site_is_told_nothing_more(served):
    north = served.enrolled("north")
    with listening(north) as ear:
        greeted(ear)
        revoke(served.folder, "north")
        ring(served.folder.order_bells, ["north"])
        until(lambda: not ear.trusts, "the end of the stream")
        assert not ear.is_due()


def test_a_desk_that_ends_is_noticed_and_one_that_is_back_tells_again(new_federation, tmp_path):
    from tests.aggregator.desk.conftest import Served

    server = DeskServer(new_federation)
    server.start()
    north = Served(new_federation, tmp_path).enrolled("north")
    with listening(north) as ear:
        greeted(ear)
        server.stop()
        until(lambda: not ear.trusts, "the end of trust")
        server = DeskServer(new_federation)
        server.start()
        try:
            greeted(ear)
            ring(new_federation.order_bells, ["north"])
            until(ear.is_due, "the word of the desk that is back")
        finally:
            server.stop()


def test_a_stranger_cannot_listen(served):
    stranger = served.site(served.invite("stranger"))
    begin = calls(stranger)
    with (
        pytest.raises((RefusedError, UnreachableError, Exception)) as refused,
        begin(print) as call,
    ):
        call.wait(LONG_S)
    assert "stranger" in str(refused.value) or "not" in str(refused.value)


def test_what_listening_costs_is_in_the_journal_and_within_the_rooms_of_the_desk(served):
    north = served.enrolled("north")
    journal = open_journal(north)
    journal.settle()
    before = len(read_journal(north.journal).entries)
    words = 100
    with listening(north) as ear:
        greeted(ear)
        for _ in range(words):
            ring(served.folder.order_bells, ["north"])
            until(ear.is_due, "the word")
            ear.found(notified=True)
        list_peers(north)  # another conversation beside it is counted once, too
    journal.settle()
    settled = [e for e in read_journal(north.journal).entries[before:] if isinstance(e, Settle)]
    used = {use.kind: use for entry in settled for use in entry.used}
    assert used["AwaitOrders"].count == 1
    links = [link for entry in settled for link in entry.links if link.receiver == "desk"]
    assert sum(link.unmeasured for link in links) == 0
    sent = sum(link.sent for link in links)
    said = sum(use.bytes for use in used.values())
    connections = sum(link.connections for link in links)
    assert connections == 4, "a greeting and a call, twice"
    calls_made = sum(use.count for use in used.values())
    assert said < sent <= said + 6144 * connections + DESK_CALL_BYTES * calls_made


@pytest.fixture
def bells(tmp_path) -> Iterator[Bells]:
    made = Bells(make_folder(tmp_path / "bells"))
    made.start()
    yield made
    made.stop()


def test_a_stream_begins_with_a_word_and_ends_by_itself(bells, tmp_path):
    now = [0.0]
    words = Telling(bells, lambda: now[0]).words("north", lambda: True)
    assert next(words) is True
    ring(tmp_path / "bells", ["north"])
    assert next(words) is True
    now[0] = telling_module.LIFE_S
    assert list(words) == []


def test_who_is_not_called_hears_that_somebody_is_there(bells, monkeypatch):
    monkeypatch.setattr(telling_module, "ALIVE_S", 0.01)
    words = Telling(bells, time.monotonic).words("north", lambda: True)
    assert [next(words) for _ in range(3)] == [True, False, False]


def test_a_sites_newer_stream_ends_its_older_one(bells):
    telling = Telling(bells, time.monotonic)
    older = telling.words("north", lambda: True)
    next(older)
    newer = telling.words("north", lambda: True)
    next(newer)
    assert list(older) == []


def test_there_are_so_many_streams_and_no_more(bells):
    telling = Telling(bells, time.monotonic, most=2)
    held = [telling.words(site, lambda: True) for site in ("a", "b")]
    for words in held:
        next(words)
    with pytest.raises(RefusedError, match="too many"):
        next(telling.words("c", lambda: True))
    held[0].close()
    assert next(telling.words("c", lambda: True))


def test_a_site_that_is_no_longer_wanted_hears_no_word(bells, tmp_path):
    wanted = [True]
    words = Telling(bells, time.monotonic).words("north", lambda: wanted[0])
    next(words)
    wanted[0] = False
    bells.wake()
    ring(tmp_path / "bells", ["north"])
    assert list(words) == []

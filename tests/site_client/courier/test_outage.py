"""What a courier says while nobody answers."""

from __future__ import annotations

import io
import logging

import pytest

from common.errors import UnreachableError
from site_client.courier.outage import Outage

GONE = UnreachableError("the aggregator cannot be reached", got="ConnectError")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    """Half a minute from one look to the next."""
    seconds = iter(range(0, 10**9, 30))
    return lambda: float(next(seconds))


def test_a_log_gets_fewer_and_fewer_lines_but_one_an_hour(clock, caplog):
    outage = Outage(io.StringIO(), clock)
    with caplog.at_level(logging.WARNING, "cairn.courier"):
        for _ in range(512):
            outage.failed(GONE, 30.0)
    doubling = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    hourly = [120, 240, 360, 480]
    assert len(caplog.messages) == len(doubling) + len(hourly)
    assert caplog.messages[0] == (
        "the aggregator cannot be reached (ConnectError); next try in 30 s"
    )
    assert caplog.messages[3].endswith(", for 4 min now; next try in 30 s")
    assert caplog.messages[-1].endswith(", for 4.3 h now; next try in 30 s")


def test_a_terminal_keeps_one_line_and_gets_it_back(clock, caplog):
    terminal = Terminal()
    outage = Outage(terminal, clock)
    for _ in range(5):
        outage.failed(GONE, 8.0)
    outage.over()
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().count("\r\x1b[2K") == 6
    assert terminal.getvalue().endswith("for 2 min now; next try in 8 s\r\x1b[2K")
    assert caplog.messages == []


def test_an_outage_that_is_over_is_forgotten(clock, caplog):
    outage = Outage(io.StringIO(), clock)
    with caplog.at_level(logging.WARNING, "cairn.courier"):
        for _ in range(3):
            outage.failed(GONE, 4.0)
        outage.over()
        outage.failed(GONE, 1.0)
    assert [" now" in line for line in caplog.messages] == [False, True, False]

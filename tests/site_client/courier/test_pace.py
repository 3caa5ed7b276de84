"""When a courier asks tells nothing of what its worker does."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from site_client.courier.pace import SLOT_S, Slots


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked_at(delays: list[float], seconds: float = 40.0) -> list[int]:
    """Slots in which a loop asks that is late by ``delays`` in turn."""
    clock = Clock()
    slots, asked, turn = Slots(clock), [], 0
    while clock.now < 100.0 + seconds:
        if slots.is_due():
            asked.append(int((clock.now - 100.0) / SLOT_S))
        clock.now += slots.wait() + (delays[turn % len(delays)] if delays else 0.0)
        turn += 1
    return asked


@settings(deadline=None)
@given(st.lists(st.floats(0.0, SLOT_S * 0.9), max_size=9))
def test_a_loop_that_is_late_within_its_slot_asks_in_the_same_slots(delays):
    assert asked_at(delays) == asked_at([])


def test_it_asks_in_every_slot_then_seldom():
    slots = asked_at([])
    assert slots[:40] == list(range(40)), "ten seconds of every slot"
    later = [b - a for a, b in itertools.pairwise(slots) if a >= 88]
    assert set(later) == {8}, "then every two seconds"


def test_a_reply_or_an_order_makes_it_ask_in_every_slot_again():
    clock = Clock()
    slots = Slots(clock)
    clock.now += 60
    assert slots.is_due()
    slots.happened()
    clock.now += SLOT_S
    assert slots.is_due()
    assert not slots.is_due(), "once in a slot"


def test_while_the_worker_has_an_order_it_asks_seldom():
    clock = Clock()
    slots = Slots(clock)
    assert slots.is_due(waiting=True)
    asked = 0
    for _ in range(80):
        clock.now += SLOT_S
        asked += slots.is_due(waiting=True)
    assert asked == 10

"""The courier's questions and replies come at instants that tell next to nothing of its worker.

Time is cut into slots. After an order came or a reply left, both of which the aggregator
knows anyhow, every slot has its question; then ever fewer. Where the aggregator tells when
an order waits, questions come when it tells, and otherwise seldom. A reply leaves at a
slot, too: one that took long at a quarter of a second, a quick one at a finer one, so that
how long a worker took is told to a sixteenth and at most to a sixty-fourth of a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

SLOT_S = 0.25
EVERY_SLOT_S, SECOND_SLOT_S = 10.0, 20.0
"""Since something happened: as long every slot, then every second one, then every eighth."""
_FEW, _FEWEST = 2, 8
TOLD_SLOTS = 120
"""Slots between two questions while the aggregator tells: half a minute."""
FINEST_S, SHARE = 1 / 64, 16
"""The finest slot of replies; a reply's slot is at most this share of the time it took."""


class Slots:
    """The slots of one courier.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._zero = clock()
        self._happened = 0
        self._asked = -1

    def is_due(self, *, waiting: bool = False, notified: bool = False) -> bool:
        """Tell whether to ask in this slot; each is asked in once at most.

        Args:
            waiting: an order is with the worker, so that no other is expected.
            notified: whoever has an order tells, so that none is expected otherwise.
        """
        now = self._slot()
        if self._asked >= 0 and now < self._asked + self._every(
            now, waiting=waiting, notified=notified
        ):
            return False
        self._asked = now
        return True

    def happened(self) -> None:
        """An order came, or a reply left: ask in the next slots."""
        self._happened = self._slot()

    def wait(self) -> float:
        """Seconds until the next slot begins."""
        return self._until(SLOT_S)

    def wait_told(self) -> float:
        """Seconds until the next question of a courier that is told."""
        now = self._clock() - self._zero
        return max(0.0, (self._asked + TOLD_SLOTS) * SLOT_S - now)

    def wait_reply(self, took: float) -> float:
        """Seconds until the next instant at which a reply may leave.

        Args:
            took: seconds since its order was handed to the worker.
        """
        share = max(took, 0.0) / SHARE
        slot = SLOT_S if share >= SLOT_S else FINEST_S
        while 2 * slot <= min(share, SLOT_S):
            slot *= 2
        return self._until(slot)

    def _every(self, now: int, *, waiting: bool, notified: bool) -> int:
        if notified:
            return TOLD_SLOTS
        quiet = SECOND_SLOT_S if waiting else (now - self._happened) * SLOT_S
        return 1 if quiet < EVERY_SLOT_S else _FEW if quiet < SECOND_SLOT_S else _FEWEST

    def _until(self, slot: float) -> float:
        return slot - math.fmod(self._clock() - self._zero, slot)

    def _slot(self) -> int:
        return int((self._clock() - self._zero) / SLOT_S)

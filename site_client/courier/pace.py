"""The courier's questions come at fixed instants, chosen by nothing that a worker does in between.

Time is cut into slots. After an order came or a reply left, both of which the aggregator
knows anyhow, every slot has its question; then ever fewer. A reply leaves at a slot, too,
so that how long a worker took is told to a quarter of a second and no finer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SLOT_S = 0.25
EVERY_SLOT_S, SECOND_SLOT_S = 10.0, 20.0
"""Since something happened: as long every slot, then every second one, then every eighth."""
_FEW, _FEWEST = 2, 8


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

    def is_due(self, *, waiting: bool = False) -> bool:
        """Tell whether to ask in this slot; each is asked in once at most.

        Args:
            waiting: an order is with the worker, so that no other is expected.
        """
        now = self._slot()
        quiet = (now - self._happened) * SLOT_S
        if waiting:
            quiet = SECOND_SLOT_S
        every = 1 if quiet < EVERY_SLOT_S else _FEW if quiet < SECOND_SLOT_S else _FEWEST
        if self._asked >= 0 and now < self._asked + every:
            return False
        self._asked = now
        return True

    def happened(self) -> None:
        """An order came, or a reply left: ask in the next slots."""
        self._happened = self._slot()

    def wait(self) -> float:
        """Seconds until the next slot begins."""
        now = self._clock() - self._zero
        return SLOT_S - now % SLOT_S

    def _slot(self) -> int:
        return int((self._clock() - self._zero) / SLOT_S)

"""Patience of a run's first order in the inbox with a federation key that is on its way.

A site that has just joined is asked a second or two before another site's sealed
key has reached it. Saying so would leave it out of the whole run, so the order
waits: for seconds, and only while the key comes by itself. Answers nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from common.wire.orders import Order
from site_client.keys.keeper import KeyKeeper

LONGEST_S = 20.0
"""Several looks of the courier at the desk; the aggregator has waited before it asked."""


class KeyPatience:
    """The choice of which waiting orders wait on.

    Args:
        keeper: knows whether a key is on its way.
        clock: seconds that only go up.
    """

    def __init__(self, keeper: KeyKeeper, clock: Callable[[], float] = time.monotonic) -> None:
        self._keeper = keeper
        self._clock = clock
        self._until: dict[str, float] = {}

    def ready(self, waiting: Iterable[str], look: Callable[[str], Order | None]) -> str | None:
        """Return the first order that may be worked on now, or None.

        Args:
            waiting: digests of the waiting orders, oldest first.
            look: the order, if its signature holds.
        """
        waiting = tuple(waiting)
        if not waiting or not self._keeper.expects_key:
            self._until.clear()
            return waiting[0] if waiting else None
        now = self._clock()
        self._until = {
            digest: self._until[digest] if digest in self._until else now + _most(look(digest))
            for digest in waiting
        }
        return next((digest for digest in waiting if self._until[digest] <= now), None)


def _most(order: Order | None) -> float:
    """Seconds that an order may wait: none but a run's first, and that one not past its time."""
    if order is None or order.header.phase != "begin":
        return 0.0
    return min(LONGEST_S, order.header.deadline_s / 2)

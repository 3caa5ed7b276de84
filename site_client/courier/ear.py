"""What the courier hears: that an order waits, and that something lies in the outbox.

Whoever tells may tell too often, never, or wrongly. A word that leads to an order costs
nothing; of others a few are heeded at once, and then one a second. An order that was found
without a word ends the trust in being told for a while: then the courier asks as often as
if nobody told it anything.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.waking import Alarm, Bucket, Rate

IN_VAIN: Final = Rate(8, 1.0)
"""Questions that may lead to no order although we were told."""
DISTRUST_S: Final = 60.0


class Ear:
    """One courier's alarm, and how far it trusts in being told.

    Args:
        folders: that ring, too, when a file is renamed into them: the outbox.
        clock: seconds that only go up.
    """

    def __init__(self, *folders: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._alarm = Alarm(*folders)
        self._clock = clock
        self._lock = threading.Lock()
        self._bucket = Bucket(IN_VAIN, clock())
        self._was_told = False
        self._stands = False
        self._trusted_from = -math.inf

    def told(self) -> None:
        """An order is said to wait; from any thread."""
        with self._lock:
            if self._was_told:
                return  # who calls on and on wakes nobody on and on
            self._was_told = True
        self._alarm.ring()

    def stand(self, *, stands: bool) -> None:
        """Somebody tells from now on, or nobody does any longer; from any thread."""
        with self._lock:
            if self._stands == stands:
                return
            self._stands = stands
        self._alarm.ring()

    @property
    def trusts(self) -> bool:
        """Tell whether orders are expected to be told."""
        with self._lock:
            return self._stands and self._clock() >= self._trusted_from

    @property
    def sees_folders(self) -> bool:
        """Tell whether the kernel tells of the folders."""
        return self._alarm.watches

    def is_due(self) -> bool:
        """Tell whether to ask now because we were told; true once for each word."""
        with self._lock:
            if not self._was_told or not self._bucket.take(self._clock()):
                return False
            self._was_told = False
            return True

    def found(self, *, notified: bool) -> None:
        """An order was found: because we were told, or by asking without a word."""
        with self._lock:
            if notified:
                self._bucket.give_back()
            elif self._stands and not self._was_told:
                self._trusted_from = self._clock() + DISTRUST_S

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Sleep until something is heard or time is up; True if something was heard.

        Args:
            seconds: at most; less where a word waits to be heeded.
            stop: ends the sleep.
        """
        with self._lock:
            owed = self._bucket.wait(self._clock()) if self._was_told else math.inf
        return self._alarm.wait(min(seconds, owed), stop)

    def close(self) -> None:
        """Hear no longer."""
        self._alarm.close()

"""So many at once, and then one every so many seconds. Pure: the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """So many calls at once, and then one every so many seconds."""

    at_once: int
    every_s: float


class Bucket:
    """Calls that are left to one caller; they come back with time.

    Args:
        rate: of the bucket.
        now: seconds.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate, self._left, self._at = rate, float(rate.at_once), now

    def take(self, now: float) -> bool:
        """Take one call; False if none is left."""
        self._refill(now)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """Return a call that was well used."""
        self._left = min(float(self._rate.at_once), self._left + 1.0)

    def wait(self, now: float) -> float:
        """Seconds until one can be taken; 0 if one is left."""
        self._refill(now)
        return max(0.0, 1.0 - self._left) * self._rate.every_s

    def _refill(self, now: float) -> None:
        came_back = max(0.0, now - self._at) / self._rate.every_s
        self._left = min(float(self._rate.at_once), self._left + came_back)
        self._at = now

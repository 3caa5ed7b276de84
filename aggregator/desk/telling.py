"""Telling sites that an order waits: one stream to each, that says "ask now" and no more.

A site's newest stream counts, an older one of it ends; there are so many and no more, and
each ends by itself after minutes, so that who asks is looked at anew. What is told is no
secret and proves nothing: the order comes by Flower, signed. A site that is told nothing
asks by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from aggregator.bells import Bells
from common.errors import RefusedError

MOST_STREAMS: Final = 512
LIFE_S: Final = 600.0
ALIVE_S: Final = 20.0
"""Between two words at most; a proxy that hears nothing for a minute hangs up."""
MOST_WORDS: Final = 1024
"""Of one stream; then the site calls again."""


class Telling:
    """All streams of one desk.

    Args:
        bells: rung by site's name when an order waits.
        clock: seconds that only go up.
        most: streams at a time.
    """

    def __init__(self, bells: Bells, clock: Callable[[], float], most: int = MOST_STREAMS) -> None:
        self._bells = bells
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._newest: dict[str, object] = {}

    def words(self, site: str, is_wanted: Callable[[], bool]) -> Iterator[bool]:
        """Yield True when the site is to ask, False to say that somebody is there.

        Args:
            site: that listens.
            is_wanted: whether it still does, and may; asked before every word.

        Raises:
            RefusedError: too many listen.
        """
        mine = object()
        with self._lock:
            if site not in self._newest and len(self._newest) >= self._most:
                raise RefusedError(
                    "too many sites wait to be told",
                    expected=f"at most {self._most}",
                    got="more",
                    advice="Nothing is lost: who is not told asks",
                )
            self._newest[site] = mine
        self._bells.wake()
        try:
            yield from self._words(site, mine, is_wanted)
        finally:
            with self._lock:
                if self._newest.get(site) is mine:
                    del self._newest[site]

    def wake(self) -> None:
        """Have every stream look whether it is still wanted."""
        self._bells.wake()

    def _words(self, site: str, mine: object, is_wanted: Callable[[], bool]) -> Iterator[bool]:
        # Before the first word: what rings from here on is told after it.
        before = self._bells.times(site)
        until = self._clock() + LIFE_S
        ask = True
        for _ in range(MOST_WORDS):
            if self._bells.over or self._newest.get(site) is not mine or not is_wanted():
                return
            yield ask
            remaining = until - self._clock()
            if remaining <= 0:
                return
            times = self._bells.wait(
                site, before, min(ALIVE_S, remaining), lambda: self._newest.get(site) is not mine
            )
            ask, before = times > before, times

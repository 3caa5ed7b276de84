"""The courier's words while nobody answers: few, and the fewer the longer it lasts.

In a terminal one line that is updated; in a log a line at the 1st, 2nd, 4th, 8th …
failure and about once an hour, so that a night without the aggregator fills no disk.
Decides nothing: when to try again is the courier's.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from common.errors import CairnError

HOURLY = 120
"""With half a minute between two tries, every so many are about an hour."""
_CLEAR = "\r\x1b[2K"
_MINUTE, _HOUR = 60, 3600
LOG = logging.getLogger("cairn.courier")


class Outage:
    """The time in which the aggregator cannot be reached.

    Args:
        stream: where a terminal would be; standard error when omitted.
        clock: seconds that only go up.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._since: float | None = None
        self._tries = 0

    def failed(self, error: CairnError, wait: float) -> None:
        """Another try failed; the next comes after ``wait`` seconds."""
        now = self._clock()
        if self._since is None:
            self._since = now
        self._tries += 1
        why = f"{error.problem} ({error.got})" if error.got else error.problem
        lasts = "" if self._tries == 1 else f", for {_duration(now - self._since)} now"
        text = f"{why}{lasts}; next try in {wait:.0f} s"
        if self._stream.isatty():
            self._stream.write(_CLEAR + text)
            self._stream.flush()
        elif self._tries & (self._tries - 1) == 0 or self._tries % HOURLY == 0:
            LOG.warning("%s", text)

    def over(self) -> None:
        """End the outage: it can be reached, or nobody tries any longer."""
        if self._since is not None and self._stream.isatty():
            self._stream.write(_CLEAR)
            self._stream.flush()
        self._since, self._tries = None, 0


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"

"""A process's word that it is to stop, which also wakes whoever sleeps.

A signal's handler runs between two instructions of whatever the main thread does. It must
take no lock that this thread may hold, which an ordinary event's ``set`` does; and no sleep
ends because it ran. A byte in a pipe needs no lock, and ends every poll(2) that watches it.

Source: Linux's pipe(7), poll(2), signal-safety(7).
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LONGEST_S: Final = 1e6
"""Of one sleep: poll counts its milliseconds in 32 bits."""


class Stop(threading.Event):
    """An event that is set once, by anybody and also by a signal's handler.

    Attributes:
        descriptor: can be read once it is set, and is never read: for poll(2).
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def __del__(self) -> None:
        for descriptor in (self.descriptor, self._write):
            with suppress(OSError):
                os.close(descriptor)

    def is_set(self) -> bool:
        """See ``threading.Event``."""
        return self._asked

    def set(self) -> None:
        """See ``threading.Event``."""
        self._asked = True
        with suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """See ``threading.Event``."""
        until = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not self._asked:
            remaining = LONGEST_S if until is None else until - time.monotonic()
            if remaining <= 0:
                return False
            poll.poll(1000 * min(remaining, LONGEST_S))
        return True


def stop_on_signals() -> Stop:
    """Return a stop that SIGTERM and SIGINT set; for the main thread."""
    stop = Stop()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop

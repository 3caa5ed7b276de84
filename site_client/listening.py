"""Listening at the desk: is there an order for this site?

A thread of the courier's half, beside the courier, which fetches the order by Flower and
checks it as ever. A desk that is old, away, silent or ends every call costs a question
now and then, each time later; meanwhile the courier asks by itself.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event
from typing import Protocol

import numpy as np

from common.arrivals.boundary import contained
from common.desk import desk_pb2 as pb
from common.desk.listening import Listening
from common.errors import CairnError, UnreachableError
from site_client.courier.ear import Ear
from site_client.enrol import orders_awaited
from site_client.journal import LongCall, open_journal
from site_client.site import SiteFolder

LIFE_S, SILENCE_S, LOOK_S = 660.0, 60.0, 2.0
"""The desk ends a call after ten minutes; three of its words that do not come are silence."""
SHORTEST_S, LONGEST_S = 1.0, 300.0
SOUND_S = 30.0
"""A call that lasted so long was no failure."""
PATIENCE = 5
"""Failures in a row after which that is said once."""
LOG = logging.getLogger("cairn.told")
Hear = Callable[[pb.OrderWaits], None]


class Call(Protocol):
    """A call that goes on; see ``Listening``."""

    @property
    def silent_s(self) -> float:
        """Seconds since something was heard."""

    def wait(self, seconds: float) -> bool:
        """Sleep until it is over or time is up; True if it is over, in order."""


Open = Callable[[Hear], AbstractContextManager[Call]]


def calls(site: SiteFolder) -> Open:
    """Return what opens a call of this site, each counted in its journal."""
    long = LongCall(open_journal(site))

    def begin(hear: Hear) -> AbstractContextManager[Listening[pb.OrderWaits]]:
        return orders_awaited(site, long, hear, LIFE_S)

    return begin


def keep_listening(
    begin: Open,
    ear: Ear,
    stop: Event,
    jitter: np.random.Generator,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Until ``stop`` is set: have the desk tell the courier; after a failure ever less often.

    Args:
        begin: opens a call.
        ear: the courier's.
        stop: ends it.
        jitter: so that not all sites come back at once.
        clock: seconds that only go up.
    """
    failures = 0
    while not stop.is_set():
        began, said = clock(), ""
        try:
            with contained("the desk's word", OSError):
                _listen(begin, ear, stop)
        except CairnError as error:
            said = error.problem
        except OSError as error:
            said = error.strerror or "an error"
        if clock() - began >= SOUND_S:
            failures = 0
        failures += 1
        if failures == PATIENCE and said:
            LOG.warning("nobody tells when an order waits, so we ask: %s", said)
        stop.wait(pause(failures, jitter))


def pause(failures: int, jitter: np.random.Generator) -> float:
    """Seconds until the next call: doubled with each failure, and a little by chance."""
    seconds = min(math.ldexp(SHORTEST_S, min(failures - 1, 20)), LONGEST_S)
    return seconds * float(jitter.uniform(0.75, 1.25))


def _listen(begin: Open, ear: Ear, stop: Event) -> None:
    """One call: trusted from its first word on until it is over or silent."""
    over = Event()

    def hear(word: pb.OrderWaits) -> None:
        if over.is_set():
            return
        ear.stand(stands=True)
        if word.ask:
            ear.told()

    try:
        with begin(hear) as call:
            while not stop.is_set():
                if call.wait(LOOK_S):
                    return
                if call.silent_s > SILENCE_S:
                    raise UnreachableError("the desk says nothing any more", got="silence")
    finally:
        over.set()
        ear.stand(stands=False)

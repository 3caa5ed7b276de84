"""Errands over a network: fetched from the aggregator one by one, done, answered.

Runs in the process that Flower starts for the relay's own SuperLink: below it are the sites,
above it the aggregator. A newer errand ends the one that is being done: who sent it waits
for that one no longer.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from aggregator.bells import make_folder, ring
from aggregator.relays.folder import RelayFolder
from aggregator.relays.relay import Relay
from aggregator.rounds.above import Errand, connection
from aggregator.rounds.queue import locked
from aggregator.rounds.transport import Transport
from common.crypto.identity import PublicKey
from common.errors import RefusedError, UnreachableError
from common.waking import Alarm

BUSY_S, QUIET_S, SOON_S = 0.25, 1.0, 20.0
"""Between two questions after an errand, and otherwise; and how long after one is after it."""
LOOK_S: Final = 1.0
"""Between two looks for a newer errand while one is being done."""
_LOG = logging.getLogger(__name__)


class Way(Protocol):
    """The way up; see ``aggregator.rounds.above.Above``."""

    def next(self) -> Errand | None:
        """Return the next errand that waits, or None."""

    def answer(self, errand: Errand, parcel: bytes) -> None:
        """Send what came of an errand; ``UnreachableError`` where nobody takes it."""


class Errands:
    """The errands of one relay.

    Args:
        way: up.
        relay: does them; its ``wait`` becomes this one's.
        clock: seconds that only go up.
        hear: waits until a site's reply is complete, or so many seconds.
        sleep: waits for the aggregator.
    """

    def __init__(
        self,
        way: Way,
        relay: Relay,
        clock: Callable[[], float] = time.monotonic,
        hear: Callable[[float], object] = time.sleep,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._way, self._relay = way, relay
        self._clock, self._hear, self._sleep = clock, hear, sleep
        self._newer: Errand | None = None
        self._looked = self._last = clock()
        relay.wait = self._wait

    def turn(self) -> bool:
        """Do the next errand, if there is one; False after a wait for it."""
        errand, self._newer = self._newer or self._way.next(), None
        if errand is None:
            quiet = self._clock() - self._last > SOON_S
            self._sleep(QUIET_S if quiet else BUSY_S)
            return False
        self._looked = self._clock()
        answer = self._relay.answer(errand.parcel)
        self._last = self._clock()
        if self._newer is None:
            try:
                self._way.answer(errand, answer)
            except UnreachableError as error:  # the run is over, or the aggregator went away
                _LOG.warning("%s", error)
        return True

    def _wait(self, seconds: float) -> None:
        """Wait for the sites' replies.

        Raises:
            RefusedError: there is a newer errand.
        """
        self._hear(seconds)
        if self._clock() - self._looked < LOOK_S:
            return
        self._looked = self._clock()
        self._newer = self._way.next()
        if self._newer is not None:
            raise RefusedError(
                "an errand was given up", expected="none after it", got="a newer one"
            )


def serve(folder: RelayFolder, transport: Callable[..., Transport]) -> None:
    """Do the aggregator's errands until this process ends, or its parent does.

    Args:
        folder: the relay's.
        transport: makes the way to its sites; is given what rings for them.

    Raises:
        RefusedError: another process does them.
    """
    file, federation, key = folder.file(), folder.federation, folder.node_key()
    below = transport(ring=partial(ring, federation.order_bells))
    relay = Relay(file.name, PublicKey.parse(file.witness_key), folder.archive, below)
    parent = os.getppid()
    with (
        locked(folder.lock, "another process does this relay's errands", "One is enough"),
        Alarm(make_folder(federation.reply_bells)) as alarm,
        connection(file.aggregator, file.ca_certificate.encode(), key) as way,
    ):
        hear = alarm.wait if alarm.watches else time.sleep
        errands = Errands(way, relay, hear=hear)
        while os.getppid() == parent:
            errands.turn()

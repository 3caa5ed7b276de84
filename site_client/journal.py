"""The site's own journal of requests: one file, whichever program of the courier's half writes.

``common.journal`` says what it is. Here: where it lies, under whose key, and how calls to
the enrolment desk get into it. Opens no connection and reads no image.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import cast, get_args

from common.errors import CairnError, RefusedError
from common.journal import RequestJournal
from common.journal.entries import Kind, Network
from common.journal.identity import CourierIdentity
from common.journal.meters import (
    Counted,
    connections_to,
    count,
    network,
    open_sockets,
    sockets_to,
)
from common.journal.writer import Measure, Site
from site_client.site import SiteFolder

OWN_NETWORK_VARIABLE = "CAIRN_OWN_NETWORK"
"""Set by the container files: nothing but the courier speaks in this network."""
_DESK_LOCK = threading.RLock()


def open_journal(site: SiteFolder) -> RequestJournal:
    """Return the journal of this process; what it counted is written when the process ends.

    Raises:
        InputDataError: the courier's node key is missing.
    """
    settings = site.settings()
    return _journal(
        site.journal.resolve(), site.node_key.resolve(), settings.federation, settings.site
    )


@cache
def _journal(path: Path, node_key: Path, federation: str, name: str) -> RequestJournal:
    journal = RequestJournal(
        path, CourierIdentity.read(node_key), Site(federation, name), network=_own_network
    )
    atexit.register(_settle, journal)
    return journal


def _settle(journal: RequestJournal) -> None:
    with suppress(CairnError):  # the disk is full or gone; then the next session's audit says so
        journal.settle()


def _own_network() -> Network | None:
    """Counters of a network that is the courier's alone; those of a machine say nothing of it."""
    return network() if os.environ.get(OWN_NETWORK_VARIABLE) == "1" else None


class DeskMeter:
    """Writes down every call to the desk, and counts its connections.

    Args:
        journal: of the site.
        host, port: of the desk.
    """

    def __init__(self, journal: RequestJournal, host: str, port: int) -> None:
        self._journal = journal
        self._host, self._port = host, port
        self._before: frozenset[int] = frozenset()

    def greeting(self) -> None:
        """Write down that a connection is made that says nothing."""
        self._journal.announce("desk", "greet", 0, b"")

    def greeted(self, connection: socket.socket) -> None:
        """Count it before it ends."""
        counted = count(connection)
        if counted is None:
            self._journal.measured("desk", Measure(opened=1, unmeasured=1))
            return
        self._journal.measured(
            "desk",
            Measure(opened=1, sent=counted.sent, resent=counted.resent, received=counted.received),
        )
        self._before = frozenset(open_sockets())

    def standing(self, long: LongCall) -> None:
        """Hand over the connection that was made since: it stays when this conversation ends."""
        made = list(sockets_to(self._host, self._port, self._before))
        self._journal.measured("desk", Measure(opened=1, unmeasured=0 if made else 1))
        for connection in made:
            long.watch(connection)

    def calling(self, method: str, message: bytes) -> None:
        """Write down a call that is about to be made.

        Raises:
            RefusedError: one that the journal does not know.
            StorageError, VerificationError: it could not be written down.
        """
        if method not in get_args(Kind):
            raise RefusedError(
                "the courier makes no such call", field="method", expected="one of desk.proto"
            )
        self._journal.announce("desk", cast("Kind", method), len(message), message)

    def closing(self) -> None:
        """Count the connection of the calls before it ends."""
        connections = list(connections_to(self._host, self._port, self._before))
        for counted in connections:
            self._journal.measured(
                "desk",
                Measure(
                    opened=1, sent=counted.sent, resent=counted.resent, received=counted.received
                ),
            )
        if not connections:
            self._journal.measured("desk", Measure(opened=1, unmeasured=1))


class LongCall:
    """Counts the connections of a call that goes on, as often as the journal looks.

    Args:
        journal: of the site.
    """

    def __init__(self, journal: RequestJournal) -> None:
        self._journal = journal
        self._open: dict[socket.socket, Counted] = {}
        self._lock = threading.Lock()
        journal.watch(self.look)

    def watch(self, connection: socket.socket) -> None:
        """Count a connection, from its first byte on."""
        with self._lock:
            self._open[connection] = Counted(0, 0, 0)

    def look(self) -> None:
        """Tell the journal what was counted since the last time."""
        with self._lock:
            for connection, before in self._open.items():
                now = count(connection)
                if now is not None and now != before:
                    self._open[connection] = now
                    self._journal.measured(
                        "desk",
                        Measure(
                            sent=now.sent - before.sent,
                            resent=now.resent - before.resent,
                            received=now.received - before.received,
                        ),
                    )

    def end(self) -> None:
        """Count a last time, after the call has ended."""
        self.look()
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()


@contextmanager
def desk_meter(site: SiteFolder, address: str) -> Iterator[DeskMeter]:
    """One conversation with the desk at a time, so that its connections can be told apart."""
    host, _, port = address.rpartition(":")
    with _DESK_LOCK:
        yield DeskMeter(open_journal(site), host.strip("[]"), int(port))

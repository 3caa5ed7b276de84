"""One run over Flower's Grid, in the process that Flower starts for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import httpx
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from aggregator.admin.folder import FederationFolder
from aggregator.admin.relays import groups
from aggregator.bells import make_folder, ring
from aggregator.intake.reply import most_bytes
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.pulling import Pulled, pull_replies
from aggregator.rounds.pushing import push_messages
from aggregator.rounds.queue import RunQueue
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival
from common.errors import UnreachableError
from common.waking import Alarm
from common.wire.codes import ReplyCode
from common.wire.parcel import MAX_PARCEL_BYTES
from common.wire.transport import MESSAGE_TYPE, PARCEL, RECORD

FOLDER_VARIABLE = "CAIRN_FEDERATION"
RUN_KEY = "run"
TURN_KEY = "turn"
REPLY_BELL = "complete"

NODE_UNAVAILABLE = 5
"""Flower's number for a message that it dropped because its node was not online."""
AWAY_S = 120.0
"""How long a courier may be away, for a restart, before its site's round is given up."""
MOST_TIMES = 20
"""How often one round's parcel is sent to a node: one that says it was away may be lying."""
HELD_BYTES = 1 << 20
"""How many bytes of parcels are held at a time, unless one parcel alone has more."""
Pull = Callable[[Grid, Mapping[str, int]], Iterable[Pulled]]
Push = Callable[[Grid, Sequence[Message]], Iterable[str]]


class GridTransport:
    """Parcels over Flower's Grid, without its three-second waits.

    Flower drops what a node was sent as soon as it is asked for the answer while the
    node is offline. A site that is stopped and started again finishes its round all the
    same: it is sent the parcel anew, and answers the same order with the same bytes.

    Args:
        grid: Flower's.
        clock: seconds that only go up.
        pull: fetches what waits, each reply on its own.
        push: sends messages with all their pieces.
        most: bytes that a reply may have of the node of this name.
        ring: rings for sites that an order waits for.
    """

    def __init__(
        self,
        grid: Grid,
        clock: Callable[[], float] = time.monotonic,
        pull: Pull = pull_replies,
        push: Push = push_messages,
        most: Callable[[str], int] = lambda _: MAX_PARCEL_BYTES,
        ring: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        self._grid = grid
        self._clock = clock
        self._pull = pull
        self._push_them = push
        self._most = most
        self._ring = ring
        self._names: dict[int, str] = {}
        self._times: Counter[int] = Counter()
        self._waiting: dict[str, int] = {}
        self._parcels: Mapping[int, bytes] = {}
        self._away: dict[int, float] = {}
        self._deadline = 0.0
        self._coming: Iterator[Pulled] | None = None

    def nodes(self) -> Mapping[int, str]:
        """Nodes that Flower holds to be online, under the names their keys were registered by."""
        with _reaching():
            self._names = {node.node_id: node.name for node in self._grid.get_nodes()}
        return self._names

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        """One message per node; Flower forgets it after the deadline."""
        self._parcels, self._deadline = parcels, self._clock() + deadline_s
        self._waiting, self._away, self._times = {}, {}, Counter()
        self._coming = None
        self._push_each(parcels)

    def receive(self) -> Sequence[Arrival]:
        """Whatever is there by now, a few at a time; who was away for two minutes has not answered.

        What was found at one look is handed over in so many calls as its size asks for, and
        Flower is asked again after the last.
        """
        given_up = [] if self._coming is not None else self._send_again()
        arrivals = [Arrival(node, None, ReplyCode.NO_ANSWER) for node in given_up]
        if self._coming is None and not self._waiting:
            return arrivals
        with _reaching():
            if self._coming is None:
                waiting = {
                    name: self._most(self._names.get(node, ""))
                    for name, node in self._waiting.items()
                }
                self._coming = iter(self._pull(self._grid, waiting))
            size = 0
            for pulled in self._coming:
                size += self._take(pulled, arrivals)
                if size >= HELD_BYTES:
                    return arrivals
        self._coming = None
        return arrivals

    def _take(self, pulled: Pulled, arrivals: list[Arrival]) -> int:
        """Add what came back for a message that is waited for; returns its bytes."""
        node = self._waiting.pop(pulled.answers, None)
        if node is None:
            return 0
        if pulled.lost == NODE_UNAVAILABLE and self._times[node] < MOST_TIMES:
            self._away[node] = self._clock()
            return 0
        arrivals.append(_arrival(node, pulled))
        return len(pulled.content) if isinstance(pulled.content, bytes) else 0

    def _push_each(self, nodes: Iterable[int]) -> None:
        """Make and push the parcels of some nodes, a few at a time."""
        batch: dict[int, bytes] = {}
        for node in nodes:
            batch[node] = self._parcels[node]
            if sum(map(len, batch.values())) >= HELD_BYTES:
                self._push(batch)
                batch = {}
        if batch:
            self._push(batch)

    def _push(self, parcels: Mapping[int, bytes]) -> None:
        remaining_s = max(1.0, self._deadline - self._clock())
        self._times.update(parcels.keys())
        messages = [
            Message(_content(parcel), node, MESSAGE_TYPE, ttl=remaining_s)
            for node, parcel in parcels.items()
        ]
        with _reaching():
            identifiers = list(self._push_them(self._grid, messages))
        self._waiting |= {
            identifier: node
            for identifier, node in zip(identifiers, parcels, strict=True)
            if identifier
        }
        self._ring(self._names[node] for node in parcels if node in self._names)

    def _send_again(self) -> list[int]:
        """Send what was dropped to the nodes that are back; returns those that stay away."""
        if not self._away:
            return []
        online, now = self.nodes(), self._clock()
        back = [node for node in self._away if node in online]
        self._push_each(back)
        gone = [n for n, since in self._away.items() if n not in back and now - since >= AWAY_S]
        for node in (*back, *gone):
            del self._away[node]
        return gone


@contextmanager
def _reaching() -> Iterator[None]:
    """Say of a SuperLink that does not answer what it is: unreachable, and nobody's reply."""
    try:
        yield
    except httpx.HTTPError as error:
        raise UnreachableError(
            "the SuperLink does not answer the run",
            got=type(error).__name__,
            advice="See flower/superlink.log in the federation's folder; then resume the run",
        ) from error


def _content(parcel: bytes) -> RecordDict:
    array = Array(np.frombuffer(parcel, dtype=np.uint8))
    return RecordDict({RECORD: ArrayRecord({PARCEL: array})})


def _arrival(node: int, pulled: Pulled) -> Arrival:
    """Return a parcel, a courier's number, or what Flower says when it lost the message."""
    if pulled.fault is not None:
        return Arrival(node, None, ReplyCode.INTERNAL, pulled.fault)
    if isinstance(pulled.content, ReplyCode):
        return Arrival(node, None, pulled.content)
    if pulled.content is None:
        return Arrival(node, None, ReplyCode.NO_ANSWER)
    return Arrival(node, pulled.content)


def conduct(grid: Grid, federation: FederationFolder, run: str, turn: int) -> None:
    """Conduct a run, if it is its turn.

    Args:
        grid: Flower's.
        federation: its folder.
        run: its name.
        turn: that it was given.

    Raises:
        RefusedError: it is another run's turn, or another process conducts this one.
    """
    store, queue = RunStore(federation.run(run)), RunQueue(federation.queue)

    def is_current() -> bool:
        current = queue.read().current
        return current is not None and (current.run, current.turn) == (store.name, turn)

    relays, of_a_site = groups(federation), most_bytes(store.plan())
    transport = GridTransport(
        grid,
        most=lambda name: MAX_PARCEL_BYTES if name in relays else of_a_site,
        ring=partial(ring, federation.order_bells),
    )
    with Alarm(make_folder(federation.reply_bells)) as alarm:
        Conductor(
            federation,
            store,
            transport,
            turn,
            is_current,
            hear=alarm.wait if alarm.watches else None,
            relays=relays,
        ).run()

"""The Flower ServerApp: conducts one run over Flower's Grid.

Started by Flower for a run whose only configuration is the run's name; the
federation's folder comes from the environment of ``cairn-aggregator up``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.queue import RunQueue
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival
from common.errors import InternalError
from common.wire.codes import ReplyCode
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD

FOLDER_VARIABLE = "CAIRN_FEDERATION"
RUN_KEY = "run"
TURN_KEY = "turn"

app = ServerApp()


NODE_UNAVAILABLE = 5
"""Flower's number for a message that it dropped because its node was not online."""
AWAY_S = 120.0
"""How long a courier may be away, for a restart, before its site's round is given up."""


class GridTransport:
    """Parcels over Flower's Grid, without its three-second waits.

    Flower drops what a node was sent as soon as it is asked for the answer while the
    node is offline. A site that is stopped and started again finishes its round all the
    same: it is sent the parcel anew, and answers the same order with the same bytes.

    Args:
        grid: Flower's.
        clock: seconds that only go up.
    """

    def __init__(self, grid: Grid, clock: Callable[[], float] = time.monotonic) -> None:
        self._grid = grid
        self._clock = clock
        self._waiting: dict[str, int] = {}
        self._parcels: Mapping[int, bytes] = {}
        self._away: dict[int, float] = {}
        self._deadline = 0.0

    def nodes(self) -> Mapping[int, str]:
        """Nodes that Flower holds to be online, under the names their keys were registered by."""
        return {node.node_id: node.name for node in self._grid.get_nodes()}

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        """One message per node; Flower forgets it after the deadline."""
        self._parcels, self._deadline = dict(parcels), self._clock() + deadline_s
        self._waiting, self._away = {}, {}
        self._push(parcels)

    def receive(self) -> Sequence[Arrival]:
        """Whatever is there by now; who was away for two minutes has not answered."""
        given_up = self._send_again()
        arrivals = [Arrival(node, None, ReplyCode.NO_ANSWER) for node in given_up]
        if not self._waiting:
            return arrivals
        for message in self._grid.pull_messages(list(self._waiting)):
            node = self._waiting.pop(message.metadata.reply_to_message_id, None)
            if node is None:
                continue
            if message.has_error() and message.error.code == NODE_UNAVAILABLE:
                self._away[node] = self._clock()
            else:
                arrivals.append(_arrival(node, message))
        return arrivals

    def _push(self, parcels: Mapping[int, bytes]) -> None:
        remaining_s = max(1.0, self._deadline - self._clock())
        messages = [
            Message(_content(parcel), node, MESSAGE_TYPE, ttl=remaining_s)
            for node, parcel in parcels.items()
        ]
        identifiers = list(self._grid.push_messages(messages))
        self._waiting |= {
            identifier: node
            for identifier, node in zip(identifiers, parcels, strict=True)
            if identifier
        }

    def _send_again(self) -> list[int]:
        """Send what was dropped to the nodes that are back; returns those that stay away."""
        if not self._away:
            return []
        online, now = self.nodes(), self._clock()
        back = {node: self._parcels[node] for node in self._away if node in online}
        if back:
            self._push(back)
        gone = [n for n, since in self._away.items() if n not in back and now - since >= AWAY_S]
        for node in (*back, *gone):
            del self._away[node]
        return gone


def _content(parcel: bytes) -> RecordDict:
    array = Array(np.frombuffer(parcel, dtype=np.uint8))
    return RecordDict({RECORD: ArrayRecord({PARCEL: array})})


def _arrival(node: int, message: Message) -> Arrival:
    """Return a parcel, a courier's number, or what Flower says when it lost the message."""
    if not message.has_content():
        return Arrival(node, None, ReplyCode.NO_ANSWER)
    arrays = message.content.array_records.get(RECORD)
    if arrays is not None and set(arrays) == {PARCEL}:
        array = arrays[PARCEL].numpy()
        if array.dtype == np.uint8 and array.ndim == 1:
            return Arrival(node, array.tobytes())
    numbers = message.content.config_records.get(RECORD)
    code = None if numbers is None else numbers.get(CODE)
    if isinstance(code, int) and code in set(ReplyCode):
        return Arrival(node, None, ReplyCode(code))
    return Arrival(node, None, ReplyCode.INTERNAL)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the run that the configuration names, if it is its turn.

    Raises:
        InternalError: not started through ``cairn-aggregator``.
        RefusedError: it is another run's turn, or another process conducts this one.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise InternalError(
            "the ServerApp does not know its federation",
            field=FOLDER_VARIABLE,
            expected="set by `cairn-aggregator up`",
        )
    federation = FederationFolder(Path(folder))
    store = RunStore(federation.run(str(context.run_config[RUN_KEY])))
    turn, queue = int(str(context.run_config[TURN_KEY])), RunQueue(federation.queue)

    def is_current() -> bool:
        current = queue.read().current
        return current is not None and (current.run, current.turn) == (store.name, turn)

    Conductor(federation, store, GridTransport(grid), turn, is_current).run()

"""The way up: a relay as a node of the aggregator's SuperLink, with Flower's own connection.

What a site's courier must not do, reveal or depend on does not concern a relay, which holds
no images: so this is Flower's connection of a SuperNode, and only what a message carries is
read by our own rules. Uses internal modules of the pinned flwr release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supernode.fleet_http_connection import http_request_response

from aggregator.rounds.pulling import FIRST_RETRY_S, BoundedFetch, bound
from common.errors import RefusedError, UnreachableError
from common.wire.objects import most_objects, read_content
from common.wire.parcel import MAX_PARCEL_BYTES
from common.wire.transport import PARCEL, RECORD

Receive = Callable[[], tuple[Message, ObjectTree] | None]
Send = Callable[[Message, ObjectTree, float], tuple[set[str], str]]


@dataclass(frozen=True)
class Errand:
    """A message from the aggregator.

    Attributes:
        message: Flower's, without its content: what is replied to.
        parcel: that it carries; empty where that cannot be read.
    """

    message: Message
    parcel: bytes


@dataclass(frozen=True)
class Above:
    """A connection that stands; see ``connection``."""

    _receive: Receive
    _send: Send
    _pull: Callable[[int, str], bytes]
    _push: Callable[[int, str, str, bytes], None]
    _confirm: Callable[[int, str], None]

    def next(self) -> Errand | None:
        """Return the next errand that waits, or None."""
        received = self._receive()
        if received is None:
            return None
        message, tree = received
        run_id, name = message.metadata.run_id, tree.object_id
        message.metadata.__dict__["_message_id"] = name
        try:
            parcel = self._parcel(run_id, tree)
        except (RefusedError, ObjectPullError):
            parcel = b""  # is answered with why an errand cannot be done
        self._confirm(run_id, name)
        return Errand(message, parcel)

    def answer(self, errand: Errand, parcel: bytes) -> None:
        """Send what came of an errand.

        Raises:
            UnreachableError: the SuperLink does not take it: the run is over, or it is gone.
        """
        try:
            self._answer(errand, parcel)
        except (httpx.HTTPError, ObjectPushError) as error:
            raise UnreachableError(
                "an errand's answer was not taken", got=type(error).__name__
            ) from error

    def _answer(self, errand: Errand, parcel: bytes) -> None:
        array = Array(np.frombuffer(parcel, dtype=np.uint8))
        reply = Message(RecordDict({RECORD: ArrayRecord({PARCEL: array})}), reply_to=errand.message)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        run_id = reply.metadata.run_id
        with no_object_id_recompute():
            objects = get_all_nested_objects(reply)
            wanted, session = self._send(reply, get_object_tree(reply), 0.0)
            push_object_contents_from_iterable(
                ((name, each.deflate()) for name, each in objects.items() if name in wanted),
                lambda name, content: self._push(run_id, session, name, content),
            )

    def _parcel(self, run_id: int, tree: ObjectTree) -> bytes:
        names = []
        for part in iterate_object_tree(tree):
            names.append(part.object_id)
            if len(names) > most_objects():
                raise RefusedError("an errand is cut into too many pieces", got="more")
        fetch = BoundedFetch(lambda name: self._pull(run_id, name), bound(MAX_PARCEL_BYTES))
        contents = pull_objects(names, fetch, initial_backoff=FIRST_RETRY_S)
        content = read_content(tree.object_id, contents)
        return content if isinstance(content, bytes) else b""


@contextmanager
def connection(address: str, authority: bytes, key: ec.EllipticCurvePrivateKey) -> Iterator[Above]:
    """Connect to the aggregator's SuperLink; what does not answer is tried again and again.

    Args:
        address: host:port.
        authority: PEM of the federation's CA.
        key: of the relay's node.

    Raises:
        SystemExit: it knows no such node.
    """
    keys = (key, key.public_key())
    with http_request_response(address, False, authority, keys) as way:
        _, receive, send, _, _, pull, push, confirm = way
        yield Above(receive, send, pull, push, confirm)

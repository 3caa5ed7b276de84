"""Replies out of Flower's SuperLink, each on its own: one that does not hold costs one site.

Flower's Grid inflates all waiting replies in one call, so that one that cannot be inflated
takes all others with it. Here they are asked for together and read apart, bounded in
objects and bytes before they are put together. Uses internal modules of the pinned flwr
release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

import httpx
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
from flwr.supercore.runtime import RuntimeHttpClient

from aggregator.rounds.pushing import pull_several
from common.arrivals.boundary import contained
from common.errors import CairnError, RefusedError
from common.wire.codes import ReplyCode
from common.wire.objects import PIECE_BYTES, most_objects, read_content

FIRST_RETRY_S: Final = 0.05
"""Until a piece is asked for again that its sender has only announced; doubled each time."""
UNAVAILABLE: Final = 0
"""In place of Flower's number where not all pieces of a reply could be had."""


@dataclass(frozen=True)
class Pulled:
    """What came back for one message.

    Attributes:
        answers: identifier of the message that it answers.
        lost: Flower's number for a message that it lost; None where it did not.
        content: a parcel, a courier's number, or nothing.
        fault: why what came cannot be read; None where it can.
    """

    answers: str
    lost: int | None = None
    content: bytes | ReplyCode | None = None
    fault: CairnError | None = None


def pull_replies(grid: Grid, most: Mapping[str, int]) -> Iterator[Pulled]:
    """Return what waits for these messages, each read on its own.

    Args:
        grid: Flower's.
        most: bytes that a parcel may have that answers a message, by the message's identifier.

    Raises:
        HTTPError: the SuperLink does not answer; that concerns nobody's reply.
    """
    client: RuntimeHttpClient = grid._runtime_client  # type: ignore[attr-defined]  # pinned
    response = client.PullMessages(PullAppMessagesRequest(message_ids=list(most)))
    pairs = zip(response.messages_list, response.message_object_trees, strict=False)
    for message, tree in pairs:
        answers = message.metadata.reply_to_message_id
        try:
            with contained("a reply", httpx.HTTPError):
                pulled = _pulled(grid, client, message, tree, most.get(answers, 0))
        except CairnError as error:
            pulled = Pulled(answers, fault=error)
        yield pulled


def _pulled(
    grid: Grid, client: RuntimeHttpClient, message: ProtoMessage, tree: ObjectTree, most: int
) -> Pulled:
    """Read one reply, and have the SuperLink forget it, whatever it is."""
    answers = message.metadata.reply_to_message_id
    node, run_id = grid.node, grid.run.run_id  # type: ignore[attr-defined]  # pinned
    try:
        if message.HasField("error"):
            return Pulled(answers, lost=message.error.code)
        names = _names(tree, most)
        pulled = pull_several(client, node, run_id, names)
        fetch = make_pull_object_fn_protobuf(client.PullObject, node, run_id)
        contents = pull_objects(
            names,
            BoundedFetch(lambda name: pulled[name] if name in pulled else fetch(name), bound(most)),
            initial_backoff=FIRST_RETRY_S,
        )
        return Pulled(answers, content=read_content(tree.object_id, contents, most))
    except ObjectPullError:
        return Pulled(answers, lost=UNAVAILABLE)
    finally:
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=node, run_id=run_id, message_object_id=message.metadata.message_id
            )
        )


def bound(most: int) -> int:
    """Return how many bytes the objects of a message with a parcel may have in all."""
    return most + 4 * PIECE_BYTES


def _names(tree: ObjectTree, most: int) -> list[str]:
    names = []
    for part in iterate_object_tree(tree):
        names.append(part.object_id)
        if len(names) > most_objects(most):
            raise RefusedError(
                "a reply is cut into too many pieces",
                expected=f"at most {most_objects(most)}",
                got="more",
            )
    return names


class BoundedFetch:
    """Fetches objects until they are too many bytes in all; safe in several threads.

    Args:
        fetch: gives an object's bytes.
        most: bytes of all objects.
    """

    def __init__(self, fetch: Callable[[str], bytes], most: int) -> None:
        self._fetch, self._left, self._lock = fetch, most, Lock()

    def __call__(self, name: str) -> bytes:
        """Return an object's bytes.

        Raises:
            RefusedError: more in all than was allowed.
        """
        data = self._fetch(name)
        with self._lock:
            self._left -= len(data)
            if self._left < 0:
                raise RefusedError("a message is too large", got="more bytes than it may have")
        return data

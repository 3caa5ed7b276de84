"""Messages into Flower's SuperLink, and pieces out of it, many in a call.

Flower's Grid asks once for every piece, and an exchange of small parcels is mostly pieces of
a hundred bytes. The guard before our SuperLink takes several at once. Uses internal modules
of the pinned flwr release.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.runtime import RuntimeHttpClient

from common.errors import RefusedError
from common.wire.several import MOST_BYTES, MOST_PIECES, PULL_PIECES, PUSH_PIECES, Several


def push_messages(grid: Grid, messages: Sequence[Message]) -> list[str]:
    """Push messages with all their pieces.

    Args:
        grid: Flower's.
        messages: to nodes of its run.

    Returns:
        Each one's identifier; an empty one where the SuperLink did not take it.

    Raises:
        HTTPError: the SuperLink does not answer.
        ObjectPushError: it did not take a piece.
    """
    client: RuntimeHttpClient = grid._runtime_client  # type: ignore[attr-defined]  # pinned
    node, run_id = grid.node, grid.run.run_id  # type: ignore[attr-defined]  # pinned
    contents: dict[str, bytes] = {}
    request = PushAppMessagesRequest()
    with no_object_id_recompute():
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            request.messages_list.append(message_to_proto(remove_content_from_message(message)))
            request.message_object_trees.append(get_object_tree(message))
            objects = get_all_nested_objects(message)
            contents |= {name: each.deflate() for name, each in objects.items()}
    response = client.PushMessages(request)
    missing = {name: contents[name] for name in response.objects_to_push}
    for batch in _batches(missing):
        requests = [
            PushObjectRequest(
                node=node,
                run_id=run_id,
                object_id=name,
                object_content=missing[name],
                session_id=response.session_id,
            )
            for name in batch
        ]
        answers = _ask(client, PUSH_PIECES, requests, PushObjectResponse)
        if answers is None:
            answers = [client.PushObject(each) for each in requests]
        for name, answer in zip(batch, answers, strict=True):
            if not answer.stored:
                raise ObjectPushError(name, run_id, response.session_id)
    return list(response.message_ids)


def pull_several(
    client: RuntimeHttpClient, node: Node, run_id: int, names: Sequence[str]
) -> dict[str, bytes]:
    """Return those of these objects that are there, and small enough to come at once.

    Raises:
        HTTPError: the SuperLink does not answer.
    """
    if not 1 < len(names) <= MOST_PIECES:
        return {}
    requests = [PullObjectRequest(node=node, run_id=run_id, object_id=name) for name in names]
    answers = _ask(client, PULL_PIECES, requests, PullObjectResponse) or []
    answered = zip(names, answers, strict=False)
    return {name: answer.object_content for name, answer in answered if answer.object_available}


def _ask(
    client: RuntimeHttpClient,
    call: str,
    requests: Sequence[Any],
    kind: Any,  # noqa: ANN401
) -> list[Any] | None:
    """Ask several at once; None where the SuperLink, traced or watched, knows Flower's calls only.

    Raises:
        HTTPError: it does not answer.
        RefusedError: it answers something else.
    """
    try:
        flower: Any = client  # asks no more of a message than Several gives
        several: Several = flower._unary_unary(
            path=f"/v1/runtime/{call}",
            rpc_method=f"/cairn.Runtime/{call}",
            request=Several([each.SerializeToString(deterministic=True) for each in requests]),
            response_type=Several,
        )
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
        return None
    if len(several.parts) != len(requests):
        raise RefusedError(
            "the SuperLink answers other pieces",
            field=call,
            expected=f"{len(requests)} answers",
            got=f"{len(several.parts)}",
        )
    return [kind.FromString(part) for part in several.parts]


def _batches(contents: Mapping[str, bytes]) -> Iterator[list[str]]:
    """Return names of pieces that go together; a large one goes alone."""
    batch: list[str] = []
    size = 0
    for name, content in contents.items():
        if batch and (size + len(content) > MOST_BYTES or len(batch) == MOST_PIECES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += len(content)
    if batch:
        yield batch

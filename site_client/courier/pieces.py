"""The pieces of a message, to the SuperLink and back: at once where they are small, or singly.

A SuperLink that knows no call for several is asked piece by piece from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Final

import httpx
from flwr.proto.message_pb2 import (
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import InflatableObject, iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supernode.fleet_http_client import FleetHttpClient
from google.protobuf.message import DecodeError

from common.errors import RefusedError
from common.wire.objects import PIECE_BYTES, most_objects
from common.wire.parcel import MAX_PARCEL_BYTES
from common.wire.several import PULL_PIECES, PUSH_PIECES, Several, fits

FIRST_RETRY_S = 0.05
"""Until a piece of an order is asked for again that was only announced; doubled each time."""
MOST_AT_ONCE = 8
"""Pieces that are asked for at once: what is declared of such a call holds so many."""
_NOT_KNOWN: Final = frozenset({httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND})


class Pieces:
    """One connection's way of fetching and sending pieces.

    Args:
        client: Flower's.
    """

    def __init__(self, client: FleetHttpClient) -> None:
        self._client = client
        self._knows_several = True

    def pull(self, node: Node, run_id: int, tree: ObjectTree) -> dict[str, bytes]:
        """Return a message's objects, bounded in number and bytes, by name.

        Raises:
            RefusedError: too many, or too large.
            ObjectPullError: some did not come.
        """
        names: list[str] = []
        for part in iterate_object_tree(tree):
            names.append(part.object_id)
            if len(names) > most_objects():
                raise RefusedError("an order is cut into too many pieces", got="more")
        together = self._pull_several(node, run_id, names)
        fetch = make_pull_object_fn_protobuf(self._client.PullObject, node, run_id)
        remaining, lock = MAX_PARCEL_BYTES + 4 * PIECE_BYTES, Lock()

        def bounded(name: str) -> bytes:
            nonlocal remaining
            data = together.get(name)
            if data is None:
                data = fetch(name)
            with lock:
                remaining -= len(data)
                if remaining < 0:
                    raise RefusedError("an order is too large", got="more bytes than it may have")
            return data

        pulled: dict[str, bytes] = pull_objects(names, bounded, initial_backoff=FIRST_RETRY_S)
        return pulled

    def push(
        self,
        node: Node,
        run_id: int,
        session: str,
        objects: Mapping[str, InflatableObject],
        pending: Sequence[str],
    ) -> None:
        """Send those objects of a message that are wanted.

        Raises:
            ObjectPushError: the SuperLink did not take one.
        """
        named = set(pending)
        contents = {name: each.deflate() for name, each in objects.items() if name in named}
        if fits([len(content) for content in contents.values()]):
            requests = [
                PushObjectRequest(
                    node=node,
                    run_id=run_id,
                    object_id=name,
                    object_content=content,
                    session_id=session,
                )
                for name, content in contents.items()
            ]
            answers = self._ask(PUSH_PIECES, requests, PushObjectResponse)
            if answers is not None:
                for name, answer in zip(contents, answers, strict=True):
                    if not answer.stored:
                        raise ObjectPushError(name, run_id, session)
                return
        push_object_contents_from_iterable(
            contents.items(),
            make_push_object_fn_protobuf(self._client.PushObject, node, run_id, session),
        )

    def _pull_several(self, node: Node, run_id: int, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of these objects that come at once."""
        if not 1 < len(names) <= MOST_AT_ONCE:
            return {}
        requests = [PullObjectRequest(node=node, run_id=run_id, object_id=name) for name in names]
        answers = self._ask(PULL_PIECES, requests, PullObjectResponse) or []
        pairs = zip(names, answers, strict=False)
        return {name: answer.object_content for name, answer in pairs if answer.object_available}

    def _ask(self, call: str, requests: Sequence[Any], kind: Any) -> list[Any] | None:  # noqa: ANN401
        """Ask several at once; None where nobody knows this call, or answers another."""
        if not self._knows_several:
            return None
        try:
            flower: Any = self._client  # asks no more of a message than Several gives
            several = flower._unary_unary(
                path=f"/v1/fleet/{call}",
                rpc_method=f"/cairn.Fleet/{call}",
                request=Several([each.SerializeToString(deterministic=True) for each in requests]),
                response_type=Several,
            )
            answers = [kind.FromString(part) for part in several.parts]
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _NOT_KNOWN:
                raise
            answers = []
        except (RefusedError, DecodeError):
            answers = []
        self._knows_several = len(answers) == len(requests)
        return answers if self._knows_several else None

"""Replies out of Flower's SuperLink: each read apart, bounded, and forgotten there."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from aggregator.rounds.pulling import UNAVAILABLE, BoundedFetch, pull_replies
from common.errors import RefusedError
from common.wire.codes import ReplyCode
from common.wire.several import PULL_PIECES
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD

MOST = 1 << 20


def answering(name: str, content=None, error=None):
    about = Metadata(
        run_id=9,
        message_id="",
        src_node_id=7,
        dst_node_id=1,
        reply_to_message_id=name,
        group_id="",
        created_at=1.0,
        ttl=60.0,
        message_type=MESSAGE_TYPE,
    )
    message = make_message(about, content) if error is None else make_message(about, error=error)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def parcel(data: bytes) -> RecordDict:
    return RecordDict({RECORD: ArrayRecord({PARCEL: Array(np.frombuffer(data, np.uint8))})})


class MemoryClient:
    """Flower's runtime interface over a few messages."""

    def __init__(self, *messages) -> None:
        self.messages = list(messages)
        self.objects = {
            name: thing.deflate()
            for message in messages
            for name, thing in get_all_nested_objects(message).items()
        }
        self.fetched: list[str] = []
        self.confirmed: list[str] = []

    def PullMessages(self, request):  # noqa: N802 - Flower's
        return SimpleNamespace(
            messages_list=[
                message_to_proto(remove_content_from_message(m) if m.has_content() else m)
                for m in self.messages
            ],
            message_object_trees=[get_object_tree(m) for m in self.messages],
        )

    def _unary_unary(self, *, path, rpc_method, request, response_type):
        assert path == f"/v1/runtime/{PULL_PIECES}"
        asked = [PullObjectRequest.FromString(part) for part in request.parts]
        return response_type([self.PullObject(each).SerializeToString() for each in asked])

    def PullObject(self, request):  # noqa: N802
        self.fetched.append(request.object_id)
        data = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=data is not None,
            object_available=data is not None,
            object_content=data or b"",
        )

    def ConfirmMessageReceived(self, request):  # noqa: N802
        self.confirmed.append(request.message_object_id)


def pulled(client: MemoryClient):
    from flwr.proto.node_pb2 import Node

    grid = SimpleNamespace(
        _runtime_client=client, run=SimpleNamespace(run_id=9), node=Node(node_id=1)
    )
    names = [message.metadata.reply_to_message_id for message in client.messages]
    return {one.answers: one for one in pull_replies(grid, dict.fromkeys(names, MOST))}


def test_parcels_numbers_and_losses_are_told_apart():
    client = MemoryClient(
        answering("a", parcel(b"reply")),
        answering("b", RecordDict({RECORD: ConfigRecord({CODE: 3})})),
        answering("c", error=Error(code=5, reason="away")),
    )
    came = pulled(client)
    assert came["a"].content == b"reply"
    assert came["b"].content is ReplyCode.REFUSED_AT_DOOR
    assert came["c"].lost == 5
    assert len(client.confirmed) == 3


def test_one_reply_that_cannot_be_read_takes_no_other_with_it():
    client = MemoryClient(
        answering("bent", parcel(b"bent")),
        answering("odd", RecordDict({"other": ConfigRecord({"x": 1})})),
        answering("sound", parcel(b"sound")),
    )
    chunk = next(n for n, data in client.objects.items() if data.endswith(b"bent"))
    client.objects[chunk] = client.objects[chunk].replace(b"bent", b"bend")
    came = pulled(client)
    assert isinstance(came["bent"].fault, RefusedError)
    assert isinstance(came["odd"].fault, RefusedError)
    assert came["sound"].content == b"sound"
    assert len(client.confirmed) == 3, "nothing is left at the SuperLink"


def test_a_reply_whose_pieces_are_gone_is_lost_and_is_nobodys_fault():
    client = MemoryClient(answering("a", parcel(b"reply")))
    client.objects.clear()
    assert pulled(client)["a"].lost == UNAVAILABLE


def test_a_reply_of_too_many_bytes_is_left_where_it_is():
    client = MemoryClient(answering("large", parcel(bytes(range(256)) * 120_000)))
    assert isinstance(pulled(client)["large"].fault, RefusedError)


def test_a_superlink_that_does_not_answer_is_nobodys_fault(monkeypatch):
    client = MemoryClient(answering("a", parcel(b"reply")))

    def fail(request):
        raise httpx.ConnectError("down")

    monkeypatch.setattr(client, "PullObject", fail)
    with pytest.raises(httpx.HTTPError):
        pulled(client)


def test_bytes_are_counted_over_all_pieces():
    fetch = BoundedFetch(lambda name: bytes(4), 10)
    assert [len(fetch("a")), len(fetch("b"))] == [4, 4]
    with pytest.raises(RefusedError):
        fetch("c")

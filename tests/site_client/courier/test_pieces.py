"""Pieces at once where the other end knows how, singly where it does not; never half of either."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest
from flwr.proto.message_pb2 import PushObjectResponse as Pushed
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from common.errors import RefusedError
from common.wire.objects import PIECE_BYTES
from common.wire.several import MOST_BYTES, PULL_PIECES, Several, join
from common.wire.transport import PARCEL, RECORD
from site_client.courier.pieces import MOST_AT_ONCE, Pieces

NODE = Node(node_id=7)


def content(size: int = 1000) -> RecordDict:
    array = Array(np.zeros(size, np.uint8))
    return RecordDict({RECORD: ArrayRecord({PARCEL: array})})


class MemoryClient:
    """Flower's client of a SuperLink that knows several at once, or refuses them."""

    def __init__(self, refuses: int = 0) -> None:
        self.refuses = refuses
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.takes = True
        self.answers: list[bytes] | None = None

    def _unary_unary(self, *, path, rpc_method, request, response_type):
        call = path.rpartition("/")[2]
        self.calls.append(call)
        if self.refuses:
            response = httpx.Response(self.refuses, request=httpx.Request("POST", "https://x"))
            raise httpx.HTTPStatusError("no", request=response.request, response=response)
        came = response_type()
        if self.answers is not None:
            came.ParseFromString(join(self.answers))
        elif call == PULL_PIECES:
            asked = [PullObjectRequest.FromString(part) for part in request.parts]
            came.parts = [self._pulled(each).SerializeToString() for each in asked]
        else:
            asked = [PushObjectRequest.FromString(part) for part in request.parts]
            came.parts = [self._pushed(each).SerializeToString() for each in asked]
        return came

    def PullObject(self, request):  # noqa: N802 - Flower's
        self.calls.append("pull-object")
        return self._pulled(request)

    def PushObject(self, request):  # noqa: N802 - Flower's
        self.calls.append("push-object")
        return self._pushed(request)

    def _pulled(self, request) -> PullObjectResponse:
        data = self.objects[request.object_id]
        return PullObjectResponse(object_found=True, object_available=True, object_content=data)

    def _pushed(self, request) -> Pushed:
        assert (request.node, request.run_id, request.session_id) == (NODE, 9, "session")
        self.objects[request.object_id] = request.object_content
        return Pushed(stored=self.takes)


def filled(client: MemoryClient, data: RecordDict) -> SimpleNamespace:
    objects = {name: each.deflate() for name, each in get_all_nested_objects(data).items()}
    client.objects |= objects
    return SimpleNamespace(tree=get_object_tree(data), objects=objects)


def push(pieces: Pieces, data: RecordDict, *, without: int = 0) -> list[str]:
    objects = get_all_nested_objects(data)
    wanted = list(objects)[without:]
    pieces.push(NODE, 9, "session", objects, wanted)
    return wanted


def test_small_pieces_come_in_one_call():
    client = MemoryClient()
    message = filled(client, content())
    assert Pieces(client).pull(NODE, 9, message.tree) == message.objects
    assert client.calls == ["pull-objects"]


def test_small_pieces_leave_in_one_call_and_only_those_that_are_wanted():
    client = MemoryClient()
    wanted = push(Pieces(client), content(), without=1)
    assert client.calls == ["push-objects"]
    assert list(client.objects) == wanted


@pytest.mark.parametrize("refuses", [403, 404])
def test_who_knows_no_such_call_is_asked_singly_from_then_on(refuses):
    client = MemoryClient(refuses)
    message = filled(client, content())
    pieces = Pieces(client)
    assert pieces.pull(NODE, 9, message.tree) == message.objects
    push(pieces, content())
    pulled, pushed = len(message.objects), len(get_all_nested_objects(content()))
    singly = ["pull-object"] * pulled + ["push-object"] * pushed
    assert client.calls == ["pull-objects", *singly]


@pytest.mark.parametrize("refuses", [401, 500])
def test_another_refusal_is_told(refuses):
    client = MemoryClient(refuses)
    with pytest.raises(httpx.HTTPStatusError):
        Pieces(client).pull(NODE, 9, filled(client, content()).tree)


@pytest.mark.parametrize("answers", [[], [b"\xff\xff"], [b""] * 3])
def test_an_answer_that_is_none_is_asked_for_singly(answers):
    client = MemoryClient()
    message = filled(client, content())
    client.answers = answers
    assert Pieces(client).pull(NODE, 9, message.tree) == message.objects


def test_what_did_not_come_at_once_is_asked_for_singly():
    client = MemoryClient()
    message = filled(client, content())
    there = PullObjectResponse(object_found=True, object_available=False)
    client.answers = [there.SerializeToString()] * len(message.objects)
    assert Pieces(client).pull(NODE, 9, message.tree) == message.objects
    assert client.calls == ["pull-objects"] + ["pull-object"] * len(message.objects)


def test_a_large_message_leaves_singly():
    client = MemoryClient()
    wanted = push(Pieces(client), content(MOST_BYTES))
    assert client.calls == ["push-object"] * len(wanted)


def test_a_piece_that_was_not_taken_is_an_error():
    client = MemoryClient()
    client.takes = False
    with pytest.raises(ObjectPushError):
        push(Pieces(client), content())


def test_a_message_of_too_many_bytes_is_refused_however_it_came(monkeypatch):
    monkeypatch.setattr("site_client.courier.pieces.MAX_PARCEL_BYTES", 1000)
    client = MemoryClient()
    message = filled(client, content())
    whale = PullObjectResponse(
        object_found=True, object_available=True, object_content=bytes(2 * PIECE_BYTES)
    )
    client.answers = [whale.SerializeToString()] * len(message.objects)
    with pytest.raises(RefusedError, match="too large"):
        Pieces(client).pull(NODE, 9, message.tree)


def test_what_is_declared_of_a_call_for_several_holds_as_many_as_are_asked_for():
    from common.journal.entries import CONTROL

    largest = PullObjectRequest(
        node=Node(node_id=2**64 - 1), run_id=2**64 - 1, object_id="f" * 64
    ).SerializeToString()
    head = 900  # request line and headers, with key and signature of a node
    body = Several([largest] * MOST_AT_ONCE).SerializeToString()
    assert head + len(body) <= CONTROL["pull-objects"][1]

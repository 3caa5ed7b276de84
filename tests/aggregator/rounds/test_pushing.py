"""Messages pushed with their pieces together; a SuperLink that knows single ones gets those."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity

from aggregator.rounds.pushing import pull_several, push_messages
from common.errors import RefusedError
from common.wire.several import MOST_BYTES
from common.wire.transport import MESSAGE_TYPE, PARCEL, RECORD


class MemoryLink:
    """A SuperLink's runtime interface."""

    def __init__(self) -> None:
        self.knows_several = True
        self.takes = True
        self.spoils = False
        self.calls: list[int] = []
        self.objects: dict[str, bytes] = {}

    def PushMessages(self, request):  # noqa: N802 - Flower's
        trees = request.message_object_trees
        names = [part.object_id for tree in trees for part in iterate_object_tree(tree)]
        return PushAppMessagesResponse(
            message_ids=[each.metadata.message_id for each in request.messages_list],
            objects_to_push=dict.fromkeys(names),
            session_id="session",
        )

    def _unary_unary(self, *, path, rpc_method, request, response_type):
        if not self.knows_several:
            response = httpx.Response(404, request=httpx.Request("POST", "https://x"))
            raise httpx.HTTPStatusError("no", request=response.request, response=response)
        assert path == "/v1/runtime/push-objects"
        asked = [PushObjectRequest.FromString(part) for part in request.parts]
        answers = [self.PushObject(each).SerializeToString() for each in asked]
        self.calls[-len(asked) :] = [len(asked)]
        return response_type(answers[1:] if self.spoils else answers)

    def PushObject(self, request):  # noqa: N802 - Flower's
        self.calls.append(1)
        self.objects[request.object_id] = request.object_content
        return PushObjectResponse(stored=self.takes)


@pytest.fixture(autouse=True)
def in_a_server_app(monkeypatch):
    """Flower's messages say which task made them."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def link() -> MemoryLink:
    return MemoryLink()


def pushed(link: MemoryLink, *sizes: int) -> list[str]:
    grid = SimpleNamespace(
        _runtime_client=link, run=SimpleNamespace(run_id=9), node=Node(node_id=1)
    )
    contents = [
        RecordDict({RECORD: ArrayRecord({PARCEL: Array(np.full(size, n, np.uint8))})})
        for n, size in enumerate(sizes)
    ]
    messages = [Message(each, node, MESSAGE_TYPE) for node, each in enumerate(contents, start=2)]
    names = push_messages(grid, messages)
    assert names == [message.object_id for message in messages]
    return names


def test_pieces_of_several_messages_go_together(link):
    names = pushed(link, 100, 200, 300)
    assert link.calls == [len(link.objects)]
    assert set(names) <= set(link.objects)


def test_large_pieces_go_apart(link):
    pushed(link, MOST_BYTES - 1000, MOST_BYTES - 1000)
    assert sum(link.calls) == len(link.objects) == 10
    assert len(link.calls) > 1


def test_a_superlink_that_knows_single_pieces_gets_each(link):
    link.knows_several = False
    pushed(link, 100, 200)
    assert link.calls == [1] * len(link.objects)
    assert pull_several(link, Node(node_id=1), 9, ["a", "b"]) == {}


def test_a_piece_that_was_not_taken_is_an_error(link):
    link.takes = False
    with pytest.raises(ObjectPushError):
        pushed(link, 100)


def test_other_answers_than_were_asked_for_are_refused(link):
    link.spoils = True
    with pytest.raises(RefusedError, match="other pieces"):
        pushed(link, 100)

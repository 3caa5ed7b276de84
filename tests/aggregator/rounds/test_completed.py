"""A reply is complete when its last piece was pushed, and not before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import PushObjectRequest

from aggregator.rounds.completed import MOST_KEPT, PUSH_MESSAGES, PUSH_OBJECT, Completed
from aggregator.rounds.guarded_superlink import SitesOnly


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def completed(said) -> Completed:
    return Completed(lambda: said.append("complete"))


def announced(session: str, *names: str) -> bytes:
    return PushMessagesResponse(session_id=session, objects_to_push=names).SerializeToString()


def piece(session: str, name: str) -> PushObjectRequest:
    return PushObjectRequest(session_id=session, object_id=name)


def test_the_last_piece_completes_a_reply(completed, said):
    completed.note(PushMessagesRequest(), announced("s", "a", "b"))
    completed.note(piece("s", "a"), b"")
    completed.note(piece("s", "a"), b"")
    assert said == []
    completed.note(piece("s", "b"), b"")
    assert said == ["complete"]
    completed.note(piece("s", "b"), b"")
    assert said == ["complete"], "once"


def test_replies_of_several_sites_are_followed_apart(completed, said):
    completed.note(PushMessagesRequest(), announced("s", "a"))
    completed.note(PushMessagesRequest(), announced("t", "a"))
    completed.note(piece("t", "a"), b"")
    assert said == ["complete"]


def test_a_reply_all_of_whose_pieces_are_there_is_complete_at_once(completed, said):
    completed.note(PushMessagesRequest(), announced("s"))
    assert said == ["complete"]


@pytest.mark.parametrize("answer", [b"\xff\xff", b"\n\x05x"])
def test_an_answer_that_cannot_be_read_is_no_error(completed, said, answer):
    completed.note(PushMessagesRequest(), answer)
    completed.note(piece("s", "a"), b"")
    completed.note(PullMessagesRequest(), b"")
    completed.note(None, b"")
    assert said == []


def test_what_is_followed_is_bounded(completed, said):
    for number in range(MOST_KEPT + 1):
        completed.note(PushMessagesRequest(), announced(f"s{number}", "a"))
    assert len(completed._lacking) == MOST_KEPT
    completed.note(piece("s0", "a"), b"")
    assert said == [], "the oldest was let go; it is found by asking"


def through_the_guard(completed: Completed, path: str, request: object, answer: bytes, code: int):
    """A call of a courier as the SuperLink works on it: what it has read lies in the scope."""
    sent = []

    async def app(scope, receive, send):
        scope["state"]["protobuf_request"] = request
        await send({"type": "http.response.start", "status": code, "headers": []})
        await send({"type": "http.response.body", "body": answer[:3], "more_body": True})
        await send({"type": "http.response.body", "body": answer[3:]})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    # With an event log switched on, no call takes the short road: this stub answers.
    settings = SimpleNamespace(fleet_event_log_plugin=object(), control_event_log_plugin=None)
    scope = {
        **{"type": "http", "method": "POST", "path": path, "app": SimpleNamespace(state=settings)},
        **{"client": ("192.0.2.1", 5), "server": ("192.0.2.2", 6)},
    }
    asyncio.run(SitesOnly(app, completed)(scope, receive, send))
    return b"".join(message.get("body", b"") for message in sent)


def test_the_guard_passes_on_every_byte_and_follows(completed, said):
    answer = announced("s", "a")
    got = through_the_guard(completed, PUSH_MESSAGES, PushMessagesRequest(), answer, 200)
    assert got == answer
    assert said == []
    through_the_guard(completed, PUSH_OBJECT, piece("s", "a"), b"", 200)
    assert said == ["complete"]


def test_what_the_superlink_refused_completes_nothing(completed, said):
    through_the_guard(completed, PUSH_MESSAGES, PushMessagesRequest(), announced("s", "a"), 200)
    through_the_guard(completed, PUSH_OBJECT, piece("s", "a"), b"", 403)
    assert said == []

"""Calls for several pieces at once, as the guard answers them: one by one, by Flower's handlers.

All pieces of a call are of one node, one run and one push, so that what is checked of the
first holds for the others: who asks, and that the run still runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.servicer.fleet import fleet_handlers
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from common.errors import RefusedError
from common.wire.several import MOST_BYTES, PULL_PIECES, PUSH_PIECES, join, split

_KINDS: Final[dict[str, Any]] = {
    PULL_PIECES: PullObjectRequest,
    PUSH_PIECES: PushObjectRequest,
}


def read_pieces(call: str, body: bytes) -> list[Any]:
    """Return the requests of a call for several pieces.

    Args:
        call: its name.
        body: its bytes.

    Raises:
        FlowerError: not such a call, or not all of one node, run and push.
    """
    kind = _KINDS[call]
    try:
        pieces = [kind.FromString(part) for part in split(body)]
    except (RefusedError, DecodeError) as error:
        raise _bad(str(error)) from error
    first = pieces[0]
    for piece in pieces[1:]:
        alike = (piece.node, piece.run_id) == (first.node, first.run_id)
        if not alike or getattr(piece, "session_id", "") != getattr(first, "session_id", ""):
            raise _bad("pieces of several nodes, runs or pushes")
    return pieces


def answer_fleet(pieces: Sequence[Any], state: Any) -> list[Any]:  # noqa: ANN401 - Flower's
    """Answer a courier: the first piece by Flower's handler, which also looks at the run."""
    first, *rest = pieces
    if isinstance(first, PushObjectRequest):
        answers: list[ProtoMessage] = [fleet_handlers.push_object(request=first, state=state)]
        received = 0
        for piece in rest:
            content = piece.object_content
            stored = state.store_object(piece.run_id, piece.session_id, piece.object_id, content)
            received += len(content) if stored else 0
            answers.append(PushObjectResponse(stored=stored))
        if received:
            state.store_traffic(first.run_id, bytes_sent=0, bytes_recv=received)
        return answers
    begin = fleet_handlers.pull_object(request=first, state=state)
    answers, size = [begin], len(begin.object_content)
    for piece in rest:
        answer = _pulled(size, state.get_object(piece.run_id, piece.object_id))
        size += len(answer.object_content)
        answers.append(answer)
    if sent := size - len(begin.object_content):
        state.store_traffic(first.run_id, bytes_sent=sent, bytes_recv=0)
    return answers


def answer_runtime(pieces: Sequence[Any], handlers: Any, state: Any, task: Any) -> list[Any]:  # noqa: ANN401
    """Answer a ServerApp, whose handlers look at nothing but the node."""
    if isinstance(pieces[0], PushObjectRequest):
        return [handlers.push_object(piece, state, task) for piece in pieces]
    answers: list[ProtoMessage] = []
    size = 0
    for piece in pieces:
        pulled = handlers.pull_object(piece, state, task)
        answer = _pulled(size, pulled.object_content if pulled.object_found else None)
        size += len(answer.object_content)
        answers.append(answer)
    return answers


def _pulled(before: int, content: bytes | None) -> PullObjectResponse:
    """Return the answer for a piece; one that makes the answer long has to be asked for alone."""
    if content is None:
        return PullObjectResponse(object_found=False, object_available=False)
    if before + len(content) > MOST_BYTES:
        content = b""
    return PullObjectResponse(
        object_found=True, object_available=content != b"", object_content=content
    )


def join_answers(answers: Sequence[ProtoMessage]) -> bytes:
    """Return the bytes of the answers to a call for several pieces."""
    return join([answer.SerializeToString() for answer in answers])


def _bad(why: str) -> FlowerError:
    return FlowerError(ApiErrorCode.INVALID_PROTOBUF_PAYLOAD, f"Invalid pieces: {why}")

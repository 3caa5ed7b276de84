"""The calls of a round through the SuperLink, without the stations that do nothing for them.

Flower's server passes every call through eight layers and five threads, most of them for
its control interface, accounts and licences. The calls that carry messages and their pieces
take a shorter road here: the same parsing, the same authentication of node or task, the
same handler and the same words for an error, all of them Flower's own functions, in one
thread. With tracing or an event log switched on every call goes the long way. Uses internal
modules of the pinned flwr release.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from flwr.proto.message_pb2 import PushObjectResponse
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.supercore.dependencies.runtime import get_runtime_handlers, get_runtime_state
from flwr.supercore.dependencies.superexec import authenticate_superexec_request
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.dependencies.version import VersionDependency
from flwr.supercore.error import http_error_translator
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import (
    PROTOBUF_REQUEST_TYPES,
    ProtobufTranslationMiddleware,
)
from flwr.superlink.dependencies.linkstate import get_linkstate
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.servicer.fleet import fleet_handlers
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from aggregator.rounds.one_transaction import at_once
from aggregator.rounds.several_pieces import (
    answer_fleet,
    answer_runtime,
    join_answers,
    read_pieces,
)
from common.wire.several import PULL_PIECES, PUSH_PIECES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = Callable[[Request, Any], bytes]

MOST_SIGNATURES: Final = 1024
"""That are remembered: some seconds of some hundred sites."""
SWEEP_S: Final = 0.25
_FLEET, _RUNTIME = "/v1/fleet/", "/v1/runtime/"
_ACQUIRE: Final = "/flwr.proto.Runtime/AcquireTask"
_is_known_version = VersionDependency(
    component_name="SuperLink", connection_name="Caller <-> SuperLink Runtime API"
)


def _fleet(name: str, *, store: bool = False) -> Answer:
    """Return a courier's call: its node is authenticated, then Flower's handler answers."""
    handler = getattr(fleet_handlers, name)

    def answer(request: Request, message: Any) -> bytes:  # noqa: ANN401 - of any call
        node_auth.authenticate_node(request)
        state = get_linkstate(request)
        more = {"store": state.object_store} if store else {}
        answer = at_once(state, lambda: handler(request=message, state=state, **more), _is_whole)
        result: bytes = answer.SerializeToString()
        return result

    return answer


def _runtime(name: str) -> Answer:
    """Return a ServerApp's call: its release and its task's token are checked before."""

    def answer(request: Request, message: Any) -> bytes:  # noqa: ANN401 - of any call
        _is_known_version(request)
        state = get_runtime_state(request)
        task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
        handler = getattr(get_runtime_handlers(request), name)
        answer = at_once(state, lambda: handler(message, state, task), _is_whole)
        result: bytes = answer.SerializeToString()
        return result

    return answer


def _acquire(request: Request, message: Any) -> bytes:  # noqa: ANN401 - Flower's
    """Answer the SuperExec, which asks every second whether a run is to begin."""
    _is_known_version(request)
    state = get_runtime_state(request)
    authenticate_superexec_request(request, state, _ACQUIRE)
    result: bytes = get_runtime_handlers(request).acquire_task(message, state).SerializeToString()
    return result


def _fleet_pieces(request: Request, pieces: Any) -> bytes:  # noqa: ANN401 - as the others
    """Answer a courier that asks for several pieces at once."""
    node_auth.authenticate_node(request)
    state = get_linkstate(request)
    return join_answers(at_once(state, lambda: answer_fleet(pieces, state), _are_whole))


def _runtime_pieces(request: Request, pieces: Any) -> bytes:  # noqa: ANN401 - as the others
    """Answer a ServerApp that asks for several pieces at once."""
    _is_known_version(request)
    state = get_runtime_state(request)
    task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
    handlers = get_runtime_handlers(request)
    return join_answers(
        at_once(state, lambda: answer_runtime(pieces, handlers, state, task), _are_whole)
    )


def _is_whole(answer: Any) -> bool:  # noqa: ANN401 - of any call
    """Tell whether an answer refuses nothing."""
    return not isinstance(answer, PushObjectResponse) or answer.stored


def _are_whole(answers: Sequence[Any]) -> bool:
    return all(map(_is_whole, answers))


SHORT: Final[dict[str, Answer]] = {
    f"{_FLEET}pull-messages": _fleet("pull_messages", store=True),
    f"{_FLEET}pull-object": _fleet("pull_object"),
    f"{_FLEET}confirm-message-received": _fleet("confirm_message_received", store=True),
    f"{_FLEET}get-run": _fleet("get_run"),
    f"{_FLEET}push-messages": _fleet("push_messages"),
    f"{_FLEET}push-object": _fleet("push_object"),
    f"{_FLEET}send-node-heartbeat": _fleet("send_node_heartbeat"),
    f"{_RUNTIME}get-nodes": _runtime("get_nodes"),
    f"{_RUNTIME}push-messages": _runtime("push_messages"),
    f"{_RUNTIME}push-object": _runtime("push_object"),
    f"{_RUNTIME}pull-messages": _runtime("pull_messages"),
    f"{_RUNTIME}pull-object": _runtime("pull_object"),
    f"{_RUNTIME}confirm-message-received": _runtime("confirm_message_received"),
    f"{_RUNTIME}acquire-task": _acquire,
}
SEVERAL: Final[dict[str, Answer]] = {
    f"{_FLEET}{PULL_PIECES}": _fleet_pieces,
    f"{_FLEET}{PUSH_PIECES}": _fleet_pieces,
    f"{_RUNTIME}{PULL_PIECES}": _runtime_pieces,
    f"{_RUNTIME}{PUSH_PIECES}": _runtime_pieces,
}
"""Calls that Flower does not know: several of its own in one, on this road only."""


@lru_cache(maxsize=MOST_SIGNATURES)
def _held(key: bytes, signature: bytes, data: bytes) -> bool:
    """Verify a signature; the same one over the same data by the same key holds again."""
    return bool(verify_signature(bytes_to_public_key(key), data, signature))


def remember_signatures() -> None:
    """Have Flower verify what a courier signs once a second once a second, not at every call.

    A courier signs the current second, and RFC 6979 gives the same signature for all calls
    in it. That the second is the current one is looked at every time.
    """
    vars(node_auth).update(
        bytes_to_public_key=_known_key,
        verify_signature=lambda key, data, signature: _held(key, signature, data),
    )


def sweep_seldom(clock: Callable[[], float] = time.monotonic) -> None:
    """Have Flower look for tasks without a heartbeat four times a second, not at every call.

    What it finds has been silent for half a minute or more.

    Args:
        clock: seconds that only go up.
    """
    sweep = SqlCoreState._cleanup_expired_task_tokens
    swept: WeakKeyDictionary[SqlCoreState, float] = WeakKeyDictionary()

    def seldom(state: SqlCoreState) -> None:
        now = clock()
        if now - swept.get(state, -math.inf) >= SWEEP_S:
            swept[state] = now
            sweep(state)

    SqlCoreState._cleanup_expired_task_tokens = seldom  # type: ignore[method-assign,assignment]


def _known_key(key: bytes) -> bytes:
    """Return a key's bytes, of a key that can be read.

    Raises:
        ValueError: it is none.
    """
    _readable(key)
    return key


@lru_cache(maxsize=MOST_SIGNATURES)
def _readable(key: bytes) -> None:
    bytes_to_public_key(key)


def is_short(scope: Scope) -> bool:
    """Tell whether a call may take the short road; then ``travel`` answers it."""
    if scope["path"] not in SHORT.keys() | SEVERAL.keys() or scope["method"] != "POST":
        return False
    settings = scope["app"].state
    watched = (settings.fleet_event_log_plugin, settings.control_event_log_plugin)
    return watched == (None, None) and os.environ.get("FLWR_TRACING_ENABLED") != "1"


async def travel(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a call as Flower does; what it asked lies in the scope's state afterwards.

    Of several pieces the first lies where Flower looks for who asks, and all under ``pieces``.
    """
    request = Request(scope, receive)
    path = scope["path"]

    async def answered(_: Request) -> Response:
        check = ProtobufTranslationMiddleware
        check._check_request_media_type(request)
        body = await request.body()
        if path in SEVERAL:
            message: Any = read_pieces(path.rpartition("/")[2], body)
            request.state.protobuf_request, request.state.pieces = message[0], message
            answer = SEVERAL[path]
        else:
            message = check._parse_request(body, PROTOBUF_REQUEST_TYPES["POST", path])
            request.state.protobuf_request = message
            answer = SHORT[path]
        content = await run_in_threadpool(answer, request, message)
        return Response(content, media_type=PROTOBUF_MEDIA_TYPE)

    response = await http_error_translator(request, answered)
    await response(scope, receive, send)

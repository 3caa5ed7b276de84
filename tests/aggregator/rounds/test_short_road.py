"""The short road answers what the long one does: the same status, the same bytes."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import GetNodesRequest, PullAppMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet import node_auth

from aggregator.rounds import short_road
from aggregator.rounds.guarded_superlink import FOR_SITES, SitesOnly

KEY = ec.generate_private_key(ec.SECP384R1())
PUBLIC = public_key_to_bytes(KEY.public_key())


@pytest.fixture(scope="module")
def app():
    """Flower's SuperLink, in this process and in memory."""
    logging.getLogger("flwr").setLevel("CRITICAL")
    return create_app()


@pytest.fixture(scope="module")
def node(app) -> int:
    state = app.state.linkstate_factory.state()
    node_id = state.create_node("account", "name", PUBLIC, 30)
    assert state.activate_node(node_id, 30)
    return node_id


@pytest.fixture(autouse=True)
def flowers_own_functions(monkeypatch):
    """What the guard replaces is put back after each test."""
    for name in ("verify_signature", "bytes_to_public_key"):
        monkeypatch.setattr(node_auth, name, getattr(node_auth, name))


def signed(age_s: float = 0.0, key: ec.EllipticCurvePrivateKey = KEY) -> list[tuple[bytes, bytes]]:
    """The headers of a courier's call."""
    moment = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=age_s)
    stamp = moment.isoformat()
    signature = key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    fields = {
        "content-type": "application/protobuf",
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(PUBLIC).decode(),
        TIMESTAMP_HEADER: stamp,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
    }
    return [(name.lower().encode(), value.encode()) for name, value in fields.items()]


def ask(door, app, path: str, body: bytes, headers, method: str = "POST") -> tuple[int, bytes]:
    """Status and body of an answer."""
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "https",
        "headers": headers,
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 6),
        "state": {},
        "app": app,
    }
    asyncio.run(door(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture
def both(app):
    """Asks by either road, and returns the one answer that both gave."""

    def asked(path: str, body: bytes, headers, method: str = "POST") -> tuple[int, bytes]:
        by_long = ask(app, app, path, body, headers, method)
        by_short = ask(SitesOnly(app), app, path, body, headers, method)
        assert by_short == by_long
        return by_short

    return asked


def calls(node_id: int) -> dict[str, bytes]:
    """A call on each path of a courier's, none of which finds anything."""
    node = Node(node_id=node_id)
    return {
        "pull-messages": PullMessagesRequest(node=node).SerializeToString(),
        "pull-object": PullObjectRequest(
            node=node, run_id=7, object_id="0" * 64
        ).SerializeToString(),
        "confirm-message-received": ConfirmMessageReceivedRequest(
            node=node, run_id=7, message_object_id="0" * 64
        ).SerializeToString(),
        "get-run": GetRunRequest(node=node, run_id=7).SerializeToString(),
        "push-messages": PushMessagesRequest(node=node).SerializeToString(),
        "push-object": PushObjectRequest(node=node, run_id=7).SerializeToString(),
        "send-node-heartbeat": SendNodeHeartbeatRequest(
            node=node, heartbeat_interval=30
        ).SerializeToString(),
    }


def test_every_call_of_a_round_takes_the_short_road():
    ours = {path for path in FOR_SITES if path.startswith("/v1/fleet/")}
    short = short_road.SHORT.keys() | short_road.SEVERAL.keys()
    seldom = {"activate-node", "deactivate-node", "get-fab"}
    assert ours - short == {f"/v1/fleet/{call}" for call in seldom}


@pytest.mark.parametrize("call", sorted(calls(1)))
def test_a_couriers_call_is_answered_alike(both, node, call):
    status, _ = both(f"/v1/fleet/{call}", calls(node)[call], signed())
    assert status != 401


@pytest.mark.parametrize("call", sorted(calls(1)))
@pytest.mark.parametrize("of", ["nobody", "another key", "another node", "long ago"])
def test_nobody_comes_by_the_short_road_who_would_not_by_the_long_one(both, node, call, of):
    headers, body = signed(), calls(node)[call]
    if of == "nobody":
        headers = headers[:1]
    elif of == "another key":
        headers = signed(key=ec.generate_private_key(ec.SECP384R1()))
    elif of == "another node":
        body = calls(node + 1)[call]
    else:
        headers = signed(age_s=3600)
    status, _ = both(f"/v1/fleet/{call}", body, headers)
    assert status == 401


@pytest.mark.parametrize("remembering", [False, True])
def test_a_signature_that_held_does_not_hold_for_another_key_second_or_node(
    both, node, remembering
):
    if remembering:
        short_road.remember_signatures()
    body = calls(node)["pull-messages"]
    good = signed()
    for _ in range(3):
        assert both("/v1/fleet/pull-messages", body, good)[0] == 200
    another = dict(good)
    another[TIMESTAMP_HEADER.lower().encode()] = dict(signed(age_s=60))[
        TIMESTAMP_HEADER.lower().encode()
    ]
    assert both("/v1/fleet/pull-messages", body, list(another.items()))[0] == 401
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    another = dict(good)
    another[FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()] = b64encode(public_key_to_bytes(key))
    assert both("/v1/fleet/pull-messages", body, list(another.items()))[0] == 401
    stranger = PullMessagesRequest(node=Node(node_id=node + 1)).SerializeToString()
    assert both("/v1/fleet/pull-messages", stranger, good)[0] == 401


def test_a_key_that_is_none_is_refused_where_signatures_are_remembered(both, node):
    short_road.remember_signatures()
    headers = dict(signed())
    headers[FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()] = b64encode(b"no key")
    assert (
        both("/v1/fleet/pull-messages", calls(node)["pull-messages"], list(headers.items()))[0]
        == 401
    )


@pytest.mark.parametrize("change", ["media type", "body", "method"])
def test_what_is_no_call_is_refused_alike(both, node, change):
    headers, body, method = signed(), calls(node)["pull-messages"], "POST"
    if change == "media type":
        headers = [(b"content-type", b"text/plain"), *headers[1:]]
    elif change == "body":
        body = b"\xff\xff\xff"
    else:
        method = "GET"
    status, _ = both("/v1/fleet/pull-messages", body, headers, method)
    assert 400 <= status < 500


@pytest.mark.parametrize(
    ("call", "request_"),
    [("get-nodes", GetNodesRequest()), ("pull-messages", PullAppMessagesRequest())],
)
@pytest.mark.parametrize("token", [(), ("nobody's",), ("one", "two")])
def test_no_task_comes_by_the_short_road_without_its_token(both, call, request_, token):
    headers = [(b"content-type", b"application/protobuf")]
    headers += [(b"flwr-task-token", each.encode()) for each in token]
    status, _ = both(f"/v1/runtime/{call}", request_.SerializeToString(), headers)
    assert status in (401, 403)


def test_a_switched_on_event_log_or_tracing_takes_the_long_road(app, monkeypatch):
    scope = {"path": "/v1/fleet/pull-messages", "method": "POST", "app": app}
    assert short_road.is_short(scope)
    monkeypatch.setenv("FLWR_TRACING_ENABLED", "1")
    assert not short_road.is_short(scope)
    monkeypatch.delenv("FLWR_TRACING_ENABLED")
    # By hand: monkeypatch takes the application's words for those of its class, and removes them.
    app.state.fleet_event_log_plugin = object()
    try:
        assert not short_road.is_short(scope)
    finally:
        app.state.fleet_event_log_plugin = None

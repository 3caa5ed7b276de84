"""Which requests the SuperLink answers to whom, when nothing stands in front of it."""

from __future__ import annotations

import asyncio
import sys

import pytest
from flwr.superlink import extensions

from aggregator.rounds.guarded_superlink import HOOK, SitesOnly, install, may_pass

FAR, HERE = "203.0.113.9", "192.0.2.1"


@pytest.mark.parametrize("path", ["/health", "/v1/fleet/register-node", "/v1/fleet/a/b"])
def test_the_sites_paths_are_answered_to_everybody(path):
    assert may_pass(path, FAR, HERE)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/healthy", ""),
        *("/v1/fleet", "/v1/fleet/../control/start-run", "/v1/fleet//x", "/V1/FLEET/x", "/health/"),
    ],
)
def test_every_other_path_is_answered_on_this_machine_only(path):
    assert not may_pass(path, FAR, HERE)
    for client, server in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), (HERE, HERE)):
        assert may_pass(path, client, server)


@pytest.mark.parametrize("client", [None, "", "unix", "localhost.evil"])
def test_a_peer_without_an_address_is_not_on_this_machine(client):
    assert not may_pass("/v1/control/start-run", client, None)


def answered(scope: dict) -> list[dict]:
    sent: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    async def receive():
        return {}

    asyncio.run(SitesOnly(app)(scope, receive, send))
    return sent


def test_a_refusal_is_a_403_and_a_websocket_gets_nothing():
    scope = {"path": "/docs", "client": (FAR, 1), "server": (HERE, 2)}
    assert answered({**scope, "type": "http"})[0]["status"] == 403
    assert answered({**scope, "type": "websocket"}) == []
    assert answered({**scope, "type": "http", "path": "/health"})[0]["status"] == 200
    assert answered({"type": "lifespan"})[0]["status"] == 200


def test_flower_finds_the_guard_where_it_looks_for_extensions():
    assert extensions.get_middleware() == ()
    try:
        install()
        assert [entry.cls for entry in extensions.get_middleware()] == [SitesOnly]
    finally:
        sys.modules.pop(HOOK, None)

"""Which requests the SuperLink answers to whom, when nothing stands in front of it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys

import psutil
import pytest
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.superlink import extensions
from flwr.superlink.routers.fleet import node_auth
from flwr.supernode.fleet_http_client import FleetHttpClient

from aggregator.handshake import listeners
from aggregator.rounds.guarded_superlink import FOR_SITES, HOOK, SitesOnly, install, may_pass
from aggregator.rounds.short_road import SEVERAL
from common.wire.several import PULL_PIECES, PUSH_PIECES
from site_client.courier import fleet, pieces

FAR, HERE, NEAR = "203.0.113.9", "192.0.2.1", "127.0.0.1"


@pytest.mark.parametrize("path", sorted(FOR_SITES))
def test_the_sites_calls_are_answered_to_everybody(path):
    assert may_pass(path, FAR, HERE)


def test_the_list_is_the_calls_that_a_courier_makes():
    """As the courier's two modules name them and Flower's client spells their paths."""
    source = inspect.getsource(fleet) + inspect.getsource(pieces)
    made = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self._client"
    }
    paths = {
        match[1]
        for name in made
        if callable(method := getattr(FleetHttpClient, name, None))
        and (match := re.search(r'"(/v1/fleet/[a-z-]+)"', inspect.getsource(method)))
    }
    several = {f"/v1/fleet/{call}" for call in (PULL_PIECES, PUSH_PIECES)}
    assert several <= SEVERAL.keys()
    of_a_supernode = {"/v1/fleet/get-fab"}  # the app, which our couriers never ask for
    assert paths | several | of_a_supernode | {"/health"} == FOR_SITES


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/runtime/acquire-task"),
        *("/healthy", "", "/v1/fleet", "/v1/fleet/", "/v1/fleet/../control/start-run"),
        *("/v1/fleet//x", "/V1/FLEET/pull-messages", "/health/", "/health?x", "//health"),
        *("/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/pull-messages/"),
        *("/v1/fleet/..", "/v1/fleet/..;/x", "/v1/fleet/%2e%2e/control/start-run"),
        *("/v1/fleet/pull-messages\0", "/v1/fleet/pull-messages\n", "/v1/fleet/get-fabs"),
    ],
)
def test_every_other_path_is_refused_to_other_machines(path):
    assert not may_pass(path, FAR, HERE)


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/v1/runtime/acquire-task"])
def test_flowers_own_programs_come_over_loopback_at_both_ends(path):
    for client, server in ((NEAR, NEAR), ("::1", "::1"), ("::ffff:127.0.0.1", "::ffff:127.0.0.1")):
        assert may_pass(path, client, server)
    for client, server in ((FAR, NEAR), (NEAR, HERE), (None, NEAR), (NEAR, None)):
        assert not may_pass(path, client, server)


@pytest.mark.parametrize("own", ["10.0.2.100", "192.0.2.1", "fd00::1"])
def test_a_peer_with_the_address_that_it_connected_to_is_a_stranger(own):
    """Behind rootless containers' user-mode networks everybody has it."""
    assert not may_pass("/v1/control/start-run", own, own)


@pytest.mark.parametrize("path", ["/docs", "/v1/control/", "/v1/control/../x", "/v1/other/x", "/"])
def test_what_nobody_needs_is_refused_on_this_machine_too(path):
    assert not may_pass(path, NEAR, NEAR)


@pytest.mark.parametrize("client", [None, "", "unix", "localhost", "localhost.evil", "127.evil"])
def test_a_peer_without_an_address_is_not_on_this_machine(client):
    assert not may_pass("/v1/control/start-run", client, NEAR)


def test_what_listens_elsewhere_listens_on_loopback_too():
    bound = listeners("127.0.0.2", 0)
    assert [listener.getsockname()[0] for listener in bound] == ["127.0.0.2"]
    for listener in bound:
        listener.close()
    everywhere = listeners("0.0.0.0", 0)  # noqa: S104
    assert len(everywhere) == 1
    everywhere[0].close()


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


def test_flower_finds_the_guard_where_it_looks_for_extensions(monkeypatch):
    # What the guard replaces is put back.
    for place, name in (
        (node_auth, "verify_signature"),
        (node_auth, "bytes_to_public_key"),
        (SqlCoreState, "_cleanup_expired_task_tokens"),
    ):
        monkeypatch.setattr(place, name, getattr(place, name))
    assert extensions.get_middleware() == ()
    try:
        install()
        assert [entry.cls for entry in extensions.get_middleware()] == [SitesOnly]
    finally:
        sys.modules.pop(HOOK, None)


def test_a_superlink_ends_with_the_process_that_started_it():
    """A child that watches its parent, an orphan soon after: it is gone within seconds."""
    watching = (
        "import os, threading, time\n"
        "from aggregator.rounds.guarded_superlink import end_with\n"
        "threading.Thread(target=end_with, args=(os.getppid(), 0.05), daemon=True).start()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    starting = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[1]])\n"
        "time.sleep(60)\n"
    )
    words = [sys.executable, "-c", starting, watching]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    try:
        child.wait(30)
    finally:
        if child.is_running():
            child.kill()

"""A real federation behind a real nginx with deploy/proxy/nginx.conf: what passes, what does not.

The SuperLink is the one that ``cairn-aggregator up`` starts, on loopback; the site
knows only the proxy's address.
"""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from tests.programs import PORTS, Federation, free_ports

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "deploy" / "proxy" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed on this machine"),
]


def configured(text: str, **changes: str) -> str:
    """The shipped file with other ports and places; every change must find its text."""
    for old, new in changes.items():
        pattern = {
            "listen": r"listen 8443 ",
            "superlink": r"127\.0\.0\.1:9443;",
            "enrolment": r"127\.0\.0\.1:9444;",
            "tls": r"/etc/cairn/",
            "writes": r"/tmp/nginx",
            "log": r"/dev/std(out|err)",
        }[old]
        text, found = re.subn(pattern, new, text)
        assert found, old
    return text


class Proxied(Federation):
    """The federation, whose address is the proxy's port; ``superlink`` is behind it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.port = free_ports(1 + PORTS)
        self.superlink = self.port + 1

    def ask(self, method: str, target: str, port: int = 0, body: bytes | None = None) -> int:
        """HTTP status for a request target that is sent exactly as given."""
        context = ssl.create_default_context(cafile=str(self.root / "federation/pki/ca.crt"))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port or self.port, timeout=20, context=context
        )
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            connection.putheader("Content-Type", "application/x-protobuf")
            connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory) -> Iterator[Proxied]:
    here = Proxied(tmp_path_factory.mktemp("proxied"))
    root, superlink = here.root, here.superlink
    try:
        here.init("--behind-proxy", "--port", str(superlink))
        tls = root / "tls"
        tls.mkdir()
        for name in ("server.crt", "server.key", "ca.crt"):
            shutil.copy(root / "federation" / "pki" / name, tls / name)
        conf = root / "nginx.conf"
        conf.write_text(
            configured(
                CONF.read_text(encoding="utf-8"),
                listen=f"listen 127.0.0.1:{here.port} ",
                superlink=f"127.0.0.1:{superlink};",
                enrolment=f"127.0.0.1:{superlink + 1};",
                tls=f"{tls}/",
                writes=f"{root}/nginx",
                log=f"{root}/proxy-\\1.log",
            )
        )
        here.start("nginx", str(NGINX), "-p", str(root), "-c", str(conf), "-g", "daemon off;")
        here.start_aggregator()
        here.join("site-a", "--new-federation-key")
        alone = {"least_known": "0", "least_in_sum": "0", "quorum": "[1, 1000]"}
        here.allow("site-a", approval='"bounded"', **alone)
        here.start_site("site-a")
        yield here
    finally:
        here.stop()


def test_a_site_that_knows_only_the_proxy_finishes_a_run(proxied):
    proxied.wait_for("site-a-courier", "online")
    plan = proxied.write_plan(rounds=1, deadline=60, quorum=1)
    said = proxied.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "1", "--watch"),
    )
    assert "verdict=COMPLETED" in said
    log = proxied.root / "proxy-out.log"
    # The first heartbeat is due seconds after the site came online: a short run may end before.
    for call in ("activate-node", "pull-messages", "push-objects", "send-node-heartbeat"):
        answered = re.compile(rf'"POST /v1/fleet/{call}" 200 ')
        proxied.wait(lambda line=answered: line.search(log.read_text()), call, 30)


def test_health_and_its_clock_are_told(proxied):
    assert proxied.ask("GET", "/health") == 200


@pytest.mark.parametrize(
    "call",
    [
        ("POST", "/v1/control/list-runs"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/runtime/push-object"),
    ],
)
def test_what_anybody_could_do_at_the_superlink_nobody_can_do_at_the_proxy(proxied, call):
    method, target = call
    assert proxied.ask(method, target, proxied.superlink) != 404, "the path exists on loopback"
    assert proxied.ask(method, target) == 404


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health/",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/control/../fleet/pull-messages",
        "/v1/control/list-runs?/v1/fleet/pull-messages",
        "/v1/control/list-runs%00/v1/fleet/pull-messages",
        "//v1/control/list-runs",
        "/v1//fleet/pull-messages",
        "/V1/CONTROL/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/pull-messages;x",
        "/cairn.desk.v1.Coordinator/StartRound",
        "/cairn.desk.v1.Enrolment/../Coordinator/StartRound",
        "/grpc.health.v1.Health/Check",
        "/metrics",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_spelling_gets_through(proxied, target, method):
    assert proxied.ask(method, target) in (400, 404)


def test_only_the_methods_that_a_call_has_pass(proxied):
    assert proxied.ask("GET", "/v1/fleet/pull-messages") == 404
    assert proxied.ask("POST", "/health") == 404
    assert proxied.ask("DELETE", "/v1/fleet/pull-messages", body=b"") == 404
    assert proxied.ask("GET", "/health?x=1") == 404


def largest_call() -> bytes:
    """The largest thing that Flower's fleet client says about a message of 12 MB."""
    array = Array(np.random.default_rng(0).integers(0, 256, 12_000_000, dtype=np.uint8))
    nested = get_all_nested_objects(RecordDict({"r": ArrayRecord({"a": array})}))
    calls = [
        PushObjectRequest(
            node=Node(node_id=2**63),
            run_id=2**63,
            object_id=name,
            object_content=part.deflate(),
            session_id=name,
        ).SerializeToString()
        for name, part in nested.items()
    ]
    assert len(calls) >= 3, "a message travels in pieces"
    return max(calls, key=len)


def test_the_largest_piece_of_a_message_fits_and_a_larger_body_does_not(proxied):
    piece = largest_call()
    assert len(piece) > 5 * 2**20
    fits = proxied.ask("POST", "/v1/fleet/push-object", body=piece)
    assert fits not in (404, 413, 502, 504), "the SuperLink itself refused it"
    assert proxied.ask("POST", "/v1/fleet/push-object", body=bytes(9 * 2**20)) == 413


def test_an_older_tls_is_refused(proxied):
    context = ssl.create_default_context(cafile=str(proxied.root / "federation/pki/ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", proxied.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_the_log_holds_no_header_and_no_body(proxied):
    proxied.ask("POST", "/v1/fleet/pull-messages", body=b"secret-in-a-body")
    proxied.ask("GET", "/nothing?token=secret-in-a-query")
    time.sleep(0.3)
    logs = "".join(path.read_text() for path in proxied.root.glob("proxy-*.log"))
    assert "/nothing" in logs
    assert "secret-in" not in logs


def test_a_site_joins_through_the_proxy_and_nobody_coordinates_through_it(proxied):
    log = (proxied.root / "proxy-out.log").read_text()
    assert re.search(r'"POST /cairn\.desk\.v1\.Enrolment/Enrol" 200 ', log), "the site's own join"
    authority = (proxied.root / "federation" / "pki" / "ca.crt").read_bytes()
    trusted = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(f"127.0.0.1:{proxied.port}", trusted) as channel:
        for method in ("Coordinator/ListSites", "Coordinator/StartRound"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/cairn.desk.v1.{method}")(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED, method


def test_tokens_cannot_be_guessed_in_a_hurry(proxied):
    authority = (proxied.root / "federation" / "pki" / "ca.crt").read_bytes()
    trusted = grpc.ssl_channel_credentials(authority)
    codes = []
    with grpc.secure_channel(f"127.0.0.1:{proxied.port}", trusted) as channel:
        call = channel.unary_unary("/cairn.desk.v1.Enrolment/Enrol")
        for _ in range(40):
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=20)
            codes.append(refused.value.code())
    assert codes[0] is not grpc.StatusCode.UNAVAILABLE, "the desk itself refused the first"
    assert codes[-1] is grpc.StatusCode.UNAVAILABLE, "the proxy did not ask it any more"


def test_what_joined_sites_ask_of_the_desk_is_not_counted_with_tokens(proxied):
    """Several sites behind one address ask twice in three seconds each."""
    authority = (proxied.root / "federation" / "pki" / "ca.crt").read_bytes()
    trusted = grpc.ssl_channel_credentials(authority)
    codes = set()
    with grpc.secure_channel(f"127.0.0.1:{proxied.port}", trusted) as channel:
        call = channel.unary_unary("/cairn.desk.v1.Enrolment/ListPeers")
        for _ in range(60):
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=20)
            codes.add(refused.value.code())
    assert len(codes) == 1, codes
    assert not codes & {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED}, codes

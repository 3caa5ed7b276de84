"""The desk's listeners: enrolment, coordinators, metrics; started and stopped together.

Both gRPC listeners speak TLS 1.3 with the federation's certificate, and that is
tried at every start: a desk that would take less does not open. The coordinators'
listener asks for a client certificate by the federation's authority during the
handshake, before a byte of a request is read.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from wsgiref.simple_server import WSGIServer

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import start_http_server

from aggregator.admin.folder import FederationFolder
from aggregator.bells import Bells, make_folder
from aggregator.desk.coordinator import MOST_WATCHERS, CoordinatorService
from aggregator.desk.enrolment import EnrolmentService
from aggregator.desk.local import LocalDesk
from aggregator.desk.metrics import Metrics
from aggregator.desk.telling import MOST_STREAMS, Telling
from aggregator.handshake import insist_on_tls_1_3
from common.desk import desk_pb2, desk_pb2_grpc
from common.desk.channel import MAX_MESSAGE
from common.errors import InputDataError

ENROL_BYTES = 1024 * 1024
ENROL_THREADS = MOST_STREAMS + 8
"""A stream holds a thread that sleeps; threads are made when they are needed."""
DESK_THREADS = MOST_WATCHERS + 8
GRACE_S = 2.0
_TLS_ADVICE = "Unset GRPC_SSL_CIPHER_SUITES; gRPC must not be imported before `common`"
_SERVICES = desk_pb2.DESCRIPTOR.services_by_name


class DeskServer:
    """Everything of a federation that listens beside Flower.

    Args:
        folder: the federation's.
    """

    def __init__(self, folder: FederationFolder) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._servers: list[grpc.Server] = []
        self._health = health.HealthServicer()
        self._bells: Bells | None = None
        self._metrics: WSGIServer | None = None

    def start(self) -> None:
        """Open the three listeners.

        Raises:
            InputDataError: a port is taken.
            InternalError: TLS 1.2 would be spoken.
        """
        settings = self._folder.settings()
        desk = LocalDesk(self._folder)
        metrics = Metrics(desk)
        pair = ((self._folder.pki / "server.key").read_bytes(), self._chain())
        enrolment = self._server(ENROL_THREADS, ENROL_BYTES)
        self._bells = Bells(make_folder(self._folder.order_bells))
        self._bells.start()
        desk_pb2_grpc.add_EnrolmentServicer_to_server(
            EnrolmentService(
                self._folder, metrics.count, telling=Telling(self._bells, time.monotonic)
            ),
            enrolment,
        )
        coordinators = self._server(DESK_THREADS, MAX_MESSAGE)
        desk_pb2_grpc.add_CoordinatorServicer_to_server(
            CoordinatorService(desk, metrics.count, self._stop), coordinators
        )
        places = settings.listeners()
        try:
            _listen(enrolment, *places["enrolment"], grpc.ssl_server_credentials([pair]))
            authority = (self._folder.pki / "ca.crt").read_bytes()
            _listen(
                coordinators,
                *places["coordinators"],
                grpc.ssl_server_credentials([pair], authority, require_client_auth=True),
            )
            host, port = places["metrics"]
            try:
                self._metrics, _ = start_http_server(port, host, metrics.registry)
            except OSError as error:
                raise _taken(host, port, error.strerror or "an error") from error
            for name in ("", *(service.full_name for service in _SERVICES.values())):
                self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take no new request, end the watches, close."""
        self._stop.set()
        if self._bells is not None:
            self._bells.stop()
            self._bells = None
        self._health.enter_graceful_shutdown()
        for ending in [server.stop(GRACE_S) for server in self._servers]:
            ending.wait(2 * GRACE_S)
        self._servers.clear()
        if self._metrics is not None:
            self._metrics.shutdown()
            self._metrics.server_close()
            self._metrics = None

    def _server(self, threads: int, largest: int) -> grpc.Server:
        server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="desk"),
            options=(
                # Two federations on one port must be an error, not a lottery.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.max_connection_idle_ms", 600_000),
            ),
            maximum_concurrent_rpcs=threads + 64,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._servers.append(server)
        return server

    def _chain(self) -> bytes:
        return (self._folder.pki / "server.crt").read_bytes()


def _listen(server: grpc.Server, host: str, port: int, credentials: grpc.ServerCredentials) -> None:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise _taken(host, port, "one that is taken, or not this machine's") from error
    server.start()
    insist_on_tls_1_3(host, port, "the desk", _TLS_ADVICE)


def _taken(host: str, port: int, got: str) -> InputDataError:
    return InputDataError(
        "the desk cannot listen",
        field=f"{host}:{port}",
        expected="a free port of this machine",
        got=got,
        advice="Stop what listens there, or change federation.toml",
    )

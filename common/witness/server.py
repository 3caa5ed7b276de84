"""A witness's door to the network: one small HTTP server, bounded in every direction.

Each connection has one thread, few are served at once, and each request must be whole
within seconds; what is longer, slower or other than the protocol ends the connection. A
failure inside ends in a number, never in a text about it.

Source: RFC 9112, by h11; C2SP tlog-witness.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h11

from common.errors import CairnError, InputDataError
from common.witness.judging import Judge
from common.witness.wire import ADD_CHECKPOINT, MAX_REQUEST_BYTES, Answer

CONNECTIONS = 32
REQUEST_S = 10.0
IDLE_S = 60.0
MAX_HEAD_BYTES = 16 * 1024
_READ_BYTES = 16 * 1024
_ACCEPT_S = 0.2
LOG = logging.getLogger("cairn.witness")


@dataclass(frozen=True)
class Address:
    """Where to listen, and with which certificate.

    Attributes:
        host: an address of this machine.
        port: 0: any free one.
        certificate, key: PEM files; without them the connection is not encrypted.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None


class WitnessServer:
    """Answers requests by one judge. Use as a context manager; ``serve`` until stopped.

    Args:
        judge: decides.
        address: where to listen.
        clock: seconds that only go up.

    Raises:
        InputDataError: the address is taken, or the certificate cannot be used.
    """

    def __init__(
        self, judge: Judge, address: Address, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._judge = judge
        self._clock = clock
        self._tls = _tls(address)
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            self._listener = socket.create_server((address.host, address.port), family=family)
        except (OSError, OverflowError) as error:
            raise InputDataError(
                "the witness cannot listen",
                field=f"{address.host}:{address.port}",
                expected="a free port of this machine",
                got=getattr(error, "strerror", None) or "an error",
            ) from error
        self._listener.settimeout(_ACCEPT_S)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> WitnessServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def serve(self, stop: threading.Event) -> None:
        """Answer until ``stop`` is set; a full house lets newcomers wait in the kernel's queue."""
        while not stop.is_set():
            if not self._slots.acquire(timeout=_ACCEPT_S):
                continue
            try:
                connection, _ = self._listener.accept()
            except OSError:  # nobody came, or one who came has left already
                self._slots.release()
                continue
            threading.Thread(target=self._connected, args=(connection, stop), daemon=True).start()

    def _connected(self, connection: socket.socket, stop: threading.Event) -> None:
        try:
            connection.settimeout(REQUEST_S)
            with self._secured(connection) as secured:
                _Conversation(secured, self._answer, self._clock).go_on(stop)
        except (OSError, h11.RemoteProtocolError) as error:
            LOG.debug("a connection ended: %s", type(error).__name__)
        except Exception:
            # Whatever one connection brings must not end the others.
            LOG.exception("a connection failed")
        finally:
            connection.close()
            self._slots.release()

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_side=True)

    def _answer(self, method: str, path: str, body: bytes) -> Answer:
        parts = path.strip("/").split("/")
        try:
            if method == "POST" and parts[-1] == ADD_CHECKPOINT:
                return self._judge.add_checkpoint(body)
            if method == "GET" and len(parts) >= 2 and parts[-1] == "checkpoint":
                return self._judge.checkpoint(parts[-2])
        except CairnError as error:
            LOG.error("nothing was cosigned: %s", error)  # noqa: TRY400 - it says all there is
            return Answer(500, b"this witness cannot answer now\n")
        return Answer(404, b"add-checkpoint, or <origin digest>/checkpoint\n")


class _Conversation:
    """Requests and answers on one connection, until one side ends it."""

    def __init__(
        self,
        connection: socket.socket,
        answer: Callable[[str, str, bytes], Answer],
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._clock = clock
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._deadline = clock() + REQUEST_S

    def go_on(self, stop: threading.Event) -> None:
        """Answer one request after the other.

        Raises:
            OSError, h11.RemoteProtocolError: the connection ends.
        """
        while not stop.is_set():
            request = self._next()
            if not isinstance(request, h11.Request):
                return
            self._deadline = self._clock() + REQUEST_S
            answer = self._respond(request)
            self._send(answer)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()
            self._deadline = self._clock() + IDLE_S

    def _respond(self, request: h11.Request) -> Answer:
        body = b""
        while isinstance(event := self._next(), h11.Data):
            body += bytes(event.data)
            if len(body) > MAX_REQUEST_BYTES:
                return Answer(413, b"too large\n")
        return self._answer(request.method.decode(), request.target.decode(), body)

    def _next(self) -> object:
        """Return the next event, reading as long as that takes and no longer than allowed."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._connection.sendall(
                    self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            left = self._deadline - self._clock()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            self._http.receive_data(self._connection.recv(_READ_BYTES))
        return event

    def _send(self, answer: Answer) -> None:
        headers = [
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(answer.body))),
        ]
        events = [
            h11.Response(status_code=answer.status, headers=headers),
            h11.Data(data=answer.body),
            h11.EndOfMessage(),
        ]
        self._connection.settimeout(REQUEST_S)
        self._connection.sendall(b"".join(self._http.send(event) or b"" for event in events))


def _tls(address: Address) -> ssl.SSLContext | None:
    if address.certificate is None or address.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        raise InputDataError(
            "the witness's certificate cannot be used",
            field=str(address.certificate),
            expected="a PEM certificate and its key",
            got=type(error).__name__,
        ) from error
    return context

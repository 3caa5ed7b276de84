"""The courier's wire: no request without its line in the journal, and every byte counted.

One transport for everything that the courier says over HTTP. It knows a closed set of
requests, writes each down before the first byte of it leaves, and asks the kernel what
the connection's socket sent. It follows no redirection and heeds no proxy of the
environment: the receiver is the one that the site has joined.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from common.errors import RefusedError
from common.journal import RequestJournal
from common.journal.entries import KINDS, Kind, Receiver
from common.journal.meters import count
from common.journal.writer import Measure

_RECORD = 16_384
_OVERHEAD = {"TLSv1.3": 22, "TLSv1.2": 29}
_PATHS: dict[str, Kind] = {f"/v1/fleet/{kind}": kind for kind in KINDS}
_OF_WITNESSES: dict[tuple[str, str], Kind] = {
    ("POST", "add-checkpoint"): "add-checkpoint",
    ("GET", "checkpoint"): "get-checkpoint",
}
"""By method and the path's last part: a witness's address may have a path of its own."""
NO_PROXY = httpx.Limits(max_connections=1, max_keepalive_connections=1)


def journalled_client(
    journal: RequestJournal, receiver: Receiver, context: ssl.SSLContext, timeout: httpx.Timeout
) -> httpx.Client:
    """Return a client all of whose requests stand in the journal before they are sent.

    Args:
        journal: of the courier.
        receiver: who is spoken to.
        context: whom TLS trusts.
        timeout: of connecting, sending and answering.
    """
    transport = JournalledTransport(journal, receiver, context)
    return httpx.Client(
        transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
    )


class JournalledTransport(httpx.HTTPTransport):
    """HTTP over counted sockets, each request announced.

    Args:
        journal: of the courier.
        receiver: who is spoken to.
        context: whom TLS trusts.
    """

    def __init__(
        self, journal: RequestJournal, receiver: Receiver, context: ssl.SSLContext
    ) -> None:
        super().__init__(verify=context, trust_env=False, limits=NO_PROXY)
        self._journal = journal
        self._receiver = receiver
        self._backend = _Backend(journal, receiver)
        journal.watch(self._backend.look)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=1,
            max_keepalive_connections=1,
            keepalive_expiry=NO_PROXY.keepalive_expiry,
            network_backend=self._backend,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Write the request down, then send it.

        Raises:
            RefusedError: a request that the courier does not make.
            StorageError, VerificationError: it could not be written down.
        """
        kind = self._kind_of(request)
        body = request.read()
        if kind is None:
            raise RefusedError(
                "the courier makes no such request",
                field="request",
                expected="one that the journal knows",
                got="another",
            )
        self._journal.announce(self._receiver, kind, _head_bytes(request) + len(body), body)
        return super().handle_request(request)

    def _kind_of(self, request: httpx.Request) -> Kind | None:
        path = request.url.raw_path.decode("ascii")
        if self._receiver == "witness":
            return _OF_WITNESSES.get((request.method, path.rpartition("/")[2]))
        return _PATHS.get(path) if request.method == "POST" else None


def _head_bytes(request: httpx.Request) -> int:
    """Bytes of a request line and its headers, as HTTP/1.1 writes them."""
    line = len(request.method) + len(request.url.raw_path) + len("  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + 4 for name, value in request.headers.raw) + 2


@dataclass
class _Meter:
    """The counts of one connection, and what of them has been told."""

    sent: int = 0
    resent: int = 0
    received: int = 0
    plain: int = 0
    tls: int = 0


class _Backend(httpcore.SyncBackend):
    """Opens connections that are counted."""

    def __init__(self, journal: RequestJournal, receiver: Receiver) -> None:
        self._journal = journal
        self._receiver = receiver
        self._streams: set[_Stream] = set()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, and count from here."""
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        self._journal.measured(self._receiver, Measure(opened=1))
        return _Stream(stream, self)

    def look(self) -> None:
        """Tell the journal what all connections counted since the last time."""
        for stream in list(self._streams):
            stream.tell()

    def tell(self, measure: Measure) -> None:
        """Pass counts on to the journal."""
        self._journal.measured(self._receiver, measure)

    def opened(self, stream: _Stream) -> None:
        """Remember an open connection."""
        self._streams.add(stream)

    def closed(self, stream: _Stream) -> None:
        """Forget it."""
        self._streams.discard(stream)


class _Stream(httpcore.NetworkStream):
    """A connection whose written bytes are counted, inside TLS and on the socket."""

    def __init__(self, inner: httpcore.NetworkStream, backend: _Backend) -> None:
        self._inner = inner
        self._backend = backend
        self._told = _Meter()
        self._plain = self._tls = 0
        self._overhead = 0
        backend.opened(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what came."""
        return self._inner.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, counted first: a write that fails half-way may have sent any part."""
        if buffer:
            self._plain += len(buffer)
            self._tls += self._overhead * -(-len(buffer) // _RECORD)
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        """Count a last time, and hang up."""
        self.tell()
        self._backend.closed(self)
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Begin TLS; what the socket sent until it stands is the handshake."""
        self._backend.closed(self)
        stream = _Stream(
            self._inner.start_tls(ssl_context, server_hostname, timeout), self._backend
        )
        secure = stream.get_extra_info("ssl_object")
        stream._overhead = _OVERHEAD.get(secure.version() or "", 29)
        counted = stream._count()
        if counted is None:
            self._backend.tell(Measure(unmeasured=1))
        else:
            stream._told = _Meter(counted.sent, counted.resent, counted.received)
            self._backend.tell(
                Measure(
                    handshake=counted.sent,
                    sent=counted.sent,
                    resent=counted.resent,
                    received=counted.received,
                )
            )
        return stream

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        """Tell what the connection beneath tells."""
        return self._inner.get_extra_info(info)

    def tell(self) -> None:
        """Hand on what was counted since the last time."""
        counted, before = self._count(), self._told
        if counted is None:
            return
        self._told = _Meter(counted.sent, counted.resent, counted.received, self._plain, self._tls)
        self._backend.tell(
            Measure(
                plain=self._plain - before.plain,
                tls=self._tls - before.tls,
                sent=counted.sent - before.sent,
                resent=counted.resent - before.resent,
                received=counted.received - before.received,
            )
        )

    def _count(self) -> Any:  # noqa: ANN401 - Counted or None
        beneath = self._inner.get_extra_info("socket")
        return count(beneath) if isinstance(beneath, socket.socket) else None

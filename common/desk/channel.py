"""The client's end of the desk: look who answers, then speak to it.

Only the federation's own authority is trusted, whatever the machine trusts
otherwise. What can never work (another authority, another host, an expired
certificate) is told apart from what may work later (nobody answers).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from common.desk.failures import error_of
from common.errors import InputDataError, UnreachableError, VerificationError

CONNECT_S = 3.0
CALL_S = 10.0
MAX_MESSAGE = 64 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_CERTIFICATE_PROBLEMS = {
    10: "a certificate that has expired (or this machine's clock is wrong)",
    9: "a certificate that is not yet valid (look at this machine's clock)",
    62: "a certificate for another host name",
    64: "a certificate for another address",
}


@dataclass(frozen=True)
class DeskAddress:
    """A desk's address, and what proves that it is the federation's.

    Attributes:
        address: host:port.
        authority: PEM of the federation's CA.
        certificate: PEM of our client certificate; empty at the enrolment desk.
        key: PEM of its private key.
    """

    address: str
    authority: bytes
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The two parts; an IPv6 address without its brackets."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


class CallMeter(Protocol):
    """Whoever keeps book of what is said to a desk, before it is said."""

    def greeting(self) -> None:
        """Hear that a connection is about to be made that says nothing."""

    def greeted(self, connection: socket.socket) -> None:
        """Count it before it ends."""

    def calling(self, method: str, message: bytes) -> None:
        """Hear of a call that is about to be made; what it raises, prevents it."""

    def closing(self) -> None:
        """Count the connection of the calls before it ends."""


def greet(desk: DeskAddress, meter: CallMeter | None = None) -> None:
    """Connect once over TLS 1.3 and hang up: is somebody there, and is it the federation?

    Args:
        desk: whom to look for.
        meter: keeps book.

    Raises:
        UnreachableError: nobody answers within three seconds.
        VerificationError: somebody else does, or an expired or foreign certificate.
        InputDataError: the authority is no certificate.
    """
    try:
        context = ssl.create_default_context(cadata=desk.authority.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise InputDataError(
            "not a certificate", field="authority", expected="PEM", got="another text"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    host, port = desk.host_and_port
    if meter is not None:
        meter.greeting()
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            if meter is not None:
                meter.greeted(secure)
            return
    except ssl.SSLCertVerificationError as error:
        raise VerificationError(
            "the server is not the federation's",
            field=desk.address,
            expected="a certificate by the authority of the invite, for this host",
            got=_CERTIFICATE_PROBLEMS.get(error.verify_code, "a certificate by another authority"),
            advice="Compare address and CA fingerprint with the coordinator by telephone",
        ) from error
    except ssl.SSLError as error:
        raise VerificationError(
            "the server does not speak as the federation's does",
            field=desk.address,
            expected="TLS 1.3",
            got=(error.reason or type(error).__name__).lower().replace("_", " "),
            advice="Check host and port with the coordinator",
        ) from error
    except (OSError, OverflowError, UnicodeError) as error:
        raise UnreachableError(
            "the aggregator cannot be reached",
            field=desk.address,
            expected="an answer within 3 s",
            got=_why(error),
            advice="Check the address; outbound connections to it must be allowed",
        ) from error


@contextmanager
def connected(desk: DeskAddress, meter: CallMeter | None = None) -> Iterator[grpc.Channel]:
    """Open a channel to a desk that was looked at first; closed at the end.

    What a call on it raises comes out as the error that the desk meant.

    Args:
        desk: whom to speak to.
        meter: keeps book of every call.

    Raises:
        CairnError: of ``greet``, or of the desk.
    """
    greet(desk, meter)
    with open_channel(desk) as channel, told(desk):
        if meter is None:
            yield channel
            return
        try:
            yield grpc.intercept_channel(channel, _Announcing(meter))
        finally:
            meter.closing()


def open_channel(desk: DeskAddress, *options: tuple[str, int]) -> grpc.Channel:
    """Open a channel to a desk that was looked at; for whoever closes it.

    Args:
        desk: whom to speak to.
        options: gRPC's, beside ours.
    """
    credentials = grpc.ssl_channel_credentials(
        desk.authority, desk.key or None, desk.certificate or None
    )
    return grpc.secure_channel(desk.address, credentials, options=(*_OPTIONS, *options))


class _Announcing(grpc.UnaryUnaryClientInterceptor):
    """Tells a meter of every call before it is made."""

    def __init__(self, meter: CallMeter) -> None:
        self._meter = meter

    def intercept_unary_unary(
        self,
        continuation: Any,  # noqa: ANN401 - grpc's
        client_call_details: Any,  # noqa: ANN401
        request: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Tell, then call."""
        method = str(client_call_details.method).rpartition("/")[2]
        self._meter.calling(method, request.SerializeToString())
        return continuation(client_call_details, request)


@contextmanager
def told(desk: DeskAddress) -> Iterator[None]:
    """Turn what a call raises into the error that the desk meant.

    Raises:
        CairnError: that error.
    """
    try:
        yield
    except grpc.RpcError as failure:
        raise error_of(failure, desk.address) from failure


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "silence"
    if isinstance(error, socket.gaierror):
        return "no such host name"
    return getattr(error, "strerror", None) or type(error).__name__

"""Sockets to listen on, and TLS 1.3 and nothing less: set at every end, tried at every start.

What a listener is configured to take is one thing, what it takes is another: each one is
asked for TLS 1.2 once it is open, and an aggregator that would speak it does not start.
"""

from __future__ import annotations

import socket
import ssl

from aggregator.admin.folder import is_loopback
from common.errors import InternalError

_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere listens here


def trusting(authority: bytes) -> ssl.SSLContext:
    """Return a client's context that trusts one authority and speaks TLS 1.3 only.

    Args:
        authority: PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def insist_on_tls_1_3(host: str, port: int, what: str, advice: str) -> None:
    """Return only if a listener of this machine refuses a handshake with TLS 1.2.

    Args:
        host: where it listens.
        port: where it listens.
        what: listens there, in words.
        advice: what to do if it does not.

    Raises:
        InternalError: it takes TLS 1.2.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with socket.create_connection((_NEAR.get(host, host), port), timeout=5) as plain:
            context.wrap_socket(plain).close()
    except (ssl.SSLError, ConnectionError):
        return
    raise InternalError(
        f"{what} would speak TLS 1.2",
        field=f"{host}:{port}",
        expected="TLS 1.3 and nothing less",
        got="a handshake with TLS 1.2",
        advice=advice,
    )


def listeners(host: str, port: int) -> list[socket.socket]:
    """Bind a port at an address, and at loopback where that is not in it.

    Raises:
        OSError: one of them is taken, or not this machine's.
    """
    everywhere = host in ("", "0.0.0.0", "::")  # noqa: S104
    hosts = [host] if everywhere or is_loopback(host) else [host, "127.0.0.1"]
    bound: list[socket.socket] = []
    try:
        for place in hosts:
            family, kind, protocol, _, address = socket.getaddrinfo(
                place or "0.0.0.0",  # noqa: S104
                port,
                type=socket.SOCK_STREAM,
                flags=socket.AI_PASSIVE,
            )[0]
            listener = socket.socket(family, kind, protocol)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place != "::"))
            listener.bind(address)
    except OSError:
        for listener in bound:
            listener.close()
        raise
    return bound

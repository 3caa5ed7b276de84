"""Probes of the federation's own server: whether it answers, and what its clock says.

Nothing is sent but a question for its health; no key is used and nothing is kept.
"""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import parsedate_to_datetime

from common.errors import UnreachableError, VerificationError

TIMEOUT_S = 3.0
LARGEST_SKEW_S = 4.0
"""Node authentication signs the time: the server takes 5 s ahead and 305 s behind."""


def probe(address: str, authority: str) -> float | None:
    """Connect over TLS 1.3 with the federation's authority only, and read the server's clock.

    Returns:
        Seconds by which this machine's clock is ahead, or None if the server does not say.

    Raises:
        UnreachableError: no connection.
        VerificationError: the certificate is not of this authority and host.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        with (
            socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return _ahead(secure)
    except ssl.SSLError as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
        raise VerificationError(
            "the server is not the federation's",
            field=address,
            expected="a valid certificate by the federation's own authority",
            got=reason or (error.reason or type(error).__name__).lower().replace("_", " "),
            advice="Compare the authority's fingerprint with the coordinator by telephone",
        ) from error
    except (OSError, OverflowError) as error:
        raise UnreachableError(
            "the server cannot be reached",
            field=address,
            got=getattr(error, "strerror", None) or type(error).__name__,
            advice="Outbound connections to this host and port must be allowed",
        ) from error


def _ahead(connection: ssl.SSLSocket) -> float | None:
    """Difference to the Date header of an HTTP answer, if there is one in time."""
    data = b""
    try:
        while b"\r\n\r\n" not in data and len(data) < 16_384:
            piece = connection.recv(4096)
            if not piece:
                break
            data += piece
    except TimeoutError:
        return None
    for line in data.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"date":
            try:
                # The header counts whole seconds: on average half of one has passed.
                their_time = parsedate_to_datetime(value.decode("ascii")).timestamp() + 0.5
                return time.time() - their_time
            except (ValueError, OverflowError, TypeError):
                return None
    return None

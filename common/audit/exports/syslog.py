"""Syslog messages over TLS to a hospital's log server, each with a certificate on both sides.

One connection carries a batch. Syslog acknowledges nothing, so a batch has arrived when the
server answers our TLS close, which it reads last. rsyslog closes without that answer: then
its kernel must have confirmed every byte and ended the stream in order, for a program that
ends with bytes unread resets the connection. Anything else counts as not sent and goes out
again; the id in every message lets the server drop what it has twice.

TLS 1.2 is the least, as IHE ATNA has it: the server is the hospital's own, and older than
this program more often than not.

Source: RFC 5424, RFC 5425 (octet counting), DICOM PS3.15 A.6, IHE ITI-20.
"""

from __future__ import annotations

import fcntl
import re
import socket
import ssl
import struct
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.audit.exports.dicom import MOST_BYTES, message
from common.audit.exports.event import AuditEvent
from common.errors import InputDataError, InternalError, UnreachableError, VerificationError

PORT: Final = 6514
TIMEOUT_S: Final = 30.0
PATIENCE_S: Final = 0.5
"""A server that does not accept our certificate closes within this time of our last byte."""
_GLANCE_S: Final = 0.02
_FACILITY: Final = 10  # security/authorization
_SEVERITY: Final = {"done": 5, "refused": 4, "alert": 2}  # notice, warning, critical
_BOM: Final = b"\xef\xbb\xbf"
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?")
_UNPRINTABLE: Final = re.compile(r"[^!-~]")


@dataclass(frozen=True)
class Server:
    """A log server and what is needed to speak to it.

    Attributes:
        host, port: where it listens.
        authority: certificates that its own must come from.
        certificate, key: ours.
        name: that its certificate must have; the host where omitted.
    """

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path
    name: str | None = None

    @property
    def address(self) -> str:
        """Host and port, as one types them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> tuple[str, int]:
    """Split ``HOST[:PORT]``; 6514 where no port is named.

    Raises:
        InputDataError: it is no address.
    """
    match = _ADDRESS.fullmatch(text)
    port = int(match[2] or PORT) if match else 0
    if match is None or not 0 < port < 65_536:
        raise InputDataError(
            "not the address of a log server",
            field="--to",
            expected="HOST or HOST:PORT; IPv6 in brackets",
            got="another text",
        )
    return match[1].strip("[]"), port


def syslog_message(event: AuditEvent, host: str) -> bytes:
    """Return one RFC 5424 message around a DICOM audit message.

    Args:
        event: what happened.
        host: name of this machine, for the header.

    Raises:
        InternalError: longer than every receiver takes.
    """
    priority = _FACILITY * 8 + _SEVERITY[event.outcome]
    origin = _UNPRINTABLE.sub("-", host)[:255] or "-"
    header = f"<{priority}>1 {event.time} {origin} cairn - DICOM+RFC3881 - "
    data = header.encode("ascii") + _BOM + message(event)
    if len(data) > MOST_BYTES:
        raise InternalError(
            "an audit message is too long", expected=f"at most {MOST_BYTES}", got=f"{len(data)}"
        )
    return data


def frame(data: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425, section 4.3)."""
    return b"%d %b" % (len(data), data)


def send(server: Server, events: Iterable[AuditEvent], host: str) -> None:
    """Send a batch; when this returns the server has read it.

    Args:
        server: who gets it.
        events: the batch.
        host: name of this machine, for the headers.

    Raises:
        InputDataError: a certificate or key cannot be read.
        VerificationError: the server is not who it should be, or does not accept us.
        UnreachableError: everything else; the batch counts as not sent.
    """
    data = b"".join(frame(syslog_message(event, host)) for event in events)
    context = _context(server)
    try:
        with (
            socket.create_connection((server.host, server.port), timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=server.name or server.host) as secured,
        ):
            secured.sendall(data)
            _require_patience(secured)
            _await_the_end(secured)
    except ssl.SSLCertVerificationError as error:
        raise VerificationError(
            "the log server's certificate does not hold",
            field=server.address,
            expected="one by the authority given with --ca, for this name",
            got=error.verify_message,
            advice="Nothing was sent. Check --ca and --tls-name",
        ) from error
    except ssl.SSLError as error:
        raise _unsent(server, f"TLS ended with {error.reason or 'an error'}") from error
    except OSError as error:
        raise _unsent(server, error.strerror or type(error).__name__) from error


def _require_patience(secured: ssl.SSLSocket) -> None:
    """Wait a moment, and refuse a server that closes before we do.

    A server may look at our certificate only after its handshake, and then closes with all of
    our bytes read and no word of why: for TCP that is an ordinary end. One that accepts us
    waits for more.

    Raises:
        OSError: it closed.
    """
    until, limit = time.monotonic() + PATIENCE_S, secured.gettimeout()
    try:
        while (seconds := until - time.monotonic()) > 0:
            secured.settimeout(seconds)
            try:
                if not secured.recv(1):
                    raise ConnectionResetError(0, "the server closed first")
            except ssl.SSLEOFError as error:
                raise ConnectionResetError(0, "the server closed first") from error
            except TimeoutError:
                return
    finally:
        secured.settimeout(limit)


def _await_the_end(secured: ssl.SSLSocket) -> None:
    """Close, and return once the server has read everything.

    Raises:
        OSError: it may not have.
    """
    try:
        secured.unwrap()
    except ssl.SSLEOFError:
        deadline = time.monotonic() + TIMEOUT_S
        while _unconfirmed(secured) and time.monotonic() < deadline:
            time.sleep(_GLANCE_S)
        unread = _unconfirmed(secured)
        error = secured.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error or unread:  # a reset empties the queue, too, and is told by its error
            raise ConnectionResetError(error, "the server closed without reading all") from None


def _unconfirmed(secured: ssl.SSLSocket) -> int:
    """Return the bytes that the other side's kernel has not confirmed yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(secured.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _context(server: Server) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=server.authority)
        context.load_cert_chain(server.certificate, server.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InputDataError(
            "the certificates for the log server cannot be used",
            field=f"{server.authority}, {server.certificate} or {server.key}",
            expected="PEM files, the key without a password",
            got=type(error).__name__,
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("keys with a password are not asked for one here")


def _unsent(server: Server, got: str) -> UnreachableError:
    return UnreachableError(
        "the log server did not take the batch",
        field=server.address,
        expected="a TLS connection that both sides close",
        got=got,
        advice="It is sent again by the next run with the same --state; see the server's log",
    )

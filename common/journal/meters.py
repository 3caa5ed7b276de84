"""The kernel's counts: of one TCP connection, and of the network this process is in.

Reads only. Source: Linux ``tcp(7)``, ``struct tcp_info`` of linux/tcp.h; its fields keep
their places for good, later kernels only append.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.journal.entries import Network

_INFO_BYTES = 256
_RECEIVED_AT, _NOT_SENT_AT, _SENT_AT, _RESENT_AT = 128, 144, 200, 208


@dataclass(frozen=True)
class Counted:
    """Bytes of one connection, without headers.

    Attributes:
        sent: handed to the kernel, repeats aside.
        resent: repeats.
        received: in order.
    """

    sent: int
    resent: int
    received: int


def count(connection: socket.socket) -> Counted | None:
    """Read the kernel's counters of a TCP connection; None where it keeps none."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    if len(info) < _RESENT_AT + 8:
        return None
    (received,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
    (waiting,) = struct.unpack_from("=I", info, _NOT_SENT_AT)
    sent, resent = struct.unpack_from("=QQ", info, _SENT_AT)
    return Counted(sent - resent + waiting, resent, received)


def connections_to(host: str, port: int, besides: frozenset[int]) -> Iterator[Counted]:
    """Count the connections that this process holds to an address, whoever opened them.

    Args:
        host: name or address.
        port: of the receiver.
        besides: inodes of sockets that are counted elsewhere; see ``open_sockets``.
    """
    for connection in sockets_to(host, port, besides):
        with connection:
            counted = count(connection)
        if counted is not None:
            yield counted


def sockets_to(host: str, port: int, besides: frozenset[int]) -> Iterator[socket.socket]:
    """Return the connections that this process holds to an address, for who closes them.

    Each is a descriptor of its own: it tells the counts also when its owner has hung up.

    Args:
        host: name or address.
        port: of the receiver.
        besides: inodes of sockets that are counted elsewhere.
    """
    with suppress(OSError):
        places = {place[4][:2] for place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        for inode, descriptor in open_sockets().items():
            if inode in besides:
                continue
            with suppress(OSError):
                connection = socket.socket(fileno=os.dup(descriptor))
                try:
                    peer = connection.getpeername()
                except OSError:
                    peer = None
                if isinstance(peer, tuple) and _plain(peer[:2]) in places:
                    yield connection
                else:
                    connection.close()


def network(proc: Path = Path("/proc")) -> Network | None:
    """Read what left this network altogether, loopback aside; None where nobody tells.

    Args:
        proc: where the kernel tells; another place in tests.
    """
    try:
        lines = (proc / "self" / "net" / "dev").read_text(encoding="ascii").splitlines()
        rows = [line.partition(":") for line in lines if ":" in line]
        sent = [row.split()[8:10] for name, _, row in rows if name.strip() != "lo"]
        return Network(
            sent_bytes=sum(int(pair[0]) for pair in sent),
            sent_packets=sum(int(pair[1]) for pair in sent),
        )
    except (OSError, ValueError, IndexError):
        return None


def open_sockets() -> dict[int, int]:
    """Return the descriptors of this process's sockets, by inode."""
    sockets: dict[int, int] = {}
    with suppress(OSError):
        for entry in list(Path("/proc/self/fd").iterdir()):
            with suppress(OSError):
                if str(entry.readlink()).startswith("socket:"):
                    descriptor = int(entry.name)
                    sockets[os.fstat(descriptor).st_ino] = descriptor
    return sockets


def _plain(peer: tuple[str, int]) -> tuple[str, int]:
    """Write an IPv4 address that came over an IPv6 socket as IPv4 does."""
    host, port = peer
    return host.removeprefix("::ffff:"), port

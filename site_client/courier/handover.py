"""Orders and replies by way of a stock SuperNode, where a network already runs one.

Flower's own program then holds the connection, and the app that it starts for each message
(`carried`) brings the message here, over a socket in the courier's folder, and takes the
answer along. Everything else stays: what comes is as strange as if it came from the network,
and what goes has passed the second door and stands in the journal. What the SuperNode sends
besides, nobody here can measure; the journal says what it was handed.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from google.protobuf.message import DecodeError

from common.errors import (
    InputDataError,
    InternalError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from common.journal import RequestJournal
from common.wire.parcel import MAX_PARCEL_BYTES
from common.wire.transport import CODE, PARCEL, RECORD
from site_client.courier.fleet import Incoming, message_from_stub

SOCKET: Final = "handover.sock"
MOST_STUB_BYTES: Final = 1 << 16
READ_S: Final = 60.0
"""A message that does not come whole within it is dropped."""
MOST_WAITING: Final = 8
"""Messages that wait for their answers; more are turned away and come again."""
_HEAD: Final = struct.Struct(">IQ")  # length of the stub, or the number; length of the parcel
LOG = logging.getLogger("cairn.courier")


@contextmanager
def socket_name(folder: Path) -> Iterator[str]:
    """Yield a name of the folder's socket that is short enough, however deep the folder lies.

    Raises:
        OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def write_frame(connection: socket.socket, number: int, stub: bytes, parcel: bytes) -> None:
    """Send one frame.

    Args:
        connection: a connected stream.
        number: length of the stub of a message; of an answer, a courier's number or 0.
        stub: of a message; empty of an answer.
        parcel: that is carried; may be empty.
    """
    connection.sendall(_HEAD.pack(number, len(parcel)) + stub)
    if parcel:  # who has read a number whole may be gone by now
        connection.sendall(parcel)


def read_message(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read the stub and the parcel of a message.

    Raises:
        RefusedError: longer than a message may be, or cut short.
    """
    stub, size = _read_head(connection, MOST_STUB_BYTES)
    return _read(connection, stub), _read(connection, size)


def read_incoming(connection: socket.socket) -> Incoming:
    """Read a message as a courier's connection would have brought it.

    Raises:
        RefusedError: not a message of Flower's, too long, or cut short.
    """
    stub, parcel = read_message(connection)
    try:
        message = message_from_stub(stub)
        metadata = message.metadata
        expires = float(metadata.created_at + metadata.ttl)
    except (DecodeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise RefusedError(
            "not a message", field="stub", expected="Flower's", got=type(error).__name__
        ) from error
    return Incoming(message, metadata.run_id, expires, parcel)


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read a courier's number, 0 for none, and the parcel of an answer.

    Raises:
        RefusedError: longer than an answer may be, or cut short.
    """
    number, size = _read_head(connection, 255)
    return number, _read(connection, size)


def _read_head(connection: socket.socket, largest: int) -> tuple[int, int]:
    number, size = _HEAD.unpack(_read(connection, _HEAD.size))
    if number > largest or size > MAX_PARCEL_BYTES:
        raise RefusedError(
            "not a message",
            field="length",
            expected=f"at most {largest} and {MAX_PARCEL_BYTES}",
            got=f"{number} and {size}",
        )
    return number, size


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(1 << 20, size - len(data)))
        if not piece:
            raise RefusedError(
                "a message was cut short", field="length", expected=str(size), got=str(len(data))
            )
        data += piece
    return bytes(data)


class Handover:
    """A courier's connection that a SuperNode holds; see ``Carrier``.

    Args:
        folder: ``courier/`` of the site, in which the socket is made.
        journal: in which every answer stands before it is handed over.
        rang: called when a message came; from another thread.

    Raises:
        InputDataError: the socket cannot be made.
    """

    def __init__(self, folder: Path, journal: RequestJournal, rang: Callable[[], None]) -> None:
        self._folder, self._journal, self._rang = folder, journal, rang
        self._came: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: dict[str, socket.socket] = {}
        self._server = self._listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def activate(self, known_node_id: int | None) -> int | None:
        """See ``Carrier``: the SuperNode does, and tells nobody its id."""
        del known_node_id
        return None

    def heartbeat(self) -> bool:
        """See ``Carrier``: the SuperNode does."""
        return True

    def pull(self) -> Incoming | None:
        """Return the next message that came, or None."""
        try:
            return self._came.get_nowait()
        except queue.Empty:
            return None

    def app_digest(self, run_id: int) -> str | None:
        """See ``Carrier``: what a SuperNode started is not told here, and would prove nothing."""
        del run_id
        return None

    def push(self, content: RecordDict, reply_to: Message) -> None:
        """Hand over the answer to a message.

        Raises:
            UnreachableError: the app that brought the message is gone, and may come again.
            VerificationError: nobody waits any longer.
        """
        metadata = reply_to.metadata
        with self._lock:
            connection = self._waiting.pop(metadata.message_id, None)
        if connection is None:
            if time.time() >= metadata.created_at + metadata.ttl:
                raise VerificationError("nobody waits for the reply", got="a message that is over")
            raise UnreachableError(
                "the SuperNode does not wait for this reply yet",
                advice="See whether flower-supernode runs here; it brings the message again",
            )
        number, parcel = _said(content)
        head = _HEAD.pack(number, len(parcel))
        self._journal.announce("supernode", "hand-over", len(head) + len(parcel), head + parcel)
        try:
            with connection:
                write_frame(connection, number, b"", parcel)
        except OSError as error:
            raise UnreachableError("the SuperNode did not take the reply") from error

    def close(self) -> None:
        """Take no more messages; those that wait are brought again to the next courier."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._lock:
            for connection in self._waiting.values():
                connection.close()
            self._waiting.clear()
        with suppress(OSError), socket_name(self._folder) as name:
            Path(name).unlink()

    def _listen(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_name(self._folder) as name:
                # What an earlier courier left; anything else there is not ours to remove.
                with suppress(FileNotFoundError):
                    if stat.S_ISSOCK(os.lstat(name).st_mode):
                        Path(name).unlink()
                mask = os.umask(0o177)
                try:
                    server.bind(name)
                finally:
                    os.umask(mask)
            server.listen(MOST_WAITING)
        except OSError as error:
            server.close()
            raise InputDataError(
                "a SuperNode cannot be waited for",
                field=str(self._folder / SOCKET),
                expected="a socket that can be made here",
                got=error.strerror or "an error",
            ) from error
        return server

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        """Take in one message, and keep its connection for the answer."""
        connection.settimeout(READ_S)
        try:
            incoming = self._read(connection)
        except (OSError, RefusedError) as error:
            LOG.warning("what a SuperNode brought was not taken in: %s", error)
            connection.close()
            return
        name = incoming.message.metadata.message_id
        with self._lock:
            earlier = self._waiting.pop(name, None)
            self._waiting[name] = connection
        if earlier is not None:
            earlier.close()
        self._came.put(incoming)
        self._rang()

    def _read(self, connection: socket.socket) -> Incoming:
        """Read one message, unless too many wait.

        Raises:
            RefusedError: not a message, or one too many.
        """
        with self._lock:
            waiting = len(self._waiting)
        if waiting >= MOST_WAITING:
            raise RefusedError("too many messages wait", expected=f"at most {MOST_WAITING}")
        return read_incoming(connection)


def _said(content: RecordDict) -> tuple[int, bytes]:
    """Return the number, or 0, and the parcel that an answer of ours holds."""
    record = content[RECORD]
    if isinstance(record, ConfigRecord):
        return int(str(record[CODE])), b""
    if not isinstance(record, ArrayRecord):
        raise InternalError("an answer of no known form", got=type(record).__name__)
    return 0, record[PARCEL].numpy().tobytes()

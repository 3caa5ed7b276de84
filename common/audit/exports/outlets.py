"""Where exported events go: a file that grows, a file written anew, a log server, a stream."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from common.audit.exports.event import AuditEvent
from common.audit.exports.syslog import Server, send
from common.ledger.durable import fsync_directory, replace_durably

Render = Callable[[AuditEvent], bytes]


class Outlet(Protocol):
    """A destination of events."""

    @property
    def name(self) -> str:
        """Name of it, for the state of an export."""

    def put(self, events: Sequence[AuditEvent], written: int) -> int:
        """Put events there; when this returns they have arrived.

        Args:
            events: in order.
            written: what the last call returned; 0 before the first.
        """


@dataclass(frozen=True)
class GrowingFile:
    """A file of lines that is only added to; a log shipper may read it meanwhile.

    Attributes:
        path: of the file.
        form: its format, for the name.
        render: one line of one event; it names the event's ``id``.
    """

    path: Path
    form: str
    render: Render

    @property
    def name(self) -> str:
        """Name of it, for the state of an export."""
        return f"{self.form} in {self.path.resolve()}"

    def put(self, events: Sequence[AuditEvent], written: int) -> int:
        """Add what is not there yet, and return the file's length.

        Lines past ``written`` are from an export that was stopped before it could note
        them: those are not written again. A torn last line is taken back first. A file
        that is shorter was put away by whoever rotates logs: the next one begins.
        """
        with self.path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            start = written if written <= file.tell() else 0
            file.seek(start)
            tail = file.read()
            whole = tail[: tail.rfind(b"\n") + 1]
            if len(whole) < len(tail):
                file.truncate(start + len(whole))
            there = {_id_of(line) for line in whole.splitlines()}
            file.write(b"".join(self.render(each) for each in events if each.id not in there))
            file.flush()
            os.fsync(file.fileno())
            length = file.seek(0, os.SEEK_END)
        fsync_directory(self.path.parent)
        return length


@dataclass(frozen=True)
class WholeFile:
    """A file that is written anew, whole or not at all."""

    path: Path
    form: str
    render: Callable[[Sequence[AuditEvent]], bytes]

    @property
    def name(self) -> str:
        """Name of it."""
        return f"{self.form} in {self.path.resolve()}"

    def put(self, events: Sequence[AuditEvent], written: int) -> int:  # noqa: ARG002 - nothing is added to
        """Replace the file."""
        replace_durably(self.path, self.render(events))
        return 0


@dataclass(frozen=True)
class Stream:
    """Standard output, or what stands for it."""

    stream: BinaryIO
    form: str
    render: Callable[[Sequence[AuditEvent]], bytes]

    @property
    def name(self) -> str:
        """Name of it."""
        return f"{self.form} on standard output"

    def put(self, events: Sequence[AuditEvent], written: int) -> int:  # noqa: ARG002 - nothing is kept
        """Write everything."""
        self.stream.write(self.render(events))
        self.stream.flush()
        return 0


@dataclass(frozen=True)
class LogServer:
    """A syslog server over TLS.

    Attributes:
        server: where, and with which certificates.
        host: name of this machine, for the headers.
    """

    server: Server
    host: str

    @property
    def name(self) -> str:
        """Name of it, for the state of an export."""
        return f"dicom to {self.server.address}"

    def put(self, events: Sequence[AuditEvent], written: int) -> int:  # noqa: ARG002 - it counts nothing
        """Send everything over one connection."""
        if events:
            send(self.server, events, self.host)
        return 0


def _id_of(line: bytes) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return ""
    return str(value.get("id", "")) if isinstance(value, dict) else ""

"""The writing half of the journal: on the disk first, then on the wire.

Several threads and programs of one site may write; a lock on the file keeps their lines
apart. A line that a crash cut short was never followed by a request and is removed. A
journal whose end does not hold is not continued: then nothing is sent.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import VerificationError
from common.journal.entries import (
    CONTROL,
    MAX_LINE_BYTES,
    NOTHING_BEFORE,
    Allow,
    Allowance,
    Begin,
    Code,
    Entry,
    Kind,
    Link,
    Network,
    Part,
    Receiver,
    Refuse,
    Release,
    Request,
    Settle,
    Use,
    entry_line,
    parse_entry,
)
from common.journal.identity import CourierIdentity
from common.ledger.durable import fsync_directory, storage_error, write_all
from common.ledger.records import RefusalDetail, format_timestamp

WINDOW_S = 600.0
"""Control traffic is counted at least so often, so that a crash hides few minutes of counters."""


@dataclass(frozen=True)
class Site:
    """The site whose journal it is."""

    federation: str
    site: str


@dataclass(frozen=True)
class Measure:
    """The kernel's counts of one connection, or of a part of its life; see ``Link``."""

    handshake: int = 0
    plain: int = 0
    tls: int = 0
    sent: int = 0
    received: int = 0
    resent: int = 0
    opened: int = 0
    unmeasured: int = 0


class RequestJournal:
    """One program's part of a site's journal.

    Args:
        path: of the file; created.
        identity: the courier's keys.
        site: whose journal it is.
        clock: current time, aware.
        network: reads the counters of the courier's own network; None where it has none.
    """

    def __init__(
        self,
        path: Path,
        identity: CourierIdentity,
        site: Site,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        network: Callable[[], Network | None] = lambda: None,
    ) -> None:
        self._path = path
        self._identity = identity
        self._site = site
        self._clock = clock
        self._network = network
        self._lock = threading.RLock()
        self._session: int | None = None
        self._last = (-1, -1, NOTHING_BEFORE)  # size of the file, seq and digest of its last line
        self._used: Counter[Kind] = Counter()
        self._used_bytes: Counter[Kind] = Counter()
        self._links: dict[Receiver, Link] = {}
        self._window = 0.0
        self._looks: list[Callable[[], None]] = []

    def watch(self, look: Callable[[], None]) -> None:
        """Have somebody asked for their counts before they are written down.

        Args:
            look: calls ``measured`` for connections that are still open.
        """
        self._looks.append(look)

    def announce(self, receiver: Receiver, kind: Kind, size: int, body: bytes) -> None:
        """Write down a request that is about to be sent; control traffic is only counted.

        Args:
            receiver: of the request.
            kind: of the request.
            size: bytes on the inside of TLS.
            body: of the request.

        Raises:
            StorageError: the disk did not take it; the request must not be sent.
            VerificationError: the journal's end does not hold; likewise.
        """
        with self._lock:
            most, largest = CONTROL.get(kind, (0, -1))
            if size > largest:
                self._append(
                    Request,
                    receiver=receiver,
                    kind=kind,
                    bytes=size,
                    body=len(body),
                    sha256=sha256_hex(body),
                )
                return
            is_over = self._used[kind] >= most or time.monotonic() - self._window > WINDOW_S
            if self._window and is_over:
                self.settle()
            if not self._window:
                self._allow()
            self._used[kind] += 1
            self._used_bytes[kind] += size

    def release(
        self,
        order: str | None,
        parcel: bytes,
        parts: tuple[Part, ...],
        size: int,
        root: bytes,
        policy_sha256: str,
    ) -> None:
        """Write down a reply that passed the second door and may be pushed; see ``Release``.

        Raises:
            StorageError, VerificationError: as ``announce``.
        """
        with self._lock:
            self._append(
                Release,
                order=order,
                sha256=sha256_hex(parcel),
                bytes=len(parcel),
                parts=parts,
                size=size,
                root=root.hex(),
                policy_sha256=policy_sha256,
            )

    def code(self, code: int, order: str | None = None) -> None:
        """Write down a number that the courier is about to say by itself.

        Raises:
            StorageError, VerificationError: as ``announce``.
        """
        with self._lock:
            self._append(Code, order=order, code=code)

    def refuse(self, what: str, detail: RefusalDetail, data: bytes | None = None) -> None:
        """Write down what the second door held back.

        Args:
            what: ``reply``, ``keys``, ``stranger`` or ``folder``.
            detail: why.
            data: what was read of it; None where nothing was.

        Raises:
            StorageError, VerificationError: as ``announce``.
        """
        read = {} if data is None else {"bytes": len(data), "sha256": sha256_hex(data)}
        with self._lock:
            self._append(Refuse, what=what, detail=detail, **read)

    def measured(self, receiver: Receiver, measure: Measure) -> None:
        """Add what the kernel counted; it stands in the next SETTLE."""
        with self._lock:
            link = self._links.get(receiver, Link(receiver=receiver))
            self._links[receiver] = Link(
                receiver=receiver,
                connections=link.connections + measure.opened,
                handshake=link.handshake + measure.handshake,
                plain=link.plain + measure.plain,
                tls=link.tls + measure.tls,
                sent=link.sent + measure.sent,
                received=link.received + measure.received,
                resent=link.resent + measure.resent,
                unmeasured=link.unmeasured + measure.unmeasured,
            )

    def settle(self) -> None:
        """Count the control traffic up to here, and what the sockets counted; nothing if nothing.

        Raises:
            StorageError, VerificationError: as ``announce``.
        """
        with self._lock:
            for look in self._looks:
                look()
            if self._session is None or not (self._used or self._links):
                return
            self._append(
                Settle,
                used=tuple(
                    Use(kind=kind, count=self._used[kind], bytes=self._used_bytes[kind])
                    for kind in sorted(self._used)
                ),
                links=tuple(self._links[receiver] for receiver in sorted(self._links)),
                network=self._network(),
            )
            self._used.clear()
            self._used_bytes.clear()
            self._links.clear()
            self._window = 0.0

    def roots(self) -> dict[int, bytes]:
        """Return the roots of checkpoints that releases rested on, by size."""
        with self._locked() as descriptor:
            data = _read_from(descriptor, 0)
        return dict(_roots(data, self._identity.key.public))

    def _allow(self) -> None:
        allowed = tuple(
            Allowance(kind=kind, most=most, bytes=largest)
            for kind, (most, largest) in sorted(CONTROL.items())
        )
        self._append(Allow, control=allowed)
        self._window = time.monotonic()

    def _append(self, form: type[Entry], **fields: object) -> None:
        """Write and fsync one line; the first of a session is its BEGIN."""
        try:
            with self._locked() as descriptor:
                self._find_end(descriptor)
                if self._session is None:
                    identity = self._identity
                    self._session = self._last[1] + 1
                    self._write(
                        descriptor,
                        Begin,
                        federation=self._site.federation,
                        site=self._site.site,
                        journal_key=identity.key.public.text,
                        node_key=identity.node_key,
                        certificate=identity.certificate,
                        network=self._network(),
                    )
                self._write(descriptor, form, **fields)
                os.fsync(descriptor)
        except OSError as error:
            raise storage_error(error, self._path) from error

    def _write(self, descriptor: int, form: type[Entry], **fields: object) -> None:
        size, seq, digest = self._last
        entry = form.model_validate(
            {
                "seq": seq + 1,
                "prev": digest,
                "ts": format_timestamp(self._clock()),
                "session": self._session,
                **fields,
            }
        )
        line = entry_line(entry, self._identity.key)
        self._last = (-1, -1, NOTHING_BEFORE)  # unknown, should the disk refuse
        write_all(descriptor, line + b"\n")
        self._last = (size + len(line) + 1, seq + 1, sha256_hex(line))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        is_new = not self._path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _broken("a plain file", "something else")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_new:
                fsync_directory(self._path.parent)
            yield descriptor
        finally:
            os.close(descriptor)

    def _find_end(self, descriptor: int) -> None:
        """Learn what the last line is, if it is not the one that we wrote."""
        size = os.fstat(descriptor).st_size
        if size == self._last[0]:
            return
        start = max(0, size - 2 * MAX_LINE_BYTES)
        tail = _read_from(descriptor, start)
        whole, end, _ = tail.rpartition(b"\n")
        if len(whole) + len(end) != len(tail):
            os.ftruncate(descriptor, start + len(whole) + len(end))
        if not end:
            if start:
                raise _broken("a line", "none")
            self._last = (0, -1, NOTHING_BEFORE)
            return
        line = whole.rpartition(b"\n")[2]
        try:
            last = parse_entry(line, self._identity.key.public)
        except VerificationError as error:
            raise _broken("a last line of ours", error.diagnosis) from error
        self._last = (start + len(whole) + 1, last.seq, sha256_hex(line))


def _read_from(descriptor: int, start: int) -> bytes:
    pieces = []
    while piece := os.pread(descriptor, 1 << 20, start):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _roots(data: bytes, key: PublicKey) -> Iterator[tuple[int, bytes]]:
    for line in data.split(b"\n"):
        if b'"RELEASE"' not in line:
            continue
        try:
            entry = parse_entry(line, key)
        except VerificationError:
            continue
        if isinstance(entry, Release):
            yield entry.size, bytes.fromhex(entry.root)


def _broken(expected: str, got: str) -> VerificationError:
    return VerificationError(
        "the courier's journal does not hold; nothing is sent",
        field="journal.jsonl",
        expected=expected,
        got=got,
        advice="Keep the file for the auditor, and find out who changed it. Moved away, a new one "
        "begins, and the audit will say that the old one is missing",
    )

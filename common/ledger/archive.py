"""The bytes that a ledger's records name, held against what the records say of them.

Every payload that was released lies here until the policy's rule has it deleted, which
is a record of its own; orders, plans and policies stay. What lies here and belongs to no
record was never released, or was put here: it is said, and never passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from common.canonical import sha256_hex
from common.errors import VerificationError
from common.ledger.layout import MAX_PAYLOAD_BYTES, Layout
from common.ledger.reading import names_in, read_if_there
from common.ledger.records import LedgerRecord

MAX_DOCUMENT_BYTES: Final = 1 << 20
_HEX: Final = frozenset("0123456789abcdef")


class Opener(Protocol):
    """Whoever opens what was released and holds it against record, plan and policy.

    Every method raises a ``CairnError`` for what does not hold; that breaks the record.
    """

    def expect(self, record: LedgerRecord) -> None:
        """Hear of the next record, before anything that it names is read."""
        ...

    def open(self, record: LedgerRecord, payload: bytes) -> None:
        """Open a payload whose digest and size are the record's."""
        ...


class Archive:
    """The archive of one ledger, read as its records go by."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._declared: dict[str, int] = {}
        self._absent: dict[str, int] = {}
        self._expired: set[str] = set()
        self._documents: set[str] = set()

    @property
    def declared(self) -> dict[str, int]:
        """Bytes of every payload that SEND declares, by digest."""
        return self._declared

    def document(self, digest: str, what: str) -> bytes | None:
        """Return an order, a plan or a policy; None where its text is not here.

        Raises:
            VerificationError: other bytes lie under its digest, or no plain file.
        """
        data = read_if_there(self._layout.payload(digest), what, MAX_DOCUMENT_BYTES)
        if data is not None and sha256_hex(data) != digest:
            raise VerificationError(
                f"the {what} that it names was altered",
                field=digest[:16],
                expected="bytes with this SHA-256",
                got="other bytes",
            )
        return data

    def follow(self, record: LedgerRecord, opener: Opener | None) -> None:
        """Hold what one record names against what lies here.

        Raises:
            CairnError: it does not hold.
        """
        if opener is not None:
            opener.expect(record)
        for what, digest in (
            ("plan", record.plan_fingerprint),
            ("policy", record.policy_sha256),
            ("order", record.order_sha256),
            ("stop", record.payload_sha256 if record.event == "STOP" else None),
        ):
            if digest is not None and digest not in self._documents:
                self._documents.add(digest)
                self.document(digest, what)
        if record.event == "SEND":
            self._follow_release(record, opener)
        elif record.event == "EXPIRE":
            self._follow_expiry(record)
        elif record.event in ("STOP", "RESTORE"):
            self._documents.add(record.payload_sha256 or "")

    def _follow_release(self, record: LedgerRecord, opener: Opener | None) -> None:
        digest, size = record.payload_sha256 or "", record.bytes or 0
        if self._declared.setdefault(digest, size) != size:
            raise _wrong("bytes", "the size declared before", "another size")
        self._expired.discard(digest)
        payload = self._payload(digest, size)
        if payload is None:
            self._absent.setdefault(digest, record.seq)
        elif opener is not None:
            opener.open(record, payload)

    def _payload(self, digest: str, size: int) -> bytes | None:
        """Read a payload of exactly the size that its record says, or nothing at all."""
        if size > MAX_PAYLOAD_BYTES:
            raise _wrong("bytes", f"at most {MAX_PAYLOAD_BYTES}", "more")
        data = read_if_there(self._layout.payload(digest), "payload", size)
        if data is not None and (len(data) != size or sha256_hex(data) != digest):
            raise VerificationError(
                f"its payload {digest[:16]} was altered",
                expected=f"{size} bytes with this SHA-256",
                got="other bytes",
            )
        return data

    def _follow_expiry(self, record: LedgerRecord) -> None:
        digest = record.payload_sha256 or ""
        if self._declared.get(digest) != record.bytes:
            raise _wrong("payload_sha256", "a payload released before, of that size", "another")
        self._expired.add(digest)

    def missing(self) -> int | None:
        """Return the first record whose payload is gone without a record of its expiry."""
        gone = (seq for digest, seq in self._absent.items() if digest not in self._expired)
        return min(gone, default=None)

    @property
    def expired(self) -> int:
        """Number of payloads deleted by rule."""
        return len(self._absent)

    @property
    def present(self) -> int:
        """Number of payloads on file."""
        return len(self._declared) - len(self._absent)

    def leftovers(self) -> Leftovers:
        """Look for what belongs to no record.

        Raises:
            VerificationError: a name that no archive has, no plain file, or other bytes than
                a name promises.
        """
        names = set(names_in(self._layout.payloads, "archive"))
        named = set(self._declared) | self._documents
        strange = sorted(name for name in names if len(name) != 64 or not set(name) <= _HEX)
        temporary = sum(name.startswith(".tmp-") for name in strange)
        if len(strange) > temporary:
            raise _wrong("payloads", "only files named by their SHA-256", "another name")
        unnamed = names - named - set(strange)
        for name in unnamed:
            data = read_if_there(self._layout.payload(name), "payload", MAX_PAYLOAD_BYTES)
            if data is not None and sha256_hex(data) != name:
                raise _wrong(f"payloads/{name[:16]}", "bytes with this SHA-256", "other bytes")
        return Leftovers(len(unnamed), temporary)


@dataclass(frozen=True)
class Leftovers:
    """Files that an interrupted release leaves, or that somebody put there.

    Attributes:
        unnamed: files that hold what their names say and that no record names.
        temporary: files of interrupted writes.
    """

    unnamed: int
    temporary: int


def _wrong(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError("the archive does not hold", field=field, expected=expected, got=got)

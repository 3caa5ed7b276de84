"""The site's ledger: record first, sign, and only then may anything leave.

Commit rule, in this order: payload (temporary, fsync, rename, fsync folder),
record appended and fsynced, checkpoint signed (temporary, fsync, rename, fsync
folder). The signed checkpoint is the commit point. On opening, one unfinished
record past it is cut; anything else that disagrees with it refuses to start.
Nothing here re-signs a log it did not write itself, and a ledger that met a
disk error stays broken until it is opened anew.

One process, one thread: the lock file keeps other processes out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self, Unpack

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey, SigningKey, read_public_key
from common.errors import InputDataError, VerificationError
from common.ledger.durable import (
    StorageError,
    fsync_directory,
    remove_temporaries,
    replace_durably,
    storage_error,
    write_all,
)
from common.ledger.layout import MAX_LOG_BYTES, MAX_PAYLOAD_BYTES, Layout
from common.ledger.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash, tree_root
from common.ledger.notes import (
    MAX_NOTE_BYTES,
    Checkpoint,
    ledger_key,
    open_note,
    sign_checkpoint,
    site_of,
)
from common.ledger.parties import NO_FEDERATION, Parties
from common.ledger.proof import Gap, Proof, Reminder
from common.ledger.reading import read_if_there, read_regular
from common.ledger.records import (
    Event,
    LedgerRecord,
    Place,
    RecordFields,
    make_record,
    parse_record,
    parse_timestamp,
    record_line,
)
from common.ledger.recovery import LostTailError, committed_lines, insist_on_root
from common.ledger.rotation import WitnessKeys, open_cosigned, open_rotation

_LOG_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class Entry:
    """A committed record.

    Attributes:
        record: what was written.
        line: its canonical bytes, the leaf of the tree.
        checkpoint: signed note over the log up to and including it.
    """

    record: LedgerRecord
    line: bytes
    checkpoint: bytes

    @property
    def seq(self) -> int:
        """Position in the log."""
        return self.record.seq


class Ledger:
    """The one writer of a ledger folder. Use ``Ledger.open``; it is a context manager."""

    def __init__(
        self,
        layout: Layout,
        origin: str,
        key: SigningKey,
        clock: Callable[[], datetime],
        parties: Parties,
    ) -> None:
        self.origin = origin
        self._parties = parties
        self.site = site_of(origin)
        self._layout = layout
        self._key = key
        self._clock = clock
        self._hashes: list[bytes] = []
        self._offsets: list[int] = [0]  # where each record begins; the last is the end of the log
        self._frontier = Frontier()
        self._digests: dict[tuple[Event, str], int] = {}  # of what the newest record is about
        self._note = b""
        self._latest: datetime | None = None
        self._restores: list[LedgerRecord] = []
        self._shown: int | None = None
        self._shown_lost: LedgerRecord | None = None
        self._broken = False
        self._lock = _take_lock(layout.lock)
        self._log = -1

    @classmethod
    def open(
        cls,
        directory: Path,
        origin: str,
        signing_key: SigningKey,
        clock: Callable[[], datetime],
        parties: Parties = NO_FEDERATION,
    ) -> Self:
        """Open the ledger in ``directory``, creating it with its GENESIS record if there is none.

        Args:
            directory: the ledger's folder; created when absent.
            origin: ``<site>/ledger``, see ``notes.ledger_origin``.
            signing_key: the site's identity.
            clock: current time, aware. A record is never dated before the one ahead of it.
            parties: the federation, and to whom this site releases; in every record.

        Raises:
            VerificationError: the folder does not match its own signed checkpoint,
                a receipt, or this key.
            InputDataError: another process holds the ledger, or a bad origin.
            StorageError: the disk refused.
        """
        layout = Layout(directory)
        site_of(origin)
        try:
            for folder in (directory, layout.receipts, layout.payloads):
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            ledger = cls(layout, origin, signing_key, clock, parties)
            try:
                ledger._recover()
            except BaseException:
                ledger.close()
                raise
        except OSError as error:
            raise storage_error(error, directory) from error
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; harmless to repeat."""
        for descriptor in (self._log, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._log = self._lock = -1

    # Reading.

    @property
    def size(self) -> int:
        """Number of committed records."""
        return len(self._hashes)

    @property
    def checkpoint(self) -> bytes:
        """The signed note over all committed records."""
        return self._note

    @property
    def public_key(self) -> PublicKey:
        """The key this ledger is signed with."""
        return self._key.public

    @property
    def witnessed_size(self) -> int:
        """Size of the largest checkpoint the witness cosigned; 0 without receipts."""
        return self._witnessed_within(self.size)

    def _witnessed_within(self, size: int) -> int:
        """Return the size of the largest receipt that covers no more than the first records."""
        sizes = (int(path.stem) for path in self._layout.receipt_files())
        return max((each for each in sizes if each <= size), default=0)

    @property
    def shown_size(self) -> int:
        """Size of the checkpoint from which the aggregator can follow a proof.

        It is the one beside its newest order. An aggregator that was put back from a backup
        shows an older one than it has cosigned, and goes on from there.
        """
        return self.witnessed_size if self._shown is None else self._shown

    def root_at(self, size: int) -> bytes | None:
        """Return the root over the first ``size`` records; None beyond the log."""
        return tree_root(self._hashes[:size]) if 0 <= size <= self.size else None

    def line(self, seq: int) -> bytes:
        """Return the canonical bytes of record ``seq``.

        Raises:
            InputDataError: no such record, or the ledger is closed.
        """
        if self._log < 0:
            raise InputDataError("the ledger is closed", advice="Open it again")
        if not 0 <= seq < self.size:
            raise InputDataError(
                "no such ledger record", field="seq", expected=f"below {self.size}", got=str(seq)
            )
        start, stop = self._offsets[seq], self._offsets[seq + 1]
        return os.pread(self._log, stop - start - 1, start)

    def records(self) -> Iterator[LedgerRecord]:
        """Every committed record, oldest first."""
        for seq in range(self.size):
            yield parse_record(self.line(seq), f"record #{seq}")

    def find(self, payload_sha256: str, event: Event = "SEND") -> LedgerRecord | None:
        """Return the newest record of this event about this payload, if any."""
        seq = self._digests.get((event, payload_sha256))
        return None if seq is None else parse_record(self.line(seq), f"record #{seq}")

    def payload(self, payload_sha256: str) -> bytes | None:
        """Return a spooled payload, or ``None`` when it has expired or never was.

        Raises:
            VerificationError: the file is not what its name says.
            InputDataError: not a digest.
        """
        if len(payload_sha256) != 64 or not set(payload_sha256) <= set("0123456789abcdef"):
            raise InputDataError(
                "not a payload digest", expected="64 lower-case hex digits", got="another text"
            )
        path = self._layout.payload(payload_sha256)
        data = read_if_there(path, "payload", MAX_PAYLOAD_BYTES)
        if data is None:
            return None
        if sha256_hex(data) != payload_sha256:
            raise VerificationError(
                "a spooled payload was altered",
                field=payload_sha256,
                expected="bytes with this SHA-256",
                got="other bytes",
            )
        return data

    def proof(self, seq: int, since: int) -> Proof:
        """Prove to the aggregator that record ``seq`` is in this log for good.

        Several releases that go out together are all appended first and then all
        proven: their proofs share one tree, which the aggregator may see repeatedly.

        Args:
            seq: the record to prove.
            since: size of the last checkpoint the witness cosigned; 0 if none.

        Raises:
            InputDataError: no such record, or ``since`` beyond the log.
        """
        if not 0 <= since <= self.size:
            raise InputDataError(
                "no such earlier checkpoint",
                field="since",
                expected=f"0 to {self.size}",
                got=str(since),
            )
        return Proof(
            record=self.line(seq),
            seq=seq,
            inclusion=tuple(inclusion_proof(self._hashes, seq)),
            checkpoint=self._note,
            since=since,
            consistency=tuple(consistency_proof(self._hashes, since)),
            gap=self._gap(since),
            reminder=self._reminder(since),
        )

    def _reminder(self, since: int) -> Reminder | None:
        """Return the newest receipt, where the aggregator shows that it has forgotten it."""
        newest = self.witnessed_size
        if newest <= since:
            return None
        receipt = self._layout.receipt(newest).read_bytes()
        return Reminder(receipt, tuple(consistency_proof(self._hashes, newest)))

    def gap_after(self, since: int) -> LedgerRecord | None:
        """Return the restore that a proof from ``since`` on must show; None without any.

        It is the one that names what the aggregator shows, else the newest.
        """
        later = [each for each in self._restores if each.seq >= since]
        shown = self._shown_lost
        return shown if shown in later else next(reversed(later), None)

    def _gap(self, since: int) -> Gap | None:
        restored = self.gap_after(since)
        if restored is None:
            return None
        receipt = self._layout.receipt(since)
        return Gap(
            record=self.line(restored.seq),
            seq=restored.seq,
            inclusion=tuple(inclusion_proof(self._hashes, restored.seq)),
            receipt=receipt.read_bytes() if since else b"",
        )

    # Writing.

    def spool(self, payload: bytes) -> str:
        """Archive released bytes durably under their SHA-256, which is returned.

        Raises:
            StorageError: the disk refused, or did so before.
            VerificationError: other bytes lie under that digest.
        """
        self._refuse_if_broken()
        digest = sha256_hex(payload)
        if self.payload(digest) is None:
            try:
                replace_durably(self._layout.payload(digest), payload)
            except OSError as error:
                self._break(error)
        return digest

    def archived(self) -> set[str]:
        """Digests of the files in the archive."""
        return {path.name for path in self._layout.payloads.iterdir() if len(path.name) == 64}

    def named(self) -> set[str]:
        """Digests that records name and whose bytes belong into the archive."""
        digests: set[str] = set()
        for record in self.records():
            digests |= {record.plan_fingerprint or "", record.policy_sha256 or ""}
            digests |= {record.order_sha256 or ""}
            if record.event in ("SEND", "STOP", "RESTORE"):
                digests.add(record.payload_sha256 or "")
        return digests - {""}

    def forget(self, digest: str) -> None:
        """Delete one file of the archive; what it was stays in the records that name it.

        Raises:
            StorageError: the disk refused.
        """
        self._refuse_if_broken()
        try:
            self._layout.payload(digest).unlink(missing_ok=True)
            fsync_directory(self._layout.payloads)
        except OSError as error:
            self._break(error)

    def append(self, event: Event, **fields: Unpack[RecordFields]) -> Entry:
        """Commit one record; when this returns it is on the disk and signed.

        Raises:
            InputDataError: a field is missing or not of its form; nothing was written.
            StorageError: the disk refused, or did so before; nothing may be sent.
        """
        self._refuse_if_broken()
        record = make_record(
            seq=self.size,
            event=event,
            now=self._now(),
            site=self.site,
            fields=fields,
            place=Place(
                prev=self._hashes[-1].hex() if self._hashes else None, **self._parties.fields
            ),
        )
        line = record_line(record)
        try:
            write_all(self._log, line + b"\n")
            os.fsync(self._log)
            self._take(line)
            self._commit()
        except OSError as error:
            self._break(error)
        self._index(record)
        return Entry(record, line, self._note)

    def add_receipt(self, note: bytes, witness: PublicKey) -> bool:
        """Keep a checkpoint of ours that the witness cosigned, and record that we have it.

        Args:
            note: the cosigned note.
            witness: the aggregator's key, from the site's invite, or one that followed it.

        Returns:
            False when there is a receipt for that size already, or it is of what a
            recorded restore has lost.

        Raises:
            VerificationError: not signed by both.
            LostTailError: signed by both, and not a prefix of this log.
            StorageError: the disk refused.
        """
        self._refuse_if_broken()
        checkpoint = self._open_receipt(note, witness)
        if not self._holds(checkpoint):
            lost = (checkpoint.size, checkpoint.root.hex())
            named = [r for r in self._restores if (r.lost_size, r.lost_root) == lost]
            if not named:
                raise LostTailError(note, checkpoint.size, self.size)
            # Also when it has cosigned more since: an aggregator that was put back shows it again.
            self._shown_lost = named[-1]
            self._shown = self._witnessed_within(named[-1].seq)
            return False
        path = self._layout.receipt(checkpoint.size)
        self._shown, self._shown_lost = checkpoint.size, None
        if path.exists():
            return False
        try:
            replace_durably(path, note)
        except OSError as error:
            self._break(error)
        self.append("RECEIPT", payload_sha256=sha256_hex(note), bytes=len(note))
        return True

    def has_restored(self, note: bytes) -> bool:
        """Tell whether a gap with this very note is recorded."""
        digest = sha256_hex(note)
        return any(each.payload_sha256 == digest for each in self._restores)

    def restore(
        self,
        note: bytes,
        witness: PublicKey,
        person: str,
        asked: tuple[str, int] | tuple[None, None] = (None, None),
    ) -> Entry:
        """Go on after a gap: record that what ``note`` covers is lost, and who says so.

        Args:
            note: the newest checkpoint that both signed and this log does not hold.
            witness: the aggregator's witness key.
            person: who put the folder back from a backup.
            asked: run and round of the order that brought the note, if known.

        Raises:
            VerificationError: not signed by both.
            InputDataError: nothing is lost.
            StorageError: the disk refused.
        """
        self._refuse_if_broken()
        lost = self._open_receipt(note, witness)
        if self._holds(lost):
            raise InputDataError(
                "nothing is lost", field="restore", expected="a checkpoint that the log lacks"
            )
        run, round_ = asked
        return self.append(
            "RESTORE",
            payload_sha256=self.spool(note),
            bytes=len(note),
            lost_size=lost.size,
            lost_root=lost.root.hex(),
            person=person,
            run=run,
            round=round_,
        )

    def _open_receipt(self, note: bytes, witness: PublicKey) -> Checkpoint:
        own = ledger_key(self.origin, self.public_key)
        return open_cosigned(note, own, self._keys_of(witness)).checkpoint

    def _holds(self, checkpoint: Checkpoint) -> bool:
        covered = checkpoint.size <= self.size
        return covered and tree_root(self._hashes[: checkpoint.size]) == checkpoint.root

    def shown_nothing(self) -> None:
        """Note that the aggregator's newest order came without a checkpoint: it knows none."""
        self._shown, self._shown_lost = 0, None

    def keep_witnessed(self, note: bytes, settled: int) -> None:
        """Keep a checkpoint of ours with the cosignatures of third witnesses.

        No record says so: it would be one more that nobody has witnessed.

        Args:
            note: signed by us, and by those whose cosignatures the caller has verified.
            settled: size of the largest checkpoint that has a quorum; smaller ones may go.

        Raises:
            VerificationError: not signed by us, or not a prefix of this log.
            StorageError: the disk refused.
        """
        self._refuse_if_broken()
        checkpoint = open_note(note, [ledger_key(self.origin, self.public_key)]).checkpoint
        insist_on_root(checkpoint, self.root_at(checkpoint.size), "a witnessed note")
        try:
            self._layout.witnessed.mkdir(mode=0o750, exist_ok=True)
            replace_durably(self._layout.witnessed_note(checkpoint.size), note)
            for path in self._layout.witnessed_files():
                if int(path.stem) < settled:
                    path.unlink()
        except OSError as error:
            self._break(error)

    @property
    def witness(self) -> PublicKey | None:
        """The aggregator's key that counts now; None before it ever cosigned or was exchanged."""
        path = self._layout.witness_key
        return self._keys_of(read_public_key(path)).newest if path.exists() else None

    def rotate_witness(self, data: bytes, trusted: PublicKey) -> PublicKey:
        """Record that the aggregator's key was exchanged; nothing counts that the old one signs.

        Args:
            data: the note of the exchange.
            trusted: the aggregator's key, as the site was told.

        Returns:
            The key that counts now.

        Raises:
            VerificationError: it is not signed by the key that counts, or not by the next.
            StorageError: the disk refused.
        """
        self._refuse_if_broken()
        newest, rotation = self._keys_of(trusted).newest, open_rotation(data)
        if rotation.old != newest:
            raise VerificationError(
                "the exchange is not of the key that counts",
                field="rotation",
                expected=newest.fingerprint[:16],
                got=rotation.old.fingerprint[:16],
            )
        try:
            self._layout.rotations.mkdir(mode=0o750, exist_ok=True)
            fsync_directory(self._layout.folder)
            replace_durably(self._layout.rotation(self.size), data)
        except OSError as error:
            self._break(error)
        fingerprint = rotation.new.fingerprint
        self._parties = replace(self._parties, receiver_key=fingerprint)
        self.append(
            "ROTATE", payload_sha256=sha256_hex(data), bytes=len(data), peer_key=fingerprint
        )
        return rotation.new

    def _keys_of(self, witness: PublicKey) -> WitnessKeys:
        """Return the chain that a key belongs to; the first key ever seen is pinned."""
        keys = WitnessKeys.of(self._layout, witness)
        self._pin(self._layout.witness_key, keys.first, "witness key")
        return keys

    def _forget_unrecorded_rotations(self) -> None:
        """Remove an exchange that a crash kept from being recorded; it will be heard again."""
        for path in sorted(self._layout.rotations.glob("*.rotation")):
            seq, digest = int(path.stem), sha256_hex(read_regular(path, "rotation", MAX_NOTE_BYTES))
            record = parse_record(self.line(seq)) if seq < self.size else None
            if record is None or (record.event, record.payload_sha256) != ("ROTATE", digest):
                path.unlink()

    # Recovery and commit.

    def _recover(self) -> None:
        layout = self._layout
        folders = (layout.receipts, layout.witnessed, layout.payloads, layout.rotations)
        for folder in (layout.folder, *folders):
            remove_temporaries(folder)
        self._pin(layout.ledger_key, self.public_key, "ledger key")
        self._log = os.open(layout.log, _LOG_FLAGS, 0o640)
        data = read_regular(layout.log, "log", MAX_LOG_BYTES)
        note = read_if_there(layout.checkpoint, "checkpoint", MAX_NOTE_BYTES)
        if note is not None:
            self._note = note
            receipts = {
                f"{path.parent.name}/{path.name}": read_regular(path, "receipt", MAX_NOTE_BYTES)
                for path in [*layout.receipt_files(), *layout.witnessed_files()]
            }
            committed = committed_lines(data, self._note, receipts, self.origin, self.public_key)
            for line in committed:
                self._take(line)
            if self._offsets[-1] < len(data):
                os.ftruncate(self._log, self._offsets[-1])
                os.fsync(self._log)
        elif (
            data
            or layout.receipt_files()
            or layout.witnessed_files()
            or any(layout.payloads.iterdir())
        ):
            raise VerificationError(
                "the ledger has lost its signed checkpoint",
                field=str(layout.checkpoint),
                expected="a signed note over the log",
                got="no file beside existing data",
                advice="Restore the whole folder from a backup, or call the auditor",
            )
        else:
            fsync_directory(layout.folder)
            fsync_directory(layout.folder.parent)
            self._commit()
        if self.size == 0:
            self.append("GENESIS")
        else:
            for record in self.records():
                self._index(record)
        self._forget_unrecorded_rotations()

    def _take(self, line: bytes) -> None:
        leaf = leaf_hash(line)
        self._hashes.append(leaf)
        self._frontier.add(leaf)
        self._offsets.append(self._offsets[-1] + len(line) + 1)

    def _commit(self) -> None:
        """Sign the log as it stands; after this the last record counts."""
        checkpoint = Checkpoint(self.origin, self.size, self._frontier.root())
        note = sign_checkpoint(checkpoint, self._key)
        replace_durably(self._layout.checkpoint, note)
        self._note = note

    def _now(self) -> datetime:
        """Read the clock; where it was set back, the time of the last record goes on."""
        now = self._clock()
        if self._latest is None or now.tzinfo is None:  # without a zone it is refused below
            return now
        return max(now, self._latest)

    def _index(self, record: LedgerRecord) -> None:
        """Note what later calls ask of a committed record."""
        self._latest = parse_timestamp(record.ts)
        if record.payload_sha256 is not None:
            self._digests[record.event, record.payload_sha256] = record.seq
        if record.event == "RESTORE":
            self._restores.append(record)

    def _pin(self, path: Path, key: PublicKey, what: str) -> None:
        """Write the public key beside the log, or insist that it is the one already there."""
        if not path.exists():
            try:
                replace_durably(path, f"{key.text}\n".encode("ascii"), mode=0o644)
            except OSError as error:
                self._break(error)
        elif read_public_key(path) != key:
            raise VerificationError(
                f"the {what} changed",
                field=str(path),
                expected="the key this ledger began with",
                got=f"the key {key.fingerprint[:16]}",
                advice="Begin a new ledger folder for a new key",
            )

    def _refuse_if_broken(self) -> None:
        if self._broken or self._log < 0:
            raise StorageError(
                "the ledger is closed to writing",
                expected="a ledger without disk errors",
                got="one that met a disk error" if self._broken else "a closed one",
                advice="Open it again; opening checks and recovers it",
            )

    def _break(self, error: OSError) -> NoReturn:
        self._broken = True
        raise storage_error(error, self._layout.folder) from error


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise InputDataError(
                "the ledger is in use",
                field=str(path),
                expected="one writer",
                got="a second one",
                advice="Stop the other worker first",
            ) from error
        raise
    return descriptor

"""What a witness remembers: the last checkpoint of each log that it cosigned, durably.

One file per log, replaced whole and fsynced before any cosignature leaves. Nothing here
may forget: a file that was there and is gone, or that this witness did not sign, stops
the witness, because cosigning from an empty memory is how a fork would be let in.
Requests that show a log's fork are kept beside it, a few per log.

::

    seen                    a line for every log that was ever cosigned, appended and fsynced
    <origin digest>.note    the last cosigned checkpoint, with the log's signature and ours
    evidence/<...>.request  refused requests that the log itself had signed
    lock
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from common.canonical import sha256_hex
from common.errors import InputDataError, VerificationError
from common.ledger.durable import (
    fsync_directory,
    remove_temporaries,
    replace_durably,
    storage_error,
    write_all,
)
from common.ledger.notes import MAX_NOTE_BYTES

MAX_EVIDENCE = 16
"""Refused requests kept per log: two are a proof, and no log may fill the disk."""


def origin_digest(origin: str) -> str:
    """Return the name under which a log's checkpoint is kept and served, 64 hex digits."""
    return sha256_hex(origin.encode())


class Store:
    """The memory of one witness. Use as a context manager: it holds the folder's lock.

    Raises:
        InputDataError: another process holds it.
        VerificationError: a checkpoint that was cosigned is gone.
        StorageError: the disk refused.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            (folder / "evidence").mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock = _take_lock(folder / "lock")
            remove_temporaries(folder)
        except OSError as error:
            raise storage_error(error, folder) from error
        self._seen = self._read_seen()
        for digest in sorted(self._seen):
            self._read(digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def last(self, digest: str) -> bytes | None:
        """Return the last cosigned note of a log, or None if it never was cosigned.

        Raises:
            VerificationError: it was, and the note is gone.
        """
        return self._read(digest) if digest in self._seen else None

    def keep(self, origin: str, note: bytes) -> None:
        """Remember a note durably; only then may its cosignature leave.

        Raises:
            StorageError: the disk refused; nothing may be answered.
        """
        digest = origin_digest(origin)
        try:
            replace_durably(self._path(digest), note)
            if digest not in self._seen:
                self._append_seen(digest)
        except OSError as error:
            raise storage_error(error, self._folder) from error
        self._seen.add(digest)

    def keep_evidence(self, origin: str, request: bytes) -> None:
        """Keep a request that contradicts what was cosigned; of many the first ones.

        Raises:
            StorageError: the disk refused.
        """
        path = self._folder / "evidence" / f"{origin_digest(origin)}-{sha256_hex(request)}.request"
        try:
            if not path.exists() and len(self.evidence(origin)) < MAX_EVIDENCE:
                replace_durably(path, request)
        except OSError as error:
            raise storage_error(error, path) from error

    def evidence(self, origin: str) -> list[Path]:
        """Return the files of refused requests of a log."""
        return evidence_of(self._folder, origin)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.note"

    def _read(self, digest: str) -> bytes:
        note = read_note(self._path(digest))
        if note is None:
            raise VerificationError(
                "a checkpoint that this witness cosigned is gone",
                field=str(self._path(digest)),
                expected="the last cosigned note",
                got="no file",
                advice="Restore the folder whole and newest, or retire this witness's keys",
            )
        return note

    def _read_seen(self) -> set[str]:
        """Return the logs that were ever cosigned; a note without its line counts as well."""
        try:
            lines = (self._folder / "seen").read_text(encoding="ascii").split("\n")
        except FileNotFoundError:
            lines = []
        whole = {line for line in lines if len(line) == 64}
        return whole | {path.stem for path in self._folder.glob("*.note")}

    def _append_seen(self, digest: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._folder / "seen", flags, 0o640)
        try:
            write_all(descriptor, f"{digest}\n".encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fsync_directory(self._folder)


def read_note(path: Path) -> bytes | None:
    """Return a kept note, at most as many bytes as any note has; None where there is none."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_NOTE_BYTES + 1)
    except FileNotFoundError:
        return None


def evidence_of(folder: Path, origin: str) -> list[Path]:
    """Return the files of refused requests of a log, in a witness's state folder."""
    return sorted((folder / "evidence").glob(f"{origin_digest(origin)}-*.request"))


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputDataError(
            "this witness runs already",
            field=str(path),
            expected="one process",
            got="a second one",
            advice="Stop the other one first: two could cosign two histories",
        ) from error
    return descriptor

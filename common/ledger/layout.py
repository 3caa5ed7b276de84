"""The files of a ledger's folder, and how its text files are read.

::

    log.jsonl             one canonical record per line, only ever appended to
    checkpoint            the site's signed note over the whole log: the commit point
    history               every earlier signed root, a line each; names the first altered record
    receipts/<size>.note  checkpoints the aggregator cosigned
    witnessed/<size>.note checkpoints that other witnesses cosigned; only the newest stay
    payloads/<sha256>     what was released, until it expires
    ledger.pub, witness.pub
    lock
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.crypto.identity import SIGNATURE_BYTES, PublicKey, SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.merkle import HASH_BYTES
from common.ledger.notes import Checkpoint


@dataclass(frozen=True)
class Layout:
    """The paths of one ledger."""

    folder: Path

    @property
    def log(self) -> Path:
        """The records."""
        return self.folder / "log.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The newest signed note."""
        return self.folder / "checkpoint"

    @property
    def history(self) -> Path:
        """Earlier signed roots."""
        return self.folder / "history"

    @property
    def receipts(self) -> Path:
        """Folder of cosigned notes."""
        return self.folder / "receipts"

    @property
    def witnessed(self) -> Path:
        """Folder of notes that third witnesses cosigned."""
        return self.folder / "witnessed"

    @property
    def payloads(self) -> Path:
        """Folder of released bytes."""
        return self.folder / "payloads"

    @property
    def lock(self) -> Path:
        """File whose lock says that a writer is at work."""
        return self.folder / "lock"

    @property
    def ledger_key(self) -> Path:
        """The site's public key."""
        return self.folder / "ledger.pub"

    @property
    def witness_key(self) -> Path:
        """The witness's public key."""
        return self.folder / "witness.pub"

    def payload(self, digest: str) -> Path:
        """Return the path of the payload with this SHA-256."""
        return self.payloads / digest

    def receipt(self, size: int) -> Path:
        """Return the path of the cosigned checkpoint of this size; names sort by size."""
        return self.receipts / f"{size:016d}.note"

    def receipt_files(self) -> list[Path]:
        """All receipts, smallest tree first."""
        return sorted(self.receipts.glob("*.note")) if self.receipts.is_dir() else []

    def witnessed_note(self, size: int) -> Path:
        """Return the path of the checkpoint of this size that third witnesses cosigned."""
        return self.witnessed / f"{size:016d}.note"

    def witnessed_files(self) -> list[Path]:
        """All notes that third witnesses cosigned, smallest tree first."""
        return sorted(self.witnessed.glob("*.note")) if self.witnessed.is_dir() else []


def history_line(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """One line of ``history``: size, root, signature over the checkpoint's text."""
    root = base64.b64encode(checkpoint.root).decode("ascii")
    signature = base64.b64encode(key.sign(checkpoint.text())).decode("ascii")
    return f"{checkpoint.size} {root} {signature}\n".encode("ascii")


def parse_history(data: bytes, origin: str) -> Iterator[tuple[Checkpoint, bytes]]:
    """Yield (checkpoint, signature) pairs of ``history``; no signature is checked here.

    Lines that a crash tore are passed over: the file only helps to name what an
    alteration hit, and proves nothing by its absence.
    """
    for line in data.split(b"\n"):
        parts = line.split(b" ")
        if len(parts) != 3 or not parts[0].isdigit() or len(parts[0]) > 16:
            continue
        try:
            root, signature = (base64.b64decode(part, validate=True) for part in parts[1:])
        except (ValueError, binascii.Error):
            continue
        if len(root) == HASH_BYTES and len(signature) == SIGNATURE_BYTES:
            yield Checkpoint(origin, int(parts[0]), root), signature


def was_signed(checkpoint: Checkpoint, signature: bytes, key: PublicKey) -> bool:
    """Tell whether the site really signed this line of its history."""
    try:
        key.verify(signature, checkpoint.text())
    except VerificationError:
        return False
    return True


def read_bytes(path: Path, what: str) -> bytes:
    """Return the content of a file of the ledger.

    Raises:
        InputDataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputDataError(
            f"cannot read the {what}", field=str(path), got=error.strerror or "an error"
        ) from error


@dataclass(frozen=True)
class Snapshot:
    """The text files of a ledger, read while no record was being added.

    Attributes:
        checkpoint: the signed note, ``None`` when there is none.
        log: all of ``log.jsonl``.
        receipts: cosigned notes by file name, smallest tree first.
        history: all of ``history``.
    """

    checkpoint: bytes | None
    log: bytes
    receipts: dict[str, bytes]
    history: bytes


def read_snapshot(layout: Layout, attempts: int = 10) -> Snapshot:
    """Read a ledger that may be in use: again, as long as its checkpoint moves meanwhile.

    Raises:
        InputDataError: no such folder, or a file cannot be read.
    """
    if not layout.folder.is_dir():
        raise InputDataError(
            "no ledger here", field=str(layout.folder), expected="a ledger's folder", got="none"
        )
    while True:
        attempts -= 1
        snapshot = Snapshot(
            checkpoint=_read_if_there(layout.checkpoint, "checkpoint"),
            receipts={path.name: read_bytes(path, "receipt") for path in layout.receipt_files()},
            history=_read_if_there(layout.history, "history") or b"",
            log=_read_if_there(layout.log, "log") or b"",
        )
        if attempts <= 0 or snapshot.checkpoint == _read_if_there(layout.checkpoint, "checkpoint"):
            return snapshot


def _read_if_there(path: Path, what: str) -> bytes | None:
    return read_bytes(path, what) if path.exists() else None

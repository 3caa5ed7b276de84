"""The rest of a ledger's folder: only what belongs there, and as the writer leaves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import VerificationError
from common.ledger.durable import TEMPORARY_PREFIX
from common.ledger.layout import FILES, FOLDERS, MAX_KEY_BYTES, Layout
from common.ledger.notes import MAX_NOTE_BYTES
from common.ledger.reading import names_in, read_if_there, read_regular

_NOTE = re.compile(r"[0-9]{16}\.note")


def check_folder(layout: Layout, site_key: PublicKey, witness: PublicKey | None) -> list[str]:
    """Hold the names of a ledger's folder, and its public keys, against what the writer leaves.

    Args:
        layout: of the ledger.
        site_key: that the auditor holds it to.
        witness: likewise, if there is one.

    Returns:
        What a crash may have left, a clause each.

    Raises:
        VerificationError: something that no writer leaves there.
        InputDataError: a file may not be read.
    """
    # Once: a folder that changes between two looks is read as it was at one of them.
    names = set(names_in(layout.folder.resolve(), "ledger"))
    temporary = {name for name in names if name.startswith(TEMPORARY_PREFIX)}
    if names - temporary - FILES - FOLDERS:
        raise _wrong("ledger", f"nothing but {', '.join(sorted(FILES | FOLDERS))}", "another name")
    if read_if_there(layout.lock, "lock", 0):
        raise _wrong("lock", "empty", "bytes")
    pinned = ((layout.ledger_key, site_key), (layout.witness_key, witness))
    for path, key in pinned:
        data = read_if_there(path, "public key", MAX_KEY_BYTES)
        if data is not None and key is not None and data != f"{key.text}\n".encode("ascii"):
            raise _wrong(path.name, f"the key {key.fingerprint[:16]}", "another")
    if not layout.ledger_key.exists():
        raise _wrong(layout.ledger_key.name, "the site's public key", "no file")
    if names_in(layout.receipts, "receipts") and not layout.witness_key.exists():
        raise _wrong(layout.witness_key.name, "the key that cosigned the receipts", "no file")
    return ["files of interrupted writes lie beside the log"] if temporary else []


def receipts_in(layout: Layout) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, digest and bytes of every receipt, smallest tree first.

    Raises:
        VerificationError: something else lies among them.
        InputDataError: a file may not be read.
    """
    for name, note in _notes_in(layout.receipts, "receipts"):
        yield name, sha256_hex(note), note


def witnessed_in(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every note that third witnesses cosigned, smallest tree first.

    Raises:
        VerificationError: something else lies among them.
        InputDataError: a file may not be read.
    """
    return _notes_in(layout.witnessed, "witnessed")


def _notes_in(folder: Path, what: str) -> Iterator[tuple[str, bytes]]:
    for name in names_in(folder, what):
        if name.startswith(TEMPORARY_PREFIX):
            continue
        if _NOTE.fullmatch(name) is None:
            raise _wrong(what, "only notes named by their size", "another name")
        yield name, read_regular(folder / name, what, MAX_NOTE_BYTES)


def _wrong(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        "the ledger's folder holds what no ledger leaves", field=field, expected=expected, got=got
    )

"""Exchanging the key that signs orders and cosigns checkpoints, without a site doing anything.

The note that both keys sign is on disk before the new key is in force, and the old one is
gone when this returns. Sites hear of it with their next order. Interrupted, it is completed
by the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.queue import RunQueue
from common.crypto.identity import (
    PublicKey,
    SigningKey,
    read_signing_key,
    write_signing_key,
)
from common.errors import RefusedError
from common.ledger.durable import fsync_directory, replace_durably, storage_error
from common.ledger.rotation import MOST_ROTATIONS, Rotation, open_rotation, rotate

_NEXT = "witness.key.next"


@dataclass(frozen=True)
class WitnessHistory:
    """The key that counts, and the exchanges that led to it, oldest first."""

    key: PublicKey
    rotations: tuple[Rotation, ...]


def witness_history(folder: FederationFolder) -> WitnessHistory:
    """Return the aggregator's key and its past.

    Raises:
        InputDataError: this is no federation's folder.
        VerificationError: a note was altered.
    """
    rotations = tuple(open_rotation(note) for note in folder.rotations())
    return WitnessHistory(folder.witness_key().public, rotations)


def rotate_witness(
    folder: FederationFolder, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> WitnessHistory:
    """Put another key in place of the aggregator's.

    Args:
        folder: the federation's.
        clock: current time, aware.

    Raises:
        RefusedError: a run goes on, which began with the old key; or too many exchanges.
        StorageError: the disk refused; the key that counted before still does.
    """
    try:
        with folder.locked(), RunQueue(folder.queue).changing() as change:
            if change.state.current is not None:
                raise RefusedError(
                    "a run goes on with this key",
                    field=change.state.current.run,
                    expected="no run that goes on",
                    advice="Wait for its end, or `cairn-aggregator round stop`; runs that only "
                    "wait may stay",
                )
            if not _complete(folder):
                _prepare(folder, clock())
                _complete(folder)
    except OSError as error:
        raise storage_error(error, folder.pki) from error
    return witness_history(folder)


def _prepare(folder: FederationFolder, now: datetime) -> None:
    """Write the new key beside the old one, and the note that both sign."""
    if len(folder.rotations()) >= MOST_ROTATIONS:
        raise RefusedError(
            "the key was exchanged too often",
            field="rotations",
            expected=f"at most {MOST_ROTATIONS}",
            got=f"{len(folder.rotations())}",
            advice="Make the federation anew",
        )
    upcoming = folder.pki / _NEXT
    upcoming.unlink(missing_ok=True)  # of a call that came no further; nobody knows it
    key = SigningKey.generate()
    write_signing_key(upcoming, key)
    notes = folder.rotations_folder
    notes.mkdir(mode=0o700, exist_ok=True)
    fsync_directory(folder.pki)
    number = len(folder.rotations()) + 1
    replace_durably(notes / f"{number:06d}.rotation", rotate(folder.witness_key(), key, now))


def _complete(folder: FederationFolder) -> bool:
    """Put the new key in force if a note names it; tells whether one did."""
    upcoming, notes = folder.pki / _NEXT, sorted(folder.rotations_folder.glob("*.rotation"))
    if not upcoming.exists() or not notes:
        return False
    key = read_signing_key(upcoming)
    if open_rotation(notes[-1].read_bytes()).new != key.public:
        return False
    upcoming.replace(folder.pki / "witness.key")
    # A crash here leaves invites with the old key: a site follows it to this one.
    line = f"{key.public.text}\n".encode("ascii")
    replace_durably(folder.pki / "witness.pub", line, mode=0o644)
    return True

"""The witness's decision: cosign a checkpoint only if the log has done nothing but grow.

Every rule stands in ``Judge.add_checkpoint``, in the order of the protocol. Comparing
with the last checkpoint, storing the new one and signing it happen under one lock: two
requests at once can never let a log go back.

Source: C2SP tlog-witness, add-checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from common.crypto.identity import SigningKey
from common.crypto.postquantum import PostQuantumSigningKey
from common.errors import CairnError, VerificationError
from common.ledger.merkle import EMPTY_ROOT, verify_consistency
from common.ledger.notes import (
    Checkpoint,
    NoteKey,
    ParsedNote,
    cosignature,
    open_note,
    parse_note,
    signature_by,
    verify_signature,
)
from common.witness.store import Store, origin_digest
from common.witness.wire import SIZE_TYPE, AddCheckpoint, Answer

Signer = SigningKey | PostQuantumSigningKey


class Judge:
    """One witness: its name and keys, the logs it knows, and what it remembers.

    Args:
        name: under which it cosigns.
        signers: its keys; each signs every answer.
        logs: the keys of each log, by origin.
        store: its memory, open.
        clock: current time, aware.
    """

    def __init__(
        self,
        name: str,
        signers: Sequence[Signer],
        logs: Mapping[str, Sequence[NoteKey]],
        store: Store,
        clock: Callable[[], datetime],
    ) -> None:
        self._name = name
        self._signers = tuple(signers)
        self._logs = {origin: tuple(keys) for origin, keys in logs.items()}
        self._store = store
        self._clock = clock
        self._one_at_a_time = threading.Lock()

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer one request.

        Raises:
            StorageError: the disk refused; nothing may be answered but that.
            VerificationError: the witness's own memory does not hold.
        """
        try:
            request = AddCheckpoint.from_bytes(body)
            parsed = parse_note(request.note, any_log=True)
        except CairnError as error:
            return _words(400, error.diagnosis)
        checkpoint = parsed.checkpoint
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return _words(404, "this witness does not know that log")
        signed_by = _log_key(parsed, keys)
        if signed_by is None:
            return _words(403, "no valid signature of a key that is known for this log")
        if request.old > checkpoint.size:
            return _words(400, "the old size is larger than the checkpoint's")
        with self._one_at_a_time:
            last = self._last(checkpoint.origin)
            if request.old != last.size:
                return Answer(409, f"{last.size}\n".encode("ascii"), SIZE_TYPE)
            try:
                verify_consistency(
                    last.size, checkpoint.size, last.root, checkpoint.root, request.proof
                )
            except VerificationError as error:
                self._store.keep_evidence(checkpoint.origin, body)
                return _words(422, error.diagnosis)
            return self._cosign(parsed, signed_by)

    def checkpoint(self, digest: str) -> Answer:
        """Answer who asks for the last cosigned checkpoint of a log.

        Args:
            digest: SHA-256 of the log's origin, in hex.

        Raises:
            VerificationError: it was cosigned, and is gone.
        """
        with self._one_at_a_time:
            note = self._store.last(digest)
        if note is None:
            return _words(404, "this witness has cosigned nothing of that log")
        return Answer(200, note)

    def _last(self, origin: str) -> Checkpoint:
        """Return what was cosigned last: of a log never heard of, the empty tree."""
        note = self._store.last(origin_digest(origin))
        if note is None:
            return Checkpoint(origin, 0, EMPTY_ROOT)
        return parse_note(note, any_log=True).checkpoint

    def _cosign(self, parsed: ParsedNote, signed_by: NoteKey) -> Answer:
        """Store what is about to be said, then say it."""
        now, checkpoint = self._clock(), parsed.checkpoint
        by_log = signature_by(signed_by, parsed.signatures)
        ours = [cosignature(checkpoint, self._name, key, now).line() for key in self._signers]
        kept = b"" if by_log is None else by_log.line()
        self._store.keep(checkpoint.origin, checkpoint.text() + b"\n" + kept + b"".join(ours))
        return Answer(200, b"".join(ours))


def _log_key(parsed: ParsedNote, keys: Sequence[NoteKey]) -> NoteKey | None:
    """Return a known key that signed; None if there is none, or a known key's line is false."""
    signed_by = None
    for key in keys:
        line = signature_by(key, parsed.signatures)
        if line is None:
            continue
        try:
            verify_signature(line, key, parsed.checkpoint)
        except VerificationError:
            return None
        signed_by = key
    return signed_by


def check_memory(
    store: Store, logs: Mapping[str, Sequence[NoteKey]], own: Sequence[NoteKey]
) -> None:
    """Check, before anything is answered, that every kept note is signed by this witness.

    Raises:
        VerificationError: one is not: somebody wrote into its memory.
    """
    for origin in logs:
        note = store.last(origin_digest(origin))
        if note is None:
            continue
        parsed = parse_note(note, any_log=True)
        mine = [key for key in own if signature_by(key, parsed.signatures) is not None]
        open_note(note, mine, any_log=True)  # of no key at all it opens nothing
        if parsed.checkpoint.origin != origin:
            raise VerificationError(
                "this witness's memory was altered",
                field=origin,
                expected="a checkpoint of this log",
                got="another log's",
            )


def _words(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode())

"""The aggregator's key is exchanged: the old one signs the new, and nothing after.

The key that signs orders cosigns checkpoints, too. It is exchanged by a note that both keys
sign: the old one says who follows it, the new one that it is held and whom it follows. So
whoever trusts either of them can follow the chain to the other. Each site records the note
(ROTATE) where it hears of it, and from that record on takes nothing that the old key signed.
A copy of the old key that somebody keeps, or steals later, is of no use there.

What a chain cannot do: where a thief has the old key before a site has heard of the exchange,
the thief can show that site another successor. Then the site refuses the genuine aggregator,
and the two notes, which one key signed, are the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import SIGNATURE_BYTES, PublicKey, SigningKey
from common.errors import CairnError, VerificationError
from common.ledger.durable import TEMPORARY_PREFIX
from common.ledger.layout import Layout
from common.ledger.notes import NoteKey, OpenedNote, open_note, parse_note, witness_key
from common.ledger.reading import names_in, read_regular
from common.ledger.records import format_timestamp
from common.settings import Frozen

CONTEXT: Final = b"cairn/rotation/v1\n"
MAX_ROTATION_BYTES: Final = 4096
MOST_ROTATIONS: Final = 64
_Key = Annotated[str, Field(max_length=128)]


class _RotationForm(Frozen):
    """The signed words of an exchange.

    Attributes:
        old, new: public keys, in their one-line form.
        ts: when, UTC; nobody depends on it.
    """

    v: Literal[1] = 1
    message: Literal["Rotation"] = "Rotation"
    old: _Key
    new: _Key
    ts: Annotated[str, Field(max_length=20)]


@dataclass(frozen=True)
class Rotation:
    """An exchange whose two signatures hold.

    Attributes:
        old, new: the keys.
        ts: when, as the old key's holder says.
        data: the note's own bytes.
    """

    old: PublicKey
    new: PublicKey
    ts: str
    data: bytes


def rotate(old: SigningKey, new: SigningKey, now: datetime) -> bytes:
    """Return the note of an exchange: the old key's signature, the new one's, canonical JSON.

    Args:
        old: the key that ends.
        new: the key that follows it.
        now: aware.
    """
    words = _RotationForm(old=old.public.text, new=new.public.text, ts=format_timestamp(now))
    body = canonical_json(words.model_dump(mode="json"))
    return old.sign(CONTEXT + body) + new.sign(CONTEXT + body) + body


def open_rotation(data: bytes) -> Rotation:
    """Read a note that both of its keys signed.

    Raises:
        VerificationError: malformed, or a signature does not hold.
    """
    if len(data) > MAX_ROTATION_BYTES:
        raise _wrong(f"at most {MAX_ROTATION_BYTES} bytes", "more")
    by_old, by_new = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES : 2 * SIGNATURE_BYTES]
    body = data[2 * SIGNATURE_BYTES :]
    try:
        words = _RotationForm.model_validate(parse_canonical_json(body, "rotation"))
        old, new = PublicKey.parse(words.old), PublicKey.parse(words.new)
    except (ValidationError, CairnError) as error:
        raise _wrong("two keys and a time", "other words") from error
    if (old.text, new.text) != (words.old, words.new) or old == new:
        raise _wrong("two keys, in their one spelling", "others")
    old.verify(by_old, CONTEXT + body)
    new.verify(by_new, CONTEXT + body)
    return Rotation(old, new, words.ts, data)


def follow(trusted: PublicKey, notes: Iterable[bytes]) -> tuple[Rotation, ...]:
    """Return the exchanges that lead on from a key, in order; others are passed over.

    A note that does not hold leads nowhere, and is no reason to distrust the others.
    """
    by_old: dict[PublicKey, Rotation] = {}
    for data in notes:
        try:
            rotation = open_rotation(data)
        except VerificationError:
            continue
        by_old.setdefault(rotation.old, rotation)
    chain: list[Rotation] = []
    while trusted in by_old and len(chain) < MOST_ROTATIONS:
        chain.append(by_old.pop(trusted))
        trusted = chain[-1].new
    return tuple(chain)


@dataclass(frozen=True)
class WitnessKeys:
    """The aggregator's keys in one ledger, and up to which record each counted.

    Attributes:
        keys: the first, and each that followed.
        until: number of the ROTATE record that ended each; one shorter than ``keys``.
        notes: the exchanges, by the number of their record.
    """

    keys: tuple[PublicKey, ...]
    until: tuple[int, ...] = ()
    notes: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def of(cls, layout: Layout, trusted: PublicKey) -> Self:
        """Read the exchanges that lie beside a log, and find a key among them.

        Args:
            layout: of the ledger.
            trusted: the key that is trusted; any of the chain, for each exchange is signed by both.

        Raises:
            VerificationError: they are no chain, or not of this key.
            InputDataError: a file may not be read.
        """
        notes: list[tuple[int, bytes]] = []
        keys: list[PublicKey] = []
        until: list[int] = []
        for name in names_in(layout.rotations, "rotations"):
            if name.startswith(TEMPORARY_PREFIX):
                continue
            seq = name.removesuffix(".rotation")
            if len(seq) != 16 or not seq.isdigit() or layout.rotation(int(seq)).name != name:
                raise _wrong("notes named by their record", "another name")
            data = read_regular(layout.rotations / name, "rotation", MAX_ROTATION_BYTES)
            rotation = open_rotation(data)
            if not keys:
                keys.append(rotation.old)
            if rotation.old != keys[-1] or len(keys) > MOST_ROTATIONS:
                raise _wrong("each key followed by the next", "another key")
            notes.append((int(seq), data))
            until.append(int(seq))
            keys.append(rotation.new)
        if trusted not in (keys or [trusted]):
            raise VerificationError(
                "the aggregator's key is none of this ledger's",
                field="witness key",
                expected=" or ".join(key.fingerprint[:16] for key in keys),
                got=trusted.fingerprint[:16],
            )
        return cls(tuple(keys or [trusted]), tuple(until), tuple(notes))

    @property
    def first(self) -> PublicKey:
        """The key that the ledger began with."""
        return self.keys[0]

    @property
    def newest(self) -> PublicKey:
        """The key that counts now."""
        return self.keys[-1]

    def of_record(self, seq: int) -> PublicKey:
        """Return the key that counted when a record was written: what an order was signed with."""
        return self.keys[sum(seq >= end for end in self.until)]

    def for_size(self, size: int) -> tuple[PublicKey, ...]:
        """Return the keys that may have cosigned a tree of so many records, newest first.

        A key that was exchanged may have seen no record after the exchange; a later key
        may cosign an earlier tree.
        """
        oldest = sum(size > end for end in self.until)
        return self.keys[oldest:][::-1]


def open_cosigned(note: bytes, site_key: NoteKey, keys: WitnessKeys) -> OpenedNote:
    """Open a checkpoint that its site signed, and a key of the aggregator that may have.

    Raises:
        VerificationError: malformed, or a signature is missing or does not hold.
    """
    newest, *older = keys.for_size(parse_note(note).checkpoint.size)
    for key in older:
        with suppress(VerificationError):
            return open_note(note, [site_key, witness_key(key)])
    return open_note(note, [site_key, witness_key(newest)])


def _wrong(expected: str, got: str) -> VerificationError:
    return VerificationError(
        "an exchange of the aggregator's key does not hold",
        field="rotation",
        expected=expected,
        got=got,
    )

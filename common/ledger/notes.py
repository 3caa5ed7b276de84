"""Checkpoints as signed notes: the site's signature, the witness's timestamped cosignature.

A note is a text and signatures under it. Parsing is strict: one spelling, no
extension lines, no second signature by the same key. Opening a note needs at
least one required key, and every required key must verify; an empty requirement
fails, because "signed by nobody in particular" is no check.

Source: C2SP signed-note, tlog-checkpoint and tlog-cosignature (Ed25519,
signature types 0x01 and 0x04).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from common.crypto.identity import SIGNATURE_BYTES, PublicKey, SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.merkle import HASH_BYTES

WITNESS_NAME = "aggregator/witness"
MAX_NOTE_BYTES = 8 * 1024
MAX_SIGNATURES = 16
_ORIGIN = re.compile(r"([a-z0-9][a-z0-9-]{0,63})/ledger")
_KEY_NAME = re.compile(r"[^\s+]{1,128}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_DASH = "\u2014"


class Algorithm(IntEnum):
    """Signature types of the notes we read and write."""

    SIGNATURE = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class Checkpoint:
    """A tree at one size.

    Attributes:
        origin: name of the log, ``<site>/ledger``.
        size: number of records.
        root: 32 bytes, the Merkle root over them.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """Write the bytes that are signed: origin, size and root, a line each."""
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n".encode()


@dataclass(frozen=True)
class NoteKey:
    """A key that must have signed a note, under the name it signs with."""

    name: str
    public: PublicKey
    algorithm: Algorithm

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that lead this key's signatures."""
        return _key_id(self.name, self.algorithm, self.public)


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: name, 4-byte key id, and the type's own bytes."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> bytes:
        """Return the line as it stands in the note."""
        return f"{_DASH} {self.name} {_b64(self.key_id + self.signature)}\n".encode()


@dataclass(frozen=True)
class ParsedNote:
    """A well-formed note of which no signature has been checked yet."""

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]


@dataclass(frozen=True)
class OpenedNote:
    """A note whose required signatures all hold.

    Attributes:
        checkpoint: what was signed.
        cosigned_at: UTC time of each required cosignature, by key name.
    """

    checkpoint: Checkpoint
    cosigned_at: dict[str, datetime]


def ledger_origin(site: str) -> str:
    """Return the name under which a site signs its checkpoints.

    Raises:
        InputDataError: not a site name.
    """
    origin = f"{site}/ledger"
    site_of(origin)
    return origin


def site_of(origin: str) -> str:
    """Return the site whose ledger ``origin`` names.

    Raises:
        InputDataError: not of the form ``<site>/ledger``.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise InputDataError(
            "not a ledger's name",
            field="origin",
            expected="<site>/ledger, the site in lower-case letters, digits and hyphens",
            got="another text",
        )
    return match.group(1)


def ledger_key(origin: str, public: PublicKey) -> NoteKey:
    """Return the requirement that the site signed."""
    return NoteKey(origin, public, Algorithm.SIGNATURE)


def witness_key(public: PublicKey) -> NoteKey:
    """Return the requirement that the aggregator cosigned as witness."""
    return NoteKey(WITNESS_NAME, public, Algorithm.COSIGNATURE)


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return a note over ``checkpoint``, signed by the log under its origin."""
    text = checkpoint.text()
    identity = ledger_key(checkpoint.origin, key.public)
    signature = NoteSignature(identity.name, identity.key_id, key.sign(text))
    return text + b"\n" + signature.line()


def cosign_note(note: bytes, key: SigningKey, now: datetime) -> bytes:
    """``note`` with the witness's timestamped cosignature added.

    The caller has verified the note; this only refuses what is malformed or
    cosigned by the same key already.

    Raises:
        VerificationError: malformed, or already cosigned.
    """
    parsed = parse_note(note)
    identity = witness_key(key.public)
    if any(_is_by(signature, identity) for signature in parsed.signatures):
        raise _malformed("one cosignature by each witness", "a second one")
    seconds = int(now.timestamp())
    signature = key.sign(_cosigned(seconds, parsed.checkpoint))
    added = NoteSignature(identity.name, identity.key_id, seconds.to_bytes(8, "big") + signature)
    return note + added.line()


def parse_note(note: bytes) -> ParsedNote:
    """Take a note apart without trusting it.

    Raises:
        VerificationError: not a checkpoint note in its one spelling.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise _malformed(f"at most {MAX_NOTE_BYTES} bytes", "more")
    try:
        text, blank, tail = note.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError as error:
        raise _malformed("UTF-8", "other bytes") from error
    lines = text.split("\n")
    if not blank or len(lines) != 3:
        raise _malformed("origin, size and root, a line each", "another layout")
    origin, size, root = lines
    if _ORIGIN.fullmatch(origin) is None or _SIZE.fullmatch(size) is None:
        raise _malformed("an origin and a size", "another text")
    checkpoint = Checkpoint(origin, int(size), _unb64(root, HASH_BYTES))
    if not tail.endswith("\n"):
        raise _malformed("complete signature lines", "a cut line")
    signature_lines = tail[:-1].split("\n")
    if len(signature_lines) > MAX_SIGNATURES:
        raise _malformed(f"at most {MAX_SIGNATURES} signatures", "more")
    signatures = tuple(_parse_signature(line) for line in signature_lines)
    if len({(s.name, s.key_id) for s in signatures}) != len(signatures):
        raise _malformed("one signature by each key", "a second one")
    return ParsedNote(checkpoint, signatures)


def open_note(note: bytes, required: Sequence[NoteKey]) -> OpenedNote:
    """Check that every required key signed the note; other signatures are not looked at.

    Raises:
        VerificationError: malformed, a required signature missing or false, or
            no key required at all.
    """
    if not required:
        raise VerificationError(
            "a note cannot be opened",
            field="required keys",
            expected="at least one",
            got="none",
            advice="Name the key that must have signed",
        )
    parsed = parse_note(note)
    cosigned_at: dict[str, datetime] = {}
    for key in required:
        mine = [signature for signature in parsed.signatures if _is_by(signature, key)]
        if not mine:
            raise VerificationError(
                "a note lacks a signature",
                field=key.name,
                expected=f"signed with the key {key.public.fingerprint[:16]}",
                got="no such signature",
            )
        seconds = _verify_signature(mine[0].signature, key, parsed.checkpoint)
        if seconds is not None:
            cosigned_at[key.name] = seconds
    return OpenedNote(parsed.checkpoint, cosigned_at)


def _verify_signature(signature: bytes, key: NoteKey, checkpoint: Checkpoint) -> datetime | None:
    if key.algorithm is Algorithm.SIGNATURE:
        key.public.verify(signature, checkpoint.text())
        return None
    if len(signature) != 8 + SIGNATURE_BYTES:
        raise _malformed("a timestamped cosignature", "another length")
    seconds = int.from_bytes(signature[:8], "big")
    key.public.verify(signature[8:], _cosigned(seconds, checkpoint))
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise _malformed("a cosignature time", "an impossible one") from error


def _cosigned(seconds: int, checkpoint: Checkpoint) -> bytes:
    return b"cosignature/v1\ntime %d\n" % seconds + checkpoint.text()


def _parse_signature(line: str) -> NoteSignature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or _KEY_NAME.fullmatch(parts[1]) is None:
        raise _malformed("a dash, a key name and base64", "another line")
    data = _unb64(parts[2])
    if len(data) <= 4:
        raise _malformed("a key id and a signature", "fewer bytes")
    return NoteSignature(parts[1], data[:4], data[4:])


def _is_by(signature: NoteSignature, key: NoteKey) -> bool:
    return signature.name == key.name and signature.key_id == key.key_id


def _key_id(name: str, algorithm: Algorithm, public: PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public.raw).digest()[:4]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str, length: int | None = None) -> bytes:
    """Decode base64 in its one canonical spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise _malformed("base64", "another text") from error
    if _b64(data) != text or (length is not None and len(data) != length):
        raise _malformed("canonical base64 of the right length", "another text")
    return data


def _malformed(expected: str, got: str) -> VerificationError:
    return VerificationError("a signed note is malformed", expected=expected, got=got)

"""Checkpoints as signed notes: the site's signature, the witnesses' timestamped cosignatures.

A note is a text and signatures under it. Parsing is strict: one spelling, no
extension lines, no second signature by the same key. Opening a note needs at
least one required key, and every required key must verify; an empty requirement
fails, because "signed by nobody in particular" is no check.

Source: C2SP signed-note, tlog-checkpoint and tlog-cosignature (Ed25519, signature
types 0x01 and 0x04; ML-DSA-44, type 0x06).
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

from common.crypto import postquantum
from common.crypto.identity import SIGNATURE_BYTES, PublicKey, SigningKey
from common.crypto.postquantum import PostQuantumKey, PostQuantumSigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.merkle import HASH_BYTES

WITNESS_NAME = "aggregator/witness"
MAX_SIGNATURES = 40
MAX_NOTE_BYTES = 136 * 1024
"""As many cosignatures as are read, each of ML-DSA-44 under a long name: 136 kB."""
_ORIGIN = re.compile(r"([a-z0-9][a-z0-9-]{0,63})/ledger")
_KEY_NAME = re.compile(r"[!-*,-~]{1,128}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_DASH = "\u2014"
_SUBTREE = b"subtree/v1\n\0"
_LATEST_S = 253_402_300_799
"""The last second of the year 9999: later ones are no time that Python knows."""


class Algorithm(IntEnum):
    """Signature types of the notes we read and write."""

    SIGNATURE = 1
    COSIGNATURE = 4
    POSTQUANTUM = 6


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
    public: PublicKey | PostQuantumKey
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
    """``note`` with the aggregator's timestamped cosignature added.

    The caller has verified the note; this only refuses what is malformed or
    cosigned by the same key already.

    Raises:
        VerificationError: malformed, or already cosigned.
    """
    parsed = parse_note(note)
    identity = witness_key(key.public)
    if any(_is_by(signature, identity) for signature in parsed.signatures):
        raise _malformed("one cosignature by each witness", "a second one")
    return note + cosignature(parsed.checkpoint, WITNESS_NAME, key, now).line()


def cosignature(
    checkpoint: Checkpoint, name: str, key: SigningKey | PostQuantumSigningKey, now: datetime
) -> NoteSignature:
    """Return a witness's statement: "I saw this at ``now``, and nothing that contradicts it".

    Args:
        checkpoint: that was verified, and stored as the last one seen.
        name: of the witness.
        key: Ed25519 or ML-DSA-44.
        now: aware.
    """
    seconds = int(now.timestamp())
    if isinstance(key, SigningKey):
        identity = NoteKey(name, key.public, Algorithm.COSIGNATURE)
    else:
        identity = NoteKey(name, key.public, Algorithm.POSTQUANTUM)
    signature = key.sign(_cosigned(seconds, checkpoint, identity))
    return NoteSignature(name, identity.key_id, seconds.to_bytes(8, "big") + signature)


def parse_note(note: bytes, *, any_log: bool = False) -> ParsedNote:
    """Take a note apart without trusting it.

    Args:
        note: as it was stored or came.
        any_log: also of a log that is no site's ledger: what a witness for many reads.

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
    if (_KEY_NAME if any_log else _ORIGIN).fullmatch(origin) is None or _SIZE.fullmatch(
        size
    ) is None:
        raise _malformed("an origin and a size", "another text")
    checkpoint = Checkpoint(origin, int(size), _unb64(root, HASH_BYTES))
    return ParsedNote(checkpoint, parse_signatures(tail))


def parse_signatures(text: str) -> tuple[NoteSignature, ...]:
    """Read signature lines, as they end a note or are a witness's answer.

    Raises:
        VerificationError: not such lines, too many of them, or two by one key.
    """
    if not text.endswith("\n"):
        raise _malformed("complete signature lines", "a cut line")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise _malformed(f"at most {MAX_SIGNATURES} signatures", "more")
    signatures = tuple(_parse_signature(line) for line in lines)
    if len({(s.name, s.key_id) for s in signatures}) != len(signatures):
        raise _malformed("one signature by each key", "a second one")
    return signatures


def open_note(note: bytes, required: Sequence[NoteKey], *, any_log: bool = False) -> OpenedNote:
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
    parsed = parse_note(note, any_log=any_log)
    cosigned_at: dict[str, datetime] = {}
    for key in required:
        signature = signature_by(key, parsed.signatures)
        if signature is None:
            raise VerificationError(
                "a note lacks a signature",
                field=key.name,
                expected=f"signed with the key {key.public.fingerprint[:16]}",
                got="no such signature",
            )
        moment = verify_signature(signature, key, parsed.checkpoint)
        if moment is not None:
            cosigned_at[key.name] = moment
    return OpenedNote(parsed.checkpoint, cosigned_at)


def signature_by(key: NoteKey, signatures: Sequence[NoteSignature]) -> NoteSignature | None:
    """Return what claims to be signed with ``key``; nothing is verified yet."""
    return next((signature for signature in signatures if _is_by(signature, key)), None)


def verify_signature(line: NoteSignature, key: NoteKey, checkpoint: Checkpoint) -> datetime | None:
    """Return only if the line was signed with ``key`` over ``checkpoint``.

    Returns:
        The UTC time of a cosignature; ``None`` for a log's own signature.

    Raises:
        VerificationError: it was not, or names no time.
    """
    signature, public = line.signature, key.public
    if key.algorithm is Algorithm.SIGNATURE:
        public.verify(signature, checkpoint.text())
        return None
    of_key = SIGNATURE_BYTES if isinstance(public, PublicKey) else postquantum.SIGNATURE_BYTES
    if len(signature) != 8 + of_key:
        raise _malformed("a timestamped cosignature", "another length")
    seconds = int.from_bytes(signature[:8], "big")
    if not 0 < seconds <= _LATEST_S:  # zero: "no statement that this was the largest tree"
        raise _malformed("a cosignature time", "an impossible one")
    public.verify(signature[8:], _cosigned(seconds, checkpoint, key))
    return datetime.fromtimestamp(seconds, UTC)


def _cosigned(seconds: int, checkpoint: Checkpoint, key: NoteKey) -> bytes:
    """Return what a cosigner signs: of ML-DSA-44 it names the cosigner, too."""
    if key.algorithm is not Algorithm.POSTQUANTUM:
        return b"cosignature/v1\ntime %d\n" % seconds + checkpoint.text()
    parts = (_SUBTREE, _short(key.name), _number(seconds), _short(checkpoint.origin))
    return b"".join((*parts, _number(0), _number(checkpoint.size), checkpoint.root))


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


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


def _key_id(name: str, algorithm: Algorithm, public: PublicKey | PostQuantumKey) -> bytes:
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

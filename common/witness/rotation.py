"""How a witness's new keys follow its old ones: a note that the old keys sign.

Whoever has the old keys in a policy file can take over the new ones from the note alone,
and only those: of each kind of key, one. A rotation that was followed before, or is of
another witness, changes nothing, because its signers do not stand in the policy.

::

    cairn-witness-rotation/v1
    <name of the witness>
    <number of the new generation>
    <vkey>                          one of each kind, a line each

    <signature lines by the old keys, each under the key id of its vkey>

What the keys sign begins with the first line, so that it is never a cosignature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.crypto.identity import SigningKey
from common.crypto.postquantum import PostQuantumSigningKey
from common.errors import VerificationError
from common.ledger.notes import NoteKey, NoteSignature, parse_signatures, signature_by
from common.witness.policy_text import parse_text
from common.witness.vkeys import parse_witness_key, vkey_text

_HEAD = "cairn-witness-rotation/v1"
MAX_ROTATION_BYTES = 32 * 1024


@dataclass(frozen=True)
class Rotation:
    """A well-formed rotation note of which no signature has been checked yet.

    Attributes:
        name: of the witness.
        number: of the new generation.
        keys: the new ones.
        text: what was signed.
        signatures: by the old keys.
    """

    name: str
    number: int
    keys: tuple[NoteKey, ...]
    text: bytes
    signatures: tuple[NoteSignature, ...]


def rotation_note(
    name: str,
    number: int,
    new: Sequence[NoteKey],
    signers: Sequence[SigningKey | PostQuantumSigningKey],
    old: Sequence[NoteKey],
) -> bytes:
    """Return the note by which ``old`` hand over to ``new``.

    Args:
        name: of the witness.
        number: of the new generation.
        new: its keys.
        signers: secret halves of ``old``, in their order.
        old: the keys that sign.
    """
    lines = [_HEAD, name, str(number), *(vkey_text(key) for key in new)]
    text = "".join(f"{line}\n" for line in lines).encode("ascii")
    signed = [
        NoteSignature(name, key.key_id, signer.sign(text)).line()
        for key, signer in zip(old, signers, strict=True)
    ]
    return text + b"\n" + b"".join(signed)


def parse_rotation(data: bytes) -> Rotation:
    """Read a rotation note without trusting it.

    Raises:
        VerificationError: malformed.
        InputDataError: a line of it is no witness's key.
    """
    if len(data) > MAX_ROTATION_BYTES:
        raise _malformed(f"at most {MAX_ROTATION_BYTES} bytes", "more")
    text, blank, tail = data.partition(b"\n\n")
    try:
        lines = text.decode("ascii").split("\n")
        signatures = parse_signatures(tail.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed("text", "other bytes") from error
    is_number = len(lines) > 2 and lines[2].isdecimal() and len(lines[2]) < 10
    if not blank or len(lines) < 4 or lines[0] != _HEAD or not is_number:
        raise _malformed("head, name, number and keys, a line each", "another layout")
    keys = tuple(parse_witness_key(line) for line in lines[3:])
    kinds = {key.algorithm for key in keys}
    if len(kinds) != len(keys) or any(key.name != lines[1] for key in keys):
        raise _malformed("one key of each kind, under the witness's name", "others")
    return Rotation(lines[1], int(lines[2]), keys, text + b"\n", signatures)


def follow_rotation(policy: str, note: bytes) -> str:
    """Return the policy's text with the witness's new keys in place of its old ones.

    Args:
        policy: text of a policy file.
        note: the rotation note, from wherever.

    Raises:
        VerificationError: malformed, of no witness of this policy, or a signature of one
            of its keys is missing or false.
        InputDataError: the policy is not valid.
    """
    rotation = parse_rotation(note)
    olds = [parse_witness_key(line.vkey) for line in parse_text(policy).witnesses]
    olds = [key for key in olds if key.name == rotation.name]
    if not olds:
        raise _malformed("a witness of this policy", f"the witness {rotation.name}")
    new = {key.algorithm: key for key in rotation.keys}
    for old in olds:
        line = signature_by(old, rotation.signatures)
        if line is None:
            raise _malformed(f"signed with the key {old.key_id.hex()}", "no such signature")
        old.public.verify(line.signature, rotation.text)
        if old.algorithm not in new:
            raise _malformed("a new key of each kind that the policy has", "none")
        policy = policy.replace(vkey_text(old), vkey_text(new[old.algorithm]))
    parse_text(policy)
    return policy


def _malformed(expected: str, got: str) -> VerificationError:
    return VerificationError(
        "a witness's rotation does not hold",
        expected=expected,
        got=got,
        advice="Nothing was changed. Telephone the witness's operator",
    )

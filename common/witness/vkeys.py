"""Verifier keys: one line of text that names a log or a witness, and holds its public key.

``<name>+<key id in hex>+<base64 of type and key>``. The key id is computed anew and must
be the one that is written, so that a key is never taken under a name it was not made for.

Source: C2SP signed-note, verifier keys.
"""

from __future__ import annotations

import base64
import binascii
import re

from common.crypto.identity import PublicKey
from common.crypto.postquantum import PostQuantumKey
from common.errors import CairnError, InputDataError
from common.ledger.notes import Algorithm, NoteKey

COSIGNS = frozenset({Algorithm.COSIGNATURE, Algorithm.POSTQUANTUM})
MAX_VKEY_CHARACTERS = 2048
_NAME = re.compile(r"[!-*,-~]{1,128}")


def vkey_text(key: NoteKey) -> str:
    """Return the one line that ``parse_vkey`` reads."""
    material = base64.b64encode(bytes([key.algorithm]) + key.public.raw).decode("ascii")
    return f"{key.name}+{key.key_id.hex()}+{material}"


def parse_vkey(text: str) -> NoteKey:
    """Read a verifier key in its one spelling.

    Raises:
        InputDataError: another text, a type that is not known, or another key id.
    """
    name, _, rest = text.partition("+")
    key_id, _, material = rest.partition("+")
    try:
        if len(text) > MAX_VKEY_CHARACTERS or _NAME.fullmatch(name) is None:
            raise _not_a_vkey("a name, a key id and a key, with + between", "another text")
        data = base64.b64decode(material, validate=True)
        algorithm = Algorithm(data[0])
        is_pq = algorithm is Algorithm.POSTQUANTUM
        key = NoteKey(name, (PostQuantumKey if is_pq else PublicKey)(data[1:]), algorithm)
    except (binascii.Error, ValueError, IndexError) as error:
        expected = "a key of type 1, 4 (Ed25519) or 6 (ML-DSA-44)"
        raise _not_a_vkey(expected, "another") from error
    except CairnError as error:
        raise _not_a_vkey(error.expected, error.got) from error
    if vkey_text(key) != text:
        raise _not_a_vkey(f"the key id {key.key_id.hex()}", f"{key_id[:16]!a}")
    return key


def parse_log_key(text: str) -> NoteKey:
    """Read the verifier key of a log.

    Raises:
        InputDataError: not one, or a witness's.
    """
    key = parse_vkey(text)
    if key.algorithm is not Algorithm.SIGNATURE:
        raise _not_a_vkey("a log's key, of type 1", f"one of type {int(key.algorithm)}")
    return key


def parse_witness_key(text: str) -> NoteKey:
    """Read the verifier key of a witness.

    Raises:
        InputDataError: not one, or a log's.
    """
    key = parse_vkey(text)
    if key.algorithm not in COSIGNS:
        raise _not_a_vkey("a witness's key, of type 4 or 6", f"one of type {int(key.algorithm)}")
    return key


def _not_a_vkey(expected: str, got: str) -> InputDataError:
    return InputDataError(
        "not a verifier key",
        expected=expected,
        got=got,
        advice="Copy the whole line that `cairn-witness show` prints",
    )

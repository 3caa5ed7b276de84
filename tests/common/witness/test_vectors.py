"""The bytes between logs, witnesses and auditors never change: others rely on them.

Written anew by ``python tests/common/witness/test_vectors.py``, which only a new version
of a format justifies. ML-DSA signatures differ at every writing; the frozen one verifies.
"""

from __future__ import annotations

import json
import struct
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from common.crypto.identity import SigningKey
from common.crypto.postquantum import PostQuantumSigningKey
from common.ledger.merkle import consistency_proof, inclusion_proof, leaf_hash, tree_root
from common.ledger.notes import (
    Algorithm,
    Checkpoint,
    NoteKey,
    cosignature,
    ledger_key,
    parse_signatures,
    sign_checkpoint,
    verify_signature,
)
from common.witness.policy import parse_policy
from common.witness.rotation import follow_rotation, rotation_note
from common.witness.tlog_proof import TlogProof
from common.witness.vkeys import parse_vkey, vkey_text
from common.witness.wire import AddCheckpoint

VECTOR = Path(__file__).parents[2] / "vectors" / "witness_wire.json"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SITE = SigningKey.from_seed(b"\x11" * 32)
WITNESS = SigningKey.from_seed(b"\x33" * 32)
QUANTUM = PostQuantumSigningKey.from_seed(b"\x44" * 32)
NEXT = SigningKey.from_seed(b"\x55" * 32)
NAME = "witness.example/w1"
ORIGIN = "site-a/ledger"
KEYS = (
    NoteKey(NAME, WITNESS.public, Algorithm.COSIGNATURE),
    NoteKey(NAME, QUANTUM.public, Algorithm.POSTQUANTUM),
)


def produce() -> dict[str, str]:
    leaves = [leaf_hash(b"record %d" % number) for number in range(7)]
    checkpoint = Checkpoint(ORIGIN, 7, tree_root(leaves))
    note = sign_checkpoint(checkpoint, SITE)
    request = AddCheckpoint(3, tuple(consistency_proof(leaves, 3)), note)
    classical = cosignature(checkpoint, NAME, WITNESS, NOW).line()
    new = (NoteKey(NAME, NEXT.public, Algorithm.COSIGNATURE),)
    proof = TlogProof(b"record 4", 4, tuple(inclusion_proof(leaves, 4)), note + classical)
    return {
        "log_vkey": vkey_text(ledger_key(ORIGIN, SITE.public)),
        "witness_vkey": vkey_text(KEYS[0]),
        "postquantum_vkey": vkey_text(KEYS[1]),
        "request": request.to_bytes().decode(),
        "cosignature_ed25519": classical.decode(),
        "rotation": rotation_note(NAME, 2, new, [WITNESS], KEYS[:1]).decode(),
        "tlog_proof": proof.to_bytes().decode(),
    }


def frozen() -> dict[str, str]:
    return json.loads(VECTOR.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(produce()))
def test_the_frozen_bytes_are_what_we_write(name):
    assert produce()[name] == frozen()[name]


def test_the_frozen_bytes_read_back():
    vector = frozen()
    request = AddCheckpoint.from_bytes(vector["request"].encode())
    assert (request.old, len(request.proof)) == (3, 4)
    note = request.note + vector["cosignature_ed25519"].encode()
    policy = f"log {vector['log_vkey']}\nwitness w {vector['witness_vkey']}\nquorum w\n"
    assert parse_policy(policy).judge(note).at == NOW
    followed = follow_rotation(policy, vector["rotation"].encode())
    assert parse_policy(followed).witnesses[0].key.public == NEXT.public
    proof = TlogProof.from_bytes(vector["tlog_proof"].encode())
    assert (proof.index, proof.line, proof.note) == (4, b"record 4", note)


def test_the_frozen_ml_dsa_cosignature_is_over_the_published_structure():
    vector = frozen()
    note = AddCheckpoint.from_bytes(vector["request"].encode()).note
    (line,) = parse_signatures(vector["cosignature_mldsa44"])
    key = parse_vkey(vector["postquantum_vkey"])
    assert (line.name, line.key_id) == (NAME, key.key_id)
    leaves = [leaf_hash(b"record %d" % number) for number in range(7)]
    root = tree_root(leaves)
    assert verify_signature(line, key, Checkpoint(ORIGIN, 7, root)) == NOW
    seconds = int(NOW.timestamp())
    message = b"subtree/v1\n\0"
    message += bytes([len(NAME)]) + NAME.encode() + struct.pack(">Q", seconds)
    message += bytes([len(ORIGIN)]) + ORIGIN.encode() + struct.pack(">QQ", 0, 7) + root
    assert line.signature[:8] == struct.pack(">Q", seconds)
    MLDSA44PublicKey.from_public_bytes(key.public.raw).verify(line.signature[8:], message)
    assert note.startswith(Checkpoint(ORIGIN, 7, root).text())


def test_the_published_example_of_a_verifier_key_is_read():
    """From C2SP signed-note: the key id is not ours to choose."""
    text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    assert vkey_text(parse_vkey(text)) == text


if __name__ == "__main__":
    leaf_hashes = [leaf_hash(b"record %d" % number) for number in range(7)]
    quantum = cosignature(Checkpoint(ORIGIN, 7, tree_root(leaf_hashes)), NAME, QUANTUM, NOW)
    vector = {**produce(), "cosignature_mldsa44": quantum.line().decode()}
    VECTOR.write_text(json.dumps(vector, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{VECTOR.name}\n")

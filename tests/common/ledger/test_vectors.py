"""The bytes of a record, a checkpoint and a proof never change: other readers rely on them.

Written anew by ``python tests/common/ledger/test_vectors.py``, which only a new
version of the format justifies.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey, SigningKey
from common.ledger.log import Ledger
from common.ledger.notes import parse_note
from common.ledger.proof import Proof, cosign, verify_proof
from common.ledger.records import ArrayRecord, PrivacyRecord, RecordFields, parse_record

VECTORS = Path(__file__).parents[2] / "vectors"
SITE_SEED, WITNESS_SEED = b"\x11" * 32, b"\x22" * 32
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def produce(folder: Path) -> dict[str, dict[str, str]]:
    """The three vectors as our code makes them today."""
    payload = b"a released envelope"
    site, witness = SigningKey.from_seed(SITE_SEED), SigningKey.from_seed(WITNESS_SEED)
    fields = RecordFields(
        run="run-1",
        round=2,
        record_type="ModelUpdate",
        payload_sha256=sha256_hex(payload),
        bytes=len(payload),
        arrays=(
            ArrayRecord(
                name="fc1/weight", dtype="float32", shape=(256, 512), sha256=sha256_hex(b"fc1")
            ),
        ),
        plan_fingerprint=sha256_hex(b"plan"),
        policy_sha256=sha256_hex(b"policy"),
        phase="train",
        order_sha256=sha256_hex(b"order"),
        order_signature=site.sign(b"order").hex(),
        dp=PrivacyRecord(
            mechanism="gaussian",
            clip_milli=1000,
            sigma_milli=4225,
            epsilon_total_milli=1500,
            delta="1e-6",
        ),
        masked=False,
    )
    keys = {"site_seed": SITE_SEED.hex(), "site_public": site.public.text}
    with Ledger.open(folder, "site-a/ledger", site, lambda: NOW) as ledger:
        seen = ledger.append("REFUSE", code=12).checkpoint
        entry = ledger.append("SEND", **fields)
        proof = ledger.proof(entry.seq, since=2)
    return {
        "ledger_record.json": {
            "line": entry.line.decode(),
            "leaf_sha256": hashlib.sha256(b"\0" + entry.line).hexdigest(),
        },
        "ledger_checkpoint.json": {
            **keys,
            "witness_seed": WITNESS_SEED.hex(),
            "witness_public": witness.public.text,
            "note": entry.checkpoint.decode(),
            "cosigned": cosign(entry.checkpoint, witness, NOW).decode(),
        },
        "ledger_proof.json": {
            **keys,
            "payload": payload.decode(),
            "last_seen": seen.decode(),
            "proof": proof.to_bytes().decode(),
        },
    }


def frozen(name: str) -> dict[str, str]:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name", ["ledger_record.json", "ledger_checkpoint.json", "ledger_proof.json"]
)
def test_the_frozen_bytes_are_what_we_write(tmp_path, name):
    assert produce(tmp_path)[name] == frozen(name)


def test_the_frozen_record_reads_back():
    record = parse_record(frozen("ledger_record.json")["line"].encode())
    assert record.arrays is not None
    assert record.arrays[0].shape == (256, 512)


def test_the_frozen_proof_verifies():
    vector = frozen("ledger_proof.json")
    verified = verify_proof(
        Proof.from_bytes(vector["proof"].encode()),
        sha256_hex(vector["payload"].encode()),
        "site-a/ledger",
        PublicKey.parse(vector["site_public"]),
        parse_note(vector["last_seen"].encode()).checkpoint,
    )
    assert verified.record.seq == 2


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for file_name, vector in produce(Path(scratch)).items():
            (VECTORS / file_name).write_text(json.dumps(vector, indent=2) + "\n", encoding="utf-8")
            sys.stdout.write(f"{file_name}\n")

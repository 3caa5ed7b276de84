"""A site, a witness, a clock that ticks, and a ledger grown by releases and receipts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.ledger.log import Entry, Ledger
from common.ledger.notes import ledger_origin
from common.ledger.proof import Proof, cosign, verify_proof
from common.ledger.records import ArrayRecord, RecordFields


class Clock:
    """One second later at every call."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@dataclass
class World:
    """Keys and helpers that every ledger test needs."""

    site: SigningKey
    witness: SigningKey
    origin: str
    clock: Clock

    def open(self, folder: Path) -> Ledger:
        return Ledger.open(folder, self.origin, self.site, self.clock)

    def send_fields(self, payload: bytes, round_number: int = 0) -> RecordFields:
        array = ArrayRecord(
            name="fc1/weight", dtype="float32", shape=(2, 3), sha256=sha256_hex(payload)
        )
        return RecordFields(
            run="run-1",
            round=round_number,
            record_type="ModelUpdate",
            payload_sha256=sha256_hex(payload),
            bytes=len(payload),
            arrays=(array,),
            plan_fingerprint=sha256_hex(b"plan"),
            policy_sha256=sha256_hex(b"policy"),
            phase="train",
            order_sha256=sha256_hex(b"order"),
        )

    def send(self, ledger: Ledger, payload: bytes, round_number: int = 0) -> Entry:
        ledger.spool(payload)
        return ledger.append("SEND", **self.send_fields(payload, round_number))

    def witness_it(self, ledger: Ledger, entry: Entry, last_seen=None) -> bytes:
        """The aggregator verifies and cosigns; the site keeps the receipt."""
        since = last_seen.size if last_seen else 0
        proof = Proof.from_bytes(ledger.proof(entry.seq, since).to_bytes())
        digest = entry.record.payload_sha256 or ""
        verified = verify_proof(proof, digest, self.origin, self.site.public, last_seen)
        receipt = cosign(verified.note, self.witness, self.clock())
        ledger.add_receipt(receipt, self.witness.public)
        return receipt

    def grow(self, folder: Path, releases: int, *, receipts: bool = True) -> list[bytes]:
        """A closed ledger of GENESIS and ``releases`` SENDs; returns the receipts."""
        notes = []
        with self.open(folder) as ledger:
            for number in range(releases):
                entry = self.send(ledger, b"payload %d" % number, number)
                if receipts:
                    notes.append(self.witness_it(ledger, entry))
        return notes


@pytest.fixture
def world() -> World:
    return World(
        site=SigningKey.from_seed(b"\1" * 32),
        witness=SigningKey.from_seed(b"\2" * 32),
        origin=ledger_origin("site-a"),
        clock=Clock(),
    )

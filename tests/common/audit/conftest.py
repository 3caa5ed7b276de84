"""A site's ledger as an auditor receives it, and the command as a script calls it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey, write_public_key
from common.journal.entries import Part
from common.journal.writer import Measure
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.proof import cosign
from common.ledger.records import ArrayRecord, PrivacyRecord, RefusalDetail
from tests.releases import a_journal

WITNESS = SigningKey.from_seed(b"\2" * 32)


class Received:
    """A ledger folder with two rounds of releases, one refusal and receipts."""

    def __init__(self, folder: Path, site: str, seed: bytes) -> None:
        self.ledger = folder / site
        self.key = folder / f"{site}.pub"
        self.witness = folder / "witness.pub"
        self._signing = signing = SigningKey.from_seed(seed)
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

        def clock() -> datetime:
            nonlocal moment
            moment += timedelta(minutes=1)
            return moment

        with Ledger.open(self.ledger, ledger_origin(site), signing, clock) as ledger:
            ledger.append("APPROVE", plan_fingerprint=sha256_hex(b"plan"), person="A. Smith")
            for number in (1, 2):
                entry = self._send(ledger, number)
                self.receipt = cosign(entry.checkpoint, WITNESS, clock())
                ledger.add_receipt(self.receipt, WITNESS.public)
            ledger.append(
                "REFUSE",
                run="run-1",
                round=3,
                code=12,
                detail=RefusalDetail(field="weights/fc1", expected="finite <b>", got="3 NaN"),
            )
        write_public_key(self.key, signing.public)
        if not self.witness.exists():
            write_public_key(self.witness, WITNESS.public)

    def _send(self, ledger: Ledger, number: int):
        payload = b"x" * 1000 * number
        return ledger.append(
            "SEND",
            run="run-1",
            round=number,
            record_type="ModelUpdate",
            payload_sha256=ledger.spool(payload),
            bytes=len(payload),
            arrays=(
                ArrayRecord(
                    name="fc1/weight", dtype="float32", shape=(256, 512), sha256=sha256_hex(b"a")
                ),
            ),
            plan_fingerprint=sha256_hex(b"plan"),
            policy_sha256=sha256_hex(b"policy"),
            phase="train",
            order_sha256=sha256_hex(b"order"),
            dp=PrivacyRecord(
                mechanism="gaussian",
                clip_milli=1000,
                sigma_milli=4225,
                epsilon_total_milli=1500 * number,
                delta="1e-6",
            ),
        )

    def journal(self, *payloads: bytes) -> Path:
        """The courier's, after it sent these, each for a checkpoint that was cosigned."""
        path = self.ledger.with_suffix(".journal.jsonl")
        path.unlink(missing_ok=True)
        journal = a_journal(path, self.ledger.name)
        sizes = sorted(int(note.stem) for note in (self.ledger / "receipts").glob("*.note"))
        for data, size in zip(payloads, sizes, strict=False):
            part = Part(record_type="ModelUpdate", sha256=sha256_hex(data), bytes=len(data))
            journal.release("a" * 64, data, (part,), size, b"r" * 32, "b" * 64)
            journal.announce("flower", "push-object", len(data) + 500, data)
            plain = len(data) + 500
            measure = Measure(opened=1, handshake=600, plain=plain, tls=22, sent=plain + 622)
            journal.measured("flower", measure)
        journal.settle()
        return path

    def rewrite(self) -> None:
        """The key's holder signs another, shorter past."""
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        origin = ledger_origin(self.ledger.name)
        Ledger.open(self.ledger, origin, self._signing, lambda: moment).close()

    def tamper(self) -> None:
        log = self.ledger / "log.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"round":2', b'"round":1'))


@pytest.fixture
def received(tmp_path) -> Received:
    return Received(tmp_path, "site-a", b"\1" * 32)


@pytest.fixture
def another(tmp_path) -> Received:
    return Received(tmp_path, "site-b", b"\3" * 32)

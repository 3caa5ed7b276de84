"""A site's ledger as an auditor receives it, and the command as a script calls it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey, write_public_key
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.proof import cosign
from common.ledger.records import ArrayRecord, PrivacyRecord, RefusalDetail

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
        path = self.ledger.with_suffix(".sent.jsonl")
        lines = [{"sha256": sha256_hex(data), "bytes": len(data)} for data in payloads]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def rewrite(self) -> None:
        """The key's holder signs another, shorter past."""
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        origin = ledger_origin(self.ledger.name)
        Ledger.open(self.ledger, origin, self._signing, lambda: moment).close()

    def grow(self) -> None:
        """One more record, as the site would write it."""
        moment = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)
        origin = ledger_origin(self.ledger.name)
        with Ledger.open(self.ledger, origin, self._signing, lambda: moment) as ledger:
            ledger.append("DECLINE", plan_fingerprint=sha256_hex(b"plan"), person="A. Smith")

    def tamper(self) -> None:
        log = self.ledger / "log.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"round":2', b'"round":1'))


@pytest.fixture
def received(tmp_path) -> Received:
    return Received(tmp_path, "site-a", b"\1" * 32)


@pytest.fixture
def another(tmp_path) -> Received:
    return Received(tmp_path, "site-b", b"\3" * 32)

"""A site's ledger as an auditor receives it, and the command as a script calls it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.certificates import node_public_line
from common.crypto.identity import write_public_key
from common.journal.entries import Part
from common.journal.writer import Measure
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.proof import cosign
from common.ledger.records import PrivacyRecord, RefusalDetail
from tests.ledgers import AGGREGATOR, NO_OP, Written, policy_of, report, update
from tests.releases import NODE_KEY, a_journal


class Received:
    """A ledger folder with two rounds of releases, one refusal and receipts."""

    def __init__(self, folder: Path, site: str, seed: bytes) -> None:
        self.ledger = folder / site
        self.key = folder / f"{site}.pub"
        self.witness = folder / "witness.pub"
        self.newest = folder / f"{site}.note"
        self.payloads = (report(NO_OP, 1, site), update(NO_OP, 2, site))
        self._written = written = Written(
            self.ledger, site, seed, policy_of(plans={"approval": "each"})
        )
        with written.ledger as ledger:
            ledger.append("APPROVE", plan_fingerprint=NO_OP.fingerprint, person="A. Smith")
            for number, payload in enumerate(self.payloads, start=1):
                spent = PrivacyRecord(
                    mechanism="gaussian",
                    clip_milli=1000,
                    sigma_milli=4225,
                    epsilon_total_milli=1500 * number,
                    delta="1e-6",
                )
                (entry,) = written.release([payload], dp=spent)
                self.receipt = cosign(entry.checkpoint, AGGREGATOR, written.clock())
                ledger.add_receipt(self.receipt, AGGREGATOR.public)
            last = ledger.append(
                "REFUSE",
                run="run-1",
                round=3,
                code=12,
                detail=RefusalDetail(field="weights/fc1", expected="finite <b>", got="3 NaN"),
            )
        self.newest.write_bytes(cosign(last.checkpoint, AGGREGATOR, written.clock()))
        write_public_key(self.key, written.signing.public)
        if not self.witness.exists():
            write_public_key(self.witness, AGGREGATOR.public)

    @property
    def held(self) -> tuple[object, ...]:
        """The options of an auditor who has everything but the courier's journal."""
        return ("--key", self.key, "--witness", self.witness, "--checkpoint", self.newest)

    def sent(self, *payloads: bytes) -> tuple[object, ...]:
        """The options of an auditor who has that, too."""
        node = self.ledger.with_suffix(".node.pub")
        node.write_text(node_public_line(NODE_KEY))
        return ("--journal", self.journal(*payloads), "--courier-key", node)

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
        Ledger.open(self.ledger, origin, self._written.signing, lambda: moment).close()

    def shorten(self) -> None:
        """The key's holder signs another, shorter past, of the same federation."""
        self._written.open().close()

    def grow(self) -> bytes:
        """One more record, as the site would write it, and the aggregator's word for it."""
        with self._written.open() as ledger:
            ledger.append("DECLINE", plan_fingerprint=NO_OP.fingerprint, person="A. Smith")
            return cosign(ledger.checkpoint, AGGREGATOR, self._written.clock())

    def restore(self, lost: bytes) -> None:
        """A person says that the folder is a backup."""
        with self._written.open() as ledger:
            ledger.restore(lost, AGGREGATOR.public, "Ada Byron")

    def tamper(self) -> None:
        log = self.ledger / "log.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"round":2', b'"round":1'))


@pytest.fixture
def received(tmp_path) -> Received:
    return Received(tmp_path, "site-a", b"\1" * 32)


@pytest.fixture
def another(tmp_path) -> Received:
    return Received(tmp_path, "site-b", b"\3" * 32)

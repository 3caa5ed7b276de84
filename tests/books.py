"""A courier's journal beside a ledger, as an auditor gets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from common.journal import Balance, Evidence, RequestJournal, weigh
from common.journal.entries import Network
from common.journal.writer import Measure
from common.ledger.records import LedgerRecord
from tests.releases import FirstDoor, a_journal, asked_by

PUSH = b"p" * 400


class Books:
    """A site's ledger and journal, and rounds that really went through both doors."""

    def __init__(self, root: Path, network: Callable[[], Network | None] = lambda: None) -> None:
        self.first = FirstDoor(root / "ledger")
        self.path = root / "journal.jsonl"
        self.journal: RequestJournal = a_journal(self.path, network=network)
        self.sizes: list[int] = []

    def round_(self, number: int, extra: int = 0) -> None:
        """One round: a poll, a release, and its push, which says ``extra`` bytes more."""
        text = b"order %d" % number
        self.journal.announce("flower", "pull-messages", 500, b"")
        passed = self.first.second().check_reply(self.first.reply(text, number), asked_by(text))
        root = passed.checkpoint.root
        self.journal.release(
            passed.parts[0].sha256,
            passed.data,
            passed.parts,
            passed.checkpoint.size,
            root,
            passed.policy_sha256,
        )
        size = len(passed.data) + 700 + extra
        self.journal.announce("flower", "push-messages", 600, PUSH)
        self.journal.announce("flower", "push-object", size, passed.data)
        self.count(500 + 600 + size)
        self.journal.settle()
        self.sizes.append(passed.checkpoint.size)

    @staticmethod
    def plain_of_a_round() -> int:
        """Bytes inside TLS of the first round."""
        with TemporaryDirectory() as folder:
            rehearsed = Books(Path(folder))
            rehearsed.round_(1)
            sent = rehearsed.weigh().wire
            rehearsed.first.ledger.close()
            return sent - 666

    def count(self, plain: int, hidden: int = 0) -> None:
        """What the kernel says of one connection."""
        self.journal.measured(
            "flower",
            Measure(opened=1, handshake=600, plain=plain, tls=66, sent=666 + plain + hidden),
        )

    def records(self) -> list[LedgerRecord]:
        return list(self.first.ledger.records())

    def weigh(self, counters: Path | None = None) -> Balance:
        evidence = Evidence(self.path, None, counters)
        return weigh(evidence, "site-a", self.records(), self.sizes)

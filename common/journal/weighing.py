"""The balance: what the ledger lets leave, what the courier asked, and what the sockets counted.

Every byte that a socket sent is given a cause. What the ledger does not declare, what the
journal does not announce, what goes beyond the room that declared control traffic has, and
what the counters show beyond all of that is *unexplained*. Nothing is cleared that cannot
be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from common.journal.balance import Balance
from common.journal.counters import read_counters
from common.journal.identity import read_courier_key
from common.journal.reader import read_journal
from common.journal.scales import Scales
from common.ledger.records import LedgerRecord


@dataclass(frozen=True)
class Evidence:
    """An auditor's papers beside the ledger.

    Attributes:
        journal: the courier's ``journal.jsonl``.
        courier_key: its node key's public half, as the coordinator has it; None believes the
            journal, which then proves no more than that it agrees with itself.
        counters: a firewall's or kernel's own count of what left; see ``counters``.
    """

    journal: Path
    courier_key: Path | None = None
    counters: Path | None = None


def weigh(
    evidence: Evidence, site: str, records: Iterable[LedgerRecord], receipts: Collection[int] = ()
) -> Balance:
    """Hold a courier's journal and counters against what a ledger declares.

    Args:
        evidence: of the courier.
        site: whose ledger it is.
        records: of the ledger, verified.
        receipts: sizes of the checkpoints that the aggregator has cosigned. Each was pushed
            once, so that a journal without it was cut.

    Raises:
        InputDataError: a file cannot be read at all. Everything else is in the balance.
        VerificationError: a courier's key file that does not hold.
    """
    key = None if evidence.courier_key is None else read_courier_key(evidence.courier_key)
    journal = read_journal(evidence.journal, site, key)
    counters = None if evidence.counters is None else read_counters(evidence.counters)
    sent = (record for record in records if record.event == "SEND")
    scales = Scales({record.payload_sha256 or "": record.bytes or 0 for record in sent})
    if journal.broken is not None:
        scales.findings.append(f"the courier's journal: {journal.broken}")
    for entry in journal.entries:
        scales.put(entry)
    return scales.read(len(journal.entries), receipts, counters)

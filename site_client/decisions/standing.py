"""The decisions that hold, read from the ledger's records: the newest about a thing counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from common.ledger.layout import Layout
from common.ledger.records import LedgerRecord, parse_record
from site_client.site import SiteFolder


@dataclass(frozen=True)
class Decided:
    """A decision's author, and its time (RFC 3339, UTC)."""

    person: str
    ts: str


@dataclass(frozen=True)
class KnownPeer:
    """A site that a person of this one has confirmed.

    Attributes:
        ledger_key: fingerprint of its ledger key, 64 hex digits.
        decided: who confirmed it.
    """

    ledger_key: str
    decided: Decided


@dataclass
class Standing:
    """The decisions that hold now.

    Attributes:
        peers: confirmed sites by name.
        approved, declined: plans by fingerprint; no plan is in both.
    """

    peers: dict[str, KnownPeer] = field(default_factory=dict)
    approved: dict[str, Decided] = field(default_factory=dict)
    declined: dict[str, Decided] = field(default_factory=dict)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Fingerprint of the ledger key of every confirmed site, by name."""
        return {name: peer.ledger_key for name, peer in self.peers.items()}

    def take(self, record: LedgerRecord) -> None:
        """Follow the ledger by one record; records that are no decision change nothing."""
        decided = Decided(record.person or "", record.ts)
        match record.event:
            case "APPROVE":
                self.declined.pop(record.plan_fingerprint or "", None)
                self.approved[record.plan_fingerprint or ""] = decided
            case "DECLINE":
                self.approved.pop(record.plan_fingerprint or "", None)
                self.declined[record.plan_fingerprint or ""] = decided
            case "CONFIRM":
                self.peers[record.peer or ""] = KnownPeer(record.peer_key or "", decided)
            case "FORGET":
                self.peers.pop(record.peer or "", None)
            case _:
                return

    @classmethod
    def of(cls, records: Iterable[LedgerRecord]) -> Standing:
        """Follow these records, oldest first."""
        standing = cls()
        for record in records:
            standing.take(record)
        return standing


def read_standing(site: SiteFolder) -> Standing:
    """Read what holds at a site from its ledger's file; nothing is locked or verified.

    Raises:
        VerificationError: a line that cannot be read.
    """
    log = Layout(site.ledger).log
    # A line without its end is an append in progress.
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return Standing.of(parse_record(line, f"record #{n}") for n, line in enumerate(lines))

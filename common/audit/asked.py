"""A ledger's account of what a site was asked, by whom it was agreed to, and beside whom.

Plans and orders lie in the ledger's archive under their SHA-256, so nothing here is
believed that does not hash to what a verified record names. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from common.audit.load import Audited
from common.canonical import parse_canonical_json, sha256_hex
from common.errors import CairnError, VerificationError
from common.ledger.layout import MAX_PAYLOAD_BYTES, Layout
from common.ledger.reading import read_if_there
from common.ledger.records import LedgerRecord
from common.plan import FederationPlan, parse_plan
from common.words import all_words

Text = Literal["archived", "absent", "altered", "unknown"]
"""Of what lies in the archive: as named; nothing; other bytes; or a plan of another release."""

SAYS: dict[Text, str] = {
    "archived": "its text is in the archive",
    "absent": "its text is not in the archive",
    "altered": "ITS TEXT IN THE ARCHIVE WAS ALTERED",
    "unknown": "its text is in the archive and is no plan that this release knows",
}


@dataclass(frozen=True)
class Word:
    """One decision of a person of the site.

    Attributes:
        seq: its record.
        event: APPROVE, DECLINE, CONFIRM or FORGET.
        person: who.
        ts: when (RFC 3339, UTC).
        peer, peer_key: of CONFIRM and FORGET: about which site.
    """

    seq: int
    event: str
    person: str
    ts: str
    peer: str | None = None
    peer_key: str | None = None

    def as_dict(self) -> dict[str, object]:
        """For ``--json``; without what it is not about."""
        fields = {name: getattr(self, name) for name in ("seq", "event", "person", "ts")}
        about = {"peer": self.peer, "peer_key": self.peer_key}
        return fields | {name: value for name, value in about.items() if value is not None}


@dataclass(frozen=True)
class PlanAsked:
    """One plan that the ledger names.

    Attributes:
        fingerprint: 64 hex digits.
        sent: how many releases were under it; 0 of a plan that was only decided about.
        refused: how many of its orders were refused.
        runs: whose records name it.
        text: whether the plan itself is here.
        plan: the plan, or None.
        words: what people said about it, oldest first.
    """

    fingerprint: str
    sent: int
    refused: int
    runs: tuple[str, ...]
    text: Text
    plan: FederationPlan | None
    words: tuple[Word, ...]

    @property
    def says(self) -> str:
        """In one line: which plan, what was done under it, and whether its text is here."""
        name = "a plan" if self.plan is None else self.plan.name
        done = f"in force for {self.sent} releases" if self.sent else "nothing left under it"
        runs = f" of {', '.join(self.runs)}" if self.runs else ""
        refused = f", {self.refused} refused" if self.refused else ""
        return f"{name}, fingerprint {self.fingerprint[:16]}: {done}{runs}{refused}"

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "fingerprint": self.fingerprint,
            "sent": self.sent,
            "refused": self.refused,
            "runs": list(self.runs),
            "text": self.text,
            "decisions": [word.as_dict() for word in self.words],
            "asked": None if self.plan is None else all_words(self.plan),
        }


@dataclass(frozen=True)
class AskedAndAgreed:
    """A ledger's plans and people.

    Attributes:
        plans: every plan named, first named first.
        peers: what people said of other sites, oldest first.
        known: sites that a person had confirmed at the end: name to fingerprint.
    """

    plans: tuple[PlanAsked, ...]
    peers: tuple[Word, ...]
    known: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "plans": [plan.as_dict() for plan in self.plans],
            "peers": [word.as_dict() for word in self.peers],
            "known_peers": self.known,
        }


def what_was_asked(
    audited: Audited, chosen: Iterable[LedgerRecord] | None = None
) -> AskedAndAgreed:
    """Plans and people of a ledger.

    Args:
        audited: after its audit; only its believable records are looked at.
        chosen: show only plans that these name; None: all.
    """
    layout, records = Layout(audited.folder), audited.records
    named = records if chosen is None else tuple(chosen)
    fingerprints = dict.fromkeys(r.plan_fingerprint for r in named if r.plan_fingerprint)
    plans = tuple(_plan(layout, fingerprint, records) for fingerprint in fingerprints)
    peers = tuple(_word(r) for r in records if r.event in ("CONFIRM", "FORGET"))
    return AskedAndAgreed(plans, peers, _known(peers))


def from_archive(layout: Layout, digest: str) -> bytes | None:
    """Read archived bytes with this SHA-256; None without a file.

    Raises:
        VerificationError: other bytes lie under that name, or no plain file.
        InputDataError: they cannot be read.
    """
    data = read_if_there(layout.payload(digest), "archived text", MAX_PAYLOAD_BYTES)
    if data is not None and sha256_hex(data) != digest:
        raise VerificationError(
            "an archived text was altered",
            field=digest[:16],
            expected="bytes with this SHA-256",
            got="other bytes",
        )
    return data


def _plan(layout: Layout, fingerprint: str, records: Sequence[LedgerRecord]) -> PlanAsked:
    about = [r for r in records if r.plan_fingerprint == fingerprint]
    text, plan = plan_text(layout, fingerprint)
    return PlanAsked(
        fingerprint=fingerprint,
        sent=sum(r.event == "SEND" for r in about),
        refused=sum(r.event == "REFUSE" for r in about),
        runs=tuple(dict.fromkeys(r.run for r in about if r.run)),
        text=text,
        plan=plan,
        words=tuple(_word(r) for r in about if r.event in ("APPROVE", "DECLINE")),
    )


def plan_text(layout: Layout, fingerprint: str) -> tuple[Text, FederationPlan | None]:
    """Read a plan from the archive, and say what lies in its place."""
    try:
        data = from_archive(layout, fingerprint)
    except CairnError:
        return "altered", None
    if data is None:
        return "absent", None
    try:
        return "archived", parse_plan(parse_canonical_json(data, "plan"))
    except CairnError:
        return "unknown", None


def _word(record: LedgerRecord) -> Word:
    return Word(
        record.seq, record.event, record.person or "", record.ts, record.peer, record.peer_key
    )


def _known(words: Iterable[Word]) -> dict[str, str]:
    """Name the sites that stand confirmed: the newest word about a site counts."""
    confirmed: dict[str, str] = {}
    for word in words:
        if word.event == "CONFIRM":
            confirmed[word.peer or ""] = word.peer_key or ""
        else:
            confirmed.pop(word.peer or "", None)
    return confirmed

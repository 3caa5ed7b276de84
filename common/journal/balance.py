"""The balance: what the ledger lets leave, what the courier asked, and what the sockets counted.

Every byte that a socket sent is given a cause. What the ledger does not declare, what the
journal does not announce, what goes beyond the room that declared control traffic has, and
what the counters show beyond all of that is *unexplained*. Nothing is cleared that cannot
be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.journal.counters import ETHERNET, IP_AND_TCP, Counters, read_counters
from common.journal.entries import (
    CONTROL,
    Allow,
    Allowance,
    Begin,
    Code,
    Entry,
    Kind,
    Link,
    Network,
    Refuse,
    Release,
    Request,
    Settle,
)
from common.journal.identity import read_courier_key
from common.journal.reader import read_journal
from common.ledger.records import LedgerRecord

FRAME_BYTES = 12_288
"""Room that Flower's messages around one answer have, and the desk's around sealed keys."""
HANDSHAKE_BYTES = 4_096
"""Room of the first, unencrypted words of a connection."""
DESK_CONNECTION_BYTES, DESK_CALL_BYTES = 2_048, 1_024
"""Room that HTTP/2 has around the desk's messages: of a connection, and of a call."""
RECORD_BYTES = 29
"""What TLS adds to at most 16,384 bytes: 22 in version 1.3, 29 in 1.2."""
LIMIT = 0.01
"""Share of the wire that may stay unexplained."""
_PUSHES: frozenset[Kind] = frozenset({"push-messages", "push-object"})
_DESK: frozenset[Kind] = frozenset(
    {"greet", "Enrol", "EnrolStatus", "Renew", "ListPeers", "PutSealedKeys", "GetSealedKey"}
)

RECORDS = "records that the ledger declares"
PROOFS = "their proofs from the ledger"
FRAMES = "Flower's messages around them"
POLLS = "control traffic, declared beforehand"
DESK = "the desk: enrolment, renewal, sealed keys"
WITNESS = "checkpoints to witnesses"
TLS = "TLS: handshakes and record headers"
RESENT = "sent again by the kernel"
HEADERS = "headers of IP and TCP"
ABORTED = "announced and not sent"
UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Evidence:
    """What an auditor has beside the ledger.

    Attributes:
        journal: the courier's ``journal.jsonl``.
        courier_key: its node key's public half, as the coordinator has it; None believes the
            journal, and says so.
        counters: a firewall's or kernel's own count of what left; see ``counters``.
    """

    journal: Path
    courier_key: Path | None = None
    counters: Path | None = None


@dataclass(frozen=True)
class Balance:
    """The wire, by cause.

    Attributes:
        lines: of the journal that hold.
        wire: bytes that left, as the sockets counted, or the counters where given.
        counted_by: who counted.
        causes: bytes by cause; they add up to ``wire``, ``UNEXPLAINED`` included.
        findings: what does not hold, one sentence each.
        notes: what an auditor should know beside.
        refusals: what the second door held back.
        unsent: digests that the ledger declares and the journal does not have.
        room: bytes that declared control traffic could have had beyond what it used.
        received: bytes that came in.
    """

    lines: int
    wire: int
    counted_by: str
    causes: Mapping[str, int]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    refusals: int
    unsent: tuple[str, ...]
    room: int
    received: int

    @property
    def holds(self) -> bool:
        """True if the journal holds, everything sent was declared, and the wire is explained."""
        return not self.findings

    @property
    def unexplained(self) -> int:
        """Bytes without a cause."""
        return self.causes.get(UNEXPLAINED, 0)

    @property
    def share(self) -> float:
        """Share of the wire without a cause."""
        return self.unexplained / self.wire if self.wire else 0.0

    def text_lines(self) -> list[str]:
        """Write the balance for people: a row per cause, then what does not hold."""
        rows = [
            f"  {name:<44}{size:>15,} B {100 * size / max(self.wire, 1):>7.2f} %"
            for name, size in self.causes.items()
        ]
        total = f"  {'left, by ' + self.counted_by:<44}{self.wire:>15,} B  100.00 %"
        return [
            f"balance of the wire, {self.lines} lines of the courier's journal:",
            *rows,
            total,
            *(f"does not hold: {each}" for each in self.findings),
            *(f"note: {each}" for each in self.notes),
        ]

    def as_dict(self) -> dict[str, object]:
        """Return the same for ``--json``."""
        return {
            "holds": self.holds,
            "lines": self.lines,
            "wire_bytes": self.wire,
            "counted_by": self.counted_by,
            "received_bytes": self.received,
            "causes": dict(self.causes),
            "unexplained_bytes": self.unexplained,
            "unexplained_percent": round(100 * self.share, 3),
            "findings": list(self.findings),
            "notes": list(self.notes),
            "refusals": self.refusals,
            "declared_unsent": list(self.unsent),
            "control_room_bytes": self.room,
        }


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
    scales = _Scales({record.payload_sha256 or "": record.bytes or 0 for record in sent})
    if journal.broken is not None:
        scales.findings.append(f"the courier's journal: {journal.broken}")
    if key is None:
        scales.notes.append(
            "the journal's key is believed: give the courier's with --courier-key, its node.key.pub"
        )
    for entry in journal.entries:
        scales.put(entry)
    return scales.read(len(journal.entries), receipts, counters)


@dataclass
class _Answer:
    """Something that may be pushed, and what was pushed of it."""

    records: int
    parcel: int
    pushed: int = 0


@dataclass
class _Scales:
    """One pass over a journal."""

    declared: Mapping[str, int]
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    refusals: int = 0
    room: int = 0
    links: Counter[str] = field(default_factory=Counter)
    announced: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    _answers: list[_Answer] = field(default_factory=list)
    _allowed: dict[int, tuple[Allowance, ...]] = field(default_factory=dict)
    _networks: list[tuple[int, Network | None]] = field(default_factory=list)

    def put(self, entry: Entry) -> None:
        """Take up one line."""
        match entry:
            case Begin():
                self._networks.append((entry.session, entry.network))
            case Allow():
                self._allowed[entry.session] = entry.control
            case Request():
                self._request(entry)
            case Release():
                self._release(entry)
            case Code():
                self._answers.append(_Answer(0, 0))
            case Refuse():
                self._refuse(entry)
            case Settle():
                self._settle(entry)

    def _request(self, entry: Request) -> None:
        self.announced[entry.receiver] += entry.bytes
        self.calls[entry.receiver] += 1
        if entry.kind in _PUSHES:
            if self._answers:
                self._answers[-1].pushed += entry.bytes
            else:
                self.causes[UNEXPLAINED] += entry.bytes
                self.findings.append(f"line {entry.seq}: pushes what was not released")
        elif entry.kind == "PutSealedKeys":
            self.causes[DESK] += entry.bytes
            released = self._answers[-1].parcel if self._answers else 0
            if entry.bytes > 2 * released + FRAME_BYTES:
                self.findings.append(f"line {entry.seq}: more sealed keys than were released")
        elif entry.kind == "add-checkpoint":
            self.causes[WITNESS] += entry.bytes
        else:
            self.causes[DESK if entry.receiver == "desk" else POLLS] += entry.bytes

    def _release(self, entry: Release) -> None:
        self.sizes.add(entry.size)
        for part in entry.parts:
            self.sent.add(part.sha256)
            size = self.declared.get(part.sha256)
            if size is None:
                self.findings.append(
                    f"line {entry.seq}: {part.bytes} bytes, SHA-256 {part.sha256}, have no record"
                )
            elif size != part.bytes:
                self.findings.append(
                    f"line {entry.seq}: {part.bytes} bytes were sent under SHA-256 {part.sha256}, "
                    f"the record says {size}"
                )
        records = sum(part.bytes for part in entry.parts if part.sha256 in self.declared)
        self._answers.append(_Answer(records, entry.bytes))

    def _refuse(self, entry: Refuse) -> None:
        self.refusals += 1
        size = "" if entry.bytes is None else f" of {entry.bytes} bytes"
        detail = entry.detail
        self.notes.append(
            f"{entry.ts}: the second door held back a {entry.what}{size}: {detail.field} must be "
            f"{detail.expected}, got {detail.got}"
        )

    def _settle(self, entry: Settle) -> None:
        allowed = {each.kind: each for each in self._allowed.pop(entry.session, ())}
        for use in entry.used:
            limit = allowed.get(use.kind)
            receiver = "desk" if use.kind in _DESK else "flower"
            self.announced[receiver] += use.bytes
            self.calls[receiver] += use.count
            most = 0 if limit is None else limit.bytes * use.count
            within = limit is not None and use.count <= limit.most and use.bytes <= most
            if not within or limit is None or (limit.most, limit.bytes) != CONTROL.get(use.kind):
                self.findings.append(f"line {entry.seq}: more {use.kind} than was declared")
                self.causes[UNEXPLAINED] += use.bytes
                continue
            self.room += most - use.bytes
            self.causes[DESK if receiver == "desk" else POLLS] += use.bytes
        for link in entry.links:
            self._link(link)
        self._networks.append((entry.session, entry.network))

    def _link(self, link: Link) -> None:
        for name in ("connections", "handshake", "plain", "tls", "sent", "received", "resent"):
            self.links[f"{link.receiver} {name}"] += getattr(link, name)
        self.links["unmeasured"] += link.unmeasured

    def read(self, lines: int, receipts: Collection[int], counters: Counters | None) -> Balance:
        """Give every byte its cause."""
        for answer in self._answers:
            self._explain(answer)
        self._explain_links()
        sent = self._sum("sent")
        wire, counted_by = sent, "the courier's sockets"
        if counters is not None:
            self._explain_headers(counters.headers)
            wire, counted_by = counters.sent_bytes, "the counters"
        elif (network := self._network()) is not None:
            self._explain_headers(network.sent_packets * (IP_AND_TCP + ETHERNET))
            wire, counted_by = network.sent_bytes, "the courier's own network"
        over = wire - sum(self.causes.values())
        self.causes[ABORTED if over < 0 else UNEXPLAINED] += over
        self._conclude(wire, receipts)
        order = (RECORDS, PROOFS, FRAMES, POLLS, DESK, WITNESS, TLS, RESENT, HEADERS, ABORTED)
        causes = {name: self.causes[name] for name in order if self.causes[name]}
        return Balance(
            lines=lines,
            wire=wire,
            counted_by=counted_by,
            causes=causes | {UNEXPLAINED: self.causes[UNEXPLAINED]},
            findings=tuple(self.findings),
            notes=tuple(self.notes),
            refusals=self.refusals,
            unsent=tuple(sorted(set(self.declared) - self.sent)),
            room=self.room,
            received=self._sum("received"),
        )

    def _explain(self, answer: _Answer) -> None:
        records = min(answer.records, answer.pushed)
        proofs = min(max(answer.parcel - answer.records, 0), answer.pushed - records)
        rest = answer.pushed - records - proofs
        frames = min(rest, FRAME_BYTES + answer.parcel // 1000)
        self.causes[RECORDS] += records
        self.causes[PROOFS] += proofs
        self.causes[FRAMES] += frames
        self.causes[UNEXPLAINED] += rest - frames

    def _explain_links(self) -> None:
        """TLS, within its own bounds; HTTP/2 of the desk, within the room that it has."""
        for receiver in ("flower", "witness"):
            handshake = self.links[f"{receiver} handshake"]
            tls = self.links[f"{receiver} tls"]
            plain = self.links[f"{receiver} plain"]
            room = HANDSHAKE_BYTES * self.links[f"{receiver} connections"]
            records = 4 * self.calls[receiver] + plain // 16_384 + 1
            within = min(handshake, room) + min(tls, RECORD_BYTES * records)
            self.causes[TLS] += within
        connections = self.links["desk connections"]
        room = (DESK_CONNECTION_BYTES + HANDSHAKE_BYTES) * connections
        room += DESK_CALL_BYTES * self.calls["desk"]
        around = max(0, self.links["desk sent"] - self.announced["desk"])
        self.causes[DESK] += min(around, room)
        self.room += max(0, room - around)

    def _explain_headers(self, headers: int) -> None:
        self.causes[HEADERS] += headers
        self.causes[RESENT] += self._sum("resent")

    def _sum(self, name: str) -> int:
        return sum(self.links[f"{receiver} {name}"] for receiver in ("flower", "desk", "witness"))

    def _network(self) -> Network | None:
        """Difference of the kernel's counters over the journal, where every session had them."""
        if not self._networks or any(network is None for _, network in self._networks):
            return None
        sent_bytes = sent_packets = 0
        before: Network | None = None
        for _, now in self._networks:
            if now is None:
                return None
            # Counters that went back are those of a new network.
            fresh = before is None or now.sent_bytes < before.sent_bytes
            sent_bytes += 0 if before is None else now.sent_bytes
            sent_packets += 0 if before is None else now.sent_packets
            if before is not None and not fresh:
                sent_bytes -= before.sent_bytes
                sent_packets -= before.sent_packets
            before = now
        return Network(sent_bytes=sent_bytes, sent_packets=sent_packets)

    def _conclude(self, wire: int, receipts: Iterable[int]) -> None:
        unexplained = self.causes[UNEXPLAINED]
        if unexplained > LIMIT * wire:
            self.findings.append(
                f"{unexplained:,} bytes, {100 * unexplained / max(wire, 1):.1f} %, are unexplained"
            )
        missing = sorted(set(receipts) - self.sizes)
        if missing:
            self.findings.append(
                f"the aggregator has cosigned {len(missing)} checkpoints that the journal does not "
                f"show leaving, the first of {missing[0]} records: lines are missing"
            )
        if self.links["unmeasured"]:
            self.notes.append(f"{self.links['unmeasured']} connections could not be measured")
        if self._allowed:
            self.notes.append(
                f"{len(self._allowed)} sessions did not end in order, or run still: what they used "
                "of their control traffic is not counted yet"
            )

"""One pass over a journal: every line is put on, then every byte is given its cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from common.journal.balance import Balance
from common.journal.causes import (
    ABORTED,
    DESK,
    DESK_CALL_BYTES,
    DESK_CONNECTION_BYTES,
    DESK_KINDS,
    FRAME_BYTES,
    FRAMES,
    HANDED_BYTES,
    HANDSHAKE_BYTES,
    HEADERS,
    LIMIT,
    ORDER,
    POLLS,
    PROOFS,
    PUSHES,
    RECORD_BYTES,
    RECORDS,
    RESENT,
    TLS,
    UNEXPLAINED,
    WITNESS,
)
from common.journal.counters import ETHERNET, IP_AND_TCP, Counters
from common.journal.entries import (
    CONTROL,
    Allow,
    Allowance,
    Begin,
    Code,
    Entry,
    Link,
    Network,
    Refuse,
    Release,
    Request,
    Settle,
)


@dataclass
class _Pushed:
    """Something that may be pushed, and what was pushed of it."""

    records: int
    parcel: int
    pushed: int = 0


@dataclass
class Scales:
    """One pass over a journal."""

    declared: Mapping[str, int]
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    refusals: int = 0
    room: int = 0
    handed: int = 0
    links: Counter[str] = field(default_factory=Counter)
    announced: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    _answers: list[_Pushed] = field(default_factory=list)
    _allowed: dict[int, tuple[Allowance, ...]] = field(default_factory=dict)
    _networks: list[Network | None] = field(default_factory=list)
    _inside: Counter[str] = field(default_factory=Counter)

    def put(self, entry: Entry) -> None:
        """Take up one line."""
        match entry:
            case Begin():
                self._networks.append(entry.network)
            case Allow():
                self._allowed[entry.session] = entry.control
            case Request():
                self._request(entry)
            case Release():
                self._release(entry)
            case Code():
                self._answers.append(_Pushed(0, 0))
            case Refuse():
                self._refuse(entry)
            case Settle():
                self._settle(entry)

    def _request(self, entry: Request) -> None:
        if entry.receiver == "supernode":
            self._hand_over(entry)
            return
        self.announced[entry.receiver] += entry.bytes
        self.calls[entry.receiver] += 1
        if entry.kind in PUSHES:
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
        elif entry.kind in ("add-checkpoint", "get-checkpoint"):
            self.causes[WITNESS] += entry.bytes
        else:
            self.causes[DESK if entry.receiver == "desk" else POLLS] += entry.bytes

    def _hand_over(self, entry: Request) -> None:
        """Hold what went to another program against what was released; no wire of ours has it."""
        self.handed += entry.bytes
        released = self._answers[-1].parcel if self._answers else -HANDED_BYTES
        if entry.bytes > released + HANDED_BYTES:
            self.findings.append(f"line {entry.seq}: hands over what was not released")

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
        self._answers.append(_Pushed(records, entry.bytes))

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
            receiver = "desk" if use.kind in DESK_KINDS else "flower"
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
            if entry.network is not None:
                self._inside.update(sent=link.sent, resent=link.resent)
        self._networks.append(entry.network)

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
            # Joining and confirming were done elsewhere, before there was this network.
            wire = network.sent_bytes + sent - self._inside["sent"]
            counted_by = "the courier's own network"
        over = wire - sum(self.causes.values())
        self.causes[ABORTED if over < 0 else UNEXPLAINED] += over
        self._conclude(wire, receipts)
        causes = {name: self.causes[name] for name in ORDER if self.causes[name]}
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

    def _explain(self, answer: _Pushed) -> None:
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
        """Sum up what left the courier's own network; None where it has none."""
        readings = [network for network in self._networks if network is not None]
        sent_bytes = sent_packets = 0
        for before, now in pairwise(readings):
            # Counters that went back are those of a new network.
            fresh = now.sent_bytes < before.sent_bytes
            sent_bytes += now.sent_bytes - (0 if fresh else before.sent_bytes)
            sent_packets += now.sent_packets - (0 if fresh else before.sent_packets)
        if len(readings) < 2:  # one says nothing of what went between
            return None
        return Network(sent_bytes=sent_bytes, sent_packets=max(0, sent_packets))

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
        if self.handed:
            self.notes.append(
                f"{self.handed:,} bytes were handed to a SuperNode, which is not ours: what else "
                "its connection sent, nobody here measures, unless you give counters"
            )
        if self.links["unmeasured"]:
            self.notes.append(f"{self.links['unmeasured']} connections could not be measured")
        if self._allowed:
            self.notes.append(
                f"{len(self._allowed)} sessions did not end in order, or run still: what they used "
                "of their control traffic is not counted yet"
            )

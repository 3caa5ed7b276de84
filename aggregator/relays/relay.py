"""A relay's two errands: to put an order to its sites, and to add what some of them sent.

Keeps nothing between them but its archive, so a relay that was stopped goes on where it was:
the aggregator tells with the second errand which records it means, by their digests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator.intake.reply import Reply, Sender, open_reply
from aggregator.rounds.gathering import Gathering
from aggregator.rounds.letters import site_parcel
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival, Transport
from common.arrivals.boundary import contained
from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import CairnError, RefusedError
from common.ledger.notes import parse_note
from common.ledger.proof import StaleProofError
from common.ledger.rotation import MAX_ROTATION_BYTES, follow
from common.model import shared_shapes
from common.sums.addition import Addition, encode_sum
from common.wire.envelope import decode_again
from common.wire.expected import Expected, RecordFloors
from common.wire.orders import Order, decode_order
from common.wire.parcel import MAX_PARCEL_BYTES, unwrap, wrap
from common.wire.relayed import (
    COURIERS_OWN,
    HEAD_PREFIX,
    HEADS,
    MOST_SAID_BYTES,
    NOTE,
    REFUSAL,
    SUM,
    AddNote,
    Answered,
    GatherNote,
    Heads,
    Note,
    Numbered,
    RelayedSite,
    RelayRefusal,
    SiteSaid,
    SummedRecord,
    TurnedAway,
    open_note,
    said_bytes,
    writable,
)
from common.wire.rules import summed_of
from common.wire.transport import (
    ENVELOPE_SUFFIX,
    ORDER,
    PROOF_SUFFIX,
    ROTATION_PREFIX,
    SIGNATURE,
    SUM_PREFIX,
    TURN,
)

MOST_HEADS_BYTES: Final = MAX_PARCEL_BYTES - MOST_SAID_BYTES


@dataclass
class Relay:
    """One relay.

    Attributes:
        name: that the aggregator knows it by.
        aggregator: key that signs orders and errands; later ones are followed from it.
        archive: folder of what sites sent, by run.
        transport: the way to its sites.
        clock, wait: seconds that only go up, and how to wait for replies.
    """

    name: str
    aggregator: PublicKey
    archive: Path
    transport: Transport
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep

    def answer(self, errand: bytes) -> bytes:
        """Do an errand and return what goes up; a refusal with its reason where it cannot be done.

        Args:
            errand: as it arrived.
        """
        try:
            with contained(f"an errand of {self.name}", OSError):
                note, parts = self._open(errand)
                if isinstance(note, GatherNote):
                    return self._gather(note, parts)
                return self._add(note)
        except (CairnError, OSError) as error:
            reason = writable(str(error) or type(error).__name__)
            return wrap({REFUSAL: said_bytes(RelayRefusal(reason=reason))})

    def _open(self, errand: bytes) -> tuple[Note, dict[str, bytes]]:
        """Return an errand whose signature holds, and what lies beside it."""
        parts = unwrap(errand)
        exchanges = [
            part
            for name, part in parts.items()
            if name.startswith(ROTATION_PREFIX) and len(part) <= MAX_ROTATION_BYTES
        ]
        exchanged = follow(self.aggregator, exchanges)
        key = exchanged[-1].new if exchanged else self.aggregator
        note = open_note(parts.pop(NOTE, b""), key)
        if note.relay != self.name:
            raise _no_errand("relay", self.name, note.relay)
        self.aggregator = key
        return note, parts

    def _gather(self, note: GatherNote, parts: dict[str, bytes]) -> bytes:
        """Put an order to the sites and return their heads."""
        round_ = _Round.of(note, parts)
        names = {row.site for row in note.sites}
        nodes = {n: site for n, site in self.transport.nodes().items() if site in names}
        said: dict[str, SiteSaid] = {}
        heads: dict[str, bytes] = {}
        size = 0
        gathering = Gathering(self.transport, self.clock, self.wait)
        for site, arrival, seconds in gathering.gather(nodes, round_.parcel, note.deadline_s):
            said[site], head = self._take(round_, site, arrival, round(1000 * seconds))
            if head is not None:
                size += len(head)
                if size > MOST_HEADS_BYTES:
                    size -= len(head)
                    reason = "what is not added of all sites' replies is too long for one message"
                    said[site] = TurnedAway(site=site, reason=reason, bytes=len(head))
                else:
                    heads[HEAD_PREFIX + site] = head
        words = Heads(
            relay=self.name,
            run=note.run,
            round=note.round,
            sites=tuple(said[site] for site in sorted(said)),
        )
        return wrap({HEADS: said_bytes(words), **dict(sorted(heads.items()))})

    def _take(
        self, round_: _Round, site: str, arrival: Arrival, ms: int
    ) -> tuple[SiteSaid, bytes | None]:
        """Return the word on what a site's node sent, and the head of it where it holds."""
        size = len(arrival.parcel or b"")
        try:
            if arrival.fault is not None:
                raise arrival.fault
            if arrival.parcel is None:
                if arrival.code not in COURIERS_OWN:
                    raise RefusedError("no number that a courier says", got=arrival.code.name)
                return Numbered(site=site, ms=ms, code=arrival.code), None
            # One site's reply, whatever it is, costs that site its share and no other.
            with contained(f"a reply of {site}", OSError):
                sender = round_.sender(site, self.aggregator)
                reply = open_reply(arrival.parcel, sender, round_.expected(site))
                self._store(round_.note.run).archive(round_.note.round, site, reply.parts)
        except StaleProofError as error:
            reason = writable(error.diagnosis)
            return TurnedAway(site=site, stale=True, reason=reason, bytes=size), None
        except CairnError as error:
            return TurnedAway(site=site, reason=writable(str(error)), bytes=size), None
        return round_.split(reply, ms)

    def _add(self, note: AddNote) -> bytes:
        """Return the sum of the records that the errand names, one of them in memory at a time."""
        store, addition = self._store(note.run), Addition(note.run, note.round)
        for kind in sorted({kind for records in note.answers.values() for kind in records}):
            for site, records in sorted(note.answers.items()):
                if kind not in records:
                    raise _no_errand(f"answers.{site}", f"a digest of its {kind}", "none")
                envelope = decode_again(store.archived_envelope(note.round, site, records[kind]))
                if envelope.record.record_type != kind:
                    raise _no_errand(f"answers.{site}", kind, envelope.record.record_type)
                addition.add(site, envelope)
        return wrap({SUM: encode_sum(addition.total())})

    def _store(self, run: str) -> RunStore:
        return RunStore(self.archive / run)


@dataclass
class _Round:
    """A gather errand that was read.

    Attributes:
        shared: parts that open every site's parcel.
        sums: by name of their parts.
        beside: parts that close every site's parcel.
        rows: what the note says of each site, by name.
    """

    note: GatherNote
    order: Order
    shared: Mapping[str, bytes]
    sums: Mapping[str, bytes]
    others: Mapping[str, bytes]
    rows: Mapping[str, RelayedSite]

    @classmethod
    def of(cls, note: GatherNote, parts: Mapping[str, bytes]) -> _Round:
        """Read what lies beside a note.

        Raises:
            RefusedError: another order than the note names, or sites that are not of its run.
        """
        data = parts.get(ORDER, b"")
        if sha256_hex(data) != note.order:
            raise _no_errand("order", "the one that the note names", "another")
        order = decode_order(data)
        if (order.header.run, order.header.round) != (note.run, note.round):
            raise _no_errand("order", "of the note's run and round", "another")
        opening = (ORDER, SIGNATURE, TURN)
        shared = {n: d for n, d in parts.items() if n in opening or n.startswith(ROTATION_PREFIX)}
        sums = {n: d for n, d in parts.items() if n.startswith(SUM_PREFIX)}
        others = {n: d for n, d in parts.items() if n not in shared and n not in sums}
        rows = {row.site: row for row in note.sites}
        for site, row in rows.items():
            if order.fingerprints.get(site) != PublicKey.parse(row.ledger_key).fingerprint:
                raise _no_errand(f"sites.{site}", "in the order's roster, with this key", "not so")
        return cls(note, order, shared, sums, others, rows)

    def parcel(self, site: str) -> bytes:
        """Return what a site is sent, byte for byte as the aggregator itself would send it."""
        row = self.rows[site]
        receipt = None if row.receipt is None else row.receipt.encode("utf-8")
        first = f"{SUM_PREFIX}{row.since:06d}"
        sums = {name: data for name, data in sorted(self.sums.items()) if name >= first}
        return site_parcel(self.shared, receipt, sums, self.others)

    def sender(self, site: str, aggregator: PublicKey) -> Sender:
        """Return what is known of a site before a word of its reply is read."""
        row = self.rows[site]
        seen = None if row.receipt is None else parse_note(row.receipt.encode("utf-8")).checkpoint
        return Sender(PublicKey.parse(row.ledger_key), seen, aggregator)

    def expected(self, site: str) -> Expected:
        """Return what a site's records are measured against."""
        header, plan = self.order.header, self.order.plan
        return Expected(
            site=site,
            run=header.run,
            round=header.round,
            phase=header.phase,
            plan=plan,
            shapes=shared_shapes(plan),
            floors=RecordFloors.of(plan),
            key_id=self.note.key_id,
            codec=self.note.codec,
            samples=self.order.samples_of(site),
        )

    def split(self, reply: Reply, ms: int) -> tuple[Answered, bytes]:
        """Return the word on what is kept of a reply, and the head of it."""
        added = summed_of(self.order.plan, self.order.header.phase)
        kinds = {kind.__name__ for kind in added} & set(reply.envelopes)
        records = {
            kind: SummedRecord(
                bytes=len(reply.parts[kind + ENVELOPE_SUFFIX]),
                sha256=sha256_hex(reply.parts[kind + ENVELOPE_SUFFIX]),
            )
            for kind in sorted(kinds)
        }
        names = {kind + suffix for kind in kinds for suffix in (ENVELOPE_SUFFIX, PROOF_SUFFIX)}
        head = {name: data for name, data in reply.parts.items() if name not in names}
        word = Answered(site=reply.site, ms=ms, norm=reply.length, kept=records)
        return word, wrap(head)


def _no_errand(field_: str, expected: str, got: str) -> RefusedError:
    return RefusedError("an errand cannot be done", field=field_, expected=expected, got=got)

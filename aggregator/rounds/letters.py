"""An order on its way to each site: the same words for all, and beside them what each lacks.

Sites behind a relay are sent the same, by way of the relay's errand. A parcel is
made when it is about to be sent and is not kept: a thousand of them, each with the sum of the
last round, would be the largest thing in the aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aggregator.rounds.course import Step
from aggregator.rounds.parties import RunSite
from aggregator.rounds.receiving import Terms
from aggregator.rounds.store import RunStore
from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.errors import RefusedError
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.parcel import MAX_PARCEL_BYTES, wrap, wrapped_bytes
from common.wire.relayed import NOTE, AddNote, GatherNote, RelayedSite, sign_note
from common.wire.transport import ORDER, RECEIPT, SIGNATURE, TURN, rotation_part, sum_part
from common.wire.turn import TurnNote, sign_turn


@dataclass
class LetterBook:
    """Knows what every site has, and so what must lie beside its next order.

    Attributes:
        sites: of the run, by name.
        witness: signs orders.
        turn: the run's, said beside every order.
        rotations: exchanges of the witness's key, which travel with every order.
        answered: last round of which a site's answer arrived whole: it has the sums of
            all rounds before that one.
    """

    store: RunStore
    sites: Mapping[str, RunSite]
    witness: SigningKey
    turn: int
    rotations: tuple[bytes, ...] = ()
    answered: dict[str, int] = field(default_factory=dict)

    def letters(
        self, step: Step, order: bytes, beside: Mapping[str, bytes], *, stop: bool
    ) -> Letters:
        """Sign an order, and the word on whose turn it is, once for all sites.

        Args:
            step: of the order.
            order: its bytes.
            beside: documents that travel beside it.
            stop: whether the word says that the run is over.
        """
        turn = TurnNote(run=self.store.name, turn=self.turn, stop=stop)
        shared = {
            ORDER: order,
            SIGNATURE: self.witness.sign(SIGNATURE_CONTEXT + order),
            TURN: sign_turn(turn, self.witness),
        }
        return Letters(self, step.round, shared | self._exchanges(), beside)

    def adding(self, step: Step, relay: str, answers: Mapping[str, Mapping[str, str]]) -> bytes:
        """Return a relay's errand to add what it keeps of some sites.

        Args:
            step: that the records answered.
            relay: its name.
            answers: digests of the envelopes, by site and record type.
        """
        digests = {site: dict(records) for site, records in sorted(answers.items())}
        note = AddNote(relay=relay, run=self.store.name, round=step.round, answers=digests)
        return wrap({NOTE: sign_note(note, self.witness), **self._exchanges()})

    def _exchanges(self) -> dict[str, bytes]:
        return {rotation_part(n): note for n, note in enumerate(self.rotations, start=1)}


@dataclass(frozen=True)
class Letters:
    """One order's parcels.

    Attributes:
        shared: parts that open every parcel.
        beside: parts that close every parcel.
    """

    book: LetterBook
    round: int
    shared: Mapping[str, bytes]
    beside: Mapping[str, bytes]

    def require_fits(self, site: str) -> None:
        """Refuse a site whose parcel would be longer than a worker reads.

        Raises:
            RefusedError: it lacks too much.
        """
        sizes = {name: len(data) for name, data in self.shared.items()}
        receipt = self.book.sites[site].checkpoint_file
        if receipt.exists():
            sizes[RECEIPT] = receipt.stat().st_size
        sizes |= {sum_part(n): self.book.store.sum_bytes(n) for n in self._lacking(site)}
        sizes |= {name: len(data) for name, data in self.beside.items()}
        if (size := wrapped_bytes(sizes)) > MAX_PARCEL_BYTES:
            raise RefusedError(
                "what a site lacks is too much for one order",
                field=site,
                expected=f"at most {MAX_PARCEL_BYTES} bytes of sums",
                got=f"{size}",
                advice="It missed too many rounds of this run; it can take part in the next",
            )

    def parcel(self, site: str) -> bytes:
        """Return a site's parcel: the order, its newest receipt, and the sums that it lacks."""
        receipt = self.book.sites[site].checkpoint_file
        data = receipt.read_bytes() if receipt.exists() else None
        return site_parcel(self.shared, data, self._sums(self._since(site)), self.beside)

    def errand(self, relay: str, sites: Iterable[str], deadline_s: float, terms: Terms) -> bytes:
        """Return a relay's errand: the order once, and what each of its sites lacks.

        Args:
            relay: its name.
            sites: that it shall put the order to.
            deadline_s: how long they have.
            terms: of the order; what their records must name.
        """
        rows = tuple(self._row(site) for site in sorted(sites))
        note = GatherNote(
            relay=relay,
            run=self.book.store.name,
            round=self.round,
            order=sha256_hex(self.shared[ORDER]),
            deadline_s=max(1, round(deadline_s)),
            key_id=terms.key_id,
            codec=terms.codec,
            sites=rows,
        )
        sums = self._sums(min(row.since for row in rows))
        note_part = {NOTE: sign_note(note, self.book.witness)}
        return wrap({**note_part, **self.shared, **sums, **self.beside})

    def _row(self, site: str) -> RelayedSite:
        asked = self.book.sites[site]
        receipt = asked.checkpoint_file
        text = receipt.read_bytes().decode("utf-8") if receipt.exists() else None
        return RelayedSite(
            site=site, ledger_key=asked.key_text, receipt=text, since=self._since(site)
        )

    def _since(self, site: str) -> int:
        """Return the first round whose sum the site may not have."""
        return max(1, self.book.answered.get(site, 0))

    def _lacking(self, site: str) -> list[int]:
        """Return the rounds whose sums the site may not have."""
        return [n for n in range(self._since(site), self.round) if self.book.store.sum_bytes(n)]

    def _sums(self, since: int) -> dict[str, bytes]:
        """Return the sums of a round and of all later ones."""
        sums = {sum_part(n): self.book.store.sum_of(n) for n in range(since, self.round)}
        return {name: total for name, total in sums.items() if total is not None}


def site_parcel(
    shared: Mapping[str, bytes],
    receipt: bytes | None,
    sums: Mapping[str, bytes],
    beside: Mapping[str, bytes],
) -> bytes:
    """Return one site's parcel; the same bytes whoever makes it.

    Args:
        shared: the order with what opens every parcel.
        receipt: the site's newest, if it has one.
        sums: that the site lacks, by name of their parts, the oldest first.
        beside: documents that close every parcel.
    """
    receipts = {} if receipt is None else {RECEIPT: receipt}
    return wrap({**shared, **receipts, **sums, **beside})


class Parcels(Mapping[int, bytes]):
    """Parcels by node, each made when it is asked for, and none kept.

    Args:
        nodes: the site behind each.
        make: returns a site's parcel.
    """

    def __init__(self, nodes: Mapping[int, str], make: Callable[[str], bytes]) -> None:
        self._nodes, self._make = dict(nodes), make

    def __getitem__(self, node: int) -> bytes:
        return self._make(self._nodes[node])

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes  # the mixin's own would make a parcel to find out

"""An order on its way to each site: the same words for all, and beside them what each lacks.

A parcel is made when it is about to be sent and is not kept: a thousand of them, each with
the sum of the last round, would be the largest thing in the aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from aggregator.rounds.course import Step
from aggregator.rounds.parties import RunSite
from aggregator.rounds.store import RunStore
from common.crypto.identity import SigningKey
from common.errors import RefusedError
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.parcel import MAX_PARCEL_BYTES, wrap, wrapped_bytes
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
        shared |= {rotation_part(n): note for n, note in enumerate(self.rotations, start=1)}
        return Letters(self, step.round, shared, beside)


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
        parts = dict(self.shared)
        receipt = self.book.sites[site].checkpoint_file
        if receipt.exists():
            parts[RECEIPT] = receipt.read_bytes()
        for number in self._lacking(site):
            total = self.book.store.sum_of(number)
            if total is not None:
                parts[sum_part(number)] = total
        return wrap({**parts, **self.beside})

    def _lacking(self, site: str) -> list[int]:
        """Return the rounds whose sums the site may not have."""
        first = max(1, self.book.answered.get(site, 0))
        return [n for n in range(first, self.round) if self.book.store.sum_bytes(n)]


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

"""What a site let out: every reply that ever lay in its outbox, and what it answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.canonical import sha256_hex
from common.wire.parcel import unwrap
from common.wire.transport import ENVELOPE_SUFFIX


@dataclass(frozen=True)
class Departure:
    """One reply that lay in an outbox.

    Attributes:
        order: digest of the order's parcel that it answers.
        reply: the parcel.
        life: of its site: how often that had been put back before.
    """

    order: str
    reply: bytes
    life: int

    @property
    def envelopes(self) -> dict[str, str]:
        """Digest of every envelope in it -> its type."""
        return {
            sha256_hex(data): name.removesuffix(ENVELOPE_SUFFIX)
            for name, data in unwrap(self.reply).items()
            if name.endswith(ENVELOPE_SUFFIX)
        }


@dataclass
class Left:
    """What one site let out: every reply that ever lay in its outbox.

    Attributes:
        departures: the oldest first; the same reply to the same parcel leaves once.
        orders: parcels of the conductor's that came to the site, by digest.
        forged: digests of parcels that the aggregator's conductor never made.
    """

    departures: list[Departure] = field(default_factory=list)
    orders: dict[str, bytes] = field(default_factory=dict)
    forged: set[str] = field(default_factory=set)
    _known: set[tuple[str, bytes]] = field(default_factory=set)

    def note(self, order: str, reply: bytes, life: int) -> None:
        """Note that a reply has left, unless it had."""
        if (order, reply) not in self._known:
            self._known.add((order, reply))
            self.departures.append(Departure(order, reply, life))

    def envelopes(self, life: int) -> dict[str, str]:
        """Digest of every envelope that left in one life -> its type."""
        return {
            digest: kind
            for departure in self.departures
            if departure.life == life
            for digest, kind in departure.envelopes.items()
        }

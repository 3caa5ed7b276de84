"""What a site let out: every reply that ever lay in its outbox, and what it answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.canonical import sha256_hex
from common.wire.parcel import unwrap
from common.wire.records import RoundReport
from common.wire.transport import ENVELOPE_SUFFIX

REPORT = f"{RoundReport.__name__}."


@dataclass(frozen=True)
class Departure:
    """One reply that lay in an outbox.

    Attributes:
        order: digest of the order's parcel that it answers.
        life: of its site: how often that had been put back before.
        envelopes: digest of every envelope in it -> its type.
        parts: its proofs and its report; arrays are not kept.
    """

    order: str
    life: int
    envelopes: dict[str, str]
    parts: dict[str, bytes]

    @classmethod
    def of(cls, order: str, reply: bytes, life: int) -> Departure:
        """Take from a reply's bytes what the laws ask of it."""
        parts = unwrap(reply)
        envelopes = {n: d for n, d in parts.items() if n.endswith(ENVELOPE_SUFFIX)}
        kept = {n: d for n, d in parts.items() if n not in envelopes or n.startswith(REPORT)}
        digests = {sha256_hex(d): n.removesuffix(ENVELOPE_SUFFIX) for n, d in envelopes.items()}
        return cls(order, life, digests, kept)


@dataclass
class Left:
    """What one site let out: every reply that ever lay in its outbox.

    Attributes:
        departures: the oldest first; the same reply to the same parcel leaves once.
        orders: digest of every parcel of the conductor's that came to the site -> the
            checkpoint beside it, if any.
        forged: digests of parcels that the aggregator's conductor never made.
    """

    departures: list[Departure] = field(default_factory=list)
    orders: dict[str, bytes | None] = field(default_factory=dict)
    forged: set[str] = field(default_factory=set)
    _known: set[tuple[str, str]] = field(default_factory=set)

    def note(self, order: str, reply: bytes, life: int) -> None:
        """Note that a reply has left, unless it had."""
        which = (order, sha256_hex(reply))
        if which not in self._known:
            self._known.add(which)
            self.departures.append(Departure.of(order, reply, life))

    def envelopes(self, life: int) -> dict[str, str]:
        """Digest of every envelope that left in one life -> its type."""
        return {
            digest: kind
            for departure in self.departures
            if departure.life == life
            for digest, kind in departure.envelopes.items()
        }

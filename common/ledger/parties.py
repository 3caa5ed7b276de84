"""The federation that a ledger belongs to, and the receiver of what it records.

Both stand in GENESIS and in every record after it, so that no record of one federation
can be shown as another's, and the question *to whom* is answered by the record itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class PartyFields(TypedDict):
    """A record's fields of the parties."""

    federation: str
    receiver: str
    receiver_key: str | None


@dataclass(frozen=True)
class Parties:
    """The federation and the receiver of a site's releases.

    Attributes:
        federation: its name.
        receiver: address of the aggregator, host:port.
        receiver_key: fingerprint of the key with which it signs orders and receipts.
    """

    federation: str
    receiver: str
    receiver_key: str | None = None

    @property
    def fields(self) -> PartyFields:
        """The words of every record."""
        return PartyFields(
            federation=self.federation, receiver=self.receiver, receiver_key=self.receiver_key
        )


NO_FEDERATION = Parties("unnamed", "nobody")
"""Of a ledger that is written outside of a federation, as in a rehearsal of a fault."""

"""Relays in the aggregator's own process: a transport that has each do its errand in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aggregator.relays.relay import Relay
from aggregator.rounds.transport import Arrival


@dataclass
class RelayTraffic:
    """Bytes between the aggregator and its relays.

    Attributes:
        down_bytes, up_bytes: errands, and what came of them.
    """

    down_bytes: int = 0
    up_bytes: int = 0


@dataclass
class RelayTransport:
    """See ``Transport``. Node n is relay n.

    Attributes:
        relays: each with its way to its sites.
        carried: counted; whoever reads it begins a new one.
    """

    relays: Sequence[Relay]
    carried: RelayTraffic = field(default_factory=RelayTraffic)
    _errands: Mapping[int, bytes] = field(default_factory=dict)
    _waiting: list[int] = field(default_factory=list)

    def nodes(self) -> Mapping[int, str]:
        """See ``Transport``: all are always there."""
        return {node: relay.name for node, relay in enumerate(self.relays)}

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        """See ``Transport``; an errand is made when its relay begins with it."""
        del deadline_s  # the clock stands still while they work
        self._errands, self._waiting = parcels, sorted(parcels)

    def receive(self) -> Sequence[Arrival]:
        """See ``Transport``; has the next relay do its errand."""
        if not self._waiting:
            return []
        node = self._waiting.pop(0)
        errand = self._errands[node]
        self.carried.down_bytes += len(errand)
        answer = self.relays[node].answer(errand)
        self.carried.up_bytes += len(answer)
        return [Arrival(node, answer)]

"""One sending to some nodes, and what comes back until all have answered or time is up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from aggregator.rounds.letters import Parcels
from aggregator.rounds.transport import Arrival, Transport

SHORTEST_POLL_S, LONGEST_POLL_S = 0.1, 1.5


@dataclass(frozen=True)
class Gathering:
    """The means to send and to wait.

    Attributes:
        clock, wait: seconds that only go up, and how to wait before asking again.
    """

    transport: Transport
    clock: Callable[[], float]
    wait: Callable[[float], None]

    def gather(
        self, nodes: Mapping[int, str], make: Callable[[str], bytes], deadline_s: float
    ) -> Iterator[tuple[str, Arrival, float]]:
        """Send each node its parcel and yield what each sends back, the first time it does.

        Args:
            nodes: who is behind each.
            make: returns the parcel for one of them; called when it is about to be sent.
            deadline_s: how long answers are waited for.

        Yields:
            Who answered, with what, and how many seconds it took.
        """
        began, pending = self.clock(), dict(nodes)
        self.transport.send(Parcels(pending, make), deadline_s)
        while pending and self.clock() < began + deadline_s:
            arrived = False
            for arrival in self.transport.receive():
                who = pending.pop(arrival.node, "")
                if not who:
                    continue  # not asked, or it answered twice: its first answer counts
                arrived = True
                yield who, arrival, self.clock() - began
            if pending and not arrived:
                self.wait(pause(self.clock() - began))


def pause(waited: float) -> float:
    """Choose the wait before asking again: a tenth of the time waited so far, within bounds.

    Every question costs the SuperLink some 20 ms of processor time; asking five times a second
    through long rounds took more of a small machine than anything else here.
    """
    return min(max(waited / 10, SHORTEST_POLL_S), LONGEST_POLL_S)

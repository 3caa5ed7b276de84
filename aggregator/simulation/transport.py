"""Orders to made-up sites and replies back: a transport in one folder.

An order is written when the process of its site can take it and a reply is read when the
conductor takes it, so that the folder holds a few messages however many sites there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aggregator.rounds.transport import Arrival
from aggregator.simulation.hubs import Hubs
from common.arrivals.files import read_bounded
from common.simulation import Post
from common.wire.codes import ReplyCode
from common.wire.parcel import MAX_PARCEL_BYTES


@dataclass
class Traffic:
    """What went to and fro since somebody last asked.

    Attributes:
        answered: sites whose process has answered.
        cpu_us: processor time of the sites, microseconds.
    """

    answered: int = 0
    order_bytes: int = 0
    reply_bytes: int = 0
    cpu_us: int = 0


@dataclass
class FolderTransport:
    """See ``Transport``. Node n is site n.

    Attributes:
        sites: their names, by number; the number decides the process of a site.
        carried: counted; whoever reads it begins a new one.
    """

    hubs: Hubs
    post: Post
    sites: Mapping[int, str]
    carried: Traffic = field(default_factory=Traffic)
    _parcels: Mapping[int, bytes] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = {name: number for number, name in self.sites.items()}

    def nodes(self) -> Mapping[int, str]:
        """See ``Transport``: all are always there."""
        return self.sites

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        """See ``Transport``; a parcel is asked for when its site can take it."""
        del deadline_s  # the clock stands still while they work
        self.hubs.forget()
        for path in self.post.root.glob("*.reply"):
            path.unlink()
        self._parcels = parcels
        self.hubs.ask("answer", ((node, self.sites[node]) for node in parcels))

    def receive(self) -> Sequence[Arrival]:
        """See ``Transport``; waits for an answer, for a simulation has nothing else to do."""
        for question in self.hubs.ready():
            parcel = self._parcels[self._numbers[question.site]]
            self.post.order(question.site).write_bytes(parcel)
            self.carried.order_bytes += len(parcel)
        arrivals = []
        for message in self.hubs.told():
            node, reply = self._numbers[message.site], self.post.reply(message.site)
            self.carried.answered += 1
            self.carried.cpu_us += message.cpu_us
            if not message.replied:
                arrivals.append(Arrival(node, None, ReplyCode.NO_ANSWER))
                continue
            data = read_bounded(reply, MAX_PARCEL_BYTES, "a reply")
            reply.unlink()
            self.carried.reply_bytes += len(data)
            arrivals.append(Arrival(node, data))
        return arrivals

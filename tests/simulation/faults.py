"""What goes wrong: drawn by a seed, each fault at an exchange of a run and at a party.

Three classes, because other laws hold for each: what the way loses (nobody is to blame),
what machines suffer (nobody is to blame, and nothing may be unrecorded), and lies.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Way = Literal["order lost", "order doubled", "old order again", "reply lost", "reply doubled"]
Machine = Literal["killed", "power cut", "disk full", "clock back", "clock forward"]
LieOfSite = Literal[
    "reply altered", "old reply again", "another's reply", "ledger set back", "garbage replied",
    "forged tag", "part added",
]  # fmt: skip
LieOfAggregator = Literal[
    "order altered", "garbage ordered", "sum altered", "longer plan", "round skipped",
    "another roster", "question changed",
]  # fmt: skip
Kind = Way | Machine | LieOfSite | LieOfAggregator
WAY: tuple[Way, ...] = get_args(Way)
MACHINE: tuple[Machine, ...] = get_args(Machine)
LIES_OF_SITES: tuple[LieOfSite, ...] = get_args(LieOfSite)
LIES_OF_AGGREGATORS: tuple[LieOfAggregator, ...] = get_args(LieOfAggregator)
AGGREGATOR = "aggregator"

# Changes of its disk that an answering site, or the aggregator in a round, makes: some more.
MOST_OPERATIONS = 120


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        exchange: the how-manieth orders that are sent, from 0.
        party: a site, or the aggregator.
        kind: what happens.
        at: operation of the disk, or whatever else has to be drawn for it.
    """

    exchange: int
    party: str
    kind: Kind
    at: int

    def __str__(self) -> str:
        return f"exchange {self.exchange}, {self.party}: {self.kind} ({self.at})"


def drawn(
    seed: int, sites: Sequence[str], exchanges: int, count: int | None = None
) -> tuple[Fault, ...]:
    """Draw a schedule; in each at most one site lies, or the aggregator does.

    Args:
        seed: of the draw.
        sites: by name.
        exchanges: how many orders the undisturbed run sends.
        count: of faults; one to six without it.
    """
    chance = random.Random(f"faults {seed}")
    liar = chance.choice(sites) if chance.random() < 0.35 else None
    lying_aggregator = liar is None and chance.random() < 0.35
    faults = []
    for _ in range(chance.randint(1, 6) if count is None else count):
        exchange = chance.randrange(exchanges)
        at = chance.randint(1, MOST_OPERATIONS)
        classes: list[tuple[str, Sequence[Kind]]] = [
            (chance.choice(sites), WAY),
            (chance.choice((*sites, AGGREGATOR)), MACHINE),
        ]
        if liar is not None:
            classes.append((liar, LIES_OF_SITES))
        if lying_aggregator:
            classes.append((chance.choice(sites), LIES_OF_AGGREGATORS))
        party, kinds = chance.choice(classes)
        faults.append(Fault(exchange, party, chance.choice(kinds), at))
    return tuple(sorted(faults))

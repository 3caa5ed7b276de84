"""What goes wrong: drawn by a seed, each fault at an exchange of a run and at a party.

Four classes, because other laws hold for each: what the way loses (nobody is to blame),
what machines suffer (nobody is to blame, and nothing may be unrecorded), folders that are
put back from older backups (nobody is to blame, and what is lost must be named), and lies.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Way = Literal["order lost", "order doubled", "old order again", "reply lost", "reply doubled"]
Failure = Literal["killed", "power cut", "disk full"]
Machine = Failure | Literal["clock back", "clock forward"]
Restore = Literal["put back", "put back unasked"]
LieOfSite = Literal[
    "reply altered", "old reply again", "another's reply", "ledger set back", "garbage replied",
    "forged tag", "part added",
]  # fmt: skip
LieOfAggregator = Literal[
    "order altered", "garbage ordered", "sum altered", "longer plan", "round skipped",
    "another roster", "question changed",
]  # fmt: skip
Kind = Way | Machine | Restore | LieOfSite | LieOfAggregator
WAY: tuple[Way, ...] = get_args(Way)
FAILURES: tuple[Failure, ...] = get_args(Failure)
MACHINE: tuple[Machine, ...] = (*FAILURES, "clock back", "clock forward")
RESTORES: tuple[Restore, ...] = get_args(Restore)
LIES_OF_SITES: tuple[LieOfSite, ...] = get_args(LieOfSite)
LIES_OF_AGGREGATORS: tuple[LieOfAggregator, ...] = get_args(LieOfAggregator)
AGGREGATOR = "aggregator"

# Changes of its disk that an answering site, or the aggregator in a round, makes: some more.
MOST_OPERATIONS = 120
BEFORE_THE_RUN = -1
SPOOLS = ("kept", "lost", "as it was")
PATIENCE = (0, 1, 2)


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

    @property
    def backup_of(self) -> int:
        """The exchange whose orders had not gone out yet when the backup was made."""
        return self.at % (self.exchange + 1) - 1

    @property
    def _rest(self) -> int:
        return self.at // (self.exchange + 1)

    @property
    def spool(self) -> str:
        """What has become of a site's spool, which `deploy/README.md` says not to back up.

        A disk that failed alone leaves it, a machine that is gone takes it away, and who
        copies the whole folder of a machine without containers puts it back, too.
        """
        return SPOOLS[self._rest % len(SPOOLS)]

    @property
    def patience(self) -> int | None:
        """Exchanges until a person speaks of what is lost; None: nobody ever asks one."""
        waits = self._rest // len(SPOOLS) % len(PATIENCE)
        return None if self.kind == "put back unasked" else PATIENCE[waits]

    @property
    def beside(self) -> bool:
        """Whether the worker runs while that person speaks, and records it itself."""
        return self._rest // len(SPOOLS) // len(PATIENCE) % 2 == 1


def drawn(
    seed: int, sites: Sequence[str], exchanges: int, count: int | None = None
) -> tuple[Fault, ...]:
    """Draw a schedule; in each at most one site lies, or the aggregator does.

    Args:
        seed: of the draw.
        sites: by name.
        exchanges: how many orders the undisturbed run sends.
        count: of faults; one to six without it, and in half of the schedules restores, too.
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
    if count is None:
        # From a stream of their own: the other faults of a seed are those that they were.
        faults += _restores(random.Random(f"restores {seed}"), sites, exchanges)
    return tuple(sorted(faults))


def _restores(chance: random.Random, sites: Sequence[str], exchanges: int) -> list[Fault]:
    """Draw who is put back, and when; a machine may fail again while it is put right.

    People of at most one site are never asked. An aggregator that is put back at an
    exchange that the run does not come to is put back after its end.
    """
    faults: list[Fault] = []
    if chance.random() < 0.5:
        return faults
    unasked = chance.choice(sites) if chance.random() < 0.25 else None
    for _ in range(chance.randint(1, 3)):
        party = chance.choice((AGGREGATOR, chance.choice(sites), chance.choice(sites)))
        exchange = chance.randint(1, exchanges)
        kind: Kind = "put back unasked" if party == unasked else "put back"
        ways = (exchange + 1) * len(SPOOLS) * len(PATIENCE) * 2
        faults.append(Fault(exchange, party, kind, chance.randrange(ways)))
        if chance.random() < 0.5:
            how, at = chance.choice(FAILURES), chance.randint(1, MOST_OPERATIONS)
            faults.append(Fault(exchange, party, how, at))
    return faults

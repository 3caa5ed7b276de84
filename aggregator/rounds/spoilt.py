"""The one who spoils a round's sum: found by leaving out one suspect after the other.

Nobody here can check a tag; the sites can check a sum, and the one without the liar's summand
holds. Once it does, the sites have taken it for the round's: whoever was left out stays so. A
relay is left out with all of its sites, for of a thousand sites behind thirty relays thirty
sums are tried then and not a thousand; its sites lose that round. Should it come to it again,
its sites are tried one by one before it is. A site that accepted the spoilt sum is a suspect
before the others. Pure but for ``trial``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from aggregator.rounds.answers import AcceptedAnswer

Answers = Mapping[str, AcceptedAnswer]
HeldT = TypeVar("HeldT")


@dataclass(frozen=True)
class Suspect:
    """One who may have spoilt a sum.

    Attributes:
        name: of a site, or of a relay.
        sites: that are left out with it: itself, or all that the relay added.
        relayed: whether it is a relay.
    """

    name: str
    sites: frozenset[str]
    relayed: bool = False


@dataclass(frozen=True)
class Culprit(Generic[HeldT]):
    """The one without whom the sum holds.

    Attributes:
        outcome: what the trial without it came to.
    """

    liar: Suspect
    outcome: HeldT


@dataclass(frozen=True)
class Search(Generic[HeldT]):
    """A search among those who stand behind a sum that was refused.

    Attributes:
        answers: behind it.
        refusing: sites that refused it.
        earlier: relays that were found before.
        quorum: fewest answers that make a round count.
        trial: adds the answers that it is given and asks the sites; None where that sum
            does not hold either.
    """

    answers: Answers
    refusing: Set[str]
    earlier: Set[str]
    quorum: int
    trial: Callable[[Answers], HeldT | None]

    def find(self) -> Culprit[HeldT] | None:
        """Return who is to blame; None where no single one is, or too few would be left."""
        for suspect in self.suspects():
            rest = {s: answer for s, answer in self.answers.items() if s not in suspect.sites}
            outcome = self.trial(rest)
            if outcome is not None:
                return Culprit(suspect, outcome)
        return None

    def suspects(self) -> Iterator[Suspect]:
        """Yield them in the order in which they are left out; enough answers stay of each."""
        by_relay: dict[str, set[str]] = {}
        for site, answer in self.answers.items():
            by_relay.setdefault(answer.relay, set()).add(site)
        alone = by_relay.pop("", set())
        relays = {name: Suspect(name, frozenset(its), True) for name, its in by_relay.items()}
        for name in sorted(relays.keys() & self.earlier):
            relay = relays.pop(name)
            yield from self._possible((*self._one_by_one(relay.sites), relay))
        first = sorted(
            (*self._one_by_one(alone), *relays.values()),
            key=lambda s: (s.sites <= self.refusing, not s.relayed, s.name),
        )
        for suspect in first:
            if suspect.relayed and not self._is_possible(suspect):
                yield from self._possible(self._one_by_one(suspect.sites))
            else:
                yield from self._possible((suspect,))

    def _one_by_one(self, sites: Set[str]) -> list[Suspect]:
        ordered = sorted(sites, key=lambda site: (site in self.refusing, site))
        return [Suspect(site, frozenset({site})) for site in ordered]

    def _possible(self, suspects: Iterable[Suspect]) -> Iterator[Suspect]:
        yield from filter(self._is_possible, suspects)

    def _is_possible(self, suspect: Suspect) -> bool:
        return len(self.answers) - len(suspect.sites) >= self.quorum

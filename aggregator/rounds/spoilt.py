"""Who spoils a round's sum: found by leaving out one suspect after the other.

Nobody here can check a tag; the sites can check a sum, and the one without the liar's summand
holds. A relay is suspected with all of its sites first, so that of a thousand sites behind
thirty relays some sixty sums are tried and not a thousand. A site that accepted the spoilt
sum is a suspect before the others. Pure but for ``trial``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from aggregator.rounds.answers import AcceptedAnswer

Answers = Mapping[str, AcceptedAnswer]
HeldT = TypeVar("HeldT")


@dataclass(frozen=True)
class Suspect:
    """Who may have spoilt a sum.

    Attributes:
        name: of a site, or of a relay.
        sites: that are left out with it: itself, or all that the relay added.
        relayed: whether it is a relay.
    """

    name: str
    sites: frozenset[str]
    relayed: bool = False


@dataclass(frozen=True)
class Found(Generic[HeldT]):
    """The one without whom the sum holds.

    Attributes:
        held: what the trial without it came to.
    """

    liar: Suspect
    held: HeldT


@dataclass(frozen=True)
class Search(Generic[HeldT]):
    """A search among those who stand behind a sum that was refused.

    Attributes:
        answers: behind it.
        refusing: sites that refused it.
        quorum: fewest answers that make a round count.
        trial: adds the answers that it is given and asks the sites; None where that sum
            does not hold either.
    """

    answers: Answers
    refusing: set[str]
    quorum: int
    trial: Callable[[Answers], HeldT | None]

    def find(self) -> Found[HeldT] | None:
        """Return who is to blame; None where no single one is, or too few would be left."""
        for suspect in self._suspects():
            held = self._without(suspect)
            enough = len(self.answers) - len(suspect.sites) >= self.quorum
            if suspect.relayed and (held is not None or not enough):
                # One of its sites, or the relay itself?
                for site in self._in_order(suspect.sites):
                    finer = Suspect(site, frozenset({site}))
                    without = self._without(finer)
                    if without is not None:
                        return Found(finer, without)
                held = self._without(suspect) if enough else None  # others were tried since
            if held is not None:
                return Found(suspect, held)
        return None

    def _suspects(self) -> Iterator[Suspect]:
        sites: dict[str, set[str]] = {}
        for site, answer in self.answers.items():
            sites.setdefault(answer.relay, set()).add(site)
        alone = [Suspect(site, frozenset({site})) for site in sites.pop("", set())]
        # A relay of one site adds nothing up: either way it is that site's record.
        alone += [Suspect(*its, frozenset(its)) for its in sites.values() if len(its) == 1]
        relays = [Suspect(r, frozenset(its), True) for r, its in sites.items() if len(its) > 1]
        yield from sorted(
            (*alone, *relays), key=lambda s: (s.sites <= self.refusing, not s.relayed, s.name)
        )

    def _in_order(self, sites: frozenset[str]) -> list[str]:
        return sorted(sites, key=lambda site: (site in self.refusing, site))

    def _without(self, suspect: Suspect) -> HeldT | None:
        rest = {site: a for site, a in self.answers.items() if site not in suspect.sites}
        return None if len(rest) < self.quorum else self.trial(rest)

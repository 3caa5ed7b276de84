"""Sites behind relays, seen from the aggregator: their heads first, then sums of those it chose.

What a head says is verified here by its site's own ledger. A relay is believed about three
things: how long an update is, what it could not take, and who was silent. Whether its sums are
what its sites sent is for the sites to say. A relay that fails costs its sites that round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from aggregator.intake.partial import PartialRequest, check_partial
from aggregator.intake.reply import most_bytes
from aggregator.rounds.answers import AcceptedAnswer, RelayedAnswer
from aggregator.rounds.course import Step
from aggregator.rounds.gathering import Gathering
from aggregator.rounds.letters import LetterBook
from aggregator.rounds.minutes import Minutes
from aggregator.rounds.receiving import Receiving, Terms
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival
from common.arrivals.boundary import contained
from common.canonical import sha256_hex
from common.errors import CairnError, RefusedError, UnreachableError
from common.plan import FederationPlan
from common.sums.addition import Sum, decode_sum
from common.wire.codes import EXPLANATIONS
from common.wire.parcel import MAX_PARCEL_BYTES
from common.wire.relayed import (
    MOST_SAID_BYTES,
    Answered,
    Heads,
    Numbered,
    SiteSaid,
    TurnedAway,
    read_heads,
    read_partial,
    said_bytes,
)
from common.wire.rules import summed_of

RELAY_S: Final = 60.0
"""How much longer than its sites a relay has, and how long it has for a sum at least."""
SUM_SUFFIX: Final = ".sum"
Route = tuple[str, frozenset[str]]
"""A relay, and its sites that are asked."""


@dataclass
class RelayedSites:
    """The relays of one run.

    Attributes:
        groups: sites of each relay, by its name; no site is behind two.
        receiving: takes each site's head, as it takes the replies of other sites.
    """

    store: RunStore
    plan: FederationPlan
    groups: Mapping[str, frozenset[str]]
    letters: LetterBook
    receiving: Receiving
    minutes: Minutes
    _sums: dict[tuple[int, str, str], str] = field(default_factory=dict)

    def routes(self, nodes: Mapping[int, str], sites: set[str]) -> dict[int, Route]:
        """Return the relays that are online and behind which some of the sites are, by node.

        A site that is online here itself is asked here.
        """
        rest = sites - set(nodes.values())
        routes = {
            node: (name, self.groups[name] & rest)
            for node, name in nodes.items()
            if name in self.groups
        }
        return {node: route for node, route in routes.items() if route[1]}

    def take(
        self, step: Step, route: Route, arrival: Arrival, terms: Terms
    ) -> dict[str, AcceptedAnswer]:
        """Take what a relay brought of its sites; returns the answers that are accepted.

        Args:
            step: of the order.
            route: the relay, and whom it was to ask.
            arrival: what it sent.
            terms: of the order.
        """
        relay, names = route
        try:
            with contained(f"the heads of {relay}", OSError):
                words, heads = read_heads(_parcel(arrival), self._most(len(names)))
                self._require_asked(words, step, route)
                said = {"heads.json": said_bytes(words)}
                self.store.archive(step.round, relay, said)
        except CairnError as error:
            self.minutes.relay_failed(step, relay, str(error), names)
            return {}
        answers = {}
        for each in words.sites:
            answer = self._take_one(step, relay, each, heads, terms)
            if answer is not None:
                answers[each.site] = answer
        return answers

    def lost(self, step: Step, route: Route) -> None:
        """Journal that a relay has not answered in time."""
        self.minutes.relay_failed(step, route[0], "it has not answered in time", route[1])

    def add_up(
        self,
        step: Step,
        answers: Mapping[str, AcceptedAnswer],
        gathering: Gathering,
        deadline_s: float,
    ) -> tuple[dict[str, str], set[str]]:
        """Have each relay add the records of those of its sites that are in ``answers``.

        What was asked before for the same records is not asked again.

        Args:
            step: that was answered.
            answers: that go together; nothing is asked about sites that answered here.
            gathering: the way to the relays.
            deadline_s: how long they have.

        Returns:
            Digest of each relay's sum, which lies in the archive; and the sites of relays that
            failed, which cannot be added.
        """
        chosen: dict[str, dict[str, AcceptedAnswer]] = {}
        if summed_of(self.plan, step.phase):
            for site, answer in sorted(answers.items()):
                if answer.relay:
                    chosen.setdefault(answer.relay, {})[site] = answer
        errands = {relay: self._adding(step, relay, mine) for relay, mine in chosen.items()}
        names = {relay: (step.round, relay, sha256_hex(e)) for relay, e in errands.items()}
        open_ = {relay for relay, name in names.items() if name not in self._sums}
        nodes = {n: name for n, name in gathering.transport.nodes().items() if name in open_}
        arrivals = gathering.gather(nodes, errands.__getitem__, deadline_s) if nodes else iter(())
        for relay, arrival, _ in arrivals:
            open_.discard(relay)
            digest = self._take_sum(step, relay, chosen[relay], arrival)
            if digest:
                self._sums[names[relay]] = digest
        for relay in sorted(open_):
            reason = "it was gone when its sites' records were to be added"
            self.minutes.relay_failed(step, relay, reason, chosen[relay])
        digests = {r: self._sums[name] for r, name in names.items() if name in self._sums}
        return digests, {site for relay in chosen.keys() - digests.keys() for site in chosen[relay]}

    def parts(self, step: Step, sums: Mapping[str, str]) -> Iterator[Sum]:
        """Yield relays' sums out of the archive, one at a time, in order of their names.

        Raises:
            InputDataError: the archive no longer holds one.
        """
        for relay, digest in sorted(sums.items()):
            yield decode_sum(self.store.archived(step.round, relay, digest + SUM_SUFFIX))

    def _adding(self, step: Step, relay: str, answers: Mapping[str, AcceptedAnswer]) -> bytes:
        return self.letters.adding(step, relay, {s: a.relayed for s, a in answers.items()})

    def _take_sum(
        self, step: Step, relay: str, answers: Mapping[str, AcceptedAnswer], arrival: Arrival
    ) -> str:
        """Return the digest of a relay's sum, archived; empty where it does not hold."""
        chosen = PartialRequest(
            self.store.name,
            step.round,
            step.phase,
            self.plan,
            {site: self.receiving.caps[site] for site in answers},
            {s: a.measure for s, a in answers.items() if isinstance(a.measure, float)},
        )
        try:
            with contained(f"the sum of {relay}", OSError):
                data = read_partial(_parcel(arrival))
                check_partial(data, chosen)
                self.store.archive(step.round, relay, {f"sum{SUM_SUFFIX}": data})
        except CairnError as error:
            self.minutes.relay_failed(step, relay, str(error), answers)
            return ""
        return sha256_hex(data)

    def _take_one(
        self,
        step: Step,
        relay: str,
        said: SiteSaid,
        heads: Mapping[str, memoryview],
        terms: Terms,
    ) -> AcceptedAnswer | None:
        # An arrival at no node: what a relay passed on.
        match said:
            case Answered():
                arrival, passed = Arrival(0, bytes(heads[said.site])), RelayedAnswer(relay, said)
                return self.receiving.take(step, said.site, arrival, terms, said.ms / 1000, passed)
            case Numbered():
                arrival = Arrival(0, None, said.code)
                return self.receiving.take(step, said.site, arrival, terms, said.ms / 1000)
            case TurnedAway(stale=True):
                reason = f"by the word of {relay}: {said.reason}"
                self.receiving.note_stale(step, said.site, reason, said.bytes)
            case TurnedAway():
                error = RefusedError(f"{relay} turned its reply away", got=said.reason)
                self.receiving.turn_away(step, said.site, error)
        return None

    def _require_asked(self, words: Heads, step: Step, route: Route) -> None:
        """Refuse words of another relay, about another order, or about sites it was not asked."""
        relay, names = route
        about = (words.relay, words.run, words.round)
        if about != (relay, self.store.name, step.round):
            raise RefusedError("a relay speaks of something else", field="relay, run, round")
        if strange := {said.site for said in words.sites} - names:
            raise RefusedError(
                "a relay speaks for sites that it was not to ask", got=f"{len(strange)} of them"
            )

    def _most(self, sites: int) -> int:
        """Most bytes that the heads of so many sites have: each may be a whole reply."""
        return min(sites * most_bytes(self.plan) + MOST_SAID_BYTES, MAX_PARCEL_BYTES)


def require_apart(groups: Mapping[str, frozenset[str]], sites: set[str]) -> None:
    """Refuse relays that share a site, or are called like one.

    Args:
        groups: sites of each relay, by its name.
        sites: of the federation.

    Raises:
        RefusedError: names the relay.
    """
    reserved: set[str] = set(sites)
    for relay in sorted(groups):
        if relay in reserved:
            raise RefusedError("a relay is called like a site", field=relay)
    members: set[str] = set()
    for relay, its in sorted(groups.items()):
        if members & its:
            twice = ", ".join(sorted(members & its))
            raise RefusedError(
                "a site is behind two relays", field=relay, expected="sites of its own", got=twice
            )
        members |= its


def _parcel(arrival: Arrival) -> bytes:
    """Return what a relay sent.

    Raises:
        CairnError: it sent nothing.
    """
    if arrival.fault is not None:
        raise arrival.fault
    if arrival.parcel is None:
        raise UnreachableError("it sent a number", got=EXPLANATIONS[arrival.code])
    return arrival.parcel

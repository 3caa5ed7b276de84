"""One round's conversation with the sites: orders out, replies in, each accepted or not.

Says who is asked, how often and until when. What lies in a parcel is said by ``letters``,
what comes of a reply by ``receiving``, of a relay's by ``relayed``. Merges nothing, and
holds one reply at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aggregator.rounds.answers import AcceptedAnswer
from aggregator.rounds.course import Step
from aggregator.rounds.events import RoundStarted, SitesAwaited
from aggregator.rounds.gathering import Gathering
from aggregator.rounds.letters import LetterBook, Letters
from aggregator.rounds.minutes import Minutes
from aggregator.rounds.receiving import Receiving, Terms
from aggregator.rounds.relayed import RELAY_S, RelayedSites
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Transport
from aggregator.rounds.work import Work
from common.arrivals.boundary import contained
from common.errors import CairnError
from common.wire.codes import ReplyCode

STOP_S = 20.0
"""How long sites have to record that a run was stopped."""
SHORTEST_APPROVAL_S, LONGEST_APPROVAL_S = 1.0, 30.0


@dataclass
class SiteExchange:
    """The sites of one run and the way to them.

    Attributes:
        letters: what each site is sent; its sites are those of the run's roster that are
            still admitted.
        receiving: what is made of what comes back.
        relayed: the sites behind relays, and what comes of those.
        work: of the plan's kind; says what does not go together.
        clock, sleep: seconds that only go up, and how to wait; passed in for tests.
        wait_for_replies: how to wait before asking again; may end as soon as a reply is there.
    """

    store: RunStore
    transport: Transport
    letters: LetterBook
    receiving: Receiving
    relayed: RelayedSites
    minutes: Minutes
    work: Work
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    wait_for_replies: Callable[[float], None] = time.sleep

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the run's sites, in order."""
        return tuple(self.letters.sites)

    def online(self) -> set[str]:
        """Return the run's sites that can be asked: here, or by a relay that is here."""
        return self._reached(self.transport.nodes()) & set(self.sites)

    @property
    def answered(self) -> dict[str, int]:
        """Last round of which a site's answer arrived whole, by site."""
        return self.letters.answered

    def ask(self, step: Step, order: bytes, terms: Terms) -> dict[str, AcceptedAnswer]:
        """Send an order to everybody online and gather until all answered or time is up.

        A site that lacks earlier sums is sent them and asked again at once. Where people
        have to approve the plan first, their sites are asked again until they have.

        Returns:
            Accepted answers by site. Everything else is in the journal, with its reason.

        Raises:
            RefusedError: the sites' answers contradict each other and nobody can tell who is right.
        """
        addressed = set(self.sites) - self.receiving.excluded
        self.receiving.begin()
        self.store.record(
            RoundStarted(
                round=step.round,
                phase=step.phase,
                order_bytes=len(order) + len(terms.state.sum if terms.state else b""),
                sites=tuple(sorted(addressed)),
            )
        )
        answers = self._gather(step, order, terms, addressed)
        if lagging := self.receiving.said(ReplyCode.BEHIND):
            for site in lagging:
                self.answered.pop(site, None)
            answers |= self._gather(step, order, terms, lagging)
        if step.phase == "begin":
            answers |= self._until_approved(step, order, terms)
        self._note_the_rest(step, addressed - answers.keys())
        for site, reason in self._odd(step, answers, terms).items():
            self.minutes.reject(step, site, reason)
            del answers[site]
        return answers

    def partial_sums(
        self, step: Step, answers: Mapping[str, AcceptedAnswer]
    ) -> tuple[dict[str, str], set[str]]:
        """Have relays add up what they keep of these answers; see ``RelayedSites.add_up``.

        Returns:
            Digest of each relay's sum; and the sites whose relay failed, which are late.
        """
        deadline = max(self.store.plan().rounds.deadline_s, RELAY_S)
        sums, lost = self.relayed.add_up(step, answers, self._gathering, deadline)
        for site in sorted(lost):
            self.minutes.late(step, site)
        return sums, lost

    def refusing_the_sum(self) -> set[str]:
        """Sites that refused the last order because its sum does not hold."""
        return self.receiving.said(ReplyCode.FORGED_SUM)

    def exclude(self, step: Step, site: str, reason: str) -> None:
        """Leave a site out of the rest of the run."""
        self.receiving.excluded.add(site)
        self.minutes.reject(step, site, reason)

    def tell_stop(self, step: Step, order: bytes) -> set[str]:
        """Tell every site that is online that the run is over; returns those that recorded it.

        Args:
            step: of the order.
            order: any of the run's; beside it lies the signed word that ends the run.
        """
        self.receiving.begin()
        self._gather(step, order, Terms(""), set(self.sites), stop=True)
        return self.receiving.said(ReplyCode.RUN_STOPPED)

    def _gather(
        self, step: Step, order: bytes, terms: Terms, addressed: set[str], *, stop: bool = False
    ) -> dict[str, AcceptedAnswer]:
        """One order out, and what came back and was accepted until the deadline.

        A site whose proof is older than what we have seen of it since proves anew, once.
        """
        letters = self.letters.letters(step, order, terms.beside, stop=stop)
        deadline = self.store.plan().rounds.deadline_s
        deadline = min(deadline, STOP_S) if stop else deadline
        stale = set(self.receiving.stale)
        answers = self._gather_once(step, letters, terms, addressed, deadline)
        if again := self.receiving.stale - stale:
            answers |= self._gather_once(step, letters, terms, again, deadline)
        return answers

    def _gather_once(
        self, step: Step, letters: Letters, terms: Terms, addressed: set[str], deadline: float
    ) -> dict[str, AcceptedAnswer]:
        for site in addressed:
            self.receiving.refused.pop(site, None)
        nodes = self.transport.nodes()
        fitting = self._fitting(step, letters, addressed & self._reached(nodes))
        names = {node: site for node, site in nodes.items() if site in fitting}
        routes = self.relayed.routes(nodes, fitting)
        waiting = {route[0]: route for route in routes.values()}
        names |= {node: route[0] for node, route in routes.items()}

        def make(who: str) -> bytes:
            if who not in waiting:
                return letters.parcel(who)
            return letters.errand(who, waiting[who][1], deadline, terms)

        answers: dict[str, AcceptedAnswer] = {}
        longest = deadline + RELAY_S if routes else deadline
        for who, arrival, waited in self._gathering.gather(names, make, longest):
            if who in waiting:
                answers |= self.relayed.take(step, waiting.pop(who), arrival, terms)
                continue
            answer = self.receiving.take(step, who, arrival, terms, waited)
            if answer is not None:
                answers[who] = answer
        for route in waiting.values():
            self.relayed.lost(step, route)
        return answers

    def _fitting(self, step: Step, letters: Letters, sites: set[str]) -> set[str]:
        """Return the sites whose parcels are not too long; the others are turned away."""
        fitting = set()
        for site in sorted(sites):
            try:
                with contained(f"the order for {site}"):
                    letters.require_fits(site)
                fitting.add(site)
            except CairnError as error:
                self.receiving.turn_away(step, site, error)
        return fitting

    def _reached(self, nodes: Mapping[int, str]) -> set[str]:
        """Return the sites that are online here, or behind a relay that is."""
        names = set(nodes.values())
        return names.union(*(self.relayed.groups.get(name, ()) for name in names))

    @property
    def _gathering(self) -> Gathering:
        return Gathering(self.transport, self.clock, self.wait_for_replies)

    def _until_approved(self, step: Step, order: bytes, terms: Terms) -> dict[str, AcceptedAnswer]:
        """Ask again, ever less often, where a person has to approve the plan."""
        began, answers = self.clock(), dict[str, AcceptedAnswer]()
        announced: set[str] = set()
        while waiting := self.receiving.said(ReplyCode.PLAN_WAITS):
            waited = self.clock() - began
            if waited >= self.store.options().approval_s:
                break
            if waiting != announced:
                sites = tuple(sorted(waiting))
                self.store.record(SitesAwaited(what="approval", sites=sites))
                announced = waiting
            self.sleep(approval_pause(waited))
            answers |= self._gather(step, order, terms, waiting)
        if announced:
            self.store.record(SitesAwaited(what="approval", sites=()))
        return answers

    def _note_the_rest(self, step: Step, sites: set[str]) -> None:
        """Journal who answered with a number, was late, or was rejected already."""
        for site in sorted(sites):
            refusal = self.receiving.refused.get(site)
            if refusal is None:
                self.minutes.late(step, site)
            elif refusal.said is not None:
                self.minutes.replied(refusal.said)

    def _odd(
        self, step: Step, answers: Mapping[str, AcceptedAnswer], terms: Terms
    ) -> dict[str, str]:
        """Sites whose accepted records do not go with the run's, or with the others'."""
        strayed = {
            site: "it worked from other sums than the run's"
            for site, answer in answers.items()
            if answer.link != terms.link
        }
        rest = {site: answer for site, answer in answers.items() if site not in strayed}
        return strayed | self.work.odd(step, terms.state, rest)


def approval_pause(waited: float) -> float:
    """Choose the wait until a site is asked again whether its people have approved the plan."""
    return min(max(waited / 10, SHORTEST_APPROVAL_S), LONGEST_APPROVAL_S)

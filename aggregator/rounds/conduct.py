"""Carrying out a run: order, exchange, merge, save, next round.

Knows nothing of Flower: whoever can send a parcel to every node that is online
and hand over what comes back is a ``Transport``. The same code conducts a
federation in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from aggregator.admin import arrival
from aggregator.admin.folder import FederationFolder
from aggregator.rounds.alike import alike
from aggregator.rounds.answers import AcceptedAnswer
from aggregator.rounds.course import Course, Step, agree, schedule
from aggregator.rounds.events import (
    AggregatorRestored,
    Awaited,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
    SitesAwaited,
    read_events,
)
from aggregator.rounds.exchange import SiteExchange
from aggregator.rounds.gathering import LONGEST_POLL_S, pause
from aggregator.rounds.letters import LetterBook
from aggregator.rounds.merging import merge_round
from aggregator.rounds.minutes import Minutes
from aggregator.rounds.parties import RunSite
from aggregator.rounds.receiving import Receiving, Terms
from aggregator.rounds.relayed import RelayedSites, require_apart
from aggregator.rounds.spoilt import Search, Suspect
from aggregator.rounds.store import RoundState, RunStore
from aggregator.rounds.transport import Transport
from aggregator.rounds.work import Ask, make_work
from common.arrivals.boundary import contained
from common.arrivals.quarantine import Quarantine
from common.errors import (
    CairnError,
    ExitCode,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from common.schedule import working_rounds
from common.settings import KINDS
from common.sums.addition import sum_digest
from common.sums.chain import first_link
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.orders import OrderHeader, RosterEntry, encode_order

ATTEND_S = 0.5
"""Seconds between two looks at whether the run is to end."""
PREDECESSOR_S = 60.0
"""An earlier ServerApp of the run may outlive its SuperLink, and notice only at the next one."""
_REFUSED_SUM = EXPLANATIONS[ReplyCode.FORGED_SUM]


@dataclass(frozen=True)
class _Mended:
    """A round without some of its answers, which the sites do not refuse.

    Attributes:
        state: after it.
        behind: the answers that it is of.
        answers: to the order that follows from it.
    """

    state: RoundState
    answered: dict[str, AcceptedAnswer]
    answers: dict[str, AcceptedAnswer]


class _StopAskedError(CairnError):
    """A coordinator wants the run to end."""


class _NotItsTurnError(RefusedError):
    """Another run has the turn, or another process conducts this one."""


@dataclass
class Conductor:
    """One run in progress.

    Attributes:
        turn: of the run, by which sites know that earlier ones are over.
        is_current: whether it still is this run's turn; asked twice a second.
        clock, sleep: seconds that only go up, and how to wait; passed in for tests.
        hear: how to wait for a reply; True as soon as one is complete. Where nobody tells of
            replies: by ``sleep``.
        relays: sites behind each relay, by its name.
    """

    federation: FederationFolder
    store: RunStore
    transport: Transport
    turn: int
    is_current: Callable[[], bool] = lambda: True
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    hear: Callable[[float], bool] | None = None
    relays: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stopping = False
        self._plan = self.store.plan()
        self._course = Course(self._plan)
        self._work = make_work(self.store)
        self._roster = self._settle_roster()
        self._exchange = self._make_exchange()
        self._first_link = first_link(
            self.store.name, self._plan.fingerprint, self._roster, self._work.origin
        )
        self._before: RoundState | None = None
        self._answers: dict[str, AcceptedAnswer] = {}
        self._suspected: set[str] = set()
        self._started = self.clock()
        self._digest = ""

    def _make_exchange(self) -> SiteExchange:
        admitted, key = self.federation.admitted(), self.federation.witness_key()
        names = [entry.site for entry in self._roster if entry.site in admitted]
        sites = {name: RunSite.of(admitted[name]) for name in names}
        rotations = self.federation.rotations()
        letters = LetterBook(self.store, sites, key, self.turn, rotations)
        minutes = Minutes(self.store, self._course)
        receiving = Receiving(
            self.store,
            self._plan,
            sites,
            {entry.site: entry.samples for entry in self._roster},
            key,
            self._work,
            minutes,
            Quarantine(self.federation.quarantine),
            letters.answered,
        )
        require_apart(self.relays, set(admitted))
        relayed = RelayedSites(self.store, self._plan, self.relays, letters, receiving, minutes)
        return SiteExchange(
            self.store,
            self.transport,
            letters,
            receiving,
            relayed,
            minutes,
            self._work,
            self.clock,
            self._wait,
            self._wait_for_replies,
        )

    def run(self) -> RunFinished:
        """Carry the plan out, or go on with it, and return the verdict that was journalled.

        What one site sends costs that site its share. What nobody foresaw beyond that ends
        this run by a verdict with a code, and never the process without a word.

        Raises:
            RefusedError: it no longer is the run's turn, or another process conducts it;
                nothing is journalled any more.
        """
        with self.store.conducting(PREDECESSOR_S):
            self._require_turn()
            return self._run()

    def _run(self) -> RunFinished:
        self._recall()
        last = self._course.finished[-1] if self._course.finished else None
        self._announce(last)
        try:
            with contained("a run", OSError):
                state = None if last is None else self.store.load(last)
                self._digest = "" if state is None else state.digest
                self._wait_for_sites()
                while (step := self._course.step()) is not None:
                    self._attend()
                    state = self._round(step, state)
        except _NotItsTurnError:
            raise
        except _StopAskedError:
            return self._stop()
        except CairnError as error:
            return self._finish(str(error), error.exit_code)
        return self._finish(self._course.reason, ExitCode.OK)

    def _require_turn(self) -> None:
        """Refuse to go on when another run has the turn."""
        if not self.is_current():
            raise _NotItsTurnError(
                "it is not this run's turn",
                field=self.store.name,
                advice="See `cairn-aggregator round list`",
            )

    def _attend(self) -> None:
        """Notice that the run is to end, or no longer has the turn."""
        if self._stopping:
            return
        self._require_turn()
        if self.store.stop_asked_by() is not None:
            raise _StopAskedError("the run is to end")

    def _wait(self, seconds: float) -> None:
        """Sleep, and attend in between."""
        self._attend()
        while seconds > 0:
            self.sleep(min(seconds, ATTEND_S))
            self._attend()
            seconds -= ATTEND_S

    def _wait_for_replies(self, seconds: float) -> None:
        """Sleep until a reply is complete or time is up, and attend in between.

        Args:
            seconds: at most, where nobody tells; who is told of each reply asks seldom.
        """
        if self.hear is None:
            self._wait(seconds)
            return
        self._attend()
        seconds, rung = LONGEST_POLL_S, False
        while seconds > 0 and not rung:
            rung = self.hear(min(seconds, ATTEND_S))
            self._attend()
            seconds -= ATTEND_S

    def _stop(self) -> RunFinished:
        """Tell the sites that the run is over, and end it."""
        self._stopping = True
        begin = schedule(self._plan)[0]
        order = self._order(begin, None, Ask())
        recorded = self._exchange.tell_stop(begin, order)
        missed = sorted(set(self._exchange.sites) - recorded)
        reason = f"stopped by {self.store.stop_asked_by()}; "
        reason += f"recorded at {', '.join(sorted(recorded)) or 'no site'}"
        if missed:
            reason += f"; {', '.join(missed)} will learn it from the next run's orders"
        event = RunFinished(
            verdict="STOPPED",
            reason=reason,
            rounds=self._course.worked,
            seconds=self.clock() - self._started,
            exit_code=int(ExitCode.STOPPED),
        )
        self.store.record(event)
        return event

    def _settle_roster(self) -> tuple[RosterEntry, ...]:
        """Settle who may take part: every site admitted when the run began, in order of name."""
        settled = self.store.roster()
        if settled is not None:
            return settled
        roster = tuple(
            RosterEntry(
                site=name,
                ledger_key=site.ledger_key.fingerprint,
                samples=site.samples_cap,
            )
            for name, site in sorted(self.federation.admitted().items())
        )
        self.store.save_roster(roster)
        return roster

    def _recall(self) -> None:
        """Recall what an interrupted run had come to: its rounds that count, and its blemishes."""
        self._course.finished = sorted(set(self.store.finished_rounds()))
        for _, event in read_events(self.store.journal):
            if isinstance(event, SiteRejected):
                self._course.blemish(event.round, event.site, f"was rejected: {event.reason}")
            elif isinstance(event, SiteLate):
                self._course.blemish(event.round, event.site, "was absent or late")
            elif isinstance(event, SiteReplied) and not event.accepted:
                self._course.blemish(event.round, event.site, EXPLANATIONS[event.code])
            elif isinstance(event, SiteReplied):
                self._exchange.answered[event.site] = event.round
                self._course.forgive(event.round, event.site, _REFUSED_SUM)

    def _announce(self, resumed_after: int | None) -> None:
        self.store.record(
            RunStarted(
                run=self.store.name,
                federation=self.federation.settings().name,
                plan_name=self._plan.name,
                plan_fingerprint=self._plan.fingerprint,
                kind=self._plan.kind,
                unit=KINDS[self._plan.task.kind].unit,
                rounds=working_rounds(self._plan),
                quorum=self._plan.rounds.quorum,
                sites=self._exchange.sites,
                resumed_after=resumed_after,
            )
        )

    def _finish(self, reason: str, code: ExitCode) -> RunFinished:
        event = RunFinished(
            verdict=self._course.verdict if code is ExitCode.OK else "FAILED",
            reason=reason,
            rounds=self._course.worked,
            model_sha256=self._digest,
            seconds=self.clock() - self._started,
            exit_code=int(code),
        )
        self.store.record(event)
        return event

    def _wait_for_sites(self) -> None:
        """Until who was wanted is online and has the federation key; a quorum when time is up."""
        options = self.store.options()
        began = self.clock()
        announced: tuple[str, tuple[str, ...]] | None = None
        while True:
            online = self._exchange.online()
            waited = self.clock() - began
            lacking = self._awaited(online, options.min_sites)
            if lacking is None or waited >= options.wait_s:
                break
            if lacking != announced:
                self.store.record(SitesAwaited(what=lacking[0], sites=lacking[1]))
                announced = lacking
            self._wait(pause(waited))
        if len(online) < self._plan.rounds.quorum:
            raise UnreachableError(
                "too few sites are online",
                expected=f"{self._plan.rounds.quorum}",
                got=f"{len(online)}",
                advice="Ask the sites to run `cairn-site check`",
            )

    def _awaited(self, online: set[str], min_sites: int) -> tuple[Awaited, tuple[str, ...]] | None:
        """Say what is waited for, and of whom; None when the run may begin."""
        if len(online) < min_sites:
            return "online", tuple(sorted(set(self._exchange.sites) - online))
        if self._course.finished:
            return None  # the key that the run began with
        coming = arrival.coming_to(self.federation, online)
        return ("federation_key", coming) if coming else None

    def _round(self, step: Step, state: RoundState | None) -> RoundState:
        """One round from order to files on disk."""
        began = self.clock()
        ask = self._work.ask(step, state)
        answers = self._ask(step, state, ask)
        if state is not None and self._is_the_sum_refused(answers):
            state, answers = self._leave_out_the_liar(step, state)
        start = self._settle(step, answers) if state is None else state
        self._course.require_quorum(step, len(answers))
        merged = start if state is None else self._merge(step, start, answers)
        # Only what is on disk counts: what cannot be merged or saved is asked for again.
        self._keep(step, merged, answers, began)
        self._before, self._answers = start, answers
        self._course.close(step, len(answers))
        return merged

    def _ask(self, step: Step, state: RoundState | None, ask: Ask) -> dict[str, AcceptedAnswer]:
        """Return the accepted answers to a step's order."""
        terms = Terms(
            self._first_link if state is None else state.link,
            state.agreement.key_id if state else None,
            self._work.codec(step, state),
            state,
            ask.beside,
        )
        return self._exchange.ask(step, self._order(step, state, ask), terms)

    def _merge(
        self, step: Step, start: RoundState, answers: dict[str, AcceptedAnswer]
    ) -> RoundState:
        """Merge a step's answers; those of relays that fail are taken out of them.

        Raises:
            UnreachableError: too few are left.
        """
        sums, lost = self._exchange.partial_sums(step, answers)
        for site in lost:
            del answers[site]
        self._course.require_quorum(step, len(answers))
        parts = self._exchange.relayed.parts(step, sums)
        return merge_round(self.store.name, self._plan, self._work, step, start, answers, parts)

    def _keep(
        self, step: Step, state: RoundState, answers: dict[str, AcceptedAnswer], began: float
    ) -> None:
        self.store.save(state)
        self._digest = state.digest
        fill, total = self._work.sketched(state)
        self.store.record(
            RoundFinished(
                round=step.round,
                phase=step.phase,
                sites=tuple(sorted(answers)),
                model_sha256=self._digest,
                sketch_fill=fill,
                sketch_total=total,
                alike=alike(answers) if step.round == self._plan.rounds.training else {},
                seconds=self.clock() - began,
            )
        )

    def _is_the_sum_refused(self, answers: dict[str, AcceptedAnswer]) -> bool:
        """Tell whether most of those who answered say that the sum they were sent does not hold."""
        refusing = len(self._exchange.refusing_the_sum())
        return refusing > len(answers)

    def _leave_out_the_liar(
        self, step: Step, state: RoundState
    ) -> tuple[RoundState, dict[str, AcceptedAnswer]]:
        """Find who spoils the last round's sum, a site or a relay, and go on without its summand.

        See ``spoilt``. Where this aggregator was put back from a backup, the sites may know
        the sum of the first time, in which one was missing: nobody is called a liar for that.

        Raises:
            VerificationError: no single site is to blame, or too few would be left.
        """
        earlier = self._course.finished[-1]
        last = Step(earlier, schedule(self._plan)[earlier].phase)
        refusing, quorum = self._exchange.refusing_the_sum(), self._plan.rounds.quorum
        before = self._before
        if before is not None:

            def trial(rest: Mapping[str, AcceptedAnswer]) -> _Mended | None:
                return self._mend(step, last, before, rest)

            culprit = Search(self._answers, refusing, self._suspected, quorum, trial).find()
            if culprit is not None:
                mended = culprit.outcome
                for site in mended.answers:
                    self._course.forgive(step.round, site, _REFUSED_SUM)
                self._leave_out(last, culprit.liar, mended.answers)
                self._keep(last, mended.state, mended.answered, self.clock())
                return mended.state, mended.answers
        self.store.save(state)
        cause = "Compare releases and key ids (`cairn-site check`) at the sites"
        if self._was_put_back():
            cause = "This is an older backup, and other sites had answered that round before"
        raise VerificationError(
            f"the sites refuse what round {earlier} came to",
            field="sum",
            expected="a sum that holds under the federation key",
            got="one that does not, and no single site to blame",
            advice=f"{cause}: start a new run",
        )

    def _mend(
        self, step: Step, last: Step, before: RoundState, rest: Mapping[str, AcceptedAnswer]
    ) -> _Mended | None:
        """Ask the sites with the sum of some of the last round's answers; None if they refuse."""
        answered = dict(rest)
        if self._exchange.partial_sums(last, answered)[1]:
            return None  # a relay is gone, so this cannot be tried
        state = self._merge(last, before, answered)
        self.store.save(state)
        answers = self._ask(step, state, self._work.ask(step, state))
        return None if self._is_the_sum_refused(answers) else _Mended(state, answered, answers)

    def _leave_out(self, last: Step, liar: Suspect, answers: dict[str, AcceptedAnswer]) -> None:
        """Leave who spoilt a sum out of the run, and out of what was answered since.

        A relay that was found for the first time stays: one of its sites may have lied, and
        will be found by itself should it lie again.
        """
        again, reason = True, "its tag spoils the sum: without it, it holds"
        if liar.relayed:
            again = liar.name in self._suspected
            self._suspected.add(liar.name)
            reason = f"what {liar.name} added of it and others spoils the sum"
        for site in sorted(liar.sites):
            if self._was_put_back():
                self._exchange.minutes.late(last, site)
            elif again:
                answers.pop(site, None)  # it made this round's tags, too
                self._exchange.exclude(last, site, reason)
            else:
                self._exchange.minutes.reject(last, site, reason)

    def _was_put_back(self) -> bool:
        """Tell whether a site has shown in this run that this aggregator goes on from a backup."""
        return any(isinstance(e, AggregatorRestored) for _, e in read_events(self.store.journal))

    def _order(self, step: Step, state: RoundState | None, ask: Ask) -> bytes:
        return encode_order(
            OrderHeader(
                run=self.store.name,
                round=step.round,
                phase=step.phase,
                plan=self._plan.canonical().decode("utf-8"),
                deadline_s=max(1, round(self._plan.rounds.deadline_s)),
                roster=self._roster,
                sum=sum_digest(state.sum) if state is not None and state.sum else None,
                codec=ask.codec,
            )
        )

    def _settle(self, step: Step, answers: dict[str, AcceptedAnswer]) -> RoundState:
        """Round 0: one federation key and one quantiser; who has another is left out."""
        self._course.require_quorum(step, len(answers))
        agreement, others = agree({s: (a.key_id, a.codec) for s, a in answers.items()})
        for site in sorted(others):
            self._exchange.exclude(step, site, "its sketches have another key or quantiser")
            del answers[site]
        return replace(self._work.start(agreement), link=self._first_link)

"""Carrying out a run: order, exchange, merge, save, next round.

Knows nothing of Flower: whoever can send a parcel to every node that is online
and hand over what comes back is a ``Transport``. The same code conducts a
federation in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aggregator.admin import arrival
from aggregator.admin.folder import FederationFolder
from aggregator.intake.reply import Reply
from aggregator.rounds.course import Course, Step, agree
from aggregator.rounds.events import (
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
from aggregator.rounds.exchange import Exchange, Terms, pause
from aggregator.rounds.store import RoundState, RunStore
from aggregator.rounds.transport import Transport
from aggregator.rounds.work import Ask, make_work
from common.errors import CairnError, ExitCode, UnreachableError
from common.schedule import working_rounds
from common.wire.codes import EXPLANATIONS
from common.wire.orders import OrderHeader, encode_order


@dataclass
class Conductor:
    """One run in progress.

    Attributes:
        clock, sleep: seconds that only go up, and how to wait; passed in for tests.
    """

    federation: FederationFolder
    store: RunStore
    transport: Transport
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._plan = self.store.plan()
        self._course = Course(self._plan)
        self._work = make_work(self.store)
        self._exchange = Exchange(
            self.store,
            self.transport,
            self.federation.admitted(),
            self.federation.witness_key(),
            self._course,
            self._work,
            self.clock,
            self.sleep,
        )
        self._started = self.clock()
        self._digest = ""

    def run(self) -> RunFinished:
        """Carry the plan out, or go on with it, and return the verdict that was journalled."""
        self._recall()
        last = self._course.finished[-1] if self._course.finished else None
        self._announce(last)
        try:
            state = None if last is None else self.store.load(last)
            self._wait_for_sites()
            while (step := self._course.step()) is not None:
                state = self._round(step, state)
        except CairnError as error:
            return self._finish(str(error), error.exit_code)
        return self._finish(self._course.reason, ExitCode.OK)

    def _recall(self) -> None:
        """What an interrupted run had come to: its rounds that count, and its blemishes."""
        self._course.finished = sorted(set(self.store.finished_rounds()))
        for _, event in read_events(self.store.journal):
            if isinstance(event, SiteRejected):
                self._course.blemish(event.round, event.site, f"was rejected: {event.reason}")
            elif isinstance(event, SiteLate):
                self._course.blemish(event.round, event.site, "was absent or late")
            elif isinstance(event, SiteReplied) and not event.accepted:
                self._course.blemish(event.round, event.site, EXPLANATIONS[event.code])

    def _announce(self, resumed_after: int | None) -> None:
        self.store.record(
            RunStarted(
                run=self.store.name,
                federation=self.federation.settings().name,
                plan_name=self._plan.name,
                plan_fingerprint=self._plan.fingerprint,
                kind=self._plan.kind,
                rounds=working_rounds(self._plan),
                quorum=self._plan.rounds.quorum,
                sites=tuple(self._exchange.sites),
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
        told: tuple[str, tuple[str, ...]] | None = None
        while True:
            online = set(self.transport.nodes().values()) & set(self._exchange.sites)
            waited = self.clock() - began
            lacking = self._awaited(online, options.min_sites)
            if lacking is None or waited >= options.wait_s:
                break
            if lacking != told:
                self.store.record(SitesAwaited(what=lacking[0], sites=lacking[1]))
                told = lacking
            self.sleep(pause(waited))
        if len(online) < self._plan.rounds.quorum:
            raise UnreachableError(
                "too few sites are online",
                expected=f"{self._plan.rounds.quorum}",
                got=f"{len(online)}",
                advice="Ask the sites to run `cairn-site check`",
            )

    def _awaited(self, online: set[str], wanted: int) -> tuple[Awaited, tuple[str, ...]] | None:
        """What is waited for, and of whom; None when the run may begin."""
        if len(online) < wanted:
            return "online", tuple(sorted(set(self._exchange.sites) - online))
        if self._plan.limits.privacy_tier == 0 or self._course.finished:
            return None  # no secret key, or the one that the run began with
        coming = arrival.coming_to(self.federation, online)
        return ("federation_key", coming) if coming else None

    def _round(self, step: Step, state: RoundState | None) -> RoundState:
        """One round from order to files on disk."""
        began = self.clock()
        ask = self._work.ask(step, state)
        terms = Terms(
            state.agreement.key_id if state else None, self._work.codec(step, state), ask.beside
        )
        replies = self._exchange.ask(step, self._order(step, ask), terms)
        start = self._settle(step, replies) if state is None else state
        self._course.require_quorum(step, len(replies))
        state = start if state is None else self._work.merge(step, start, replies)
        # Only what is on disk counts: what cannot be merged or saved is asked for again.
        self.store.save(state)
        self._digest = state.digest
        self._course.close(step, len(replies))
        fill, total = self._work.sketched(state)
        self.store.record(
            RoundFinished(
                round=step.round,
                phase=step.phase,
                sites=tuple(sorted(replies)),
                model_sha256=self._digest,
                sketch_fill=fill,
                sketch_total=total,
                seconds=self.clock() - began,
            )
        )
        return state

    def _order(self, step: Step, ask: Ask) -> bytes:
        header = OrderHeader(
            run=self.store.name,
            round=step.round,
            phase=step.phase,
            plan=self._plan.canonical().decode("utf-8"),
            deadline_s=max(1, round(self._plan.rounds.deadline_s)),
            sketch_total=ask.sketch_total,
            codec=ask.codec,
        )
        return encode_order(header, ask.weights, ask.sketch, ask.tables)

    def _settle(self, step: Step, replies: dict[str, Reply]) -> RoundState:
        """Round 0: one federation key and one quantiser; who has another is left out."""
        self._course.require_quorum(step, len(replies))
        agreement, others = agree(
            {s: (r.report.key_id, r.report.codec) for s, r in replies.items()}
        )
        for site in sorted(others):
            self._exchange.excluded.add(site)
            self._exchange.reject(step, site, "its sketches have another key or quantiser")
            del replies[site]
        return self._work.start(agreement)

"""Carrying out a run: order, exchange, merge, save, next round.

Knows nothing of Flower: whoever can send a parcel to every node that is online
and hand over what comes back is a ``Transport``. The same code conducts a
federation in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from aggregator.admin.folder import FederationFolder
from aggregator.intake.reply import Reply
from aggregator.merging.average import Contribution, average
from aggregator.merging.tables import add_tables, public_spec
from aggregator.rounds.course import Course, Step, agree
from aggregator.rounds.events import (
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
    read_events,
)
from aggregator.rounds.exchange import Exchange, pause
from aggregator.rounds.store import RoundState, RunStore
from aggregator.rounds.transport import Transport
from common.errors import CairnError, ExitCode, UnreachableError
from common.model import initial_weights
from common.wire.codes import EXPLANATIONS
from common.wire.orders import OrderHeader, encode_order
from common.wire.records import ModelUpdate


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
        self._exchange = Exchange(
            self.store,
            self.transport,
            self.federation.admitted(),
            self.federation.witness_key(),
            self._course,
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
        return self._finish("; ".join(self._course.blemishes), ExitCode.OK)

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
                rounds=self._plan.rounds.training,
                quorum=self._plan.rounds.quorum,
                sites=tuple(self._exchange.sites),
                resumed_after=resumed_after,
            )
        )

    def _finish(self, reason: str, code: ExitCode) -> RunFinished:
        event = RunFinished(
            verdict=self._course.verdict if code is ExitCode.OK else "FAILED",
            reason=reason,
            rounds=self._course.trained,
            model_sha256=self._digest,
            seconds=self.clock() - self._started,
            exit_code=int(code),
        )
        self.store.record(event)
        return event

    def _wait_for_sites(self) -> None:
        """Until as many sites are online as were wanted, or at least a quorum when time is up."""
        options = self.store.options()
        began = self.clock()
        while (online := len(self.transport.nodes())) < options.min_sites:
            waited = self.clock() - began
            if waited >= options.wait_s:
                break
            self.sleep(pause(waited))
        if online < self._plan.rounds.quorum:
            raise UnreachableError(
                "too few sites are online",
                expected=f"{self._plan.rounds.quorum}",
                got=f"{online}",
                advice="Ask the sites to run `cairn-site check`",
            )

    def _round(self, step: Step, state: RoundState | None) -> RoundState:
        """One round from order to files on disk."""
        began = self.clock()
        agreement = state.agreement if state else None
        replies = self._exchange.ask(step, self._order(step, state), agreement)
        if state is None:
            state = self._settle(step, replies)
        self._course.close(step, len(replies))
        state = self._merge(step, state, replies)
        self._digest = self.store.save(state)
        table = state.sketch
        self.store.record(
            RoundFinished(
                round=step.round,
                phase=step.phase,
                sites=tuple(sorted(replies)),
                model_sha256=self._digest,
                sketch_fill=0.0 if table is None else float(np.count_nonzero(table) / table.size),
                sketch_total=state.sketch_total,
                seconds=self.clock() - began,
            )
        )
        return state

    def _order(self, step: Step, state: RoundState | None) -> bytes:
        header = OrderHeader(
            run=self.store.name,
            round=step.round,
            phase=step.phase,
            plan=self._plan.canonical().decode("utf-8"),
            deadline_s=max(1, round(self._plan.rounds.deadline_s)),
            sketch_total=state.sketch_total if state else 0,
        )
        return encode_order(header, state.weights if state else {}, state.sketch if state else None)

    def _settle(self, step: Step, replies: dict[str, Reply]) -> RoundState:
        """Round 0: one federation key and one quantiser; who has another is left out."""
        if len(replies) < self._plan.rounds.quorum:
            self._course.close(step, len(replies))
        agreement, others = agree(
            {s: (r.report.key_id, r.report.codec) for s, r in replies.items()}
        )
        for site in sorted(others):
            self._exchange.excluded.add(site)
            self._exchange.reject(step, site, "its sketches have another key or quantiser")
            del replies[site]
        return RoundState(0, dict(initial_weights(self._plan)), None, 0, agreement)

    def _merge(self, step: Step, state: RoundState, replies: Mapping[str, Reply]) -> RoundState:
        """The state after a round: averaged weights and added tables, or the same ones."""
        weights, sketch, total = state.weights, state.sketch, state.sketch_total
        if step.phase == "train":
            contributions, tables = [], []
            for site, reply in sorted(replies.items()):
                if reply.update is None or reply.sketch is None:
                    continue
                update = reply.update.record
                samples = update.images if isinstance(update, ModelUpdate) else 0
                contributions.append(Contribution(site, reply.update.arrays, samples))
                tables.append(np.asarray(reply.sketch.arrays["table"], dtype=np.int64))
                total += reply.report.transitions
            spec = public_spec(self._plan, state.agreement.key_id, state.agreement.codec)
            weights = dict(average(weights, contributions))
            sketch = add_tables(spec, sketch, tables)
        return RoundState(step.round, weights, sketch, total, state.agreement)

"""The fold from a run's journal to its state. No I/O, no clock, no decision.

Folding a prefix and then the rest equals folding everything, so a view that
follows the journal shows what a view that opens it afterwards shows. No order
of events is refused: a viewer that stops when a run goes wrong is of no use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from aggregator.report.run import RoundSummary, RunState, SiteRound, Status, Waiting
from aggregator.rounds.events import (
    AggregatorRestored,
    Event,
    RelayFailed,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunQueued,
    RunStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
    SiteRestored,
    SitesAwaited,
    StopAsked,
)
from common.schedule import Phase
from common.wire.codes import EXPLANATIONS, ReplyCode

__all__ = ["RunState", "fold"]


def fold(events: Iterable[Event], start: RunState | None = None) -> RunState:
    """Return the state after ``events``; ``start`` is the state that earlier events led to."""
    state = start if start is not None else RunState()
    for event in events:
        state = replace(_step(state, event), updated_at=event.ts)
    return state


def _step(state: RunState, event: Event) -> RunState:
    match event:
        case RunQueued():
            return _run_queued(state, event)
        case StopAsked():
            return replace(state, stopping=True)
        case RunStarted():
            return _run_started(state, event)
        case SitesAwaited():
            over = event.what == "approval" and not event.sites
            return replace(state, waiting=None if over else Waiting(event.what, event.sites))
        case RoundStarted():
            return replace(_round_started(state, event), waiting=None)
        case SiteRestored() | AggregatorRestored():
            return state
        case SiteReplied() | SiteRejected() | SiteLate():
            return _site_event(state, event)
        case RelayFailed():
            return _relay_failed(state, event)
        case RoundFinished():
            return _round_finished(state, event)
        case RunFinished():
            return replace(
                state,
                verdict=event.verdict,
                reason=event.reason,
                seconds=event.seconds,
                final_model=event.model_sha256,
                waiting=None,
                stopping=False,
                ended_at=event.ts,
            )


def _run_queued(state: RunState, event: RunQueued) -> RunState:
    """Wait for the turn; a run that is to be gone on with keeps what it has come to."""
    return replace(
        state,
        run=event.run,
        plan_name=event.plan_name,
        plan_fingerprint=event.plan_fingerprint,
        kind=event.kind,
        unit=event.unit,
        planned_rounds=event.rounds,
        queued_at=event.ts,
        ended_at=None,
        earlier_s=state.elapsed_s,
        seconds=0.0,
        resumed_at=None,
        verdict="",
        reason="",
        waiting=Waiting("turn", event.ahead),
    )


def _run_started(state: RunState, event: RunStarted) -> RunState:
    """Begin afresh; a run that starts again after an interruption keeps its rounds."""
    again = state.run == event.run and state.plan_fingerprint == event.plan_fingerprint
    return RunState(
        run=event.run,
        federation=event.federation,
        plan_name=event.plan_name,
        plan_fingerprint=event.plan_fingerprint,
        kind=event.kind,
        unit=event.unit,
        planned_rounds=event.rounds,
        quorum=event.quorum,
        sites=tuple(dict.fromkeys((*(state.sites if again else ()), *event.sites))),
        queued_at=state.queued_at,
        stopping=state.stopping,
        started_at=state.started_at if again and state.started_at else event.ts,
        resumed_at=event.ts,
        earlier_s=state.elapsed_s if again else 0.0,
        rounds=state.rounds if again else (),
    )


def _round_started(state: RunState, event: RoundStarted) -> RunState:
    """Open a round, or open it again: what left the sites before stays counted."""
    before = next(
        (r for r in state.rounds if r.round == event.round and r.phase == event.phase), None
    )
    parts = tuple(
        SiteRound(site, bytes=old.bytes, records=old.records)
        if before and (old := before.of(site))
        else SiteRound(site)
        for site in event.sites
    )
    others = tuple(s for s in before.sites if s.site not in event.sites) if before else ()
    opened = RoundSummary(
        event.round,
        event.phase,
        trained=before.trained if before else state.trained,
        started_at=event.ts,
        attempts=before.attempts + 1 if before else 1,
        earlier=before.troubled if before else (),
        sites=parts + others,
    )
    sites = tuple(dict.fromkeys((*state.sites, *event.sites)))
    rest = tuple(r for r in state.rounds if r is not before)
    return replace(state, sites=sites, rounds=(*rest, opened))


def _site_event(state: RunState, event: SiteReplied | SiteRejected | SiteLate) -> RunState:
    index, round_ = _round_of(state, event.round, None, event.ts)
    old = round_.of(event.site) or SiteRound(event.site)
    match event:
        case SiteReplied():
            new = _replied(old, event)
        case SiteRejected():
            new = replace(old, status="rejected", detail=event.reason, accepted=False, errors=())
        case SiteLate():
            new = replace(old, status="late", detail=_why_late(old))
    return _with_site(state, index, round_, new)


def _why_late(old: SiteRound) -> str:
    """Say why a site misses a round: by its relay, if that failed, and otherwise by itself."""
    if old.status == "late" and old.relay:
        return old.detail
    if old.status == "sent" and old.relay:
        return f"relay {old.relay} could not add what it sent"
    return "absent, or no answer by the deadline"


def _relay_failed(state: RunState, event: RelayFailed) -> RunState:
    """Its sites miss the round, and why is the relay's: whoever looks at them is told."""
    for site in event.sites:
        index, round_ = _round_of(state, event.round, None, event.ts)
        old = round_.of(site) or SiteRound(site)
        if old.status == "sent":
            continue  # what it sent may count all the same; if not, it is called late
        detail = f"relay {event.relay}: {event.reason}"
        new = replace(old, status="late", accepted=False, detail=detail, relay=event.relay)
        state = _with_site(state, index, round_, new)
    return state


def _with_site(state: RunState, index: int, round_: RoundSummary, new: SiteRound) -> RunState:
    """Put what became of a site into a round."""
    if new.site in [s.site for s in round_.sites]:
        sites = tuple(new if s.site == new.site else s for s in round_.sites)
    else:
        sites = (*round_.sites, new)
    named = tuple(dict.fromkeys((*state.sites, new.site)))
    return replace(
        state, sites=named, rounds=_put(state.rounds, index, replace(round_, sites=sites))
    )


def _replied(old: SiteRound, event: SiteReplied) -> SiteRound:
    """Return an answer; one that came after the deadline and was not used leaves the site late."""
    records = dict(old.records)
    for name, size in event.records.items():
        records[name] = records.get(name, 0) + size
    detail = EXPLANATIONS[event.code]
    status: Status = "failed"
    if event.code is ReplyCode.OK:
        status, detail = "sent", "" if event.accepted else "answered, not in the average"
        if old.status == "late" and not event.accepted:
            status, detail = "late", "answered after the deadline"
    return SiteRound(
        event.site,
        status=status,
        detail=detail,
        accepted=event.accepted,
        bytes=old.bytes + event.bytes,
        records=tuple(sorted(records.items())),
        images=event.images,
        transitions=event.transitions,
        updates=event.updates,
        loss=event.loss_milli / 1000 if event.updates else None,
        train_s=event.train_ms / 1000,
        seconds=event.seconds,
        ledger_size=event.ledger_size,
        errors=event.errors,
        relay=event.relay,
    )


def _round_finished(state: RunState, event: RoundFinished) -> RunState:
    index, round_ = _round_of(state, event.round, event.phase, event.ts)
    seconds = event.seconds or max(0.0, (event.ts - round_.started_at).total_seconds())
    done = replace(
        round_,
        finished_at=event.ts,
        seconds=seconds,
        model_sha256=event.model_sha256,
        sketch_fill=event.sketch_fill,
        sketch_total=event.sketch_total,
        alike=tuple(sorted(event.alike.items())),
    )
    return replace(state, rounds=_put(state.rounds, index, done))


def _round_of(
    state: RunState, number: int, phase: Phase | None, ts: datetime
) -> tuple[int, RoundSummary]:
    """Place and value of the newest such round; a round nobody announced is opened here."""
    for index in reversed(range(len(state.rounds))):
        summary = state.rounds[index]
        if summary.round == number and phase in (None, summary.phase):
            return index, summary
    guess: Phase = phase or ("begin" if number == 0 else "train")
    return len(state.rounds), RoundSummary(number, guess, state.trained, ts, attempts=0)


def _put(
    rounds: tuple[RoundSummary, ...], index: int, value: RoundSummary
) -> tuple[RoundSummary, ...]:
    return (*rounds[:index], value, *rounds[index + 1 :])

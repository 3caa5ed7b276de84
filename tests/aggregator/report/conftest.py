"""Made-up journals: three sites, complete, degraded or failed."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.rounds.events import (
    Event,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
)
from common.wire.codes import ReplyCode
from common.wire.records import Part, TaskError

START = datetime(2025, 3, 4, 9, 30, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")
LANDMARKS = ("AC", "PC")
Script = Callable[..., list[Event]]


def task_error(
    landmark: str, mm: float, searches: int = 40, prior: float = 14.0, part: Part = "training"
):
    return TaskError(
        label=landmark,
        part=part,
        searches=searches,
        mean_milli=round(1000 * mm),
        median_milli=round(900 * mm),
        consensus_milli=round(800 * mm),
        prior_milli=round(1000 * prior),
        over_10mm=0,
    )


def reply(ts: datetime, round_: int, at: int, phase: str) -> SiteReplied:
    """Site number ``at`` trains 20 + 5 at seconds and answers 4 seconds later."""
    train = 20 + 5 * at if phase == "train" else 0
    records = {"RoundReport": 900} | ({"ModelUpdate": 1_000_000} if phase == "train" else {})
    errors = (
        tuple(task_error(name, 2 + 38 * math.exp(1 - round_) + at / 10) for name in LANDMARKS)
        if round_
        else ()
    )
    return SiteReplied(
        ts=ts + timedelta(seconds=train + 4),
        round=round_,
        site=SITES[at],
        code=ReplyCode.OK,
        accepted=True,
        bytes=sum(records.values()),
        records=records,
        images=8,
        transitions=640,
        updates=100 if phase == "train" else 0,
        loss_milli=210,
        train_ms=train * 1000,
        seconds=train + 4.0,
        ledger_size=3 * round_ + 1,
        errors=errors,
    )


def script(rounds: int = 3, trouble: dict | None = None, verdict: str = "COMPLETED") -> list[Event]:
    """A whole run; ``trouble`` maps (round, site) to late, rejected or a reply code."""
    trouble = trouble or {}
    now = START
    events: list[Event] = [
        RunStarted(
            ts=now,
            run="demo-1",
            federation="three hospitals",
            plan_name="brain landmarks",
            plan_fingerprint="4f" * 32,
            rounds=rounds,
            quorum=2,
            sites=SITES,
        )
    ]
    for n in range(rounds + 2):
        phase = "begin" if n == 0 else "train" if n <= rounds else "evaluate"
        events.append(RoundStarted(ts=now, round=n, phase=phase, order_bytes=5000, sites=SITES))
        lasts, used = 10.0, []
        for at, site in enumerate(SITES):
            what = trouble.get((n, site))
            answer = reply(now, n, at, phase)
            if what == "late":
                lasts = 60.0
                events.append(SiteLate(ts=now + timedelta(seconds=60), round=n, site=site))
            elif what == "rejected":
                reason = "the signature does not hold"
                events.append(SiteRejected(ts=answer.ts, round=n, site=site, reason=reason))
            elif what is not None:
                told = {"code": what, "accepted": False, "bytes": 300, "records": {}, "errors": ()}
                events.append(answer.model_copy(update=told))
            else:
                used.append(site)
                events.append(answer)
                lasts = max(lasts, answer.seconds + 1)
        now += timedelta(seconds=lasts)
        if len(used) < 2:
            break
        events.append(
            RoundFinished(
                ts=now,
                round=n,
                phase=phase,
                sites=tuple(used),
                model_sha256=f"{n}" * 64,
                sketch_fill=0.1 * min(n, rounds),
                sketch_total=9600 * min(n, rounds),
                seconds=lasts,
            )
        )
    done = sum(isinstance(e, RoundFinished) and e.phase == "train" for e in events)
    reason = {"COMPLETED": "", "DEGRADED": "absences", "FAILED": "no quorum"}[verdict]
    events.append(
        RunFinished(
            ts=now,
            verdict=verdict,
            reason=reason,
            rounds=done,
            model_sha256="ab" * 32 if verdict != "FAILED" else "",
            seconds=(now - START).total_seconds(),
        )
    )
    return events


@pytest.fixture(scope="session")
def complete() -> list[Event]:
    return script()


@pytest.fixture(scope="session")
def both_parts() -> list[Event]:
    """Sites a and b hold cases out, on which the errors are 2 mm larger; site c has too few."""

    def with_held_out(event: Event) -> Event:
        if not isinstance(event, SiteReplied) or event.site == "site-c":
            return event
        held_out = tuple(
            task_error(e.label, e.mean_milli / 1000 + 2, 10, 15.0, "held-out") for e in event.errors
        )
        return event.model_copy(update={"errors": held_out + event.errors})

    return [with_held_out(event) for event in script()]


@pytest.fixture(scope="session")
def degraded() -> list[Event]:
    return script(trouble={(2, "site-b"): "late", (3, "site-c"): "rejected"}, verdict="DEGRADED")


@pytest.fixture(scope="session")
def failed() -> list[Event]:
    trouble = {(2, "site-a"): ReplyCode.BAD_DATA, (2, "site-b"): "late"}
    return script(trouble=trouble, verdict="FAILED")


@pytest.fixture(scope="session")
def resumed(failed) -> list[Event]:
    """Failed in round 2, resumed an hour later, and then without trouble."""
    whole = script()
    at = next(n for n, e in enumerate(whole) if isinstance(e, RoundStarted) and e.round == 2)
    gap = failed[-1].ts + timedelta(hours=1) - whole[at].ts
    again = whole[0].model_copy(update={"ts": whole[at].ts + gap, "resumed_after": 1})
    rest = [e.model_copy(update={"ts": e.ts + gap}) for e in whole[at:]]
    rest[-1] = rest[-1].model_copy(update={"seconds": 80.0})
    return [*failed, again, *rest]

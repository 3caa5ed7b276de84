"""A run in a terminal: one live view, or one plain line per event when nobody looks.

Reads the journal and nothing else; may not write, steer or wait for a site.
Plain lines are ASCII ``key=value`` pairs without escape codes, made for grep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Stop

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aggregator.admin.server_certificate import ServerCertificate
from aggregator.report.run import (
    PART_WORDS,
    TRAINED,
    RunState,
    SiteState,
    Status,
    landmarks_of,
    mean_mm,
    prior_mm,
    rounds_of,
)
from aggregator.report.state import fold
from aggregator.report.text import (
    count,
    duration,
    mm,
    percent,
    printable,
    size,
    sparkline,
    word,
)
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
    read_events,
)
from common.wire.records import PARTS, Part

_LOOK: dict[Status, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "training": ("▸", "cyan"),
    "sent": ("✓", "green"),
    "late": ("◷", "yellow"),
    "rejected": ("✗", "bold red"),
    "failed": ("✗", "bold red"),
}
_PHASES = {
    "waiting": "waiting for sites",
    "begin": "agreeing on the initial weights",
    "train": "training",
    "evaluate": "final evaluation",
    "survey": "summing up pixels",
    "range": "finding the components' ranges",
    "sketch": "counting keys",
    "recover": "recovering frequent keys",
    "embed": "embedding slides",
    "finished": "finished",
}
_VERDICTS = {
    "COMPLETED": "bold green",
    "DEGRADED": "bold yellow",
    "FAILED": "bold red",
    "STOPPED": "bold",
}


def utc_now() -> datetime:
    """Return the clock on the wall."""
    return datetime.now(UTC)


def watch(
    journal: Path,
    console: Console,
    stop: Stop,
    *,
    clock: Callable[[], datetime] = utc_now,
    poll_s: float = 0.25,
    since: int = 0,
) -> RunState:
    """Follow a journal until its run finishes or ``stop`` is set; the file may come later.

    Args:
        journal: the run's events.jsonl.
        console: where to show it; a terminal gets a live view, anything else plain lines.
        stop: ends the watch at the next look, after what is already written.
        clock: for elapsed time and ETA.
        poll_s: seconds between two looks.
        since: size of the journal in bytes before the run was resumed; verdicts that
            stand before it do not end the watch.

    Returns:
        The state after the last event that was read.

    Raises:
        InputDataError: a whole line of the journal is no event.
    """
    if not console.is_terminal:
        return _follow(journal, stop, poll_s, since, lambda events, _: _print(console, events))
    with Live(console=console, refresh_per_second=4) as live:

        def show(_: Sequence[Event], state: RunState) -> None:
            live.update(status_table(state, now=clock()))

        return _follow(journal, stop, poll_s, since, show)


def _follow(
    journal: Path,
    stop: Stop,
    poll_s: float,
    since: int,
    show: Callable[[Sequence[Event], RunState], None],
) -> RunState:
    """Call ``show`` once per look, with the events that are new."""
    state, position = RunState(), 0
    while True:
        last_look = stop.is_set()
        new_events = list(read_events(journal, position))
        position = new_events[-1][0] if new_events else position
        events = [event for _, event in new_events]
        state = fold(events, state)
        show(events, state)
        if (state.verdict and position > since) or last_look:
            return state
        stop.wait(poll_s)


def _print(console: Console, events: Sequence[Event]) -> None:
    for event in events:
        console.out(plain_line(event), highlight=False)


def plain_line(event: Event) -> str:
    """One event as ``time event key=value …``, ASCII, without escape codes."""
    parts = " ".join(f"{k}={word(str(v))}" for k, v in _fields(event).items() if v != "")
    return f"{event.ts.isoformat(timespec='seconds')} {event.event} {parts}"


def _fields(event: Event) -> dict[str, object]:
    match event:
        case RunQueued():
            return {"run": event.run, "plan": event.plan_name, "ahead": ",".join(event.ahead)}
        case StopAsked():
            return {"by": event.by}
        case RunStarted():
            return {
                "run": event.run,
                "federation": event.federation,
                "plan": event.plan_name,
                "fingerprint": event.plan_fingerprint[:16],
                "rounds": event.rounds,
                "quorum": event.quorum,
                "sites": ",".join(event.sites),
                "resumed_after": "" if event.resumed_after is None else event.resumed_after,
            }
        case SitesAwaited():
            return {"what": event.what, "sites": ",".join(event.sites)}
        case RoundStarted():
            return {
                "round": event.round,
                "phase": event.phase,
                "sites": ",".join(event.sites),
                "order_bytes": event.order_bytes,
            }
        case SiteReplied():
            means = {part: mean_mm(event.errors, part) for part in PARTS}
            return {
                "round": event.round,
                "site": event.site,
                "code": event.code.name,
                "accepted": "yes" if event.accepted else "no",
                "bytes": event.bytes,
                **{
                    f"{part.replace('-', '_')}_mm": "" if mean is None else mm(mean)
                    for part, mean in means.items()
                },
                "train_s": f"{event.train_ms / 1000:.1f}",
                "seconds": f"{event.seconds:.1f}",
            }
        case SiteRejected():
            return {"round": event.round, "site": event.site, "reason": event.reason}
        case SiteRestored():
            return {
                "round": event.round,
                "site": event.site,
                "lost_size": event.lost_size,
                "seq": event.seq,
                "by": event.person,
            }
        case AggregatorRestored():
            return {
                "round": event.round,
                "site": event.site,
                "remembered": event.remembered,
                "cosigned": event.cosigned,
            }
        case SiteLate():
            return {"round": event.round, "site": event.site}
        case RelayFailed():
            return {
                "round": event.round,
                "relay": event.relay,
                "sites": ",".join(event.sites),
                "reason": event.reason,
            }
        case RoundFinished():
            return {
                "round": event.round,
                "phase": event.phase,
                "sites": ",".join(event.sites),
                "model": event.model_sha256[:16],
                "sketch_fill": f"{event.sketch_fill:.4f}",
                "sketch_total": event.sketch_total,
                "seconds": f"{event.seconds:.1f}",
            }
        case RunFinished():
            return {
                "verdict": event.verdict,
                "rounds": event.rounds,
                "reason": event.reason,
                "model": event.model_sha256[:16],
                "seconds": f"{event.seconds:.1f}",
                "exit_code": event.exit_code or "",
            }


def status_table(state: RunState, now: datetime | None = None) -> RenderableType:
    """Return the run for a terminal; ``now`` adds elapsed time and ETA while the run goes on."""
    if not state.run:
        return Text("no run in this journal yet", style="dim")
    return Group(_header(state, now), "", _sites(state), "", _footer(state))


def _header(state: RunState, now: datetime | None) -> Text:
    text = Text()
    text.append(printable(state.run), style="bold")
    text.append(f"  {printable(state.federation)} · plan {printable(state.plan_name)}", style="dim")
    text.append(f" ({state.plan_fingerprint[:8]})\n", style="dim")
    if state.verdict:
        text.append(state.verdict, style=_VERDICTS[state.verdict])
        text.append(f"  {state.trained} of {state.planned_rounds} {rounds_of(state)}")
        text.append(f" in {duration(state.elapsed_s)}")
        for why in state.why() or (state.reason,):
            text.append(f"\n{printable(why)}", style="yellow")
        if state.verdict == "FAILED" and state.incidents:
            text.append(f"\n{printable(state.reason)}", style="red")
        text.rstrip()
        return text
    text.append(f"round {state.round} of {state.planned_rounds}", style="bold")
    text.append(f"  {printable(state.waiting.says) if state.waiting else _PHASES[state.phase]}")
    if now is not None:
        text.append(f"  ·  {duration(state.elapsed_at(now))} so far")
        if state.expected_end is not None:
            remaining_s = max(0.0, (state.expected_end - now).total_seconds())
            text.append(f"  ·  about {duration(remaining_s)} left")
    return text


def _sites(state: RunState) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("site")
    table.add_column("state", min_width=12)
    parts = state.parts or ("training",)
    for part in parts:
        table.add_column(f"{PART_WORDS[part]} ({state.unit})", justify="right")
    table.add_column("per round", min_width=10)
    table.add_column("bytes out", justify="right")
    table.add_column("answer took", justify="right")
    table.add_column("", overflow="fold", style="dim")
    for name in state.sites:
        site = state.site(name)
        table.add_row(
            Text(printable(name)),
            _state_cell(site, state),
            *(mm(site.errors_mm.get(part)) for part in parts),
            Text(sparkline([v for _, v in site.curve]), style="cyan"),
            size(site.bytes_out),
            duration(site.seconds) if site.seconds else "–",
            Text(printable(site.detail)),
        )
    return table


def _state_cell(site: SiteState, state: RunState) -> Text:
    sign, style = _LOOK[site.status]
    label: str = site.status
    if site.status == "training" and state.phase != "train":
        label = {"begin": "preparing", "evaluate": "evaluating"}.get(state.phase, "working")
    return Text(f"{sign} {label}", style=style)


def _footer(state: RunState) -> Text:
    text = Text()
    for part in state.parts:
        values = [v for _, v in state.curve(part)]
        text.append(f"{PART_WORDS[part] + ', all sites':<22}", style="dim")
        text.append(sparkline(values), style="bold cyan" if part == state.parts[0] else "cyan")
        text.append(f"  {mm(values[0])} → {mm(values[-1])} {state.unit}")
        prior = prior_mm(state.evaluated(part)[-1].errors, part)
        text.append(f"  (constant prior {mm(prior)} {state.unit})\n", style="dim")
    finished = [r for r in state.rounds if r.finished_at is not None and r.sketch_total]
    if finished:
        fill, total = finished[-1].sketch_fill, finished[-1].sketch_total
        full = min(20, max(0, round(20 * fill)))
        what = "experience sketch" if state.kind in TRAINED else "merged sketch"
        text.append(f"{what:<22}", style="dim")
        text.append("█" * full, style="cyan")
        text.append("░" * (20 - full), style="dim")
        text.append(f"  {percent(fill)} of cells · {count(total)} keys")
    text.rstrip()
    return text


def status_json(state: RunState, certificate: ServerCertificate | None = None) -> dict[str, object]:
    """Return the run for a script: plain JSON values, errors in ``unit``, times in seconds.

    Args:
        state: of the run.
        certificate: the aggregator's own, where it is known.
    """
    return {
        "run": state.run,
        "federation": state.federation,
        "plan": state.plan_name,
        "plan_fingerprint": state.plan_fingerprint,
        "phase": state.phase,
        "waiting_for": None
        if state.waiting is None
        else {"what": state.waiting.what, "sites": list(state.waiting.sites)},
        "verdict": state.verdict or None,
        "reason": state.reason,
        "round": state.round,
        "rounds": state.planned_rounds,
        "rounds_finished": state.trained,
        "quorum": state.quorum,
        "unit": state.unit,
        "started_at": _iso(state.started_at),
        "updated_at": _iso(state.updated_at),
        "expected_end": _iso(state.expected_end),
        "seconds": round(state.elapsed_s, 3),
        "error_mm": {
            "part": next(iter(state.parts), None),
            **_errors_json(state, next(iter(state.parts), "training")),
            "parts": {part: _errors_json(state, part) for part in state.parts},
        },
        "sites": {name: _site_json(state.site(name)) for name in state.sites},
        "incidents": [
            {"round": i.round, "site": i.site, "kind": i.kind, "why": i.why}
            for i in state.incidents
        ],
        "model_sha256": state.model_sha256 or None,
        "server_certificate_days": None if certificate is None else certificate.days,
    }


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _errors_json(state: RunState, part: Part) -> dict[str, object]:
    """Return the errors on a part, of all sites together."""
    return {
        "by_round": [[n, round(v, 3)] for n, v in state.curve(part)],
        "landmarks": {name: _last_error(state, part, name) for name in landmarks_of(state)},
    }


def _last_error(state: RunState, part: Part, landmark: str) -> float | None:
    means = [m for r in state.rounds if (m := mean_mm(r.errors, part, landmark)) is not None]
    return round(means[-1], 3) if means else None


def _site_json(site: SiteState) -> dict[str, object]:
    return {
        "state": site.status,
        "detail": site.detail,
        "error_mm": None if site.error_mm is None else round(site.error_mm, 3),
        "part": None if site.error_mm is None else site.part,
        "errors_mm": {part: round(value, 3) for part, value in site.errors_mm.items()},
        "bytes_out": site.bytes_out,
        "seconds": site.seconds,
        "ledger_size": site.ledger_size,
    }

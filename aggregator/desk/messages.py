"""Between the desk's values and the messages of ``desk.proto``; both directions of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from aggregator.desk.desk import RunLine, SiteLine, SiteStanding
from aggregator.report.state import RunState
from common.desk import desk_pb2 as pb

_STATES: Final[dict[SiteStanding, pb.SiteState.ValueType]] = {
    "invited": pb.SITE_STATE_INVITED,
    "waiting": pb.SITE_STATE_WAITING,
    "admitted": pb.SITE_STATE_ADMITTED,
    "revoked": pb.SITE_STATE_REVOKED,
}
_STANDINGS: Final = {number: name for name, number in _STATES.items()}


def site_message(site: SiteLine) -> pb.Site:
    """Return a site on the wire."""
    return pb.Site(
        name=site.name,
        state=_STATES[site.state],
        ledger_sha256=site.ledger_sha256,
        certificate_days_left=site.certificate_days,
        online=site.online,
        invite_expires=site.invite_expires,
        counts_as=site.counts_as,
        relay=site.relay,
    )


def site_line(message: pb.Site) -> SiteLine:
    """Return a site from the wire; one in a state that this release does not know is `invited`."""
    has = message.HasField
    return SiteLine(
        name=message.name,
        state=_STANDINGS.get(message.state, "invited"),
        ledger_sha256=message.ledger_sha256,
        certificate_days=message.certificate_days_left if has("certificate_days_left") else None,
        online=message.online if has("online") else None,
        invite_expires=message.invite_expires,
        counts_as=message.counts_as if has("counts_as") else None,
        relay=message.relay,
    )


def progress_message(run: str, state: RunState) -> pb.Progress:
    """Say how a run stands, for tools that do not read our journal."""
    end = state.expected_end
    return pb.Progress(
        run=run,
        plan=state.plan_name,
        phase=state.phase,
        verdict=state.verdict,
        reason=state.reason,
        round=state.round,
        rounds=state.planned_rounds,
        rounds_finished=state.trained,
        sites=[_site_progress(state, name) for name in state.sites],
        expected_end_unix_ms=None if end is None else round(end.timestamp() * 1000),
        seconds=state.elapsed_at(datetime.now(UTC)) if not state.verdict else state.elapsed_s,
        started_at=_iso(state.started_at),
        state=state.standing,
        queued_at=_iso(state.queued_at),
        ended_at=_iso(state.ended_at),
    )


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(timespec="seconds")


def _site_progress(state: RunState, name: str) -> pb.SiteProgress:
    site = state.site(name)
    return pb.SiteProgress(
        site=name,
        state=site.status,
        detail=site.detail,
        bytes_out=site.bytes_out,
        seconds=site.seconds or 0.0,
    )


def run_line_of(message: pb.Progress) -> RunLine:
    """Return a run of a list from the wire."""
    return RunLine(
        name=message.run,
        plan=message.plan,
        phase=message.phase,
        verdict=message.verdict,
        round=message.round,
        rounds=message.rounds,
        started_at=message.started_at,
        state=message.state,
        rounds_done=message.rounds_finished,
        queued_at=message.queued_at,
        ended_at=message.ended_at,
        sites=tuple(site.site for site in message.sites),
    )

"""The ``Coordinator`` service: the local desk, for those whose certificate is on the list.

Every method asks who it is first. What is done is done by ``LocalDesk``, so that a
coordinator at another machine can do nothing that the folder's owner cannot.
"""

# ruff: noqa: N802 - gRPC calls methods by the names of desk.proto

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc

from aggregator.admin.invites import DAYS
from aggregator.desk.answering import Count, answering, coordinator_of
from aggregator.desk.desk import StartOrder
from aggregator.desk.local import LocalDesk, parse_plan_toml
from aggregator.desk.messages import progress_message, site_message
from aggregator.report.live import status_json
from aggregator.report.state import RunState, fold
from aggregator.rounds.embedding import CODEBOOK_FILE
from aggregator.rounds.events import read_events
from aggregator.rounds.pixels import CODEC_FILE
from aggregator.rounds.store import APPROVAL_S
from common.desk import desk_pb2 as pb
from common.desk import desk_pb2_grpc
from common.enrolment import parse_request
from common.errors import RefusedError

MOST_WATCHERS = 16
MOST_DAYS = 90
POLL_S = 0.25
_LOG = logging.getLogger(__name__)


class CoordinatorService(desk_pb2_grpc.CoordinatorServicer):
    """Answers coordinators.

    Args:
        desk: the federation's, in its folder.
        count: takes a method's name and how it ended.
        stop: ends every watch.
    """

    def __init__(self, desk: LocalDesk, count: Count, stop: threading.Event) -> None:
        self._desk = desk
        self._count = count
        self._stop = stop
        self._watchers = threading.BoundedSemaphore(MOST_WATCHERS)

    def ListSites(
        self, _request: pb.ListSitesRequest, context: grpc.ServicerContext
    ) -> pb.ListSitesReply:
        """Every site that was ever invited."""
        with answering("ListSites", context, self._count):
            self._who("ListSites", context)
            certificate = self._desk.certificate()
            return pb.ListSitesReply(
                federation=self._desk.folder.settings().name,
                sites=[site_message(site) for site in self._desk.sites()],
                server_certificate_days_left=None if certificate is None else certificate.days,
                server_certificate_warning="" if certificate is None else certificate.warning,
            )

    def Invite(self, request: pb.InviteRequest, context: grpc.ServicerContext) -> pb.InviteReply:
        """Return an invite with a token."""
        with answering("Invite", context, self._count):
            self._who("Invite", context)
            if request.days > MOST_DAYS:
                raise RefusedError(
                    "too long a time for an invite",
                    field="days",
                    expected=f"at most {MOST_DAYS}",
                    got=f"{request.days}",
                )
            return pb.InviteReply(
                invite=self._desk.invite(
                    request.site,
                    days=request.days or DAYS,
                    auto_admit=request.auto_admit,
                    by_mail=False,
                    images=request.images if request.HasField("images") else None,
                    relay=request.relay,
                )
            )

    def Admit(self, request: pb.AdmitRequest, context: grpc.ServicerContext) -> pb.AdmitReply:
        """Let a site in."""
        with answering("Admit", context, self._count):
            self._who("Admit", context)
            by_file = request.WhichOneof("what") == "join_request"
            who = parse_request(request.join_request) if by_file else request.site
            images = request.images if request.HasField("images") else None
            done = self._desk.admit(who, images)
            return pb.AdmitReply(
                site=done.site, ledger_sha256=done.ledger_sha256, counts_as=done.counts_as
            )

    def Revoke(self, request: pb.RevokeRequest, context: grpc.ServicerContext) -> pb.RevokeReply:
        """Withdraw a site."""
        with answering("Revoke", context, self._count):
            self._who("Revoke", context)
            done = self._desk.revoke(request.site)
            return pb.RevokeReply(disconnected=done.disconnected, was_admitted=done.was_admitted)

    def ListRuns(
        self, _request: pb.ListRunsRequest, context: grpc.ServicerContext
    ) -> pb.ListRunsReply:
        """Every run, oldest first."""
        with answering("ListRuns", context, self._count):
            self._who("ListRuns", context)
            names = self._desk.folder.run_names()
            return pb.ListRunsReply(
                runs=[progress_message(name, self._desk.state(name)) for name in names]
            )

    def StartRound(
        self, request: pb.StartRoundRequest, context: grpc.ServicerContext
    ) -> pb.StartRoundReply:
        """Validate a plan and start it."""
        with answering("StartRound", context, self._count):
            self._who("StartRound", context)
            facts = self._desk.facts(request.plan)
            reply = pb.StartRoundReply(
                plan_fingerprint=parse_plan_toml(request.plan).fingerprint,
                facts=[pb.PlanFact(name=name, value=value) for name, value in facts],
            )
            if request.check_only:
                return reply
            started = self._desk.start(
                StartOrder(
                    plan=request.plan,
                    min_sites=request.min_sites if request.HasField("min_sites") else None,
                    wait_s=request.wait_s,
                    approval_s=_approval_s(request),
                    attached=_documents(request),
                    wait=not request.no_queue,
                )
            )
            reply.run, reply.folder = started.run, started.folder
            reply.ahead.extend(started.ahead)
            return reply

    def ResumeRound(
        self, request: pb.ResumeRoundRequest, context: grpc.ServicerContext
    ) -> pb.StartRoundReply:
        """Go on with a run."""
        with answering("ResumeRound", context, self._count):
            self._who("ResumeRound", context)
            started = self._desk.resume(request.run, wait=not request.no_queue)
            return pb.StartRoundReply(
                run=started.run, folder=started.folder, since=started.since, ahead=started.ahead
            )

    def StopRound(
        self, request: pb.StopRoundRequest, context: grpc.ServicerContext
    ) -> pb.StopRoundReply:
        """Have a run end."""
        with answering("StopRound", context, self._count):
            name = self._who("StopRound", context)
            stopping = self._desk.stop(request.run, by=f"coordinator {name}")
            return pb.StopRoundReply(run=stopping.run, ended=stopping.ended, since=stopping.since)

    def Status(self, request: pb.StatusRequest, context: grpc.ServicerContext) -> pb.StatusReply:
        """Say how a run stands."""
        with answering("Status", context, self._count):
            self._who("Status", context)
            name = self._desk.name(request.run)
            state = self._desk.state(name)
            shown = status_json(state, self._desk.certificate())
            return pb.StatusReply(
                status=json.dumps(shown).encode(),
                progress=progress_message(name, state),
            )

    def WatchRound(
        self, request: pb.WatchRoundRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RunUpdate]:
        """Every event of a run, as it is written."""
        with answering("WatchRound", context, self._count):
            self._who("WatchRound", context)
            if not self._watchers.acquire(blocking=False):
                raise RefusedError(
                    "too many are watching",
                    expected=f"at most {MOST_WATCHERS} at once",
                    advice="Use `cairn-aggregator status`, or end another watch",
                )
            try:
                yield from self._updates(request, context)
            finally:
                self._watchers.release()

    def FetchReport(
        self, request: pb.FetchReportRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Chunk]:
        """Yield a run as one HTML page."""
        with answering("FetchReport", context, self._count):
            self._who("FetchReport", context)
            for piece in self._desk.report(request.run):
                yield pb.Chunk(data=piece)

    def FetchModel(
        self, request: pb.FetchModelRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ModelPiece]:
        """Yield the files of the model that a run came to."""
        with answering("FetchModel", context, self._count):
            self._who("FetchModel", context)
            for name, piece in self._desk.model(request.run, sums=request.sums):
                yield pb.ModelPiece(name=name, data=piece)

    def _updates(
        self, request: pb.WatchRoundRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RunUpdate]:
        name = self._desk.name(request.run)
        journal, state, position = self._desk.journal_file(name), RunState(), 0
        while True:
            for after, event in read_events(journal, position):
                line = _line(journal, position, after)
                position, state = after, fold([event], state)
                if position > request.since:
                    yield pb.RunUpdate(
                        run=name,
                        position=position,
                        event=line,
                        progress=progress_message(name, state),
                    )
            ended = state.verdict and position > request.ended_since
            if ended or not request.follow or self._stop.is_set() or not context.is_active():
                return
            self._stop.wait(POLL_S)

    def _who(self, method: str, context: grpc.ServicerContext) -> str:
        name = coordinator_of(self._desk.folder, context)
        _LOG.info("%s asks: %s", name, method)
        return name


def _line(journal: Path, start: int, end: int) -> bytes:
    """One event as it stands in the journal, without its end of line."""
    with journal.open("rb") as file:
        file.seek(start)
        return file.read(end - start - 1)


def _approval_s(request: pb.StartRoundRequest) -> float:
    """As asked; coordinators of older releases do not ask."""
    if not request.HasField("approval_s"):
        return APPROVAL_S
    if not 0 <= request.approval_s < math.inf:
        raise RefusedError(
            "not a time to wait for people",
            field="approval_s",
            expected="seconds, 0 or more",
            got=f"{request.approval_s}",
        )
    return request.approval_s


def _documents(request: pb.StartRoundRequest) -> dict[str, bytes]:
    """Attachments under plain names: they become files of the run's folder."""
    for name in request.attachments:
        if name not in (CODEC_FILE, CODEBOOK_FILE):
            raise RefusedError(
                "not a document of a plan",
                field="attachments",
                expected=f"{CODEC_FILE} or {CODEBOOK_FILE}",
                got="another name",
            )
    return dict(request.attachments)

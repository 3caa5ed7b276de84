"""The desk of a federation whose folder lies on another machine, by a coordinator's credential.

Asks the service and shows nothing itself. A journal is mirrored, byte for byte in
step, into a folder that ends with the command, so that whatever reads a journal
reads this one too.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from aggregator.admin.credentials import Credential, read_credential
from aggregator.admin.server_certificate import ServerCertificate
from aggregator.desk.desk import (
    Admitted,
    Journal,
    Revoked,
    RunLine,
    SiteLine,
    Started,
    StartOrder,
    Stopping,
)
from aggregator.desk.messages import run_line_of, site_line
from aggregator.rounds.store import JOURNAL_FILE
from aggregator.rounds.training import START_FILE
from common.crypto.certificates import parse_certificate
from common.desk import desk_pb2 as pb
from common.desk.channel import CALL_S, DeskAddress, connected
from common.desk.desk_pb2_grpc import CoordinatorStub
from common.enrolment import JoinRequest
from common.errors import (
    CairnError,
    InternalError,
    UnreachableError,
    UsageError,
    VerificationError,
)

START_S = 60.0
REPORT_S = 120.0
MODEL_S = 3600.0
PATIENCE_S = 60.0


class RemoteDesk:
    """A federation that is reached by gRPC.

    Args:
        credential: of a coordinator.
        file: where it lies, for messages.

    Raises:
        VerificationError: the credential has expired.
    """

    def __init__(self, credential: Credential, file: Path) -> None:
        ends = parse_certificate(credential.certificate.encode()).not_valid_after_utc
        if ends <= datetime.now(UTC):
            raise VerificationError(
                "this credential has expired",
                field=str(file),
                expected="one that is still valid",
                got=f"expired on {ends:%Y-%m-%d}",
                advice="Ask for a new one: cairn-aggregator coordinator NAME -o FILE",
            )
        self._file = file
        self._peer = DeskAddress(
            credential.address,
            credential.ca_certificate.encode(),
            credential.certificate.encode(),
            (credential.private_key or "").encode(),
        )

    @classmethod
    def from_file(cls, file: Path) -> RemoteDesk:
        """Return the desk that a credential file names."""
        return cls(read_credential(file), file)

    @property
    def option(self) -> str:
        """The option to type to reach it again."""
        return f"--desk {self._file}"

    def sites(self) -> list[SiteLine]:
        """Every site that was ever invited, in order of name."""
        with self._stub() as stub:
            reply = stub.ListSites(pb.ListSitesRequest(), timeout=CALL_S)
        return [site_line(site) for site in reply.sites]

    def certificate(self) -> ServerCertificate | None:
        """Time that the aggregator's own certificate is good for; None if it cannot be read."""
        with self._stub() as stub:
            reply = stub.ListSites(pb.ListSitesRequest(), timeout=CALL_S)
        if not reply.HasField("server_certificate_days_left"):
            return None
        return ServerCertificate(
            reply.server_certificate_days_left, reply.server_certificate_warning
        )

    def facts(self, plan: bytes) -> list[tuple[str, str]]:
        """Return a plan as a person reads it before it starts."""
        with self._stub() as stub:
            reply = stub.StartRound(
                pb.StartRoundRequest(plan=plan, check_only=True), timeout=START_S
            )
        return [(fact.name, fact.value) for fact in reply.facts]

    def invite(
        self,
        site: str,
        *,
        days: int,
        auto_admit: bool,
        by_mail: bool,
        images: int | None = None,
        relay: str = "",
    ) -> bytes:
        """Return an invite (TOML); one without a token is made where the folder is."""
        if by_mail:
            raise UsageError(
                "an invite without a token is made at the aggregator",
                advice="There: cairn-aggregator invite SITE --by-mail --dir DIR",
            )
        request = pb.InviteRequest(
            site=site, days=days, auto_admit=auto_admit, images=images, relay=relay
        )
        with self._stub() as stub:
            return bytes(stub.Invite(request, timeout=START_S).invite)

    def admit(self, who: JoinRequest | str, images: int | None = None) -> Admitted:
        """Let in a site that waits, by name, or one whose request came by another way."""
        if isinstance(who, str):
            request = pb.AdmitRequest(site=who, images=images)
        else:
            request = pb.AdmitRequest(join_request=who.to_json(), images=images)
        with self._stub() as stub:
            reply = stub.Admit(request, timeout=CALL_S)
        return Admitted(reply.site, reply.ledger_sha256, reply.counts_as)

    def revoke(self, site: str) -> Revoked:
        """Withdraw a site, or what would let one in under this name."""
        with self._stub() as stub:
            reply = stub.Revoke(pb.RevokeRequest(site=site), timeout=START_S)
        return Revoked(reply.was_admitted, reply.disconnected)

    def runs(self) -> list[RunLine]:
        """Every run, oldest first."""
        with self._stub() as stub:
            reply = stub.ListRuns(pb.ListRunsRequest(), timeout=START_S)
        return [run_line_of(run) for run in reply.runs]

    def start(self, order: StartOrder) -> Started:
        """Start a run; a model that it starts from is read where the folder is."""
        if START_FILE in order.attached:
            raise UsageError(
                "a model does not travel to the desk",
                field="--model",
                expected="one that a run there came to",
                got="a file here",
                advice="Leave --model out if the model is of a run there; else, at the "
                "aggregator: cairn-aggregator round start PLAN --model FILE --dir DIR",
            )
        request = pb.StartRoundRequest(
            plan=order.plan,
            min_sites=order.min_sites,
            wait_s=order.wait_s,
            approval_s=order.approval_s,
            attachments=dict(order.attached),
            no_queue=not order.wait,
        )
        with self._stub() as stub:
            reply = stub.StartRound(request, timeout=START_S)
        return Started(reply.run, reply.folder, ahead=tuple(reply.ahead))

    def resume(self, run: str, *, wait: bool = True) -> Started:
        """Go on with a run (empty: the newest) after its last round that counts."""
        request = pb.ResumeRoundRequest(run=run, no_queue=not wait)
        with self._stub() as stub:
            reply = stub.ResumeRound(request, timeout=START_S)
        return Started(reply.run, reply.folder, reply.since, tuple(reply.ahead))

    def stop(self, run: str) -> Stopping:
        """Have a run end that waits or goes on (empty: the one that goes on)."""
        with self._stub() as stub:
            reply = stub.StopRound(pb.StopRoundRequest(run=run), timeout=START_S)
        return Stopping(reply.run, reply.ended, reply.since)

    @contextmanager
    def journal(self, run: str, *, follow: bool = False, since: int = 0) -> Iterator[Journal]:
        """Follow a run's events, mirrored; what goes wrong with the mirror is raised at the end.

        Raises:
            CairnError: the desk refused, or was silent for a minute.
        """
        with self._stub() as stub:
            status = stub.Status(pb.StatusRequest(run=run), timeout=START_S)
        with tempfile.TemporaryDirectory(prefix="cairn-") as scratch:
            mirror = _Mirror(self, status.progress.run, Path(scratch) / JOURNAL_FILE, since)
            if follow:
                threading.Thread(target=mirror.follow, daemon=True).start()
            else:
                mirror.copy(follow=False)
                mirror.over.set()
            try:
                yield Journal(mirror.run, mirror.path, mirror.over)
            finally:
                mirror.stop.set()
                if follow:
                    mirror.over.wait(2 * CALL_S)
            if mirror.failure is not None:
                raise mirror.failure

    def report(self, run: str) -> Iterator[bytes]:
        """Yield a run as one HTML page, piece by piece."""
        with self._stub() as stub:
            for chunk in stub.FetchReport(pb.FetchReportRequest(run=run), timeout=REPORT_S):
                yield chunk.data

    def model(self, run: str, *, sums: bool) -> Iterator[tuple[str, bytes]]:
        """Yield the files of the model that a run came to, piece by piece."""
        request = pb.FetchModelRequest(run=run, sums=sums)
        with self._stub() as stub:
            for piece in stub.FetchModel(request, timeout=MODEL_S):
                yield piece.name, piece.data

    @contextmanager
    def _stub(self) -> Iterator[CoordinatorStub]:
        with connected(self._peer) as channel:
            yield CoordinatorStub(channel)

    def updates(
        self, request: pb.WatchRoundRequest, stop: threading.Event
    ) -> Iterator[pb.RunUpdate]:
        """Events as they come, until the run has ended or ``stop`` is set."""
        with self._stub() as stub:
            call = stub.WatchRound(request)
            ender = threading.Thread(target=lambda: (stop.wait(), call.cancel()), daemon=True)
            ender.start()
            yield from call


class _Mirror:
    """A journal that grows here as it grows there."""

    def __init__(self, desk: RemoteDesk, run: str, path: Path, since: int) -> None:
        self.run, self.path = run, path
        self.stop, self.over = threading.Event(), threading.Event()
        self.failure: CairnError | None = None
        self._desk = desk
        self._since = since
        self._position = 0
        path.touch()

    def copy(self, *, follow: bool) -> None:
        """Whatever comes in one call."""
        request = pb.WatchRoundRequest(
            run=self.run, since=self._position, follow=follow, ended_since=self._since
        )
        for update in self._desk.updates(request, self.stop):
            line = update.event + b"\n"
            # Byte for byte, so that an offset means the same here and there.
            if self._position + len(line) != update.position:
                raise InternalError("a journal's events do not fit their places", field=self.run)
            with self.path.open("ab") as file:
                file.write(line)
            self._position = update.position

    def follow(self) -> None:
        """Until the run has ended; a desk that is silent is asked again for a minute."""
        last_contact = time.monotonic()
        try:
            while not self.stop.is_set():
                before = self._position
                try:
                    self.copy(follow=True)
                except UnreachableError as error:
                    last_contact = time.monotonic() if self._position > before else last_contact
                    if time.monotonic() - last_contact > PATIENCE_S:
                        self.failure = error
                        return
                else:
                    return
                self.stop.wait(1.0)
        except CairnError as error:
            if not self.stop.is_set():
                self.failure = error
        finally:
            self.over.set()

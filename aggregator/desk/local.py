"""The desk in the federation's own folder: what `--dir` does, and what the service answers with."""

from __future__ import annotations

import tempfile
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from aggregator.admin.certificates import certificate_of
from aggregator.admin.enrol import admit, admit_waiting, revoke, set_samples
from aggregator.admin.folder import AdmittedSite, FederationFolder
from aggregator.admin.invites import invite_toml, make_invite, open_invites, withdraw_invites
from aggregator.admin.relays import known_relays, relay_of
from aggregator.admin.server_certificate import ServerCertificate, server_certificate
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
from aggregator.desk.plans import key_fact
from aggregator.report.state import RunState, fold
from aggregator.rounds.app_digest import app_digest
from aggregator.rounds.events import read_events
from aggregator.rounds.queue import RunQueue, is_locked
from aggregator.rounds.store import JOURNAL_FILE, RunOptions, RunStore
from common.arrivals.texts import toml_of
from common.crypto.certificates import days_left, parse_node_public_key
from common.crypto.identity import PublicKey
from common.enrolment import JoinRequest
from common.errors import InputDataError, RefusedError, UnreachableError, UsageError
from common.plan import FederationPlan, parse_plan
from common.words import facts_of

PIECE = 64 * 1024
LOOK_S, SILENT_LOOKS = 2.0, 3


def parse_plan_toml(data: bytes) -> FederationPlan:
    """Return a plan from its TOML bytes.

    Raises:
        InputDataError: TOML syntax, or an invalid field.
    """
    try:
        return parse_plan(toml_of(data))
    except tomllib.TOMLDecodeError as error:
        raise InputDataError(
            "the plan is not TOML", field="plan", got=str(error).split("\n", 1)[0]
        ) from error


class LocalDesk:
    """A federation whose folder lies on this machine."""

    def __init__(self, folder: FederationFolder) -> None:
        self.folder = folder

    @property
    def option(self) -> str:
        """The option to type to reach it again."""
        return f"--dir {self.folder.root}"

    def sites(self) -> list[SiteLine]:
        """Every site that was ever invited, in order of name."""
        self.folder.settings()
        sites, waiting, invited = (
            self.folder.known(),
            self.folder.waiting(),
            open_invites(self.folder),
        )
        online = self._online(sites)
        lines = []
        for name in sorted({*sites, *waiting, *invited}):
            expires = invited.get(name, "")
            if name in sites:
                behind = relay_of(self.folder, name)
                lines.append(_line(sites[name], online, expires, behind))
            elif name in waiting:
                fingerprint = PublicKey.parse(waiting[name].ledger_key).fingerprint
                lines.append(SiteLine(name, "waiting", fingerprint, invite_expires=expires))
            else:
                lines.append(SiteLine(name, "invited", invite_expires=expires))
        return lines

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
        """Return an invite (TOML)."""
        self.folder.settings()
        if by_mail and images is not None:
            raise UsageError(
                "an invite without a token promises nothing",
                field="--images",
                advice="Say it when the request comes: cairn-aggregator admit FILE --images N",
            )
        digest = app_digest(self.folder)
        return invite_toml(
            make_invite(
                self.folder,
                site,
                digest,
                days=days,
                auto_admit=auto_admit,
                by_mail=by_mail,
                images=images,
                relay=relay,
            )
        )

    def admit(self, who: JoinRequest | str, images: int | None = None) -> Admitted:
        """Let in a site that waits, by name, or one whose request came by another way."""
        if not isinstance(who, str):
            request = who
            admit(self.folder, request, images)
        elif images is not None and who not in self.folder.waiting():
            request = set_samples(self.folder, who, images)
        else:
            request = admit_waiting(self.folder, who, images)
        site = self.folder.admitted()[request.site]
        return Admitted(site.name, site.ledger_key.fingerprint, site.samples_cap)

    def revoke(self, site: str) -> Revoked:
        """Withdraw a site, or what would let one in under this name."""
        from aggregator.start import connect

        if site not in self.folder.admitted() and withdraw_invites(self.folder, site):
            return Revoked(was_admitted=False)
        request = revoke(self.folder, site)
        try:
            with connect(self.folder) as link:
                link.unregister(parse_node_public_key(request.node_key))
        except UnreachableError:
            return Revoked(was_admitted=True)
        return Revoked(was_admitted=True, disconnected=True)

    def runs(self) -> list[RunLine]:
        """Every run, oldest first."""
        return [run_line(name, self.state(name)) for name in self.folder.run_names()]

    def certificate(self) -> ServerCertificate | None:
        """Time that the aggregator's own certificate is good for; None if it cannot be read."""
        try:
            return server_certificate(self.folder)
        except InputDataError:
            return None

    def facts(self, plan: bytes) -> list[tuple[str, str]]:
        """Return a plan as a person reads it before it starts."""
        parsed = parse_plan_toml(plan)
        self.check(parsed)
        admitted = len(self.folder.admitted())
        return [*facts_of(parsed, admitted), *key_fact(self.folder)]

    def check(self, plan: FederationPlan) -> None:
        """Return only if no site's door would refuse everything this plan asks for.

        Raises:
            InputDataError: every one would.
        """
        from aggregator.start import check_feasible

        check_feasible(plan)

    def start(self, order: StartOrder) -> Started:
        """Start a run, behind those that are there already."""
        from aggregator.start import start_run

        plan = parse_plan_toml(order.plan)
        min_sites = order.min_sites or len(self.folder.admitted()) or 1
        options = RunOptions(min_sites=min_sites, wait_s=order.wait_s, approval_s=order.approval_s)
        queued = start_run(self.folder, plan, options, order.attached, wait=order.wait)
        return Started(queued.store.name, str(queued.store.folder), ahead=queued.ahead)

    def resume(self, run: str, *, wait: bool = True) -> Started:
        """Go on with a run (empty: the newest) after its last round that counts."""
        from aggregator.start import resume_run

        queued = resume_run(self.folder, run or self.folder.latest_run(), wait=wait)
        # What the journal says so far, its end included, is not the resumed run's.
        return Started(queued.store.name, str(queued.store.folder), queued.since, queued.ahead)

    def stop(self, run: str, by: str = "a coordinator at the aggregator") -> Stopping:
        """Have a run end that waits or goes on (empty: the one that goes on)."""
        from aggregator.stop import stop_run

        current = RunQueue(self.folder.queue).read().current
        if not run and current is None:
            raise RefusedError("no run goes on", advice="See `cairn-aggregator round list`")
        name = self.name(run)
        since = self.journal_file(name).stat().st_size
        return Stopping(name, stop_run(self.folder, name, by), since)

    @contextmanager
    def journal(
        self,
        run: str,
        *,
        follow: bool = False,
        since: int = 0,  # noqa: ARG002 - a journal that lies here needs no mirror that ends
    ) -> Iterator[Journal]:
        """Follow a run's events, for as long as there is anybody who may write another."""
        name = self.name(run)
        stop, over = threading.Event(), threading.Event()
        guard = threading.Thread(target=self._guard, args=(name, stop, over), daemon=True)
        if follow:
            guard.start()
        else:
            over.set()
        try:
            yield Journal(name, self.journal_file(name), over)
        finally:
            stop.set()
            if follow:
                guard.join()  # it reads the folder, which the caller may remove now

    def _guard(self, run: str, stop: threading.Event, over: threading.Event) -> None:
        """Set ``over`` once nobody conducts a run and nobody would begin it."""
        queue, conductor = RunQueue(self.folder.queue), RunStore(self.folder.run(run))
        silent = 0
        while silent < SILENT_LOOKS and not stop.wait(LOOK_S):
            queued = queue.is_kept() and run in queue.read().runs
            silent = 0 if queued or is_locked(conductor.conductor_lock) else silent + 1
        over.set()

    def report(self, run: str) -> Iterator[bytes]:
        """Yield a run as one HTML page, piece by piece."""
        from aggregator.report.html import write_report

        state = self.state(self.name(run))
        with tempfile.TemporaryDirectory() as scratch:
            page = Path(scratch) / "report.html"
            write_report(page, state)
            data = page.read_bytes()
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    def model(self, run: str, *, sums: bool) -> Iterator[tuple[str, bytes]]:
        """Yield the files of the model that a run came to, piece by piece."""
        from aggregator.outcome import model_files

        store = RunStore(self.folder.run(self.name(run)))
        for name, data in model_files(self.folder, store, sums=sums):
            for start in range(0, len(data), PIECE):
                yield name, data[start : start + PIECE]

    def name(self, run: str) -> str:
        """Return the name itself, or (empty) that of the run that goes on, or of the newest.

        Raises:
            InputDataError: there is no such run, or none at all.
        """
        if run and Path(run).name != run:
            raise RefusedError("not a run's name", field="run", got="a path")
        current = RunQueue(self.folder.queue).read().current
        going_on = "" if current is None else current.run
        return self.folder.run(run or going_on or self.folder.latest_run()).name

    def journal_file(self, run: str) -> Path:
        """Return the path of a run's events."""
        return self.folder.run(run) / JOURNAL_FILE

    def state(self, run: str) -> RunState:
        """Fold a run's journal into its state."""
        return fold(event for _, event in read_events(self.journal_file(run)))

    def _online(self, sites: dict[str, AdmittedSite]) -> set[str] | None:
        """Name the sites whose couriers are connected, here or to their relays."""
        from aggregator.start import connect

        by_relay = [relay.online() or () for relay in known_relays(self.folder).values()]

        try:
            with connect(self.folder) as link:
                keys = {n: parse_node_public_key(s.request.node_key) for n, s in sites.items()}
                return link.online(keys).union(*by_relay)
        except UnreachableError:
            return None


def run_line(name: str, state: RunState) -> RunLine:
    """Return a run in a list."""
    return RunLine(
        name=name,
        plan=state.plan_name,
        phase=state.phase,
        verdict=state.verdict,
        round=state.round,
        rounds=state.planned_rounds,
        started_at=_iso(state.started_at),
        state=state.standing,
        rounds_done=state.trained,
        queued_at=_iso(state.queued_at),
        ended_at=_iso(state.ended_at),
        sites=state.sites,
    )


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(timespec="seconds")


def _line(site: AdmittedSite, online: set[str] | None, expires: str, relay: str) -> SiteLine:
    certificate = certificate_of(site)
    return SiteLine(
        name=site.name,
        state="revoked" if site.revoked else "admitted",
        ledger_sha256=site.ledger_key.fingerprint,
        certificate_days=None if certificate is None else days_left(certificate),
        online=None if online is None else site.name in online and not site.revoked,
        invite_expires=expires,
        counts_as=None if site.revoked else site.samples_cap,
        relay=relay,
    )

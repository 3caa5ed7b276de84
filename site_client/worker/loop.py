"""The long-lived worker: an order from the inbox, work, an answer through the door.

Failures leave as numbers; their texts go into ``worker/log/worker.log`` and stay.
When the ledger cannot record, the worker ends: nothing could leave anyway, and
opening it again is what checks and recovers it. An order is taken out of the
inbox only after its answer lies in the outbox.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from common.canonical import canonical_json
from common.crypto.keyed import FederationKey
from common.errors import CairnError, InputDataError, RefusedError, VerificationError
from common.ledger.durable import StorageError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import Order
from site_client.decisions.making import record_decisions
from site_client.decisions.standing import Standing
from site_client.egress.gate import Context
from site_client.egress.keys import KeyDoor
from site_client.egress.policy import Policy, check_phase, check_plan, read_policy
from site_client.egress.release import Door, SilencedError
from site_client.files import write_atomically
from site_client.keys.directory import note_roster
from site_client.keys.keeper import KeyKeeper
from site_client.keys.ring import KeyRing
from site_client.keys.roster import require_in_sum, require_known
from site_client.plans.approval import PlanWaitsError, require_approved
from site_client.plans.waiting import note_waiting
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.trouble import clear_trouble, note_trouble
from site_client.worker.chain import Derived, begin, follow, require_codec_follows
from site_client.worker.chain_file import ChainFile
from site_client.worker.failures import (
    BadOrderError,
    NoKeyError,
    PolicyError,
    StoppedError,
    UntrustedError,
    code_of,
)
from site_client.worker.models import Models
from site_client.worker.order import Opened, open_order
from site_client.worker.patience import KeyPatience
from site_client.worker.setup import OrderTerms, Progress, make_context, make_study, read_keys
from site_client.worker.state import SavedStates
from site_client.worker.study import Assignment, Study, check_order, weights_bytes
from site_client.worker.tagging import tagged

POLL_S = 0.1
LOG = logging.getLogger("cairn.worker")


class Worker:
    """A site's worker. Use as a context manager: it holds the ledger's lock.

    Args:
        site: the site's folder.
        stop: when set, the work in hand is left and ``run`` returns; the order stays
            in the inbox and is worked on again after the next start.
        progress: told what is being done.

    Raises:
        InputDataError: settings or keys are missing.
        VerificationError: the ledger does not verify.
    """

    def __init__(
        self, site: SiteFolder, stop: threading.Event, progress: Progress | None = None
    ) -> None:
        self._site = site
        self._stop = stop
        self._progress = progress
        self._settings = site.settings()
        self._keys = read_keys(site)
        self._spool = Spool(site.spool)
        self._spool.prepare()
        read_policy(site.policy_file)
        self._ledger = Ledger.open(
            site.ledger,
            ledger_origin(self._settings.site),
            self._keys.ledger,
            lambda: datetime.now(UTC),
        )
        self._door = Door(
            self._ledger, site.worker / "answers", self._spool, self._settings.app_sha256
        )
        self._ring = KeyRing(site)
        door = KeyDoor(self._ledger, self._spool, self._settings.app_sha256)
        self._standing = Standing.of(self._ledger.records())
        self._keeper = KeyKeeper(
            site, self._keys.ledger, door, confirmed=lambda: self._standing.fingerprints
        )
        self._patience = KeyPatience(self._keeper)
        self._models = Models(site.worker / "models")
        self._study: Study | None = None
        self._studied: tuple[str, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.close()

    def run(self) -> None:
        """Answer orders until ``stop`` is set.

        Raises:
            StorageError: the ledger could not record.
            InputDataError: the site's policy became unreadable.
        """
        LOG.info("worker of %s is ready, ledger of %d", self._settings.site, self._ledger.size)
        while not self._stop.is_set():
            if not self.turn():
                self._stop.wait(POLL_S)
        LOG.info("worker stopped")

    def turn(self) -> bool:
        """Answer one order if one waits; says whether one did.

        What people of the site decided is recorded first, and what came about the
        federation key is seen to; a run's first order may wait for it a little.

        Raises:
            StorageError, InputDataError: as ``run``.
        """
        self._record_decisions()
        self._keeper.turn()
        self._supersede()
        digest = self._patience.ready(self._spool.orders(), self._peek)
        if digest is None:
            return False
        try:
            self._handle(digest)
        except StoppedError:
            self._forget_study()
            LOG.info("order %s is left for the next start", digest[:12])
        return True

    def _handle(self, digest: str) -> None:
        began = time.monotonic()
        try:
            opened = open_order(self._spool.read_order(digest), self._keys.witness)
        except (BadOrderError, RefusedError) as error:
            # It does not even say which run it belongs to: there is nobody to tell.
            LOG.error("order %s is unreadable: %s", digest[:12], error)  # noqa: TRY400
            self._door.refuse_unreadable()
            self._spool.finish_order(digest)
            return
        code = self._answer(opened)
        self._spool.finish_order(digest)
        self._note_status(opened.order, code, time.monotonic() - began)

    def _answer(self, opened: Opened) -> ReplyCode:
        """Work on an order, and put its records or a number through the door."""
        order, question = opened.order, opened.question
        context = self._context(order)
        try:
            self._trust(opened)
            if self._door.replay(question) or self._door.replay(question.of_parcel):
                LOG.info("%s was answered before; the same answer again", _name(order))
                return ReplyCode.OK
            envelopes = self._work(opened, context)
            code = self._door.release(question, envelopes, context)
        except (StoppedError, StorageError):
            raise
        except SilencedError as error:
            LOG.error("%s: %s", _name(order), error)  # noqa: TRY400
            self._forget_study()
            return ReplyCode.REFUSED_AT_DOOR
        except Exception as error:
            # Whatever it was: its text stays here and its number leaves.
            LOG.exception("%s failed", _name(order))
            self._forget_study()
            return self._fail(opened, context, error)
        if code is not ReplyCode.OK:
            LOG.error("%s: %s", _name(order), EXPLANATIONS[code])
            # What was refused may be broken inside, too: the next round starts before it.
            self._forget_study()
            self._states(order).forget(order.header.round)
        elif order.plan.kind != "no-op":  # which opens no image, and so proves nothing of them
            clear_trouble(self._site, order.plan.kind)
        return code

    def _fail(self, opened: Opened, context: Context, error: Exception) -> ReplyCode:
        """Only the door's and the policy's own words go into the ledger; they never quote."""
        refusal = error.__cause__ if isinstance(error, PolicyError) else error
        numbered = isinstance(getattr(error, "code", None), ReplyCode)
        deliberate = numbered or isinstance(error, PolicyError | RefusedError)
        code = code_of(error)
        if code is ReplyCode.BAD_DATA and isinstance(error, InputDataError):
            self._note_trouble(opened.order, error)
        # Asked again and again while a person thinks it over, one answer serves, and one record.
        waits = code is ReplyCode.PLAN_WAITS
        try:
            self._door.fail(
                opened.question.while_waiting if waits else opened.question.of_parcel,
                code,
                context,
                refusal if deliberate and isinstance(refusal, CairnError) else None,
            )
        except SilencedError as silenced:
            LOG.error("%s: %s", _name(opened.order), silenced)  # noqa: TRY400
        return code

    def _trust(self, opened: Opened) -> None:
        """Verify that the order is the aggregator's, and so is the receipt that came with it.

        Raises:
            UntrustedError: one of them is not.
        """
        try:
            if opened.fault is not None:
                raise opened.fault
            if opened.receipt is not None:
                self._ledger.add_receipt(opened.receipt, self._keys.witness)
        except VerificationError as error:
            raise UntrustedError(str(error)) from error

    def _work(self, opened: Opened, context: Context) -> list[Envelope]:
        order, header = opened.order, opened.order.header
        check_order(order)
        self._admit(opened, context)
        key = self._key_of(header.run)
        derived = self._derive(order, key, context.policy)
        study = self._ready_study(order, key, context.policy)
        answer = study.answer(Assignment(header, derived, order.codebook))
        if header.phase == "train":
            # Before the release: a crash between the two must not lose the round's state.
            self._states(order).save(header.round, study.state())
        if header.phase == "evaluate" and derived.model is not None:
            run, now = header.run, datetime.now(UTC)
            self._models.keep(derived.model.weights, order.plan, run, now, answer)
        return tagged(answer, key, derived.link)

    def _admit(self, opened: Opened, context: Context) -> None:
        """Everything that stands between an order and the first image, cheapest first.

        Raises:
            PolicyError: the site's bounds do not allow it.
            RefusedError: with a number of its own: another plan or an earlier round of a
                run, too few known sites, a budget that is spent, a plan that waits for a
                person or was declined.
        """
        order = opened.order
        policy, plan = context.policy, order.plan
        self._door.require_new(context)
        try:
            check_plan(policy, plan, weights_bytes=weights_bytes(plan))
            check_phase(policy, context.phase)
        except RefusedError as error:
            raise PolicyError(str(error)) from error
        # Sites that joined by mail hear of the others here; noted before they are refused.
        note_roster(self._site, _fingerprints(order))
        require_known(
            _fingerprints(order),
            self._settings.site,
            self._standing.fingerprints,
            policy.peers.least_known,
            own_key=self._keys.ledger.public.fingerprint,
        )
        try:
            require_approved(policy, self._standing, plan)
        except PlanWaitsError:
            digest = opened.question.order_sha256
            note_waiting(self._site, plan, order.header.run, digest, datetime.now(UTC))
            raise

    def _key_of(self, run: str) -> FederationKey:
        """Return the federation key with which a run is finished once it has begun.

        Raises:
            NoKeyError: none has come to this site.
        """
        self._ring.begin_run(run)
        key = self._ring.of_run(run)
        if key is None:
            raise NoKeyError("sums are proved under the federation key, and none has come yet")
        return key

    def _derive(self, order: Order, key: FederationKey, policy: Policy) -> Derived:
        """Derive what the run has come to, from what is known here and the sums beside the order.

        Raises:
            ForgedSumError, BehindError, UnknownPeersError, UnknownStartError: nothing can
                be derived; what was known stays.
        """
        header, plan, site = order.header, order.plan, self._settings.site
        file = ChainFile(self._states(order).folder, plan, header)
        latest = file.load()
        if latest is None:
            starts = plan.start is not None
            start = self._models.start_of(plan, policy, order.start) if starts else None
            latest = begin(plan, header, start)

        def check_members(members: tuple[str, ...]) -> None:
            require_in_sum(
                members,
                _fingerprints(order),
                site,
                self._standing.fingerprints,
                policy.peers.least_in_sum,
                plan.rounds.quorum,
            )

        derived = follow(latest, plan, header, order.sums, key, check_members)
        require_codec_follows(derived, plan, header)
        # Merged tables of pixels are not kept: the order that brings them is worked on anew.
        if derived.tables is None:
            file.save(derived)
        return derived

    def _ready_study(self, order: Order, key: FederationKey, policy: Policy) -> Study:
        """Return the study of this run, standing where the last recorded round left it."""
        states, round_ = self._states(order), order.header.round
        run = (order.header.run, order.plan.fingerprint)
        last = states.last_before(round_) if order.header.phase == "train" else None
        fits = self._studied == run and self._study is not None
        if fits and self._study is not None and last in (None, self._study.trained):
            return self._study
        self._forget_study()
        states.forget_other_runs()
        study = make_study(
            self._terms(order),
            key,
            self._site.data(),
            self._report_progress,
            self._site.worker,
            least=policy.floors.images,
            data_file=self._site.data_file,
        )
        state = states.load_before(round_)
        if state is not None:
            study.load_state(*state)
            LOG.info("%s goes on from the state after round %d", _name(order), state[0])
        self._study, self._studied = study, run
        return study

    def _forget_study(self) -> None:
        self._study = self._studied = None

    def _states(self, order: Order) -> SavedStates:
        return SavedStates(self._site.worker / "state", order.header.run, order.plan.fingerprint)

    def _terms(self, order: Order) -> OrderTerms:
        header = order.header
        entry = order.roster.get(self._settings.site)
        return OrderTerms(
            self._settings.site,
            header.run,
            header.round,
            header.phase,
            order.plan,
            header.codec,
            1 if entry is None else entry.samples,
        )

    def _context(self, order: Order) -> Context:
        policy = read_policy(self._site.policy_file)
        return make_context(self._terms(order), policy, self._ring.of_run(order.header.run))

    def _supersede(self) -> None:
        """Of several waiting orders of one run only the latest round is worked on."""
        waiting = self._spool.orders()
        if len(waiting) < 2:
            return
        latest: dict[str, tuple[int, str]] = {}
        for digest in waiting:
            order = self._peek(digest)
            if order is None:
                continue
            run, round_ = order.header.run, order.header.round
            older = latest.get(run)
            if older is not None and older[0] != round_:
                stale = min(older, (round_, digest))[1]
                LOG.info("order %s was superseded by a later round", stale[:12])
                self._spool.finish_order(stale)
            latest[run] = (round_, digest) if older is None else max(older, (round_, digest))

    def _peek(self, digest: str) -> Order | None:
        """Return a waiting order, if its signature holds."""
        try:
            opened = open_order(self._spool.read_order(digest), self._keys.witness)
        except (BadOrderError, RefusedError):
            return None
        return None if opened.fault is not None else opened.order

    def _record_decisions(self) -> None:
        """Record what a person decided meanwhile; it counts from now on."""
        for record in record_decisions(self._site, self._ledger):
            self._standing.take(record)
            LOG.info("%s by %s is recorded", record.event, record.person)

    def _report_progress(self, what: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        self._record_decisions()
        if self._progress is not None:
            self._progress(what, done, total)

    def _note_trouble(self, order: Order, error: InputDataError) -> None:
        """Tell this site's people why; a full disk must not keep the number from leaving."""
        header = order.header
        about = (header.run, header.round, header.phase, order.plan.name, order.plan.kind)
        try:
            note_trouble(self._site, error, about, datetime.now(UTC))
        except OSError as problem:
            LOG.warning("%s: no note of it could be written: %s", _name(order), problem)

    def _note_status(self, order: Order, code: ReplyCode, seconds: float) -> None:
        header = order.header
        LOG.info("%s answered with %s in %.1f s", _name(order), code.name, seconds)
        status = {
            "run": header.run,
            "round": header.round,
            "phase": header.phase,
            "plan": order.plan.name,
            "code": int(code),
            "meaning": EXPLANATIONS[code],
            "seconds": round(seconds, 1),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomically(self._site.worker_status, canonical_json(status))


def _fingerprints(order: Order) -> dict[str, str]:
    """Of the ledger key of every site of an order's roster, by name."""
    return {entry.site: entry.ledger_key for entry in order.header.roster}


def _name(order: Order) -> str:
    return f"{order.header.run}, round {order.header.round} ({order.header.phase})"

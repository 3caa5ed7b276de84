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
from common.errors import CairnError, RefusedError, VerificationError
from common.ledger.durable import StorageError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import Order
from site_client.egress.gate import Context
from site_client.egress.keys import KeyDoor
from site_client.egress.policy import check_phase, check_plan, read_policy
from site_client.egress.release import Door, SilencedError
from site_client.files import write_atomically
from site_client.keys.keeper import KeyKeeper
from site_client.keys.ring import KeyRing
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker.failures import (
    BadOrderError,
    NoKeyError,
    PolicyError,
    StoppedError,
    UntrustedError,
    code_of,
)
from site_client.worker.order import Opened, open_order
from site_client.worker.patience import KeyPatience
from site_client.worker.setup import Asked, Progress, make_context, make_study, read_keys
from site_client.worker.state import RunState
from site_client.worker.study import Study, check_order, weights_bytes

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
        self._keeper = KeyKeeper(site, self._keys.ledger, door)
        self._patience = KeyPatience(self._keeper)
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

        What came about the federation key is seen to first; a run's first order may wait
        for it a little.

        Raises:
            StorageError, InputDataError: as ``run``.
        """
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
            envelopes = self._work(order, context)
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
        return code

    def _fail(self, opened: Opened, context: Context, error: Exception) -> ReplyCode:
        """Only the door's and the policy's own words go into the ledger; they never quote."""
        refusal = error.__cause__ if isinstance(error, PolicyError) else error
        own = isinstance(error, PolicyError | RefusedError) and isinstance(refusal, CairnError)
        code = code_of(error)
        try:
            self._door.fail(
                opened.question.of_parcel,
                code,
                context,
                refusal if own and isinstance(refusal, CairnError) else None,
            )
        except SilencedError as silenced:
            LOG.error("%s: %s", _name(opened.order), silenced)  # noqa: TRY400
        return code

    def _trust(self, opened: Opened) -> None:
        """The order is the aggregator's, and so is the receipt that came with it.

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

    def _work(self, order: Order, context: Context) -> list[Envelope]:
        check_order(order)
        try:
            check_plan(context.policy, order.plan, weights_bytes=weights_bytes(order.plan))
            check_phase(context.policy, context.phase)
        except RefusedError as error:
            raise PolicyError(str(error)) from error
        self._door.require_new(context)
        study = self._ready_study(order)
        envelopes = study.answer(order)
        if context.phase == "train":
            # Before the release: a crash between the two must not lose the round's state.
            self._states(order).save(order.header.round, study.state())
        return envelopes

    def _ready_study(self, order: Order) -> Study:
        """The study of this run, standing where the last recorded round left it."""
        states, round_ = self._states(order), order.header.round
        run = (order.header.run, order.plan.fingerprint)
        behind = states.last_before(round_) if order.header.phase == "train" else None
        fits = self._studied == run and self._study is not None
        if fits and self._study is not None and behind in (None, self._study.trained):
            return self._study
        self._forget_study()
        if order.plan.limits.privacy_tier > 0 and self._ring.of_run(order.header.run) is None:
            raise NoKeyError("this plan needs the federation key, and none has come yet")
        self._ring.begin_run(order.header.run)
        states.forget_other_runs()
        study = make_study(
            self._asked(order),
            self._ring.of_run(order.header.run),
            self._site.data(),
            self._report_progress,
            self._site.worker,
        )
        found = states.load_before(round_)
        if found is not None:
            study.load_state(*found)
            LOG.info("%s goes on from the state after round %d", _name(order), found[0])
        self._study, self._studied = study, run
        return study

    def _forget_study(self) -> None:
        self._study = self._studied = None

    def _states(self, order: Order) -> RunState:
        return RunState(self._site.worker / "state", order.header.run, order.plan.fingerprint)

    def _asked(self, order: Order) -> Asked:
        header = order.header
        return Asked(
            self._settings.site, header.run, header.round, header.phase, order.plan, header.codec
        )

    def _context(self, order: Order) -> Context:
        policy = read_policy(self._site.policy_file)
        return make_context(self._asked(order), policy, self._ring.of_run(order.header.run))

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
        """A waiting order, if its signature holds."""
        try:
            opened = open_order(self._spool.read_order(digest), self._keys.witness)
        except (BadOrderError, RefusedError):
            return None
        return None if opened.fault is not None else opened.order

    def _report_progress(self, what: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        if self._progress is not None:
            self._progress(what, done, total)

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


def _name(order: Order) -> str:
    return f"{order.header.run}, round {order.header.round} ({order.header.phase})"

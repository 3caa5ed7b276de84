"""The long-lived worker: takes orders from the inbox, one after the other, and ends them.

Which order is next is decided here, and nothing else: ``answering`` works on it.
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
from common.errors import RefusedError
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.orders import Order
from site_client.decisions.making import record_decisions
from site_client.decisions.standing import Standing
from site_client.egress.keys import KeyDoor
from site_client.egress.policy import read_policy
from site_client.egress.release import Door
from site_client.egress.retention import Housekeeping
from site_client.files import write_atomically
from site_client.keys.keeper import KeyKeeper
from site_client.ledger import open_ledger
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.witnesses.asking import Asking
from site_client.witnesses.rule import ContradictedError, require_uncontradicted
from site_client.witnesses.standing import site_policy
from site_client.worker.answering import Answering
from site_client.worker.failures import BadOrderError, StoppedError
from site_client.worker.order import open_order
from site_client.worker.patience import KeyPatience
from site_client.worker.setup import read_keys
from site_client.worker.study import Progress

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
        self._ledger = open_ledger(site, self._keys.ledger, lambda: datetime.now(UTC))
        self._house = Housekeeping(self._ledger, site.worker / "answers")
        self._door = Door(
            self._ledger, site.worker / "answers", self._spool, self._settings.app_sha256
        )
        door = KeyDoor(self._ledger, self._spool, self._settings.app_sha256)
        self._standing = Standing.of(self._ledger.records())
        self._keeper = KeyKeeper(
            site, self._keys.ledger, door, confirmed=lambda: self._standing.fingerprints
        )
        self._patience = KeyPatience(self._keeper)
        witnesses = site_policy(site)
        self._witnesses = None if witnesses is None else Asking(site, witnesses, self._ledger)
        self._answering = Answering(
            site,
            self._keys,
            self._ledger,
            self._door,
            self._standing,
            self._report_progress,
            self._witnesses,
        )

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

        What people of the site decided is recorded first, what is past its time is deleted,
        and what came about the federation key is seen to; a run's first order may wait for it
        a little.

        Raises:
            StorageError, InputDataError: as ``run``.
        """
        self._record_decisions()
        self._house.turn(self._site.policy_file)
        if self._witnesses is not None:
            self._witnesses.turn()
        if self._may_share_keys():
            self._keeper.turn()
        self._supersede()
        digest = self._patience.ready(self._spool.orders(), self._peek)
        if digest is None:
            return False
        try:
            self._handle(digest)
        except StoppedError:
            self._answering.forget()
            LOG.info("order %s is left for the next start", digest[:12])
        return True

    def _may_share_keys(self) -> bool:
        """Keep the federation key here, too, while a witness has seen another history."""
        if self._witnesses is None:
            return True
        try:
            require_uncontradicted(self._witnesses.standing, read_policy(self._site.policy_file))
        except ContradictedError:
            return False
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
        code = self._answering.respond(opened)
        self._spool.finish_order(digest)
        self._note_status(opened.order, code, time.monotonic() - began)

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

    def _note_status(self, order: Order, code: ReplyCode, seconds: float) -> None:
        header = order.header
        LOG.info("%s answered with %s in %.1f s", order.name, code.name, seconds)
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

"""The long-lived worker: takes orders from the inbox, one after the other, and ends them.

Which order is next is decided here, and nothing else: ``answering`` works on it. While it
does, the inbox is looked into twice a second: an order whose run was stopped, or is no
longer the one whose turn it is, is left and declined by a number.
When the ledger cannot record, the worker ends: nothing could leave anyway, and
opening it again is what checks and recovers it. An order is taken out of the
inbox only after its answer lies in the outbox, or after it was refused and put aside:
nothing that lies there, whoever put it there, ends the worker or holds up another order.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from common.arrivals.boundary import UnforeseenError, contained
from common.arrivals.quarantine import Quarantine
from common.canonical import canonical_json
from common.crypto.identity import PublicKey
from common.errors import CairnError, VerificationError
from common.ledger.durable import StorageError
from common.policy import read_policy
from common.waking import Alarm, Lookout
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.orders import Order
from common.wire.turn import TurnNote
from site_client.decisions.making import record_decisions
from site_client.decisions.standing import Standing
from site_client.egress.keys import KeyDoor
from site_client.egress.release import Door
from site_client.egress.retention import Housekeeping
from site_client.files import write_atomically
from site_client.keys.keeper import KeyKeeper
from site_client.ledger import open_ledger
from site_client.restoring import read_lost
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.witnesses.asking import WitnessInquiry
from site_client.witnesses.rule import ContradictedError, require_uncontradicted
from site_client.witnesses.standing import site_policy
from site_client.worker.answering import Answering
from site_client.worker.failures import BadOrderError, StoppedError
from site_client.worker.order import open_order
from site_client.worker.patience import KeyPatience
from site_client.worker.setup import read_keys
from site_client.worker.study import Progress

POLL_S, TOLD_S = 0.1, 2.0
"""Between two looks: where nobody tells that an order came, and where the kernel does."""
MOST_LOOKED_AT = 256
"""Waiting orders that are looked at in one turn; more than a federation's runs at a time."""
LOG = logging.getLogger("cairn.worker")


@dataclass(frozen=True)
class _Peeked:
    """The words of a waiting order whose signature holds; nothing that came beside them."""

    order: Order
    turn: TurnNote


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
        self._quarantine = Quarantine(site.quarantine)
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
        self._witnesses = (
            None if witnesses is None else WitnessInquiry(site, witnesses, self._ledger)
        )
        self._peeked: dict[str, _Peeked | None] = {}
        self._turn_in_hand: TurnNote | None = None
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

    def run(self, idle_s: float | None = None) -> None:
        """Answer orders until ``stop`` is set.

        Args:
            idle_s: seconds without an order after which there is no more to do; None: never.

        Raises:
            StorageError: the ledger could not record.
            InputDataError: the site's policy became unreadable.
        """
        LOG.info("worker of %s is ready, ledger of %d", self._settings.site, self._ledger.size)
        self._site.decisions.mkdir(mode=0o700, exist_ok=True)
        last = time.monotonic()
        with Alarm(self._spool.inbox, self._site.decisions) as alarm:
            lookout, notified = Lookout(POLL_S, TOLD_S, notified=alarm.watches), True
            while not self._stop.is_set():
                if self.turn():
                    lookout.found(notified=notified)
                    last = time.monotonic()
                    continue
                # An order that waits for a key waits for time, too.
                seconds = POLL_S if self._peeked else lookout.seconds
                if idle_s is not None:
                    remaining = last + idle_s - time.monotonic()
                    if remaining <= 0:
                        break
                    seconds = min(seconds, remaining)
                notified = alarm.wait(seconds, self._stop)
        if self._stop.is_set():
            LOG.info("worker stopped")

    def turn(self) -> bool:
        """Answer one order if one waits; says whether one did.

        A ledger that lacks records waits for a person, and signs nothing meanwhile. What
        people of the site decided is recorded first, what is past its time is deleted,
        and what came about the federation key is seen to; a run's first order may wait for it
        a little.

        Raises:
            StorageError, InputDataError: as ``run``.
        """
        self._record_decisions()
        if read_lost(self._site) is not None:
            return False
        self._house.turn(self._site.policy_file)
        self._hear_of_witnesses()
        if self._may_share_keys():
            self._hear_of_keys()
        self._hear()
        self._supersede()
        digest = self._patience.ready(self._spool.orders()[:MOST_LOOKED_AT], self._peek_order)
        if digest is None:
            return False
        try:
            self._handle(digest)
        except StoppedError:
            self._answering.forget()
            LOG.info("order %s is left for the next start", digest[:12])
        return True

    def _hear_of_witnesses(self) -> None:
        """See to what third witnesses said; an answer that nobody foresaw changes nothing."""
        if self._witnesses is None:
            return
        try:
            with contained("a witness's answer"):
                self._witnesses.turn()
        except UnforeseenError as error:
            self._door.refuse_arrival(error)

    def _may_share_keys(self) -> bool:
        """Keep the federation key here, too, while a witness has seen another history."""
        if self._witnesses is None:
            return True
        try:
            require_uncontradicted(self._witnesses.standing, read_policy(self._site.policy_file))
        except ContradictedError:
            return False
        return True

    def _hear_of_keys(self) -> None:
        """See to what came about the federation key; news that nobody foresaw change nothing."""
        try:
            with contained("news of the federation key"):
                self._keeper.turn()
        except UnforeseenError as error:
            self._door.refuse_arrival(error)

    def _handle(self, digest: str) -> None:
        """Answer an order, or refuse it and put it aside; the next one is not held up."""
        began = time.monotonic()
        read_policy(self._site.policy_file)  # without one the worker ends, whatever was asked
        parcel = b""
        try:
            with contained("an order", StoppedError, BadOrderError):
                parcel = self._spool.read_order(digest)
                opened = open_order(parcel, self._witness)
                self._turn_in_hand = opened.turn
                code = self._answering.respond(opened)
        except StorageError:
            raise
        except BadOrderError as error:
            # It does not even say which run it belongs to: there is nobody to tell.
            self._put_aside(digest, parcel, _unreadable(error))
        except CairnError as error:
            self._answering.forget()
            self._put_aside(digest, parcel, error)
        else:
            self._spool.finish_order(digest)
            self._note_status(opened.order, code, time.monotonic() - began)

    def _put_aside(self, digest: str, parcel: bytes, error: CairnError) -> None:
        """Record that an order was refused, keep it for people to look at, and go on."""
        # Whoever put it into the inbox chose its name: it may hold anything.
        LOG.error("order %s was put aside: %s", ascii(digest[:12]).strip("'"), error)
        self._quarantine.put(
            parcel, error, culprit="spool/inbox", what="order", now=datetime.now(UTC)
        )
        self._door.refuse_arrival(error)
        self._spool.finish_order(digest)

    def _hear(self) -> None:
        """Hear from the orders that wait whose turn it is."""
        waiting = self._spool.orders()[:MOST_LOOKED_AT]
        self._peeked = {digest: self._peek(digest) for digest in waiting}
        for peeked in self._peeked.values():
            if peeked is not None:
                self._answering.turns.hear(peeked.turn)

    @property
    def _witness(self) -> PublicKey:
        """The aggregator's key that counts, as the ledger has recorded its exchanges."""
        return self._ledger.witness or self._keys.witness

    def _supersede(self) -> None:
        """Of several waiting orders of one run only the latest round of its latest turn counts.

        An aggregator that was put back asks an earlier round again, in a later turn.
        """
        latest: dict[str, tuple[tuple[float, float], str]] = {}
        for digest, peeked in self._peeked.items():
            if peeked is None:
                continue
            # The word that stops a run comes after all of its rounds.
            place = (float(peeked.turn.turn), float(peeked.order.header.round))
            place = (math.inf, math.inf) if peeked.turn.stop else place
            older = latest.get(peeked.turn.run)
            if older is not None and older[0] != place:
                stale = min(older, (place, digest))[1]
                LOG.info("order %s was superseded by a later one", stale[:12])
                self._spool.finish_order(stale)
            latest[peeked.turn.run] = max(older or (place, digest), (place, digest))

    def _peek(self, digest: str) -> _Peeked | None:
        """Return the words of a waiting order, if its signature holds; each is looked at once."""
        if digest not in self._peeked:
            self._peeked[digest] = self._look_at(digest)
        return self._peeked[digest]

    def _look_at(self, digest: str) -> _Peeked | None:
        try:
            with contained("a waiting order", BadOrderError):
                opened = open_order(self._spool.read_order(digest), self._witness)
        except (BadOrderError, CairnError):
            return None
        if opened.fault is not None:
            return None
        return _Peeked(Order(opened.order.header, opened.order.plan), opened.turn)

    def _peek_order(self, digest: str) -> Order | None:
        peeked = self._peek(digest)
        return None if peeked is None else peeked.order

    def _record_decisions(self) -> None:
        """Record what a person decided meanwhile; it counts from now on."""
        for record in record_decisions(self._site, self._ledger):
            self._standing.take(record)
            self._door.heed(record)
            LOG.info("%s by %s is recorded", record.event, record.person)

    def _report_progress(self, what: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        self._record_decisions()
        if self._turn_in_hand is not None and self._answering.turns.time_to_look():
            # A later run, or the end of this one: what is in hand is of no use to anybody.
            self._hear()
            self._answering.turns.require(self._turn_in_hand)
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


def _unreadable(error: BadOrderError) -> CairnError:
    return VerificationError(
        "an order cannot be read",
        field="order",
        expected="one that the aggregator's witness key signed",
        got="another",
        advice=str(error),
    )

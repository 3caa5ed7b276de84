"""The courier's loop: pull orders into the spool, push what the door released.

What it may say by itself is one integer. What lies in the outbox leaves only if the
second door finds it to be a release, and only the bytes that it looked at. An order in
flight is remembered on disk, so that a courier that was killed answers it after a restart.
"""

from __future__ import annotations

import base64
import json
import logging
import shlex
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from google.protobuf.message import DecodeError

from common.arrivals.boundary import UnforeseenError, contained
from common.arrivals.texts import json_of
from common.canonical import sha256_hex
from common.errors import (
    CairnError,
    InputDataError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from common.journal import RequestJournal
from common.ledger.records import RefusalDetail
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap
from common.wire.transport import CODE, ORDER, PARCEL, RECEIPT, RECORD, SIGNATURE
from site_client.courier.carrier import Carrier, CarrierName
from site_client.courier.ear import Ear
from site_client.courier.fleet import (
    BEAT_EVERY_S,
    Fleet,
    Incoming,
    RunOverError,
    UnknownKeyError,
    message_from_stub,
    message_stub,
)
from site_client.courier.handover import Handover
from site_client.courier.newcomer import Newcomer
from site_client.courier.outage import Outage
from site_client.courier.pace import FINEST_S, Slots
from site_client.files import write_atomically
from site_client.journal import open_journal
from site_client.second_door import Asked, Outbox, Passed, SecondDoor, second_door
from site_client.site import SiteFolder, SiteSettings
from site_client.spool import Spool

LONGEST_WAIT_S = 30.0
_SIGNATURE_BYTES = 64
NEWCOMER_S = 0.5
LOG = logging.getLogger("cairn.courier")


@dataclass(frozen=True)
class Delivery:
    """An order handed to the worker whose reply is still awaited.

    Attributes:
        digest: of its parcel.
        message: that brought it.
        expires: Unix time after which nobody waits.
        question: what a reply must answer; None of a parcel that holds no order.
        since: when it was handed over, by the clock that only goes up; before a restart: 0.
    """

    digest: str
    message: Message
    expires: float
    question: Asked | None
    since: float = 0.0


def parcel_content(parcel: bytes) -> RecordDict:
    """Return a released reply as Flower content."""
    array = Array(np.frombuffer(parcel, dtype=np.uint8))
    return RecordDict({RECORD: ArrayRecord({PARCEL: array})})


def code_content(code: ReplyCode) -> RecordDict:
    """Return the only thing that a courier may say by itself."""
    return RecordDict({RECORD: ConfigRecord({CODE: int(code)})})


class Courier:
    """Everything between one connection and one spool.

    Args:
        folder: ``courier/`` of the site, for what must survive a restart.
        settings: of the site.
        spool: between the two processes.
        fleet: the connection.
        door: what the outbox's content is held against.
        journal: in which all that is sent stands before.
        pace: when to look and to ask.
        ear: what tells us to; nothing when omitted.
    """

    def __init__(
        self,
        folder: Path,
        settings: SiteSettings,
        spool: Spool,
        fleet: Carrier,
        door: SecondDoor,
        journal: RequestJournal,
        pace: Slots | None = None,
        ear: Ear | None = None,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._spool = spool
        self._fleet = fleet
        self._door = door
        self._journal = journal
        self._pace = pace or Slots()
        self._ear = ear or Ear()
        self._heard = False
        self._outbox = Outbox(spool)
        self._folder_refused = False
        self._inflight = folder / "inflight"
        self._inflight.mkdir(parents=True, exist_ok=True)
        self._deliveries = self._recall()
        self._next_heartbeat = 0.0

    def go_online(self) -> None:
        """Activate, remembering the node's id for the next start."""
        memory = node_id_file(self._folder)
        remembered = int(memory.read_text(encoding="ascii")) if memory.exists() else None
        node_id = self._fleet.activate(remembered)
        if node_id is not None:
            write_atomically(memory, f"{node_id}".encode())
        self._next_heartbeat = time.monotonic() + BEAT_EVERY_S

    def turn(self) -> None:
        """One turn of the loop: heartbeat, replies out, orders in.

        The spool is looked at every turn; the aggregator is asked when the pace says so:
        while the worker has an order, nobody expects the next one to be taken in at once.
        """
        self._live()
        self._heard = False
        usable = self._clear_outbox()
        for delivery in list(self._deliveries):
            if usable:
                self._try_to_answer(delivery)
            elif time.time() >= delivery.expires:
                self._answer(delivery, ReplyCode.NO_ANSWER)
        if self._pace.is_due(waiting=bool(self._deliveries), notified=self._ear.trusts):
            self._take_in(notified=False)

    def rest(self, stop: threading.Event) -> None:
        """Sleep until the next turn, and ask meanwhile when we are told that an order waits.

        When a word comes is the aggregator's choice, when a reply leaves is not: it waits
        for its slot.
        """
        while not stop.is_set():
            if self._ear.is_due():
                self._live()
                self._take_in(notified=True)
            rang = self._ear.wait(0.0 if self._heard else self.until_next, stop)
            self._heard = self._heard or rang
            if not rang:
                break
        if self._heard and self._deliveries:
            newest = max(delivery.since for delivery in self._deliveries)
            stop.wait(self._pace.wait_reply(time.monotonic() - newest))

    @property
    def until_next(self) -> float:
        """Seconds until the next turn, if nothing is heard before."""
        if not (self._ear.trusts and self._ear.sees_folders):
            return self._pace.wait()
        due = [self._next_heartbeat - time.monotonic(), self._pace.wait_told()]
        due += [delivery.expires - time.time() for delivery in self._deliveries]
        return max(FINEST_S, min(due))

    def _live(self) -> None:
        """Tell the aggregator that this site lives, when it is time to."""
        now = time.monotonic()
        if now >= self._next_heartbeat:
            if not self._fleet.heartbeat():
                self.go_online()
            self._next_heartbeat = now + BEAT_EVERY_S

    def _clear_outbox(self) -> bool:
        """Take out of the outbox what does not belong there, unopened; False if it is no folder."""
        try:
            strangers = self._outbox.strangers()
            self._folder_refused = False
        except RefusedError as error:
            if not self._folder_refused:
                self._folder_refused = True
                LOG.error("the outbox: %s", error)  # noqa: TRY400 -- the traceback adds nothing
                self._journal.refuse("folder", RefusalDetail.of(error))
            return False
        for name in strangers:
            LOG.error("something in the outbox that the door did not put there; taken out")
            self._journal.refuse(
                "stranger",
                RefusalDetail(field="name", expected="a released reply", got="another name"),
            )
            self._outbox.set_aside(name)
        return True

    def _take_in(self, *, notified: bool) -> None:
        """Take in the next order, if there is one; one of a run that is over costs nothing else.

        Args:
            notified: whether somebody said that there is one.
        """
        try:
            with contained("a message", UnreachableError, OSError):
                incoming = self._fleet.pull()
        except (RunOverError, UnforeseenError) as error:
            LOG.warning("a message was not taken in: %s", error)
            return
        if incoming is None:
            return
        self._ear.found(notified=notified)
        self._pace.happened()
        try:
            with contained("a message", OSError):
                try:
                    self._accept(incoming)
                finally:
                    incoming.forget()  # the worker is at it by now
        except (VerificationError, UnforeseenError) as error:
            LOG.warning("a message was not taken in: %s", error)

    def _accept(self, incoming: Incoming) -> None:
        app = self._fleet.app_digest(incoming.run_id)
        if app is not None and app != self._settings.app_sha256:
            LOG.error("refused a run whose app %s is not the pinned one", app[:12])
            self._say(ReplyCode.UNAPPROVED_APP, incoming.message)
            return
        if incoming.fault is not None:
            LOG.error("refused a message: %s", incoming.fault)
            self._say(ReplyCode.BAD_ORDER, incoming.message)
            return
        parcel = incoming.parcel
        digest, question = sha256_hex(parcel), self._question_of(parcel)
        note = {
            "stub": base64.b64encode(message_stub(incoming.message)).decode("ascii"),
            "expires": incoming.expires,
            "order": question and question.order_sha256,
            "signature": question and question.signature,
        }
        write_atomically(self._inflight / f"{digest}.json", json.dumps(note).encode())
        self._spool.put_order(parcel)
        # The same order in a second message: the first one's reply is no longer waited for.
        self._deliveries = [d for d in self._deliveries if d.digest != digest]
        self._deliveries.append(
            Delivery(digest, incoming.message, incoming.expires, question, time.monotonic())
        )
        LOG.info("order %s taken in, %d bytes", digest[:12], len(parcel))

    def _question_of(self, parcel: bytes) -> Asked | None:
        """Read what a reply to this parcel must answer; a receipt beside it tells a checkpoint."""
        try:
            parts = unwrap(parcel)
            order, signature = parts[ORDER], parts[SIGNATURE]
        except (CairnError, KeyError):
            return None
        if RECEIPT in parts:
            self._door.learn(parts[RECEIPT])
        signed = signature.hex() if len(signature) == _SIGNATURE_BYTES else None
        return Asked(sha256_hex(order), signed)

    def _try_to_answer(self, delivery: Delivery) -> None:
        name = f"{delivery.digest}.reply"
        try:
            passed = self._look_at(name, delivery.question)
        except UnreachableError:
            raise
        except CairnError as error:
            # Its text may name a part: it goes to the log here, and in its small alphabet
            # into the journal.
            LOG.error("a reply was held back at the second door: %s", error)  # noqa: TRY400
            self._outbox.set_aside(name)
            self._answer(delivery, ReplyCode.REFUSED_AT_DOOR)
            return
        if passed is not None:
            self._answer(delivery, passed)
        elif time.time() >= delivery.expires:
            LOG.warning("order %s: the worker gave no answer in time", delivery.digest[:12])
            self._answer(delivery, ReplyCode.NO_ANSWER)

    def _look_at(self, name: str, question: Asked | None) -> Passed | None:
        """Return what waits under a name, read once and checked; None while nothing does."""
        data = None
        try:
            data = self._outbox.read(name)
            if data is None:
                return None
            if question is None:
                raise RefusedError("a reply to no order", field="order", expected="one that came")
            return self._door.check_reply(data, question)
        except CairnError as error:
            self._journal.refuse("reply", RefusalDetail.of(error), data)
            raise

    def _answer(self, delivery: Delivery, answer: Passed | ReplyCode) -> None:
        """Write down what leaves, send it, and forget the order."""
        if isinstance(answer, Passed):
            self._journal.release(
                delivery.digest,
                answer.data,
                answer.parts,
                answer.checkpoint.size,
                answer.checkpoint.root,
                answer.policy_sha256,
            )
            content, size = parcel_content(answer.data), len(answer.data)
            self._door.roots[answer.checkpoint.size] = answer.checkpoint.root
        else:
            self._journal.code(int(answer), delivery.digest)
            content, size = code_content(answer), 0
        try:
            self._fleet.push(content, delivery.message)
        except VerificationError as error:
            LOG.warning("order %s: nobody waits for the reply: %s", delivery.digest[:12], error)
        else:
            LOG.info("order %s answered, %d bytes", delivery.digest[:12], size)
        self._deliveries.remove(delivery)
        self._pace.happened()
        (self._inflight / f"{delivery.digest}.json").unlink(missing_ok=True)
        if isinstance(answer, Passed):
            self._outbox.remove(f"{delivery.digest}.reply")
        self._journal.settle()

    def _say(self, code: ReplyCode, message: Message) -> None:
        """Say a number by ourselves, and nothing else."""
        self._journal.code(int(code))
        self._fleet.push(code_content(code), message)

    def _recall(self) -> list[Delivery]:
        """Orders that were in flight when the courier last stopped."""
        messages = []
        for path in sorted(self._inflight.glob("*.json")):
            try:
                messages.append(remembered(path))
            except InputDataError:
                path.unlink()
                LOG.warning("forgot an unreadable note of an order in flight")
        return messages


def remembered(path: Path) -> Delivery:
    """Return an order in flight from the note on it.

    Raises:
        InputDataError: the note is none.
    """
    try:
        note = json_of(path.read_bytes())
        if not isinstance(note, dict):
            note = {}
        message = message_from_stub(base64.b64decode(note["stub"], validate=True))
        order, expires = note["order"], float(note["expires"])
        question = None if order is None else Asked(order, note["signature"])
    except (ValueError, KeyError, TypeError, OverflowError, OSError, DecodeError) as error:
        raise InputDataError(
            "a note of an order in flight cannot be read", got=type(error).__name__
        ) from error
    return Delivery(path.stem, message, expires, question)


def node_id_file(folder: Path) -> Path:
    """Return the file of a courier's node id; there since the aggregator first took its key."""
    return folder / "node-id"


def read_courier_file(path: Path) -> bytes:
    """Key or certificate of the courier.

    Raises:
        InputDataError: missing; says to join first.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputDataError(
            "the courier's keys are incomplete",
            field=str(path),
            got=error.strerror or "an error",
            advice="Run `cairn-site join INVITE --data DIR` first",
        ) from error


def supernode_line(site: SiteFolder, address: str) -> str:
    """Return what starts a SuperNode that carries for this courier."""
    folder = site.courier.resolve()
    config = f'courier="{folder}"'
    words = [
        *("flower-supernode", "--superlink", address),
        *("--root-certificates", str(folder / "ca.crt")),
        *("--auth-supernode-private-key", str(folder / "node.key")),
        *("--node-config", config),
    ]
    return f"FLWR_TELEMETRY_ENABLED=0 {shlex.join(words)}"


def run_courier(
    site: SiteFolder,
    stop: threading.Event,
    ear: Ear | None = None,
    carrier: CarrierName = "courier",
) -> None:
    """Carry until ``stop`` is set; only an unreachable aggregator is tried again.

    Args:
        site: the site's folder.
        stop: ends it.
        ear: what tells that an order waits, or that a reply does; made when omitted.
        carrier: who holds the connection.

    Raises:
        VerificationError: wrong CA, or a revoked key: exits at once. A key that was never
            accepted has a few seconds, in which an admission can reach Flower.
        InputDataError: the site folder is incomplete.
    """
    settings = site.settings()
    authority = read_courier_file(site.courier / "ca.crt")
    node_key = read_courier_file(site.courier / "node.key")
    spool = Spool(site.spool)
    spool.prepare()
    journal = open_journal(site)
    door = second_door(site, journal.roots())
    ear = ear or Ear(spool.outbox)
    fleet: Carrier
    if carrier == "supernode":
        fleet = Handover(site.courier, journal, ear.told)
        LOG.info("waits for a SuperNode; start it: %s", supernode_line(site, settings.address))
    else:
        fleet = Fleet(settings.address, authority, node_key, journal)
    courier = Courier(site.courier, settings, spool, fleet, door, journal, ear=ear)
    online, wait, outage = False, 1.0, Outage()
    newcomer = Newcomer(node_id_file(site.courier))
    try:
        while not stop.is_set():
            try:
                # An answer that nobody foresaw is one more way of not being well.
                with contained("the aggregator's answer", OSError):
                    if not online:
                        courier.go_online()
                        online, wait = True, 1.0
                        outage.over()
                        if carrier == "courier":
                            LOG.info("online as %s at %s", settings.site, settings.receiver)
                    courier.turn()
                    courier.rest(stop)
            except UnknownKeyError as error:
                newcomer.refused(error)
                stop.wait(NEWCOMER_S)
            except (UnreachableError, UnforeseenError) as error:
                outage.failed(error, wait)
                online = False
                stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
    finally:
        outage.over()
        fleet.close()
        journal.settle()

"""The courier's loop: pull orders into the spool, push what the door released.

What it may say by itself is one integer. An order in flight is remembered on
disk, so that a courier that was killed answers it after a restart.
"""

from __future__ import annotations

import base64
import json
import logging
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
    InputDataError,
    UnreachableError,
    VerificationError,
)
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap
from common.wire.transport import CODE, ENVELOPE_SUFFIX, PARCEL, RECORD
from site_client.courier.fleet import (
    HEARTBEAT_S,
    Fleet,
    Incoming,
    RunOverError,
    UnknownKeyError,
    message_from_stub,
    message_stub,
)
from site_client.courier.newcomer import Newcomer
from site_client.courier.outage import Outage
from site_client.files import write_atomically
from site_client.site import SiteFolder, SiteSettings
from site_client.spool import Spool

TURN_S = 0.1
SHORTEST_PULL_S, LONGEST_PULL_S = 0.2, 2.0
LONGEST_WAIT_S = 30.0
NEWCOMER_S = 0.5
LOG = logging.getLogger("cairn.courier")


@dataclass(frozen=True)
class Delivery:
    """An order handed to the worker whose reply is still awaited."""

    digest: str
    message: Message
    expires: float
    since: float


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
    """

    def __init__(self, folder: Path, settings: SiteSettings, spool: Spool, fleet: Fleet) -> None:
        self._folder = folder
        self._settings = settings
        self._spool = spool
        self._fleet = fleet
        self._inflight = folder / "inflight"
        self._inflight.mkdir(parents=True, exist_ok=True)
        self._deliveries = self._recall()
        self._next_heartbeat = 0.0
        self._next_pull = 0.0
        self._active = time.monotonic()

    def go_online(self) -> None:
        """Activate, remembering the node's id for the next start."""
        memory = node_id_file(self._folder)
        remembered = int(memory.read_text()) if memory.exists() else None
        node_id = self._fleet.activate(remembered)
        write_atomically(memory, f"{node_id}".encode())
        self._next_heartbeat = time.monotonic() + HEARTBEAT_S / 2

    def turn(self) -> None:
        """One turn of the loop: heartbeat, replies out, orders in.

        The spool is looked at every turn; the aggregator is asked the less often the longer
        nothing has happened, for every question costs it processor time. While the worker
        has an order, nobody expects the next one to be taken in at once.
        """
        now = time.monotonic()
        if now >= self._next_heartbeat:
            if not self._fleet.heartbeat():
                self.go_online()
            self._next_heartbeat = now + HEARTBEAT_S / 2
        for delivery in list(self._deliveries):
            self._try_to_answer(delivery)
        if now >= self._next_pull:
            self._take_in()
            quiet = time.monotonic() - self._active
            pause = min(max(quiet / 10, SHORTEST_PULL_S), LONGEST_PULL_S)
            self._next_pull = now + (LONGEST_PULL_S if self._deliveries else pause)

    def _take_in(self) -> None:
        """Take in the next order, if there is one; one of a run that is over costs nothing else."""
        try:
            with contained("a message", UnreachableError, OSError):
                incoming = self._fleet.pull()
        except (RunOverError, UnforeseenError) as error:
            LOG.warning("a message was not taken in: %s", error)
            return
        if incoming is None:
            return
        self._active = time.monotonic()
        try:
            with contained("a message", OSError):
                self._accept(incoming)
        except (VerificationError, UnforeseenError) as error:
            LOG.warning("a message was not taken in: %s", error)

    def _accept(self, incoming: Incoming) -> None:
        app = self._fleet.app_digest(incoming.run_id)
        if app != self._settings.app_sha256:
            LOG.error("refused a run whose app %s is not the pinned one", app[:12])
            self._fleet.push(code_content(ReplyCode.UNAPPROVED_APP), incoming.message, 0.0)
            return
        if incoming.fault is not None:
            LOG.error("refused a message: %s", incoming.fault)
            self._fleet.push(code_content(ReplyCode.BAD_ORDER), incoming.message, 0.0)
            return
        parcel = incoming.parcel
        digest = sha256_hex(parcel)
        note = {
            "stub": base64.b64encode(message_stub(incoming.message)).decode("ascii"),
            "expires": incoming.expires,
        }
        write_atomically(self._inflight / f"{digest}.json", json.dumps(note).encode())
        self._spool.put_order(parcel)
        # The same order in a second message: the first one's reply is no longer waited for.
        self._deliveries = [d for d in self._deliveries if d.digest != digest]
        self._deliveries.append(
            Delivery(digest, incoming.message, incoming.expires, time.monotonic())
        )
        LOG.info("order %s taken in, %d bytes", digest[:12], len(parcel))

    def _try_to_answer(self, delivery: Delivery) -> None:
        reply = self._spool.read_reply(delivery.digest)
        late = time.time() >= delivery.expires
        if reply is None and not late:
            return
        content = code_content(ReplyCode.NO_ANSWER) if reply is None else parcel_content(reply)
        try:
            self._fleet.push(content, delivery.message, time.monotonic() - delivery.since)
        except VerificationError as error:
            LOG.warning("order %s: nobody waits for the reply: %s", delivery.digest[:12], error)
        else:
            self._journal(delivery.digest, reply)
        self._deliveries.remove(delivery)
        self._active = time.monotonic()
        self._next_pull = 0.0
        (self._inflight / f"{delivery.digest}.json").unlink(missing_ok=True)
        if reply is not None:
            self._spool.finish_reply(delivery.digest)

    def _journal(self, digest: str, reply: bytes | None) -> None:
        """Note what the socket took, so that an auditor can hold it against the ledger."""
        if reply is None:
            LOG.warning("order %s: the worker gave no answer in time", digest[:12])
            return
        with (self._folder / "sent.jsonl").open("a", encoding="utf-8") as file:
            for name, data in unwrap(reply).items():
                if name.endswith(ENVELOPE_SUFFIX):
                    line = {"order": digest, "sha256": sha256_hex(data), "bytes": len(data)}
                    file.write(json.dumps(line, sort_keys=True) + "\n")
        LOG.info("order %s answered, %d bytes", digest[:12], len(reply))

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
        expires = float(note["expires"])
    except (ValueError, KeyError, TypeError, OverflowError, OSError, DecodeError) as error:
        raise InputDataError(
            "a note of an order in flight cannot be read", got=type(error).__name__
        ) from error
    return Delivery(path.stem, message, expires, time.monotonic())


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


def run_courier(site: SiteFolder, stop: threading.Event) -> None:
    """Carry until ``stop`` is set; only an unreachable aggregator is tried again.

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
    fleet = Fleet(settings.address, authority, node_key)
    courier = Courier(site.courier, settings, spool, fleet)
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
                        LOG.info("online as %s at %s", settings.site, settings.address)
                    courier.turn()
                stop.wait(TURN_S)
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

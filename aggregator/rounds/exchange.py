"""One round's conversation with the sites: orders out, replies in, each accepted or not.

A node may speak only for the site whose node key it holds, and what it says
must be proved by that site's ledger key. Every checkpoint that was accepted is
cosigned: the site's receipt, which travels with its next order. Merges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aggregator.admin.folder import AdmittedSite
from aggregator.intake.reply import Reply, Sender, open_reply
from aggregator.rounds.course import Course, Step
from aggregator.rounds.events import RoundStarted, SiteLate, SiteRejected, SiteReplied
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival, Transport
from aggregator.rounds.work import Work
from common.crypto.identity import SigningKey
from common.errors import CairnError, RefusedError
from common.ledger.durable import replace_durably
from common.ledger.notes import Checkpoint, parse_note
from common.ledger.proof import cosign
from common.model import weight_shapes
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.expected import Expected, Floors
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.parcel import wrap
from common.wire.transport import ORDER, RECEIPT, SIGNATURE

SHORTEST_POLL_S, LONGEST_POLL_S = 0.1, 1.5


@dataclass(frozen=True)
class Terms:
    """What round 0 and the run so far have settled; None where they have not yet.

    Attributes:
        key_id: of the sites' sketches.
        codec: identity that records must name.
        beside: documents that travel beside the order.
    """

    key_id: str | None = None
    codec: str | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Exchange:
    """The sites of one run and the way to them.

    Attributes:
        sites: admitted ones, by name.
        witness: signs orders and cosigns checkpoints.
        work: of the plan's kind; says what does not go together.
        excluded: sites that may not take part, since round 0 showed why.
        clock, sleep: seconds that only go up, and how to wait; passed in for tests.
    """

    store: RunStore
    transport: Transport
    sites: Mapping[str, AdmittedSite]
    witness: SigningKey
    course: Course
    work: Work
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    excluded: set[str] = field(default_factory=set)

    def ask(self, step: Step, order: bytes, terms: Terms) -> dict[str, Reply]:
        """Send an order to everybody online and gather until all answered or time is up.

        Returns:
            Accepted replies by site. Everything else is in the journal, with its reason.

        Raises:
            RefusedError: the sites' answers contradict each other and nobody can tell who is right.
        """
        began = self.clock()
        asked = set(self.sites) - self.excluded
        online = {n: site for n, site in self.transport.nodes().items() if site in asked}
        self.store.record(
            RoundStarted(
                round=step.round,
                phase=step.phase,
                order_bytes=len(order),
                sites=tuple(sorted(asked)),
            )
        )
        deadline = self.store.plan().rounds.deadline_s
        parcels = {n: self._parcel(order, s, terms.beside) for n, s in online.items()}
        self.transport.send(parcels, deadline)
        replies: dict[str, Reply] = {}
        heard: set[str] = set()
        while online and self.clock() < began + deadline:
            arrivals = [a for a in self.transport.receive() if a.node in online]
            for arrival in arrivals:
                site = online.pop(arrival.node)
                heard.add(site)
                reply = self._take(step, site, arrival, terms, began)
                if reply is not None:
                    replies[site] = reply
            if online and not arrivals:
                self.sleep(pause(self.clock() - began))
        for site in sorted(asked - heard):
            self.store.record(SiteLate(round=step.round, site=site))
            self.course.blemish(step.round, site, "was absent or late")
        for site, reason in self.work.odd(step, replies).items():
            self.reject(step, site, reason)
            del replies[site]
        return replies

    def reject(self, step: Step, site: str, reason: str, size: int = 0) -> None:
        """Journal a rejection; the run can no longer be COMPLETED."""
        self.store.record(SiteRejected(round=step.round, site=site, reason=reason, bytes=size))
        self.course.blemish(step.round, site, f"was rejected: {reason}")

    def _parcel(self, order: bytes, site: str, beside: Mapping[str, bytes]) -> bytes:
        """An order for one site, with its newest receipt and what belongs to it."""
        parts = {ORDER: order, SIGNATURE: self.witness.sign(SIGNATURE_CONTEXT + order)}
        receipt = self.sites[site].checkpoint_file
        if receipt.exists():
            parts[RECEIPT] = receipt.read_bytes()
        return wrap({**parts, **beside})

    def _take(
        self, step: Step, site: str, arrival: Arrival, terms: Terms, began: float
    ) -> Reply | None:
        """What a node sent for its site, if it is accepted."""
        if arrival.parcel is None:
            self._note_failure(step, site, arrival.code, self.clock() - began)
            return None
        admitted = self.sites[site]
        sender = Sender(admitted.ledger_key, last_seen(admitted))
        try:
            reply = open_reply(arrival.parcel, sender, self._expected(step, site, terms))
        except CairnError as error:
            self.reject(step, site, str(error), len(arrival.parcel))
            return None
        note = cosign(reply.proven.note, self.witness, datetime.now(UTC))
        replace_durably(admitted.checkpoint_file, note)
        self.store.archive(step.round, site, reply.parts)
        if reply.report.code is ReplyCode.OK and step.phase == "begin":
            try:
                self.work.check_start(reply)
            except RefusedError as error:
                self.excluded.add(site)
                self.reject(step, site, str(error), sum(reply.envelope_bytes.values()))
                return None
        self._note_reply(step, reply, self.clock() - began)
        return reply if reply.report.code is ReplyCode.OK else None

    def _expected(self, step: Step, site: str, terms: Terms) -> Expected:
        plan = self.course.plan
        return Expected(
            site=site,
            run=self.store.name,
            round=step.round,
            phase=step.phase,
            plan=plan,
            shapes=weight_shapes(plan),
            floors=Floors.of(plan),
            key_id=terms.key_id,
            codec=terms.codec,
        )

    def _note_failure(self, step: Step, site: str, code: ReplyCode, seconds: float) -> None:
        self.store.record(
            SiteReplied(
                round=step.round, site=site, code=code, accepted=False, bytes=0, seconds=seconds
            )
        )
        self.course.blemish(step.round, site, EXPLANATIONS[code])

    def _note_reply(self, step: Step, reply: Reply, seconds: float) -> None:
        report, sizes = reply.report, reply.envelope_bytes
        accepted = report.code is ReplyCode.OK
        self.store.record(
            SiteReplied(
                round=step.round,
                site=reply.site,
                code=report.code,
                accepted=accepted,
                bytes=sum(sizes.values()),
                records=sizes,
                images=report.images,
                transitions=report.transitions,
                updates=report.updates,
                loss_milli=report.loss_milli,
                train_ms=report.train_ms,
                seconds=seconds,
                ledger_size=reply.proven.checkpoint.size,
                errors=report.errors,
            )
        )
        if not accepted:
            self.course.blemish(step.round, reply.site, EXPLANATIONS[report.code])


def pause(waited: float) -> float:
    """How long to wait before asking again: a tenth of the time waited so far, within bounds.

    Every question costs the SuperLink some 20 ms of processor time; asking five times a second
    through long rounds took more of a small machine than anything else here.
    """
    return min(max(waited / 10, SHORTEST_POLL_S), LONGEST_POLL_S)


def last_seen(site: AdmittedSite) -> Checkpoint | None:
    """The newest checkpoint of a site that was cosigned, or None before the first."""
    if not site.checkpoint_file.exists():
        return None
    return parse_note(site.checkpoint_file.read_bytes()).checkpoint

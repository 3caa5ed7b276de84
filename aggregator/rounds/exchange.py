"""One round's conversation with the sites: orders out, replies in, each accepted or not.

Knows which node speaks for which site once a reply has proved it by the
site's ledger key, and cosigns every checkpoint it accepted. It merges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aggregator.admin.folder import AdmittedSite
from aggregator.intake.outliers import oversized
from aggregator.intake.reply import Reply, Sender, open_reply
from aggregator.rounds.course import Agreement, Course, Step
from aggregator.rounds.events import RoundStarted, SiteLate, SiteRejected, SiteReplied
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival, Transport
from common.crypto.identity import SigningKey
from common.errors import CairnError, RefusedError
from common.ledger.durable import replace_durably
from common.ledger.notes import Checkpoint, parse_note
from common.ledger.proof import cosign
from common.model import initial_weights, weight_shapes, weights_digest
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.parcel import wrap
from common.wire.rules import Expected, Floors
from common.wire.transport import ORDER, RECEIPT, SIGNATURE

POLL_S = 0.2


@dataclass
class Exchange:
    """The sites of one run, as they have made themselves known so far.

    Attributes:
        witness: signs orders and cosigns checkpoints.
        site_of: node to site, once proven.
        excluded: sites that may not take part, since round 0 showed why.
        clock, sleep: seconds that only go up, and how to wait; passed in for tests.
    """

    store: RunStore
    transport: Transport
    sites: Mapping[str, AdmittedSite]
    witness: SigningKey
    course: Course
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    site_of: dict[int, str] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)

    def ask(self, step: Step, order: bytes, agreement: Agreement | None) -> dict[str, Reply]:
        """Send an order to everybody online and gather until all answered or time is up.

        Returns:
            Accepted replies by site. Everything else is in the journal, with its reason.
        """
        began = self.clock()
        nodes = [n for n in self.transport.nodes() if self.site_of.get(n) not in self.excluded]
        asked = set(self.sites) - self.excluded
        self.store.record(
            RoundStarted(
                round=step.round,
                phase=step.phase,
                order_bytes=len(order),
                sites=tuple(sorted(asked)),
            )
        )
        deadline = self.store.plan().rounds.deadline_s
        self.transport.send({node: self._parcel(order, node) for node in nodes}, deadline)
        replies: dict[str, Reply] = {}
        heard: set[str] = set()
        waiting = set(nodes)
        while waiting and self.clock() < began + deadline:
            arrivals = [a for a in self.transport.receive() if a.node in waiting]
            for arrival in arrivals:
                waiting.discard(arrival.node)
                site, reply = self._take(step, arrival, agreement, began)
                heard.add(site)
                if reply is not None:
                    replies[site] = reply
            if waiting and not arrivals:
                self.sleep(POLL_S)
        for site in sorted(asked - heard):
            self.store.record(SiteLate(round=step.round, site=site))
            self.course.blemish(step.round, site, "was absent or late")
        return self._without_outliers(step, replies)

    def reject(self, step: Step, site: str, reason: str) -> None:
        """Journal a rejection; the run can no longer be COMPLETED."""
        self.store.record(SiteRejected(round=step.round, site=site, reason=reason))
        self.course.blemish(step.round, site, f"was rejected: {reason}")

    def _parcel(self, order: bytes, node: int) -> bytes:
        """An order for one node, with the site's receipt once we know who it is."""
        parts = {ORDER: order, SIGNATURE: self.witness.sign(SIGNATURE_CONTEXT + order)}
        site = self.sites.get(self.site_of.get(node, ""))
        if site is not None and site.checkpoint_file.exists():
            parts[RECEIPT] = site.checkpoint_file.read_bytes()
        return wrap(parts)

    def _take(
        self, step: Step, arrival: Arrival, agreement: Agreement | None, began: float
    ) -> tuple[str, Reply | None]:
        """The site an arrival came from, as far as known, and its reply if it was accepted."""
        site = self.site_of.get(arrival.node, f"node-{arrival.node}")
        if arrival.parcel is None:
            self._note_failure(step, site, arrival.code, self.clock() - began)
            return site, None
        # A node that has proved to be one site cannot speak for another.
        senders = {
            name: Sender(admitted.ledger_key, last_seen(admitted))
            for name, admitted in self.sites.items()
            if self.site_of.get(arrival.node, name) == name
        }
        try:
            reply = open_reply(
                arrival.parcel, senders, lambda name: self._expected(step, name, agreement)
            )
        except CairnError as error:
            self.reject(step, site, str(error))
            return site, None
        site = reply.site
        self.site_of[arrival.node] = site
        note = cosign(reply.proven.note, self.witness, datetime.now(UTC))
        replace_durably(self.sites[site].checkpoint_file, note)
        self.store.archive(step.round, site, reply.parts)
        accepted = reply.report.code is ReplyCode.OK
        if accepted and step.phase == "begin":
            try:
                self._check_start(reply)
            except RefusedError as error:
                self.excluded.add(site)
                self.reject(step, site, str(error))
                return site, None
        self._note_reply(step, reply, self.clock() - began)
        return site, reply if accepted else None

    def _expected(self, step: Step, site: str, agreement: Agreement | None) -> Expected:
        plan = self.course.plan
        return Expected(
            site=site,
            run=self.store.name,
            round=step.round,
            phase=step.phase,
            plan=plan,
            shapes=weight_shapes(plan),
            floors=Floors.of(plan),
            key_id=agreement.key_id if agreement else None,
            codec=agreement.codec if agreement else None,
        )

    def _check_start(self, reply: Reply) -> None:
        """Another digest means another release or a broken machine: noticed before any merge."""
        expected = weights_digest(initial_weights(self.course.plan))
        if reply.report.weights_sha256 != expected:
            raise RefusedError(
                "a site starts from other weights",
                field="weights_sha256",
                expected=expected[:12],
                got="another digest",
                advice="Update that site to the same release of Cairn",
            )

    def _without_outliers(self, step: Step, replies: dict[str, Reply]) -> dict[str, Reply]:
        updates = {s: r.update.arrays for s, r in replies.items() if r.update is not None}
        for site, ratio in oversized(updates).items():
            self.reject(step, site, f"its update is {ratio:.0f} times the median update's norm")
            del replies[site]
        return replies

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


def last_seen(site: AdmittedSite) -> Checkpoint | None:
    """The newest checkpoint of a site that was cosigned, or None before the first."""
    if not site.checkpoint_file.exists():
        return None
    return parse_note(site.checkpoint_file.read_bytes()).checkpoint

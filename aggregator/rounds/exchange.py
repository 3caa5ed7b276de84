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
from aggregator.rounds.events import (
    AggregatorRestored,
    RoundStarted,
    SiteLate,
    SiteRejected,
    SiteReplied,
    SiteRestored,
    SitesAwaited,
)
from aggregator.rounds.store import RoundState, RunStore
from aggregator.rounds.transport import Arrival, Transport
from aggregator.rounds.work import Work
from common.arrivals.boundary import contained
from common.arrivals.files import read_bounded
from common.arrivals.quarantine import Quarantine
from common.crypto.identity import SigningKey
from common.errors import CairnError, RefusedError
from common.ledger.durable import replace_durably
from common.ledger.notes import MAX_NOTE_BYTES, Checkpoint, parse_note
from common.ledger.proof import StaleProofError, cosign
from common.ledger.records import LedgerRecord
from common.model import shared_shapes
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.expected import Expected, RecordFloors
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.parcel import MAX_PARCEL_BYTES, wrap
from common.wire.transport import ORDER, RECEIPT, SIGNATURE, TURN, rotation_part, sum_part
from common.wire.turn import TurnNote, sign_turn

SHORTEST_POLL_S, LONGEST_POLL_S = 0.1, 1.5
STOP_S = 20.0
"""How long sites have to record that a run was stopped."""
SHORTEST_APPROVAL_S, LONGEST_APPROVAL_S = 1.0, 30.0


@dataclass(frozen=True)
class Terms:
    """Terms that round 0 and the run so far have settled; None where they have not yet.

    Attributes:
        key_id: of the sites' sketches.
        codec: identity that records must name.
        link: of the chain of sums that the order starts from.
        state: that the run has come to; None before round 0.
        beside: documents that travel beside the order.
    """

    link: str
    key_id: str | None = None
    codec: str | None = None
    state: RoundState | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """The reason why an answer is not accepted, until the site may be asked again.

    Attributes:
        code: the site's or the courier's own number; None if the answer did not hold,
            which is in the journal already.
        reply: that says so, where there is one.
        seconds: since it was asked.
    """

    code: ReplyCode | None
    reply: Reply | None = None
    seconds: float = 0.0


@dataclass
class SiteExchange:
    """The sites of one run and the way to them.

    Attributes:
        sites: of the run's roster and still admitted, by name.
        caps: most samples that each may count as.
        turn: the run's, said beside every order.
        witness: signs orders and cosigns checkpoints.
        work: of the plan's kind; says what does not go together.
        quarantine: where replies are put that were refused; None: nowhere.
        excluded: sites that may not take part, since round 0 showed why.
        answered: last round of which a site's answer arrived whole: it has the sums of
            all rounds before that one.
        clock, sleep: seconds that only go up, and how to wait; passed in for tests.
        rotations: exchanges of the witness's key, which travel with every order.
    """

    store: RunStore
    transport: Transport
    sites: Mapping[str, AdmittedSite]
    caps: Mapping[str, int]
    witness: SigningKey
    turn: int
    course: Course
    work: Work
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    quarantine: Quarantine | None = None
    excluded: set[str] = field(default_factory=set)
    answered: dict[str, int] = field(default_factory=dict)
    rotations: tuple[bytes, ...] = ()
    _refused: dict[str, Refusal] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)

    def ask(self, step: Step, order: bytes, terms: Terms) -> dict[str, Reply]:
        """Send an order to everybody online and gather until all answered or time is up.

        A site that lacks earlier sums is sent them and asked again at once. Where people
        have to approve the plan first, their sites are asked again until they have.

        Returns:
            Accepted replies by site. Everything else is in the journal, with its reason.

        Raises:
            RefusedError: the sites' answers contradict each other and nobody can tell who is right.
        """
        addressed = set(self.sites) - self.excluded
        self._refused, self._stale = {}, set()
        self.store.record(
            RoundStarted(
                round=step.round,
                phase=step.phase,
                order_bytes=len(order) + len(terms.state.sum if terms.state else b""),
                sites=tuple(sorted(addressed)),
            )
        )
        replies = self._gather(step, order, terms, addressed)
        if lagging := self._said(ReplyCode.BEHIND):
            for site in lagging:
                self.answered.pop(site, None)
            replies |= self._gather(step, order, terms, lagging)
        if step.phase == "begin":
            replies |= self._until_approved(step, order, terms)
        self._note_the_rest(step, addressed - replies.keys())
        for site, reason in self._odd(step, replies, terms).items():
            self.reject(step, site, reason)
            del replies[site]
        return replies

    def refusing_the_sum(self) -> set[str]:
        """Sites that refused the last order because its sum does not hold."""
        return self._said(ReplyCode.FORGED_SUM)

    def reject(
        self, step: Step, site: str, reason: str, size: int = 0, put_aside: str = ""
    ) -> None:
        """Journal a rejection; the run can no longer be COMPLETED."""
        self.store.record(
            SiteRejected(
                round=step.round, site=site, reason=reason, bytes=size, put_aside=put_aside
            )
        )
        self.course.blemish(step.round, site, f"was rejected: {reason}")

    def miss(self, step: Step, site: str) -> None:
        """Journal that a site is not in a round, and to blame for nothing."""
        self.store.record(SiteLate(round=step.round, site=site))
        self.course.blemish(step.round, site, "was absent or late")

    def tell_stop(self, step: Step, order: bytes) -> set[str]:
        """Tell every site that is online that the run is over; returns those that recorded it.

        Args:
            step: of the order.
            order: any of the run's; beside it lies the signed word that ends the run.
        """
        self._refused, self._stale = {}, set()
        self._gather(step, order, Terms(""), set(self.sites), stop=True)
        return self._said(ReplyCode.RUN_STOPPED)

    def _gather(
        self, step: Step, order: bytes, terms: Terms, addressed: set[str], *, stop: bool = False
    ) -> dict[str, Reply]:
        """One order out, and what came back and was accepted until the deadline.

        A site whose proof is older than what we have seen of it since proves anew, once.
        """
        stale = set(self._stale)
        replies = self._gather_once(step, order, terms, addressed, stop=stop)
        if again := self._stale - stale:
            replies |= self._gather_once(step, order, terms, again, stop=stop)
        return replies

    def _gather_once(
        self, step: Step, order: bytes, terms: Terms, addressed: set[str], *, stop: bool
    ) -> dict[str, Reply]:
        began = self.clock()
        for site in addressed:
            self._refused.pop(site, None)
        online = {n: site for n, site in self.transport.nodes().items() if site in addressed}
        deadline = self.store.plan().rounds.deadline_s
        if stop:
            deadline = min(deadline, STOP_S)
        parcels: dict[int, bytes] = {}
        for node, site in list(online.items()):
            try:
                with contained(f"the order for {site}"):
                    parcels[node] = self._parcel(step, order, site, terms.beside, stop=stop)
            except CairnError as error:
                self._turn_away(step, online.pop(node), error)
        self.transport.send(parcels, deadline)
        replies: dict[str, Reply] = {}
        while online and self.clock() < began + deadline:
            arrivals = [a for a in self.transport.receive() if a.node in online]
            for arrival in arrivals:
                if arrival.node not in online:
                    continue  # it answered twice: its first answer counts
                site = online.pop(arrival.node)
                reply = self._take(step, site, arrival, terms, began)
                if reply is not None:
                    replies[site] = reply
            if online and not arrivals:
                self.sleep(pause(self.clock() - began))
        return replies

    def _until_approved(self, step: Step, order: bytes, terms: Terms) -> dict[str, Reply]:
        """Ask again, ever less often, where a person has to approve the plan."""
        began, replies = self.clock(), dict[str, Reply]()
        announced: set[str] = set()
        while waiting := self._said(ReplyCode.PLAN_WAITS):
            waited = self.clock() - began
            if waited >= self.store.options().approval_s:
                break
            if waiting != announced:
                sites = tuple(sorted(waiting))
                self.store.record(SitesAwaited(what="approval", sites=sites))
                announced = waiting
            self.sleep(approval_pause(waited))
            replies |= self._gather(step, order, terms, waiting)
        if announced:
            self.store.record(SitesAwaited(what="approval", sites=()))
        return replies

    def _said(self, code: ReplyCode) -> set[str]:
        return {site for site, refusal in self._refused.items() if refusal.code is code}

    def _note_the_rest(self, step: Step, sites: set[str]) -> None:
        """Journal who answered with a number, was late, or was rejected already."""
        for site in sorted(sites):
            refusal = self._refused.get(site)
            if refusal is None:
                self.miss(step, site)
            elif refusal.reply is not None:
                self._note_reply(step, refusal.reply, refusal.seconds)
            elif refusal.code is not None:
                self._note_failure(step, site, refusal.code, refusal.seconds)

    def _odd(self, step: Step, replies: Mapping[str, Reply], terms: Terms) -> dict[str, str]:
        """Sites whose accepted records do not go with the run's, or with the others'."""
        strayed = {
            site: "it worked from other sums than the run's"
            for site, reply in replies.items()
            if reply.report.link != terms.link
        }
        rest = {site: reply for site, reply in replies.items() if site not in strayed}
        return strayed | self.work.odd(step, terms.state, rest)

    def _parcel(
        self,
        step: Step,
        order: bytes,
        site: str,
        attachments: Mapping[str, bytes],
        *,
        stop: bool,
    ) -> bytes:
        """Return an order for one site: turn, newest receipt, and the sums that it lacks."""
        turn = TurnNote(run=self.store.name, turn=self.turn, stop=stop)
        parts = {
            ORDER: order,
            SIGNATURE: self.witness.sign(SIGNATURE_CONTEXT + order),
            TURN: sign_turn(turn, self.witness),
        }
        parts |= {rotation_part(n): note for n, note in enumerate(self.rotations, start=1)}
        receipt = self.sites[site].checkpoint_file
        if receipt.exists():
            parts[RECEIPT] = receipt.read_bytes()
        for number in range(max(1, self.answered.get(site, 0)), step.round):
            total = self.store.sum_of(number)
            if total is not None:
                parts[sum_part(number)] = total
        parcel = wrap({**parts, **attachments})
        if len(parcel) > MAX_PARCEL_BYTES:
            raise RefusedError(
                "what a site lacks is too much for one order",
                field=site,
                expected=f"at most {MAX_PARCEL_BYTES} bytes of sums",
                got=f"{len(parcel)}",
                advice="It missed too many rounds of this run; it can take part in the next",
            )
        return parcel

    def _take(
        self, step: Step, site: str, arrival: Arrival, terms: Terms, began: float
    ) -> Reply | None:
        """Take what a node sent for its site, if it is accepted."""
        seconds = self.clock() - began
        if arrival.fault is not None:
            self._turn_away(step, site, arrival.fault)
            return None
        if arrival.parcel is None:
            self._refused[site] = Refusal(arrival.code, seconds=seconds)
            return None
        try:
            # One site's reply, whatever it is, costs that site its share and no other.
            with contained(f"a reply of {site}", OSError):
                reply = self._open(step, site, arrival.parcel, terms)
        except StaleProofError as error:
            if site in self._stale:
                self.reject(
                    step,
                    site,
                    "asked again, the site does not prove its ledger from our newest receipt: it "
                    "was rolled back, or the site does not take our receipts (compare witness "
                    f"keys by telephone); {error.diagnosis}",
                    len(arrival.parcel),
                )
            self._stale.add(site)
            self._refused[site] = Refusal(None)
            return None
        except CairnError as error:
            self._turn_away(step, site, error, arrival.parcel)
            return None
        if reply.report.code is not ReplyCode.OK:
            self._refused[site] = Refusal(reply.report.code, reply, seconds)
            return None
        if step.phase == "begin":
            try:
                with contained(f"the start of {site}"):
                    self.work.check_start(reply)
            except CairnError as error:
                self.excluded.add(site)
                self.reject(step, site, str(error), sum(reply.envelope_bytes.values()))
                self._refused[site] = Refusal(None)
                return None
        self.answered[site] = step.round
        self._note_reply(step, reply, seconds)
        return reply

    def _open(self, step: Step, site: str, parcel: bytes, terms: Terms) -> Reply:
        """Return a site's reply, archived and with its receipt made."""
        admitted = self.sites[site]
        sender = Sender(admitted.ledger_key, last_seen(admitted), self.witness.public)
        reply = open_reply(parcel, sender, self._expected(step, site, terms))
        if reply.proven.restored is not None:
            self._note_restored(step, admitted, reply.proven.restored)
        if reply.proven.forgotten is not None:
            self._note_forgotten(step, admitted, reply.proven.forgotten)
        note = cosign(reply.proven.note, self.witness, datetime.now(UTC))
        parse_note(note)  # what the site must be able to read as a receipt
        replace_durably(admitted.checkpoint_file, note)
        self.store.archive(step.round, site, reply.parts)
        return reply

    def _turn_away(
        self, step: Step, site: str, error: CairnError, parcel: bytes | None = None
    ) -> None:
        """Leave a site out of this round for what it sent, which is kept for people to look at."""
        put_aside = ""
        if parcel is not None and self.quarantine is not None:
            put_aside = self.quarantine.put(
                parcel, error, culprit=site, what="reply", now=datetime.now(UTC)
            ).sha256
        self.reject(step, site, str(error), len(parcel or b""), put_aside)
        self._refused[site] = Refusal(None)

    def _note_restored(self, step: Step, site: AdmittedSite, restored: LedgerRecord) -> None:
        """Journal the gap in a site's ledger, and keep our evidence of what is lost."""
        seen = site.checkpoint_file
        # The root, too: what is lost after a second restore may have the same size.
        lost = f"{restored.lost_size}-{(restored.lost_root or '')[:16]}"
        kept = seen.with_name(f"{seen.stem}.lost-{lost}{seen.suffix}")
        replace_durably(kept, seen.read_bytes())
        self.store.record(
            SiteRestored(
                round=step.round,
                site=site.name,
                lost_size=restored.lost_size or 0,
                seq=restored.seq,
                person=restored.person or "",
            )
        )

    def _note_forgotten(self, step: Step, site: AdmittedSite, forgotten: Checkpoint) -> None:
        """Journal that this aggregator goes on from a backup of its own."""
        remembered = last_seen(site)
        self.store.record(
            AggregatorRestored(
                round=step.round,
                site=site.name,
                remembered=0 if remembered is None else remembered.size,
                cosigned=forgotten.size,
            )
        )

    def _expected(self, step: Step, site: str, terms: Terms) -> Expected:
        plan = self.course.plan
        return Expected(
            site=site,
            run=self.store.name,
            round=step.round,
            phase=step.phase,
            plan=plan,
            shapes=shared_shapes(plan),
            floors=RecordFloors.of(plan),
            key_id=terms.key_id,
            codec=terms.codec,
            samples=self.caps[site],
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
    """Choose the wait before asking again: a tenth of the time waited so far, within bounds.

    Every question costs the SuperLink some 20 ms of processor time; asking five times a second
    through long rounds took more of a small machine than anything else here.
    """
    return min(max(waited / 10, SHORTEST_POLL_S), LONGEST_POLL_S)


def approval_pause(waited: float) -> float:
    """Choose the wait until a site is asked again whether its people have approved the plan."""
    return min(max(waited / 10, SHORTEST_APPROVAL_S), LONGEST_APPROVAL_S)


def last_seen(site: AdmittedSite) -> Checkpoint | None:
    """Return the newest checkpoint of a site that was cosigned, or None before the first."""
    if not site.checkpoint_file.exists():
        return None
    data = read_bounded(site.checkpoint_file, MAX_NOTE_BYTES, "a site's checkpoint")
    return parse_note(data).checkpoint

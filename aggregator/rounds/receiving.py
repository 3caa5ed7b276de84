"""Receiving one reply: opened, proved, cosigned, archived, measured; then let go.

A node may speak only for the site whose node key it holds, and what it says must be proved
by that site's ledger key. Every checkpoint that was accepted is cosigned: the site's
receipt, which travels with its next order. One reply at a time is held here, and of an
accepted one nothing is left but an ``AcceptedAnswer``. Whatever one site sends costs that site its
share and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aggregator.intake.reply import Reply, Sender, open_head, open_reply
from aggregator.rounds.answers import AcceptedAnswer, RelayedAnswer
from aggregator.rounds.course import Step
from aggregator.rounds.events import SiteReplied
from aggregator.rounds.minutes import Minutes, words_of, words_of_number
from aggregator.rounds.parties import RunSite
from aggregator.rounds.store import RoundState, RunStore
from aggregator.rounds.transport import Arrival
from aggregator.rounds.work import Work
from common.arrivals.boundary import contained
from common.arrivals.quarantine import Quarantine
from common.crypto.identity import SigningKey
from common.errors import CairnError, RefusedError
from common.ledger.durable import replace_durably
from common.ledger.notes import parse_note
from common.ledger.proof import StaleProofError, cosign
from common.model import shared_shapes
from common.plan import FederationPlan
from common.wire.codes import ReplyCode
from common.wire.expected import Expected, RecordFloors


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
        said: the journal's line about it, once it counts; None where it has one.
    """

    code: ReplyCode | None
    said: SiteReplied | None = None


@dataclass
class Receiving:
    """Takes what nodes send for the sites of one run.

    Attributes:
        plan: of the run.
        sites: of the run, by name.
        caps: most samples that each may count as.
        witness: cosigns checkpoints.
        quarantine: where replies are put that were refused; None: nowhere.
        answered: last round of which a site's answer arrived whole.
        excluded: sites that may not take part, since round 0 showed why.
        refused: by site, why its last answer is not accepted.
        stale: sites whose proof was older than what we have seen, and who prove anew.
    """

    store: RunStore
    plan: FederationPlan
    sites: Mapping[str, RunSite]
    caps: Mapping[str, int]
    witness: SigningKey
    work: Work
    minutes: Minutes
    quarantine: Quarantine | None
    answered: dict[str, int]
    excluded: set[str] = field(default_factory=set)
    refused: dict[str, Refusal] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Forget what was said to the last order."""
        self.refused, self.stale = {}, set()

    def said(self, code: ReplyCode) -> set[str]:
        """Sites whose last answer was this number."""
        return {site for site, refusal in self.refused.items() if refusal.code is code}

    def take(
        self,
        step: Step,
        site: str,
        arrival: Arrival,
        terms: Terms,
        seconds: float,
        passed: RelayedAnswer | None = None,
    ) -> AcceptedAnswer | None:
        """Take what a node sent for its site; None if it is not accepted.

        Args:
            step: of the order.
            site: whose node it is.
            arrival: what it sent.
            terms: of the order.
            seconds: since it was asked.
            passed: how it came by a relay, which keeps the rest of it.
        """
        if arrival.fault is not None:
            self.turn_away(step, site, arrival.fault)
            return None
        if arrival.parcel is None:
            said = words_of_number(step, site, arrival.code, seconds)
            self.refused[site] = Refusal(arrival.code, said)
            return None
        try:
            # One site's reply, whatever it is, costs that site its share and no other.
            with contained(f"a reply of {site}", OSError):
                reply = self._open(step, site, arrival.parcel, terms, passed)
                measure = self.work.measure(step, reply)
        except StaleProofError as error:
            self.note_stale(step, site, error.diagnosis, len(arrival.parcel))
            return None
        except CairnError as error:
            self.turn_away(step, site, _by_way_of(error, passed), arrival.parcel)
            return None
        if passed is not None and measure is None:
            measure = passed.word.norm
        said = words_of(step, reply, seconds, passed)
        if not said.accepted:
            self.refused[site] = Refusal(said.code, said)
            return None
        if step.phase == "begin" and not self._starts_alike(step, reply):
            return None
        self.answered[site] = step.round
        self.minutes.replied(said)
        return AcceptedAnswer.of(reply, self.store, step.round, measure, passed)

    def turn_away(
        self, step: Step, site: str, error: CairnError, parcel: bytes | None = None
    ) -> None:
        """Leave a site out of this round for what it sent, which is kept for people to look at."""
        put_aside = ""
        if parcel is not None and self.quarantine is not None:
            put_aside = self.quarantine.put(
                parcel, error, culprit=site, what="reply", now=datetime.now(UTC)
            ).sha256
        self.minutes.reject(step, site, str(error), len(parcel or b""), put_aside)
        self.refused[site] = Refusal(None)

    def _starts_alike(self, step: Step, reply: Reply) -> bool:
        """Leave a site out of the run that starts from something else than the others."""
        try:
            with contained(f"the start of {reply.site}"):
                self.work.check_start(reply)
        except CairnError as error:
            self.excluded.add(reply.site)
            self.minutes.reject(step, reply.site, str(error), sum(reply.envelope_bytes.values()))
            self.refused[reply.site] = Refusal(None)
            return False
        return True

    def note_stale(self, step: Step, site: str, diagnosis: str, size: int) -> None:
        """Let a site prove anew, once."""
        if site in self.stale:
            self.minutes.reject(
                step,
                site,
                "asked again, the site does not prove its ledger from our newest receipt: it "
                "was rolled back, or the site does not take our receipts (compare witness "
                f"keys by telephone); {diagnosis}",
                size,
            )
        self.stale.add(site)
        self.refused[site] = Refusal(None)

    def _open(
        self, step: Step, site: str, parcel: bytes, terms: Terms, passed: RelayedAnswer | None
    ) -> Reply:
        """Return a site's reply, archived and with its receipt made."""
        asked = self.sites[site]
        sender = Sender(asked.ledger_key, asked.last_seen(), self.witness.public)
        expected = self._expected(step, site, terms)
        if passed is None:
            reply = open_reply(parcel, sender, expected)
        else:
            reply = open_head(parcel, sender, expected)
            if reply.report.code is ReplyCode.OK:
                passed.require_whole(self.plan, step)
        if reply.proven.restored is not None:
            self.minutes.restored(step, asked, reply.proven.restored)
        if reply.proven.forgotten is not None:
            self.minutes.forgotten(step, asked, reply.proven.forgotten)
        note = cosign(reply.proven.note, self.witness, datetime.now(UTC))
        parse_note(note)  # what the site must be able to read as a receipt
        replace_durably(asked.checkpoint_file, note)
        self.store.archive(step.round, site, reply.parts)
        return reply

    def _expected(self, step: Step, site: str, terms: Terms) -> Expected:
        return Expected(
            site=site,
            run=self.store.name,
            round=step.round,
            phase=step.phase,
            plan=self.plan,
            shapes=shared_shapes(self.plan),
            floors=RecordFloors.of(self.plan),
            key_id=terms.key_id,
            codec=terms.codec,
            samples=self.caps[site],
        )


def _by_way_of(error: CairnError, passed: RelayedAnswer | None) -> CairnError:
    """Say by which relay it came: either may be at fault."""
    if passed is None:
        return error
    return RefusedError(f"what {passed.relay} passed on of it does not hold", got=str(error))

"""What a run's journal says of its sites, and what that means for the run's verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aggregator.intake.reply import Reply
from aggregator.rounds.answers import RelayedAnswer
from aggregator.rounds.course import Course, Step
from aggregator.rounds.events import (
    AggregatorRestored,
    RelayFailed,
    SiteLate,
    SiteRejected,
    SiteReplied,
    SiteRestored,
)
from aggregator.rounds.parties import RunSite
from aggregator.rounds.store import RunStore
from common.ledger.durable import replace_durably
from common.ledger.notes import Checkpoint
from common.ledger.records import LedgerRecord
from common.wire.codes import EXPLANATIONS, ReplyCode


@dataclass(frozen=True)
class Minutes:
    """Writes the journal's lines about sites.

    Attributes:
        course: of the run: whoever failed, was late or was rejected is no longer spotless.
    """

    store: RunStore
    course: Course

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

    def late(self, step: Step, site: str) -> None:
        """Journal that a site was absent, or had not answered in time."""
        self.store.record(SiteLate(round=step.round, site=site))
        self.course.blemish(step.round, site, "was absent or late")

    def relay_failed(self, step: Step, relay: str, reason: str, sites: Iterable[str]) -> None:
        """Journal that a relay did not do what it was asked; its sites are noted by themselves."""
        names = tuple(sorted(sites))
        self.store.record(RelayFailed(round=step.round, relay=relay, reason=reason, sites=names))

    def replied(self, said: SiteReplied) -> None:
        """Journal what a site said."""
        self.store.record(said)
        if not said.accepted:
            self.course.blemish(said.round, said.site, EXPLANATIONS[said.code])

    def restored(self, step: Step, site: RunSite, restored: LedgerRecord) -> None:
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

    def forgotten(self, step: Step, site: RunSite, forgotten: Checkpoint) -> None:
        """Journal that this aggregator goes on from a backup of its own."""
        remembered = site.last_seen()
        self.store.record(
            AggregatorRestored(
                round=step.round,
                site=site.name,
                remembered=0 if remembered is None else remembered.size,
                cosigned=forgotten.size,
            )
        )


def words_of(
    step: Step, reply: Reply, seconds: float, passed: RelayedAnswer | None = None
) -> SiteReplied:
    """Return the journal's line about a reply that was read whole."""
    report, sizes = reply.report, reply.envelope_bytes
    if passed is not None:
        sizes |= passed.sizes
    return SiteReplied(
        round=step.round,
        site=reply.site,
        code=report.code,
        accepted=report.code is ReplyCode.OK,
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
        relay="" if passed is None else passed.relay,
    )


def words_of_number(step: Step, site: str, code: ReplyCode, seconds: float) -> SiteReplied:
    """Return the journal's line about a courier's own number."""
    return SiteReplied(
        round=step.round, site=site, code=code, accepted=False, bytes=0, seconds=seconds
    )

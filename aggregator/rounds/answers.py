"""Answers that were accepted: a few facts of each here, every byte of them in the archive.

A round is merged in two passes. While replies arrive, each is opened, verified, measured
and archived, and let go: what stays is an ``AcceptedAnswer``. Once all are in and compared, the
records that are merged are read from the archive, one at a time, in order of the sites'
names. So the aggregator holds the arrays of one site beside the sum, however many sites
there are. Of an answer that came by a relay, the records that are added lie in the relay's
archive and never come here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aggregator.intake.reply import Reply
from aggregator.rounds.course import Step
from aggregator.rounds.store import RunStore
from common.canonical import sha256_hex
from common.errors import RefusedError
from common.plan import FederationPlan
from common.wire.envelope import Envelope, decode_again
from common.wire.records import ModelUpdate
from common.wire.relayed import Answered
from common.wire.rules import summed_of
from common.wire.transport import ENVELOPE_SUFFIX

Measure = float | str | None
"""What of an answer is compared with the others': a length, a digest, or nothing."""


@dataclass(frozen=True)
class RelayedAnswer:
    """An answer that came by a relay.

    Attributes:
        relay: its name.
        word: its word on what it keeps of the answer.
    """

    relay: str
    word: Answered

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each envelope that the relay keeps, by record type."""
        return {kind: record.sha256 for kind, record in self.word.kept.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each envelope that the relay keeps, by record type."""
        return {kind: record.bytes for kind, record in self.word.kept.items()}

    def require_whole(self, plan: FederationPlan, step: Step) -> None:
        """Refuse a word that leaves out what the sum or the comparison needs.

        Raises:
            RefusedError: other records than those that are added, or an update without length.
        """
        kinds = {kind.__name__ for kind in summed_of(plan, step.phase)}
        has_length = self.word.norm is not None
        if set(self.word.kept) != kinds or has_length != (ModelUpdate.__name__ in kinds):
            raise RefusedError(
                "a relay's word on an answer is not whole",
                field=self.relay,
                expected=f"{', '.join(sorted(kinds)) or 'no records'}, and how long an update is",
                got="others",
            )


@dataclass(frozen=True, slots=True)
class AcceptedAnswer:
    """One site's accepted answer in one round.

    Attributes:
        store: of the run, whose archive holds the records.
        link: of the chain of sums that it worked from.
        key_id, codec: of its sketches.
        measure: by the work of the plan's kind.
        digests: SHA-256 of each record's envelope that lies in the archive here, by record type.
        relay: that the answer came by; empty where the site answered here.
        relayed: SHA-256 of each record's envelope that lies in that relay's archive, likewise.
    """

    store: RunStore
    round: int
    site: str
    link: str | None
    key_id: str | None
    codec: str | None
    measure: Measure
    digests: Mapping[str, str]
    relay: str = ""
    relayed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        reply: Reply,
        store: RunStore,
        round_: int,
        measure: Measure,
        passed: RelayedAnswer | None = None,
    ) -> AcceptedAnswer:
        """Keep of an archived reply what is needed after it was let go."""
        report = reply.report
        return cls(
            store,
            round_,
            reply.site,
            _shared(report.link),
            _shared(report.key_id),
            _shared(report.codec),
            measure,
            {
                name.removesuffix(ENVELOPE_SUFFIX): sha256_hex(data)
                for name, data in reply.parts.items()
                if name.endswith(ENVELOPE_SUFFIX)
            },
            *(() if passed is None else (passed.relay, passed.digests)),
        )

    def record(self, record_type: str) -> Envelope:
        """Read one record of the answer from the archive.

        Raises:
            InputDataError: the archive no longer holds what was accepted.
        """
        data = self.store.archived_envelope(self.round, self.site, self.digests[record_type])
        return decode_again(data)


def records(
    answers: Mapping[str, AcceptedAnswer], record_type: str
) -> Iterator[tuple[str, Envelope]]:
    """Yield the records of one type, one at a time, in order of the sites' names.

    Raises:
        InputDataError: the archive no longer holds what was accepted.
    """
    for site, answer in sorted(answers.items()):
        yield site, answer.record(record_type)


def _shared(text: str | None) -> str | None:
    """All sites say the same here: keep it once."""
    return None if text is None else sys.intern(text)

"""A policy of several witnesses as the judge of a ledger's end, for an audit.

Cosignatures that came separately, one witness's in each file, are put together first:
the quorum counts over the checkpoint, not over the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from common.crypto.identity import PublicKey
from common.errors import CairnError
from common.ledger.notes import ledger_key, parse_note
from common.ledger.witnessed import Judged
from common.witness.policy import WitnessPolicy
from common.witness.tlog_proof import merge_notes


@dataclass(frozen=True)
class PolicyJudge:
    """Whoever asks a policy's quorum; has the method that an audit asks of a judge.

    Attributes:
        policy: whose word counts.
        site_key: of the ledger.
        beside: further notes whose cosignatures count where they are of one checkpoint.
        now: aware; later cosignatures do not count.
    """

    policy: WitnessPolicy
    site_key: PublicKey
    beside: tuple[bytes, ...] = ()
    now: datetime | None = None

    def judge(self, checkpoint_note: bytes) -> Judged:
        """Judge a note together with all that is known of its checkpoint; never raises."""
        try:
            checkpoint = parse_note(checkpoint_note).checkpoint
            text = checkpoint.text() + b"\n"
            same = (note for note in self.beside if note.startswith(text))
            (whole,) = merge_notes([checkpoint_note, *same])
        except CairnError as error:
            return Judged(witnessed=False, missing=(error.diagnosis,))
        log_key = ledger_key(checkpoint.origin, self.site_key)
        judgement = self.policy.judge(whole, log_key=log_key, now=self.now)
        return Judged(
            judgement.witnessed,
            tuple(cosigned.name for cosigned in judgement.who),
            () if judgement.witnessed else (judgement.reason,),
            judgement.at,
        )

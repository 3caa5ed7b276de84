"""Third witnesses in an audit: a policy's quorum in place of the aggregator's one word.

Notes that come with a ledger may be old ones of a ledger that was cut since. So those
beside the ledger count only while their cosignatures are fresh: each says that its
witness had seen nothing later by then. Notes brought from elsewhere count by their age,
too. Offline: `cairn-witness latest` is what asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.crypto.identity import read_public_key
from common.errors import CairnError
from common.ledger.folder import receipts_in, witnessed_in
from common.ledger.layout import Layout
from common.ledger.notes import MAX_NOTE_BYTES
from common.ledger.reading import read_regular
from common.ledger.witnessed import age_limit
from common.witness.policy import read_policy
from common.witness.tail import PolicyJudge

FRESH_DAYS = 1


@dataclass(frozen=True)
class WitnessedBy:
    """What a witness policy adds to an audit.

    Attributes:
        judge: asks for the quorum.
        notes: those beside the ledger that may vouch for its end, while they are fresh.
        not_before: older cosignatures do not.
    """

    judge: PolicyJudge | None = None
    notes: tuple[bytes, ...] = ()
    not_before: datetime | None = None


def witnessed_by(
    folder: Path,
    policy: Path,
    key_file: Path | None,
    checkpoints: Sequence[Path],
    fresh_days: int | None,
    now: datetime,
) -> WitnessedBy:
    """Return what an audit of the ledger in ``folder`` needs for this policy.

    Args:
        folder: the ledger's.
        policy: the policy file.
        key_file: the site's public key; the ledger's own if None.
        checkpoints: files of notes from elsewhere.
        fresh_days: age of a cosignature that still counts; ``FRESH_DAYS`` if None.
        now: aware.

    Raises:
        InputDataError: the policy, the key or a checkpoint cannot be read.
    """
    layout = Layout(folder)
    brought = [read_regular(path, "known checkpoint", MAX_NOTE_BYTES) for path in checkpoints]
    cosigned, received = _notes_of(layout)
    key = read_public_key(key_file or layout.ledger_key)
    judge = PolicyJudge(read_policy(policy), key, (*brought, *cosigned, *received), now)
    limit = age_limit(now, FRESH_DAYS if fresh_days is None else fresh_days)
    return WitnessedBy(judge, cosigned, limit)


def _notes_of(layout: Layout) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return what third witnesses and the aggregator cosigned, as it lies beside the ledger.

    What lies there and is no note is the audit's to say.
    """
    try:
        cosigned = tuple(note for _, note in witnessed_in(layout))
        return cosigned, tuple(note for _, _, note in receipts_in(layout))
    except CairnError:
        return (), ()

"""Third witnesses in an audit: a policy's quorum in place of the aggregator's one word.

Notes that come with a ledger may be old ones of a ledger that was cut since. So those
beside the ledger count only while their cosignatures are fresh: each says that its
witness had seen nothing later by then. Notes brought from elsewhere count by their age,
too. Offline: `cairn-witness latest` is what asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from common.crypto.identity import read_public_key
from common.errors import CairnError, UsageError
from common.ledger.folder import receipts_in, witnessed_in
from common.ledger.layout import Layout
from common.ledger.notes import MAX_NOTE_BYTES
from common.ledger.reading import read_regular
from common.ledger.witnessed import age_limit
from common.witness.policy import read_policy
from common.witness.tail import PolicyJudge

WITHIN_DAYS = 7
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class WitnessedBy:
    """What ``--witness-policy`` adds to an audit.

    Attributes:
        judge: asks for the quorum.
        notes: files beside the ledger that may vouch for its end, while they are fresh.
        not_before: older cosignatures do not.
    """

    judge: PolicyJudge | None = None
    notes: tuple[Path, ...] = ()
    not_before: datetime | None = None


def witness_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add ``--witness-policy`` and ``--witnessed-within`` to a command."""
    for option in (
        click.option(
            "--witnessed-within",
            "within_days",
            type=click.IntRange(min=1),
            metavar="DAYS",
            help="With --witness-policy: how old the quorum's cosignatures may be "
            f"({WITHIN_DAYS} days by default).",
        ),
        click.option(
            "--witness-policy",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Whose cosignatures make a ledger witnessed: log, witness, group and quorum "
            "lines. Notes beside the ledger count while they are fresh.",
        ),
    ):
        command = option(command)
    return command


def witnessed_by(
    folder: Path,
    policy: Path | None,
    key_file: Path | None,
    checkpoints: Sequence[Path],
    within_days: int | None,
    now: datetime | None = None,
) -> WitnessedBy:
    """Return what an audit of the ledger in ``folder`` needs for this policy.

    Raises:
        InputDataError: the policy, the key or a checkpoint cannot be read.
        UsageError: an age without a policy.
    """
    if policy is None:
        if within_days is not None:
            raise UsageError("--witnessed-within goes with --witness-policy")
        return WitnessedBy()
    now, layout = now or datetime.now(UTC), Layout(folder)
    brought = [read_regular(path, "known checkpoint", MAX_NOTE_BYTES) for path in checkpoints]
    judge = PolicyJudge(
        read_policy(policy),
        read_public_key(key_file or layout.ledger_key),
        (*brought, *_notes_of(layout)),
        now,
    )
    limit = age_limit(now, WITHIN_DAYS if within_days is None else within_days)
    return WitnessedBy(judge, tuple(layout.witnessed_files()), limit)


def _notes_of(layout: Layout) -> list[bytes]:
    """Cosigned notes beside the ledger; what lies there and is none is the audit's to say."""
    try:
        of_others = [note for _, note in witnessed_in(layout)]
        return of_others + [note for _, _, note in receipts_in(layout)]
    except CairnError:
        return []

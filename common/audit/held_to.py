"""What an auditor brings along: keys, checkpoints and journals that a ledger is held to.

Every command that gives a verdict takes the same options, in one place, so that none of
them can be laxer than another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path

import click

from common.audit.load import Audited, audit
from common.audit.witnessing import FRESH_DAYS, WitnessedBy, witnessed_by
from common.errors import UsageError
from common.ledger.witnessed import age_limit

_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.option(
        "--key",
        "keys",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="The site's public key. Without it LEDGER/ledger.pub is used, which proves only "
        "that the ledger agrees with itself.",
    ),
    click.option(
        "--witness",
        type=_FILE,
        metavar="FILE",
        help="The aggregator's witness key. Without it LEDGER/witness.pub is used if present.",
    ),
    click.option(
        "--checkpoint",
        "checkpoints",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="A cosigned checkpoint that did not come with the ledger: the coordinator has the "
        "newest as sites/SITE/checkpoint.note. Only it can show that nothing was cut off the "
        "end. With several ledgers one for each, in their order; for one it may be repeated.",
    ),
    click.option(
        "--fresh-within",
        "fresh_days",
        type=click.IntRange(min=0),
        metavar="DAYS",
        help="Let only cosignatures of the last DAYS days vouch for the end "
        f"(with --witness-policy: {FRESH_DAYS}, unless you say another number).",
    ),
    click.option(
        "--witness-policy",
        type=_FILE,
        metavar="FILE",
        help="Whose cosignatures make a ledger witnessed, instead of the aggregator's: log, "
        "witness, group and quorum lines. Notes beside the ledger count while they are fresh.",
    ),
    click.option(
        "--sent",
        "journals",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="The courier's journal of what its socket sent; anything in it that the ledger "
        "does not declare fails. With several ledgers one for each, in their order.",
    ),
)


@dataclass(frozen=True)
class HeldTo:
    """The options of one call.

    Attributes:
        keys, journals: one for each ledger, or none.
        witness: the aggregator's key.
        checkpoints: one for each ledger, or any number for a single one.
        fresh_days: age of a cosignature that still counts; None for any, or of a policy
            its default.
        witness_policy: whose word counts in place of the aggregator's.
    """

    keys: tuple[Path, ...] = ()
    witness: Path | None = None
    checkpoints: tuple[Path, ...] = ()
    fresh_days: int | None = None
    journals: tuple[Path, ...] = ()
    witness_policy: Path | None = None

    def audit(self, ledgers: Sequence[Path]) -> list[Audited]:
        """Audit ledgers, each held to its own part of the options.

        Raises:
            UsageError: an option was not given once for each.
            InputDataError: no ledger, no key, or a file that cannot be read.
        """
        count = len(ledgers)
        keys = one_each(self.keys, count, "--key")
        journals = one_each(self.journals, count, "--sent")
        if count == 1:
            notes = [self.checkpoints]
        else:
            each = one_each(self.checkpoints, count, "--checkpoint")
            notes = [(note,) if note is not None else () for note in each]
        return [
            self._audit(folder, key, journal, known)
            for folder, key, journal, known in zip(ledgers, keys, journals, notes, strict=True)
        ]

    def _audit(
        self, folder: Path, key: Path | None, journal: Path | None, known: tuple[Path, ...]
    ) -> Audited:
        now = datetime.now(UTC)
        by = WitnessedBy(not_before=age_limit(now, self.fresh_days))
        if self.witness_policy is not None:
            by = witnessed_by(folder, self.witness_policy, key, known, self.fresh_days, now)
        return audit(
            folder,
            key_file=key,
            witness_file=self.witness,
            sent_journal=journal,
            known_checkpoints=known,
            judge=by.judge,
            not_before=by.not_before,
            beside=by.notes,
        )

    def audit_one(self, ledger: Path) -> Audited:
        """Audit one ledger; errors as ``audit``."""
        return self.audit([ledger])[0]


def held_to(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above, as its argument ``held``."""

    @wraps(command)
    def with_options(
        *args: object,
        keys: tuple[Path, ...],
        witness: Path | None,
        checkpoints: tuple[Path, ...],
        fresh_days: int | None,
        journals: tuple[Path, ...],
        witness_policy: Path | None,
        **rest: object,
    ) -> None:
        held = HeldTo(keys, witness, checkpoints, fresh_days, journals, witness_policy)
        command(*args, held=held, **rest)

    decorated: Callable[..., None] = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def one_each(paths: tuple[Path, ...], ledgers: int, option: str) -> list[Path | None]:
    """Return an option's value for each ledger; None for each where it was not given.

    Raises:
        UsageError: given, and not once for each.
    """
    if paths and len(paths) != ledgers:
        raise UsageError(
            f"{option} is given once for each ledger, in their order",
            expected=f"{ledgers}",
            got=f"{len(paths)}",
        )
    return list(paths) if paths else [None] * ledgers

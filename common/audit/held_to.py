"""An auditor's own things: keys, checkpoints and journals that a ledger is held to.

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
from common.journal import Evidence
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
        "--journal",
        "journals",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="The courier's signed journal.jsonl, for the balance of the wire: what left without "
        "a record, a line or a cause fails. With several ledgers one for each, in their order.",
    ),
    click.option(
        "--courier-key",
        "courier_keys",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="With --journal: the courier's public node key (node.key.pub), or the request.json "
        "that the site sent. Without it the journal's own is believed. Once for each ledger.",
    ),
    click.option(
        "--counters",
        "counters",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="With --journal: what a firewall counted, as `nft --json list counter` prints it, or "
        '{"v": 1, "layer": "ip", "sent_bytes": n, "sent_packets": n}. Once for each ledger.',
    ),
)


@dataclass(frozen=True)
class HeldTo:
    """The options of one call.

    Attributes:
        keys, journals, courier_keys, counters: one for each ledger, or none.
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
    courier_keys: tuple[Path, ...] = ()
    counters: tuple[Path, ...] = ()
    witness_policy: Path | None = None

    def audit(self, ledgers: Sequence[Path]) -> list[Audited]:
        """Audit ledgers, each held to its own part of the options.

        Raises:
            UsageError: an option was not given once for each.
            InputDataError: no ledger, no key, or a file that cannot be read.
        """
        count = len(ledgers)
        keys = one_each(self.keys, count, "--key")
        couriers = self._couriers(count)
        if count == 1:
            notes = [self.checkpoints]
        else:
            each = one_each(self.checkpoints, count, "--checkpoint")
            notes = [(note,) if note is not None else () for note in each]
        return [
            self._audit(folder, key, courier, seen)
            for folder, key, courier, seen in zip(ledgers, keys, couriers, notes, strict=True)
        ]

    def _audit(
        self,
        folder: Path,
        key: Path | None,
        courier: Evidence | None,
        seen: tuple[Path, ...],
    ) -> Audited:
        now = datetime.now(UTC)
        by = WitnessedBy(not_before=age_limit(now, self.fresh_days))
        if self.witness_policy is not None:
            by = witnessed_by(folder, self.witness_policy, key, seen, self.fresh_days, now)
        return audit(
            folder,
            key_file=key,
            witness_file=self.witness,
            courier=courier,
            known_checkpoints=seen,
            judge=by.judge,
            not_before=by.not_before,
            beside=by.notes,
        )

    def _couriers(self, count: int) -> list[Evidence | None]:
        """Put together what was brought of each ledger's courier."""
        if (self.courier_keys or self.counters) and not self.journals:
            raise UsageError("--courier-key and --counters go with --journal", got="none")
        rows = zip(
            one_each(self.journals, count, "--journal"),
            one_each(self.courier_keys, count, "--courier-key"),
            one_each(self.counters, count, "--counters"),
            strict=True,
        )
        return [None if row[0] is None else Evidence(row[0], row[1], row[2]) for row in rows]

    def audit_one(self, ledger: Path) -> Audited:
        """Audit one ledger; errors as ``audit``."""
        return self.audit([ledger])[0]


def held_to(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above, as its argument ``against``."""

    @wraps(command)
    def with_options(
        *args: object,
        keys: tuple[Path, ...],
        witness: Path | None,
        checkpoints: tuple[Path, ...],
        fresh_days: int | None,
        journals: tuple[Path, ...],
        courier_keys: tuple[Path, ...],
        counters: tuple[Path, ...],
        witness_policy: Path | None,
        **rest: object,
    ) -> None:
        against = HeldTo(
            keys,
            witness,
            checkpoints,
            fresh_days,
            journals,
            courier_keys,
            counters,
            witness_policy,
        )
        command(*args, against=against, **rest)

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

"""A site's last doings, from its own files; nothing is locked, changed or asked of anybody."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from common.arrivals.quarantine import Quarantine
from common.arrivals.texts import json_of
from common.crypto.certificates import days_left, read_certificate
from common.errors import InputDataError
from common.ledger.layout import Layout
from common.ledger.records import parse_record
from site_client.budget import BudgetStanding, budget_or_none
from site_client.decisions.standing import Standing
from site_client.egress.history import History
from site_client.heldout.errors import LastErrors, read_errors
from site_client.heldout.parts import parts_or_none
from site_client.keys.directory import directory_or_none
from site_client.keys.state import KeyState, read_key_state
from site_client.plans.finding import plans_that_wait
from site_client.restoring import read_lost
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.trouble import Trouble, read_trouble
from site_client.witnesses.standing import Standing as WitnessStanding
from site_client.witnesses.standing import read_standing


@dataclass(frozen=True)
class SiteStatus:
    """Figures for ``cairn-site status``.

    Attributes:
        site: its name.
        last: what the worker answered last, or None before the first order.
        records: of the ledger.
        bytes_out: envelope bytes recorded as sent.
        refusals: how often the door or the worker refused.
        witnessed: records covered by the aggregator's newest receipt.
        waiting: orders not yet answered, and replies not yet fetched.
        log: last line of the worker's log.
        key: how the federation key stands, or None before the desk was asked.
        peers: how many other sites are known, confirmed and needed, and who shows another key;
            None where the policy is out of sight.
        certificate_days: until our certificate expires (negative: it has); None without one.
        plans: that wait for a person, first heard of first.
        budget: what is spent and left over all runs; None where the policy is out of sight.
        held_out: who is held out of training, as the folder and the policy are now; None where
            they are out of sight, or hold no scans.
        errors: what was told last of errors, held out and training; None before the first.
        restore: what the ledger lacks, where it waits for `cairn-site restore`; None else.
        trouble: the last order that failed for this site's data, and why; None without one.
        put_aside: notes on what arrived and was refused, oldest first.
        witnesses: how this ledger stands with third witnesses; None where there are none.
    """

    site: str
    last: dict[str, object] | None
    records: int
    bytes_out: int
    refusals: int
    witnessed: int
    waiting: tuple[int, int]
    log: str
    key: KeyState | None = None
    peers: dict[str, object] | None = None
    certificate_days: int | None = None
    plans: tuple[dict[str, object], ...] = ()
    budget: BudgetStanding | None = None
    trouble: Trouble | None = None
    held_out: dict[str, object] | None = None
    errors: LastErrors | None = None
    put_aside: tuple[dict[str, object], ...] = ()
    restore: dict[str, object] | None = None
    witnesses: WitnessStanding | None = None

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        budget = None if self.budget is None else self.budget.as_dict()
        return asdict(self) | {"budget": budget}


def read_status(site: SiteFolder) -> SiteStatus:
    """The status of a site.

    Raises:
        InputDataError: not a site folder.
        VerificationError: a ledger line that cannot be read.
    """
    settings, layout, spool = site.settings(), Layout(site.ledger), Spool(site.spool)
    records = bytes_out = refusals = 0
    standing, history = Standing(), History()
    if layout.log.exists():
        # A line without its end is an append in progress.
        for line in layout.log.read_bytes().split(b"\n")[:-1]:
            record = parse_record(line, f"record #{records}")
            standing.take(record)
            history.count(record)
            records += 1
            refusals += record.event == "REFUSE"
            bytes_out += (record.bytes or 0) if record.event == "SEND" else 0
    directory = directory_or_none(site, standing)
    parts = parts_or_none(site)
    receipts = layout.receipt_files()
    lost = read_lost(site)
    replies = len(list(spool.outbox.glob("*.reply"))) if spool.outbox.is_dir() else 0
    return SiteStatus(
        site=settings.site,
        last=_last(site),
        records=records,
        bytes_out=bytes_out,
        refusals=refusals,
        witnessed=int(receipts[-1].stem) if receipts else 0,
        waiting=(len(spool.orders()) if spool.inbox.is_dir() else 0, replies),
        log=_last_log_line(site),
        key=read_key_state(site),
        peers=directory.summary if directory is not None else None,
        certificate_days=_certificate_days(site),
        plans=tuple(plan.as_dict() for plan in plans_that_wait(site, standing)),
        budget=budget_or_none(site, history, datetime.now(UTC)),
        trouble=read_trouble(site),
        held_out=None if parts is None else parts.as_dict(),
        errors=read_errors(site),
        put_aside=tuple(vars(note) for note in Quarantine(site.quarantine).notes()),
        restore=None if lost is None else {**lost.as_dict(), "says": lost.says},
        witnesses=read_standing(site) if settings.witness_policy is not None else None,
    )


def _certificate_days(site: SiteFolder) -> int | None:
    try:
        return days_left(read_certificate(site.tls_certificate))
    except InputDataError:
        # None was issued yet, or a worker's container asks, which has no courier's files.
        return None


def _last(site: SiteFolder) -> dict[str, object] | None:
    try:
        value = json_of(site.worker_status.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _last_log_line(site: SiteFolder) -> str:
    try:
        with site.worker_log.open(encoding="utf-8", errors="replace") as file:
            lines = deque(file, maxlen=1)
    except OSError:
        return ""
    return lines[0].rstrip("\n") if lines else ""

"""The budget over all runs, in words: for ``status``, ``check`` and ``--json``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from common.cli import megabytes
from common.errors import InputDataError
from common.ledger.layout import Layout
from common.ledger.records import format_timestamp, parse_record
from common.policy import Budget, read_policy
from site_client.egress.history import ITEMS, History, Spending
from site_client.facts import Fact
from site_client.site import SiteFolder


@dataclass(frozen=True)
class BudgetStanding:
    """The spending of a budget within its window.

    Attributes:
        days: length of the window.
        items: runs, rounds, evaluations and bytes, in this order.
    """

    days: int
    items: tuple[Spending, ...]

    @classmethod
    def of(cls, history: History, budget: Budget, now: datetime) -> BudgetStanding:
        """Compute how a budget stands now."""
        items = tuple(history.spending(item, budget, now) for item in ITEMS)
        return cls(budget.days, items)

    @property
    def spent(self) -> tuple[Spending, ...]:
        """The items of which nothing is left."""
        return tuple(item for item in self.items if not item.left)

    @property
    def says(self) -> str:
        """One line: ``3 of 40 runs, 48 of 600 rounds, ... in 30 days``."""
        counts = ", ".join(map(_count, self.items))
        return f"{counts} in {self.days} days"

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {"days": self.days, **{item.item: item.as_dict() for item in self.items}}


def budget_or_none(site: SiteFolder, history: History, now: datetime) -> BudgetStanding | None:
    """Say how the budget stands; None where the policy is out of sight, as for a courier."""
    try:
        return BudgetStanding.of(history, read_policy(site.policy_file).budget, now)
    except InputDataError:
        return None


def budget_fact(site: SiteFolder, now: datetime) -> Fact:
    """Say whether anything of the budget is left, for ``cairn-site check``.

    Raises:
        InputDataError: the policy cannot be read.
        VerificationError: a ledger line that cannot be read.
    """
    standing = BudgetStanding.of(read_history(site), read_policy(site.policy_file).budget, now)
    if not standing.spent:
        return Fact("budget", "ok", standing.says)
    first = standing.spent[0]
    until = "" if first.frees is None else f" until {format_timestamp(first.frees)}"
    fix = f"Orders are refused{until}; the site's owner may raise budget.{first.item}"
    return Fact("budget", "warning", f"spent: {standing.says}", fix)


def read_history(site: SiteFolder) -> History:
    """Read from the ledger's file what was answered; nothing is locked or verified.

    Raises:
        VerificationError: a line that cannot be read.
    """
    log = Layout(site.ledger).log
    # A line without its end is an append in progress.
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return History(parse_record(line, f"record #{n}") for n, line in enumerate(lines))


def _count(item: Spending) -> str:
    if item.item == "bytes":
        return f"{megabytes(item.spent)} of {megabytes(item.most)}"
    return f"{item.spent} of {item.most} {item.item}"

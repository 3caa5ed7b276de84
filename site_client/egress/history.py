"""Answers that this site has given before, and what is therefore refused now.

Fed with the ledger's records, and with nothing else: whoever restarts the worker,
empties its folders or starts a hundred runs finds the same history. Pure: no file, no
clock. Four rules:

1. A run goes forwards. Each round of it is answered once, and none that lies before one
   that was answered. (The identical order is no new one: the door repeats its answer.)
2. A run keeps its plan.
3. Within any ``[budget] days``, over all runs together, no more than ``[budget]`` says.
4. No more than ``[receipts] due_within`` answers are without the aggregator's receipt.

The report of a failure is no answer: the site may be asked again for that round. A run that
the aggregator stopped, signed, is asked nothing any more; ``stopped`` names those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal, get_args

from common.errors import RefusedError
from common.ledger.records import LedgerRecord, format_timestamp, parse_timestamp
from common.policy import Budget
from common.schedule import PHASES, Phase, is_work
from common.wire.codes import ReplyCode

Item = Literal["runs", "rounds", "evaluations", "bytes"]
ITEMS: tuple[Item, ...] = get_args(Item)
_UNKNOWN: Phase = "train"
"""A phase that this version does not know is counted as work."""


class HistoryError(RefusedError):
    """An order that what was answered before rules out.

    Attributes:
        code: the number under which the refusal leaves.
    """

    code: ClassVar[ReplyCode] = ReplyCode.REFUSED_AT_DOOR


class BackwardsError(HistoryError):
    """The round was answered, or lies before one that was."""

    code = ReplyCode.BACKWARDS


class ChangedPlanError(HistoryError):
    """The run had another plan."""

    code = ReplyCode.CHANGED_PLAN


class BudgetError(HistoryError):
    """The site's budget over all runs is spent for now."""

    code = ReplyCode.BUDGET_SPENT


class ReceiptsDueError(HistoryError):
    """The aggregator has not signed for what it was sent."""

    code = ReplyCode.RECEIPTS_DUE


@dataclass(frozen=True)
class Spending:
    """One item of the budget.

    Attributes:
        item: what is counted.
        spent, most: in the window, and at most.
        frees: when there is more of it than now: when the next part is paid back or, where
            more than ``most`` is spent, when there is room again. None if never.
    """

    item: Item
    spent: int
    most: int
    frees: datetime | None

    @property
    def left(self) -> int:
        """Rest of the budget; never negative."""
        return max(0, self.most - self.spent)

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        frees = None if self.frees is None else format_timestamp(self.frees)
        return {"spent": self.spent, "most": self.most, "left": self.left, "frees": frees}


@dataclass(frozen=True)
class _Answer:
    """The time of a round's answer, and its phase."""

    at: datetime
    phase: Phase


class History:
    """The answers in a ledger.

    Args:
        records: the ledger's, oldest first.
    """

    def __init__(self, records: Iterable[LedgerRecord] = ()) -> None:
        self._plans: dict[str, str] = {}
        self._latest: dict[str, int] = {}
        self._answers: dict[tuple[str, int], _Answer] = {}
        self._runs: dict[str, datetime] = {}
        self._bytes: list[tuple[datetime, int]] = []
        self._unsigned: list[tuple[int, str]] = []
        self.stopped: set[str] = set()
        for record in records:
            self.count(record)

    def count(self, record: LedgerRecord) -> None:
        """Follow the ledger by one record; what sent nothing for a round changes nothing."""
        run, round_ = record.run, record.round
        if record.event == "STOP" and run is not None:
            self.stopped.add(run)
        if record.event == "RESTORE" and run is not None and round_ is not None:
            # What was lost may have answered every round before the one that was asked for.
            self._latest[run] = max(round_ - 1, self._latest.get(run, round_ - 1))
        if record.event != "SEND" or run is None or round_ is None:
            return
        time = parse_timestamp(record.ts)
        self._bytes.append((time, record.bytes or 0))
        if record.code:
            return  # only the number of a failure left
        self._unsigned.append((record.seq, record.order_sha256 or ""))
        self._plans.setdefault(run, record.plan_fingerprint or "")
        self._latest[run] = max(round_, self._latest.get(run, round_))
        phase = next((each for each in PHASES if each == record.phase), _UNKNOWN)
        self._answers.setdefault((run, round_), _Answer(time, phase))
        self._runs[run] = max(time, self._runs.get(run, time))

    def require_new(self, run: str, round_: int, plan_fingerprint: str) -> None:
        """Refuse what does not go forwards, or not with the run's plan.

        Raises:
            ChangedPlanError: the run was answered under another plan.
            BackwardsError: this round or a later one was answered.
        """
        if self._plans.get(run, plan_fingerprint) != plan_fingerprint:
            raise ChangedPlanError(
                "the run had another plan",
                field="plan",
                expected=f"{self._plans[run][:12]}, with which this run began here",
                got=plan_fingerprint[:12],
                advice="Start a new run for a new plan",
            )
        latest = self._latest.get(run)
        if latest is not None and round_ <= latest:
            raise BackwardsError(
                "the round was answered before, or lies before one that was",
                field="round",
                expected=f"after {latest}, the last one answered in this run",
                got=str(round_),
                advice="A run goes on, or a new one is started",
            )

    def require_budget(
        self, budget: Budget, run: str, phase: Phase, now: datetime, *, size: int = 1
    ) -> None:
        """Refuse what would spend more than is left.

        Args:
            budget: the policy's.
            run: of the order.
            phase: of the order.
            now: aware.
            size: bytes that would leave; before they are known, one.

        Raises:
            BudgetError: names the item, what is spent of how much, and when there is more.
        """
        amounts: dict[Item, int] = {"bytes": size}
        amounts["runs"] = int(not self._in_window(self._runs.get(run), budget, now))
        amounts["rounds"] = int(is_work(phase))
        amounts["evaluations"] = int(phase == "evaluate")
        for item in ITEMS:
            spending = self.spending(item, budget, now, amounts[item])
            if amounts[item] and spending.spent + amounts[item] > spending.most:
                _refuse(spending, budget.days, amounts[item])

    def require_receipts(self, due_within: int, witnessed: int) -> None:
        """Refuse while too many answers are without a receipt.

        Args:
            due_within: the policy's.
            witnessed: records that the newest receipt covers.

        Raises:
            ReceiptsDueError: says how many, and what brings a receipt.
        """
        self._unsigned = [(seq, order) for seq, order in self._unsigned if seq >= witnessed]
        waiting = len({order for _, order in self._unsigned})
        if waiting >= due_within:
            raise ReceiptsDueError(
                "the aggregator has not signed for what it was sent",
                field="receipts.due_within",
                expected=f"fewer than {due_within} answers without a receipt",
                got=f"{waiting}",
                advice="Its next order must bring the receipt; if it does not, ask the coordinator",
            )

    def spending(self, item: Item, budget: Budget, now: datetime, amount: int = 1) -> Spending:
        """Say how one item stands; ``frees`` is when ``amount`` of it can be had, or had next."""
        parts = sorted(
            (time, size) for time, size in self._parts(item) if self._in_window(time, budget, now)
        )
        most, total = getattr(budget, item), sum(size for _, size in parts)
        left_over, frees = total, None
        for time, size in parts:
            left_over -= size
            if left_over + amount <= most:
                frees = time + timedelta(days=budget.days)
                break
        return Spending(item, total, most, frees)

    def _parts(self, item: Item) -> Iterable[tuple[datetime, int]]:
        match item:
            case "runs":
                return [(time, 1) for time in self._runs.values()]
            case "rounds":
                return [(a.at, 1) for a in self._answers.values() if is_work(a.phase)]
            case "evaluations":
                return [(a.at, 1) for a in self._answers.values() if a.phase == "evaluate"]
            case "bytes":
                return self._bytes

    @staticmethod
    def _in_window(time: datetime | None, budget: Budget, now: datetime) -> bool:
        """Tell whether it counts now. The future does: a clock that was set back frees nothing."""
        return time is not None and time > now - timedelta(days=budget.days)


def _refuse(spending: Spending, days: int, amount: int) -> None:
    when = "never" if spending.frees is None else format_timestamp(spending.frees)
    more = f", {amount} more are wanted" if amount > 1 else ""
    raise BudgetError(
        "the site's budget over all runs is spent",
        field=f"budget.{spending.item}",
        expected=f"at most {spending.most} in {days} days",
        got=f"{spending.spent}{more}; room from {when} on",
        advice="Wait until then, or let the site's owner decide in policy.toml",
    )

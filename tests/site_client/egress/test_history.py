"""A run goes forwards with one plan, each round once, and all runs together keep to a budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ledger.records import LedgerRecord, make_record
from common.policy import Budget
from common.wire.codes import ReplyCode
from site_client.egress.history import (
    BackwardsError,
    BudgetError,
    ChangedPlanError,
    History,
    HistoryError,
    ReceiptsDueError,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PLAN, OTHER = "a" * 64, "b" * 64


def sent(run="run-1", round_=1, phase="train", plan=PLAN, at=NOW, code=None, **changes):
    fields = {
        "run": run,
        "round": round_,
        "phase": phase,
        "record_type": "RoundReport",
        "payload_sha256": "c" * 64,
        "order_sha256": "d" * 64,
        "bytes": 100,
        "arrays": (),
        "plan_fingerprint": plan,
        "policy_sha256": "e" * 64,
        "code": code,
    }
    return make_record(seq=0, event="SEND", now=at, site="north", fields=fields | changes)


def refusal(run="run-1", round_=1, plan=PLAN, at=NOW) -> LedgerRecord:
    fields = {"run": run, "round": round_, "plan_fingerprint": plan, "code": 14}
    return make_record(seq=0, event="REFUSE", now=at, site="north", fields=fields)


def spend(budget: Budget, history: History, *, run="new", phase="train", now=NOW, size=1):
    history.require_budget(budget, run, phase, now, size=size)


def test_a_round_that_was_answered_is_not_answered_again():
    history = History([sent(round_=3)])
    for round_ in (0, 1, 2, 3):
        with pytest.raises(BackwardsError, match="after 3") as caught:
            history.require_new("run-1", round_, PLAN)
        assert caught.value.code is ReplyCode.BACKWARDS
    history.require_new("run-1", 4, PLAN)
    history.require_new("run-1", 9, PLAN)
    history.require_new("run-2", 0, PLAN)


def test_a_run_keeps_the_plan_that_was_answered_first():
    history = History([sent(round_=0, phase="begin"), sent(round_=1, plan=OTHER)])
    with pytest.raises(ChangedPlanError, match="aaaaaaaaaaaa") as caught:
        history.require_new("run-1", 2, OTHER)
    assert caught.value.code is ReplyCode.CHANGED_PLAN
    history.require_new("run-1", 2, PLAN)
    history.require_new("run-2", 0, OTHER)


@pytest.mark.parametrize("code", [code for code in ReplyCode if code])
def test_a_failure_is_no_answer_and_the_round_may_be_asked_again(code):
    history = History([refusal(round_=2), sent(round_=2, code=int(code), plan=OTHER)])
    history.require_new("run-1", 2, PLAN)
    history.require_new("run-1", 1, PLAN)
    budget = Budget(runs=1, rounds=1, evaluations=1)
    assert [history.spending(i, budget, NOW).spent for i in ("runs", "rounds")] == [0, 0]
    assert history.spending("bytes", budget, NOW).spent == 100, "its bytes left all the same"


def test_sealed_keys_belong_to_no_run_and_count_nowhere():
    fields = {
        "record_type": "SealedKeys",
        "payload_sha256": "c" * 64,
        "bytes": 128,
        "arrays": (),
        "policy_sha256": "e" * 64,
        "key_id": "0" * 16,
        "generation": 1,
    }
    history = History([make_record(seq=0, event="SEND", now=NOW, site="north", fields=fields)])
    assert history.spending("bytes", Budget(), NOW).spent == 0


@pytest.mark.parametrize(
    ("item", "phase", "budget"),
    [
        ("rounds", "train", Budget(rounds=2)),
        ("rounds", "sketch", Budget(rounds=2)),
        ("evaluations", "evaluate", Budget(evaluations=2)),
        ("runs", "begin", Budget(runs=2)),
    ],
)
def test_what_is_spent_over_all_runs_is_refused_until_the_oldest_part_is_paid_back(
    item, phase, budget
):
    history = History([sent("one", 1, phase, at=NOW - 20 * DAY)])
    spend(budget, history, phase=phase)
    history.count(sent("two", 1, phase, at=NOW - 10 * DAY))
    with pytest.raises(BudgetError, match="at most 2 in 30 days") as caught:
        spend(budget, history, phase=phase)
    assert caught.value.field == f"budget.{item}"
    assert caught.value.got == "2; room from 2026-03-11T12:00:00Z on"
    assert caught.value.code is ReplyCode.BUDGET_SPENT
    with pytest.raises(BudgetError):
        spend(budget, history, phase=phase, now=NOW + 10 * DAY - timedelta(seconds=1))
    spend(budget, history, phase=phase, now=NOW + 10 * DAY)


def test_a_run_that_is_under_way_is_no_further_run():
    history = History([sent("one", 0, "begin")])
    spend(Budget(runs=1), history, run="one")
    with pytest.raises(BudgetError, match=r"budget\.runs"):
        spend(Budget(runs=1), history, run="two")


def test_agreeing_and_evaluating_are_no_rounds_of_work():
    history = History([sent("one", 0, "begin"), sent("one", 9, "evaluate")])
    spent = {item: history.spending(item, Budget(), NOW).spent for item in ("rounds", "runs")}
    assert spent == {"rounds": 0, "runs": 1}
    assert history.spending("evaluations", Budget(), NOW).spent == 1


def test_several_records_of_an_answer_are_one_round_and_all_their_bytes():
    history = History([sent(bytes=n) for n in (10, 20, 30)])
    assert history.spending("rounds", Budget(), NOW).spent == 1
    assert history.spending("bytes", Budget(), NOW).spent == 60


def test_bytes_are_refused_when_the_answer_would_not_fit_what_is_left():
    history = History([sent(at=NOW - 20 * DAY, bytes=60), sent(at=NOW - 5 * DAY, bytes=30)])
    budget = Budget(bytes=100)
    spend(budget, history, size=10)
    with pytest.raises(BudgetError, match="90, 11 more are wanted; room from 2026-03-11"):
        spend(budget, history, size=11)
    with pytest.raises(BudgetError, match="room from 2026-03-26"):
        spend(budget, history, size=71)
    with pytest.raises(BudgetError, match="room from never"):
        spend(budget, history, size=101)


def test_a_budget_of_nothing_allows_nothing():
    for item, phase in (("rounds", "train"), ("evaluations", "evaluate"), ("runs", "begin")):
        with pytest.raises(BudgetError, match="room from never"):
            spend(Budget(**{item: 0}), History(), phase=phase)


def test_a_clock_that_was_set_back_frees_nothing():
    history = History([sent(at=NOW)])
    with pytest.raises(BudgetError):
        spend(Budget(rounds=1), history, now=NOW - 400 * DAY)


def test_a_phase_that_is_not_known_counts_as_work():
    assert History([sent(phase="segment")]).spending("rounds", Budget(), NOW).spent == 1


ORDERS = st.tuples(
    st.sampled_from(["run-1", "run-2", "run-3"]),
    st.integers(0, 6),
    st.sampled_from([PLAN, OTHER]),
    st.sampled_from(["begin", "train", "evaluate"]),
    st.sampled_from([None, None, 13, 14, 16]),
    st.integers(0, 40),
)


@given(st.lists(ORDERS, max_size=60), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3))
def test_whatever_is_asked_no_round_is_answered_twice_and_no_budget_is_passed(
    orders, rounds, evaluations, runs
):
    """A site that answers what history and budget let it answer, for any orders at all."""
    budget = Budget(days=7, rounds=rounds, evaluations=evaluations, runs=runs)
    history, records, now = History(), [], NOW
    answered: list[tuple[str, int, str, str, datetime]] = []
    for run, round_, plan, phase, code, hours in orders:
        now += timedelta(hours=hours)
        try:
            history.require_new(run, round_, plan)
            history.require_budget(budget, run, phase, now)
        except HistoryError:
            continue
        records.append(sent(run, round_, phase, plan, now, code))
        history.count(records[-1])
        if code is None:
            answered.append((run, round_, plan, phase, now))
    for run in {one[0] for one in answered}:
        mine = [one for one in answered if one[0] == run]
        assert [one[1] for one in mine] == sorted({one[1] for one in mine}), "once, and forwards"
        assert len({one[2] for one in mine}) == 1, "one plan"
    for *_, end in answered:
        within = [one for one in answered if end - timedelta(days=7) < one[4] <= end]
        assert sum(one[3] == "train" for one in within) <= rounds
        assert sum(one[3] == "evaluate" for one in within) <= evaluations
        assert len({one[0] for one in within}) <= runs
    again = History(records)
    for item in ("runs", "rounds", "evaluations", "bytes"):
        assert again.spending(item, budget, now) == history.spending(item, budget, now)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 50)), max_size=20), st.integers(1, 99))
def test_there_is_room_when_it_was_said_and_not_a_second_earlier(parts, wanted):
    history = History(
        sent(round_=n, at=NOW - timedelta(days=days), bytes=size)
        for n, (days, size) in enumerate(parts)
    )
    budget = Budget(bytes=100)
    found = history.spending("bytes", budget, NOW, wanted)
    if found.spent + wanted > 100:
        assert found.frees is not None, "what is wanted fits an empty window"
        spend(budget, history, run="run-1", now=found.frees, size=wanted)
        with pytest.raises(BudgetError):
            spend(
                budget,
                history,
                run="run-1",
                now=found.frees - timedelta(seconds=1),
                size=wanted,
            )


def test_answers_without_a_receipt_are_few_and_a_receipt_frees_them():
    history = History()
    for number in range(4):
        history.require_receipts(4, witnessed=0)
        answer = sent(round_=number, order_sha256=f"{number:064x}")
        history.count(answer.model_copy(update={"seq": 10 + number}))
    with pytest.raises(ReceiptsDueError, match="got 4") as caught:
        history.require_receipts(4, witnessed=0)
    assert caught.value.code is ReplyCode.RECEIPTS_DUE
    assert "next order must bring the receipt" in caught.value.advice
    history.require_receipts(4, witnessed=11)
    history.require_receipts(1, witnessed=14)


def test_records_of_one_answer_are_one_answer_and_a_failures_number_is_none():
    history = History()
    for seq, kind in enumerate(("ModelUpdate", "SketchTable", "RoundReport")):
        history.count(sent(record_type=kind).model_copy(update={"seq": seq}))
    history.count(sent(round_=2, code=14, order_sha256="f" * 64))
    history.require_receipts(2, witnessed=0)
    with pytest.raises(ReceiptsDueError, match="got 1"):
        history.require_receipts(1, witnessed=0)

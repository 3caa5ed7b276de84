"""What a run begins with follows from its plan alone; the rest is asked of a worker."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InternalError
from common.model import initial_weights, weights_digest
from common.plan import parse_plan
from common.sums.derivation import BehindError, ForgedSumError, begin, follow
from common.wire.orders import OrderHeader, RosterEntry


def order_of(plan, *sites: str, **changes) -> OrderHeader:
    words = {
        "run": "run-1",
        "round": 0,
        "phase": "begin",
        "plan": plan.canonical().decode(),
        "deadline_s": 60,
        "roster": tuple(RosterEntry(site=name, ledger_key="1" * 64) for name in sites),
    }
    return OrderHeader(**(words | changes))


@pytest.fixture
def plan():
    return parse_plan({"name": "p", "seed": 7, "task": {"landmarks": ["AC"]}})


def test_a_run_begins_with_the_plans_own_weights_and_no_sum(plan):
    derived = begin(plan, order_of(plan, "north"), None)
    assert (derived.round, derived.applied) == (0, "")
    assert derived.model.digest == weights_digest(initial_weights(plan))


def test_a_run_that_starts_from_a_model_begins_with_nothing_else(plan):
    start = {name: np.ones_like(array) for name, array in initial_weights(plan).items()}
    starting = plan.model_copy(update={"start": weights_digest(start)})
    header = order_of(starting, "north")
    assert begin(starting, header, start).model.digest == weights_digest(start)
    with pytest.raises(InternalError, match="without its start"):
        begin(starting, header, None)


def test_runs_of_other_sites_or_names_begin_other_chains(plan):
    links = {
        begin(plan, header, None).link
        for header in (
            order_of(plan, "north"),
            order_of(plan, "north", "south"),
            order_of(plan, "north", run="run-2"),
        )
    }
    assert len(links) == 3


def test_without_the_sum_of_the_round_before_nothing_follows(plan):
    derived = begin(plan, order_of(plan, "north"), None)
    second = order_of(plan, "north", round=2, phase="train", sum="a" * 64)
    with pytest.raises(BehindError):
        follow(derived, plan, second, {}, None, lambda _: None)
    first = order_of(plan, "north", round=1, phase="train", sum="a" * 64)
    with pytest.raises(ForgedSumError):
        follow(derived, plan, first, {}, None, lambda _: None)

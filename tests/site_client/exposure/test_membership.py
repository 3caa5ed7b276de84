"""Membership: told where a network memorises, a coin where it cannot, silence where too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.model import initial_weights
from common.plan import parse_plan
from site_client.exposure.findings import LEAST_CASES
from site_client.exposure.membership import area_under_curve, membership, train_half
from tests.conftest import SMALL_PLAN
from tests.crafted import textured_cases
from tests.tasks import site_cases

PLAN = parse_plan(
    SMALL_PLAN
    | {
        "task": SMALL_PLAN["task"] | {"spacing_mm": 2.0},
        "learner": SMALL_PLAN["learner"] | {"updates": 600, "batch": 32, "warm_start": 1.0},
    }
)
SCORES = hnp.arrays(np.float64, st.integers(1, 20), elements=st.integers(-5, 5).map(float))


@pytest.fixture(scope="module")
def cases():
    """Nothing in one image says anything about another: a network can only memorise."""
    return site_cases(PLAN, textured_cases(14, side=32, seed=4))


def volumes(some):
    return some.cases.volumes


@pytest.fixture(scope="module")
def half(cases):
    return train_half(initial_weights(PLAN), PLAN, cases, seed=2)


def test_cases_that_were_trained_on_are_told_from_others(half):
    found = membership(initial_weights(PLAN), half.delta, PLAN, half.trained, half.others, 2)
    assert (found.trained, found.others, found.updates) == (7, 7, 150)
    assert found.auc > 0.8
    assert 0.5 < found.low <= found.auc <= found.high <= 1
    assert "better than by a coin" in found.verdict


def test_halves_that_have_nothing_to_do_with_the_training_are_a_coin(half):
    """Half of the trained and half of the others on either side."""
    trained, others = volumes(half.trained), volumes(half.others)
    mixed = [
        site_cases(PLAN, (*trained[part], *others[rest]))
        for part, rest in ((slice(3), slice(4)), (slice(3, None), slice(4, None)))
    ]
    found = membership(initial_weights(PLAN), half.delta, PLAN, *mixed, 2)
    assert found.low <= 0.5 <= found.high
    assert "Not told from a coin" in found.verdict


def test_an_update_of_zero_tells_nothing(half):
    zero = {name: np.zeros_like(value) for name, value in half.delta.items()}
    found = membership(initial_weights(PLAN), zero, PLAN, half.trained, half.others)
    assert (found.auc, found.low, found.high) == (0.5, 0.5, 0.5)


def test_too_few_cases_are_said_to_be_too_few(half):
    few = half.trained.part(range(4)), half.others.part(range(LEAST_CASES - 5))
    found = membership(initial_weights(PLAN), half.delta, PLAN, *few)
    assert (found.auc, found.low, found.high) == (None, None, None)
    assert "Too few cases to tell" in found.verdict


def test_the_halves_are_all_cases_once_and_depend_on_the_seed(half, cases):
    names = [case.name for some in (half.trained, half.others) for case in volumes(some)]
    assert sorted(names) == sorted(case.name for case in volumes(cases))
    other = train_half(initial_weights(PLAN), PLAN, cases.part(range(4)), seed=5)
    again = train_half(initial_weights(PLAN), PLAN, cases.part(range(4)), seed=5)
    assert [c.name for c in volumes(other.trained)] == [c.name for c in volumes(again.trained)]
    for name, value in other.delta.items():
        np.testing.assert_array_equal(value, again.delta[name])


@given(SCORES, SCORES)
def test_the_area_is_the_chance_that_a_member_scores_higher(members, others):
    wins = [(a > b) + 0.5 * (a == b) for a in members for b in others]
    assert area_under_curve(members, others) == pytest.approx(np.mean(wins))
    assert area_under_curve(members, others) == pytest.approx(1 - area_under_curve(others, members))


def test_displacements_that_were_memorised_tell_it_too():
    learner = SMALL_PLAN["learner"] | {"updates": 600, "batch": 32, "replay": "uniform"}
    learner["method"] = "displacement"
    task = SMALL_PLAN["task"] | {"spacing_mm": 2.0}
    plan = parse_plan(SMALL_PLAN | {"task": task, "learner": learner})
    cases = site_cases(plan, textured_cases(14, side=32, seed=4))
    half = train_half(initial_weights(plan), plan, cases, seed=2)
    found = membership(initial_weights(plan), half.delta, plan, half.trained, half.others, 2)
    assert found.auc > 0.8

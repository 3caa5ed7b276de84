"""The rules of ``course``, one by one."""

from __future__ import annotations

import pytest

from aggregator.rounds.course import Agreement, Course, Step, agree
from common.errors import RefusedError, UnreachableError
from common.plan import FederationPlan, parse_plan


@pytest.fixture
def plan() -> FederationPlan:
    return parse_plan(
        {
            "name": "p",
            "seed": 1,
            "task": {"landmarks": ["AC"]},
            "rounds": {"training": 3, "quorum": 2},
        }
    )


def test_a_run_begins_trains_every_round_and_ends_with_an_evaluation(plan):
    course, steps = Course(plan), []
    while (step := course.step()) is not None:
        steps.append(step)
        course.close(step, accepted=2)
    assert steps == [
        Step(0, "begin"),
        Step(1, "train"),
        Step(2, "train"),
        Step(3, "train"),
        Step(4, "evaluate"),
    ]
    assert course.verdict == "COMPLETED"
    assert course.worked == 3


def test_a_round_below_its_quorum_does_not_count(plan):
    course = Course(plan)
    course.close(Step(0, "begin"), accepted=2)
    with pytest.raises(UnreachableError, match="quorum"):
        course.close(Step(1, "train"), accepted=1)
    assert course.step() == Step(1, "train"), "it is asked again when the run is resumed"
    assert course.verdict == "FAILED"


def test_a_run_with_a_blemish_is_degraded_and_never_completed(plan):
    course = Course(plan, finished=[0, 1, 2, 3, 4])
    course.blemish(2, "site-a", "was late")
    assert course.verdict == "DEGRADED"


def test_the_reason_names_each_site_and_fault_once_with_its_rounds(plan):
    course = Course(plan)
    for round_ in (0, 1, 2, 4):
        course.blemish(round_, "site-b", "was absent or late")
    course.blemish(2, "site-a", "was rejected: too large")
    assert course.reason == (
        "site-b was absent or late (rounds 0-2, 4); site-a was rejected: too large (round 2)"
    )


def test_the_majority_settles_key_and_quantiser():
    claims = {"a": ("k1", "c"), "b": ("k1", "c"), "c": ("k2", "c")}
    assert agree(claims) == (Agreement("k1", "c"), {"c"})


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"a": (None, None), "b": (None, None)},
        {"a": ("k1", "c"), "b": ("k2", "c")},
        {"a": ("k1", "c"), "b": ("k1", "d")},
        {"a": ("k1", "c"), "b": (None, None)},
    ],
)
def test_without_a_majority_nothing_is_agreed(claims):
    with pytest.raises(RefusedError, match="do not share"):
        agree(claims)

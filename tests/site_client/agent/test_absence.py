"""What is said of absent landmarks: weights, curves, and what the other landmarks point to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.settings import ABSENCE_SIGNS, EvaluationSettings, PoseSettings
from site_client.agent.absence import (
    _pointed,
    area_under,
    receiver_curve,
    scores_of,
    signs_of,
    weigh,
)
from site_client.agent.search import search_in_groups
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.views import Views

PLACES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0], [5.0, 5.0]])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30).filter(
        lambda pairs: len({positive for _, positive in pairs}) == 2
    )
)
@settings(deadline=None)
def test_the_area_is_the_chance_that_a_positive_scores_above_a_negative(pairs):
    scores = np.array([score for score, _ in pairs], np.float64)
    positive = np.array([positive for _, positive in pairs])
    above = scores[positive][:, None] - scores[~positive]
    chance = ((above > 0) + 0.5 * (above == 0)).mean()
    assert area_under(receiver_curve(scores, positive)) == pytest.approx(chance)


def test_a_curve_goes_from_no_alarm_to_all_of_them():
    curve = receiver_curve(np.array([0.9, 0.2, 0.4, 0.4]), np.array([True, False, True, False]))
    assert curve.tolist() == [[0, 0], [0, 0.5], [0.5, 1], [1, 1]]


def test_weights_tell_apart_what_signs_tell_apart():
    rng = np.random.default_rng(3)
    signs, absent = rng.normal(size=(200, ABSENCE_SIGNS)), np.arange(200) % 5 == 0
    signs[absent, 2] += 3.0
    scores = scores_of(signs, weigh(signs, absent))
    assert area_under(receiver_curve(scores, absent)) > 0.95
    # Both outcomes count equally, though one of them is rarer.
    assert (scores[absent] > 0.5).mean() > 0.8
    assert (scores[~absent] > 0.5).mean() < 0.2


@pytest.mark.parametrize("absent", [np.zeros(9, bool), np.ones(9, bool)])
def test_nothing_is_decided_where_only_one_outcome_occurs(absent):
    signs = np.random.default_rng(1).normal(size=(9, ABSENCE_SIGNS))
    assert not weigh(signs, absent).any()


def test_the_others_point_to_a_place_though_some_of_them_are_lost():
    case, head = np.zeros(5, np.int64), np.arange(5)
    at = PLACES + 3.0
    at[4] = (90.0, -90.0)
    pointed = _pointed(case, head, at, PLACES)
    assert pointed[4].tolist() == (PLACES[4] + 3.0).tolist()
    # One in four votes is wrong: the median of the others' is theirs.
    assert np.abs(pointed[:4] - (PLACES[:4] + 3.0)).max() < 1e-9


def test_a_single_landmark_is_pointed_to_by_none():
    at = np.array([[4.0, 2.0], [1.0, 1.0]])
    assert (_pointed(np.array([0, 1]), np.array([0, 0]), at, PLACES) == at).all()


def test_signs_of_a_perfect_search_are_those_of_a_landmark():
    """At a landmark every action leads away; the starts agree, and so do the others."""
    marks = np.array([[[30.0, 20.0], [12.0, 40.0]], [[28.0, 26.0], [10.0, 46.0]]])
    cases = [
        Case2D(f"c{k}", np.full((1, 61, 51), 90, np.uint8), (1.0, 1.0), landmarks)
        for k, landmarks in enumerate(marks)
    ]
    steps = (4.0, 1.0)
    task = Landmark2D(build_cases_2d(cases), Ladder((2.0, 1.0), steps), Views(9), may_lack=True)
    start = task.starts(np.random.default_rng(1), 3, posed=False)
    ended, agreed = search_in_groups(
        task, task.rewards_of_all, start, 3, EvaluationSettings(visits=3)
    )
    halves = np.tile([25.0, 30.0], (2, 1))
    places = task.targets_mm.mean(axis=0)
    signs = signs_of(task, task.rewards_of_all, ended, agreed, halves, places, steps)
    assert signs.shape == (4, ABSENCE_SIGNS)
    assert (signs[:, 1] < -0.2).all(), "the mean value where every action leads away"
    assert (signs[:, 3] < np.log1p(1.0)).all(), "starts within a finest step"
    assert (signs[:, 4] < np.log1p(5.0)).all()
    assert (signs[:, 5] > 0).all()
    assert (signs[:, 6] > 0).all()


def test_a_landmark_outside_is_trained_towards_and_never_searched_for():
    image = np.full((1, 40, 40), 90, np.uint8)
    case = Case2D("c", image, (1.0, 1.0), np.array([[20.0, 20.0], [60.0, 20.0]]))
    with pytest.raises(InputDataError, match="outside the image"):
        build_cases_2d([case])
    still = PoseSettings(rotation_deg=0, scale_fraction=0, shift_mm=0, gamma_contrast=0)
    built = build_cases_2d([case], may_lack=True)
    task = Landmark2D(built, Ladder((1.0,), (2.0,)), Views(9), still, may_lack=True)
    rng = np.random.default_rng(2)
    drawn = task.draw(rng, 200)
    assert set(drawn["head"].tolist()) == {0, 1}
    assert np.abs(task.native(drawn)).max() <= 20.0
    assert set(task.starts(rng, 2, posed=True)["head"].tolist()) == {0}

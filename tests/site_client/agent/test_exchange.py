"""Couples of landmarks whose names are a convention: what is looked for, found and counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputDataError
from common.settings import EvaluationSettings, PoseSettings
from site_client.agent.evaluation import evaluate
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.views import Views

LADDER = Ladder((2.0, 1.0), (6.0, 1.0))
COUPLE = [(1, 2)]


def cases(*landmarks):
    image = np.zeros((1, 101, 121), np.uint8)
    return build_cases_2d(
        [Case2D(f"c{k}", image, (1.0, 1.0), np.array(marks)) for k, marks in enumerate(landmarks)]
    )


# A middle and two ends; in the second case the ends' names are the other way round.
TWO = (
    [[60.0, 50.0], [30.0, 45.0], [90.0, 55.0]],
    [[60.0, 50.0], [80.0, 65.0], [40.0, 48.0]],
)


@pytest.fixture(scope="module")
def task():
    return Landmark2D(
        cases(*TWO), LADDER, Views(9), PoseSettings(rotation_deg=180.0), interchangeable=COUPLE
    )


def rng(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def perfect(task):
    return lambda at: task.rewards_of_all(at)


def test_each_of_a_couple_looks_on_its_side_of_the_image_as_it_is_seen(task):
    at = task.draw(rng(), 400)
    targets = task.targets(at)
    named = Landmark2D(task.cases, LADDER, Views(9), task.poses)
    own = named.targets(at)
    at["head"] = np.array([0, 2, 1])[at["head"]]
    partner = named.targets(at)
    at["head"] = np.array([0, 2, 1])[at["head"]]
    for head, side in ((1, np.minimum), (2, np.maximum)):
        of = at["head"] == head
        assert np.array_equal(targets[of, 0], side(own[of, 0], partner[of, 0]))
        # It is one of the two, and not always the one of its name.
        assert ((targets == own) | (targets == partner)).all(axis=1)[of].all()
        assert 0.1 < (targets[of] == own[of]).all(axis=1).mean() < 0.9
    assert np.array_equal(targets[at["head"] == 0], own[at["head"] == 0])


def test_a_reward_is_the_approach_to_that_end(task):
    at = task.draw(rng(1), 300)
    at["action"] = rng(2).integers(0, task.actions, 300)
    reached, rewards, _ = task.step(at)
    step = np.array(LADDER.steps_mm)[at["level"]]
    moved = (reached["position"] != at["position"]).any(axis=1)
    gain = np.clip((task.errors(at) - task.errors(reached)) / step, -1, 1)
    assert moved.sum() > 100
    assert np.allclose(rewards[moved], gain[moved], atol=1e-5)
    assert np.array_equal(task.rewards_of_all(at)[np.arange(300), at["action"]], rewards)


def test_a_couple_is_searched_under_one_pose(task):
    poses = task.starts(rng(), 4, posed=True)["pose"].reshape(2, 3, 4, -1)
    assert np.array_equal(poses[:, 1], poses[:, 2])
    assert not np.array_equal(poses[:, 0], poses[:, 1])


def test_searches_that_do_what_pays_find_both_of_a_couple(task):
    settings = EvaluationSettings(starts=4, poses=2)
    report = evaluate(task, perfect(task), settings, seed=3)
    assert report.posed_searches.agreed_errors.max() < 1.0
    assert report.native_searches.agreed_errors.max() < 1.0


def test_finding_one_of_a_couple_twice_is_an_error(task):
    at = task.starts(rng(), 1, posed=False)
    ends = task.targets_mm[at["case"], at["head"]]
    ends[at["head"] == 2] = ends[at["head"] == 1]
    task.move_to(at, ends.astype(np.float32))
    missed = np.linalg.norm(np.diff(task.targets_mm[:, 1:], axis=1)[:, 0], axis=1)
    assert task.agreed_errors(at).reshape(2, 3).max(axis=1) == pytest.approx(missed)


@given(swapped=st.lists(st.booleans(), min_size=2, max_size=2))
def test_errors_are_counted_up_to_the_exchange(task, swapped):
    at = task.starts(rng(), 1, posed=False)
    places = task.targets_mm + 0.5
    for case, swap in enumerate(swapped):
        if swap:
            places[case, [1, 2]] = places[case, [2, 1]]
    task.move_to(at, places.reshape(-1, 2).astype(np.float32))
    assert task.agreed_errors(at) == pytest.approx(np.full(6, np.sqrt(0.5)), abs=1e-4)


def test_a_landmark_whose_partner_is_missing_is_looked_for_alone():
    marks = [[60.0, 50.0], [30.0, 45.0], [np.nan, np.nan]]
    task = Landmark2D(cases(marks, TWO[0]), LADDER, Views(9), interchangeable=COUPLE)
    report = evaluate(task, perfect(task), EvaluationSettings(starts=3, poses=1), seed=0)
    assert len(report.native_searches.agreed) == 5
    assert report.native_searches.agreed_errors.max() < 1.0


@pytest.mark.parametrize("couples", [[(1, 1)], [(0, 1), (1, 2)], [(0, 3)]])
def test_couples_that_are_none_are_refused(couples):
    with pytest.raises(InputDataError, match="cannot be exchanged"):
        Landmark2D(cases(*TWO), LADDER, Views(9), interchangeable=couples)


def test_without_couples_a_search_is_what_it_was():
    plain = Landmark2D(cases(*TWO), LADDER, Views(9))
    at = plain.draw(rng(5), 50)
    assert plain.exchange is None
    truth = plain.targets(at)
    assert np.array_equal(plain.errors(at), np.linalg.norm(at["position"] - truth, axis=1))
    assert np.array_equal(plain.agreed_errors(at), plain.errors(at))

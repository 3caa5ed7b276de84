from __future__ import annotations

import numpy as np

from site_client.agent.searches import Searches
from tests.tasks import planned_task


def begun(plan, cases, seed):
    task = planned_task(plan, cases)
    rng = np.random.default_rng(seed)
    return task, rng, Searches(task, plan.learner, rng)


def test_nothing_ever_leaves_its_image(plan, cases):
    task, rng, searches = begun(plan, cases, 2)
    for _ in range(100):
        _, outcome = searches.advance(rng.integers(0, 6, plan.learner.searches))
        for at in (outcome.reached, searches.at):
            index = task.index(at)
            assert (index >= 0).all()
            assert (index <= task.sizes[at["case"]] - 1).all()
            fractions = task.fractions(at)
            assert fractions.min() >= 0
            assert fractions.max() <= 1


def test_a_time_out_starts_anew_and_is_no_transition(make_plan, cases):
    task, rng, searches = begun(make_plan(learner={"searches": 5, "episode_steps": 4}), cases, 8)
    ages = searches.age.copy()
    for _ in range(12):
        taken, outcome = searches.advance(rng.integers(0, 6, 5))
        reached = outcome.reached
        np.testing.assert_array_equal(taken["case"], reached["case"])
        np.testing.assert_array_equal(taken["pose"], reached["pose"])
        np.testing.assert_array_equal(reached, task.step(taken).reached)
        assert not outcome.ended.any()
        ages = (ages + 1) % 4
        np.testing.assert_array_equal(searches.age, ages)
        going_on = ages > 0
        np.testing.assert_array_equal(searches.at[going_on], reached[going_on])
        assert (searches.at[~going_on]["pose"] != reached[~going_on]["pose"]).any(axis=1).all()


def test_episodes_start_at_every_level_case_and_landmark(make_plan, cases):
    task, _, searches = begun(make_plan(learner={"searches": 300}), cases, 0)
    for field, values in (("level", 2), ("case", 3), ("head", 2)):
        counts = np.bincount(searches.at[field], minlength=values)
        assert counts.min() > 300 / values / 2
    fine = searches.at[searches.at["level"] == 1]
    assert task.errors(fine).max() < 2 * 4 * np.sqrt(3) + 1


def test_a_true_end_starts_anew_at_once(line, line_settings):
    """On the line, the trigger ends an episode whatever its age."""
    searches = Searches(line, line_settings(searches=8), np.random.default_rng(0))
    searches.age[:] = 0
    actions = np.array([0, 2, 1, 2, 0, 2, 1, 2])
    taken, outcome = searches.advance(actions)
    np.testing.assert_array_equal(outcome.ended, actions == 2)
    np.testing.assert_array_equal(searches.age, np.where(actions == 2, 0, 1))
    np.testing.assert_array_equal(outcome.reached["case"], taken["case"])
    np.testing.assert_array_equal(
        searches.at[actions != 2]["position"], outcome.reached[actions != 2]["position"]
    )

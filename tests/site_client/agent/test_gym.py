from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from common.errors import InputDataError
from common.settings import EvaluationSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.gym import SearchEnv, SearchVectorEnv

TASKS = [
    "landmark2d",
    "landmark3d",
    "multi_agent",
    "triplanar",
    "box",
    "plane",
    "registration",
    "centreline",
    "turned_box",
    "seeds",
    "glimpses",
    "tracking",
]


@pytest.fixture(params=TASKS)
def task(request, make_task):
    return make_task(request.param)


def test_every_task_passes_gymnasiums_own_check(task):
    # There is nothing to render.
    check_env(SearchEnv(task), skip_render_check=True)


def test_an_episode_is_truncated_when_it_is_old_and_never_before(task):
    env = SearchEnv(task, episode_steps=5)
    env.reset(seed=0)
    env.action_space.seed(0)
    for age in range(1, 6):
        action = np.zeros_like(env.action_space.sample())
        _, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        assert truncated == (age == 5)
        assert -1 <= reward <= 1
        assert info["error"] >= 0


def test_a_trigger_terminates_and_is_no_time_out(make_task):
    task = make_task("box")
    env = SearchEnv(task, episode_steps=1)
    for seed in range(20):
        seen, _ = env.reset(seed=seed)
        _, reward, terminated, truncated, _ = env.step(task.trigger)
        assert terminated == (seen["level"] == 1)
        assert truncated == (not terminated)
        assert abs(reward) == 1


def test_equal_seeds_begin_equally_and_no_seed_goes_on(task):
    env = SearchEnv(task)
    first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, None))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert (first["image"] != other["image"]).any()


def test_many_searches_step_as_their_task_does(task):
    env = SearchVectorEnv(task, num_envs=6, episode_steps=50)
    seen, info = env.reset(seed=1)
    assert env.observation_space.contains(seen)
    at = task.draw(np.random.Generator(np.random.PCG64(1)), 6)
    np.testing.assert_array_equal(seen["image"], task.observe(at))
    np.testing.assert_array_equal(info["error"].shape, (6,))
    env.action_space.seed(0)
    for _ in range(5):
        actions = np.minimum(env.action_space.sample(), task.actions - 2)
        at["action"] = actions
        reached, rewards, _ = task.step(at)
        seen, gained, terminated, truncated, _ = env.step(actions)
        np.testing.assert_array_equal(seen["image"], task.observe(reached))
        np.testing.assert_allclose(gained, rewards.reshape(6, -1).mean(axis=1), rtol=1e-6)
        assert not (terminated | truncated).any()
        at = reached


def test_searches_that_are_over_begin_anew_and_show_what_they_saw_last(make_task):
    task = make_task("box")
    env = SearchVectorEnv(task, num_envs=8, episode_steps=4)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    seen, _ = env.reset(seed=0)
    pull = np.where(np.arange(8) < 4, task.trigger, 0)
    over = (seen["level"] == 1) & (pull == task.trigger)
    assert over.any()
    before = seen["image"]
    seen, _, terminated, truncated, info = env.step(pull)
    np.testing.assert_array_equal(terminated, over)
    assert not truncated.any()
    np.testing.assert_array_equal(info["_final_obs"], over)
    for index in np.flatnonzero(over):
        # A trigger moves nothing.
        np.testing.assert_array_equal(info["final_obs"][index]["image"], before[index])
        assert (seen["image"][index] != before[index]).any()
    assert all(info["final_obs"][index] is None for index in np.flatnonzero(~over))
    for age in range(2, 5):
        _, _, terminated, truncated, info = env.step(np.zeros(8, dtype=int))
        assert not terminated.any()
        np.testing.assert_array_equal(truncated, ~over & (age == 4))
    assert ("final_obs" in info) == (~over).any()


def test_a_step_before_the_first_reset_is_refused(make_task):
    for env in (SearchEnv(make_task("landmark2d")), SearchVectorEnv(make_task("landmark2d"), 2)):
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)


def test_environments_that_cannot_be_are_refused(make_task):
    with pytest.raises(InputDataError, match="1 or more"):
        SearchEnv(make_task("landmark2d"), episode_steps=0)
    with pytest.raises(InputDataError, match="num_envs"):
        SearchVectorEnv(make_task("landmark2d"), 0)
    with pytest.raises(InputDataError, match="share one generator"):
        SearchVectorEnv(make_task("landmark2d"), 2).reset(seed=[1, 2])


def test_one_evaluation_serves_every_task(task):
    settings = EvaluationSettings(starts=2, poses=2, most_steps=150)
    report = evaluate(task, task.rewards_of_all, settings, seed=0, prior=mean_parameters(task))
    assert len(report.posed) == task.heads * task.agents
    for summary in (*report.posed.values(), *report.native.values()):
        assert np.isfinite(summary.mean)
        assert summary.mean <= 1.5
        assert (summary.share_above_10mm is None) == (task.unit != "mm")


def test_errors_that_are_no_lengths_are_not_called_millimetres(make_task):
    settings = EvaluationSettings(starts=2, poses=1, native=False)
    for task, unit, name in (
        (make_task("box"), "1 - IoU", "mean"),
        (make_task("landmark2d"), "mm", "mean_mm"),
    ):
        told = evaluate(task, task.rewards_of_all, settings, seed=0).as_dict()
        assert told["unit"] == unit
        assert told[name] == np.mean([summary[name] for summary in told["posed"].values()])
        assert any(key.endswith("_mm") for key in told) == (unit == "mm")

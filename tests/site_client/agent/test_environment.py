from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from common.plan import Agent
from site_client.agent.environment import (
    ACTIONS,
    SITUATION,
    Scans,
    Searches,
    draw_poses,
    native_poses,
    rotation_matrices,
    to_native,
    to_posed,
)

FIXTURES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def situations(scans, rng, agent, n=64):
    at = np.zeros(n, SITUATION)
    at["case"] = rng.integers(0, len(scans), n)
    at["landmark"] = rng.integers(0, scans.landmarks, n)
    at["level"] = rng.integers(0, len(scans.steps_mm), n)
    at["action"] = rng.integers(0, ACTIONS, n)
    at["pose"] = draw_poses(rng, agent, n)
    scans.place(at, rng.uniform(0.05, 0.95, (n, 3)))
    return at


def test_a_situation_is_33_bytes():
    assert SITUATION.itemsize == 33


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_posing_and_its_inverse_cancel(seed):
    rng = np.random.default_rng(seed)
    poses = draw_poses(rng, Agent(rotation_deg=180.0), 20)
    native = rng.uniform(-90, 90, (20, 3))
    np.testing.assert_allclose(to_native(to_posed(native, poses), poses), native, atol=1e-9)


def test_rotations_agree_with_scipy():
    poses = draw_poses(np.random.default_rng(0), Agent(rotation_deg=170.0), 30)
    wanted = Rotation.from_euler("xyz", poses[:, :3].astype(float), degrees=True).as_matrix()
    np.testing.assert_allclose(rotation_matrices(poses), wanted, atol=1e-12)


def test_poses_keep_to_the_extents_of_the_plan():
    agent = Agent(rotation_deg=20.0, scale_fraction=0.2, shift_mm=7.0, gamma_contrast=0.5)
    poses = draw_poses(np.random.default_rng(1), agent, 2000).astype(float)
    assert 19 < np.abs(poses[:, :3]).max() <= 20
    assert 0.19 < np.abs(poses[:, 3] - 1).max() < 0.201
    assert 6.9 < np.abs(poses[:, 4:7]).max() <= 7
    assert 1 / 1.501 < poses[:, 7].min() < 0.68
    assert 1.48 < poses[:, 7].max() < 1.501


def test_the_native_pose_changes_nothing(plan, cases):
    scans = Scans(cases, plan)
    at = np.zeros(3, SITUATION)
    at["case"] = [0, 1, 2]
    at["pose"] = native_poses(3)
    at["position"] = scans.targets(at)
    index = [c.volume.world_to_index(c.landmarks_mm[0]) for c in cases]
    np.testing.assert_allclose(scans.index(at), index, atol=1e-4)
    at["position"] = [[0, 0, 0], [1, 0, 0], [-0.5, 2, 3]]
    x, y, z = np.rint(scans.index(at)[2]).astype(int)
    seen = scans.observe(at)[2, :, 6, 6]
    assert np.abs(seen.astype(int) - int(cases[2].volume.voxels[z, y, x])).max() < 12


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_landmark_is_at_the_centre_of_every_cut_under_any_pose(make_plan, cases, seed):
    plan = make_plan(rotation_deg=40.0, gamma_contrast=0.0)
    scans = Scans(cases, plan)
    at = situations(scans, np.random.default_rng(seed), plan.agent, 12)
    at["landmark"] = 0
    at["level"] = 1
    at["position"] = scans.targets(at)
    crops = scans.observe(at)
    assert (crops[:, :, 6, 6] >= crops.max(axis=(2, 3)) - 1).all()
    assert scans.distances(at).max() < 1e-4


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_reward_is_the_distance_gained_in_steps(plan, cases, seed):
    scans = Scans(cases, plan)
    at = situations(scans, np.random.default_rng(seed), plan.agent)
    reached, rewards = scans.step(at)
    moved = (reached["position"] != at["position"]).any(axis=1)
    step = scans.steps_mm[at["level"]]
    gain = (scans.distances(at) - scans.distances(reached)) / step
    np.testing.assert_allclose(rewards[moved], gain[moved], atol=1e-4)
    assert (rewards[~moved] == -1).all()
    length = np.linalg.norm(reached["position"] - at["position"], axis=1)
    np.testing.assert_allclose(length[moved], step[moved], atol=1e-4)


def test_the_rewards_of_all_actions_contain_the_one_taken(plan, cases):
    scans = Scans(cases, plan)
    at = situations(scans, np.random.default_rng(6), plan.agent)
    every = scans.rewards_of_all(at)
    assert every.shape == (64, ACTIONS)
    np.testing.assert_array_equal(every[np.arange(64), at["action"]], scans.step(at)[1])


def test_nothing_ever_leaves_its_image(plan, cases):
    scans = Scans(cases, plan)
    rng = np.random.default_rng(2)
    searches = Searches(scans, plan.agent, rng)
    for _ in range(100):
        _, reached = searches.advance(rng.integers(0, ACTIONS, plan.agent.searches))
        for at in (reached, searches.at):
            index = scans.index(at)
            assert (index >= 0).all()
            assert (index <= scans.sizes[at["case"]] - 1).all()
            fractions = scans.fractions(at)
            assert fractions.min() >= 0
            assert fractions.max() <= 1


def test_opposite_actions_bring_a_search_back(plan, cases):
    scans = Scans(cases, plan)
    at = np.zeros(3, SITUATION)
    at["pose"] = native_poses(3)
    at["action"] = [0, 2, 4]
    there, _ = scans.step(at)
    np.testing.assert_array_equal(there["position"], 4 * np.eye(3))
    there["action"] = [1, 3, 5]
    np.testing.assert_array_equal(scans.step(there)[0]["position"], np.zeros((3, 3)))


def test_a_time_out_starts_anew_and_is_no_transition(make_plan, cases):
    plan = make_plan(searches=5, episode_steps=4)
    scans = Scans(cases, plan)
    rng = np.random.default_rng(8)
    searches = Searches(scans, plan.agent, rng)
    ages = searches.age.copy()
    for _ in range(12):
        taken, reached = searches.advance(rng.integers(0, ACTIONS, 5))
        np.testing.assert_array_equal(taken["case"], reached["case"])
        np.testing.assert_array_equal(taken["pose"], reached["pose"])
        expected, _ = scans.step(taken)
        np.testing.assert_array_equal(reached, expected)
        ages = (ages + 1) % 4
        np.testing.assert_array_equal(searches.age, ages)
        going_on = ages > 0
        np.testing.assert_array_equal(searches.at[going_on], reached[going_on])
        assert (searches.at[~going_on]["pose"] != reached[~going_on]["pose"]).any(axis=1).all()


def test_episodes_start_at_every_level_case_and_landmark(make_plan, cases):
    plan = make_plan(searches=300)
    searches = Searches(Scans(cases, plan), plan.agent, np.random.default_rng(0))
    for field, values in (("level", 2), ("case", 3), ("landmark", 2)):
        counts = np.bincount(searches.at[field], minlength=values)
        assert counts.min() > 300 / values / 2
    fine = searches.at[searches.at["level"] == 1]
    assert Scans(cases, plan).distances(fine).max() < 2 * 4 * np.sqrt(3) + 1


def test_no_cases_are_refused(plan):
    with pytest.raises(InputDataError, match="1 to 65535"):
        Scans([], plan)

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from common.settings import PoseSettings
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses
from site_client.agent.tasks.triplanar import ACTIONS, SITUATION
from tests.tasks import planned_task, site_cases

FIXTURES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def situations(task, rng, pose, n=64):
    at = np.zeros(n, SITUATION)
    at["case"] = rng.integers(0, len(task), n)
    at["head"] = rng.integers(0, task.heads, n)
    at["level"] = rng.integers(0, task.levels, n)
    at["action"] = rng.integers(0, ACTIONS, n)
    at["pose"] = draw_poses(rng, pose, n, 3)
    task.place(at, rng.uniform(0.05, 0.95, (n, 3)))
    return at


def test_a_situation_is_33_bytes():
    assert SITUATION.itemsize == 33


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_posing_and_its_inverse_cancel(seed):
    rng = np.random.default_rng(seed)
    poses = draw_poses(rng, PoseSettings(rotation_deg=180.0), 20, 3)
    native = rng.uniform(-90, 90, (20, 3))
    pose = Poses.of(poses)
    np.testing.assert_allclose(pose.native(pose.posed(native)), native, atol=1e-9)


def test_rotations_agree_with_scipy():
    poses = draw_poses(np.random.default_rng(0), PoseSettings(rotation_deg=170.0), 30, 3)
    wanted = Rotation.from_euler("xyz", poses[:, :3].astype(float), degrees=True).as_matrix()
    np.testing.assert_allclose(Poses.of(poses).rotation, wanted, atol=1e-12)


def test_poses_keep_to_the_extents_of_the_plan():
    agent = PoseSettings(rotation_deg=20.0, scale_fraction=0.2, shift_mm=7.0, gamma_contrast=0.5)
    poses = draw_poses(np.random.default_rng(1), agent, 2000, 3).astype(float)
    assert 19 < np.abs(poses[:, :3]).max() <= 20
    assert 0.19 < np.abs(poses[:, 3] - 1).max() < 0.201
    assert 6.9 < np.abs(poses[:, 4:7]).max() <= 7
    assert 1 / 1.501 < poses[:, 7].min() < 0.68
    assert 1.48 < poses[:, 7].max() < 1.501


def test_the_native_pose_changes_nothing(plan, cases):
    task = planned_task(plan, cases)
    at = np.zeros(3, SITUATION)
    at["case"] = [0, 1, 2]
    at["pose"] = native_poses(3, 3)
    at["position"] = task.targets(at)
    index = [c.volume.world_to_index(c.landmarks_mm[0]) for c in cases]
    np.testing.assert_allclose(task.index(at), index, atol=1e-4)
    at["position"] = [[0, 0, 0], [1, 0, 0], [-0.5, 2, 3]]
    x, y, z = np.rint(task.index(at)[2]).astype(int)
    seen = task.observe(at)[2, :, 6, 6]
    assert np.abs(seen.astype(int) - int(cases[2].volume.voxels[z, y, x])).max() < 12


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_landmark_is_at_the_centre_of_every_cut_under_any_pose(make_plan, cases, seed):
    plan = make_plan(pose={"rotation_deg": 40.0, "gamma_contrast": 0.0})
    task = planned_task(plan, cases)
    at = situations(task, np.random.default_rng(seed), plan.pose, 12)
    at["head"] = 0
    at["level"] = 1
    at["position"] = task.targets(at)
    crops = task.observe(at)
    assert (crops[:, :, 6, 6] >= crops.max(axis=(2, 3)) - 1).all()
    assert task.errors(at).max() < 1e-4


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_reward_is_the_distance_gained_in_steps(plan, cases, seed):
    task = planned_task(plan, cases)
    at = situations(task, np.random.default_rng(seed), plan.pose)
    reached, rewards, ended = task.step(at)
    moved = (reached["position"] != at["position"]).any(axis=1)
    step = task.steps_mm[at["level"]]
    gain = (task.errors(at) - task.errors(reached)) / step
    np.testing.assert_allclose(rewards[moved], gain[moved], atol=1e-4)
    assert (rewards[~moved] == -1).all()
    assert not ended.any()
    length = np.linalg.norm(reached["position"] - at["position"], axis=1)
    np.testing.assert_allclose(length[moved], step[moved], atol=1e-4)


def test_the_rewards_of_all_actions_contain_the_one_taken(plan, cases):
    task = planned_task(plan, cases)
    at = situations(task, np.random.default_rng(6), plan.pose)
    every = task.rewards_of_all(at)
    assert every.shape == (64, ACTIONS)
    np.testing.assert_array_equal(every[np.arange(64), at["action"]], task.step(at).rewards)


def test_opposite_actions_bring_a_search_back(plan, cases):
    task = planned_task(plan, cases)
    at = np.zeros(3, SITUATION)
    at["pose"] = native_poses(3, 3)
    at["action"] = [0, 2, 4]
    there = task.step(at).reached
    np.testing.assert_array_equal(there["position"], 4 * np.eye(3))
    there["action"] = [1, 3, 5]
    np.testing.assert_array_equal(task.step(there).reached["position"], np.zeros((3, 3)))


def test_no_cases_are_refused(plan):
    with pytest.raises(InputDataError, match="1 to 65535"):
        planned_task(plan, [])


def without(cases, missing):
    """The cases, with a landmark of some of them missing."""
    changed = list(cases)
    for case, landmark in missing:
        landmarks = changed[case].landmarks_mm.copy()
        landmarks[landmark] = np.nan
        changed[case] = dataclasses.replace(changed[case], landmarks_mm=landmarks)
    return changed


def test_a_missing_landmark_is_never_looked_for(plan, cases):
    some = without(cases, [(0, 1), (2, 0)])
    task = planned_task(plan, some)
    rng = np.random.default_rng(0)
    wanted = {(0, 0), (1, 0), (1, 1), (2, 1)}
    for at in (task.draw(rng, 500), task.starts(rng, 2, posed=True)):
        assert {(int(c), int(h)) for c, h in zip(at["case"], at["head"], strict=True)} == wanted
        assert np.isfinite(task.errors(at)).all()
    both = site_cases(plan, without(cases, [(0, 1)])).prior
    offsets = [c.landmarks_mm - c.volume.centre_mm for c in cases]
    np.testing.assert_allclose(both[1], np.mean(offsets[1:], axis=0)[1])
    np.testing.assert_allclose(both[0], np.mean(offsets, axis=0)[0])


def test_cases_without_any_landmark_are_refused(plan, cases):
    with pytest.raises(InputDataError, match="one in some case, got none"):
        planned_task(plan, without(cases[:1], [(0, 0), (0, 1)]))


def test_evaluation_starts_come_in_groups_that_differ_in_nothing_but_their_place(plan, cases):
    task = planned_task(plan, cases)
    for posed in (True, False):
        groups = task.starts(np.random.default_rng(3), 4, posed=posed).reshape(-1, 4)
        assert groups.shape == (3 * 2, 4)
        assert (groups["level"] == 0).all()
        for field in ("case", "head", "pose"):
            np.testing.assert_array_equal(groups[field], groups[field][:, :1].repeat(4, axis=1))
        assert (np.ptp(groups["position"], axis=1) > 0).all()
        if not posed:
            np.testing.assert_array_equal(groups["pose"].reshape(-1, 8), native_poses(24, 3))

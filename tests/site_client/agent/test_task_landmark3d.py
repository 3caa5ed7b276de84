from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from common.settings import PoseSettings
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.poses import Poses, rotations
from site_client.agent.tasks.views import Views
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume

FIXTURES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LADDER = Ladder((3.0, 1.0), (6.0, 1.0))


def spotted(name, size, direction, landmarks):
    """A volume with a bright spot at each landmark, on a grid turned in the world."""
    volume = Volume(np.zeros(size[::-1], np.uint8), 1.5, (10.0, -5.0, 7.0), direction)
    world = landmarks + volume.centre_mm
    z, y, x = np.indices(size[::-1])
    points = volume.index_to_world(np.stack([x, y, z], axis=-1).astype(float))
    values = np.full(size[::-1], 40.0)
    for spot in world[np.isfinite(world).all(axis=1)]:
        values += 200 * np.exp(-((points - spot) ** 2).sum(axis=-1) / 18)
    voxels = np.clip(values, 0, 255).astype(np.uint8)
    return Case(name, Volume(voxels, 1.5, volume.origin_mm, direction), world)


@pytest.fixture(scope="module")
def cases():
    turned = Rotation.from_euler("xyz", (90, 10, -20), degrees=True).as_matrix()
    nan = np.full(3, np.nan)
    return build_cases_3d(
        [
            spotted("a", (30, 34, 28), np.eye(3), np.array([(5.0, -7, 4), (-8, 4, 6), (8, 8, -6)])),
            spotted("b", (32, 28, 30), turned, np.array([(-6.0, 5, 2), nan, (4, -6, 9)])),
        ]
    )


@pytest.fixture(scope="module")
def task(cases):
    return Landmark3D(cases, LADDER, Views(roi=11))


@pytest.fixture(scope="module")
def team(cases):
    return MultiAgent(Landmark3D(cases, LADDER, Views.history(4, roi=5)), [[0, 1, 2, 2, 2]])


def situations(task, seed, n=40):
    rng = np.random.default_rng(seed)
    at = task.draw(rng, n)
    at["action"] = rng.integers(0, task.actions, at["action"].shape)
    return at


def descend(task, at):
    """Take the best action of every agent until none gains, level after level."""
    for level in range(task.levels):
        at["level"] = level
        for _ in range(60):
            every = task.rewards_of_all(at)
            at["action"] = every.argmax(axis=-1)
            before = task.parameters(at)
            gains = every.max(axis=-1, keepdims=True) > 0
            at = task.step(at).reached
            task.move_to(at, np.where(gains, task.parameters(at), before))
    return at


def test_rotations_agree_with_scipy():
    angles = np.random.default_rng(0).uniform(-170, 170, (30, 3))
    wanted = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(rotations(angles), wanted, atol=1e-12)


def test_a_situation_is_33_bytes_and_3_more_for_a_history(cases, task):
    assert task.situation.itemsize == 33
    assert Landmark3D(cases, LADDER, Views.history()).situation.itemsize == 36


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_posing_a_volume_and_its_inverse_cancel(task, seed):
    pose = Poses.of(situations(task, seed)["pose"])
    native = np.random.default_rng(seed).uniform(-90, 90, (40, 3))
    np.testing.assert_allclose(pose.native(pose.posed(native)), native, atol=1e-9)
    moved = pose.native(pose.posed(native) + 1.0) - native
    np.testing.assert_allclose(pose.native_vectors(np.ones((40, 3))), moved, atol=1e-9)


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_landmark_is_in_the_middle_of_the_cube_under_any_pose(cases, seed):
    task = Landmark3D(cases, LADDER, Views(roi=11), PoseSettings(rotation_deg=180.0))
    at = situations(task, seed, 12)
    task.move_to(at, task.targets(at).astype(np.float32))
    at["level"] = 1
    seen = task.observe(at)[:, 0]
    assert seen.shape == (12, 11, 11, 11)
    middle = seen[:, 4:7, 4:7, 4:7].max(axis=(1, 2, 3))
    assert (seen[:, 5, 5, 5] >= 0.95 * middle).all()
    assert (middle > 1.5 * np.median(seen, axis=(1, 2, 3))).all()


@pytest.mark.parametrize("nearest", [False, True])
def test_a_straight_cube_is_the_voxels_themselves(cases, nearest):
    task = Landmark3D(
        cases.subset([0]), Ladder((1.5,), (1.5,)), Views(roi=5), nearest=nearest
    )  # fmt: skip
    at = task.starts(np.random.default_rng(0), 1, posed=False)[:1]
    # Between the voxels in x, y and z, as the sizes are even; half a voxel on is one.
    task.move_to(at, np.full((1, 3), 0.75, np.float32))
    images = cases.images
    nx, ny, nz = images.sizes[0, 0]
    voxels = images.pixels[: nx * ny * nz].reshape(nz, ny, nx)
    x, y, z = nx // 2, ny // 2, nz // 2
    np.testing.assert_array_equal(
        task.observe(at)[0, 0], voxels[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3]
    )


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_rewards_in_volumes_are_the_distance_gained_in_steps(task, seed):
    at = situations(task, seed)
    reached, rewards, _ = task.step(at)
    moved = (reached["position"] != at["position"]).any(axis=1)
    gain = (task.errors(at) - task.errors(reached)) / np.array(LADDER.steps_mm)[at["level"]]
    np.testing.assert_allclose(rewards[moved], np.clip(gain, -1, 1)[moved], atol=1e-4)
    assert (rewards[~moved] == -1).all()
    every = task.rewards_of_all(at)
    np.testing.assert_array_equal(every[np.arange(40), at["action"]], rewards)


@pytest.mark.parametrize("posed", [True, False])
def test_following_the_rewards_leads_to_every_landmark_of_a_volume(task, posed):
    at = descend(task, task.starts(np.random.default_rng(0), 4, posed=posed))
    assert task.errors(at).max() <= LADDER.steps_mm[-1]
    assert len(np.unique(at[["case", "head"]])) == 5


def test_found_places_are_world_positions(task, cases):
    at = task.starts(np.random.default_rng(1), 1, posed=True)
    task.move_to(at, task.targets(at).astype(np.float32))
    world = cases.landmarks_mm[at["case"], at["head"]] + cases.middles_mm[at["case"]]
    np.testing.assert_allclose(task.positions_mm(at), world, atol=1e-3)


def test_a_team_is_its_agents_side_by_side(team):
    at = situations(team, 3, 10)
    assert at["action"].shape == (10, 5)
    assert team.observe(at).shape == (10, 5, 4, 5, 5, 5)
    reached, rewards, ended = team.step(at)
    assert not ended.any()
    assert set(at["case"]) == {0}
    for agent, landmark in enumerate((0, 1, 2, 2, 2)):
        one = np.zeros(10, team.task.situation)
        for name in ("case", "level", "pose"):
            one[name] = at[name]
        one["head"] = landmark
        for name in ("action", "position", "past"):
            one[name] = at[name][:, agent]
        alone = team.task.step(one)
        np.testing.assert_array_equal(alone.reached["position"], reached["position"][:, agent])
        np.testing.assert_array_equal(alone.reached["past"], reached["past"][:, agent])
        np.testing.assert_array_equal(alone.rewards, rewards[:, agent])
        np.testing.assert_array_equal(team.task.observe(one), team.observe(at)[:, agent])
        np.testing.assert_array_equal(team.errors(at)[:, agent], team.task.errors(one))


def test_a_team_that_follows_its_rewards_finds_all_its_landmarks(team):
    at = descend(team, team.starts(np.random.default_rng(0), 3, posed=True))
    assert at.shape == (3,)
    assert team.errors(at).max() <= LADDER.steps_mm[-1]
    assert team.report(at)["consensus_native_error_mm"].max() <= 1.2
    assert team.fractions(at).shape == (3, 3)


def test_two_teams_are_two_heads(cases):
    two = MultiAgent(Landmark3D(cases, LADDER, Views(roi=5)), [[0, 2], [1, 1]])
    at = two.starts(np.random.default_rng(0), 1, posed=False)
    assert at[["case", "head"]].tolist() == [(0, 0), (0, 1), (1, 0)]
    two.move_to(at, two.targets(at).astype(np.float32))
    np.testing.assert_allclose(two.report(at)["consensus_native_error_mm"], 0, atol=1e-4)
    drawn = two.draw(np.random.default_rng(1), 200)
    assert set(drawn[["case", "head"]].tolist()) == {(0, 0), (0, 1), (1, 0)}
    assert np.isfinite(two.errors(drawn)).all()


def test_an_agent_that_is_lost_does_not_spoil_the_consensus(team):
    at = team.starts(np.random.default_rng(0), 1, posed=False)
    places = team.targets(at)
    places[:, 2:] += np.array([[1, 0, 0], [-1, 0, 0], [9, 9, 9]])
    team.move_to(at, places.astype(np.float32))
    agreed = team.consensus(at)
    np.testing.assert_allclose(agreed, team.targets(at), atol=1e-4)
    assert team.report(at)["consensus_native_error_mm"].max() < 1e-4


@pytest.mark.parametrize("teams", [[], [[]], [[0, 1], [2]], [[0, 3]], [[-1]]])
def test_teams_that_cannot_be_are_refused(task, teams):
    with pytest.raises(InputDataError, match="no such team"):
        MultiAgent(task, teams)


def test_a_team_that_no_case_is_complete_for_is_refused(cases):
    task = Landmark3D(cases.subset([1]), LADDER, Views(roi=5))
    with pytest.raises(InputDataError, match="nothing to search"):
        MultiAgent(task, [[0, 1]])

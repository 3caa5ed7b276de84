from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from common.settings import EvaluationSettings, PlaneSettings, PoseSettings, parse_settings
from site_client.agent.search import greedy_search
from site_client.agent.tasks.plane import PlaneCase, PlaneSearch, fit_plane
from site_client.imaging.volumes import Volume

FIXTURES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAN = np.full((2, 3), np.nan)
WIDE = PlaneSettings(reach_deg=70.0, reach_mm=60.0)


def sheet(name, plane, direction=None, size=(44, 40, 42)):
    """A volume that shines near a plane, and a few points in it."""
    direction = np.eye(3) if direction is None else direction
    volume = Volume(np.zeros(size[::-1], np.uint8), 1.5, (10.0, -5.0, 7.0), direction)
    z, y, x = np.indices(size[::-1])
    world = volume.index_to_world(np.stack([x, y, z], axis=-1).astype(float))
    point, normal = plane[0] + volume.centre_mm, plane[1] / np.linalg.norm(plane[1])
    far = (world - point) @ normal
    voxels = np.clip(40 + 200 * np.exp(-(far**2) / 18), 0, 255).astype(np.uint8)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 3)) * 15
    points = point + points - (points @ normal)[:, None] * normal
    planes = np.stack([np.stack([point, normal]), NAN])
    landmarks = np.stack([points, np.full((6, 3), np.nan)])
    return PlaneCase(
        name, Volume(voxels, 1.5, volume.origin_mm, direction), planes, landmarks
    )  # fmt: skip


@pytest.fixture(scope="module")
def cases():
    turned = Rotation.from_euler("xyz", (90, 10, -20), degrees=True).as_matrix()
    second = sheet("b", np.array([(-4.0, 1, 2), (-1, 0.1, 0.3)]), turned)
    other = np.stack(
        [second.planes_mm[0], second.planes_mm[0] + np.array([(3, 0, 0), (0, 0.1, 0)])]
    )
    return [
        sheet("a", np.array([(3.0, 1, 2), (2, 0.4, -0.2)])),
        PlaneCase("b", second.volume, other, second.landmarks_mm),
    ]


@pytest.fixture(scope="module")
def task(cases):
    return PlaneSearch(cases, WIDE)


def situations(task, seed, n=40):
    rng = np.random.default_rng(seed)
    at = task.draw(rng, n)
    at["action"] = rng.integers(0, task.actions, n)
    return at


def test_a_plane_situation_is_33_bytes(task):
    assert task.situation.itemsize == 33


def test_planes_across_each_other_have_reference_normals_of_their_own(cases):
    """A sagittal and an axial plane: 90 degrees apart, neither in reach of the other's normal."""
    first = sheet("a", np.array([(1.0, 2, 3), (1, 0.2, -0.1)]))
    flat = np.stack([first.volume.centre_mm + np.array((0, 1, 2)), (0.1, -0.2, 1)])
    planes = np.stack([first.planes_mm[0], flat])
    case = PlaneCase("a", first.volume, planes, np.full((2, 3, 3), np.nan))
    with pytest.raises(InputDataError, match="out of reach"):
        PlaneSearch([case], WIDE)
    both = PlaneSettings(reach_deg=40.0, more_normals=((0.0, 0.0, 1.0),))
    still = PoseSettings(rotation_deg=0, scale_fraction=0, shift_mm=0, gamma_contrast=0)
    task = PlaneSearch([case], both, still)
    at = task.starts(np.random.default_rng(1), 1, posed=False)
    assert at["head"].tolist() == [0, 1]
    task.move_to(at, task.targets(at).astype(np.float32))
    found = task.native_planes(at)[:, 1]
    for normal, plane in zip(found, planes, strict=True):
        assert normal @ plane[1] / np.linalg.norm(plane[1]) == pytest.approx(1, abs=1e-5)
    assert task.report(at)["angle_deg"].max() < 1e-3
    ended = greedy_search(
        task, task.rewards_of_all, task.starts(np.random.default_rng(2), 3, posed=False)
    )
    assert task.report(ended)["angle_deg"].max() < 3.0
    three = PlaneSettings(more_normals=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
    with pytest.raises(InputDataError, match=r"plane\.more_normals"):
        PlaneSearch([case], three)


@given(seed=st.integers(0, 2**32), noise=st.floats(0, 1e-3))
@FIXTURES
def test_a_fitted_plane_holds_the_points_it_was_fitted_to(seed, noise):
    rng = np.random.default_rng(seed)
    frame = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    points = rng.normal(size=(9, 3)) * (30, 20, noise) @ frame.T + rng.uniform(-50, 50, 3)
    point, normal = fit_plane(np.concatenate([points, NAN]))
    assert np.abs((points - point) @ normal).max() <= 5 * noise + 1e-6
    assert abs(normal @ frame[:, 2]) > 0.999


@pytest.mark.parametrize(
    "points", [np.zeros((2, 3)), np.outer(np.arange(5), (1.0, 2, 3)), np.full((4, 3), np.nan)]
)
def test_points_on_a_line_define_no_plane(points):
    with pytest.raises(InputDataError, match="do not define a plane"):
        fit_plane(points)


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_true_parameters_are_the_posed_plane(task, cases, seed):
    at = situations(task, seed)
    task.move_to(at, task.targets(at).astype(np.float32))
    report = task.report(at)
    assert report["angle_deg"].max() < 1e-4
    assert report["offset_mm"].max() < 1e-4
    at = at[at["head"] == 0]
    assert task.report(at)["landmark_to_plane_mm"].max() < 1e-3
    assert task.errors(at).max() < 1e-4


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_true_plane_shines_all_over_under_any_pose(cases, seed):
    wide = PlaneSettings(reach_deg=80, reach_mm=90, strides_mm=(1.5, 1.5, 1.5), slab=6)
    task = PlaneSearch(cases, wide, PoseSettings(rotation_deg=25.0), roi=9)
    at = situations(task, seed, 12)
    at = at[at["head"] == 0]
    task.move_to(at, task.targets(at).astype(np.float32))
    middle = task.observe(at)[:, :, 2:7, 2:7]
    assert middle.shape == (len(at), 5, 5, 5)
    assert middle[:, 1].min() > 200
    assert middle[:, [0, 2]].max() < 140
    # Across the plane, its trace is the middle column.
    assert (middle[:, 3:, :, 2] > 200).all()


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_reward_is_the_gain_in_steps_of_the_moved_parameter(task, seed):
    at = situations(task, seed)
    reached, rewards, ended = task.step(at)
    moved = (reached["plane"] != at["plane"]).any(axis=1)
    lever = np.deg2rad(1) * WIDE.lever_mm
    steps = np.stack([np.array(WIDE.angles_deg) * lever] * 2 + [np.array(WIDE.offsets_mm)], axis=1)
    gain = (task.errors(at) - task.errors(reached)) / steps[at["level"], at["action"] // 2]
    np.testing.assert_allclose(rewards[moved], np.clip(gain, -1, 1)[moved], atol=1e-4)
    assert (rewards[~moved] == -1).all()
    assert not ended.any()
    every = task.rewards_of_all(at)
    np.testing.assert_array_equal(every[np.arange(40), at["action"]], rewards)


@pytest.mark.parametrize("posed", [True, False])
def test_following_the_rewards_leads_to_the_plane(task, posed):
    start = task.starts(np.random.default_rng(0), 6, posed=posed)
    found = greedy_search(task, task.rewards_of_all, start, EvaluationSettings(most_steps=200))
    report = task.report(found)
    assert report["angle_deg"].max() < 1.0
    assert report["offset_mm"].max() < 1.0
    assert len(found) == 18
    # Without points that should lie in it, a plane has no such distance.
    np.testing.assert_array_equal(np.isnan(report["landmark_to_plane_mm"]), found["head"] == 1)
    assert np.nanmax(report["landmark_to_plane_mm"]) < 1.0
    np.testing.assert_array_equal(found["level"], 2)


def test_missing_planes_are_never_drawn(task):
    at = task.draw(np.random.default_rng(0), 300)
    assert set(at[["case", "head"]].tolist()) == {(0, 0), (1, 0), (1, 1)}
    assert np.isfinite(task.errors(at)).all()


def test_a_plane_never_leaves_its_reach(task):
    at = situations(task, 2, 100)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(60):
        at["action"] = rng.integers(0, 3, len(at)) * 2
        reached, rewards, _ = task.step(at)
        stayed = (reached["plane"] == at["plane"]).all(axis=1)
        refused += int(stayed.sum())
        assert (rewards[stayed] == -1).all()
        at = reached
        assert np.abs(at["plane"][:, :2]).max() <= 70.001
        assert task.fractions(at).max() <= 1
    assert refused > 0


def test_the_sense_of_a_normal_does_not_matter(cases):
    a = cases[0]
    mirrored = a.planes_mm * np.array([[1.0], [-2.0]])
    both = PlaneSearch([a, PlaneCase("m", a.volume, mirrored, a.landmarks_mm)], WIDE)
    at = both.starts(np.random.default_rng(0), 1, posed=False)
    np.testing.assert_allclose(both.targets(at)[0], both.targets(at)[1], atol=1e-9)


def test_a_plane_out_of_reach_is_refused_by_name(cases):
    with pytest.raises(InputDataError, match="a: plane 0"):
        PlaneSearch(cases, PlaneSettings(normal=(0.0, 1.0, 0.0)))


@pytest.mark.parametrize(
    "bad", [{"angles_deg": (1.0, 2.0)}, {"reach_deg": 90.0}, {"strides_mm": (1.0,)}]
)
def test_settings_of_planes_that_cannot_be_are_refused(bad):
    with pytest.raises(InputDataError):
        parse_settings(PlaneSettings, bad)


def test_equal_generators_draw_equal_planes(task):
    for draw in (lambda rng: task.draw(rng, 9), lambda rng: task.starts(rng, 2, posed=True)):
        np.testing.assert_array_equal(*(draw(np.random.default_rng(5)) for _ in range(2)))

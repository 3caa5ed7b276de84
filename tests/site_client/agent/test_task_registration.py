from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from common.settings import EvaluationSettings, PoseSettings, RegistrationSettings, parse_settings
from site_client.agent.search import greedy_search
from site_client.agent.tasks.contrasts import contrast_curves, recontrasted
from site_client.agent.tasks.registration import PairCase, Registration
from site_client.imaging.pyramids import Raster

FIXTURES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL, ROI = RegistrationSettings(strides_mm=(2.0, 2.0, 1.0)), 21


def blobs(points, shape, spacing, direction, middle):
    """An image whose grid lies around `middle`, with a blob at each of the points."""
    d = len(shape)
    index = np.stack(np.indices(shape)[::-1], axis=-1) - (np.array(shape[::-1]) - 1) / 2
    world = middle + (index * spacing) @ direction.T
    values = np.zeros(shape)
    for k, point in enumerate(points):
        values += (90 + 50 * k) * np.exp(-((world - point) ** 2).sum(axis=-1) / 50)
    pixels = np.clip(values, 0, 255).astype(np.uint8)[None]
    return Raster(pixels, (spacing,) * d, direction)


def pair(name, d, *, inverted=False):
    """Two images of the same blobs, on grids that have nothing in common."""
    points = np.array([(-12.0, -9, 4), (10, 12, -8), (14, -12, 9), (0, 3, -2)])[:, :d]
    turned = Rotation.from_euler("z", 90, degrees=True).as_matrix()[:d, :d]
    fixed = blobs(points, (64, 70, 60)[:d], 1.0, np.eye(d), np.zeros(d))
    offset = np.array([2.0, -3.0, 1.0])[:d]
    moving = blobs(points, (50, 52, 56)[:d], 1.25, turned, offset)
    if inverted:
        moving = Raster(recontrasted(moving.pixels), moving.spacing_mm, moving.direction)
    return PairCase(name, fixed, moving, offset, points)


@pytest.fixture(scope="module")
def flat():
    return Registration([pair("a", 2), pair("b", 2, inverted=True)], SMALL, roi=ROI)


@pytest.fixture(scope="module")
def deep():
    return Registration([pair("v", 3)], SMALL, roi=ROI)


@pytest.fixture(scope="module")
def uncontrasted():
    """The same in either dimension, turned far but never brightened."""
    plain = PoseSettings(rotation_deg=30.0, gamma_contrast=0.0)
    return {d: Registration([pair("v", d)], SMALL, plain, roi=ROI) for d in (2, 3)}


def situations(task, seed, n=40):
    rng = np.random.default_rng(seed)
    at = task.draw(rng, n)
    at["action"] = rng.integers(0, task.actions, n)
    return at


@pytest.mark.parametrize(("name", "size"), [("flat", 35), ("deep", 59)])
def test_a_registration_situation_is_small(name, size, request):
    assert request.getfixturevalue(name).situation.itemsize == size


@pytest.mark.parametrize("dim", [2, 3])
@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_at_the_truth_both_images_look_alike_under_any_pose(uncontrasted, dim, seed):
    task = uncontrasted[dim]
    at = situations(task, seed, 8)
    task.move_to(at, at["truth"].astype(np.float32))
    fixed, moving = np.split(task.observe(at).astype(int), 2, axis=1)
    assert fixed.max() > 120
    # Each image is sampled from pixels of its own.
    assert np.abs(fixed - moving).max() < 25
    assert np.abs(fixed - moving).mean() < 1.0
    task.move_to(at, at["motion"] + np.float32(6))
    fixed, moving = np.split(task.observe(at).astype(int), 2, axis=1)
    assert np.abs(fixed - moving).max() > 40


@pytest.mark.parametrize("name", ["flat", "deep"])
@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_reward_is_the_gain_in_steps_of_the_moved_part(name, request, seed):
    task = request.getfixturevalue(name)
    at = situations(task, seed)
    reached, rewards, ended = task.step(at)
    moved = (reached["motion"] != at["motion"]).any(axis=1)
    rotates = at["action"] // 2 >= task.dim
    lever = np.where(rotates, np.deg2rad(1) * SMALL.lever_mm, 1.0)
    steps = np.where(
        rotates,
        np.array(SMALL.rotations_deg)[at["level"]],
        np.array(SMALL.translations_mm)[at["level"]],
    )
    gain = (task.errors(at) - task.errors(reached)) / (steps * lever)
    np.testing.assert_allclose(rewards[moved], np.clip(gain, -1, 1)[moved], atol=1e-4)
    assert (rewards[~moved] == -1).all()
    assert not ended.any()
    every = task.rewards_of_all(at)
    np.testing.assert_array_equal(every[np.arange(40), at["action"]], rewards)
    np.testing.assert_array_equal(reached["truth"], at["truth"])


@pytest.mark.parametrize("name", ["flat", "deep"])
@pytest.mark.parametrize("posed", [True, False])
def test_following_the_rewards_registers_the_images(name, posed, request):
    task = request.getfixturevalue(name)
    start = task.starts(np.random.default_rng(0), 6, posed=posed)
    before = task.report(start)
    found = greedy_search(task, task.rewards_of_all, start, EvaluationSettings(most_steps=200))
    report = task.report(found)
    assert before["tre_mm"].min() > 3
    assert report["tre_mm"].max() < 2.0
    assert report["rotation_deg"].max() < 1.5
    assert len(found) == 6 * len(task)


def test_the_errors_of_a_registration_are_those_of_the_motions(deep):
    at = situations(deep, 1)
    report = deep.report(at)
    truth = Rotation.from_euler("xyz", at["truth"][:, 3:].astype(float), degrees=True)
    found = Rotation.from_euler("xyz", at["motion"][:, 3:].astype(float), degrees=True)
    wanted = np.rad2deg((truth.inv() * found).magnitude())
    np.testing.assert_allclose(report["rotation_deg"], wanted, atol=1e-3)
    still = at.copy()
    deep.move_to(still, at["truth"].astype(np.float32))
    np.testing.assert_allclose(deep.report(still)["tre_mm"], 0, atol=1e-3)
    shifted = still.copy()
    deep.move_to(shifted, still["motion"] + np.array([3, 4, 0, 0, 0, 0], np.float32))
    scale = at["pose"][:, 3].astype(float)
    np.testing.assert_allclose(deep.report(shifted)["tre_mm"], 5 / scale, atol=1e-3)


def test_a_guess_never_leaves_its_reach(deep):
    at = situations(deep, 2, 60)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(80):
        at["action"] = rng.integers(0, 6, len(at)) * 2
        reached, rewards, _ = deep.step(at)
        stayed = (reached["motion"] == at["motion"]).all(axis=1)
        refused += int(stayed.sum())
        assert (rewards[stayed] == -1).all()
        at = reached
        assert np.abs(at["motion"]).max() <= 40.001
        assert deep.fractions(at).max() <= 1
    assert refused > 0


def test_repeats_share_one_motion_and_one_pose(flat):
    at = flat.starts(np.random.default_rng(3), 4, posed=True).reshape(2, 4)
    for name in ("truth", "pose", "moving_gamma"):
        np.testing.assert_array_equal(at[name], np.broadcast_to(at[name][:, :1], at[name].shape))
    assert len(np.unique(at["motion"].reshape(8, -1), axis=0)) == 8


def test_another_contrast_keeps_the_background_and_inverts_the_rest():
    pixels = np.arange(256, dtype=np.uint8)
    other = recontrasted(pixels)
    assert other[0] == 0
    assert other[1] > 240
    assert other[255] < 60


def in_contrasts(count):
    return SMALL.model_copy(update={"contrasts": count})


@pytest.mark.parametrize("dim", [2, 3])
def test_training_shows_the_moving_image_in_many_contrasts_and_the_fixed_one_in_its_own(dim):
    task = Registration([pair("v", dim)], in_contrasts(5), roi=ROI)
    at = task.draw(np.random.default_rng(4), 400)
    counts = np.bincount(at["curve"], minlength=6) / 400
    assert counts[0] == pytest.approx(0.25, abs=0.08)
    assert counts[1:].min() > 0.08
    same = np.repeat(at[:1], 6)
    same["curve"] = np.arange(6)
    fixed, moving = np.split(task.observe(same), 2, axis=1)
    assert (fixed == fixed[:1]).all()
    assert len(np.unique(moving.reshape(6, -1), axis=0)) == 6
    # A grey is turned into one other grey, and nothing into nothing.
    curves = contrast_curves(5)
    for k in range(6):
        np.testing.assert_array_equal(moving[k], curves[k][moving[0]])
    assert (curves[:, 0] == 0).all()
    np.testing.assert_array_equal(contrast_curves(5), curves)


def test_what_is_measured_is_shown_as_it_is():
    many, none = (Registration([pair("v", 2)], in_contrasts(n), roi=ROI) for n in (5, 0))
    starts = [task.starts(np.random.default_rng(1), 3, posed=True) for task in (many, none)]
    assert (starts[0]["curve"] == 0).all()
    assert "curve" not in starts[1].dtype.names
    np.testing.assert_array_equal(many.observe(starts[0]), none.observe(starts[1]))


@pytest.mark.parametrize(
    "bad",
    [
        {"contrasts": 256},
        {"contrasts": -1},
        {"translations_mm": (1.0, 2.0, 3.0)},
        {"strides_mm": (1.0,)},
        {"motion_mm": 50.0},
        {"reach_deg": 90.0},
    ],
)
def test_settings_of_registrations_that_cannot_be_are_refused(bad):
    with pytest.raises(InputDataError):
        parse_settings(RegistrationSettings, bad)


def test_no_pairs_are_refused():
    with pytest.raises(InputDataError, match="nothing to register"):
        Registration([])


def test_equal_generators_draw_equal_scenes(deep):
    for draw in (lambda rng: deep.draw(rng, 9), lambda rng: deep.starts(rng, 2, posed=True)):
        np.testing.assert_array_equal(*(draw(np.random.default_rng(5)) for _ in range(2)))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.settings import PoseSettings
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.poses import Poses
from site_client.agent.tasks.views import Views

FIXTURES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LADDER = Ladder((3.0, 1.0, 0.5), (8.0, 2.0, 0.5))


def spotted(name, shape, spacing, landmarks, group=""):
    """An image with a bright spot at each landmark."""
    y, x = np.indices(shape)
    values = np.full(shape, 40.0)
    for px, py in landmarks[np.isfinite(landmarks).all(axis=1)] / spacing:
        far = ((x - px) * spacing[0]) ** 2 + ((y - py) * spacing[1]) ** 2
        values += 200 * np.exp(-far / 18)
    image = np.clip(values, 0, 255).astype(np.uint8)[None]
    return Case2D(name, image, spacing, landmarks, group)


@pytest.fixture(scope="module")
def cases():
    nan = (np.nan, np.nan)
    return build_cases_2d(
        [
            spotted("a", (90, 120), (0.5, 1.0),
                    np.array([(40.0, 40.0), (20.0, 70.0), nan]), "skull"),
            spotted("b", (100, 80), (1.0, 0.75), np.array([(50.0, 30.0), nan, nan]), "skull"),
            spotted("c", (85, 91), (1.0, 1.0), np.array([nan, nan, (30.0, 50.0)]), "hand"),
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def task(cases):
    return Landmark2D(cases, LADDER, Views.multiscale((1, 3), roi=21))


@pytest.fixture(scope="module")
def with_history(cases):
    return Landmark2D(cases, LADDER, Views.history(4, roi=21))


def situations(task, seed, n=64):
    rng = np.random.default_rng(seed)
    at = task.draw(rng, n)
    at["action"] = rng.integers(0, task.actions, n)
    return at


def test_a_situation_is_small(task, with_history):
    assert task.situation.itemsize == 23
    assert with_history.situation.itemsize == 26


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_posing_and_its_inverse_cancel(task, seed):
    at = situations(task, seed)
    pose = Poses.of(at["pose"])
    native = np.random.default_rng(seed).uniform(-90, 90, (64, 5, 2))
    np.testing.assert_allclose(pose.native(pose.posed(native)), native, atol=1e-9)


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_reward_is_the_distance_gained_in_steps(task, seed):
    at = situations(task, seed)
    reached, rewards, ended = task.step(at)
    moved = (reached["position"] != at["position"]).any(axis=1)
    step = np.array(LADDER.steps_mm)[at["level"]]
    gain = (task.errors(at) - task.errors(reached)) / step
    np.testing.assert_allclose(rewards[moved], np.clip(gain, -1, 1)[moved], atol=1e-4)
    assert (rewards[~moved] == -1).all()
    length = np.linalg.norm(reached["position"] - at["position"], axis=1)
    np.testing.assert_allclose(length[moved], step[moved], atol=1e-4)
    assert not ended.any()


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_rewards_of_all_actions_contain_the_one_taken(task, seed):
    at = situations(task, seed)
    every = task.rewards_of_all(at)
    np.testing.assert_array_equal(every[np.arange(64), at["action"]], task.step(at).rewards)


@pytest.mark.parametrize("posed", [True, False])
def test_following_the_rewards_leads_to_every_landmark(task, posed):
    at = task.starts(np.random.default_rng(0), 5, posed=posed)
    for level in range(task.levels):
        at["level"] = level
        for _ in range(60):
            every = task.rewards_of_all(at)
            at["action"] = every.argmax(axis=1)
            gains = every.max(axis=1) > 0
            at[gains] = task.step(at).reached[gains]
    assert task.errors(at).max() <= LADDER.steps_mm[-1]


@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_landmark_is_bright_in_the_middle_of_every_view_under_any_pose(cases, seed):
    task = Landmark2D(
        cases, LADDER, Views.multiscale((1, 3), roi=21), PoseSettings(rotation_deg=180.0)
    )
    at = situations(task, seed, 16)
    task.move_to(at, task.targets(at).astype(np.float32))
    at["level"] = 1
    seen = task.observe(at)
    assert seen.shape == (16, 2, 21, 21)
    around = seen[:, :, 8:13, 8:13].max(axis=(2, 3))
    assert (seen[:, :, 10, 10] >= around * 0.92).all()
    assert (around > 1.5 * np.median(seen, axis=(2, 3))).all()
    assert task.errors(at).max() < 1e-4


def test_found_positions_come_back_as_the_landmarks_were_given(task, cases):
    at = task.starts(np.random.default_rng(1), 1, posed=True)
    task.move_to(at, task.targets(at).astype(np.float32))
    given_mm = cases.landmarks_mm[at["case"], at["head"]] + cases.middles_mm[at["case"]]
    np.testing.assert_allclose(task.positions_mm(at), given_mm, atol=1e-4)
    np.testing.assert_allclose(given_mm[0], (40, 40))


def test_missing_landmarks_are_never_drawn_and_groups_are_drawn_equally(task):
    at = task.draw(np.random.default_rng(2), 4000)
    pairs, counts = np.unique(
        np.stack([at["case"], at["head"]], axis=1), axis=0, return_counts=True
    )
    assert pairs.tolist() == [[0, 0], [0, 1], [1, 0], [2, 2]]
    np.testing.assert_allclose(counts / 4000, (1 / 8, 1 / 4, 1 / 8, 1 / 2), atol=0.03)
    starts = task.starts(np.random.default_rng(2), 3, posed=True)
    assert np.isfinite(task.errors(starts)).all()
    assert [tuple(p) for p in np.stack([starts["case"], starts["head"]], axis=1)[::3]] == [
        (0, 0), (0, 1), (1, 0), (2, 2)
    ]  # fmt: skip
    assert (starts["pose"].reshape(4, 3, -1) == starts["pose"].reshape(4, 3, -1)[:, :1]).all()


def test_nothing_ever_leaves_its_image_and_trying_costs_one(task):
    at = situations(task, 4, 200)
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(60):
        at["action"] = rng.integers(0, 2, len(at)) * 2
        reached, rewards, _ = task.step(at)
        stayed = (reached["position"] == at["position"]).all(axis=1)
        refused += int(stayed.sum())
        assert (rewards[stayed] == -1).all()
        at = reached
        fractions = task.fractions(at)
        assert fractions.min() >= 0
        assert fractions.max() <= 1
        assert (fractions[:, 2] == 0).all()
    assert refused > 0


def test_equal_generators_draw_equal_situations(task):
    for draw in (lambda rng: task.draw(rng, 9), lambda rng: task.starts(rng, 2, posed=True)):
        np.testing.assert_array_equal(*(draw(np.random.default_rng(5)) for _ in range(2)))


def test_the_history_shows_where_the_search_was(with_history):
    at = situations(with_history, 6, 30)
    frames = [with_history.observe(at)]
    assert frames[0].shape == (30, 4, 21, 21)
    np.testing.assert_array_equal(frames[0], np.repeat(frames[0][:, -1:], 4, axis=1))
    rng = np.random.default_rng(6)
    latest = [frames[0][:, -1]]
    for _ in range(6):
        at["action"] = rng.integers(0, 4, 30)
        at = with_history.step(at).reached
        seen = with_history.observe(at).astype(int)
        latest.append(seen[:, -1])
        for back in range(1, min(4, len(latest))):
            # Adding a step and taking it away again may differ in the last bit of a position.
            assert np.abs(seen[:, -1 - back] - latest[-1 - back]).max() <= 1
    with_history.move_to(at, at["position"].copy())
    seen = with_history.observe(at)
    np.testing.assert_array_equal(seen, np.repeat(seen[:, -1:], 4, axis=1))


def test_own_channels_are_a_view(cases):
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, (4, 60, 50)).astype(np.uint8)
    four = build_cases_2d([Case2D("x", image, (1.0, 1.0), np.array([[20.0, 30.0]]))])
    task = Landmark2D(four, LADDER, Views.channels(roi=9))
    at = task.starts(rng, 1, posed=False)
    at["level"] = 1
    task.move_to(at, task.targets(at).astype(np.float32))
    np.testing.assert_array_equal(task.observe(at)[0], image[:, 26:35, 16:25])


def test_a_fold_shares_its_pixels_with_the_others(cases):
    fold = cases.subset([2, 0])
    assert fold.images.pixels is cases.images.pixels
    task = Landmark2D(fold, LADDER)
    assert len(task) == 2
    assert set(task.starts(np.random.default_rng(0), 1, posed=False)["head"]) == {0, 1, 2}


def test_names_are_kept_out_of_what_is_printed(cases):
    case = spotted("Jane Doe", (30, 30), (1.0, 1.0), np.array([[5.0, 5.0]]))
    assert "Jane" not in repr(case)
    assert "Jane" not in repr(build_cases_2d([case]))


@pytest.mark.parametrize(
    ("landmarks", "words"),
    [
        (np.array([[31.0, 5.0]]), "x: landmark 0"),
        (np.zeros((1, 3)), "shape"),
        (np.full((2, 2), np.nan), "nothing to search"),
    ],
)
def test_landmarks_that_cannot_be_are_refused(landmarks, words):
    image = np.zeros((1, 30, 30), np.uint8)
    with pytest.raises(InputDataError, match=words):
        Landmark2D(build_cases_2d([Case2D("x", image, (1.0, 1.0), landmarks)]), LADDER)


def test_a_ladder_goes_from_coarse_to_fine():
    with pytest.raises(InputDataError, match="coarse to fine"):
        Ladder((1.0, 2.0), (1.0, 2.0))
    with pytest.raises(InputDataError, match="as many strides as steps"):
        Ladder((1.0,), (2.0, 1.0))

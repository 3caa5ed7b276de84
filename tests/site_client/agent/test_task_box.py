from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.settings import BoxSettings, EvaluationSettings, PoseSettings, parse_settings
from site_client.agent.search import greedy_search
from site_client.agent.tasks.box import CLOSENESS, BoxSearch
from site_client.agent.tasks.boxes import BoxCase, overlaps_of_corners
from site_client.agent.tasks.detection import (
    Detections,
    detect,
    judge,
    suppress,
)
from site_client.imaging.pyramids import Raster

FIXTURES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def with_boxes(name, shape, boxes, heads=None, spacing=1.0):
    """A dark image in which each box is bright."""
    d = len(shape)
    index = np.stack(np.indices(shape)[::-1], axis=-1)
    offset = (index - (np.array(shape[::-1]) - 1) / 2) * spacing
    pixels = np.full(shape, 30, np.uint8)
    boxes = np.array(boxes, dtype=float).reshape(-1, 2, d)
    for low, high in boxes:
        pixels[((offset >= low) & (offset <= high)).all(axis=-1)] = 200
    return BoxCase(name, Raster(pixels[None], (spacing,) * d, np.eye(d)), boxes, heads)


@pytest.fixture(scope="module")
def flat():
    return BoxSearch(
        [
            with_boxes("a", (90, 110), [[(-30, -20), (-12, -4)], [(10, 5), (35, 25)]]),
            with_boxes("b", (100, 80), [[(-10, -10), (18, 30)]], (1,)),
            with_boxes("c", (60, 60), []),
        ]
    )


@pytest.fixture(scope="module")
def deep():
    return BoxSearch([with_boxes("v", (40, 44, 48), [[(-12, -8, -10), (4, 9, 6)]])])


def situations(task, seed, n=60):
    rng = np.random.default_rng(seed)
    at = task.draw(rng, n)
    at["action"] = rng.integers(0, task.actions, n)
    return at


@pytest.mark.parametrize(("name", "size"), [("flat", 31), ("deep", 45)])
def test_a_box_situation_is_small(name, size, request):
    assert request.getfixturevalue(name).situation.itemsize == size


@pytest.mark.parametrize("name", ["flat", "deep"])
@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_reward_is_the_sign_of_the_gain_in_overlap(name, request, seed):
    task = request.getfixturevalue(name)
    at = situations(task, seed)
    at = at[task.overlaps(at) > 1e-3]
    at["action"] %= task.trigger
    reached, rewards, ended = task.step(at)
    moved = (reached["box"] != at["box"]).any(axis=1)
    gain = task.overlaps(reached) - task.overlaps(at)
    # How close a box is counts, too, but never more than this.
    clear = moved & (np.abs(gain) > CLOSENESS)
    assert clear.any()
    np.testing.assert_array_equal(rewards[clear], np.sign(gain[clear]))
    assert (rewards[~moved] == -1).all()
    assert not ended.any()
    np.testing.assert_array_equal(reached["level"], at["level"])


@pytest.mark.parametrize("name", ["flat", "deep"])
@given(seed=st.integers(0, 2**32))
@FIXTURES
def test_the_rewards_of_all_actions_on_boxes_contain_the_one_taken(name, request, seed):
    task = request.getfixturevalue(name)
    at = situations(task, seed)
    every = task.rewards_of_all(at)
    np.testing.assert_array_equal(every[np.arange(len(at)), at["action"]], task.step(at).rewards)


def test_the_trigger_descends_and_on_the_finest_level_ends(flat):
    at = situations(flat, 1, 200)
    at["action"] = flat.trigger
    reached, rewards, ended = flat.step(at)
    np.testing.assert_array_equal(ended, at["level"] == 1)
    np.testing.assert_array_equal(reached["level"], 1)
    np.testing.assert_array_equal(reached["box"], at["box"])
    np.testing.assert_array_equal(rewards, np.where(flat.overlaps(at) >= 0.5, 1, -1))
    assert 0.1 < (rewards > 0).mean() < 0.9


@pytest.mark.parametrize("name", ["flat", "deep"])
@pytest.mark.parametrize("posed", [True, False])
def test_following_the_rewards_leads_to_a_box(name, posed, request):
    task = request.getfixturevalue(name)
    start = task.starts(np.random.default_rng(0), 12, posed=posed)
    slow = EvaluationSettings(most_steps=300)
    found = greedy_search(task, task.rewards_of_all, start, slow)
    report = task.report(found)
    assert report["iou"].min() > 0.8
    assert report["hit"].all()
    np.testing.assert_allclose(task.errors(found), 1 - report["iou"])
    assert (found["level"] == task.levels - 1).all()


def test_the_box_always_fills_the_middle_of_the_view(flat, deep):
    for task in (flat, deep):
        at = task.starts(np.random.default_rng(0), 1, posed=False)[:1]
        low, high = task.true_boxes(0, 0)[0]
        box = np.concatenate([(low + high) / 2, np.log(high - low)])
        task.move_to(at, box[None].astype(np.float32))
        assert task.overlaps(at)[0] > 0.999
        seen = task.observe(at)[0]
        assert seen.shape == task.shape
        inside = np.abs(np.arange(33) - 16) / 33 * 1.5 < 0.45
        outside = np.abs(np.arange(33) - 16) / 33 * 1.5 > 0.58
        for cut in seen[: len(seen) // 2]:
            assert (cut[np.ix_(inside, inside)] == 200).all()
            assert (cut[outside] <= 40).all()
            assert (cut[:, outside] <= 40).all()


def test_a_quarter_turn_of_the_pose_swaps_the_sides_of_a_box(flat):
    at = flat.starts(np.random.default_rng(0), 1, posed=False)[:1]
    at["pose"][:, 0] = 90
    low, high = flat.true_boxes(0, 0)[0]
    x, y = (low + high) / 2
    width, height = high - low
    box = np.array([[-y, x, np.log(height), np.log(width)]], np.float32)
    flat.move_to(at, box)
    assert flat.overlaps(at)[0] > 0.999


def test_cases_without_boxes_are_never_drawn(flat):
    at = flat.draw(np.random.default_rng(0), 500)
    assert set(at[["case", "head"]].tolist()) == {(0, 0), (1, 1)}
    assert np.isfinite(flat.errors(at)).all()
    starts = flat.starts(np.random.default_rng(0), 2, posed=True)
    assert starts["case"].tolist() == [0, 0, 1, 1]
    finest = at[at["level"] == 1]
    assert 0.2 < (flat.overlaps(finest) > 0.5).mean() < 0.95


def test_boxes_stay_in_the_image_and_keep_their_size(flat):
    at = situations(flat, 5, 200)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(60):
        at["action"] = rng.choice([0, 2, 4, 6, 7], len(at))
        reached, rewards, _ = flat.step(at)
        stayed = (reached["box"] == at["box"]).all(axis=1)
        refused += int(stayed.sum())
        assert (rewards[stayed] == -1).all()
        at = reached
        fractions = flat.fractions(at)
        assert fractions.min() >= 0
        assert fractions.max() <= 1
        assert at["box"][:, 2:].min() >= np.log(2.0) - 1e-5
        assert at["box"][:, 2:].max() <= np.log(110) + 1e-5
    assert refused > 0


def test_every_lesion_is_detected_once(flat):
    settings = BoxSettings(per_axis=5, sizes_mm=(15.0, 40.0), least_score=0.5)
    slow = EvaluationSettings(most_steps=300)
    found = [detect(flat, flat.rewards_of_all, 0, 0, settings, slow)]
    found.append(detect(flat, flat.rewards_of_all, 1, 1, settings, slow))
    assert [len(f) for f in found] == [2, 1]
    report = judge(found, [flat.true_boxes(0, 0), flat.true_boxes(1, 1)])
    assert (report.true, report.found, report.recall, report.precision) == (3, 3, 1.0, 1.0)
    assert report.mean_iou > 0.8


def test_of_overlapping_findings_the_best_scored_stays():
    boxes = np.array([[(0, 0), (4, 4)], [(1, 0), (5, 4)], [(9, 9), (11, 12)]], float)
    kept = suppress(boxes, np.array([0.3, 0.8, 0.1]), 0.3)
    assert kept.tolist() == [1, 2]
    assert suppress(boxes, np.array([0.3, 0.8, 0.1]), 0.9).tolist() == [1, 0, 2]
    np.testing.assert_allclose(overlaps_of_corners(boxes, boxes)[0], (1, 12 / 20, 0))


def test_a_second_finding_in_one_lesion_is_a_false_one():
    true = np.array([[(0, 0), (4, 4)], [(9, 9), (12, 12)]], float)
    found = Detections(np.array([[(0, 0), (4, 4)], [(0, 0), (4, 5)]], float), np.array([2.0, 1.0]))
    report = judge([found, Detections(np.empty((0, 2, 2)), np.empty(0))], [true, true[:0]])
    assert (report.recall, report.precision, report.mean_iou) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("boxes", "heads", "words"),
    [
        ([[(5, 5), (1, 9)]], None, "a box is none"),
        ([[(1, 1), (np.nan, 9)]], None, "a box is none"),
        ([[(1, 1), (3, 9)]], (0, 1), "a box is none"),
        ([], None, "nothing to search"),
    ],
)
def test_boxes_that_cannot_be_are_refused(boxes, heads, words):
    image = Raster(np.zeros((1, 30, 30), np.uint8), (1.0, 1.0), np.eye(2))
    case = BoxCase("x", image, np.array(boxes, float).reshape(-1, 2, 2), heads)
    with pytest.raises(InputDataError, match=words):
        BoxSearch([case])


def test_settings_of_boxes_that_cannot_be_are_refused():
    with pytest.raises(InputDataError, match=r"box\.steps .*coarse to fine"):
        parse_settings(BoxSettings, {"steps": (0.1, 0.2)}, "box")
    with pytest.raises(InputDataError, match=r"box\.overlap"):
        parse_settings(BoxSettings, {"overlap": 1.5}, "box")


def test_equal_generators_draw_equal_boxes(flat):
    for draw in (lambda rng: flat.draw(rng, 9), lambda rng: flat.starts(rng, 2, posed=True)):
        np.testing.assert_array_equal(*(draw(np.random.default_rng(5)) for _ in range(2)))


def test_poses_turn_boxes_too():
    still = PoseSettings(rotation_deg=0, scale_fraction=0, shift_mm=0, gamma_contrast=0)
    task = BoxSearch([with_boxes("a", (50, 50), [[(-9, -5), (9, 5)]])], poses=still)
    at = task.draw(np.random.default_rng(0), 5)
    np.testing.assert_array_equal(at["pose"], np.tile([0, 1, 0, 0, 1], (5, 1)))

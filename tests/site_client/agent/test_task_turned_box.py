from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings import BoxSettings, EvaluationSettings, PoseSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.rectangles import canonical, corners, overlaps
from site_client.agent.tasks.turned_box import TurnedBoxSearch, rectangles_of
from site_client.imaging.label_images import smallest_rectangle
from site_client.imaging.pyramids import Raster

SEARCHES = EvaluationSettings(starts=1, poses=1, most_steps=60)
numbers = st.floats(-3, 3)
rectangles = st.tuples(numbers, numbers, st.floats(-1, 2), st.floats(-1, 2), numbers).map(np.array)


def bars(count=3, seed=0):
    """Bright bars, each turned its own way."""
    rng, cases = np.random.default_rng(seed), []
    for k in range(count):
        middle, angle = rng.uniform(-12, 12, 2), rng.uniform(0, np.pi)
        sides = np.array([rng.uniform(22, 30), rng.uniform(9, 12)])
        y, x = np.mgrid[:80, :90] - np.array([39.5, 44.5])[:, None, None]
        away = np.stack([x, y], axis=-1) - middle
        c, s = np.cos(angle), np.sin(angle)
        along = np.stack([away @ (c, s), away @ (-s, c)], axis=-1)
        inside = (np.abs(along) < sides / 2).all(axis=-1)
        pixels = np.where(inside, 200, 50) + rng.normal(0, 8, inside.shape)
        raster = Raster(pixels.astype(np.uint8)[None], (1.0, 1.0), np.eye(2))
        straight = np.stack([middle - sides / 2, middle + sides / 2])
        cases.append(BoxCase(str(k), raster, straight[None], None, np.array([angle])))
    return cases


@pytest.fixture(scope="module")
def task():
    return TurnedBoxSearch(bars(), BoxSettings(), PoseSettings(rotation_deg=180.0, shift_mm=3.0))


def test_whoever_knows_every_reward_finds_turned_boxes(task):
    report = evaluate(task, task.rewards_of_all, SEARCHES, 1, mean_parameters(task))
    for summary in (report.posed["0"], report.native["0"]):
        assert summary.further["iou"] > 0.6
        assert summary.prior > summary.mean


def test_a_reward_is_that_of_the_step_taken(task):
    situations = task.draw(np.random.default_rng(1), 40)
    every = task.rewards_of_all(situations)
    assert every.shape == (40, 11)
    for action in range(task.actions):
        situations["action"] = action
        np.testing.assert_array_equal(task.step(situations).rewards, every[:, action])


def test_turning_the_right_way_is_rewarded_and_the_wrong_way_is_not(task):
    at = task.starts(np.random.default_rng(2), 1, posed=True)
    task.move_to(at, task.targets(at).astype(np.float32))
    at["turn"] += 0.5
    rewards = task.rewards_of_all(at)
    assert (rewards[:, 9] == 1).all()
    assert (rewards[:, 8] == -1).all()


def test_the_truth_has_no_error_and_its_parameters_are_a_places_own(task):
    at = task.starts(np.random.default_rng(3), 2, posed=True)
    task.move_to(at, task.targets(at).astype(np.float32))
    np.testing.assert_allclose(task.errors(at), 0, atol=1e-4)
    np.testing.assert_allclose(task.parameters(at), task.targets(at), atol=1e-4)
    figures = task.report(at)
    np.testing.assert_allclose(figures["angle_deg"], 0, atol=0.1)
    assert (figures["hit"] == 1).all()


def test_a_quarter_turn_with_its_sides_changed_is_the_same_box(task):
    at = task.starts(np.random.default_rng(4), 1, posed=True)
    other = at.copy()
    other["box"][:, 2:] = at["box"][:, :1:-1]
    other["turn"] += np.pi / 2
    # Starts are square: make one side the longer first.
    for each in (at, other):
        each["box"][:, 2 if each is at else 3] += 0.5
    np.testing.assert_allclose(task.parameters(at), task.parameters(other), atol=1e-4)
    np.testing.assert_allclose(task.errors(at), task.errors(other), atol=1e-5)


def test_a_turned_image_is_a_turned_box(task):
    """Under a pose the truth turns as the image does: what is seen in it stays the same."""
    at = task.starts(np.random.default_rng(5), 1, posed=False)
    task.move_to(at, task.targets(at).astype(np.float32))
    posed = at.copy()
    posed["pose"][:, 0] = 70.0
    task.move_to(posed, task.targets(posed).astype(np.float32))
    gap = task.observe(at).astype(float) - task.observe(posed)
    other = task.observe(at).astype(float) - task.observe(posed)[:, :, ::-1, ::-1]
    # Twice the angle does not tell an end from the other.
    apart = np.minimum(np.abs(gap).mean(axis=(1, 2, 3)), np.abs(other).mean(axis=(1, 2, 3)))
    assert (apart < 6).all()


def test_straight_boxes_are_rewarded_as_boxes_without_an_angle_are():
    cases = [BoxCase(c.name, c.raster, c.boxes_mm) for c in bars()]
    turned, straight = TurnedBoxSearch(cases), BoxSearch(cases)
    at = straight.draw(np.random.default_rng(6), 60)
    at["pose"][:, 0] = 0
    other = np.zeros(60, turned.situation)
    for name in straight.situation.names:
        other[name] = at[name]
    mine = turned.rewards_of_all(other)[:, [0, 1, 2, 3, 4, 5, 6, 7, 10]]
    np.testing.assert_array_equal(mine, straight.rewards_of_all(at))


@given(rectangles, rectangles)
def test_overlaps_are_shares_and_do_not_depend_on_the_order(a, b):
    both = overlaps(a, b)
    assert -1e-9 <= both <= 1 + 1e-9
    assert overlaps(b, a) == pytest.approx(both, abs=1e-6)
    assert overlaps(a, a) == pytest.approx(1)
    assert overlaps(canonical(a[None])[0], a) == pytest.approx(1)


@given(rectangles, rectangles, numbers)
def test_overlaps_do_not_depend_on_the_frame(a, b, angle):
    c, s = np.cos(angle), np.sin(angle)
    turned = []
    for each in (a, b):
        x, y = each[:2]
        turned.append(np.array([c * x - s * y + 1, s * x + c * y - 2, *each[2:4], each[4] + angle]))
    assert overlaps(*turned) == pytest.approx(overlaps(a, b), abs=1e-6)


@given(rectangles)
def test_the_smallest_rectangle_of_corners_is_the_rectangle(rectangle):
    found = smallest_rectangle(corners(rectangle))
    told = np.array([*found[:2], *np.log(found[2:4]), found[4]])
    # To half a degree.
    assert overlaps(told, rectangle) > 0.9
    assert found[2] >= found[3]


def test_where_a_search_is_says_all_of_it(task):
    at = task.draw(np.random.default_rng(7), 5)
    assert rectangles_of(at).shape == (5, 5)
    again = at.copy()
    task.move_to(again, task.parameters(at))
    np.testing.assert_allclose(overlaps(rectangles_of(at), rectangles_of(again)), 1, atol=1e-3)

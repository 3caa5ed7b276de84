from __future__ import annotations

import numpy as np
import pytest

from common.settings import EvaluationSettings, GlimpseSettings, PoseSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.tasks.glimpses import CLOSER, GlimpseCase, GlimpseSearch
from site_client.imaging.growing import distances_from, innermost
from site_client.imaging.pyramids import Raster
from tests.made.slides import make_slide

SEARCHES = EvaluationSettings(starts=2, poses=1, most_steps=60)
ROI = 15


def task_of(count=2, seed=0, side=256, **settings):
    """Made slides, laid out for glimpses."""
    rng, cases = np.random.default_rng(seed), []
    for k in range(count):
        slide = make_slide(rng, side, patches=3)
        raster = Raster(slide.pixels[None], (1.0, 1.0), np.eye(2))
        away = distances_from(slide.mask, 1.0)
        cases.append(GlimpseCase(str(k), raster, (away,), (innermost(slide.mask),)))
    poses = PoseSettings(shift_mm=3.0)
    return GlimpseSearch(cases, GlimpseSettings(**settings), poses, roi=ROI)


@pytest.fixture(scope="module")
def task():
    return task_of()


def test_who_knows_the_way_finds_what_is_looked_for_and_reads_little():
    task = task_of(reward="approach")
    report = evaluate(task, task.rewards_of_all, SEARCHES, 1, mean_parameters(task))
    for summary in (report.posed["0"], report.native["0"]):
        assert summary.further["hit"] > 0.9
        assert summary.further["glimpses"] < 40
        assert summary.further["read_percent"] < 15
        assert summary.prior > summary.mean


@pytest.mark.parametrize("reward", ["found", "approach"])
def test_a_reward_is_that_of_the_glimpse_taken(reward):
    task = task_of(count=1, reward=reward)
    at = task.draw(np.random.default_rng(1), 30)
    every = task.rewards_of_all(at)
    assert (np.abs(every) <= 1).all()
    for action in range(task.actions):
        at["action"] = action
        np.testing.assert_array_equal(task.step(at).rewards, every[:, action])


def test_only_a_declaration_pays_and_it_pays_where_it_is_right(task):
    at = task.draw(np.random.default_rng(2), 60)
    every = task.rewards_of_all(at)
    looks = every[:, : task.declare]
    np.testing.assert_allclose(looks[looks > -1], -task.settings.cost)
    right = task.errors(at) <= task.settings.within * (at["pose"][:, 1].astype(float))
    np.testing.assert_array_equal(every[:, task.declare], np.where(right, 1, -1))
    assert right.any()


def test_looking_closer_changes_the_magnification_and_not_the_place(task):
    at = task.starts(np.random.default_rng(3), 1, posed=False)
    wide = task.observe(at)
    at["action"] = CLOSER
    nearer, _, ended = task.step(at)
    assert (nearer["level"] == 1).all()
    np.testing.assert_array_equal(nearer["position"], at["position"])
    assert not ended.any()
    assert (task.observe(nearer) != wide).any()
    nearer["action"] = CLOSER + 1
    back, _, _ = task.step(nearer)
    np.testing.assert_array_equal(task.observe(back), wide)
    np.testing.assert_array_equal(back["glimpses"], 3)


def test_beyond_the_lowest_and_the_highest_magnification_nothing_changes(task):
    at = task.draw(np.random.default_rng(4), 12)
    for level, action in ((0, CLOSER + 1), (task.levels - 1, CLOSER)):
        at["level"], at["action"] = level, action
        reached, rewards, _ = task.step(at)
        assert (reached["level"] == level).all()
        assert (rewards == -1).all()


def test_steps_are_half_of_what_is_seen(task):
    at = task.starts(np.random.default_rng(5), 1, posed=False)
    at["action"] = 0
    reached, _, _ = task.step(at)
    moved = (reached["position"] - at["position"])[:, 0]
    assert set(np.round(moved, 3)) <= {0.0, task.settings.scales[0] * ROI / 2}


def test_what_was_read_is_counted_against_reading_all(task):
    at = task.starts(np.random.default_rng(6), 1, posed=False)
    at["glimpses"] = 10
    share = 100 * 10 * ROI**2 / 256**2
    np.testing.assert_allclose(task.report(at)["read_percent"], share)


def test_a_declaration_ends_a_search_and_is_no_glimpse(task):
    at = task.draw(np.random.default_rng(7), 5)
    at["action"] = task.declare
    reached, _, ended = task.step(at)
    assert ended.all()
    np.testing.assert_array_equal(reached["glimpses"], at["glimpses"])


def test_the_truth_has_no_error(task):
    at = task.starts(np.random.default_rng(8), 2, posed=True)
    task.move_to(at, task.targets(at).astype(np.float32))
    np.testing.assert_allclose(task.errors(at), 0, atol=1.5)
    assert (task.report(at)["hit"] == 1).all()
    assert (at["level"] == task.levels - 1).all()


def test_where_nothing_is_known_nothing_is_found_right(task):
    known = task._cases[0]
    unknown = GlimpseCase("z", known.raster, (None,), known.inner)
    blind = GlimpseSearch([unknown], GlimpseSettings(), roi=ROI)
    at = blind.starts(np.random.default_rng(9), 2, posed=False)
    at["action"] = blind.declare
    assert (blind.step(at).rewards == -1).all()
    assert (blind.report(at)["hit"] == 0).all()

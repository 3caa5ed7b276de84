"""The attacks that read pictures: real against crafted orders, fruitless against honest ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import InputDataError
from common.model import initial_weights
from common.plan import read_plan
from site_client.exposure.inversion import affordable, features_of, invert
from site_client.exposure.reading import imprint, slices
from tests.crafted import crafted_plan, imprint_weights, slices_weights, textured_cases
from tests.tasks import planned_task

DEMO = Path(__file__).parents[3] / "deploy" / "plans" / "demo.toml"
BRIGHTNESS = np.linspace(0.2, 0.7, 256)


def honest_plan(updates):
    """The demonstration's plan with the tests' landmarks and fewer updates."""
    plan = read_plan(DEMO)
    task = plan.task.model_copy(update={"landmarks": ("A", "B")})
    every = {"updates": updates * plan.rounds.training}
    learner = plan.learner.model_copy(update=every)
    return plan.model_copy(update={"task": task, "learner": learner})


@pytest.fixture(scope="module")
def crafted_slices(train, textured):
    plan = crafted_plan(batch=1)
    return train(plan, slices_weights(plan), textured)


@pytest.fixture(scope="module")
def sliced(crafted_slices):
    done = crafted_slices
    return slices(done.before, done.delta, done.plan, done.trained)


@pytest.fixture(scope="module")
def crafted_imprint(train, textured):
    plan = crafted_plan(batch=64, learning_rate=1e3)
    return train(plan, imprint_weights(plan, BRIGHTNESS), textured)


@pytest.fixture(scope="module")
def honest(train, textured):
    plan = honest_plan(updates=10)
    return train(plan, initial_weights(plan), textured)


def test_a_crafted_order_of_one_transition_yields_its_slices(sliced):
    assert sliced.best_db > 40
    assert sliced.unseen_db < 20
    assert (sliced.above_30_db, sliced.crops) == (1, 1)
    assert "Pictures leave" in sliced.verdict


def test_the_three_cuts_of_the_best_picture_are_the_crops(crafted_slices, sliced):
    best = sliced.best
    np.testing.assert_array_equal(best.crop, crafted_slices.trained[0:1][0])
    error = np.square(best.picture - best.crop.astype(np.float64)).mean(axis=(1, 2))
    assert (10 * np.log10(255**2 / np.maximum(error, 1e-9)) > 40).all()


def test_a_crafted_order_of_a_batch_yields_many_crops_by_their_brightness(crafted_imprint):
    done = crafted_imprint
    found = imprint(done.before, done.delta, done.plan, done.trained)
    assert found.crops > 30
    assert found.above_30_db > 10
    assert found.above_20_db >= found.above_30_db
    assert found.unseen_above_20_db == 0


def test_nothing_comes_out_of_a_round_that_is_planned_and_begun_honestly(honest):
    for attack in (slices, imprint):
        found = attack(honest.before, honest.delta, honest.plan, honest.trained)
        assert found.attempts > 10
        assert found.crops > 200
        assert (found.above_20_db, found.above_30_db) == (0, 0)
        assert found.best_db < 20
        assert "No picture comes out" in found.verdict


def test_a_picture_of_another_image_does_not_count(crafted_slices, train):
    done = crafted_slices
    others = train(done.plan, done.before, textured_cases(6, seed=9)).trained
    found = slices(done.before, done.delta, done.plan, others)
    assert (found.above_20_db, found.above_30_db) == (0, 0)
    assert found.best_db < 20


def test_an_update_of_zero_gives_no_picture(honest):
    zero = {name: np.zeros_like(value) for name, value in honest.delta.items()}
    found = slices(honest.before, zero, honest.plan, honest.trained)
    assert (found.attempts, found.best_db, found.best) == (0, None, None)
    assert "Nothing to read" in found.verdict


def test_crops_may_be_a_plain_array_and_the_same_release_gives_the_same_figures(
    crafted_slices, sliced
):
    done = crafted_slices
    crops = done.trained[0 : len(done.trained)]
    again = slices(done.before, done.delta, done.plan, crops)
    assert again.as_dict() | {"seconds": 0} == sliced.as_dict() | {"seconds": 0}


def test_weights_of_another_plan_are_refused(honest):
    alien = crafted_plan(batch=1)
    with pytest.raises(InputDataError, match="weights"):
        slices(honest.before, honest.delta, alien, honest.trained)


def test_figures_for_json_hold_no_pixel(sliced):
    assert all(isinstance(value, (int, float, str)) for value in sliced.as_dict().values())


def test_features_are_inverted_through_convolutions_that_nobody_crafted(textured):
    """Width 64 has more features than a crop has pixels: they say nearly everything."""
    plan = crafted_plan(batch=1)
    weights, task = initial_weights(plan), planned_task(plan, textured)
    crops = task.observe(task.draw(np.random.default_rng(0), 3)).astype(np.float32)
    assert affordable(weights, plan.task.roi) >= 3
    made = invert(weights, plan.task.roi, features_of(weights, crops), seed=0)
    error = np.square(made - crops).mean(axis=(1, 2, 3))
    flat = crops.var(axis=(2, 3)).mean(axis=1)
    assert (10 * np.log10(255**2 / error) > 24).all()
    assert (error < flat / 6).all()


@pytest.mark.slow
def test_the_largest_slices_come_out_whole(train, textured):
    plan = crafted_plan(batch=1, roi=129)
    done = train(plan, slices_weights(plan), textured)
    found = slices(done.before, done.delta, done.plan, done.trained)
    assert found.best_db > 40
    assert found.seconds < 120


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_nothing_comes_out_of_a_whole_round_of_the_demonstration(train, seed):
    plan = honest_plan(updates=84)
    done = train(plan, initial_weights(plan), textured_cases(6, seed=seed + 20), seed=seed)
    for attack in (slices, imprint):
        assert attack(done.before, done.delta, done.plan, done.trained).above_20_db == 0

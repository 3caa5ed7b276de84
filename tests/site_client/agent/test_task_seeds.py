from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from common.settings import EvaluationSettings, GrowingSettings, PoseSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.search import search_in_groups
from site_client.agent.tasks.seeds import SeedCase, SeedSearch
from site_client.imaging.growing import Grower, innermost
from site_client.imaging.pyramids import Raster
from tests.made.lesions import make_lesion

SEARCHES = EvaluationSettings(starts=2, poses=1, most_steps=40)


def task_of(dim, count=2, seed=0, **settings):
    """Made lesions, laid out for growing."""
    rng, cases = np.random.default_rng(seed), []
    chosen = GrowingSettings(**settings)
    for k in range(count):
        lesion = make_lesion(rng, dim, 32)
        raster = Raster(lesion.pixels[None], (1.0,) * dim, np.eye(dim))
        grower = Grower(lesion.pixels, 1.0, chosen.tolerance, chosen.smooth_mm)
        inner = innermost(lesion.mask)
        cases.append(SeedCase(str(k), raster, (lesion.mask,), (inner,), grower.region))
    return SeedSearch(cases, chosen, PoseSettings(shift_mm=3.0), roi=13)


@pytest.fixture(scope="module")
def flat():
    return task_of(2)


@pytest.fixture(scope="module")
def deep():
    return task_of(3)


@pytest.fixture(params=["flat", "deep"])
def task(request):
    return request.getfixturevalue(request.param)


def test_a_reward_is_what_the_region_gains(task):
    at = task.draw(np.random.default_rng(1), 20)
    every = task.rewards_of_all(at)
    before = task.errors(at)
    for action in range(task.actions):
        at["action"] = action
        reached, rewards, ended = task.step(at)
        np.testing.assert_array_equal(rewards, every[:, action])
        assert not ended.any()
        moved = (reached["position"] != at["position"]).any(axis=1)
        gain = before - task.errors(reached)
        np.testing.assert_allclose(rewards[moved], gain[moved], atol=1e-6)
        assert (rewards[~moved] == -1).all()


def test_the_error_is_that_of_the_region_grown_there(flat):
    at = flat.starts(np.random.default_rng(2), 1, posed=True)
    for k in range(len(at)):
        region, mask = flat.region(at[k : k + 1]), flat._cases[at["case"][k]].masks[0]
        dice = 2 * (region & mask).sum() / (region.sum() + mask.sum())
        assert flat.errors(at)[k] == pytest.approx(1 - dice, abs=1e-6)
    figures = flat.report(at)
    np.testing.assert_allclose(figures["dice"], 1 - flat.errors(at))


def test_a_region_is_grown_once(flat):
    task, grown = task_of(2, count=1), []
    case = task._cases[0]
    counted = SeedCase(
        case.name, case.raster, case.masks, case.inner, lambda p: grown.append(1) or case.grow(p)
    )
    task._cases = (counted,)
    at = task.starts(np.random.default_rng(3), 3, posed=False)
    task.errors(at)
    first = len(grown)
    assert 0 < first <= 3
    task.errors(at)
    assert len(grown) == first


def test_far_from_the_label_no_step_gains_anything_at_once(flat):
    """So a reward of the moment says nothing there; the way to the innermost point does."""
    follows = task_of(2, reward="approach")
    at = flat.starts(np.random.default_rng(8), 40, posed=False)
    blind = (flat.rewards_of_all(at) <= 0.01).all(axis=1)
    assert blind.mean() > 0.1
    # Further from it than a step is long.
    far = blind & (np.linalg.norm(at["position"] - flat.targets(at), axis=1) > 8.0)
    assert far.any()
    assert (follows.rewards_of_all(at[far]).max(axis=1) > 0).all()
    place = evaluate(follows, follows.rewards_of_all, SEARCHES, 1, mean_parameters(follows))
    assert place.native["0"].further["inside"] == 1


def test_searches_agree_on_a_seed_that_one_of_them_found(flat):
    """A mean of places lies on another grey, from which something else grows."""
    start = flat.starts(np.random.default_rng(9), 4, posed=False)
    ends, agreed = search_in_groups(flat, flat.rewards_of_all, start, 4, SEARCHES)
    for group, one in zip(ends, agreed, strict=True):
        assert (group["position"] == one["position"]).all(axis=1).any()


def test_a_label_that_a_case_lacks_is_not_looked_for(flat):
    whole = flat._cases[0]
    lacks = SeedCase("y", whole.raster, (None,), (None,), whole.grow)
    task = SeedSearch([whole, lacks], roi=13)
    assert set(task.starts(np.random.default_rng(4), 2, posed=False)["case"]) == {0}
    with pytest.raises(InputDataError, match="nothing to search"):
        SeedSearch([lacks], roi=13)


def test_an_unknown_label_grows_nothing_and_is_not_asked_about(flat):
    whole = flat._cases[0]

    def refuse(pixel):
        raise AssertionError(pixel)

    unknown = SeedCase("z", whole.raster, (None,), (whole.inner[0],), refuse)
    task = SeedSearch([unknown], roi=13)
    at = task.starts(np.random.default_rng(5), 2, posed=False)
    at["action"] = 0
    task.step(at)
    np.testing.assert_array_equal(task.errors(at), 1)


def test_the_innermost_pixel_is_in_the_middle_of_a_block():
    mask = np.zeros((20, 30), bool)
    mask[4:13, 6:21] = True
    x, y = innermost(mask)
    assert y == 8
    assert 10 <= x <= 16
    # Of a block at the border of the image, too.
    mask[:] = True
    x, y = innermost(mask)
    assert y in (9, 10)
    assert 9 <= x <= 20


def test_a_region_is_connected_and_as_grey_as_its_seed():
    pixels = np.full((20, 20), 50, np.uint8)
    pixels[5:10, 5:10] = 150
    pixels[12:15, 12:15] = 160
    region = Grower(pixels, 1.0, 20, 0.0).region(np.array([6, 7]))
    np.testing.assert_array_equal(region, pixels == 150)

"""Gradients out of Adam's step, pixels out of copying convolutions, decibels out of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.model import initial_weights
from site_client.exposure.findings import GAIN_DB
from site_client.exposure.gradients import estimated_gradients
from site_client.exposure.inversion import features_of
from site_client.exposure.scoring import EQUAL_DB, Scoring
from site_client.exposure.unfolding import unfold
from tests.crafted import copying_convolutions, crafted_plan

ROI = 25
PLAN = crafted_plan(batch=1)


def pictures(n, cuts=3, roi=ROI):
    return hnp.arrays(np.uint8, (n, cuts, roi, roi), elements=st.integers(0, 255))


@given(st.lists(st.floats(-1e-6, 1e-6), min_size=4, max_size=40))
def test_the_first_step_of_adam_is_undone(gradients):
    held = torch.zeros(len(gradients), dtype=torch.float64, requires_grad=True)
    held.grad = torch.tensor(gradients, dtype=torch.float64)
    torch.optim.Adam([held], lr=PLAN.learner.learning_rate).step()
    delta = {"fc1.weight": held.detach().numpy()[:, None], "fc1.bias": held.detach().numpy()}
    if delta["fc1.bias"].any():  # the smallest of all gradients move nothing
        found = estimated_gradients(delta, PLAN)[0]
        np.testing.assert_allclose(found.biases, gradients, rtol=1e-5, atol=1e-14)
        np.testing.assert_allclose(found.weights[:, 0], gradients, rtol=1e-5, atol=1e-14)
    else:
        assert estimated_gradients(delta, PLAN) == []


@settings(max_examples=20, deadline=None)
@given(pictures(2))
def test_what_convolutions_copy_is_unfolded_bit_for_bit(crops):
    weights = copying_convolutions(PLAN, packed=False)
    values = features_of(weights, crops.astype(np.float32))
    made = unfold(weights, ROI, values, np.zeros(values.shape[1]))
    np.testing.assert_array_equal(made[:, :2], crops[:, :2])
    assert np.isnan(made[:, 2]).all()


@settings(max_examples=20, deadline=None)
@given(pictures(2))
def test_a_cut_packed_below_another_is_unfolded_too(crops):
    weights = copying_convolutions(PLAN, packed=True)
    values = features_of(weights, crops.astype(np.float32))
    made = unfold(weights, ROI, values, np.zeros(values.shape[1]))
    np.testing.assert_array_equal(made, crops)


def test_biases_of_copying_convolutions_are_taken_away_first():
    weights = copying_convolutions(PLAN, packed=False)
    for name in ("conv1", "conv2", "conv3"):
        weights[f"{name}.bias"][:] = 0.25
    crops = np.random.default_rng(0).integers(0, 256, (1, 3, ROI, ROI)).astype(np.float32)
    at_rest = features_of(weights, np.zeros_like(crops))[0]
    made = unfold(weights, ROI, features_of(weights, crops), at_rest)
    np.testing.assert_array_equal(made[:, :2], crops[:, :2])


def test_honest_convolutions_are_not_taken_for_copying_ones():
    weights = initial_weights(PLAN)
    values = np.ones((1, weights["fc1.weight"].shape[1] - 1))
    assert np.isnan(unfold(weights, ROI, values, np.zeros(values.shape[1]))).all()


@settings(deadline=None)
@given(pictures(5, roi=4), pictures(3, roi=4))
def test_the_nearest_picture_of_every_cut_counts(crops, made):
    scoring = Scoring(crops)
    scoring.add(made.astype(np.float32))
    error = np.square(made[:, None].astype(float) - crops[None]).mean(axis=(3, 4)).min(axis=0)
    with np.errstate(divide="ignore"):
        wanted = np.clip(10 * np.log10(255**2 / error), 0, EQUAL_DB)
    # The search for the nearest works in single precision; of two as near either will do.
    np.testing.assert_allclose(scoring.scores().found_db, wanted, rtol=1e-3, atol=1e-3)


@given(pictures(1, roi=4))
def test_a_guess_of_the_only_crop_knows_its_brightness_and_nothing_else(crops):
    scores = Scoring(crops).scores()
    variance = crops.astype(float).var(axis=(2, 3))
    with np.errstate(divide="ignore"):
        wanted = np.clip(10 * np.log10(255**2 / variance), 0, EQUAL_DB)
    np.testing.assert_allclose(scores.unseen_db, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_a_cut_that_shows_nothing_is_never_read(grey):
    crops = np.full((4, 3, ROI, ROI), grey, np.uint8)
    scoring = Scoring(crops)
    scoring.add(crops[:1].astype(np.float32))
    scores = scoring.scores()
    assert not (scores.found_db >= scores.unseen_db + GAIN_DB).any()


def test_cuts_that_were_not_read_count_nothing():
    crops = np.random.default_rng(0).integers(0, 256, (3, 3, ROI, ROI)).astype(np.uint8)
    made = crops[1:2].astype(np.float32)
    made[:, 2] = np.nan
    scoring = Scoring(crops)
    scoring.add(made)
    found = scoring.scores()
    assert (found.found_db[1] == [EQUAL_DB, EQUAL_DB, 0]).all()
    assert found.best[0] == 1
    assert found.attempts == 1

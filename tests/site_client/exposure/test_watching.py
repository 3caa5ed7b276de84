"""A rehearsal sees what is trained on, and has no say in it."""

from __future__ import annotations

import numpy as np
import torch

from common.model import initial_weights, weights_digest
from common.plan import parse_plan
from site_client.agent.federated import planned_learner
from site_client.exposure.crops import TrainedCrops
from tests.conftest import SMALL_PLAN
from tests.tasks import planned_task

PLAN = parse_plan(SMALL_PLAN | {"task": SMALL_PLAN["task"] | {"spacing_mm": 2.0}})


def trained(cases, watch=None):
    learner = planned_learner(PLAN, planned_task(PLAN, cases), seed=3, watch=watch)
    learner.load(initial_weights(PLAN))
    learner.train(6)
    return learner


def test_watching_changes_no_bit_of_weights_or_state(textured):
    watched = []
    alone, seen = trained(textured), trained(textured, watched.append)
    assert weights_digest(alone.weights()) == weights_digest(seen.weights())
    for name, value in alone.state_dict().items():
        np.testing.assert_array_equal(value, seen.state_dict()[name], err_msg=name)
    for told, again in zip(alone.new_experience(), seen.new_experience(), strict=True):
        np.testing.assert_array_equal(told, again)
    assert [len(batch) for batch in watched] == [PLAN.learner.batch] * 6


def test_whoever_spoils_what_is_shown_spoils_only_a_copy(textured):
    def spoil(batch):
        batch["position"] = np.nan
        batch["case"] = 0

    digests = {weights_digest(trained(textured, watch).weights()) for watch in (None, spoil)}
    assert len(digests) == 1


def test_the_crops_are_exactly_those_that_the_network_took_gradients_of(textured):
    watched, shown = [], []
    learner = planned_learner(PLAN, planned_task(PLAN, textured), seed=3, watch=watched.append)

    def look(_, inputs):
        if torch.is_grad_enabled():
            shown.append((inputs[0] * 255).round().numpy().astype(np.uint8))

    learner.network.register_forward_pre_hook(look)
    learner.train(6)
    crops = TrainedCrops(planned_task(PLAN, textured), watched)
    listed = {crop.tobytes() for crop in crops[0 : len(crops)]}
    assert listed == {crop.tobytes() for batch in shown for crop in batch}
    assert len(shown) == 6


def test_a_crop_that_is_met_again_counts_once(textured):
    watched = []
    trained(textured, watched.append)
    task = planned_task(PLAN, textured)
    once, twice = TrainedCrops(task, watched), TrainedCrops(task, [*watched, *watched])
    assert len(once) == len(twice) <= sum(len(batch) for batch in watched)
    np.testing.assert_array_equal(once[0:5], twice[0:5])

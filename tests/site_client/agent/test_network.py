from __future__ import annotations

import numpy as np
import pytest
import torch

from common.errors import InputDataError
from common.model import (
    check_weights,
    initial_weights,
    weight_shapes,
    weights_digest,
)
from common.settings.parameters import light_side
from site_client.agent.federated import planned_network
from site_client.agent.network import get_weights, network_values, set_weights
from tests.tasks import planned_task


def test_shapes_are_those_of_the_network(plan):
    network = planned_network(plan, initial_weights(plan))
    assert {k: tuple(v.shape) for k, v in network.named_parameters()} == weight_shapes(plan)


@pytest.mark.parametrize("roi", [9, 10, 25, 31, 45, 129])
def test_every_roi_fits_the_first_dense_layer(make_plan, roi):
    plan = make_plan(task={"roi": roi})
    values = planned_network(plan, initial_weights(plan))(
        torch.zeros(2, 3, roi, roi), torch.tensor([0, 1]), torch.tensor([1, 0])
    )
    assert values.shape == (2, 6)
    assert light_side(roi) >= 2


def test_first_weights_depend_on_the_plans_seed_alone(make_plan):
    one, same, other = (initial_weights(make_plan(seed=s)) for s in (1, 1, 2))
    assert weights_digest(one) == weights_digest(same)
    assert weights_digest(one) != weights_digest(other)
    assert weights_digest(
        initial_weights(make_plan(seed=1, learner={"gamma": 0.1}))
    ) == weights_digest(one)


def test_first_weights_are_frozen_for_all_time(make_plan):
    digest = weights_digest(initial_weights(make_plan(seed=7)))
    assert digest == "729761ea29bb5e83ddd99ead6653990b505c8332fe241779ade36db10bc8c608"


def test_the_digest_sees_names_shapes_and_values():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(1, np.float32)}
    digests = {
        weights_digest(w)
        for w in (
            base,
            {"a": base["a"].reshape(3, 2), "b": base["b"]},
            {"c": base["a"], "b": base["b"]},
            {"a": base["a"], "b": base["b"] * 2},
        )
    }
    assert len(digests) == 4
    assert weights_digest(dict(reversed(base.items()))) == weights_digest(base)


def test_setting_and_getting_are_inverse(plan, make_plan):
    weights = initial_weights(make_plan(seed=6))
    network = planned_network(plan, initial_weights(plan))
    set_weights(network, weights)
    assert weights_digest(get_weights(network)) == weights_digest(weights)


def test_a_network_keeps_no_hold_on_the_arrays_it_was_given(plan):
    weights = initial_weights(plan)
    network = planned_network(plan, weights)
    before = get_weights(network)
    for value in weights.values():
        value += 1
    assert weights_digest(get_weights(network)) == weights_digest(before)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("fc1.bias"), "1 missing, 0 unknown"),
        (lambda w: w.update(extra=w["fc1.bias"]), "0 missing, 1 unknown"),
        (lambda w: w.update({"fc1.bias": w["fc1.bias"][:-1]}), "weights/fc1.bias"),
        (lambda w: w.update({"fc1.bias": w["fc1.bias"].astype(np.float64)}), "float64"),
        (lambda w: w["conv1.bias"].fill(np.nan), "not finite"),
    ],
    ids=["missing", "extra", "shape", "type", "nan"],
)
def test_weights_of_another_network_are_refused(plan, change, complaint):
    weights = initial_weights(plan)
    change(weights)
    network = planned_network(plan, initial_weights(plan))
    for refuse in (lambda: check_weights(weights, plan), lambda: set_weights(network, weights)):
        with pytest.raises(InputDataError, match=complaint):
            refuse()
    assert weights_digest(get_weights(network)) == weights_digest(initial_weights(plan))


def test_values_do_not_depend_on_how_many_are_asked_for_at_once(plan, cases):
    task, network = planned_task(plan, cases), planned_network(plan, initial_weights(plan))
    at = task.draw(np.random.default_rng(0), 300)
    values = network_values(task, network, at)
    assert values.shape == (300, 6)
    np.testing.assert_allclose(values[250:], network_values(task, network, at[250:]), atol=1e-6)

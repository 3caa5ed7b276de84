"""Every task with every network that can look at it: trained, saved, and gone on with."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch

from common.errors import InputDataError
from common.settings import LearnerSettings, NetworkSettings
from site_client.agent.learner import Learner
from site_client.agent.networks import build_network

LEARNING = LearnerSettings(
    updates=2, batch=1, searches=2, episode_steps=4, warmup=2, replay_capacity=100
)
# The shortest side that each architecture can look at.
FLAT = {"planar": 9, "paper2d": 20}
CUBIC = {"volume-light": 9, "network3d": 34, "commnet": 34, "collab": 34}
FITTING = {
    "landmark2d": FLAT,
    "triplanar": {"triplanar": 9} | FLAT,
    "box": FLAT,
    "plane": FLAT,
    "registration": FLAT,
    "centreline": FLAT,
    "turned_box": FLAT,
    "seeds": FLAT,
    "glimpses": FLAT,
    "tracking": FLAT,
    "landmark3d": CUBIC,
    "multi_agent": CUBIC,
}
EVERY = [(t, name, side) for t, fitting in FITTING.items() for name, side in fitting.items()]


def network_for(task, name, seed=0):
    settings = NetworkSettings(architecture=name, width=4, hidden=(16,))
    return build_network(settings, task, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "name", "side"), EVERY)
def test_every_task_learns_with_every_fitting_network_and_goes_on_where_it_stopped(
    make_task, kind, name, side
):
    task = make_task(kind, side)
    straight = Learner(task, network_for(task, name), LEARNING, seed=1)
    before = straight.weights()
    assert np.isfinite(straight.train(2).loss_mean)
    assert any((before[key] != value).any() for key, value in straight.weights().items())
    first = Learner(task, network_for(task, name), LEARNING, seed=1)
    first.train(1)
    resumed = Learner(task, network_for(task, name, seed=7), LEARNING, seed=9)
    resumed.load_state(safetensors.numpy.load(safetensors.numpy.save(first.state_dict())))
    resumed.train(1)
    wanted, got = straight.state_dict(), resumed.state_dict()
    assert set(wanted) == set(got)
    for key, value in wanted.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.parametrize("kind", FITTING)
def test_networks_for_other_observations_are_refused(make_task, kind):
    task = make_task(kind)
    for name in {"triplanar", *FLAT, *CUBIC} - set(FITTING[kind]):
        with pytest.raises(InputDataError, match=name):
            network_for(task, name)

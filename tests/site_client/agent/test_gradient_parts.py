"""A batch whose gradient is taken in parts teaches what it teaches taken at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.settings import LearnerSettings, NetworkSettings
from site_client.agent.learner import Learner
from site_client.agent.networks import build_network
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.views import Views
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume

LADDER = Ladder((3.0, 1.0), (6.0, 1.0))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def alone():
    case = Case2D("x", noise(1, 50, 60), (1.0, 1.0), np.array([[20.0, 30.0], [9.0, 9.0]]))
    return Landmark2D(build_cases_2d([case]), LADDER, Views(9)), "planar"


def together():
    volume = Volume(noise(24, 26, 28), 1.0, (0.0, 0.0, 0.0), np.eye(3))
    cases = build_cases_3d([Case("x", volume, np.array([[10.0, 12, 14], [15, 9, 11]]))])
    return MultiAgent(Landmark3D(cases, LADDER, Views(9)), [[0, 1]]), "volume-light"


def trained(task, architecture, rows, updates=6, **asked):
    settings = LearnerSettings.model_validate(
        {"updates": 6, "batch": 16, "searches": 4, "warmup": 40, "replay_capacity": 200} | asked
    )
    wanted = NetworkSettings.model_validate(
        {"architecture": architecture, "width": 4, "hidden": [16]}
    )
    network = build_network(wanted, task, torch.Generator().manual_seed(0))
    network.gradient_rows = rows
    learner = Learner(task, network, settings, seed=1)
    report = learner.train(updates)
    return learner.state_dict(), report.loss_mean


@pytest.mark.parametrize("make", [alone, together])
@pytest.mark.parametrize(
    "asked",
    [{}, {"replay": "prioritised"}, {"path_supervision_only": True}],
    ids=["uniform", "prioritised", "path"],
)
# 5 does not divide the batch; 3 leaves a team of two agents one row at a time.
@pytest.mark.parametrize("rows", [3, 5])
def test_parts_teach_what_the_whole_teaches(make, asked, rows):
    task, architecture = make()
    whole, whole_loss = trained(task, architecture, None, **asked)
    parts, parts_loss = trained(task, architecture, rows, **asked)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-4)
    names = [name for name in whole if name.startswith("online/")]
    for name in names:
        np.testing.assert_allclose(parts[name], whole[name], atol=2e-4, err_msg=name)
    # It did learn: otherwise equal weights would say nothing.
    first, _ = trained(task, architecture, None, updates=0, **asked)
    assert max(np.abs(whole[name] - first[name]).max() for name in names) > 2e-3


def test_prioritised_replay_hears_of_every_row(monkeypatch):
    task, architecture = alone()
    heard = []
    from site_client.agent.replay import Replay

    kept = Replay.set_errors

    def listen(self, slots, errors):
        heard.append((len(slots), len(errors)))
        kept(self, slots, errors)

    monkeypatch.setattr(Replay, "set_errors", listen)
    trained(task, architecture, 5, updates=2, replay="prioritised")
    assert heard == [(16, 16)] * 2


def test_a_batch_that_fits_is_not_divided():
    task, architecture = alone()
    whole, _ = trained(task, architecture, None)
    fits, _ = trained(task, architecture, 16)
    for name, value in whole.items():
        np.testing.assert_array_equal(fits[name], value, err_msg=name)

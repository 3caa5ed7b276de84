"""A policy per axis: how it moves, what it learns from, and that a stop costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch

from common.errors import InputDataError, InternalError
from common.model import weight_shapes
from common.settings import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from site_client.agent.axes import move_all_axes
from site_client.agent.evaluation import evaluate
from site_client.agent.learner import Learner
from site_client.agent.network import set_weights
from site_client.agent.networks import build_network
from site_client.agent.search import follow, greedy_search
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.views import Views
from site_client.agent_app.config import parse_config

STILL = PoseSettings(rotation_deg=0, scale_fraction=0, shift_mm=0, gamma_contrast=0)
SMALL = {
    "method": "partial-policy",
    "updates": 12,
    "batch": 8,
    "searches": 6,
    "warmup": 40,
    "replay_capacity": 200,
    "episode_steps": 8,
}


def planar(frames=1):
    """Three images of a bright spot."""
    y, x = np.mgrid[:48, :52]
    made = []
    for k, at in enumerate([(20.0, 18.0), (30.0, 25.0), (24.0, 30.0)]):
        grey = 40 + 200 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 60)
        made.append(Case2D(f"c{k}", grey.astype(np.uint8)[None], (1.0, 1.0), np.array([at])))
    ladder, views = Ladder((2.0, 1.0), (4.0, 1.0)), Views(15, (1.0, 3.0), frames)
    return Landmark2D(build_cases_2d(made), ladder, views, STILL)


def network_of(task, **changes):
    architecture = "planar" if len(task.shape) == 3 else "volume-light"
    if isinstance(task, TriplanarLandmark):
        architecture = "triplanar"
    settings = NetworkSettings(architecture=architecture, width=4, hidden=(16,), **changes)
    return build_network(settings, task, torch.Generator().manual_seed(1))


def learner_of(task, seed=3, **changes):
    return Learner(task, network_of(task), LearnerSettings(**SMALL | changes), seed)


def test_a_move_goes_along_all_axes_and_every_axis_earns_its_own():
    task = planar()
    at = task.draw(np.random.default_rng(1), 40)
    task.move_to(at, np.zeros((40, 2), np.float32))
    against = np.random.default_rng(2).random((40, 2)) < 0.5
    reached, rewards, ended = move_all_axes(task, at, against)
    step = np.array([4.0, 1.0])[at["level"]]
    gone = np.where(against, -1.0, 1.0) * step[:, None]
    np.testing.assert_allclose(task.parameters(reached), gone)
    nearer = task.errors(at) - task.errors(reached)
    np.testing.assert_allclose(rewards.sum(axis=1) * step, nearer, atol=1e-4)
    assert not ended.any()
    assert (at["position"] == 0).all(), "where it began is not changed"


def test_an_axis_that_would_leave_the_image_stays_and_the_others_go():
    task = planar()
    at = task.starts(np.random.default_rng(1), 1, posed=False)
    task.move_to(at, np.tile(np.array([25.0, 0.0], np.float32), (3, 1)))
    reached, rewards, _ = move_all_axes(task, at, np.zeros((3, 2), bool))
    np.testing.assert_allclose(task.parameters(reached), np.tile([25.0, 4.0], (3, 1)))
    assert (rewards[:, 0] == -1).all()


def test_the_parameters_are_those_of_a_network_of_values():
    sections = {"task": {"kind": "landmark-2d", "landmarks": ["a", "b"]}}
    one = weight_shapes(parse_config(sections))
    other = weight_shapes(parse_config(sections | {"learner": {"method": "partial-policy"}}))
    assert one == other


@pytest.mark.parametrize("changes", [{}, {"warm_start": 0.5}, {"target": "hard"}], ids=str)
def test_going_on_from_saved_arrays_equals_never_having_stopped(changes):
    task = planar(frames=3)
    straight, first = learner_of(task, **changes), learner_of(task, **changes)
    straight.train(12)
    first.train(5)
    kept = safetensors.numpy.load(safetensors.numpy.save(first.state_dict()))
    resumed = learner_of(task, seed=99, **changes)
    resumed.load_state(kept)
    resumed.train(7)
    wanted, got = straight.state_dict(), resumed.state_dict()
    assert set(wanted) == set(got)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"warm_start": 0.4}, marks=pytest.mark.slow),
        pytest.param({"path_supervision_only": True}, marks=pytest.mark.slow),
        pytest.param({"loss": "squared", "entropy": 0.05}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_way_of_learning_finds_the_spot(changes):
    task, settings = planar(), EvaluationSettings(starts=6, poses=1, native=False)
    much = {"updates": 150, "batch": 32, "searches": 16, "warmup": 200, "gamma": 0.3}
    learner = learner_of(task, **much, replay_capacity=2000, learning_rate=5e-3, **changes)
    before = evaluate(task, learner.network, settings, 0).mean
    learner.train(150)
    after = evaluate(task, learner.network, settings, 0).mean
    assert after < 1.5 < before


def test_a_search_ends_between_the_places_that_it_went_to_and_fro():
    task = planar()
    learner = learner_of(task, updates=150, batch=32, searches=16, warmup=200, gamma=0.3)
    learner.train(60)
    start = task.starts(np.random.default_rng(1), 1, posed=False)[:1]
    followed = follow(task, learner.network, start, EvaluationSettings(visits=3))
    steps = task.parameters(followed.steps)
    ended = greedy_search(task, learner.network, start)
    assert (task.parameters(ended)[0] == steps[-1]).all()
    fine = followed.steps["level"] == 1
    apart = np.abs(np.diff(steps[fine][:-1], axis=0))
    assert (apart <= 1.0 + 1e-5).all()
    assert fine.sum() > 4
    # The last place is none that was stepped to, but the mean of the last ones.
    assert np.abs(steps[fine][:-1] - steps[-1]).max(axis=1).min() > 0 or apart.max() == 0


@pytest.mark.parametrize("frames", [1, 2])
def test_teams_move_along_all_axes_too(cases, frames):
    cube = Landmark3D(
        build_cases_3d(cases), Ladder((2.0, 1.0), (4.0, 1.0)), Views(9, (1.0,), frames)
    )
    task = MultiAgent(cube, [[0, 1]])
    learner = learner_of(task)
    report = learner.train(4)
    assert np.isfinite(report.loss_mean)
    ended = evaluate(task, learner.network, EvaluationSettings(starts=2, poses=1, most_steps=9), 0)
    assert set(ended.posed) == {"0", "1"}


def test_three_cuts_move_along_all_axes_too(cases):
    ladder = LadderSettings(scales=(2.0, 1.0), steps_mm=(4.0, 1.0))
    task = TriplanarLandmark(cases, ladder, STILL, roi=9, spacing_mm=1.0)
    assert np.isfinite(learner_of(task).train(3).loss_mean)


def test_averaged_weights_become_the_targets_too():
    task = planar()
    learner, other = learner_of(task), network_of(task, dueling=False)
    weights = {name: np.ones_like(array) for name, array in learner.weights().items()}
    set_weights(other, weights)
    learner.load(weights)
    state = learner.state_dict()
    for name, value in weights.items():
        assert (state[f"target/{name}"] == value).all()
        assert (state[f"online/{name}"] == value).all()


def test_a_state_of_another_learner_is_refused():
    task = planar()
    state = learner_of(task).state_dict()
    with pytest.raises(InternalError, match="does not fit"):
        learner_of(task, searches=5).load_state(state)


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"task": {"kind": "box-2d"}}, r"learner\.method"),
        ({"learner": {"replay": "rare-first"}}, r"learner\.replay"),
        ({"learner": {"method": "dqn", "entropy": 0.5}}, r"learner\.entropy"),
    ],
)
def test_what_it_has_no_place_for_is_refused(sections, field):
    learner = {"method": "partial-policy"} | sections.get("learner", {})
    with pytest.raises(InputDataError, match=field):
        parse_config(sections | {"learner": learner})


@pytest.mark.parametrize("kind", ["view-plane", "registration-2d", "multi-agent-3d", "landmark-3d"])
def test_it_is_for_every_kind_that_steps_along_axes(kind):
    config = parse_config({"task": {"kind": kind}, "learner": {"method": "partial-policy"}})
    assert config.learner.moves_all_axes

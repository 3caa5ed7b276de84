"""A search that goes as far as it is told: what is regressed, how followed, what refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from common.errors import InputDataError, InternalError
from common.settings import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from site_client.agent.descent import along_actions, descend
from site_client.agent.displacement import displacements
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.gym import SearchEnv
from site_client.agent.learner import Learner
from site_client.agent.networks import build_network
from site_client.agent.search import follow
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.views import Views

LADDER = Ladder((3.0, 1.0), (6.0, 1.0))
SETTINGS = LadderSettings(scales=(3.0, 1.0), steps_mm=(6.0, 1.0))
REACH = (20.0, 12.0)
POSE = PoseSettings(rotation_deg=10.0, shift_mm=4.0)


def pictures(rng, count=4, missing=()):
    """A bright spot and a dark one; some cases lack the second."""
    y, x = np.mgrid[:50, :60]
    made = []
    for k in range(count):
        bright, dark = rng.uniform((15, 12), (25, 38)), rng.uniform((35, 12), (45, 38))
        near, far = ((x - p[0]) ** 2 + (y - p[1]) ** 2 for p in (bright, dark))
        grey = 120 + 120 * np.exp(-near / 30) - 110 * np.exp(-far / 30)
        points = np.stack([bright, dark])
        if k in missing:
            points[1] = np.nan
        made.append(Case2D(f"case{k}", grey.astype(np.uint8)[None], (1.0, 1.0), points))
    return build_cases_2d(made)


def planar(missing=(), reach=REACH, seed=0, count=4):
    cases = pictures(np.random.default_rng(seed), count, missing)
    return Landmark2D(cases, LADDER, Views(15), POSE, reach_mm=reach)


@pytest.fixture
def tasks(cases):
    """By name: every search for landmarks there is."""
    cube = Landmark3D(build_cases_3d(cases), LADDER, Views(13), POSE, reach_mm=REACH)
    return {
        "planar": planar(),
        "cube": cube,
        "cuts": TriplanarLandmark(cases, SETTINGS, POSE, roi=13, spacing_mm=1.0, reach_mm=REACH),
        "team": MultiAgent(cube, [[0, 1]]),
        "polls": MultiAgent(cube, [[0, 0], [1, 1]]),
    }


EVERY = pytest.mark.parametrize("name", ["planar", "cube", "cuts", "team", "polls"])


def knows(task):
    """Displacements of one that knows the truth."""

    def way(at):
        reach = task.reach_mm[at["level"]].reshape(-1, *(1,) * (task.targets(at).ndim - 1))
        return ((task.targets(at) - task.parameters(at)) / reach).astype(np.float32)

    return way


def learner_of(task, seed=1, rows=None, architecture="planar", width=4, **changes):
    settings = LearnerSettings.model_validate(
        {"method": "displacement", "updates": 40, "batch": 8, "learning_rate": 3e-3} | changes
    )
    wanted = NetworkSettings.model_validate(
        {"architecture": architecture, "width": width, "hidden": [4 * width]}
    )
    network = build_network(wanted, task, torch.Generator().manual_seed(0))
    network.gradient_rows = rows
    return Learner(task, network, settings, seed)


@EVERY
def test_whoever_knows_the_way_arrives(name, tasks):
    task = tasks[name]
    settings = EvaluationSettings(starts=2, poses=2)
    report = evaluate(task, knows(task), settings, 3)
    assert report.posed_searches.errors.max() < 1e-2
    assert report.native_searches.agreed_errors.max() < 1e-2


@EVERY
def test_ways_are_in_units_of_reach_and_of_every_head(name, tasks):
    task = tasks[name]
    at = task.draw(np.random.default_rng(2), 24)
    units, counts = displacements(task, at)
    agents = () if task.agents == 1 else (task.agents,)
    assert units.shape == (24, task.heads, *agents, units.shape[-1])
    assert counts.shape == units.shape[:-1]
    own = units[np.arange(24), at["head"]]
    np.testing.assert_allclose(own, knows(task)(at), atol=1e-6)
    # A finer level begins within reach of what is looked for there.
    assert counts[np.arange(24), at["head"]].all()
    far = (np.abs(units) > 1).any(axis=-1)
    coarsest = np.broadcast_to((at["level"] == 0).reshape(-1, *(1,) * len(agents), 1), far.shape)
    np.testing.assert_array_equal(counts, ~far | coarsest.reshape(far.shape))


@EVERY
def test_most_training_starts_of_a_finer_level_are_close_and_all_within_reach(name, tasks):
    task = tasks[name]
    at = task.draw(np.random.default_rng(5), 600)
    fine = at[at["level"] == 1]
    assert len(fine) == pytest.approx(400, abs=50), "twice as often as the coarser one"
    away = np.abs(knows(task)(fine)).reshape(len(fine), -1)
    assert away.max() <= 1 + 1e-6
    # Half of what uniform ones would be, 0.5.
    assert 0.2 < away.mean() < 0.3


def test_what_a_case_lacks_does_not_count():
    task = planar(missing=(1,))
    at = task.draw(np.random.default_rng(0), 64)
    _, counts = displacements(task, at)
    lacking = at["case"] == 1
    assert lacking.any()
    assert not counts[lacking, 1].any()
    assert counts[~lacking & (at["level"] == 0)].all()


def test_a_search_makes_its_steps_and_ends_at_the_mean_of_its_last_places():
    task = planar()
    start = task.starts(np.random.default_rng(0), 1, posed=False)
    start["position"] = 0
    turn = itertools.count()

    def to_and_fro(at):
        """Right, left, right, left: on a level of 4 steps 3 count, of 3 the last 2."""
        way = np.zeros((len(at), 2), np.float32)
        way[:, 0] = 0.1 if next(turn) % 2 == 0 else -0.1
        return way

    visited = []
    ended = descend(task, to_and_fro, start, 80, visited)
    assert next(turn) == 7
    assert [int(v["level"][0]) for v in visited] == [0] * 4 + [1] * 3
    # Coarse: 2, 0, 2, 0; the mean of the last three. Fine, from there: 1.2, 0, 1.2.
    np.testing.assert_allclose(ended["position"][:, 0], 2 / 3 + 0.6, atol=1e-5)
    np.testing.assert_array_equal(start["position"], 0)
    assert (ended["level"] == 1).all()


@pytest.mark.parametrize("most", [1, 4, 5, 7])
def test_no_search_makes_more_steps_than_it_may(most):
    task = planar()
    start = task.starts(np.random.default_rng(0), 1, posed=True)
    visited = []
    descend(task, knows(task), start, most, visited)
    assert len(visited) == min(most, 7)


def test_nobody_is_believed_further_than_a_network_was_shown_or_out_of_the_image():
    task = planar()
    start = task.starts(np.random.default_rng(0), 1, posed=False)
    start["position"] = 0
    first = []
    descend(task, lambda at: np.full((len(at), 2), 9, np.float32), start, 1, first)
    # 1.5 reaches of 20 mm lie outside of a picture of 60 by 50.
    place = task.fractions(first[0])[:, :2]
    assert ((place > 0.99) & (place <= 1)).all()


def test_a_film_shows_millimetres_along_the_axes():
    task = planar()
    start = task.starts(np.random.default_rng(0), 1, posed=False)[:1]
    followed = follow(task, knows(task), start, EvaluationSettings())
    assert followed.values.shape == (len(followed.steps), 4)
    way = task.targets(start)[0] - start["position"][0]
    np.testing.assert_allclose(followed.values[0], [way[0], -way[0], way[1], -way[1]], rtol=1e-4)
    assert along_actions(task, start, np.full((1, 2), 9, np.float32)).max() == 30.0


@pytest.mark.parametrize("name", ["planar", "team", "polls"])
@pytest.mark.parametrize("architecture", ["planar", "paper2d", "volume-light", "commnet"])
def test_all_heads_at_once_are_each_head_alone(name, architecture):
    class Sizes:
        levels = 3
        agents = 1 if name == "planar" else 2
        heads = {"planar": 5, "team": 1, "polls": 3}[name]
        actions = 2 if architecture in ("planar", "paper2d") else 3
        side = {"planar": 9, "paper2d": 21, "volume-light": 7, "commnet": 34}[architecture]
        shape = (2, *(side,) * actions)

    wanted = NetworkSettings(architecture=architecture, width=4, hidden=(7,))
    network = build_network(wanted, Sizes, torch.Generator().manual_seed(1))
    agents = () if Sizes.agents == 1 else (Sizes.agents,)
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(rng.random((4, *agents, *Sizes.shape), np.float32))
    level = torch.tensor([0, 2, 1, 2])
    with torch.no_grad():
        together = network.of_all_heads(seen, level)
        assert together.shape == (4, Sizes.heads, *agents, Sizes.actions)
        for head in range(Sizes.heads):
            alone = network(seen, level, torch.full((4,), head))
            torch.testing.assert_close(together[:, head], alone, rtol=1e-4, atol=1e-5)


def test_going_on_from_saved_arrays_equals_never_having_stopped():
    straight, first, resumed = learner_of(planar()), learner_of(planar()), learner_of(planar(), 9)
    straight.train(6)
    first.train(2)
    resumed.load_state(first.state_dict())
    resumed.train(4)
    wanted, got = straight.state_dict(), resumed.state_dict()
    assert wanted.keys() == got.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_a_state_of_other_cases_or_of_another_method_is_refused():
    learner = learner_of(planar())
    with pytest.raises(InternalError, match="4 cases"):
        learner.load_state(learner_of(planar(count=3)).state_dict())
    steps = Learner(
        planar(reach=()),
        build_network(
            NetworkSettings(architecture="planar", width=4, hidden=(16,)),
            planar(reach=()),
            torch.Generator(),
        ),
        LearnerSettings(warmup=10, searches=2, batch=4),
        1,
    )
    with pytest.raises(InternalError, match="displacements"):
        learner.load_state(steps.state_dict())


@pytest.mark.parametrize(("name", "architecture"), [("planar", "planar"), ("team", "volume-light")])
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_parts_teach_what_the_whole_teaches(name, architecture, loss, tasks):
    whole = learner_of(tasks[name], architecture=architecture, loss=loss)
    parts = learner_of(tasks[name], architecture=architecture, loss=loss, rows=3)
    reports = [learner.train(4) for learner in (whole, parts)]
    assert reports[1].loss_mean == pytest.approx(reports[0].loss_mean, rel=1e-4)
    for key, value in whole.weights().items():
        np.testing.assert_allclose(parts.weights()[key], value, atol=2e-4, err_msg=key)


def test_nothing_is_remembered_explored_or_counted():
    watched = []
    task = planar()
    learner = learner_of(task)
    learner = Learner(task, learner.network, learner._settings, 1, watch=watched.append)
    report = learner.train(3)
    assert (report.replay_size, report.epsilon, report.transitions) == (0, 0.0, 24)
    assert [len(at) for at in watched] == [8, 8, 8]
    assert learner.new_experience().keys.size == 0
    assert not any(key.startswith(("replay", "target", "local")) for key in learner.state_dict())


def test_it_learns_to_find_what_it_was_not_shown():
    shown, hidden = planar(seed=1, count=24), planar(seed=2, count=6)
    learner = learner_of(shown, batch=24, width=8, updates=250)
    learner.train(250)
    settings = EvaluationSettings(starts=1, poses=1, native=False)
    report = evaluate(hidden, learner.network, settings, 1, prior=mean_parameters(shown))
    assert report.mean < report.prior / 2


@pytest.mark.parametrize("reach", [(20.0,), (20.0, 0.0), (20.0, float("inf"))])
def test_a_reach_that_is_none_is_refused(reach):
    with pytest.raises(InputDataError, match="reach_mm"):
        planar(reach=reach)


def test_a_learner_of_one_way_does_not_learn_a_search_of_the_other():
    with pytest.raises(InternalError, match="a task and a network for displacement"):
        learner_of(planar(reach=()))
    with pytest.raises(InternalError, match="a task and a network for dqn"):
        learner_of(planar(), method="dqn")


def test_an_environment_of_a_few_actions_cannot_be_made_of_displacements():
    with pytest.raises(InputDataError, match="reach_mm"):
        SearchEnv(planar(), 10)

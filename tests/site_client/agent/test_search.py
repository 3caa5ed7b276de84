from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.settings import EvaluationSettings, LadderSettings, PoseSettings
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.search import consensus, greedy_search
from site_client.agent.task import Outcome
from site_client.agent.tasks.poses import native_poses
from site_client.agent.tasks.triplanar import SITUATION, TriplanarLandmark
from site_client.agent_app.config import parse_config
from tests.tasks import planned_task


class Pair:
    """Two agents on one line, each after the truth of a case of its own."""

    situation = np.dtype(
        [
            ("case", "<u2"),
            ("head", "u1"),
            ("level", "u1"),
            ("action", "u1", (2,)),
            ("position", "<f4", (2,)),
        ]
    )
    heads, agents, unit = 1, 2, "mm"

    def __init__(self, line):
        self._line = line
        self.shape, self.actions, self.levels = line.shape, line.actions, line.levels

    def __len__(self):
        return len(self._line)

    def _alone(self, at):
        alone = np.zeros((len(at), 2), self._line.situation)
        alone["case"] = (at["case"][:, None] + np.arange(2)) % len(self)
        alone["level"] = at["level"][:, None]
        alone["action"], alone["position"] = at["action"], at["position"]
        return alone.reshape(-1)

    def starts(self, rng, repeats, *, posed):
        at = np.zeros(len(self) * repeats, self.situation)
        at["case"] = np.repeat(np.arange(len(self)), repeats)
        at["position"] = rng.integers(0, 21, (len(at), 2))
        return at

    def step(self, at):
        reached = at.copy()
        after, rewards, _ = self._line.step(self._alone(at))
        reached["position"] = after["position"].reshape(-1, 2)
        return Outcome(reached, rewards.reshape(-1, 2), np.zeros(len(at), dtype=bool))

    def rewards_of_all(self, at):
        return self._line.rewards_of_all(self._alone(at)).reshape(-1, 2, self.actions)

    def parameters(self, at):
        return at["position"][:, :, None]

    def move_to(self, at, parameters):
        at["position"] = parameters[:, :, 0]

    def targets(self, at):
        return self._line.targets(self._alone(at)).reshape(-1, 2, 1)

    def errors(self, at):
        return self._line.errors(self._alone(at)).reshape(-1, 2)

    def report(self, at):
        return {"apart": np.ptp(at["position"], axis=1).astype(np.float64)}


def test_with_perfect_values_every_search_ends_at_the_landmark(plan, cases):
    task = planned_task(plan, cases)
    at = np.zeros(60, SITUATION)
    rng = np.random.default_rng(0)
    at["case"] = np.arange(60) % 3
    at["head"] = np.arange(60) % 2
    at["pose"] = native_poses(60, 3)
    task.place(at, rng.uniform(0.2, 0.8, (60, 3)))
    before = at.copy()
    found = greedy_search(task, task.rewards_of_all, at)
    # The finest step is 1 mm: no place on its grid is further than half its diagonal.
    assert task.errors(found).max() < 1.0
    assert (found["level"] == 1).all()
    np.testing.assert_array_equal(at, before)
    np.testing.assert_array_equal(found["case"], at["case"])


def test_a_search_of_a_fixed_scale_has_one_level_and_still_ends(cases):
    ladder, pose = LadderSettings(scales=(1.0,), steps_mm=(1.0,)), PoseSettings()
    task = TriplanarLandmark(cases, ladder, pose, roi=9, spacing_mm=1.0)
    at = task.starts(np.random.default_rng(1), 4, posed=True)
    visited = []
    found = greedy_search(task, task.rewards_of_all, at, visited=visited)
    assert task.errors(found).max() < 1.0
    assert len(visited) < EvaluationSettings().most_steps


def test_a_trigger_ends_a_search_where_it_is_pulled(line):
    """Values that promise most for the trigger near the truth, and the way there elsewhere."""
    at = line.starts(np.random.default_rng(0), 20, posed=False)
    at["level"] = 1
    visited = []
    found = greedy_search(line, line.rewards_of_all, at, visited=visited)
    np.testing.assert_array_equal(line.errors(found), 0)
    steps = np.array([len(at), *map(len, visited)])
    # Each search goes straight to the truth and stops there: as many steps as its distance.
    for step, alive in enumerate(steps):
        assert alive == (line.errors(at) + 1 > step).sum()


def test_an_endless_search_ends_after_the_most_steps(line):
    at = line.starts(np.random.default_rng(0), 2, posed=False)
    at["position"] = 0
    forward = np.tile(np.array([1, 0, 0], np.float32), (len(at), 1))
    few = EvaluationSettings(most_steps=2)
    found = greedy_search(line, lambda here: forward[: len(here)], at, few)
    np.testing.assert_array_equal(found["position"], 8)


def test_agents_go_down_together_and_each_to_its_own_best_place(line):
    """Without a trigger, each oscillates around its truth until the slower one does, too."""
    pair = Pair(line)

    def values(at):
        told = pair.rewards_of_all(at)
        told[:, :, 2] = -2
        return told

    at = pair.starts(np.random.default_rng(0), 10, posed=False)
    at["position"][:, 0] = 0
    at["position"][:, 1] = 20
    visited = []
    found = greedy_search(pair, values, at, visited=visited)
    assert (found["level"] == 1).all()
    assert pair.errors(found).max() <= 1
    assert all(set(np.unique(here["level"])) <= {0, 1} for here in visited)


def test_an_evaluation_tells_agents_that_search_together_apart(line):
    pair = Pair(line)

    def values(at):
        told = pair.rewards_of_all(at)
        told[:, 0, 2] = -2
        told[:, 1] = [0, 0, 1]
        return told

    settings_ = EvaluationSettings(starts=4, poses=2)
    prior = mean_parameters(pair)
    report = evaluate(pair, values, settings_, 3, prior, names=["place"])
    assert set(report.posed) == {"place #1", "place #2"}
    first, second = report.posed.values()
    assert first.searches == 3 * 4 * 2
    assert first.mean <= 1
    # The second never moves, and its trigger ends nothing: it stays where it began.
    still = report.posed_searches.found["position"][:, :, 1]
    assert second.mean == pytest.approx(report.posed_searches.errors[:, :, 1].mean())
    assert second.mean > 2
    assert still.std() > 2
    assert first.prior == pytest.approx(second.prior)
    assert set(first.further) == {"apart"}


@given(
    k=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    shift=st.floats(-100, 100),
    mads=st.floats(1, 10),
)
@settings(max_examples=50, deadline=None)
def test_consensus_moves_with_the_searches_and_forgets_their_order(k, seed, shift, mads):
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(4, k, 3))
    agreed = consensus(found, mads)
    assert agreed.shape == (4, 3)
    np.testing.assert_allclose(consensus(found + shift, mads), agreed + shift, atol=1e-6)
    np.testing.assert_allclose(consensus(found[:, rng.permutation(k)], mads), agreed, atol=1e-9)
    assert (agreed >= found.min(axis=1) - 1e-9).all()
    assert (agreed <= found.max(axis=1) + 1e-9).all()


def test_consensus_rejects_the_search_that_went_astray():
    found = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [90, 90, 90]])
    np.testing.assert_allclose(consensus(found, 3.0), 0, atol=1e-12)


def test_consensus_of_searches_that_agree_is_their_mean():
    found = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 0.5]])
    np.testing.assert_allclose(consensus(found, 3.0), found.mean(axis=0))


def test_active_termination_ends_where_even_the_best_action_promises_a_loss(plan, cases):
    """As near as a search that goes to and fro, in fewer steps."""
    task = planned_task(plan, cases)
    start = task.starts(np.random.default_rng(4), 5, posed=True)
    steps, errors = {}, {}
    for active in (False, True):
        visited = []
        settings = EvaluationSettings(active_termination=active, most_steps=200)
        ended = greedy_search(task, task.rewards_of_all, start, settings, visited)
        steps[active] = sum(len(each) for each in visited)
        errors[active] = task.errors(ended)
    finest = plan.ladder.steps_mm[-1]
    assert errors[True].max() <= errors[False].max() + finest
    assert steps[True] < 0.8 * steps[False]


def test_a_team_ends_actively_only_once_each_of_its_agents_would(line):
    task = Pair(line)
    start = task.starts(np.random.default_rng(1), 4, posed=False)
    settings = EvaluationSettings(active_termination=True, most_steps=60)
    ended = greedy_search(task, task.rewards_of_all, start, settings)
    assert task.errors(ended).max() <= 1.0


@pytest.mark.parametrize("method", ["displacement", "partial-policy"])
def test_active_termination_needs_values_of_actions(method):
    sections = {"learner": {"method": method}, "evaluation": {"active_termination": True}}
    with pytest.raises(InputDataError, match=r"evaluation\.active_termination"):
        parse_config(sections)
    assert parse_config({"evaluation": sections["evaluation"]}).evaluation.active_termination

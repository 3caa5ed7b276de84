"""What the learner promises whatever the task: shown on a line of numbers with a trigger."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from common.errors import InternalError
from common.model import weights_digest
from common.plan.experience import ERROR_UNITS, MOST_ERROR
from common.settings import EvaluationSettings
from site_client.agent.evaluation import evaluate
from site_client.agent.experience import Tally, mean_errors, whole_errors
from site_client.agent.keys import ExperienceKeys, codec_of
from site_client.agent.learner import Learner
from site_client.agent.network import network_values
from site_client.agent.objective import Objective

REPLAYS = ["uniform", "prioritised", "rare-first", "wrong-first"]


@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize("target", ["ema", "hard"])
@pytest.mark.parametrize("warm_start", [0.0, 0.6], ids=["cold", "warm"])
def test_going_on_from_saved_arrays_equals_never_having_stopped(
    line_learner, replay, target, warm_start, monkeypatch
):
    monkeypatch.setattr("site_client.agent.q_learning._UPDATES_PER_LOOK", 10)
    asked = {
        "replay": replay,
        "target": target,
        "target_period": 5,
        "warm_start": warm_start,
        "learning_rate_schedule": "cosine",
    }
    straight, first = line_learner(**asked), line_learner(**asked)
    straight.train(34)
    first.train(17)
    kept = safetensors.numpy.load(safetensors.numpy.save(first.state_dict()))
    resumed = line_learner(seed=99, **asked)
    resumed.load_state(kept)
    resumed.train(17)
    wanted, got = straight.state_dict(), resumed.state_dict()
    assert set(wanted) == set(got)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_training_twice_equals_training_once_as_long(line_learner):
    once, twice = line_learner(), line_learner()
    once.train(12)
    twice.train(5)
    twice.train(0)
    twice.train(7)
    assert weights_digest(once.weights()) == weights_digest(twice.weights())


@pytest.mark.parametrize(
    "asked",
    [
        {"double": False},
        {"double": True},
        {"target": "hard", "target_period": 50},
        {"replay": "prioritised"},
        {"replay": "rare-first"},
        {"replay": "wrong-first"},
        {"loss": "squared"},
        {"path_supervision_only": True},
        {"warm_start": 0.3},
        {"learning_rate_schedule": "cosine"},
    ],
    ids=lambda asked: "-".join(f"{k}={v}" for k, v in asked.items()),
)
def test_every_way_of_learning_finds_the_numbers_and_pulls_the_trigger(line, line_learner, asked):
    learner = line_learner(
        **{"updates": 250, "batch": 32, "searches": 16, "warmup": 200, "replay_capacity": 2000,
           "learning_rate": 5e-3, "gamma": 0.3} | asked
    )  # fmt: skip
    before = evaluate(line, learner.network, EvaluationSettings(starts=8, poses=1), 0)
    learner.train(250)
    after = evaluate(line, learner.network, EvaluationSettings(starts=8, poses=1), 0)
    assert after.mean < 1.5 < before.mean


class Constant(nn.Module):
    """The same values everywhere, from one parameter per action."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, seen, level, head):
        return self.values.expand(len(seen), -1)


def returns_of(line, settings, values, target_values, taken):
    objective = Objective(line, Constant(values), settings)
    with torch.no_grad():
        objective.target.values.copy_(torch.tensor(target_values))
    return objective.returns(taken).numpy()


def test_nothing_is_bootstrapped_across_a_true_end_and_everything_else_is(line, line_settings):
    taken = line.draw(np.random.default_rng(0), 60)
    taken["action"] = np.arange(60) % 3
    _, rewards, ended = line.step(taken)
    assert ended.sum() == 20
    found = returns_of(line, line_settings(gamma=0.5), [0.0, 1.0, 2.0], [3.0, 4.0, 10.0], taken)
    np.testing.assert_allclose(found, rewards + np.where(ended, 0, 0.5 * 10))


def test_double_dqn_lets_the_online_network_choose_and_the_target_network_value(
    line, line_settings
):
    taken = line.draw(np.random.default_rng(0), 9)
    rewards = line.step(taken).rewards
    values, target = [5.0, 1.0, 2.0], [3.0, 4.0, 10.0]
    double = returns_of(line, line_settings(gamma=0.5, double=True), values, target, taken)
    plain = returns_of(line, line_settings(gamma=0.5, double=False), values, target, taken)
    np.testing.assert_allclose(double, rewards + 0.5 * 3)
    np.testing.assert_allclose(plain, rewards + 0.5 * 10)


def test_a_hard_target_is_the_online_network_of_its_last_copy(line_learner):
    learner = line_learner(target="hard", target_period=4)
    digests = []
    for _ in range(9):
        learner.train(1)
        state = learner.state_dict()
        pair = []
        for of in ("online/", "target/"):
            named = {k.removeprefix(of): v for k, v in state.items() if k.startswith(of)}
            pair.append(weights_digest(named))
        digests.append(pair)
    assert [online == target for online, target in digests] == [k % 4 == 3 for k in range(9)]
    assert digests[4][1] == digests[5][1] == digests[6][1] == digests[3][0]


def test_a_time_out_is_bootstrapped_like_any_other_step(line, line_settings):
    """A step taken at the last age is remembered with the place it led to, nothing else."""
    settings = line_settings(episode_steps=2, replay="uniform")
    network = Constant([1.0, 4.0, -9.0])
    learner = Learner(line, network, settings, seed=0)
    learner.train(0)
    held = np.frombuffer(learner.state_dict()["replay/transitions"].tobytes(), line.situation)
    outcome, going_on = line.step(held), held["action"] != 2
    assert going_on.sum() > 10
    wanted = outcome.rewards + np.where(going_on, np.float32(0.9 * 4), 0)
    found = Objective(line, network, settings).returns(held).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_array_equal(outcome.reached["case"], held["case"])


def test_prioritised_replay_learns_its_priorities_from_the_errors(line_learner):
    learner = line_learner(replay="prioritised")
    learner.train(0)
    assert len(np.unique(learner.state_dict()["replay/weights"])) == 1
    learner.train(10)
    assert len(np.unique(learner.state_dict()["replay/weights"])) > 10


def test_rare_first_replay_counts_for_itself_when_nobody_tells_it(line, line_learner):
    learner = line_learner(replay="rare-first", rare_first=1.0, replay_capacity=1000)
    learner.train(20)
    state = learner.state_dict()
    held = np.frombuffer(state["replay/transitions"].tobytes(), line.situation)
    keys = ExperienceKeys(line, codec_of(line))(held)
    known = dict(zip(state["local/keys"].tolist(), state["local/counts"].tolist(), strict=True))
    names, counts = np.unique(keys, return_counts=True)
    assert known == dict(zip(names.tolist(), counts.tolist(), strict=True))
    learner._method._knowledge.look_again()
    weights = learner.state_dict()["replay/weights"]
    np.testing.assert_allclose(weights, [1 / known[key] for key in keys.tolist()], rtol=1e-6)


def test_wrong_first_replay_learns_by_itself_what_it_gets_wrong(line, line_learner):
    learner = line_learner(replay="wrong-first", priority_alpha=1.0, replay_capacity=1000)
    learner.train(20)
    state = learner.state_dict()
    assert state["local/counts"].sum() == 20 * 8
    assert 0 < state["local/errors"].sum() <= MOST_ERROR * 20 * 8
    learner._method._knowledge.look_again()
    held = np.frombuffer(state["replay/transitions"].tobytes(), line.situation)
    keys = ExperienceKeys(line, codec_of(line))(held)
    tally = Tally()
    tally.load_state(*(state[f"local/{name}"] for name in ("keys", "counts", "errors")))
    weights = learner.state_dict()["replay/weights"]
    np.testing.assert_allclose(weights, tally.mean_errors(keys) + 1e-3, rtol=1e-5)
    assert weights.max() > 1.2 * weights.min()


def test_wrong_first_replay_tells_what_it_replayed_and_how_wrong_it_was(line, line_learner):
    told = line_learner(replay="wrong-first", keys=ExperienceKeys(line, codec_of(line)))
    told.train(3, lambda keys: np.ones(len(keys)))
    keys, errors = told.new_experience()
    assert len(keys) == len(errors) == 3 * 8
    assert errors.dtype == np.int64
    assert (errors >= 0).all()
    assert errors.sum() > 0
    assert told.new_experience().keys.size == told.new_experience().errors.size == 0


def test_errors_are_whole_and_none_counts_for_more_than_the_most():
    units = whole_errors(np.array([0.0, 0.5, -1.0, 100.0, np.nan, np.inf]))
    most = MOST_ERROR
    assert units.tolist() == [0, ERROR_UNITS // 2, ERROR_UNITS, most, most, most]


def test_what_little_is_known_of_is_drawn_towards_the_mean_of_all():
    sums, counts = np.array([0.0, 90.0, 9000.0, -50.0]), np.array([0.0, 1.0, 100.0, -3.0])
    means = mean_errors(sums, counts, 10.0, 2.0) * ERROR_UNITS
    np.testing.assert_allclose(means, [10, 110 / 3, 9020 / 102, 10])


def test_keys_are_gathered_only_for_those_who_gave_them_their_names(line, line_learner):
    silent, counted = line_learner(), line_learner(keys=ExperienceKeys(line, codec_of(line)))
    for learner in (silent, counted):
        learner.train(3)
    assert silent.new_experience().keys.size == 0
    assert counted.new_experience().keys.size == counted.state_dict()["replay/transitions"].size / 9
    assert weights_digest(silent.weights()) == weights_digest(counted.weights())


def test_path_supervision_brings_values_to_the_rewards_of_all_actions(line, line_learner):
    learner = line_learner(
        updates=300, batch=32, searches=16, warmup=200, replay_capacity=2000,
        learning_rate=5e-3, path_supervision_only=True,
    )  # fmt: skip
    at = line.draw(np.random.default_rng(5), 200)
    rewards = line.rewards_of_all(at).ravel()

    def agreement():
        return np.corrcoef(network_values(line, learner.network, at).ravel(), rewards)[0, 1]

    before = agreement()
    learner.train(300)
    assert before < 0.3
    assert agreement() > 0.75


def test_a_state_of_another_task_or_replay_is_refused(line_learner):
    state = line_learner().state_dict()
    with pytest.raises(InternalError, match="5 searches over 3 cases"):
        line_learner(searches=5).load_state(state)
    trained = line_learner()
    trained.train(1)
    with pytest.raises(InternalError, match="prioritised replay"):
        line_learner(replay="prioritised").load_state(trained.state_dict())
    cut = state | {"searches/at": state["searches/at"][:-1]}
    with pytest.raises(InternalError, match="does not fit"):
        line_learner().load_state(cut)

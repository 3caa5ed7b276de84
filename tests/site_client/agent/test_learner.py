from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError, InternalError
from common.model import initial_weights, weights_digest
from common.wire.bounds import most_transitions
from site_client.agent import federated
from site_client.agent.federated import planned_network
from site_client.agent.keys import experience_codec
from site_client.agent.network import network_values
from site_client.agent.tasks.poses import native_poses
from site_client.agent.tasks.triplanar import SITUATION
from tests.tasks import planned_task

LONG = {"updates": 150, "batch": 32, "searches": 16, "replay_capacity": 5000}


def planned_learner(plan, cases, seed, progress=None):
    return federated.planned_learner(plan, planned_task(plan, cases), seed, progress)


def ones(keys):
    return np.ones(len(keys))


def test_a_learner_starts_from_the_plans_weights(plan, cases):
    learner = planned_learner(plan, cases, seed=1)
    assert weights_digest(learner.weights()) == weights_digest(initial_weights(plan))


def test_the_same_seed_gives_the_same_weights_bit_for_bit(plan, cases):
    digests = []
    for seed in (1, 1, 2):
        learner = planned_learner(plan, cases, seed)
        learner.train(5)
        learner.train(3, ones)
        digests.append(weights_digest(learner.weights()))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_saving_and_loading_in_between_changes_nothing(plan, cases):
    straight, first = planned_learner(plan, cases, seed=1), planned_learner(plan, cases, seed=1)
    for learner in (straight, first):
        learner.train(4)
    saved = first.state_dict()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in saved.values())
    resumed = planned_learner(plan, cases, seed=99)
    resumed.load_state(saved)
    for learner in (straight, resumed):
        learner.load(initial_weights(plan))
        learner.train(6, ones)
    assert weights_digest(straight.weights()) == weights_digest(resumed.weights())
    for told, again in zip(straight.new_experience(), resumed.new_experience(), strict=True):
        np.testing.assert_array_equal(told, again)
    for name, value in straight.state_dict().items():
        np.testing.assert_array_equal(value, resumed.state_dict()[name], err_msg=name)


def test_a_saved_state_does_not_change_when_training_goes_on(plan, cases):
    learner = planned_learner(plan, cases, seed=1)
    learner.train(2)
    saved = learner.state_dict()
    before = {name: value.copy() for name, value in saved.items()}
    learner.train(3)
    for name, value in before.items():
        np.testing.assert_array_equal(saved[name], value, err_msg=name)


def test_a_state_of_another_plan_is_refused(plan, make_plan, cases):
    state = planned_learner(plan, cases, seed=1).state_dict()
    with pytest.raises(InternalError, match="searches"):
        planned_learner(make_plan(learner={"searches": 4}), cases, seed=1).load_state(state)
    with pytest.raises(InternalError, match="1 cases"):
        planned_learner(plan, cases[:1], seed=1).load_state(state)


def test_the_report_counts_what_was_done(plan, cases):
    seen = []
    learner = planned_learner(
        plan, cases, 1, progress=lambda done, total: seen.append((done, total))
    )
    report = learner.train(5)
    # 40 to warm up are 7 lockstep moves of 6 searches; then one move per update.
    assert report.transitions == 42 + 5 * 6
    assert report.replay_size == report.transitions
    assert (report.updates, report.updates_total, report.images) == (5, 5, 3)
    assert np.isfinite(report.loss_mean)
    assert seen == [(k, 5) for k in range(1, 6)]
    assert learner.train(2).updates_total == 7
    assert planned_learner(plan, cases, 1).train(0).transitions == 42


def test_exploration_and_learning_rate_fall_over_the_planned_updates(plan, cases):
    learner = planned_learner(plan, cases, seed=1)
    assert (learner.epsilon, learner.learning_rate) == (1.0, 1e-3)
    learner.train(6)
    assert learner.epsilon == pytest.approx(0.1)
    assert learner.learning_rate == pytest.approx(0.55e-3)
    learner.train(10)
    assert learner.epsilon == pytest.approx(0.1)
    assert learner.learning_rate == pytest.approx(1e-4)


def test_new_keys_name_the_new_transitions_once(make_plan, cases):
    learner = planned_learner(make_plan(learner={"replay": "rare-first"}), cases, seed=1)
    report = learner.train(3)
    keys = learner.new_experience().keys
    assert keys.dtype == np.uint64
    assert len(keys) == report.transitions
    assert learner.new_experience().keys.size == 0
    learner.train(2)
    assert len(learner.new_experience().keys) == 12


@pytest.mark.parametrize("by", ["offset", "place"])
def test_keys_say_where_the_search_stood(make_plan, cases, by):
    plan = make_plan(learner={"replay": "rare-first"}, experience={"key": by})
    learner = planned_learner(plan, cases, seed=1)
    learner.train(0)
    task = planned_task(plan, cases)
    codec = experience_codec(plan)
    told = codec.decode(learner.new_experience().keys)
    held = np.frombuffer(learner.state_dict()["replay/transitions"].tobytes(), task.situation)
    np.testing.assert_array_equal(told.landmark, held["head"])
    np.testing.assert_array_equal(told.level, held["level"])
    if by == "place":
        gap = np.abs(told.position[:, ::-1] - task.fractions(held))
        assert gap.max() <= 0.5 / plan.experience.position_bins + 1e-9
    else:
        np.testing.assert_array_equal(told.action, held["action"])
        mm = (held["position"] - task.targets(held)) / np.array([4.0, 1.0])[held["level"]][:, None]
        np.testing.assert_array_equal(told.steps, np.clip(np.rint(mm), -6, 6))


def test_a_plan_that_reads_no_table_has_its_sites_count_nothing(plan, cases):
    assert plan.counts is None
    learner = planned_learner(plan, cases, seed=1)
    learner.train(3)
    assert learner.new_experience().keys.size == 0


def test_experience_is_asked_for_every_transition_held_and_gathered(make_plan, cases):
    learner = planned_learner(make_plan(learner={"replay": "rare-first"}), cases, seed=1)
    learner.train(2)
    asked = []

    def remember(keys):
        asked.append(len(keys))
        return np.ones(len(keys))

    learner.train(3, remember)
    assert asked == [54, 6, 6, 6]


def test_rare_transitions_are_drawn_more_often(make_plan, cases):
    plan = make_plan(learner={"replay": "rare-first", "rare_first": 1.0})
    learner = planned_learner(plan, cases, seed=1)
    learner.train(0)
    rare = learner.new_experience().keys[0]
    learner.train(1, lambda keys: np.where(keys == rare, 1.0, 1e9))
    weights = learner.state_dict()["replay/weights"]
    assert weights[0] == 1
    assert np.sort(weights)[-2] < 1e-6 or (weights == 1).sum() < 4


def test_weights_of_another_plan_are_refused(plan, make_plan, cases):
    learner = planned_learner(plan, cases, seed=1)
    with pytest.raises(InputDataError, match=r"weights/fc1\.weight"):
        learner.load(initial_weights(make_plan(ladder={"scales": (1.0,), "steps_mm": (1.0,)})))


def test_learning_lowers_the_loss(make_plan, cases):
    plan = make_plan(rounds=1, learner=LONG | {"gamma": 0.0})
    learner = planned_learner(plan, cases, seed=3)
    first = learner.train(20).loss_mean
    learner.train(110)
    assert learner.train(20).loss_mean < 0.7 * first


def test_a_warm_start_regresses_the_rewards_of_all_actions(make_plan, cases):
    """With every update warm, values approach what each action earns at once."""
    plan = make_plan(rounds=1, learner=LONG | {"warm_start": 1.0})
    learner = planned_learner(plan, cases, seed=3)
    learner.train(150)
    task = planned_task(plan, cases)
    at = np.zeros(300, SITUATION)
    rng = np.random.default_rng(4)
    at["case"], at["head"] = rng.integers(0, 3, 300), rng.integers(0, 2, 300)
    at["pose"] = native_poses(300, 3)
    task.place(at, rng.uniform(0.2, 0.8, (300, 3)))
    rewards = task.rewards_of_all(at)
    values = network_values(task, planned_network(plan, learner.weights()), at)
    earned = rewards[np.arange(300), values.argmax(axis=1)]
    assert np.corrcoef(values.ravel(), rewards.ravel())[0, 1] > 0.6
    assert (earned > 0).mean() > 0.8


def test_the_warm_start_ends_when_the_plan_says(make_plan, cases):
    """Until then the discount plays no part; afterwards it does."""
    digests = {}
    for updates in (6, 7):
        for gamma in (0.1, 0.9):
            plan = make_plan(learner={"warm_start": 0.5, "gamma": gamma})
            learner = planned_learner(plan, cases, seed=1)
            learner.train(updates)
            digests[updates, gamma] = weights_digest(learner.weights())
    assert digests[6, 0.1] == digests[6, 0.9]
    assert digests[7, 0.1] != digests[7, 0.9]


@pytest.mark.parametrize(
    "learner",
    [
        {"searches": 7, "warmup": 50, "updates": 12},
        {"searches": 16, "warmup": 16, "updates": 4},
        {"searches": 12, "warmup": 500, "replay_capacity": 100, "updates": 8},
    ],
)
def test_a_round_gathers_what_the_wire_lets_a_site_say_and_no_more(make_plan, cases, learner):
    """`most_transitions` is what a site's first round gathers; later ones lack the warm-up."""
    plan = make_plan(learner=learner)
    trained = planned_learner(plan, cases, seed=1)
    first = trained.train(plan.updates_in(1))
    assert first.transitions == most_transitions(plan)
    assert trained.train(plan.updates_in(2)).transitions <= first.transitions


@pytest.mark.parametrize("updates", [5, 7, 10, 11])
def test_no_round_of_unequal_ones_gathers_more_than_the_wire_lets_a_site_say(
    make_plan, cases, updates
):
    """A site that comes late has its warm-up in the largest round: the last."""
    plan = make_plan(learner={"updates": updates})
    shares = [plan.updates_in(round_) for round_ in range(1, 5)]
    assert max(shares) == shares[-1] == min(shares) + 1
    late = planned_learner(plan, cases, seed=1)
    assert late.train(shares[-1]).transitions == most_transitions(plan)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import InternalError
from common.settings import LearnerSettings
from site_client.agent.replay import BlockSums, Replay
from site_client.agent.tasks.triplanar import SITUATION

KINDS = ["uniform", "prioritised", "rare-first", "wrong-first"]
QUICK = settings(max_examples=30, deadline=None)


def numbered(first, n):
    made = np.zeros(n, SITUATION)
    made["case"] = np.arange(first, first + n)
    return made


def replay(capacity=100, kind="rare-first", **asked):
    return Replay(SITUATION, LearnerSettings(replay_capacity=capacity, replay=kind, **asked))


def counts_of(memory, draws=40_000, seed=0):
    drawn = memory.sample(np.random.default_rng(seed), draws)
    np.testing.assert_array_equal(memory.transitions[drawn.slots], drawn.transitions)
    return np.bincount(drawn.slots, minlength=memory.size)


def fits(counts, probabilities):
    """Whether counts may have come from these probabilities, but for one case in a million."""
    return stats.chisquare(counts, probabilities * counts.sum()).pvalue > 1e-6


@given(
    kind=st.sampled_from(KINDS),
    held=st.integers(1, 12),
    overwritten=st.integers(0, 250),
    seed=st.integers(0, 2**32),
)
@QUICK
def test_what_is_new_is_drawn_evenly_at_every_index(kind, held, overwritten, seed):
    memory = replay(kind=kind)
    memory.add(numbered(0, held))
    for first in range(0, overwritten, 5):
        memory.add(numbered(held + first, 5))
    counts = counts_of(memory, 200 * memory.size, seed)
    assert len(counts) == memory.size
    if memory.size > 1:
        assert fits(counts, np.full(memory.size, 1 / memory.size))


@given(
    weights=st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 7.0, 1e6]), min_size=1, max_size=700),
    seed=st.integers(0, 2**32),
)
@QUICK
def test_a_weight_of_zero_is_never_drawn_and_the_last_can_be(weights, seed):
    weights = np.array(weights, np.float32)
    weights[-1] = max(weights[-1], 1.0)
    sums = BlockSums(len(weights))
    sums.set(np.arange(len(weights)), weights)
    slots = sums.draw(np.random.default_rng(seed), 2000)
    assert slots.min() >= 0
    assert slots.max() < len(weights)
    assert (weights[slots] > 0).all()
    sums.set(np.arange(len(weights) - 1), np.zeros(len(weights) - 1, np.float32))
    assert set(sums.draw(np.random.default_rng(seed), 50)) == {len(weights) - 1}


@given(seed=st.integers(0, 2**32))
@QUICK
def test_changing_weights_leaves_sums_as_if_they_had_always_been(seed):
    rng = np.random.default_rng(seed)
    changed, fresh = BlockSums(600), BlockSums(600)
    for _ in range(5):
        slots = rng.integers(0, 600, 40)
        changed.set(slots, rng.random(40).astype(np.float32) ** 8)
    fresh.set(np.arange(600), changed.values[:600])
    one, two = (s.draw(np.random.default_rng(1), 500) for s in (changed, fresh))
    np.testing.assert_array_equal(one, two)


@given(
    counts=st.lists(st.floats(0, 1e6), min_size=1, max_size=8),
    rare_first=st.floats(0.01, 2),
)
@QUICK
def test_the_chance_falls_with_the_count_to_the_power_asked_for(counts, rare_first):
    memory = replay(rare_first=rare_first)
    memory.add(numbered(0, len(counts)))
    memory.set_known(np.array(counts))
    expected = np.maximum(counts, 1.0) ** -rare_first
    np.testing.assert_allclose(memory.probabilities(), expected / expected.sum(), rtol=1e-5)


@given(errors=st.lists(st.floats(0, 50), min_size=2, max_size=8), alpha=st.floats(0.1, 1.5))
@QUICK
def test_the_chance_grows_with_the_error_to_the_power_asked_for(errors, alpha):
    memory = replay(kind="prioritised", priority_alpha=alpha)
    memory.add(numbered(0, len(errors)))
    memory.set_errors(np.arange(len(errors)), np.array(errors))
    expected = (np.array(errors) + 1e-3) ** alpha
    np.testing.assert_allclose(memory.probabilities(), expected / expected.sum(), rtol=1e-5)


@given(errors=st.lists(st.floats(0, 4), min_size=2, max_size=8), alpha=st.floats(0.1, 1.5))
@QUICK
def test_the_chance_grows_with_the_mean_error_of_the_experience(errors, alpha):
    told, later = (replay(kind="wrong-first", priority_alpha=alpha) for _ in range(2))
    told.add(numbered(0, len(errors)), np.array(errors))
    later.add(numbered(0, len(errors)))
    later.set_known(np.array(errors))
    later.set_errors(np.arange(len(errors)), np.full(len(errors), 9.0))
    expected = (np.array(errors) + 1e-3) ** alpha
    for memory in (told, later):
        np.testing.assert_allclose(memory.probabilities(), expected / expected.sum(), rtol=1e-5)


def test_draws_follow_the_probabilities_over_many_blocks():
    rng = np.random.default_rng(5)
    memory = replay(capacity=3000, rare_first=1.0)
    memory.add(numbered(0, 3000), rng.integers(1, 9, 3000).astype(float))
    assert fits(counts_of(memory, 120_000), memory.probabilities())


def test_full_importance_makes_the_expectation_uniform_again():
    rare = replay(rare_first=1.0, importance=1.0)
    rare.add(numbered(0, 5), np.array([1.0, 2.0, 5.0, 10.0, 50.0]))
    hard = replay(kind="prioritised", priority_beta=0.0)
    hard.add(numbered(0, 5))
    hard.set_errors(np.arange(5), np.array([9.0, 4.0, 1.0, 0.5, 0.1]))
    for memory in (rare, hard):
        drawn = memory.sample(np.random.default_rng(1), 60_000, progress=1.0)
        mass = np.bincount(drawn.slots, weights=drawn.importance)
        np.testing.assert_allclose(mass / mass.sum(), 0.2, atol=0.015)
        assert drawn.importance.max() == 1


def test_a_prioritised_replay_corrects_more_and_more():
    memory = replay(kind="prioritised", priority_beta=0.4, priority_alpha=1.0)
    memory.add(numbered(0, 2))
    memory.set_errors(np.arange(2), np.array([3.999, 0.999]))
    for progress, exponent in ((0.0, 0.4), (0.5, 0.7), (1.0, 1.0), (2.0, 1.0)):
        drawn = memory.sample(np.random.default_rng(1), 100, progress)
        expected = np.where(drawn.slots == 0, 4.0**-exponent, 1.0)
        np.testing.assert_allclose(drawn.importance, expected, rtol=1e-5)


def test_new_transitions_are_as_likely_as_the_worst_error_so_far():
    memory = replay(kind="prioritised")
    memory.add(numbered(0, 3))
    memory.set_errors(np.arange(3), np.array([20.0, 0.1, 0.1]))
    memory.add(numbered(3, 1))
    chance = memory.probabilities()
    assert chance[3] == pytest.approx(chance[0])
    assert chance[3] > 10 * chance[1]


def test_uniform_replay_heeds_neither_errors_nor_experience():
    memory = replay(kind="uniform")
    memory.add(numbered(0, 4), np.array([1.0, 1e6, 1e6, 1e6]))
    memory.set_errors(np.arange(4), np.array([9.0, 0, 0, 0]))
    memory.set_known(np.array([1.0, 1e6, 1e6, 1e6]))
    assert fits(counts_of(memory), np.full(4, 0.25))


@pytest.mark.parametrize("kind", KINDS)
def test_the_oldest_are_overwritten(kind):
    memory = replay(kind=kind)
    memory.add(numbered(0, 90))
    memory.add(numbered(90, 25))
    assert memory.size == 100
    assert set(memory.transitions["case"]) == set(range(15, 115))


def test_overwriting_forgets_the_old_frequency():
    memory = replay(rare_first=1.0)
    memory.add(numbered(0, 100), np.full(100, 1e6))
    memory.add(numbered(100, 1))
    assert memory.probabilities()[0] > 0.99


def test_knowledge_of_another_length_are_refused():
    memory = replay()
    memory.add(numbered(0, 3))
    with pytest.raises(InternalError, match="3 values, got 2"):
        memory.set_known(np.ones(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_replay_draws_the_same(kind):
    memory, other = replay(capacity=120, kind=kind), replay(capacity=120, kind=kind)
    memory.add(numbered(0, 100), np.arange(1.0, 101.0))
    memory.set_errors(np.arange(50), np.arange(50.0))
    memory.add(numbered(100, 50))
    other.load_state(memory.state_dict())
    for m in (memory, other):
        m.add(numbered(150, 7))
    one, two = (m.sample(np.random.default_rng(3), 64) for m in (memory, other))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(memory.transitions, other.transitions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_replay_of_another_capacity_or_kind_is_refused(kind):
    memory = replay(capacity=200, kind=kind)
    memory.add(numbered(0, 150))
    with pytest.raises(InternalError, match="at most 100"):
        replay(kind=kind).load_state(memory.state_dict())
    another = "uniform" if kind != "uniform" else "prioritised"
    with pytest.raises(InternalError, match="replay"):
        replay(capacity=200, kind=another).load_state(memory.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_transitions_fit_into_60_megabytes(kind):
    memory = replay(capacity=1_000_000, kind=kind)
    assert memory.bytes_per_transition <= 40
    assert memory.bytes_per_transition * 1e6 <= 60e6

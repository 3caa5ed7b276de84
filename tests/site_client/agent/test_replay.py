from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InternalError
from common.plan import Agent
from site_client.agent.environment import SITUATION
from site_client.agent.replay import Replay


def numbered(first, n):
    made = np.zeros(n, SITUATION)
    made["case"] = np.arange(first, first + n)
    return made


def replay(capacity=100, **agent):
    return Replay(Agent(replay_capacity=capacity, **agent))


def drawn_shares(memory, draws=40_000):
    drawn, _ = memory.sample(np.random.default_rng(0), draws)
    return np.bincount(drawn["case"], minlength=memory.size) / draws


@pytest.mark.parametrize("rare_first", [0.0, 0.5], ids=["uniform", "rare-first"])
def test_every_index_is_drawn_first_and_last_included(rare_first):
    memory = replay(rare_first=rare_first)
    memory.add(numbered(0, 10))
    np.testing.assert_allclose(drawn_shares(memory), 0.1, atol=0.01)


@given(
    counts=st.lists(st.floats(0, 1e6), min_size=1, max_size=8),
    rare_first=st.floats(0.01, 2),
)
@settings(max_examples=30, deadline=None)
def test_the_chance_falls_with_the_count_to_the_power_asked_for(counts, rare_first):
    memory = replay(rare_first=rare_first)
    memory.add(numbered(0, len(counts)))
    memory.set_frequencies(np.array(counts))
    expected = np.maximum(counts, 1.0) ** -rare_first
    np.testing.assert_allclose(memory.probabilities(), expected / expected.sum(), rtol=1e-5)


def test_draws_follow_the_probabilities():
    memory = replay(rare_first=1.0)
    memory.add(numbered(0, 4), np.array([1.0, 2.0, 4.0, 1000.0]))
    np.testing.assert_allclose(drawn_shares(memory), memory.probabilities(), atol=0.01)


def test_full_importance_makes_the_expectation_uniform_again():
    memory = replay(rare_first=1.0, importance=1.0)
    memory.add(numbered(0, 5), np.array([1.0, 2.0, 5.0, 10.0, 50.0]))
    drawn, importance = memory.sample(np.random.default_rng(1), 60_000)
    mass = np.bincount(drawn["case"], weights=importance)
    np.testing.assert_allclose(mass / mass.sum(), 0.2, atol=0.015)
    assert importance.max() == 1


def test_the_oldest_are_overwritten():
    memory = replay(capacity=100)
    memory.add(numbered(0, 90))
    memory.add(numbered(90, 25))
    assert memory.size == 100
    assert set(memory.transitions["case"]) == set(range(15, 115))


def test_overwriting_forgets_the_old_frequency():
    memory = replay(capacity=100, rare_first=1.0)
    memory.add(numbered(0, 100), np.full(100, 1e6))
    memory.add(numbered(100, 1))
    assert memory.probabilities()[0] > 0.99


def test_frequencies_of_another_length_are_refused():
    memory = replay()
    memory.add(numbered(0, 3))
    with pytest.raises(InternalError, match="3 values, got 2"):
        memory.set_frequencies(np.ones(2))


def test_a_saved_replay_draws_the_same():
    memory, other = replay(capacity=120, rare_first=1.0), replay(capacity=120, rare_first=1.0)
    memory.add(numbered(0, 100), np.arange(1.0, 101.0))
    memory.add(numbered(100, 50))
    other.load_state(memory.state_dict())
    one, two = (m.sample(np.random.default_rng(3), 64) for m in (memory, other))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    for m in (memory, other):
        m.add(numbered(150, 7))
    np.testing.assert_array_equal(memory.transitions, other.transitions)


def test_a_saved_replay_of_another_capacity_is_refused():
    memory = replay(capacity=200)
    memory.add(numbered(0, 150))
    with pytest.raises(InternalError, match="at most 100"):
        replay(capacity=100).load_state(memory.state_dict())


def test_a_transition_costs_37_bytes():
    memory = replay(capacity=100)
    memory.add(numbered(0, 100))
    state = memory.state_dict()
    assert (state["transitions"].nbytes + state["weights"].nbytes) / 100 == 37

"""Laws of the weighted average and of table addition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging.average import Contribution, mean_delta, moved, with_momentum
from aggregator.merging.tables import add_tables
from common.errors import InternalError, RefusedError
from common.sketching import SketchSpec

SHAPE = (3, 2)
START = {"w": np.ones(SHAPE, np.float32), "b": np.zeros(4, np.float32)}
SPEC = SketchSpec.public(2, 32, key_id="0" * 16, domain="d" * 64)


def average(weights, contributions):
    return moved(weights, mean_delta(contributions))


def contribution(site: str, seed: int, samples: int) -> Contribution:
    rng = np.random.default_rng(seed)
    delta = {name: rng.normal(size=a.shape).astype(np.float32) for name, a in START.items()}
    return Contribution(site, delta, samples)


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_sites_answer_changes_no_bit(order):
    sites = {name: contribution(name, ord(name), 3 + ord(name) % 5) for name in "abcd"}
    expected = average(START, list(sites.values()))
    got = average(START, [sites[name] for name in order])
    for name in START:
        assert got[name].tobytes() == expected[name].tobytes()


@given(st.integers(1, 10_000))
def test_one_site_alone_gives_its_own_weights(samples):
    one = contribution("a", 1, samples)
    got = average(START, [one])
    for name in START:
        np.testing.assert_array_equal(got[name], START[name] + one.delta[name])


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_weights_are_drawn_to_the_site_with_more_samples_in_proportion(m, n):
    first, second = contribution("a", 1, m), contribution("b", 2, n)
    got = average(START, [first, second])
    expected = START["w"] + (
        m * first.delta["w"].astype(np.float64) + n * second.delta["w"].astype(np.float64)
    ) / (m + n)
    np.testing.assert_allclose(got["w"], expected, rtol=1e-6)


@pytest.mark.parametrize("contributions", [[], [contribution("a", 1, 0)]])
def test_nothing_to_average_is_an_error_and_not_a_division_by_zero(contributions):
    with pytest.raises(InternalError):
        average(START, contributions)


# Momentum.

pushes = st.lists(st.integers(-1000, 1000), min_size=1, max_size=6)
shares = st.integers(1, 9).map(lambda tenths: tenths / 10)


def pushed(deltas, momentum):
    """How far each round goes whose mean delta is one number."""
    velocity, steps = {}, []
    for delta in deltas:
        mean = {"w": np.full(SHAPE, float(delta))}
        step, velocity = with_momentum(mean, velocity, momentum)
        assert velocity["w"].dtype == np.float32
        steps.append(float(step["w"][0, 0]))
    return steps


@given(pushes)
def test_without_momentum_a_round_goes_as_far_as_its_mean_delta(deltas):
    assert pushed(deltas, 0.0) == deltas


@given(st.integers(1, 1000), shares)
def test_one_push_is_followed_by_the_sum_of_a_geometric_series(delta, momentum):
    steps = pushed([delta] + [0] * 300, momentum)
    assert sum(steps) == pytest.approx(delta / (1 - momentum), rel=1e-4)
    assert steps == sorted(steps, reverse=True)


@given(pushes, pushes, shares)
def test_the_way_of_two_pushes_together_is_the_sum_of_their_ways(first, second, momentum):
    n = min(len(first), len(second))
    together = pushed([a + b for a, b in zip(first[:n], second[:n], strict=True)], momentum)
    apart = [pushed(deltas[:n], momentum) for deltas in (first, second)]
    np.testing.assert_allclose(together, np.sum(apart, axis=0), rtol=1e-4, atol=1e-2)


tables = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5)


@given(tables)
def test_tables_add_up_cell_by_cell_whatever_the_grouping(seeds):
    parts = [np.random.default_rng(s).integers(-9, 9, (2, 32)) for s in seeds]
    together = add_tables(SPEC, None, parts)
    one_by_one = None
    for part in parts:
        one_by_one = add_tables(SPEC, one_by_one, [part])
    np.testing.assert_array_equal(together, sum(parts))
    np.testing.assert_array_equal(together, one_by_one)


def test_a_sum_that_would_overflow_is_refused():
    huge = np.full((2, 32), 2**61, dtype=np.int64)
    with pytest.raises(RefusedError, match="overflow"):
        add_tables(SPEC, huge, [huge])

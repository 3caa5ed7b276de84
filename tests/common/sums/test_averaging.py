"""Laws of the weighted average of whole numbers, of momentum, and of fixed point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RefusedError
from common.sums.addition import add_records
from common.sums.averaging import mean_delta, moved, with_momentum
from common.sums.fixed_point import UNIT, to_fixed_point
from common.sums.summand import Summand
from common.wire.envelope import Envelope
from common.wire.records import ModelUpdate

SHAPE = (3, 2)
START = {"w": np.ones(SHAPE, np.float32), "b": np.zeros(4, np.float32)}


def contribution(site: str, seed: int, samples: int) -> list[Envelope]:
    rng = np.random.default_rng(seed)
    delta = {name: rng.normal(size=a.shape).astype(np.float32) for name, a in START.items()}
    record = ModelUpdate(
        plan_fingerprint="ab" * 32,
        site=site,
        run="run-1",
        round=1,
        images=samples,
        samples=samples,
        transitions=1,
        updates=1,
    )
    return [Envelope(record, to_fixed_point(delta))]


def average(contributions):
    total = add_records("run-1", 1, contributions)
    return moved(START, mean_delta(total.group("ModelUpdate").summand))


def delta_of(envelopes, name):
    return envelopes[0].arrays[name] / UNIT


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_sites_answer_changes_no_bit(order):
    sites = {name: contribution(name, ord(name), 3 + ord(name) % 5) for name in "abcd"}
    expected, got = average(sites), average({name: sites[name] for name in order})
    for name in START:
        assert got[name].tobytes() == expected[name].tobytes()


@given(st.integers(1, 10_000))
def test_one_site_alone_gives_its_own_weights(samples):
    one = contribution("a", 1, samples)
    got = average({"a": one})
    for name in START:
        np.testing.assert_array_equal(
            got[name], (START[name] + delta_of(one, name)).astype(np.float32)
        )


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_weights_are_drawn_to_the_site_with_more_samples_in_proportion(m, n):
    first, second = contribution("a", 1, m), contribution("b", 2, n)
    expected = START["w"] + (m * delta_of(first, "w") + n * delta_of(second, "w")) / (m + n)
    np.testing.assert_allclose(average({"a": first, "b": second})["w"], expected, rtol=1e-6)


def test_nothing_to_average_is_an_error_and_not_a_division_by_zero():
    with pytest.raises(RefusedError, match="samples"):
        mean_delta(Summand({"samples": 0}, {"w": np.zeros(SHAPE, np.int64)}))


@given(st.lists(st.floats(-127.5, 127.5, width=32), min_size=1, max_size=20))
def test_fixed_point_is_off_by_half_a_unit_at_most(values):
    array = np.array(values, np.float32)
    fixed = to_fixed_point({"w": array})["w"]
    assert fixed.dtype == np.int32
    assert np.abs(fixed / UNIT - array.astype(np.float64)).max() <= 0.5 / UNIT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 128.0, -1e9])
def test_a_training_that_ran_away_cannot_be_released(value):
    with pytest.raises(RefusedError, match="weights/w") as caught:
        to_fixed_point({"w": np.array([0.0, value], np.float32)})
    assert str(value) not in str(caught.value).replace("128 in magnitude", "")


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

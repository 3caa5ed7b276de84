from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings import LearnerSettings
from site_client.agent.schedules import epsilon, learning_rate

KINDS = ["linear", "cosine", "step", "constant"]
shares = st.floats(0, 1)


def rates(kind, **asked):
    settings = LearnerSettings(learning_rate=0.01, learning_rate_schedule=kind, **asked)
    return lambda progress: learning_rate(settings, progress)


@pytest.mark.parametrize("kind", KINDS)
def test_every_schedule_begins_at_the_rate_and_ends_at_its_share(kind):
    rate = rates(kind, learning_rate_end=0.2)
    assert rate(0.0) == pytest.approx(0.01)
    end = 0.01 if kind == "constant" else 0.002
    assert rate(1.0) == pytest.approx(end)
    assert rate(7.5) == pytest.approx(end)


@given(kind=st.sampled_from(KINDS), a=shares, b=shares)
def test_no_schedule_ever_rises(kind, a, b):
    rate = rates(kind)
    assert rate(max(a, b)) <= rate(min(a, b)) + 1e-12


def test_the_halves_of_the_schedules_are_where_they_should_be():
    assert rates("linear", learning_rate_end=0.2)(0.5) == pytest.approx(0.006)
    assert rates("cosine", learning_rate_end=0.2)(0.5) == pytest.approx(0.006)
    assert rates("cosine", learning_rate_end=0.2)(0.1) > rates("linear", learning_rate_end=0.2)(0.1)


def test_steps_fall_by_equal_factors():
    rate = rates("step", learning_rate_end=0.001, learning_rate_steps=4)
    seen = [rate(p) for p in (0.0, 0.2499, 0.25, 0.4999, 0.5, 0.75, 1.0)]
    assert seen == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-5, 1e-5])


def test_exploration_falls_over_its_share_of_the_updates_and_then_stays():
    settings = LearnerSettings(epsilon_start=0.9, epsilon_end=0.1, epsilon_over=0.25)
    seen = [epsilon(settings, progress) for progress in (0.0, 0.125, 0.25, 1.0, 3.0)]
    assert seen == pytest.approx([0.9, 0.5, 0.1, 0.1, 0.1])

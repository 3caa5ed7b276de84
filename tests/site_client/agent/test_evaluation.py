from __future__ import annotations

import json

import numpy as np
import pytest

from common.errors import InputDataError
from common.model import initial_weights
from site_client.agent.federated import evaluate_weights, planned_learner, trace_search
from site_client.agent.tasks.triplanar import mean_positions


@pytest.fixture
def oracle(monkeypatch):
    """Put the true rewards in the network's place: what a perfect agent would know."""
    monkeypatch.setattr(
        "site_client.agent.search.network_values",
        lambda task, _network, at: task.rewards_of_all(at),
    )


def test_a_report_of_perfect_searches_says_so(plan, cases, oracle):
    report = evaluate_weights(
        initial_weights(plan), plan, cases, seed=1, prior=mean_positions(cases)
    )
    assert report.cases == 3
    assert set(report.posed) == set(report.native) == {"A", "B"}
    for summary in report.posed.values():
        assert summary.searches == 3 * 4 * 3
        assert summary.mean < 1
        assert summary.consensus < 1
        assert summary.share_above_10mm == 0
        assert summary.prior > 2
    assert report.native["A"].searches == 3 * 3
    assert report.mean < 1 < report.prior


def test_the_constant_predictor_is_the_mean_over_its_cases(plan, cases):
    mean = mean_positions(cases)
    offsets = [c.landmarks_mm - c.volume.centre_mm for c in cases]
    np.testing.assert_allclose(mean, np.mean(offsets, axis=0))
    report = evaluate_weights(initial_weights(plan), plan, cases, seed=1, prior=mean)
    wanted = np.linalg.norm(np.array(offsets)[:, 0] - mean[0], axis=1).mean()
    assert report.native["A"].prior == pytest.approx(wanted, abs=1e-4)


def test_without_a_prior_none_is_made_up(plan, cases):
    report = evaluate_weights(initial_weights(plan), plan, cases, seed=1)
    assert report.prior is None
    assert report.posed["A"].prior is None


def test_the_same_seed_compares_networks_on_the_same_searches(plan, cases):
    prior = mean_positions(cases)
    learner = planned_learner(plan, cases, seed=1)
    learner.train(3)
    weights = initial_weights(plan)
    one, two = (evaluate_weights(w, plan, cases, 5, prior) for w in (weights, learner.weights()))
    assert one.posed["A"].prior == two.posed["A"].prior
    assert evaluate_weights(weights, plan, cases, 5, prior) == one
    assert evaluate_weights(weights, plan, cases, 6, prior) != one


def test_a_report_is_json_and_names_no_case(plan, cases):
    report = evaluate_weights(
        initial_weights(plan), plan, cases, seed=1, prior=mean_positions(cases)
    )
    text = json.dumps(report.as_dict())
    assert "sub-" not in text
    assert json.loads(text)["posed"]["A"]["searches"] == 36


def test_a_trajectory_follows_one_search_in_the_image(plan, cases, oracle):
    path = trace_search(initial_weights(plan), plan, cases[2], landmark=1, seed=3)
    assert len(path.positions_mm) == len(path.levels) == len(path.errors_mm) > 3
    truth = cases[2].landmarks_mm[1]
    np.testing.assert_allclose(
        path.errors_mm, np.linalg.norm(path.positions_mm - truth, axis=1), atol=1e-4
    )
    assert path.errors_mm[-1] < 1
    assert (np.diff(path.levels) >= 0).all()
    assert cases[2].volume.contains(path.positions_mm).all()


def test_weights_of_another_plan_are_refused(plan, make_plan, cases):
    weights = initial_weights(make_plan(scales=(1.0,), steps_mm=(1.0,)))
    with pytest.raises(InputDataError, match="weights"):
        evaluate_weights(weights, plan, cases, seed=1)

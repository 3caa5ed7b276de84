from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from common.errors import InputDataError
from common.model import initial_weights
from site_client.agent import federated
from site_client.agent.evaluation import begin_warm, evaluate, mean_parameters
from site_client.agent.federated import planned_learner
from site_client.agent.search import follow
from site_client.agent_app.config import parse_config
from tests.tasks import planned_task, site_cases


def evaluate_weights(weights, plan, cases, seed, prior=None):
    """Under four poses and as acquired, which a round's evaluation leaves out."""
    task = planned_task(plan, cases)
    return federated.evaluate_weights(weights, plan, task, seed, prior, poses=4, native=True)


@pytest.fixture
def oracle(monkeypatch):
    """Put the true rewards in the network's place: what a perfect agent would know."""
    monkeypatch.setattr(
        "site_client.agent.search.network_values",
        lambda task, _network, at: task.rewards_of_all(at),
    )


def test_a_report_of_perfect_searches_says_so(plan, cases, oracle):
    prior = site_cases(plan, cases).prior
    report = evaluate_weights(initial_weights(plan), plan, cases, seed=1, prior=prior)
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
    mean = site_cases(plan, cases).prior
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
    prior = site_cases(plan, cases).prior
    learner = planned_learner(plan, planned_task(plan, cases), seed=1)
    learner.train(3)
    weights = initial_weights(plan)
    one, two = (evaluate_weights(w, plan, cases, 5, prior) for w in (weights, learner.weights()))
    assert one.posed["A"].prior == two.posed["A"].prior
    assert evaluate_weights(weights, plan, cases, 5, prior) == one
    assert evaluate_weights(weights, plan, cases, 6, prior) != one


def test_a_report_is_json_and_names_no_case(plan, cases):
    prior = site_cases(plan, cases).prior
    report = evaluate_weights(initial_weights(plan), plan, cases, seed=1, prior=prior)
    text = json.dumps(report.as_dict())
    assert "sub-" not in text
    assert json.loads(text)["posed"]["A"]["searches"] == 36


def test_what_is_followed_is_one_search_in_the_image(plan, cases):
    task, volume = planned_task(plan, [cases[2]]), cases[2].volume
    starts = task.starts(np.random.default_rng(3), 1, posed=False)
    path = follow(task, task.rewards_of_all, starts[starts["head"] == 1], plan.evaluation).steps
    assert len(path) > 3
    places = task.world_mm(path, volume.centre_mm[None])
    wanted = np.linalg.norm(places - cases[2].landmarks_mm[1], axis=1)
    np.testing.assert_allclose(task.errors(path), wanted, atol=1e-4)
    assert wanted[-1] < 1
    assert (np.diff(path["level"].astype(int)) >= 0).all()
    assert volume.contains(places).all()


def test_a_round_is_measured_as_its_plan_says(make_plan, cases):
    for poses, starts in ((1, 3), (2, 1)):
        plan = make_plan(evaluation={"poses": poses, "starts": starts})
        task = planned_task(plan, cases)
        report = federated.evaluate_weights(initial_weights(plan), plan, task, seed=1)
        assert report.native == {}
        assert {row.searches for row in report.posed.values()} == {3 * poses * starts}


def test_a_task_that_is_not_the_plans_is_refused(plan, make_plan, cases):
    weights = initial_weights(plan)
    alone = [dataclasses.replace(case, landmarks_mm=case.landmarks_mm[:1]) for case in cases]
    for changed, some in (({"roi": 15}, cases), ({"landmarks": ("A",)}, alone)):
        task = planned_task(make_plan(task=changed), some)
        with pytest.raises(InputDataError, match="not what the plan looks at"):
            federated.evaluate_weights(weights, plan, task, seed=1)
        with pytest.raises(InputDataError, match="not what the plan looks at"):
            planned_learner(plan, task, seed=1)


def test_weights_of_another_plan_are_refused(plan, make_plan, cases):
    weights = initial_weights(make_plan(ladder={"scales": (1.0,), "steps_mm": (1.0,)}))
    with pytest.raises(InputDataError, match="weights"):
        evaluate_weights(weights, plan, cases, seed=1)


def test_a_warm_start_begins_near_the_mean_position_and_takes_fewer_steps(plan, cases):
    task = planned_task(plan, cases)
    prior = mean_parameters(task)
    cold = task.starts(np.random.default_rng(5), 6, posed=False)
    warm = begin_warm(task, cold.copy(), prior, np.random.default_rng(6))
    far = np.linalg.norm(task.parameters(warm) - prior[warm["head"].astype(int)], axis=1)
    coarsest = plan.ladder.steps_mm[0]
    assert far.max() <= 4 * coarsest + 1e-3
    assert len(np.unique(task.parameters(warm), axis=0)) > len(warm) / 3, "starts differ"
    assert (warm["level"] == 0).all()
    assert task.errors(warm).mean() < task.errors(cold).mean()
    settings = plan.evaluation.model_copy(update={"warm_start": True, "native": True})
    report = evaluate(task, task.rewards_of_all, settings, 1, prior)
    assert report.mean < 1.0
    with pytest.raises(InputDataError, match=r"evaluation\.warm_start"):
        evaluate(task, task.rewards_of_all, settings, 1)


@pytest.mark.parametrize(
    "sections",
    [
        {"task": {"kind": "box-2d"}},
        {"task": {"kind": "registration-2d"}},
        {"learner": {"method": "displacement"}},
    ],
)
def test_a_warm_start_is_for_searches_by_steps_from_a_place(sections):
    with pytest.raises(InputDataError, match=r"evaluation\.warm_start"):
        parse_config(sections | {"evaluation": {"warm_start": True}})

"""Training and measuring one agent of these studies."""

from __future__ import annotations

from common.settings import EvaluationSettings, LearnerSettings, NetworkSettings
from site_client.agent.evaluation import ErrorSummary, evaluate, mean_parameters
from site_client.agent.task import Task
from tests.benchmarks.agent_results.training import Fitted, Recipe, fit

NETWORK = NetworkSettings(architecture="planar", width=8)


def learned(
    training: Task, testing: Task, evaluation: EvaluationSettings, seed: int, **learner: object
) -> dict[str, object]:
    """Train one agent and measure it beside the answer that never looks."""
    recipe = Recipe(NETWORK, LearnerSettings(**learner), evaluation)
    return measured(fit(training, recipe, seed), training, testing, evaluation, seed)


def measured(
    fitted: Fitted, training: Task, testing: Task, evaluation: EvaluationSettings, seed: int
) -> dict[str, object]:
    """Give the figures of a trained agent on held-out cases."""
    prior = mean_parameters(training)
    report = evaluate(testing, fitted.network, evaluation, 1000 + seed, prior=prior)
    result: dict[str, object] = {"cpu_s": fitted.cpu_s, "updates": fitted.updates}
    for pose, heads in (("posed", report.posed), ("native", report.native)):
        if heads:
            result[pose] = summary(next(iter(heads.values())))
    return result


def summary(errors: ErrorSummary) -> dict[str, object]:
    """Write errors without names that depend on a unit."""
    kept = ("unit", "searches", "mean", "median", "std", "consensus", "prior")
    return {name: getattr(errors, name) for name in kept} | {"further": dict(errors.further)}

"""What a model is worth to a hospital that comes later: updates until 3 mm, from it and without.

Three sites train a federation's model by displacements; a fourth, whose images none of them
had, then trains alone: from first weights, or from the model. Each seed draws which X-rays
are whose and which are held out of all training, and the first weights. The settings are
those of the study of a quarter of a minute, chosen on other X-rays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.model import Weights
from site_client.agent.evaluation import evaluate
from site_client.agent.learner import Learner
from site_client.agent.network import get_weights, set_weights
from site_client.agent.tasks.landmark2d import Cases2D, build_cases_2d
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.short_studies import short_task
from tests.benchmarks.agent_results.studies import METHODS, PLANAR, Job, planar_prior
from tests.benchmarks.agent_results.training import Recipe, federate

SITES, EACH, HELD_OUT = 3, 24, 24
ROUNDS, FEDERATED_UPDATES = 5, 500
UPDATES, EVERY, WANTED_MM = 1000, 50, 3.0
METHOD = "displacement"
STARTS = ("first weights", "the federation's model")
_FEW = PLANAR.evaluation.model_copy(update={"starts": 1, "native": False})


def new_site(seeds: list[int]) -> Iterator[Job]:
    """Both ways of beginning, for each seed with one federation."""
    for seed in seeds:

        def job(seed: int = seed) -> dict[str, object]:
            return _job(seed)

        yield f"seed{seed}", job


def _job(seed: int) -> dict[str, object]:
    cases, _, _ = data.cephalogram_cases((SITES + 1) * EACH + HELD_OUT)
    built = build_cases_2d(cases, 0.3)
    drawn = np.random.default_rng(seed).permutation(len(built))
    *sites, newcomer, testing = (
        built.subset(np.sort(part)) for part in np.split(drawn, EACH * np.arange(1, SITES + 2))
    )
    model = federate(
        [short_task(site, METHOD) for site in sites],
        _recipe(FEDERATED_UPDATES),
        seed,
        ROUNDS,
    )
    begun = {STARTS[0]: None, STARTS[1]: get_weights(model.network)}
    return {
        "cpu_s": model.cpu_s,
        "prior": _measured(testing, newcomer, model.network, seed)[1],
        "errors": {name: _course(newcomer, testing, w, seed) for name, w in begun.items()},
    }


def _recipe(updates: int) -> Recipe:
    recipe = PLANAR.planned(updates=updates, warmup=500, **METHODS[METHOD])
    return Recipe(recipe.network, recipe.learner, _FEW)


def _course(
    newcomer: Cases2D, testing: Cases2D, begun: Weights | None, seed: int
) -> list[tuple[int, float]]:
    """Mean error on the held-out images, posed, mm, by how many updates the newcomer made."""
    task, recipe = short_task(newcomer, METHOD), _recipe(UPDATES)
    network = recipe.network_for(task, 1000 + seed)
    if begun is not None:
        set_weights(network, begun)
    learner = Learner(task, network, recipe.learner, 1000 + seed)
    course = [(0, _measured(testing, newcomer, network, seed)[0])]
    while learner.updates < UPDATES:
        learner.train(EVERY)
        course.append((learner.updates, _measured(testing, newcomer, network, seed)[0]))
    return course


def _measured(
    testing: Cases2D, newcomer: Cases2D, network: object, seed: int
) -> tuple[float, float | None]:
    task, prior = short_task(testing, METHOD), planar_prior(newcomer)
    report = evaluate(task, network, _FEW, 1000 + seed, prior=prior)
    return report.mean, report.prior


def updates_until(course: list[tuple[int, float]], wanted_mm: float) -> int | None:
    """Updates after which the error was no larger for the first time; None where it never was."""
    return next((updates for updates, error in course if error <= wanted_mm), None)

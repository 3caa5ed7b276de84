"""A quarter of a minute of one processor for each method: what is learned when little is given.

Sixty X-rays, every fifth held out. Settings of displacements (loss, rate, ladder) were chosen
on sixty others. Gradient steps are such that each method takes about the same processor
seconds; what it took stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Cases2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.views import Views
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.heatmap_studies import planar_stages
from tests.benchmarks.agent_results.heatmaps import fit_heatmaps, measure
from tests.benchmarks.agent_results.studies import (
    METHODS,
    PLANAR,
    PLANAR_POSES,
    PLANAR_REACH,
    Job,
    planar_prior,
    planar_task,
)
from tests.benchmarks.agent_results.training import Recipe, figures_of, fit, judge

FIRST, IMAGES = 60, 60
# Displacements: fewer levels, so that so few updates are enough for each; chosen on the sixty
# others. With the four of DQN seed 0 gives 4.2 mm in place of 3.1.
LADDER = Ladder(strides_mm=(3.2, 1.1, 0.4), steps_mm=(8.0, 2.5, 0.5))
VIEWS = Views.multiscale(zooms=(1.0, 3.0), roi=33)
REACH = PLANAR_REACH[: len(LADDER)]
UPDATES = {"DQN": 330, "path supervision": 400, "displacement": 500, "heatmap": 35}


def short(seeds: list[int]) -> Iterator[Job]:
    """48 X-rays to learn from, 12 to be measured on."""
    for seed in seeds:
        for method, updates in UPDATES.items():

            def job(
                seed: int = seed, method: str = method, updates: int = updates
            ) -> dict[str, object]:
                return _job(method, updates, seed)

            yield f"{method}/seed{seed}", job


def _job(method: str, updates: int, seed: int) -> dict[str, object]:
    cases, _, _ = data.cephalogram_cases(FIRST + IMAGES)
    built = build_cases_2d(cases[FIRST:], 0.3)
    held = np.arange(len(built)) % 5 == 0
    training = built.subset(np.flatnonzero(~held))
    testing = built.subset(np.flatnonzero(held))
    names, prior = data.CEPHALOGRAM_LANDMARKS, planar_prior(training)
    # One start: what starts agree on is the same within a hair for displacements.
    few = PLANAR.evaluation.model_copy(update={"starts": 1})
    if method == "heatmap":
        fitted = fit_heatmaps(planar_stages(training), updates, seed, width=12)
        stages = planar_stages(testing)
        searched = measure(planar_task(testing), stages, fitted, few, 1000 + seed, prior)
        result: dict[str, object] = {p: figures_of(s, names) for p, s in searched.items()}
        return result | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}
    recipe = PLANAR.planned(updates=updates, warmup=500, **METHODS[method])
    recipe = Recipe(recipe.network, recipe.learner, few)
    way = recipe.learner.method
    agent = fit(short_task(training, way), recipe, seed)
    task = short_task(testing, way)
    result, _ = judge(task, agent.network, recipe, seed, prior, names)
    return result | {"cpu_s": agent.cpu_s, "updates": agent.updates}


def short_task(cases: Cases2D, method: str) -> Landmark2D:
    """The search of a method that is given little."""
    if method == "displacement":
        return Landmark2D(cases, LADDER, VIEWS, PLANAR_POSES, (), REACH)
    return planar_task(cases, method=method)

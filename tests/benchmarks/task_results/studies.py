"""The studies: what is trained on, what is held out, by which learners.

Made cases of training and of measuring come from different seeds. DQN is Double DQN after
a warm start of path supervision; path supervision regresses immediate rewards in all
updates. Both have the same network, updates, starts and poses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from common.settings import (
    CentrelineSettings,
    EvaluationSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from site_client.agent.evaluation import ErrorSummary, evaluate, mean_parameters
from site_client.agent.task import Task
from site_client.agent.tasks.centreline import Centreline, CentrelineCase
from site_client.imaging.pyramids import Raster
from tests.benchmarks.agent_results.training import Fitted, Recipe, federate, fit
from tests.made.vessels import make_vessel

Job = Callable[[], dict[str, object]]
NETWORK = NetworkSettings(architecture="planar", width=8)
LEARNERS: dict[str, dict[str, Any]] = {
    "path supervision": {"path_supervision_only": True},
    "DQN": {"warm_start": 0.5},
}


@dataclass(frozen=True)
class Study:
    """One study: its jobs by name, and the data that it lacks here ("" where none)."""

    jobs: Callable[[list[int]], Iterator[tuple[str, Job]]]
    absent: Callable[[], str] = lambda: ""


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


# --- centrelines -------------------------------------------------------------------------

_VESSELS, _HELD_OUT, _SITES = 30, 20, 3
TRACING = EvaluationSettings(starts=3, poses=1, native=True, most_steps=120)
TRACE: dict[str, object] = {"updates": 600, "replay_capacity": 20_000}


@cache
def vessels(dim: int, seed: int, count: int) -> tuple[CentrelineCase, ...]:
    """Made vessels of 64 mm a side, each with its line."""
    rng, cases = np.random.default_rng([dim, seed]), []
    for k in range(count):
        vessel = make_vessel(rng, dim)
        middle = (np.array(vessel.pixels.shape[::-1]) - 1) / 2
        raster = Raster(vessel.pixels[None], (1.0,) * dim, np.eye(dim))
        cases.append(CentrelineCase(str(k), raster, (vessel.line - middle,)))
    return tuple(cases)


def tracing(cases: Sequence[CentrelineCase]) -> Centreline:
    """Lay vessels out for tracing, as the kind's defaults do."""
    return Centreline(cases, CentrelineSettings(), PoseSettings())


def centrelines(seeds: list[int]) -> Iterator[tuple[str, Job]]:
    """Made vessels in two and in three dimensions; in three also as a federation."""
    for dim in (2, 3):
        for seed in seeds:
            for name, how in LEARNERS.items():

                def job(dim: int = dim, seed: int = seed, how: dict = how) -> dict[str, object]:
                    training = tracing(vessels(dim, 10 + seed, _VESSELS))
                    testing = tracing(vessels(dim, 100 + seed, _HELD_OUT))
                    return learned(training, testing, TRACING, seed, **TRACE, **how)

                yield f"{dim}D/{name}/seed{seed}", job

    for seed in seeds:

        def together(seed: int = seed) -> dict[str, object]:
            cases, each = vessels(3, 10 + seed, _VESSELS), _VESSELS // _SITES
            sites = [tracing(cases[k * each : (k + 1) * each]) for k in range(_SITES)]
            recipe = Recipe(NETWORK, LearnerSettings(**TRACE, **LEARNERS["DQN"]), TRACING)
            fitted = federate(sites, recipe, seed, rounds=6)
            testing = tracing(vessels(3, 100 + seed, _HELD_OUT))
            return measured(fitted, tracing(cases), testing, TRACING, seed)

        yield f"3D/DQN, federated/seed{seed}", together


STUDIES = {"centrelines": Study(centrelines)}

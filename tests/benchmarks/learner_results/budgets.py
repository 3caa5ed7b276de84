"""Learners and networks with equal budgets of processor time, on images that were held out.

How many updates fit into a budget is measured first, by some updates of the same learner
on the same task; schedules then run over that many. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from common.settings import EvaluationSettings, LadderSettings, LearnerSettings, NetworkSettings
from site_client.agent.evaluation import begin_warm
from site_client.agent.learner import Learner
from site_client.agent.networks import QNetwork
from site_client.agent.search import greedy_search
from site_client.agent.task import Situations, Task
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Cases2D, Landmark2D
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.views import Views
from tests.benchmarks.agent_results import data, studies
from tests.benchmarks.agent_results.training import Recipe, judge

Job = studies.Job
LEARNERS: dict[str, dict[str, object]] = {
    "DQN": {},
    "path supervision": {"path_supervision_only": True, "warm_start": 0.0},
    "partial policies": {"method": "partial-policy"},
    "axis supervision": {
        "method": "partial-policy",
        "path_supervision_only": True,
        "warm_start": 0.0,
    },
    "DQN, cold": {"warm_start": 0.0},
    "partial policies, cold": {"method": "partial-policy", "warm_start": 0.0},
}
XRAY_S, HEAD_S, VOLUME_S = 25.0, 12.0, 60.0
_FEW = EvaluationSettings(starts=3, poses=1, native=True, most_steps=120)
_FIVE = EvaluationSettings(starts=5, poses=2, native=True, most_steps=80)
_TIMED = 12  # updates
FEWEST = 20
"""Updates of a network that is too dear for its budget."""
ENDS = (
    ("as they are", False, False),
    ("active termination", True, False),
    ("warm start", False, True),
    ("both", True, True),
)


def learners(seeds: list[int]) -> Iterator[Job]:
    """DQN, path supervision and partial policies; X-rays, and one head of four left out."""
    names = list(LEARNERS)
    # The three that are compared first, for all seeds; then what takes something away.
    for group in (names[:3], names[3:]):
        for seed in seeds:
            for name in group:
                recipe = studies.PLANAR.planned(**LEARNERS[name])
                yield f"cephalograms/{name}/seed{seed}", _xrays(recipe, seed)
            for name in group:
                recipe = studies.VOLUME.planned(**LEARNERS[name])
                yield f"brain/{name}/seed{seed}", _heads(recipe, seed)


def networks(seeds: list[int]) -> Iterator[Job]:
    """The published networks with the same budgets; each beside our light one."""
    for seed in seeds:
        for name, network in (
            ("planar", studies.PLANAR.network),
            ("planar, dueling", NetworkSettings(architecture="planar", width=24, dueling=True)),
            ("paper2d", NetworkSettings(architecture="paper2d")),
        ):
            recipe = Recipe(network, studies.PLANAR.learner, _FEW)
            yield f"cephalograms/{name}/seed{seed}", _xrays(recipe, seed)
        fixed = Ladder((1.2,), (0.8,))
        yield f"cephalograms/planar, fixed scale/seed{seed}", _xrays(studies.PLANAR, seed, fixed)
        for name in ("volume-light", "network3d", "commnet", "collab"):
            yield f"brain/{name}/seed{seed}", _volumes(name, seed)


def _xrays(recipe: Recipe, seed: int, ladder: Ladder = studies.PLANAR_LADDER) -> Callable[[], dict]:
    """Case k of 150 is held out where k mod 20 is the seed."""

    def job() -> dict[str, object]:
        whole = _cephalograms()
        held_out = [k for k in range(len(whole)) if k % 20 == seed % 20]
        training = whole.subset([k for k in range(len(whole)) if k not in held_out])

        def task(cases: Cases2D) -> Landmark2D:
            return Landmark2D(cases, ladder, studies.PLANAR_VIEWS, studies.PLANAR_POSES)

        return _fitted(
            task(training),
            task(whole.subset(held_out)),
            Recipe(recipe.network, recipe.learner, _FEW),
            seed,
            XRAY_S,
            studies.planar_prior(training),
            data.CEPHALOGRAM_LANDMARKS,
        )

    return job


def _heads(recipe: Recipe, seed: int) -> Callable[[], dict]:
    """The head whose number the seed is, modulo four, is held out."""

    def job() -> dict[str, object]:
        training, held_out = _divided(seed)
        return _fitted(
            studies.volume_task(training),
            studies.volume_task([held_out]),
            Recipe(recipe.network, recipe.learner, _FIVE),
            seed,
            HEAD_S,
            studies.volume_prior(training),
            data.BRAIN_LANDMARKS,
        )

    return job


def _volumes(name: str, seed: int) -> Callable[[], dict]:
    """True 3D: one agent for the light network and network3d, teams of all landmarks else."""

    def job() -> dict[str, object]:
        training, held_out = _divided(seed)
        team = name in ("commnet", "collab")
        settings = LadderSettings()
        ladder = Ladder(settings.scales, settings.steps_mm)

        def task(cases: list) -> Task:
            views = Views(45, (1.0,), 1)
            cube = Landmark3D(build_cases_3d(cases, 1.0), ladder, views, studies.VOLUME_POSES)
            return MultiAgent(cube, [list(range(cube.heads))]) if team else cube

        learner = LearnerSettings(
            gamma=0.3,
            warm_start=0.5,
            learning_rate_end=0.05,
            batch=8 if team else 32,
            searches=4 if team else 16,
            warmup=100,
        )
        evaluation = EvaluationSettings(starts=2, poses=1, native=True, most_steps=40)
        prior = studies.volume_prior(training)
        return _fitted(
            task(training),
            task([held_out]),
            Recipe(NetworkSettings(architecture=name, width=8), learner, evaluation),
            seed,
            VOLUME_S,
            prior[None] if team else prior,
            data.BRAIN_LANDMARKS,
        )

    return job


def _fitted(
    task: Task,
    held_out: Task,
    recipe: Recipe,
    seed: int,
    budget_s: float,
    prior: np.ndarray,
    names: tuple[str, ...],
) -> dict[str, object]:
    """Measure how many updates fit into a budget, train them, and judge what came of it."""
    updates = max(FEWEST, round(budget_s / _seconds_per_update(task, recipe, seed)))
    recipe = recipe.planned(updates=updates)
    network = recipe.network_for(task, seed)
    began = time.process_time()
    Learner(task, network, recipe.learner, seed).train(updates)
    spent = time.process_time() - began
    result, _ = judge(held_out, network.eval(), recipe, seed, prior, names)
    if recipe.learner.method == "dqn":
        result["termination"] = _terminated(held_out, network, recipe.evaluation, seed, prior)
    weights = sum(value.numel() for value in network.state_dict().values())
    return {
        **result,
        "budget_s": budget_s,
        "trained_s": round(spent, 1),
        "updates": updates,
        "weights": weights,
    }


def _terminated(
    task: Task, network: QNetwork, settings: EvaluationSettings, seed: int, prior: np.ndarray
) -> dict[str, dict[str, float]]:
    """Give steps and error of single searches as acquired: as they are, ended, begun otherwise."""
    found = {}
    for name, active, warm in ENDS:
        rng = np.random.Generator(np.random.PCG64(seed))
        start = task.starts(rng, 1, posed=False)
        if warm:
            start = begin_warm(task, start, prior, rng)
        visited: list[Situations] = []
        changed = settings.model_copy(update={"active_termination": active})
        ended = greedy_search(task, network, start, changed, visited)
        steps = (len(start) + sum(map(len, visited))) / len(start)
        found[name] = {"steps": float(steps), "error": float(task.errors(ended).mean())}
    return found


def _seconds_per_update(task: Task, recipe: Recipe, seed: int) -> float:
    """Take the time of some updates; half of them as a warm start would make them."""
    recipe = recipe.planned(updates=2 * _TIMED, warmup=recipe.learner.searches)
    learner = Learner(task, recipe.network_for(task, seed), recipe.learner, seed)
    learner.train(2)  # compiled functions are loaded, memory is taken
    began = time.process_time()
    learner.train(2 * _TIMED - 2)
    return (time.process_time() - began) / (2 * _TIMED - 2)


@cache
def _cephalograms() -> Cases2D:
    return data.cephalograms().cases


@cache
def _all_heads() -> dict:
    return data.heads()


def _divided(seed: int) -> tuple[list, object]:
    heads = list(_all_heads().values())
    held_out = heads.pop(seed % len(heads))
    return heads, held_out
